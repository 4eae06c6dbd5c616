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
#define COUNTERS(X)                                                                                          \
	X(cut, "connections ended by the drain's deadline, a second signal or `perilune stop --now`")        \
	X(frames_in, "frames handed to agents")                                                              \
	X(frames_out, "frames sent by agents")                                                               \
	X(bytes_in, "bytes received")                                                                        \
	X(bytes_out, "bytes taken by the system")                                                            \
	X(faults, "errors raised by handlers")                                                               \
	X(suspensions, "calls that waited")                                                                  \
	X(dropped_frames, "frames not sent, because of `slow_consumer = \"drop\"`")                          \
	X(discarded_bytes,                                                                                   \
	  "bytes received that never became a frame for an agent, because the connection ended first")       \
	X(dropped_datagrams,                                                                                 \
	  "datagrams received that nobody took: their flow had too many waiting, or was refused")            \
	X(truncated_datagrams, "datagrams received that were larger than `frame` allows; they are dropped")  \
	X(lost_datagrams, "datagrams that the system dropped, because nobody read them in time")             \
	X(unsent_datagrams, "datagrams not sent: the system refused them, or `amplification` did")           \
	X(accept_errors,                                                                                     \
	  "times that accepting failed for a while (open files, memory, a network that is down)")            \
	X(accept_delays, "times that `accept_rate` made clients wait")                                       \
	X(handshakes, "connections whose TLS, or what else stands before them, has opened")                  \
	X(connect_failures, "connections out that could not be made, or that nobody waited for any more")    \
	X(held_up, "calls that [waited in the system](containment.md#calls-that-block-in-the-system) for "   \
		   "over a second")                                                                          \
	X(migrated, "connections that went to a newer generation")                                           \
	X(not_migrated, "connections that were to migrate, and could not")                                   \
	X(messages_sent,                                                                                     \
	  "messages of `perilune.send` and `perilune.call`: delivered, dropped, or still waiting")           \
	X(messages_delivered, "messages that `message` was called with")                                     \
	X(messages_dropped, "messages whose agent ended before it took them")                                \
	X(calls_timed_out, "calls of `perilune.call` that nobody answered in time")                          \
	X(replies_dropped, "replies to calls that nobody waited for any more")                               \
	X(hub_published, "messages published to [topics](hub.md)")                                           \
	X(hub_missed, "times that a message found no room in a worker's inbox, `hub.inbox`")                 \
	X(hub_joined, "memberships of topics that have begun")                                               \
	X(hub_parted, "memberships that have ended")                                                         \
	X(hub_addressed, "messages times members: delivered, dropped, evicted, or still waiting")            \
	X(hub_delivered, "messages that a member was sent, or its `message` was called with")                \
	X(hub_dropped_oldest, "messages dropped for a newer one, of a member that did not keep up")          \
	X(hub_dropped_newest, "messages not taken, of a member that did not keep up")                        \
	X(hub_replaced, "messages replaced by a newer one with the same key")                                \
	X(hub_unfit, "messages that the framing of a member could not carry")                                \
	X(hub_evicted, "messages of members that were disconnected because they did not keep up")            \
	X(hub_left, "messages that waited for a member that has left, or ended")                             \
	X(residents_begun, "[agents without a socket](agents.md) that were made")                            \
	X(residents_ended, "agents without a socket that have ended")                                        \
	X(websockets, "connections that became WebSockets")                                                  \
	X(websocket_1000, "WebSockets that ended with 1000, whoever was first to say so: as they were to")   \
	X(websocket_1001, "WebSockets that ended with 1001: the server or the page has gone, or was silent") \
	X(websocket_1002, "WebSockets that ended with 1002: a frame broke the rules")                        \
	X(websocket_1005, "WebSockets whose client has sent a close frame without a code")                   \
	X(websocket_1006, "WebSockets that ended without a close frame")                                     \
	X(websocket_1007, "WebSockets that ended with 1007: no UTF-8, or a broken compression")              \
	X(websocket_1008, "WebSockets that ended with 1008: kicked, too slow")                               \
	X(websocket_1009, "WebSockets that ended with 1009: a message over `limits.message`")                \
	X(websocket_1011,                                                                                    \
	  "WebSockets that ended with 1011: their agent raised an error, or left a message unfinished")      \
	X(websocket_other, "WebSockets that ended with another code, such as a script's own")                \
	X(websocket_windows,                                                                                 \
	  "bytes that the compression windows of WebSockets may take at this moment: `limits.deflate`")      \
	X(http_requests, "HTTP requests handed to agents")                                                   \
	X(http_2xx, "HTTP responses with a status of 200 to 299")                                            \
	X(http_3xx, "HTTP responses with a status of 300 to 399")                                            \
	X(http_4xx, "HTTP responses with a status of 400 to 499, refusals included")                         \
	X(http_5xx, "HTTP responses with a status of 500 to 599, refusals included")                         \
	X(http_400, "HTTP requests refused with 400: malformed")                                             \
	X(http_408, "HTTP requests refused with 408: not come in time")                                      \
	X(http_413, "HTTP requests refused with 413: with a body over `limits.body`")                        \
	X(http_414, "HTTP requests refused with 414: with a target over `limits.uri`")                       \
	X(http_417, "HTTP requests refused with 417: with an expectation that nobody can meet")              \
	X(http_431,                                                                                          \
	  "HTTP requests refused with 431: with header fields over `limits.headers` or `limits.fields`")     \
	X(http_500, "HTTP requests refused with 500: that failed: their agent raised an error")              \
	X(http_501,                                                                                          \
	  "HTTP requests refused with 501: that asked for what is not there: CONNECT, a transfer coding")    \
	X(http_503, "HTTP requests refused with 503: that the server, or its memory, had no time for")       \
	X(http_505, "HTTP requests refused with 505: of another version of HTTP")

#define COUNTERS_FIELD(name, help) counter name;
#define COUNTERS_INDEX(name, help) COUNTER_##name,

enum { COUNTERS(COUNTERS_INDEX) COUNTER_COUNT };

struct counters {
	COUNTERS(COUNTERS_FIELD)
	counter accepted;                   /* connections taken from a listener */
	counter closed[REASON_COUNT];       /* connections that ended, by reason */
	counter faults_by[REASON_COUNT];    /* faults, by the reason that they are to a connection */
	counter residents_by[REASON_COUNT]; /* agents without a socket that have ended, by reason */
	counter phases[PHASE_COUNT];        /* connections at this moment; PHASE_NONE's is of no use */
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

/*
 * The sets of a process: some of one array, whose members are `stride` bytes apart, and one more. Read by any thread.
 */
struct counters_all {
	const struct counters *first;
	size_t stride;
	unsigned count;
	const struct counters *more;
};

/* Adds all of them to `to`, which the caller owns. */
void counters_sum_all(struct counters *to, const struct counters_all *all);

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
