/*
 * The main thread: listeners, admission, hand-over to workers, signals, drain.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct config;

/* Exit codes (sysexits.h's EX_CONFIG is 78). */
enum { EXIT_OK = 0, EXIT_FAILED = 1, EXIT_USAGE = 2, EXIT_BAD_CONFIG = 78 };

/* Records what happens from the first connection on: docs/replay.md. */
struct server_record {
	const char *file;       /* NULL: nothing is recorded */
	bool force;             /* overwrite it */
	uint64_t max_bytes, ms; /* 0: no limit */
};

struct server_options {
	bool watch; /* reload whenever the app's files change */
	struct server_record record;
};

/*
 * From now on signals are those of a server that is to come: TERM, INT and QUIT end the process with EXIT_OK and a
 * line, HUP, USR1 and USR2 wait for server_run(). Before the script is loaded, which may take seconds.
 */
void server_expect_signals(void);

/*
 * Serves until a signal ends it. Logs what happens, failures to start included.
 * The options are copied, but for texts. Returns the exit code. Call once per process, from the main thread.
 */
int server_run(struct config *config, const struct server_options *options);

/*
 * Is a handler still running that never returned? Then its thread uses the configuration and all else: free
 * nothing, and end the process with _exit().
 */
bool server_is_stuck(void);
