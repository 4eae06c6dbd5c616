/*
 * What a trace is made of: what happened on a connection, and how that is written: a JSON object a line. See
 * docs/replay.md.
 *
 * Leaf; any thread.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { TRACE_FORMAT = 1 };

enum trace_kind {
	TRACE_OPEN,
	TRACE_IN,        /* a frame that was handed up */
	TRACE_OUT,       /* a reply, before it is framed */
	TRACE_EOF,       /* the peer has ended its side */
	TRACE_BAD_FRAME, /* its bytes are not kept */
	TRACE_DRAIN,     /* the server goes away */
	TRACE_CLOSE,
	TRACE_LOST, /* there was no room: what is missing begins here */
	TRACE_KINDS
};

/* "open", "in", … */
const char *trace_kind_name(enum trace_kind kind);

struct trace_event {
	enum trace_kind kind;
	bool wire;     /* IN, OUT: as a codec in Lua has it: framed */
	bool redacted; /* IN, OUT: only its length is to be told */
	unsigned worker;
	uint32_t generation;
	uint64_t at_us; /* since the recording began */
	uint64_t conn;
	const uint8_t *data; /* IN, OUT: the frame; OPEN: where the peer is; CLOSE: the reason */
	size_t len;
	const char *listener; /* OPEN */
};

/* At least as many bytes as trace_write() will write. */
size_t trace_bytes(const struct trace_event *event);

/* Writes the event as a line, its line feed included. Returns how many bytes that are. */
size_t trace_write(const struct trace_event *event, char *to);
