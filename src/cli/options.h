/*
 * The options of all commands: one table, read from the arguments in any order.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct config;
struct option;

enum { RECORD_MAX_BYTES = 64 << 20 }; /* of a trace, unless --max-size says otherwise */

/* A key set by an option; both point into argv. */
struct setting {
	const struct option *option;
	const char *value;
};

struct options {
	const char *command;
	const char *script; /* points into argv, or is the default */
	bool script_named;
	const char *operand;           /* of a command that takes something else; or NULL */
	const char *template;          /* or NULL */
	const char *code;              /* Lua to be run, in place of a file; or NULL */
	char **rest;                   /* what follows the operand, for it: ends with NULL */
	const char *control;           /* the name of a server, or the path of a control socket; or NULL */
	const char *reason;            /* or NULL */
	const char *policy;            /* "pin", "migrate", "drain" or NULL */
	const char *record;            /* run: the file of the trace, or NULL */
	const char *listener, *out;    /* record; or NULL */
	uint64_t record_ms, max_bytes; /* 0: no limit */
	uint64_t timeout_ms;           /* of `wait`; 0: no limit */
	bool force;
	bool help, json, print, wait, strict, now, watch;
	struct setting *settings; /* in the order given */
	size_t setting_count;
};

/*
 * Reads argv[1] … of `command`, which takes the options of bit `which`. 0, or an exit code after having said
 * what is wrong. To be freed either way. With `help` the rest may not have been read.
 */
int options_parse(struct options *options, const char *command, unsigned which, int argc, char **argv);
void options_free(struct options *options);

/* Adds the settings as overrides. 0 or UV_ENOMEM. */
int options_apply(const struct options *options, struct config *config);

/* Prints the table's lines for one command to stdout. */
void options_print(unsigned which);
