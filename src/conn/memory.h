/*
 * The transport of tests: two byte queues in memory, and no clock but the
 * caller's. It can do on purpose what networks do by chance: split, stall,
 * reset, half-close.
 *
 * Threads: as the connection's.
 */
#pragma once

#include "conn/conn.h"

struct memory_conn {
	struct conn conn; /* first: carriers and connections convert by cast */
	uint8_t *inward;  /* from the peer to us, not yet read */
	size_t inward_bytes, inward_room;
	uint8_t *outward; /* from us to the peer, not yet taken */
	size_t outward_bytes, outward_room;
	size_t window_bytes; /* how much `outward` may hold: a peer that stalls */
	size_t read_max;     /* at most so many bytes a read; 0: no bound */
	size_t write_max;    /* ... and a write */
	size_t put_bytes;    /* that have arrived, while it was open */
	unsigned writes;     /* that were made, those that would block included */
	unsigned watched;    /* WATCH_* */
	bool peer_shut, our_shut, broken, broken_told, closed, was_reset;
	bool closing; /* close() was called; memory_conn_run() reports it */
};

/* A connection on the memory transport; the caller then calls conn_open(). */
void memory_conn_init(struct memory_conn *memory);
void memory_conn_deinit(struct memory_conn *memory);

/* The peer's moves. They take effect in memory_conn_run(). */
void memory_conn_put(struct memory_conn *memory, const void *bytes, size_t n);
size_t memory_conn_take(struct memory_conn *memory, void *to, size_t n);
void memory_conn_half_close(struct memory_conn *memory);
void memory_conn_reset(struct memory_conn *memory);

/*
 * Reports one event, as a level-triggered poll would; several connections may have theirs before
 * conn_host_settle() ends the poll. False: nothing to report, and the memory may be gone.
 */
bool memory_conn_report(struct memory_conn *memory);

/* Reports what is due, as an event loop would, until nothing more happens. */
void memory_conn_run(struct memory_conn *memory);
