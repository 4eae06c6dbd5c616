#include "cli/cli.h"

#include "base/suggest.h"
#include "base/text.h"
#include "base/version.h"
#include "cli/options.h"
#include "server/server.h"

#include <luajit.h>
#include <stdio.h>
#include <string.h>
#include <uv.h>

static const struct command *const OWN[] = { &command_run,  &command_check,  &command_test,  &command_new,
					     &command_exec, &command_record, &command_replay };
enum { OWN_COMMANDS = sizeof OWN / sizeof *OWN, COMMAND_COUNT = OWN_COMMANDS + OPERATE_COMMANDS };

/* All of them, in the order of the help. */
static const struct command *command_at(size_t i)
{
	return i < OWN_COMMANDS ? OWN[i] : &operate_commands[i - OWN_COMMANDS];
}

static const char HELP_SUMMARY[] = "explain a command";

static const char SETTINGS_ENVIRONMENT[] =
    "Environment:\n"
    "  PERILUNE_<KEY>       any key, in capitals and with _ for the dots: PERILUNE_WORKERS,\n"
    "                       PERILUNE_LISTEN, PERILUNE_LIMITS_CONNECTIONS, PERILUNE_TIMEOUT_IDLE, …\n"
    "                       (an empty one counts as not set)\n"
    "  PERILUNE_LUA_PATH    where Perilune's own Lua modules are, as a folder or a pattern with ?\n"
    "  Flags win over the environment, that over the script, that over the defaults;\n"
    "  'perilune check --print' lists all keys, their values and where these come from.\n";

static const char MODULES_ENVIRONMENT[] =
    "Environment:\n"
    "  PERILUNE_LUA_PATH    where Perilune's own Lua modules are, as a folder or a pattern with ?\n";

static const char SERVERS_ENVIRONMENT[] =
    "Environment:\n"
    "  PERILUNE_CONTROL     the server's control socket, where --control does not name it\n"
    "  XDG_RUNTIME_DIR      else the only server with a socket in perilune/ there, or in /run/perilune\n";

static void print_usage(FILE *to)
{
	fprintf(to, "perilune: sockets in C, protocols in Lua\n\n"
		    "usage: perilune COMMAND [arguments]\n\n");
	for (size_t i = 0; i < COMMAND_COUNT; i++)
		fprintf(to, "  %-12s %s\n", command_at(i)->name, command_at(i)->summary);
	fprintf(to, "  %-12s %s\n\n", "help", HELP_SUMMARY);
	fprintf(to, "'perilune COMMAND --help' explains a command, 'perilune --version' tells the version.\n"
		    "First steps: 'perilune new chat --template chat', or write app.lua; then 'perilune "
		    "check' and 'perilune run'.\n");
}

static const char *environment_of(const struct command *command)
{
	if (command->options & FOR_SCRIPTS)
		return SETTINGS_ENVIRONMENT;
	return command->options & FOR_SERVERS ? SERVERS_ENVIRONMENT : MODULES_ENVIRONMENT;
}

static void print_help(const struct command *command)
{
	printf("usage: perilune %s %s\n\n%s\n\nOptions:\n", command->name, command->arguments,
	       command->about);
	options_print(command->options);
	printf("\n%s\n%s", environment_of(command), command->notes);
}

static int print_version(void)
{
	printf("perilune %s (%s, libuv %s)\n", PERILUNE_VERSION, LUAJIT_VERSION, uv_version_string());
	return EXIT_OK;
}

static const struct command *cli_find(const char *name)
{
	for (size_t i = 0; i < COMMAND_COUNT; i++)
		if (!strcmp(command_at(i)->name, name))
			return command_at(i);
	return NULL;
}

/* What other programs call our commands. */
static const struct {
	const char *name, *ours;
} SYNONYMS[] = {
	{ "serve", "run" },     { "server", "run" },     { "start", "run" },    { "restart", "upgrade" },
	{ "lint", "check" },    { "validate", "check" }, { "verify", "check" }, { "init", "new" },
	{ "create", "new" },    { "eval", "exec" },      { "script", "exec" },  { "quit", "stop" },
	{ "shutdown", "stop" }, { "info", "status" },    { "ps", "status" },    { "rotate", "reopen" },
};

static const char *synonym_of(const char *name)
{
	for (size_t i = 0; i < sizeof SYNONYMS / sizeof *SYNONYMS; i++)
		if (!strcmp(SYNONYMS[i].name, name))
			return SYNONYMS[i].ours;
	return NULL;
}

static int cli_refuse(const char *name)
{
	const char *names[COMMAND_COUNT + 3] = { "help", "--help", "--version" };
	for (size_t i = 0; i < COMMAND_COUNT; i++)
		names[i + 3] = command_at(i)->name;
	const char *near = synonym_of(name);
	if (!near)
		near = suggest_nearest(name, names, COMMAND_COUNT + 3);
	size_t len = strlen(name);
	text_printf(stderr, "perilune: unknown %s '%s'", name[0] == '-' ? "option" : "command", name);
	if (len > 4 && !strcmp(name + len - 4, ".lua"))
		text_printf(stderr, " (did you mean 'perilune run %s'?)", name);
	else if (near)
		text_printf(stderr, " (did you mean '%s'?)", near);
	fprintf(stderr, "\nsee 'perilune --help'\n");
	return EXIT_USAGE;
}

static int cli_run_raw(const struct command *command, int argc, char **argv, const char *problem)
{
	if (!problem)
		return command->run_raw(argc - 1, argv + 1);
	text_printf(stderr, "perilune: %s\n", problem);
	return EXIT_FAILED;
}

static int cli_help(int argc, char **argv, const char *problem)
{
	if (argc < 2 || !strcmp(argv[1], "help") || argv[1][0] == '-') {
		print_usage(stdout);
		return EXIT_OK;
	}
	const struct command *command = cli_find(argv[1]);
	if (!command)
		return cli_refuse(argv[1]);
	if (command->run_raw) {
		char *arguments[] = { argv[1], (char *)"--help" };
		return cli_run_raw(command, 2, arguments, problem);
	}
	print_help(command);
	return EXIT_OK;
}

static int cli_run(const struct command *command, int argc, char **argv, const char *problem)
{
	if (command->run_raw)
		return cli_run_raw(command, argc, argv, problem);
	struct options options;
	int code = options_parse(&options, command->name, command->options, argc, argv);
	if (!code && options.help) {
		print_help(command);
	} else if (!code && problem && command->options & FOR_MODULES) {
		text_printf(stderr, "perilune: %s\n", problem);
		code = EXIT_FAILED;
	} else if (!code) {
		code = command->run(&options);
	}
	options_free(&options);
	return code;
}

int cli_main(int argc, char **argv, const char *problem)
{
	const char *name = argc > 1 ? argv[1] : "";
	if (argc < 2) {
		print_usage(stderr);
		return EXIT_USAGE;
	}
	if (!strcmp(name, "--version") || !strcmp(name, "-V") || !strcmp(name, "-v"))
		return print_version();
	if (!strcmp(name, "help") || !strcmp(name, "--help") || !strcmp(name, "-h"))
		return cli_help(argc - 1, argv + 1, problem);
	const struct command *command = cli_find(name);
	if (!command)
		return cli_refuse(name);
	return cli_run(command, argc - 1, argv + 1, problem);
}
