/*
 * What a worker is still to do, in the order in which it was told: given by any thread, obeyed by the worker a few at a
 * time. While the worker is held up, the main thread can take some of them back.
 */
#pragma once

#include "base/mailbox.h"

#include <uv.h>

struct orders {
	uv_mutex_t lock; /* of the list; held for a few instructions */
	_Atomic(struct mail *) first;
	struct mail *last; /* while there is a first one */
};

/* 0 or an error. */
int orders_open(struct orders *orders);
void orders_close(struct orders *orders);

/* Any thread. Wakes nobody. */
void orders_push(struct orders *orders, struct mail *mail);

/* The oldest, which is the caller's now; NULL: there is none. */
struct mail *orders_pop(struct orders *orders);

/* The oldest that is wanted, which is the caller's now; NULL: there is none. The others stay, in their order. */
struct mail *orders_take_back(struct orders *orders, bool (*is_wanted)(void *data, struct mail *mail),
			      void *data);

/* Is there one? Any thread. */
static inline bool orders_wait(const struct orders *orders)
{
	return atomic_load_explicit(&orders->first, memory_order_relaxed);
}
