/*
 * A box in which a worker finds what others send to it: a mailbox, who is rung when something comes into the empty box,
 * and how many bytes are on their way.
 *
 * Leaf. Threads: any, but where said otherwise.
 */
#pragma once

#include "base/mailbox.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

/* On lines of the cache of its own: who fills one does not disturb who fills the next. */
struct inbox {
	_Alignas(64) struct mailbox mailbox;
	_Atomic(void *) owner; /* NULL: nobody waits yet */
	atomic_bool is_closed;
	_Alignas(64) atomic_size_t bytes; /* reserved */
};

/* It is zeroed. */
void inbox_init(struct inbox *box);

/* Its owner looks into it from now on: before he waits, and when it rings. */
void inbox_open(struct inbox *box, void *owner);

/* Nobody reads it any more: room in it is refused. */
void inbox_close(struct inbox *box);

static inline bool inbox_is_closed(const struct inbox *box)
{
	return atomic_load_explicit(&((struct inbox *)box)->is_closed, memory_order_acquire);
}

/* Room for so many bytes, of which there may be `most`, until inbox_return(). False: there is none. */
bool inbox_reserve(struct inbox *box, size_t bytes, size_t most);
void inbox_return(struct inbox *box, size_t bytes);

/* Rings its owner, if there is one. */
void inbox_ring(const struct inbox *box, void (*ring)(void *owner));

/* Puts mail in. Who was in time to find the box not empty does not ring. */
void inbox_post(struct inbox *box, struct mail *mail, void (*ring)(void *owner));

/* Has something come? The owner's thread. */
bool inbox_has_mail(const struct inbox *box);

/* The owner's thread, or once that has ended: all that has come, the oldest first; NULL: nothing. */
struct mail *inbox_collect(struct inbox *box);
