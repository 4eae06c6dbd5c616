/*
 * What a thread counts. Each thread writes its own set and any thread may read
 * it: plain stores that are merely declared atomic (relaxed), so the hot path
 * has no locked instruction and a reader never sees half a number.
 */
#pragma once

#include "base/reason.h"

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

typedef _Atomic(uint64_t) counter;

/* What a connection is at. Where several are true, the first of them. */
enum conn_phase {
	PHASE_NONE,      /* it is no more */
	PHASE_OPENING,   /* its stream has yet to open: a handshake */
	PHASE_CLOSING,   /* its end was decided: output is delivered, or the peer's end waited for */
	PHASE_SUSPENDED, /* its handler waits */
	PHASE_CHOKED,    /* the peer does not read: output is past the high-water mark */
	PHASE_PAUSED,    /* by its handler */
	PHASE_DRAINING,  /* the server goes away, and its handler closes by itself */
	PHASE_OPEN,
	PHASE_COUNT
};

/*
 * X(name, what it counts). Of this table are made the sum over threads, `perilune status`, the entry `stopped` and the
 * table in docs/reference.md (packaging/generate.lua).
 */
#define COUNTERS(X)                                                                                        \
	X(cut, "connections ended by the drain's deadline, a second signal or `perilune stop --now`")      \
	X(frames_in, "frames handed to agents")                                                            \
	X(frames_out, "frames sent by agents")                                                             \
	X(bytes_in, "bytes received")                                                                      \
	X(bytes_out, "bytes taken by the system")                                                          \
	X(faults, "errors raised by handlers")                                                             \
	X(suspensions, "calls that waited")                                                                \
	X(dropped_frames, "frames not sent, because of `slow_consumer = \"drop\"`")                        \
	X(discarded_bytes,                                                                                 \
	  "bytes received that never became a frame for an agent, because the connection ended first")     \
	X(accept_errors,                                                                                   \
	  "times that accepting failed for a while (open files, memory, a network that is down)")          \
	X(accept_delays, "times that `accept_rate` made clients wait")                                     \
	X(handshakes, "connections whose TLS, or what else stands before them, has opened")                \
	X(held_up, "calls that [waited in the system](containment.md#calls-that-block-in-the-system) for " \
		   "over a second")                                                                        \
	X(migrated, "connections that went to a newer generation")                                         \
	X(not_migrated, "connections that were to migrate, and could not")

#define COUNTERS_FIELD(name, help) counter name;
#define COUNTERS_INDEX(name, help) COUNTER_##name,

enum { COUNTERS(COUNTERS_INDEX) COUNTER_COUNT };

struct counters {
	COUNTERS(COUNTERS_FIELD)
	counter accepted;                /* connections taken from a listener */
	counter closed[REASON_COUNT];    /* connections that ended, by reason */
	counter faults_by[REASON_COUNT]; /* faults, by the reason that they are to a connection */
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

/* Those of COUNTERS, in its order. */
struct counter_name {
	const char *name;
	size_t at; /* in struct counters */
};
extern const struct counter_name COUNTER_NAMES[COUNTER_COUNT];

static inline uint64_t counters_read(const struct counters *c, const struct counter_name *name)
{
	return count_read((const counter *)(const void *)((const char *)c + name->at));
}

/* Connections that ended, whatever the reason. */
uint64_t counters_closed(const struct counters *c);
