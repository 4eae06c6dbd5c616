#include "server/commands.h"

#include "base/log.h"
#include "base/workdir.h"
#include "control/message.h"
#include "control/path.h"
#include "server/listeners.h"
#include "server/reload.h"
#include "worker/worker.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BACKLOG = 64, WAITS = CONTROL_CLIENTS_MAX + CONTROL_RESERVE };

static void commands_answer(struct commands *commands, uint64_t client, json_t *reply)
{
	control_reply(&commands->control, client, reply);
}

static void answer_error(struct commands *commands, uint64_t client, const char *code, const char *why)
{
	commands_answer(commands, client, message_error(code, why));
}

/* ---- waiting ---- */

/*
 * Those who have a place in the reserve do not wait. Others have one request at a time, and whoever leaves waits no
 * more, so there is room for each.
 */
static void wait_for(struct commands *commands, struct wait wait)
{
	for (unsigned i = 0; i < WAITS; i++) {
		if (commands->waits[i].client)
			continue;
		commands->waits[i] = wait;
		return;
	}
	assert(false && "a client for each wait");
}

/* ---- looking ---- */

static void do_status(struct commands *commands, uint64_t client, const json_t *request)
{
	(void)request;
	struct server_view view = commands->view(commands->server);
	json_t *reply = message_ok();
	message_set_text(reply, "control", commands->path);
	status_add_all(reply, &view);
	commands_answer(commands, client, reply);
}

static void do_generations(struct commands *commands, uint64_t client, const json_t *request)
{
	(void)request;
	struct server_view view = commands->view(commands->server);
	json_t *reply = message_ok();
	status_add_generations(reply, &view);
	commands_answer(commands, client, reply);
}

/* ---- reload ---- */

static json_t *reply_of_outcome(const struct commands *commands, const struct reload_outcome *outcome)
{
	static const char *const CODES[] = { [RELOAD_FAILED] = "reload_failed",
					     [RELOAD_REFUSED] = "reload_refused",
					     [RELOAD_WITHDRAWN] = "reload_withdrawn" };
	json_t *reply =
	    outcome->end == RELOAD_DONE ? message_ok() : message_error(CODES[outcome->end], outcome->text);
	json_object_set_new(reply, "reload", status_outcome(outcome));
	struct server_view view = commands->view(commands->server);
	if (outcome->end == RELOAD_DONE)
		status_add_generations(reply, &view);
	return reply;
}

void commands_reloaded(struct commands *commands, const struct reload_outcome *outcome)
{
	for (unsigned i = 0; i < WAITS; i++) {
		struct wait *wait = &commands->waits[i];
		if (!wait->client || wait->kind != WAIT_RELOAD || wait->reload != outcome->number)
			continue;
		commands_answer(commands, wait->client, reply_of_outcome(commands, outcome));
		wait->client = 0;
	}
}

void commands_joined(struct commands *commands, uint64_t number, uint64_t other)
{
	for (unsigned i = 0; i < WAITS; i++) {
		struct wait *wait = &commands->waits[i];
		if (wait->client && wait->kind == WAIT_RELOAD && wait->reload == number)
			wait->reload = other;
	}
}

/* False: explained. */
static bool policy_in(const json_t *request, enum reload_policy *policy, char *why, size_t size)
{
	const char *name = json_string_value(json_object_get(request, "policy"));
	*policy = RELOAD_AS_CONFIGURED;
	if (!name || reload_policy_of(name, policy))
		return true;
	snprintf(why, size, "\"policy\" is to be \"pin\", \"migrate\" or \"drain\", not \"%.40s\"", name);
	return false;
}

static void do_reload(struct commands *commands, uint64_t client, const json_t *request)
{
	enum reload_policy policy;
	char bad[128];
	if (!policy_in(request, &policy, bad, sizeof bad)) {
		answer_error(commands, client, "bad_request", bad);
		return;
	}
	const char *why = NULL;
	uint64_t number = commands->reload(commands->server, policy, &why);
	struct server_view view = commands->view(commands->server);
	if (!number) {
		answer_error(commands, client, "reload_refused", why);
	} else if (view.reloads->last.number >= number) {
		commands_answer(commands, client, reply_of_outcome(commands, &view.reloads->last));
	} else if (message_flag(request, "wait")) {
		wait_for(commands, (struct wait){ client, WAIT_RELOAD, number });
	} else {
		json_t *reply = message_ok();
		json_object_set_new(reply, "reload", json_pack("{s:I}", "number", (json_int_t)number));
		commands_answer(commands, client, reply);
	}
}

/* ---- upgrade ---- */

static json_t *reply_of_upgrade(int pid, const char *why)
{
	if (why)
		return message_error("upgrade_failed", why);
	json_t *reply = message_ok();
	json_object_set_new(reply, "upgrade", json_pack("{s:s,s:i}", "outcome", "upgraded", "pid", pid));
	return reply;
}

void commands_upgraded(struct commands *commands, int pid, const char *why)
{
	for (unsigned i = 0; i < WAITS; i++) {
		struct wait *wait = &commands->waits[i];
		if (!wait->client || wait->kind != WAIT_UPGRADE)
			continue;
		commands_answer(commands, wait->client, reply_of_upgrade(pid, why));
		wait->client = 0;
	}
}

/* The wait of that client for an upgrade, or NULL. */
static struct wait *upgrade_wait(struct commands *commands, uint64_t client)
{
	for (unsigned i = 0; i < WAITS; i++)
		if (commands->waits[i].client == client && commands->waits[i].kind == WAIT_UPGRADE)
			return &commands->waits[i];
	return NULL;
}

/* Waits beforehand, as the upgrade may fail at once; then that is the answer, wanted or not. */
static void do_upgrade(struct commands *commands, uint64_t client, const json_t *request)
{
	wait_for(commands, (struct wait){ client, WAIT_UPGRADE, 0 });
	const char *refused = commands->upgrade(commands->server);
	struct wait *wait = upgrade_wait(commands, client);
	if (!wait || (!refused && message_flag(request, "wait")))
		return;
	wait->client = 0;
	if (refused)
		answer_error(commands, client, "upgrade_refused", refused);
	else
		commands_answer(commands, client, message_ok());
}

/* ---- the log file ---- */

static void do_reopen(struct commands *commands, uint64_t client, const json_t *request)
{
	char why[CONTROL_LINE_MAX];
	(void)request;
	(void)workdir_follow();
	int err = log_reopen();
	if (err && !log_path()) {
		answer_error(commands, client, "no_log_file",
			     "there is no log file to reopen: log.file is not set");
	} else if (err) {
		snprintf(why, sizeof why, "cannot reopen the log file, the old one is kept: %s: %s",
			 log_path(), log_file_error(err));
		answer_error(commands, client, "reopen_failed", why);
	} else {
		json_t *reply = message_ok();
		message_set_text(reply, "log_file", log_path());
		commands_answer(commands, client, reply);
	}
}

/* ---- stop ---- */

static void commands_do_stop(struct commands *commands, uint64_t client, const json_t *request)
{
	commands->stop(commands->server, message_flag(request, "now"));
	if (message_flag(request, "wait") && control_is_reserve(&commands->control, client)) {
		answer_error(
		    commands, client, "busy",
		    "the server stops; but too many control clients wait for this one to wait as well");
		return;
	}
	if (message_flag(request, "wait")) {
		wait_for(commands, (struct wait){ client, WAIT_END, 0 });
		return;
	}
	struct server_view view = commands->view(commands->server);
	json_t *reply = message_ok();
	message_set_text(reply, "stage", view.stage);
	commands_answer(commands, client, reply);
}

/* ---- kick ---- */

void commands_evicted(struct commands *commands, struct report *report)
{
	kicks_evicted(&commands->kicks, report);
}

static void do_kick(struct commands *commands, uint64_t client, const json_t *request)
{
	struct server_view view = commands->view(commands->server);
	kicks_begin(&commands->kicks, client, (uint64_t)json_integer_value(json_object_get(request, "conn")),
		    json_string_value(json_object_get(request, "reason")), (struct worker *)view.workers,
		    view.worker_count);
}

/* ---- record ---- */

enum { RECORD_LEAST_BYTES = 16384 };

static void do_record(struct commands *commands, uint64_t client, const json_t *request)
{
	const char *listener = json_string_value(json_object_get(request, "listener"));
	struct recorder_limits limits = {
		.bytes = (uint64_t)json_integer_value(json_object_get(request, "max_bytes")),
		.ms = (uint64_t)json_integer_value(json_object_get(request, "ms"))
	};
	char why[2048];
	if (limits.bytes && limits.bytes < RECORD_LEAST_BYTES) {
		answer_error(commands, client, "bad_request", "\"max_bytes\" is to be 16384 at least");
		return;
	}
	const char *refused = commands->record(commands->server, client, listener, limits, why, sizeof why);
	if (refused)
		answer_error(commands, client, "record_refused", refused);
}

static void on_stream(void *owner, uint64_t client, enum stream_event event)
{
	struct commands *commands = owner;
	commands->stream(commands->server, client, event);
}

/* ---- requests ---- */

static const struct message_field
    NOTHING[] = { { 0 } },
    RELOAD[] = { { "wait", MESSAGE_BOOLEAN, false }, { "policy", MESSAGE_TEXT, false }, { 0 } },
    STOP[] = { { "now", MESSAGE_BOOLEAN, false }, { "wait", MESSAGE_BOOLEAN, false }, { 0 } },
    UPGRADE[] = { { "wait", MESSAGE_BOOLEAN, false }, { 0 } },
    RECORD[] = { { "listener", MESSAGE_TEXT, false },
		 { "max_bytes", MESSAGE_NUMBER, false },
		 { "ms", MESSAGE_NUMBER, false },
		 { 0 } },
    KICK[] = { { "conn", MESSAGE_NUMBER, true }, { "reason", MESSAGE_TEXT, false }, { 0 } };

/* How long its client stays: until the reply, and that may come late. STAYS_IF_ASKED: where "wait" is true. */
enum stay { STAYS_NOT, STAYS_IF_ASKED, STAYS };

static const struct command {
	const char *name;
	const struct message_field *fields;
	void (*run)(struct commands *commands, uint64_t client, const json_t *request);
	enum stay stay;
} COMMANDS[] = {
	{ "status", NOTHING, do_status, STAYS_NOT },
	{ "generations", NOTHING, do_generations, STAYS_NOT },
	{ "reload", RELOAD, do_reload, STAYS_IF_ASKED },
	{ "upgrade", UPGRADE, do_upgrade, STAYS_IF_ASKED },
	{ "reopen", NOTHING, do_reopen, STAYS_NOT },
	{ "stop", STOP, commands_do_stop,
	  STAYS_NOT }, /* it is heard in any case, and sees to its own waiting */
	{ "kick", KICK, do_kick, STAYS },
	{ "record", RECORD, do_record, STAYS },
};

static bool may_run(struct commands *commands, uint64_t client, const struct command *command,
		    const json_t *request)
{
	bool stays =
	    command->stay == STAYS || (command->stay == STAYS_IF_ASKED && message_flag(request, "wait"));
	return !stays || !control_is_reserve(&commands->control, client);
}

static void commands_run(struct commands *commands, uint64_t client, const json_t *request)
{
	const char *name = json_string_value(json_object_get(request, "command"));
	char why[128];
	for (size_t i = 0; i < sizeof COMMANDS / sizeof *COMMANDS; i++) {
		if (strcmp(COMMANDS[i].name, name) != 0)
			continue;
		if (!message_check(request, COMMANDS[i].fields, why, sizeof why))
			answer_error(commands, client, "bad_request", why);
		else if (may_run(commands, client, &COMMANDS[i], request))
			COMMANDS[i].run(commands, client, request);
		else
			answer_error(commands, client, "busy",
				     "too many control clients wait: only what need not wait is done now");
		return;
	}
	snprintf(why, sizeof why, "unknown command \"%.40s\"", name);
	answer_error(commands, client, "unknown_command", why);
}

/* Nobody waits any more for what it has waited for; what it has asked for is done all the same. */
static void commands_on_gone(void *owner, uint64_t client)
{
	struct commands *commands = owner;
	for (unsigned i = 0; i < WAITS; i++)
		if (commands->waits[i].client == client)
			commands->waits[i].client = 0;
	kicks_forget(&commands->kicks, client);
}

static void on_request(void *owner, uint64_t client, const char *line, size_t len)
{
	struct commands *commands = owner;
	char why[256];
	json_t *request = message_parse(line, len, why, sizeof why);
	if (request)
		commands_run(commands, client, request);
	else
		answer_error(commands, client, "bad_request", why);
	json_decref(request);
}

/* ---- life ---- */

/* Where the socket is to be, in commands->path. 0, or -1 with an explanation. */
static int find_path(struct commands *commands, const struct config *config, char *why, size_t size)
{
	if (!strcmp(config->control, "auto"))
		return control_path_default(config->script, commands->path, why, size);
	int n = snprintf(commands->path, sizeof commands->path, "%s", config->control);
	if (n < 0 || (size_t)n >= sizeof commands->path) {
		snprintf(why, size, "%s: the path is too long for a Unix socket", config->control);
		return -1;
	}
	return 0;
}

/* Nobody can connect before it listens, and by then its mode is what it is to be. */
static int bind_path(struct commands *commands, struct inheritance *inheritance, char *why, size_t size)
{
	struct listener *listener = &commands->listener;
	const struct listener_config *config = &commands->listener_config;
	commands->listener_config = (struct listener_config){ .address = commands->path,
							      .kind = LISTENER_UNIX,
							      .path = commands->path,
							      .mode = 0600,
							      .backlog = BACKLOG };
	struct inherited *inherited = inheritance_find(inheritance, config);
	int failed = inherited ? listener_adopt(listener, config, inherited, why, size)
			       : listener_bind(listener, config, why, size);
	if (failed)
		listener_close(listener);
	return failed;
}

/* 0 or -1, explained; then there is no socket. */
static int listen_to_clients(struct commands *commands, char *why, size_t size)
{
	int failed = listener_listen(&commands->listener, why, size);
	int err = failed ? 0
			 : control_open(&commands->control, commands->reactor, commands->listener.fd,
					commands, on_request, commands_on_gone);
	commands->control.stream = on_stream;
	if (err)
		snprintf(why, size, "%s: %s", commands->path, uv_strerror(err));
	if (failed || err)
		listener_close(&commands->listener);
	return failed || err ? -1 : 0;
}

/* True: the server may do without. */
static bool explain_absence(const struct commands *commands, const char *why)
{
	if (commands->is_default)
		log_write(LOG_WARN, "no control socket: name a place with --control, or turn it off",
			  F_TEXT("error", why));
	else
		log_write(LOG_ERROR, "cannot open the control socket", F_TEXT("error", why));
	return commands->is_default;
}

bool commands_open(struct commands *commands, struct reactor *reactor, const struct config *config,
		   struct inheritance *inheritance, bool succeeds, char *why, size_t size)
{
	*why = '\0';
	commands->reactor = reactor;
	kicks_open(&commands->kicks, &commands->control, reactor->loop);
	commands->is_default = !strcmp(config->control, "auto");
	commands->listener.fd = -1;
	if (!strcmp(config->control, "off"))
		return true;
	if (find_path(commands, config, why, size) || bind_path(commands, inheritance, why, size) ||
	    (!succeeds && listen_to_clients(commands, why, size)))
		return explain_absence(commands, why);
	log_write(LOG_INFO, "control socket", F_TEXT("path", commands->path));
	return true;
}

void commands_begin(struct commands *commands)
{
	char why[512] = "";
	if (commands->listener.fd < 0)
		return;
	listener_own(&commands->listener);
	if (!commands->control.is_open && listen_to_clients(commands, why, sizeof why))
		explain_absence(commands, why);
}

void commands_renew(struct commands *commands)
{
	struct listener *listener = &commands->listener, fresh;
	char why[512];
	if (!commands->control.is_open || !listener_is_lost(listener))
		return;
	int err = listener_renew(listener, &fresh, why, sizeof why);
	if (!err && (err = control_move(&commands->control, fresh.fd))) {
		snprintf(why, sizeof why, "%s: %s", commands->path, uv_strerror(err));
		listener_close(&fresh);
	}
	if (!err)
		listener_take(listener, &fresh);
	listeners_tell_lost(listener->address, "control socket", err ? why : NULL);
}

struct bequest commands_bequeath(const struct commands *commands)
{
	struct bequest socket;
	listener_bequeath(&commands->listener, &socket);
	if (commands->is_default)
		socket.fd = -1;
	return socket;
}

void commands_leave(struct commands *commands)
{
	control_leave(&commands->control);
	if (!commands->is_default)
		listener_share(&commands->listener);
	listener_close(&commands->listener);
}

/* Those who wait for the end leave the loop, which ends before the log does. */
static void keep_ends(struct commands *commands)
{
	for (unsigned i = 0; i < WAITS; i++) {
		struct wait *wait = &commands->waits[i];
		int fd = wait->client && wait->kind == WAIT_END
			     ? control_take(&commands->control, wait->client)
			     : -1;
		if (fd >= 0)
			commands->ends[commands->end_count++] = fd;
	}
}

void commands_close(struct commands *commands, uint64_t cut)
{
	if (!commands->reactor)
		return; /* it was never opened */
	commands->cut = cut;
	keep_ends(commands);
	commands_upgraded(commands, 0, "the server stops");
	kicks_close(&commands->kicks);
	control_close(&commands->control);
	listener_close(&commands->listener);
	commands->reactor = NULL;
}

/* A line has room in a socket to which nothing else is sent. */
void commands_tell_end(struct commands *commands)
{
	json_t *reply = message_ok();
	message_set_text(reply, "stage", "stopped");
	json_object_set_new(reply, "cut", json_integer((json_int_t)commands->cut));
	char *line = message_line(reply);
	json_decref(reply);
	while (commands->end_count) {
		int fd = commands->ends[--commands->end_count];
		if (line)
			send(fd, line, strlen(line), MSG_DONTWAIT | MSG_NOSIGNAL);
		close(fd);
	}
	free(line);
}

void commands_deinit(struct commands *commands)
{
	kicks_deinit(&commands->kicks);
}
