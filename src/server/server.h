/*
 * The main thread: listeners, admission, hand-over to workers, signals, drain.
 */
#pragma once

#include <stdbool.h>

struct config;

/* Exit codes (sysexits.h's EX_CONFIG is 78). */
enum { EXIT_OK = 0, EXIT_FAILED = 1, EXIT_USAGE = 2, EXIT_BAD_CONFIG = 78 };

/*
 * Serves until a signal ends it. Logs what happens, failures to start included.
 * `watch`: reloads whenever the app's files change. Returns the exit code. Call once per process, from the main thread.
 */
int server_run(struct config *config, bool watch);

/*
 * Is a handler still running that never returned? Then its thread uses the configuration and all else: free
 * nothing, and end the process with _exit().
 */
bool server_is_stuck(void);
