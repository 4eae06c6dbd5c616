/*
 * The command line: which subcommand, its options, its help.
 */
#pragma once

struct json_t;
struct options;

/* Which commands an option is for: bits. */
enum {
	FOR_RUN = 1,
	FOR_CHECK = 2,
	FOR_STATUS = 4,
	FOR_GENERATIONS = 8,
	FOR_RELOAD = 16,
	FOR_STOP = 32,
	FOR_DRAIN = 64,
	FOR_KICK = 128,
	FOR_UPGRADE = 256,
	FOR_REOPEN = 512,
	FOR_RECORD = 1024,
	FOR_NEW = 4096,
	FOR_EXEC = 8192,
	FOR_MODULES = FOR_RUN | FOR_CHECK | FOR_NEW | FOR_EXEC, /* they need Perilune's own Lua files */
	FOR_SCRIPTS = FOR_RUN | FOR_CHECK,                      /* they take a script and its settings */
	FOR_SERVERS = FOR_STATUS | FOR_GENERATIONS | FOR_RELOAD | FOR_UPGRADE | FOR_REOPEN | FOR_STOP |
		      FOR_DRAIN | FOR_KICK | FOR_RECORD,
};

struct command {
	const char *name;
	const char *arguments; /* "[app.lua] [options]" */
	const char *summary;
	const char *about;                         /* the help's first lines */
	const char *notes;                         /* the help's last lines */
	unsigned options;                          /* its bit */
	int (*run)(const struct options *options); /* returns the exit code */
	/* Of those that have options of their own, and their own --help: what follows the command. */
	int (*run_raw)(int argc, char **argv);
	/* Of those that ask a server: the command of the protocol, and its answer for people. */
	const char *request;
	void (*show)(const struct json_t *reply);
};

enum { OPERATE_COMMANDS = 8 };

extern const struct command command_run, command_check, command_test, command_new, command_exec,
    command_record, command_replay;
extern const struct command operate_commands[OPERATE_COMMANDS];

/*
 * Does what the arguments ask for and returns the exit code. `problem` is NULL, or why Perilune's Lua
 * modules cannot be used: only commands that load a script mind.
 */
int cli_main(int argc, char **argv, const char *problem);
