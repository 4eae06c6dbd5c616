/* What the server is asked for: by signals, over the control socket, by changes of files. */

#include "server/internal.h"

#include "base/limits.h"
#include "base/log.h"
#include "base/workdir.h"
#include "config/config.h"
#include "config/sources.h"
#include "server/server.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

/* ---- signals before there is a server ---- */

/* One of the standard streams: the terminal in whose foreground we were started. -1: there is none. */
static int terminal = -1;

/* Not for who was put into the background or another session: those have said that they are to outlive it. */
static void note_terminal(void)
{
	for (int fd = STDIN_FILENO; fd <= STDERR_FILENO && terminal < 0; fd++)
		if (isatty(fd) && tcgetpgrp(fd) == getpgrp())
			terminal = fd;
}

static bool is_terminal_gone(void)
{
	return terminal >= 0 && !isatty(terminal) && errno == EIO;
}

static atomic_bool early[NSIG];

static void on_early(int number)
{
	atomic_store(&early[number], true);
}

/* All that a handler may do; there is no log yet. */
static void on_early_stop(int number)
{
	static const char TEXT[] = "perilune: stopped by a signal before it served\n";
	(void)number;
	(void)!write(STDERR_FILENO, TEXT, sizeof TEXT - 1);
	_exit(EXIT_OK);
}

/*
 * Handlers, and not a mask: that would be inherited by what the script starts. Nor the default, which would end the
 * process without a word, but not at all where it is the first of its container: the kernel spares that one.
 */
void server_expect_signals(void)
{
	static const int LATER[] = { SIGHUP, SIGUSR1, SIGUSR2 }, STOP[] = { SIGTERM, SIGINT, SIGQUIT };
	note_terminal();
	struct sigaction later = { .sa_handler = on_early, .sa_flags = SA_RESTART };
	struct sigaction stop = { .sa_handler = on_early_stop };
	for (size_t i = 0; i < sizeof LATER / sizeof *LATER; i++) {
		sigaction(LATER[i], &later, NULL);
		sigaction(STOP[i], &stop, NULL);
	}
}

/* Those that were put off, now that there are handlers. */
static void early_repeat(void)
{
	for (int number = 1; number < NSIG; number++)
		if (atomic_exchange(&early[number], false))
			raise(number);
}

/* ---- signals ---- */

static void on_stop_signal(uv_signal_t *handle, int number)
{
	struct server *server = handle->data;
	if (server->stage == DRAINING) {
		log_write(LOG_WARN, "second signal: connections are cut",
			  F_TEXT("signal", strsignal(number)));
		stop_force(server, "by the second signal");
		return;
	}
	stop_begin(server, F_TEXT("signal", strsignal(number)));
}

/* Why not now, or NULL. */
static const char *reload_objection(const struct server *server)
{
	if (server->stage != SERVING)
		return "reload refused: the server is not serving";
	if (takeover_is_under_way(server))
		return "reload refused: an upgrade is under way";
	return NULL;
}

void requests_look_around(struct server *server)
{
	(void)workdir_follow();
	acceptor_renew(&server->acceptor, server->config);
	commands_renew(&server->commands);
}

/*
 * The reload's number; 0: refused, and *why says so, as does the log. The service manager hears of a refused one,
 * too: it waits for the answer to its signal.
 */
static uint64_t reload(struct server *server, enum reload_policy policy, const char **why)
{
	uint64_t number = 0;
	*why = reload_objection(server);
	if (server->stage == SERVING)
		notify_reloading(&server->notify);
	if (*why) {
		log_write(LOG_WARN, *why);
	} else {
		requests_look_around(server);
		number = reloads_begin(&server->reloads, server->config, policy);
	}
	if (server->stage == SERVING && !server->reloads.running)
		notify_tell(&server->notify, "READY=1");
	return number;
}

static void on_reload_signal(uv_signal_t *handle, int number)
{
	const char *why;
	struct server *server = handle->data;
	if (is_terminal_gone()) {
		/* Once: the kernel sends it, and the shell may as well. */
		if (server->stage != DRAINING)
			stop_begin(server, F_TEXT("signal", strsignal(number)));
		return;
	}
	if (server->stage == STARTING) {
		server->reload_due = true;
		log_write(LOG_INFO, "a reload begins once the server serves");
		return;
	}
	reload(server, RELOAD_AS_CONFIGURED, &why);
}

void requests_catch_up(struct server *server)
{
	const char *why;
	if (server->reload_due)
		reload(server, RELOAD_AS_CONFIGURED, &why);
	server->reload_due = false;
}

static void on_upgrade_signal(uv_signal_t *handle, int number)
{
	(void)number;
	takeover_begin(handle->data);
}

static void on_reopen_signal(uv_signal_t *handle, int number)
{
	(void)handle;
	(void)number;
	(void)workdir_follow();
	log_reopen();
}

static const struct {
	int number;
	uv_signal_cb callback;
} WATCHED[SERVER_SIGNALS] = { { SIGTERM, on_stop_signal },   { SIGINT, on_stop_signal },
			      { SIGQUIT, on_stop_signal },   { SIGHUP, on_reload_signal },
			      { SIGUSR1, on_reopen_signal }, { SIGUSR2, on_upgrade_signal } };

void requests_watch_signals(struct server *server)
{
	/* With whoever was upgraded ends what the shell has in its foreground. */
	if (notify_succeeds(&server->notify))
		terminal = -1;
	for (int i = 0; i < SERVER_SIGNALS; i++) {
		uv_signal_init(&server->loop, &server->signals[i]);
		server->signals[i].data = server;
		uv_signal_start(&server->signals[i], WATCHED[i].callback, WATCHED[i].number);
	}
	early_repeat();
}

/* ---- reloads, and files ---- */

static void on_outcome(void *data, const struct reload_outcome *outcome)
{
	struct server *server = data;
	commands_reloaded(&server->commands, outcome);
}

static void on_joined(void *data, uint64_t number, uint64_t canarys)
{
	struct server *server = data;
	commands_joined(&server->commands, number, canarys);
}

static void on_newest(void *data, struct config *config)
{
	struct server *server = data;
	config_hold(config);
	acceptor_configure(&server->acceptor, config);
	config_drop(server->config);
	server->config = config;
}

bool requests_open_reloads(struct server *server)
{
	int err = reloads_open(&server->reloads, server->workers, server->config->workers,
			       reports_loader_links(server));
	canary_open(&server->reloads.canary, &server->loop, &server->acceptor, server->config->workers,
		    &server->reloads, reloads_on_window_over);
	if (err) {
		char why[LIMITS_TEXT_BYTES];
		server_cannot(server, "cannot start the loader", limits_explain(err, why, sizeof why));
		return false;
	}
	server->reloads.listener = server;
	server->reloads.on_outcome = on_outcome;
	server->reloads.on_joined = on_joined;
	server->reloads.on_newest = on_newest;
	return true;
}

static void on_files_changed(void *data)
{
	const char *why;
	struct server *server = data;
	if (server->stage == SERVING)
		reload(server, RELOAD_AS_CONFIGURED, &why);
}

/* Changed since it was read, and before anybody watched? */
static bool is_outdated(const struct config *config)
{
	struct sources *now = sources_read(config->script);
	bool outdated = now && !*now->failed && now->key != config->sources->key;
	sources_free(now);
	return outdated;
}

void requests_watch_files(struct server *server)
{
	/* The first configuration outlives the server. */
	watch_open(&server->watch, &server->reactor, server->config->script, on_files_changed, server);
	if (is_outdated(server->config))
		watch_suspect(&server->watch);
}

/* ---- commands ---- */

static void on_stop_command(void *data, bool now)
{
	struct server *server = data;
	if (server->stage != DRAINING)
		stop_begin(server, F_TEXT("by", "the control socket"));
	if (now && !server->forced) {
		log_write(LOG_WARN, "stop at once: connections are cut", F_TEXT("by", "the control socket"));
		stop_force(server, "by the control socket");
	}
}

static uint64_t on_reload_command(void *data, enum reload_policy policy, const char **why)
{
	return reload(data, policy, why);
}

static const char *on_upgrade_command(void *data)
{
	return takeover_begin(data);
}

static struct server_view view_of(void *data)
{
	static const char *const STAGES[] = {
		[STARTING] = "starting", [SERVING] = "serving", [LEAVING] = "leaving", [DRAINING] = "draining"
	};
	const struct server *server = data;
	return (struct server_view){ .stage = STAGES[server->stage],
				     .dicts = server->dicts,
				     .jobs = server->jobs,
				     .names = server->names,
				     .hub = server->hub,
				     .config = server->config,
				     .acceptor = &server->acceptor,
				     .workers = server->workers,
				     .worker_count = server->started,
				     .reloads = &server->reloads,
				     .now_ms = uv_now(&server->loop),
				     .uptime_ms = uv_now(&server->loop) - server->began_ms };
}

bool requests_open_commands(struct server *server)
{
	server->commands.server = server;
	server->commands.view = view_of;
	server->commands.stop = on_stop_command;
	server->commands.reload = on_reload_command;
	server->commands.upgrade = on_upgrade_command;
	server->commands.record = recordings_begin;
	server->commands.stream = recordings_on_stream;
	char why[512];
	if (commands_open(&server->commands, &server->reactor, server->config, &server->inheritance,
			  notify_succeeds(&server->notify), why, sizeof why))
		return true;
	notify_failed(&server->notify, why);
	return false;
}
