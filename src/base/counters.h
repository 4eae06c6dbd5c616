/*
 * What a thread counts. Each thread writes its own set and any thread may read
 * it: plain stores that are merely declared atomic (relaxed), so the hot path
 * has no locked instruction and a reader never sees half a number.
 */
#pragma once

#include "base/reason.h"

#include <stdatomic.h>
#include <stdint.h>

typedef _Atomic(uint64_t) counter;

struct counters {
	counter accepted;             /* connections taken from a listener */
	counter closed[REASON_COUNT]; /* connections that ended, by reason */
	counter frames_in, frames_out;
	counter bytes_in, bytes_out;
	counter faults;          /* errors raised by handlers */
	counter suspensions;     /* calls that yielded */
	counter dropped_frames;  /* replies dropped for a slow consumer */
	counter discarded_bytes; /* input thrown away after a close was decided */
	counter accept_errors;   /* EMFILE and its kin */
	counter accept_delays;   /* times that accept_rate made clients wait */
	counter cut;             /* connections ended by the drain deadline */
	counter migrated;        /* connections that went to a newer generation */
	counter not_migrated;    /* ... that were to, and could not */
};

/* The owner only. */
static inline void count_add(counter *c, uint64_t n)
{
	atomic_store_explicit(c, atomic_load_explicit(c, memory_order_relaxed) + n, memory_order_relaxed);
}

static inline void count(counter *c)
{
	count_add(c, 1);
}

/* Any thread. */
static inline uint64_t count_read(const counter *c)
{
	return atomic_load_explicit((counter *)c, memory_order_relaxed);
}

/* Adds every counter of `from` to `to`. Any thread may own `from`; the caller owns `to`. */
void counters_sum(struct counters *to, const struct counters *from);

/* Connections that ended, whatever the reason. */
uint64_t counters_closed(const struct counters *c);
