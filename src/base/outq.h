/*
 * What a connection has to send: its own bytes in a block of the worker's pool, and between them pieces of what it
 * shares with others.
 *
 * Without pieces it is a byte queue (base/buf.h) and costs what that costs. Who frames replies appends to `bytes`
 * directly: what is appended comes after all that was queued before. The pieces hang from the block, so that a queue
 * takes one pointer of a connection; it is NULL when nothing is pending.
 *
 * Threads: as the pool's; the shared bytes may be others' as well.
 */
#pragma once

#include "base/buf.h"
#include "base/shared.h"

#include <sys/uio.h>

struct outq {
	struct buf *bytes;
};

enum {
	OUTQ_SHARE_BYTES = 512, /* less is copied: a piece costs as much */
	OUTQ_IOV_MAX = 64,      /* parts that are written at once */
};

/* Bytes of `shared` from `at` on, and how many own bytes come before them, behind the previous piece. */
struct piece {
	struct shared *shared;
	uint32_t at, len, before;
};

struct pieces {
	size_t len;    /* of all of them */
	size_t before; /* own bytes that come before any of them */
	unsigned first, end, room;
	struct piece list[];
};

/* Queues a part of what is shared, which is held until it is sent. 0, or ERR_BUFFER_LIMIT with nothing queued. */
int outq_share(struct outq *out, struct buf_pool *pool, struct shared *shared, uint32_t at, uint32_t len);

/* The first parts of what is pending, at most OUTQ_IOV_MAX. Returns how many. */
int outq_parts(const struct outq *out, struct iovec *parts);

/* outq_consume() where there are pieces. */
void outq_consume_parts(struct outq *out, struct buf_pool *pool, size_t n);

/* Drops n bytes from the front. */
static inline void outq_consume(struct outq *out, struct buf_pool *pool, size_t n)
{
	if (out->bytes->pieces)
		outq_consume_parts(out, pool, n);
	else
		buf_consume(pool, &out->bytes, n);
}

/* Drops all of it. */
void outq_release(struct outq *out, struct buf_pool *pool);

static inline bool outq_has_pieces(const struct outq *out)
{
	return out->bytes && out->bytes->pieces;
}

static inline size_t outq_len(const struct outq *out)
{
	return buf_len(out->bytes) + (outq_has_pieces(out) ? out->bytes->pieces->len : 0);
}
