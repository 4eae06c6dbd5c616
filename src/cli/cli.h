/*
 * The command line: which subcommand, its options, its help.
 */
#pragma once

struct options;

/* Which commands an option is for: bits. */
enum { FOR_RUN = 1, FOR_CHECK = 2 };

struct command {
	const char *name;
	const char *arguments; /* "[app.lua] [options]" */
	const char *summary;
	const char *about;                         /* the help's first lines */
	const char *notes;                         /* the help's last lines */
	unsigned options;                          /* its bit */
	int (*run)(const struct options *options); /* returns the exit code */
};

extern const struct command command_run, command_check;

/*
 * Does what the arguments ask for and returns the exit code. `problem` is NULL, or why Perilune's Lua
 * modules cannot be used: only commands that load a script mind.
 */
int cli_main(int argc, char **argv, const char *problem);
