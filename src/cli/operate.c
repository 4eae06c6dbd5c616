/* The commands that are clients of a running server: a table of what each asks and how its answer is shown. */
#include "base/text.h"
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
#include <unistd.h>

enum { WATCH_SECONDS = 1 };

/* ---- answers, for people ---- */

static long long operate_number(const json_t *object, const char *name)
{
	return json_integer_value(json_object_get(object, name));
}

/* Those that were to migrate and stay: how many, why; and in which generations there are connections still. */
static void show_staying(const json_t *reply, const json_t *reload)
{
	const json_t *stay = json_object_get(reload, "stay");
	const char *why = json_string_value(json_object_get(reload, "error"));
	size_t i;
	json_t *one;
	if (operate_number(stay, "failed")) {
		printf("  %lld failed", operate_number(stay, "failed"));
		fputs(why ? ", the first in " : "", stdout);
		text_put(stdout, TEXT_LINE, why ? why : "", why ? strlen(why) : 0);
		putchar('\n');
	}
	if (operate_number(stay, "deferred"))
		printf("  %lld with functions of conn:defer, which belong to the old code\n",
		       operate_number(stay, "deferred"));
	if (operate_number(stay, "removed"))
		printf("  %lld of a listener, or a kind of agents, that is no more\n",
		       operate_number(stay, "removed"));
	json_array_foreach(json_object_get(reply, "generations"), i, one)
	{
		long long left = operate_number(one, "connections") + operate_number(one, "residents");
		if (!json_is_true(json_object_get(one, "newest")) && left)
			printf("  generation %lld has %lld still\n", operate_number(one, "generation"), left);
	}
}

static void show_takeovers(const json_t *reply)
{
	const json_t *reload = json_object_get(reply, "reload");
	long long migrated = operate_number(reload, "migrated"),
		  stay = operate_number(reload, "not_migrated");
	if (!migrated && !stay && !operate_number(reload, "waiting"))
		return;
	printf("connections: %lld migrated, %lld stay with the old code", migrated, stay);
	if (operate_number(reload, "waiting"))
		printf(", %lld wait in a handler and follow after it", operate_number(reload, "waiting"));
	putchar('\n');
	if (stay)
		show_staying(reply, reload);
}

static void show_reload(const json_t *reply)
{
	const json_t *reload = json_object_get(reply, "reload");
	const json_t *generation = json_object_get(reload, "generation");
	const char *unchanged = json_string_value(json_object_get(reload, "message"));
	if (unchanged) {
		text_printf(stdout, "%s; generation %lld serves on\n", unchanged,
			    (long long)json_integer_value(generation));
	} else if (generation) {
		printf("reloaded: generation %lld\n", (long long)json_integer_value(generation));
	} else {
		puts("reload begun; 'perilune status' tells the outcome");
	}
	show_takeovers(reply);
}

static void show_upgrade(const json_t *reply)
{
	const json_t *upgrade = json_object_get(reply, "upgrade");
	if (upgrade)
		printf("upgraded: process %lld serves\n",
		       (long long)json_integer_value(json_object_get(upgrade, "pid")));
	else
		puts("upgrade begun; the server's log tells the outcome");
}

static void show_reopen(const json_t *reply)
{
	const char *path = json_string_value(json_object_get(reply, "log_file"));
	text_printf(stdout, "log reopened: %s\n", path ? path : "");
}

static void show_stop(const json_t *reply)
{
	const char *stage = json_string_value(json_object_get(reply, "stage"));
	long long cut = json_integer_value(json_object_get(reply, "cut"));
	text_printf(stdout, "%s", stage ? stage : "stopping");
	if (cut)
		printf(", connections cut: %lld", cut);
	putchar('\n');
}

static void show_kick(const json_t *reply)
{
	printf("connection %lld is being closed\n",
	       (long long)json_integer_value(json_object_get(reply, "conn")));
}

/* Why not, with the excerpt that may be in it. */
static void show_error(const struct options *options, const json_t *reply)
{
	const char *why = json_string_value(json_object_get(reply, "error"));
	bool is_long = why && strchr(why, '\n');
	text_printf(stderr, "perilune %s:%s%s", options->command, is_long ? "\n" : " ",
		    why ? why : "refused");
	if (!why || why[strlen(why) - 1] != '\n')
		fputc('\n', stderr);
}

/* ---- asking ---- */

static int operate(const struct options *options);

static void set_flag(json_t *request, const char *name, bool on)
{
	if (on)
		json_object_set_new(request, name, json_true());
}

/* 0 where it is no id. */
static json_int_t id_of(const char *text)
{
	errno = 0;
	long long id = text && strspn(text, "0123456789") == strlen(text) ? strtoll(text, NULL, 10) : 0;
	return errno ? 0 : id;
}

/* 0, or an exit code after having said what is wrong. */
static int set_conn(const struct options *options, json_t *request)
{
	const char *given = options->operand;
	json_int_t conn = id_of(given);
	if (conn > 0) {
		json_object_set_new(request, "conn", json_integer(conn));
		return 0;
	}
	text_printf(stderr, "perilune kick: expects the id of a connection, as in 'perilune kick 42'%s%s%s\n",
		    given ? ", got '" : "", given ? given : "", given ? "'" : "");
	fprintf(stderr, "see 'perilune kick --help'\n");
	return EXIT_USAGE;
}

/* What the options say; those that a command does not take cannot have been given. */
static int fill(const struct command *command, const struct options *options, json_t *request)
{
	set_flag(request, "wait", options->wait);
	set_flag(request, "now", options->now);
	if (options->reason)
		message_set_text(request, "reason", options->reason);
	if (options->policy)
		message_set_text(request, "policy", options->policy);
	return command->options == FOR_KICK ? set_conn(options, request) : 0;
}

static int operate_report(const struct command *command, const struct options *options, const json_t *reply)
{
	bool ok = message_flag(reply, "ok");
	if (options->json)
		remote_print_json(options, reply);
	else if (ok)
		command->show(reply);
	else
		show_error(options, reply);
	/* Of `stop --wait`. */
	ok = ok && !json_integer_value(json_object_get(reply, "cut"));
	if (options->strict && operate_number(json_object_get(reply, "reload"), "not_migrated"))
		ok = false;
	return ok ? EXIT_OK : EXIT_FAILED;
}

/* ---- the table ---- */

#define EXIT_CODES                                                               \
	"Exit codes:\n"                                                          \
	"  0   done\n"                                                           \
	"  1   it could not be done, or no server was found, or more than one\n" \
	"  2   wrong usage\n"                                                    \
	"\n"

#define STOP_EXIT_CODES                                                                                    \
	"Exit codes:\n"                                                                                    \
	"  0   asked for; with --wait: stopped, every connection served to its end\n"                      \
	"  1   with --wait: connections had to be cut, or --timeout has run out; or no server was found\n" \
	"  2   wrong usage\n"                                                                              \
	"\n"

const struct command operate_commands[OPERATE_COMMANDS] = {
	{
	    .name = "status",
	    .arguments = "[SERVER] [options]",
	    .summary = "tell what a running server does",
	    .about =
		"Tells what a running server does: listeners, workers, generations, connections, the last "
		"reload.",
	    .notes = EXIT_CODES "Example:\n  perilune status --json\n",
	    .options = FOR_STATUS,
	    .run = operate,
	    .request = "status",
	    .show = show_status,
	},
	{
	    .name = "generations",
	    .arguments = "[SERVER] [options]",
	    .summary = "list the generations of the script that have connections",
	    .about =
		"Lists the generations of the script: the one that takes new connections, and those that "
		"have some\n"
		"still.",
	    .notes = EXIT_CODES "Example:\n  perilune generations\n",
	    .options = FOR_GENERATIONS,
	    .run = operate,
	    .request = "generations",
	    .show = show_generations,
	},
	{
	    .name = "reload",
	    .arguments = "[SERVER] [options]",
	    .summary = "load the script anew, for new connections",
	    .about =
		"Loads the script anew, for new connections. What becomes of those there are is what its "
		"reload.policy\n"
		"says, or --policy: they keep theirs, migrate, or are drained. With --policy that goes even "
		"where the\n"
		"script has not changed. If it cannot be loaded, nothing changes.",
	    .notes = "Exit codes:\n"
		     "  0   begun; with --wait: reloaded\n"
		     "  1   with --wait: failed, and the message tells why, or --timeout has run out; or "
		     "refused;\n"
		     "      or no server was found;\n"
		     "      with --strict: reloaded, but connections stay that were to migrate\n"
		     "  2   wrong usage\n"
		     "\n"
		     "Example:\n  perilune check chat.lua && perilune reload --wait\n",
	    .options = FOR_RELOAD,
	    .run = operate,
	    .request = "reload",
	    .show = show_reload,
	},
	{
	    .name = "upgrade",
	    .arguments = "[SERVER] [options]",
	    .summary = "start the binary anew, without refusing anybody",
	    .about = "Replaces the process as the signal USR2 does: the binary is started anew on the same "
		     "sockets, and "
		     "once it\n"
		     "serves, the old process leaves. If it does not come up, nothing changes.",
	    .notes = "Exit codes:\n"
		     "  0   begun; with --wait: the new process serves\n"
		     "  1   with --wait: it did not come up, and the message tells why, or --timeout has run "
		     "out; or\n"
		     "      refused; or no server was found\n"
		     "  2   wrong usage\n"
		     "\n"
		     "Example:\n  perilune upgrade --wait\n",
	    .options = FOR_UPGRADE,
	    .run = operate,
	    .request = "upgrade",
	    .show = show_upgrade,
	},
	{
	    .name = "reopen",
	    .arguments = "[SERVER] [options]",
	    .summary = "open the log file anew, after it was renamed",
	    .about = "Opens the log file (log.file) anew, as the signal USR1 does: rename it, then reopen. "
		     "If it cannot be\n"
		     "opened, the old one is kept, and says so.",
	    .notes = EXIT_CODES "Example:\n  mv chat.log chat.log.1 && perilune reopen\n",
	    .options = FOR_REOPEN,
	    .run = operate,
	    .request = "reopen",
	    .show = show_reopen,
	},
	{
	    .name = "stop",
	    .arguments = "[SERVER] [options]",
	    .summary = "stop a running server",
	    .about =
		"Stops a server as the signal TERM does: no new connections, what is in flight is finished, "
		"within\n"
		"timeout.drain. With --now, which may come later as well: what is left is cut.",
	    .notes = STOP_EXIT_CODES "Example:\n  perilune stop --wait\n",
	    .options = FOR_STOP,
	    .run = operate,
	    .request = "stop",
	    .show = show_stop,
	},
	{
	    .name = "drain",
	    .arguments = "[SERVER] [options]",
	    .summary = "another name for stop without --now",
	    .about = "The same as 'perilune stop' without --now: no new connections, what is in flight is "
		     "finished, within\n"
		     "timeout.drain, and the server ends.",
	    .notes = STOP_EXIT_CODES "Example:\n  perilune drain --wait\n",
	    .options = FOR_DRAIN,
	    .run = operate,
	    .request = "stop",
	    .show = show_stop,
	},
	{
	    .name = "kick",
	    .arguments = "ID [options]",
	    .summary = "end one connection",
	    .about =
		"Ends the connection with that id, the `conn` of log entries: what is to be sent is sent, "
		"and its agent\n"
		"hears closed(\"kick\"). A second kick does not wait for a peer that does not read.",
	    .notes = EXIT_CODES "Example:\n  perilune kick 42 --reason 'floods the lobby'\n",
	    .options = FOR_KICK,
	    .run = operate,
	    .request = "kick",
	    .show = show_kick,
	},
};

static int ask_once(const struct command *command, const struct options *options)
{
	json_t *reply, *request = json_pack("{s:s}", "command", command->request);
	int code = fill(command, options, request);
	if (code)
		json_decref(request);
	else
		code = remote_ask(options, request, options->wait, &reply);
	if (code)
		return code;
	code = operate_report(command, options, reply);
	json_decref(reply);
	return code;
}

/* Until it cannot be asked any more, or nobody reads what it says. */
static int ask_again(const struct command *command, const struct options *options)
{
	static const char CLEAR[] = "\x1b[H\x1b[2J";
	int code;
	do {
		bool is_terminal = isatty(STDOUT_FILENO);
		fputs(options->json ? "" : is_terminal ? CLEAR : "\n", stdout);
		code = ask_once(command, options);
		fflush(stdout);
	} while (!code && !ferror(stdout) && !sleep(WATCH_SECONDS));
	return code;
}

static int operate(const struct options *options)
{
	const struct command *command = operate_commands;
	while (strcmp(command->name, options->command) != 0)
		command++;
	return options->watch ? ask_again(command, options) : ask_once(command, options);
}
