/*
 * A layer that does to a connection whatever a stream may do, and as often as it can: it has a beginning and an end of
 * its own, changes every byte, keeps back what it has read, works on a piece of what it is to write until all of that
 * piece is gone, wants to write before it reads and to read before it writes, and fails at the n-th call.
 *
 * On the wire each byte is its own xor the key; a NASTY_FILLER means nothing (so nobody may send the key), NASTY_ASK
 * that this side reads something before it writes on, be it a filler, and NASTY_END comes last. The peer begins with
 * NASTY_HELLO_BYTES fillers, and so does this side. It stands below connections only.
 *
 * The peer's half of it, for specifications in Lua: nasty.lua. The whole program over such streams: perilune_nasty,
 * spec/nasty/hook.c.
 */
#pragma once

#include "stream/stream.h"

#include <stdint.h>

enum {
	NASTY_KEY = 0x5a,
	NASTY_UPPER_KEY = 0xc3,
	NASTY_FILLER = 0,
	NASTY_END = 1,
	NASTY_ASK = 2,
	NASTY_HELLO_BYTES = 3,
	NASTY_PIECE_BYTES = 40
};

struct nasty_stream {
	struct stream_layer layer;
	uint32_t (*choose)(uint32_t bound); /* of what happens; NULL: it chooses itself, by this: */
	uint64_t seed;                      /* 0: the mildest of all */
	uint8_t key;                        /* 0: it takes key and seed when it opens */
	unsigned fails_in;                  /* calls; 0: it does not */
	unsigned hello_read, hello_written;
	unsigned read_needs, write_needs;     /* STREAM_*; 0: what it is named for */
	uint8_t held[NASTY_PIECE_BYTES];      /* read, and not handed out */
	uint8_t piece[NASTY_PIECE_BYTES + 1]; /* that is being written, as it was given */
	unsigned held_at, held_bytes, piece_bytes, piece_written;
	bool asks, asked; /* the peer for something to read: is to; has, and nothing has come yet */
	bool opened, below_ended, ends, end_written;
};

extern const struct stream_ops NASTY_STREAM;

/* Of those that nobody has given a key; each connection's choices are its own. Set before the first opens. */
extern uint64_t nasty_seed;

/* What the peer's side puts on the wire, and back. */
void nasty_translate(void *bytes, size_t n, uint8_t key);

/* Does it wait for something that only the peer can do, in an unusual place? */
bool nasty_is_stuck(const struct nasty_stream *nasty);
