/*
 * Byte queues on borrowed memory.
 *
 * A connection with nothing pending holds no buffer: its pointer is NULL. The
 * first byte that has to wait borrows a block from the worker's pool, the last
 * one consumed gives it back. Blocks grow with the bytes that are really
 * there, never with bytes that a peer merely announced, and the pool refuses
 * to pass its limit.
 *
 * Threads: a pool and its blocks belong to one thread.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	BUF_MIN_BYTES = 4096,      /* the smallest block, header included */
	BUF_POOLED_BYTES = 262144, /* larger blocks go back to the system at once */
};

struct pieces;

/* The live bytes are data[start .. end). */
struct buf {
	union {
		struct buf *next_free; /* in the pool's list */
		struct pieces *pieces; /* lent: what base/outq.h has between the bytes, or NULL */
	};
	uint32_t cap, start, end;
	uint8_t data[];
};

struct buf_pool {
	struct buf *free;
	unsigned free_count, free_max;
	size_t lent_bytes;  /* capacity of all blocks now lent out */
	size_t limit_bytes; /* 0: none */
};

/* free_max: how many returned blocks are kept for the next borrower. */
void buf_pool_init(struct buf_pool *pool, size_t limit_bytes, unsigned free_max);
void buf_pool_deinit(struct buf_pool *pool);

/* Gives the kept blocks back to the system (after a burst, when idle). */
void buf_pool_trim(struct buf_pool *pool);

/*
 * Makes room for n more bytes behind the live ones, borrowing, compacting or
 * growing as needed, and returns where they go; buf_commit() then counts them
 * in. NULL when the limit or the system's memory forbids: *b is unchanged.
 */
uint8_t *buf_reserve(struct buf_pool *pool, struct buf **b, size_t n);

/* Could b take n more bytes if nobody else held anything? Otherwise no eviction will help. */
bool buf_could_hold(const struct buf_pool *pool, const struct buf *b, size_t n);

/* 0, or ERR_BUFFER_LIMIT with nothing appended. */
int buf_append(struct buf_pool *pool, struct buf **b, const void *bytes, size_t n);

/* Drops n bytes from the front; the block goes back when none are left. */
void buf_consume(struct buf_pool *pool, struct buf **b, size_t n);

/* Gives the block back, whatever it holds. *b may be NULL, and is afterwards. */
void buf_release(struct buf_pool *pool, struct buf **b);

static inline size_t buf_len(const struct buf *b)
{
	return b ? b->end - b->start : 0;
}

static inline size_t buf_room(const struct buf *b)
{
	return b ? b->cap - b->end : 0;
}

static inline void buf_commit(struct buf *b, size_t n)
{
	b->end += (uint32_t)n;
}
