/*
 * Runs a Lua file, or a text, to its end: on a loop of its own, in a coroutine, so that it may wait. There are no
 * connections, no budgets and no sandbox: the script is its user's own tool. perilune.core has a second meaning here:
 * its functions wait on this loop.
 */
#pragma once

struct exec_options {
	const char *file; /* "-": standard input; NULL: `code` is run */
	const char *code;
	char **arguments; /* for the script's `arg` and `...`; ends with NULL */
};

/*
 * Returns the exit code: 0; 1 after having said on standard error why the script failed; what it gave to os.exit(); 128
 * and the signal's number after SIGINT or SIGTERM. Once per process, from the main thread.
 */
int exec_run(const struct exec_options *options);
