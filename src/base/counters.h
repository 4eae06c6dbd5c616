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

/* What a connection is at. Where several are true, the first of them. */
enum conn_phase {
	PHASE_NONE,      /* it is not open yet, or no more */
	PHASE_CLOSING,   /* its end was decided: output is delivered, or the peer's end waited for */
	PHASE_SUSPENDED, /* its handler waits */
	PHASE_CHOKED,    /* the peer does not read: output is past the high-water mark */
	PHASE_PAUSED,    /* by its handler */
	PHASE_DRAINING,  /* the server goes away, and its handler closes by itself */
	PHASE_OPEN,
	PHASE_COUNT
};

struct counters {
	counter accepted;             /* connections taken from a listener */
	counter closed[REASON_COUNT]; /* connections that ended, by reason */
	counter frames_in, frames_out;
	counter bytes_in, bytes_out;
	counter faults;                  /* errors raised by handlers */
	counter faults_by[REASON_COUNT]; /* ... by the reason that they are to a connection */
	counter suspensions;             /* calls that yielded */
	counter dropped_frames;          /* replies dropped for a slow consumer */
	counter discarded_bytes;         /* input thrown away after a close was decided */
	counter accept_errors;           /* EMFILE and its kin */
	counter accept_delays;           /* times that accept_rate made clients wait */
	counter cut;                     /* connections ended by the drain deadline */
	counter held_up;                 /* calls that blocked in the system for long: the main thread's */
	counter migrated;                /* connections that went to a newer generation */
	counter not_migrated;            /* ... that were to, and could not */
	counter phases[PHASE_COUNT];     /* connections at this moment; PHASE_NONE's is of no use */
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
