/*
 * The stream of tests: two byte queues in memory, and no clock but the caller's. It can do on purpose what networks do
 * by chance: split, stall, reset, half-close.
 *
 * Threads: as the connection's.
 */
#pragma once

#include "stream/stream.h"

#include <netinet/in.h>
#include <stdint.h>

/* Bytes in their order. */
struct memory_queue {
	uint8_t *first;     /* the first one of them */
	size_t bytes, room; /* from there on */
	size_t gone;        /* in front of it: taken already */
};

struct memory_stream {
	struct stream stream;
	struct memory_queue inward;  /* from the peer to us, not yet read */
	struct memory_queue outward; /* from us to the peer, not yet taken */
	size_t window_bytes;         /* how much `outward` may hold: a peer that stalls */
	size_t read_max;             /* at most so many bytes a read; 0: no bound */
	size_t write_max;            /* ... and a write */
	size_t put_bytes;            /* that have arrived, while it was open */
	unsigned writes;             /* that were made, those that would block included */
	unsigned watched;            /* STREAM_* */
	struct sockaddr_in local;    /* our side's address; family 0: it has none */
	bool peer_shut, our_shut, broken, broken_told, closed, was_reset;
	bool closing;     /* close() was called; memory_stream_report() says so */
	bool asked_again; /* again() was called */
};

/* Begins a stack. */
void memory_stream_init(struct memory_stream *memory, struct stream_user *user);
void memory_stream_deinit(struct memory_stream *memory);

/* The peer's moves. They take effect when they are reported. */
void memory_stream_put(struct memory_stream *memory, const void *bytes, size_t n);
size_t memory_stream_take(struct memory_stream *memory, void *to, size_t n);
void memory_stream_half_close(struct memory_stream *memory);
void memory_stream_reset(struct memory_stream *memory);

/* Is there an event to report, or the end? */
bool memory_stream_has_event(const struct memory_stream *memory);

/* Reports one event, as a level-triggered poll would. False: nothing to report, and the memory may be gone. */
bool memory_stream_report(struct memory_stream *memory);
