/* The commands that are clients of a running server: status, generations, reload, stop, drain, kick. */
#include "cli/cli.h"
#include "cli/options.h"
#include "cli/remote.h"
#include "cli/show.h"
#include "control/message.h"
#include "server/server.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXIT_CODES                                                               \
	"Exit codes:\n"                                                          \
	"  0   done\n"                                                           \
	"  1   it could not be done, or no server was found, or more than one\n" \
	"  2   wrong usage\n"                                                    \
	"\n"

static json_t *request_of(const char *command)
{
	return json_pack("{s:s}", "command", command);
}

static void set_flag(json_t *request, const char *name, bool on)
{
	if (on)
		json_object_set_new(request, name, json_true());
}

/* Why not, with the excerpt that may be in it. */
static void show_error(const struct options *options, const json_t *reply)
{
	const char *why = json_string_value(json_object_get(reply, "error"));
	bool is_long = why && strchr(why, '\n');
	fprintf(stderr, "perilune %s:%s", options->command, is_long ? "\n" : " ");
	show_text(stderr, why ? why : "refused");
	if (!why || why[strlen(why) - 1] != '\n')
		fputc('\n', stderr);
}

static void print_json(const json_t *reply)
{
	char *line = message_line(reply);
	fputs(line ? line : "", stdout);
	free(line);
}

/* Asks and shows the answer. `show` is for people. */
static int ask(const struct options *options, json_t *request, bool patient,
	       void (*show)(const json_t *reply))
{
	json_t *reply;
	int code = remote_ask(options, request, patient, &reply);
	if (code)
		return code;
	bool ok = message_flag(reply, "ok");
	if (options->json)
		print_json(reply);
	else if (ok)
		show(reply);
	else
		show_error(options, reply);
	/* Of `stop --wait`. */
	ok = ok && !json_integer_value(json_object_get(reply, "cut"));
	json_decref(reply);
	return ok ? EXIT_OK : EXIT_FAILED;
}

/* ---- looking ---- */

static int run_status(const struct options *options)
{
	return ask(options, request_of("status"), false, show_status);
}

const struct command command_status = {
	.name = "status",
	.arguments = "[options]",
	.summary = "tell what a running server does",
	.about = "Tells what a running server does: listeners, workers, generations, connections, the last "
		 "reload.",
	.notes = EXIT_CODES "Example:\n  perilune status --json\n",
	.options = FOR_STATUS,
	.run = run_status,
};

static int run_generations(const struct options *options)
{
	return ask(options, request_of("generations"), false, show_generations);
}

const struct command command_generations = {
	.name = "generations",
	.arguments = "[options]",
	.summary = "list the generations of the script that have connections",
	.about = "Lists the generations of the script: the one that takes new connections, and those that "
		 "have some\n"
		 "still.",
	.notes = EXIT_CODES "Example:\n  perilune generations\n",
	.options = FOR_GENERATIONS,
	.run = run_generations,
};

/* ---- changing ---- */

static void show_reload(const json_t *reply)
{
	const json_t *reload = json_object_get(reply, "reload");
	const json_t *generation = json_object_get(reload, "generation");
	if (generation)
		printf("reloaded: generation %lld\n", (long long)json_integer_value(generation));
	else
		puts("reload begun; 'perilune status' tells the outcome");
}

static int run_reload(const struct options *options)
{
	json_t *request = request_of("reload");
	set_flag(request, "wait", options->wait);
	if (options->policy)
		message_set_text(request, "policy", options->policy);
	return ask(options, request, options->wait, show_reload);
}

const struct command command_reload = {
	.name = "reload",
	.arguments = "[options]",
	.summary = "load the script anew, for new connections",
	.about = "Loads the script anew, for new connections. What becomes of those there are is what its "
		 "reload.policy\n"
		 "says, or --policy: they keep theirs, migrate, or are drained. With --policy that goes even "
		 "where the\n"
		 "script has not changed. If it cannot be loaded, nothing changes.",
	.notes = "Exit codes:\n"
		 "  0   begun; with --wait: reloaded\n"
		 "  1   with --wait: failed, and the message tells why; or refused; or no server was found\n"
		 "  2   wrong usage\n"
		 "\n"
		 "Example:\n  perilune check chat.lua && perilune reload --wait\n",
	.options = FOR_RELOAD,
	.run = run_reload,
};

static void show_stop(const json_t *reply)
{
	const char *stage = json_string_value(json_object_get(reply, "stage"));
	long long cut = json_integer_value(json_object_get(reply, "cut"));
	show_text(stdout, stage ? stage : "stopping");
	if (cut)
		printf(", connections cut: %lld", cut);
	putchar('\n');
}

static int run_stop(const struct options *options)
{
	json_t *request = request_of("stop");
	set_flag(request, "now", options->now);
	set_flag(request, "wait", options->wait);
	return ask(options, request, options->wait, show_stop);
}

#define STOP_NOTES                                                                    \
	"Exit codes:\n"                                                               \
	"  0   asked for; with --wait: stopped, every connection served to its end\n" \
	"  1   with --wait: connections had to be cut; or no server was found\n"      \
	"  2   wrong usage\n"                                                         \
	"\n"

const struct command command_stop = {
	.name = "stop",
	.arguments = "[options]",
	.summary = "stop a running server",
	.about = "Stops a server as the signal TERM does: no new connections, what is in flight is finished, "
		 "within\n"
		 "timeout.drain. With --now, which may come later as well: what is left is cut.",
	.notes = STOP_NOTES "Example:\n  perilune stop --wait\n",
	.options = FOR_STOP,
	.run = run_stop,
};

const struct command command_drain = {
	.name = "drain",
	.arguments = "[options]",
	.summary = "another name for stop without --now",
	.about = "The same as 'perilune stop' without --now: no new connections, what is in flight is "
		 "finished, within\n"
		 "timeout.drain, and the server ends.",
	.notes = STOP_NOTES "Example:\n  perilune drain --wait\n",
	.options = FOR_DRAIN,
	.run = run_stop,
};

static void show_kick(const json_t *reply)
{
	printf("connection %lld is being closed\n",
	       (long long)json_integer_value(json_object_get(reply, "conn")));
}

static int run_kick(const struct options *options)
{
	const char *id = options->operand;
	errno = 0;
	long long conn = id && strspn(id, "0123456789") == strlen(id) ? strtoll(id, NULL, 10) : 0;
	if (conn <= 0 || errno) {
		fprintf(stderr,
			"perilune kick: expects the id of a connection, as in 'perilune kick 42'%s%s%s\n",
			id ? ", got '" : "", id ? id : "", id ? "'" : "");
		fprintf(stderr, "see 'perilune kick --help'\n");
		return EXIT_USAGE;
	}
	json_t *request = request_of("kick");
	json_object_set_new(request, "conn", json_integer(conn));
	if (options->reason)
		message_set_text(request, "reason", options->reason);
	return ask(options, request, false, show_kick);
}

const struct command command_kick = {
	.name = "kick",
	.arguments = "ID [options]",
	.summary = "end one connection",
	.about = "Ends the connection with that id, the `conn` of log entries: what is to be sent is sent, "
		 "and its agent\n"
		 "hears closed(\"kick\"). A second kick does not wait for a peer that does not read.",
	.notes = EXIT_CODES "Example:\n  perilune kick 42 --reason 'floods the lobby'\n",
	.options = FOR_KICK,
	.run = run_kick,
};
