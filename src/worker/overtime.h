/*
 * What threads still do after the time at which they should have stopped. One that uses the processor for long then, or
 * waits for something for long, does not stop by itself; one that a busy machine does not let run may well.
 *
 * Threads: the main thread.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum {
	OVERTIME_MS = 2000, /* of CPU time, and the same of waiting */
	OVERTIME_LOOK_MS = 100,
};

/* Of a thread. All zero: it has not begun. */
struct overtime {
	bool has_begun;
	uint64_t from_cpu_ms, asleep_ms, looked_ms;
};

/* Call it every OVERTIME_LOOK_MS, from the time on. now_ms: uv_now(). True: it had as much as it may. */
bool overtime_look(struct overtime *overtime, pid_t thread, uint64_t now_ms);
