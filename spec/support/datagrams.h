/*
 * A layer over a socket of datagrams: each is read as a record of its length (two bytes, the higher first) and its
 * bytes, and written as one. So connections have datagrams as frames, by the framing u16be, and nothing above knows
 * of it. For tests: the place where UDP is to move in, as a lowest stream, since to a socket stream an empty datagram
 * is the end.
 */
#pragma once

#include "stream/stream.h"

#include <stdint.h>

enum { DATAGRAM_BYTES_MAX = 2000, DATAGRAM_HEAD_BYTES = 2 };

struct datagram_stream {
	struct stream_layer layer;
	uint8_t held[DATAGRAM_HEAD_BYTES + DATAGRAM_BYTES_MAX]; /* one that was read, and not handed out */
	size_t held_at, held_bytes;
};

extern const struct stream_ops DATAGRAM_STREAM;
