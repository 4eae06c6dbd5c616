/*
 * Calls that block in the system (vm/stall.h), as the server tells of them: warnings, counts, what the status says.
 *
 * Threads: the main thread.
 */
#pragma once

#include <jansson.h>
#include <stdint.h>

struct counters;
struct worker;

/* Of a worker. */
struct held_up {
	uint64_t times;
	const char *callback;    /* by which it is held up now; NULL: it is not, as far as is known */
	uint64_t conn, since_ms; /* uv_now() */
};

/* Tells and counts what has happened since the last time. `now_ms`: uv_now(). */
void stalls_look(struct worker *workers, unsigned worker_count, struct counters *counters, uint64_t now_ms);

/* {"callback": …, "conn": …, "ms": …}, or null. */
json_t *stalls_status(const struct held_up *held_up, uint64_t now_ms);
