/*
 * Lists that run in a ring: a member leaves in constant time, and need not know of which list it is one.
 *
 * Leaf; one owner.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

/* Embedded in what is listed; the head of a list is one that is in nothing. */
struct ring {
	struct ring *next, *previous;
};

/* What a ring is the FIELD of. */
#define RING_MEMBER(RING, TYPE, FIELD) ((TYPE *)(void *)((char *)(RING)-offsetof(TYPE, FIELD)))

static inline void ring_init(struct ring *head)
{
	head->next = head->previous = head;
}

static inline bool ring_is_empty(const struct ring *head)
{
	return head->next == head;
}

static inline void ring_put_first(struct ring *head, struct ring *ring)
{
	ring->previous = head;
	ring->next = head->next;
	head->next->previous = ring;
	head->next = ring;
}

static inline void ring_put_last(struct ring *head, struct ring *ring)
{
	ring_put_first(head->previous, ring);
}

static inline void ring_take(struct ring *ring)
{
	ring->next->previous = ring->previous;
	ring->previous->next = ring->next;
}

/* Of a list that is not empty. */
static inline struct ring *ring_take_first(struct ring *head)
{
	struct ring *first = head->next;
	head->next = first->next;
	head->next->previous = head;
	return first;
}

/* All of `from`, to a list that is empty. */
static inline void ring_move(struct ring *from, struct ring *to)
{
	ring_put_first(from, to);
	ring_take(from);
	ring_init(from);
}
