#include "base/buf.h"

#include "base/err.h"

#include <stdlib.h>
#include <string.h>

void buf_pool_init(struct buf_pool *pool, size_t limit_bytes, unsigned free_max)
{
	*pool = (struct buf_pool){ .limit_bytes = limit_bytes, .free_max = free_max };
}

void buf_pool_trim(struct buf_pool *pool)
{
	while (pool->free) {
		struct buf *b = pool->free;
		pool->free = b->next_free;
		free(b);
	}
	pool->free_count = 0;
}

void buf_pool_deinit(struct buf_pool *pool)
{
	buf_pool_trim(pool);
}

/* Blocks are powers of two, header included, so that malloc's classes fit. */
static size_t block_bytes(size_t payload)
{
	size_t bytes = BUF_MIN_BYTES;
	while (bytes < payload + sizeof(struct buf))
		bytes *= 2;
	return bytes;
}

static bool within_limit(const struct buf_pool *pool, size_t more)
{
	return !pool->limit_bytes || pool->lent_bytes + more <= pool->limit_bytes;
}

static struct buf *borrow(struct buf_pool *pool, size_t payload)
{
	struct buf *b = pool->free;
	if (b && b->cap + sizeof *b == block_bytes(payload)) {
		if (!within_limit(pool, b->cap))
			return NULL;
		pool->free = b->next_free;
		pool->free_count--;
	} else {
		size_t bytes = block_bytes(payload), cap = bytes - sizeof *b;
		if (cap > UINT32_MAX || !within_limit(pool, cap))
			return NULL;
		b = malloc(bytes);
		if (!b)
			return NULL;
		b->cap = (uint32_t)cap;
	}
	b->pieces = NULL;
	b->start = b->end = 0;
	pool->lent_bytes += b->cap;
	return b;
}

void buf_release(struct buf_pool *pool, struct buf **bp)
{
	struct buf *b = *bp;
	if (!b)
		return;
	*bp = NULL;
	pool->lent_bytes -= b->cap;
	if (b->cap > BUF_POOLED_BYTES || pool->free_count >= pool->free_max) {
		free(b);
		return;
	}
	b->next_free = pool->free;
	pool->free = b;
	pool->free_count++;
}

static struct buf *buf_grow(struct buf_pool *pool, struct buf *old, size_t payload)
{
	/* The old block counts until the copy is made: both are really held. */
	struct buf *b = borrow(pool, payload);
	if (!b)
		return NULL;
	b->pieces = old->pieces;
	b->end = old->end - old->start;
	memcpy(b->data, old->data + old->start, b->end);
	buf_release(pool, &old);
	return b;
}

static void compact(struct buf *b)
{
	size_t live = b->end - b->start;
	memmove(b->data, b->data + b->start, live);
	b->start = 0;
	b->end = (uint32_t)live;
}

uint8_t *buf_reserve(struct buf_pool *pool, struct buf **bp, size_t n)
{
	struct buf *b = *bp;
	if (n > UINT32_MAX)
		return NULL;
	if (!b) {
		b = borrow(pool, n);
		if (!b)
			return NULL;
	} else if (b->cap - b->end < n) {
		size_t live = b->end - b->start;
		bool fits = b->cap - live >= n;
		/* Compacting pays once at least half of the block is stale; below that,
		 * byte-wise consumers would move it each time, so it doubles, unless the
		 * limit forbids. */
		struct buf *grown = NULL;
		if (!fits || b->start < b->cap / 2)
			grown = buf_grow(pool, b, fits ? (size_t)b->cap + 1 : live + n);
		if (!grown && !fits)
			return NULL;
		if (grown)
			b = grown;
		else
			compact(b);
	}
	*bp = b;
	return b->data + b->end;
}

bool buf_could_hold(const struct buf_pool *pool, const struct buf *b, size_t n)
{
	if (n > UINT32_MAX || buf_len(b) + n > UINT32_MAX)
		return false;
	/* While a block grows, the old one is held, too. */
	size_t needed = block_bytes(buf_len(b) + n) + (b ? b->cap : 0);
	return needed <= UINT32_MAX && (!pool->limit_bytes || needed <= pool->limit_bytes);
}

int buf_append(struct buf_pool *pool, struct buf **b, const void *bytes, size_t n)
{
	uint8_t *to = buf_reserve(pool, b, n);
	if (!to)
		return ERR_BUFFER_LIMIT;
	memcpy(to, bytes, n);
	buf_commit(*b, n);
	return 0;
}

void buf_consume(struct buf_pool *pool, struct buf **bp, size_t n)
{
	struct buf *b = *bp;
	b->start += (uint32_t)n;
	if (b->start == b->end)
		buf_release(pool, bp);
}
