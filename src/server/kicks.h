/*
 * Connections that an operator wants ended, by whichever worker has them. A worker whose handler does not return
 * answers late: its client is told so after a while, and may leave before; the connection is ended all the same.
 *
 * Threads: the main thread.
 */
#pragma once

#include "control/control.h"

struct report;
struct worker;
struct kick;

struct kicks {
	struct control *control;
	struct kick *first;  /* that not all workers have answered */
	uv_timer_t patience; /* runs while there are any */
};

void kicks_open(struct kicks *kicks, struct control *control, uv_loop_t *loop);

/* The client has its answer then or later. `reason` is for the log, or NULL. */
void kicks_begin(struct kicks *kicks, uint64_t client, uint64_t conn, const char *reason,
		 struct worker *workers, unsigned worker_count);

/* An eviction is back. */
void kicks_evicted(struct kicks *kicks, struct report *report);

/* The client does not wait any more. */
void kicks_forget(struct kicks *kicks, uint64_t client);

/* The server has ended: answers who waits. */
void kicks_close(struct kicks *kicks);

/* The workers have, too: frees what they still had. */
void kicks_deinit(struct kicks *kicks);
