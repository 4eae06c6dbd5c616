/*
 * Tells the service manager at intervals that we live (WATCHDOG=1), which means: the main thread turns, and every
 * worker has answered since the last time. A handler that never returns, with no budget that would end it, stops the
 * pulse.
 *
 * Threads: the main thread.
 */
#pragma once

#include <stdbool.h>
#include <uv.h>

struct notify;
struct worker;

struct pulse {
	uv_timer_t timer;
	struct notify *notify;
	struct worker *workers;
	unsigned worker_count; /* 0: they are not asked any more */
	bool silent;           /* and that has been logged */
};

void pulse_open(struct pulse *pulse, uv_loop_t *loop);
void pulse_close(struct pulse *pulse);

/* Begins, if the service manager wants it. */
void pulse_start(struct pulse *pulse, struct notify *notify, struct worker *workers, unsigned worker_count);

/* The workers are about to stop, which has a deadline of its own; the pulse goes on without asking them. */
void pulse_ask_nobody(struct pulse *pulse);
