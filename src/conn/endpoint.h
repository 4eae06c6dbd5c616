/*
 * What connections of one origin have in common: those that come by a listener, in one generation of the script.
 *
 * The layer above embeds it in what it knows of that origin, and finds that by it: agent_endpoint_of().
 *
 * Threads: written before its first connection is opened, then read by the thread that owns the connections.
 */
#pragma once

#include <stdint.h>

struct protocol;
struct layer;
struct lone_ops;
struct networks;

/* Milliseconds; 0: off. */
struct timeouts {
	uint32_t read;        /* a started frame must complete */
	uint32_t write;       /* pending output must make progress */
	uint32_t idle;        /* a frame must complete now and then */
	uint32_t first_frame; /* the first frame must complete after the stream has opened */
	uint32_t opening;     /* the layers of its stream must have opened after the accept */
	uint32_t body;        /* where a protocol tells a started frame's body apart: it must come on */
	uint32_t ping;        /* nothing has come for so long: the protocol asks whether the peer is there */
};

/* What to do with a peer that does not read, past the high-water mark. */
enum slow_policy {
	SLOW_PAUSE, /* stop reading from it; timeout.write ends it */
	SLOW_CLOSE, /* end it with slow_consumer */
	SLOW_DROP,  /* drop what is sent until it has drained, and count */
};

/* Limits and time-outs. */
struct conn_rules {
	struct timeouts timeouts;
	uint32_t send_buffer_bytes; /* high-water mark of pending output */
	uint32_t inbox_frames;      /* frames that may wait for a suspended agent */
	enum slow_policy slow;
};

struct endpoint {
	const char *name; /* for logs: the listener's address, or the name that the script gives it */
	struct conn_rules rules;
	const struct protocol *protocol; /* of its connections, until they have one of their own */
	uint16_t index;                  /* its place in the configuration of its generation, */
	uint16_t slot;                   /* ... and its number in all of them */

	/* Of its connections' streams, above what their carrier puts lowest: stream_layers, or NULL. */
	const struct layer *layers;
	bool
	    has_handshake; /* their opening costs time: the host bounds how many are at it (conn_host.opening_max) */

	bool has_datagrams; /* its streams have no end, and closing them with unread input loses nothing */

	/* A layer tells who the peer is, by what these say, and nobody else; others are refused. NULL: none does. */
	const struct networks *trust;

	/* Of channels that are on no connection; else NULL. */
	const struct lone_ops *lone;
};
