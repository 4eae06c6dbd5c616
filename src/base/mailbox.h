/*
 * A lock-free queue from any number of threads to one.
 *
 * Mail is pushed on an atomic stack and taken whole, in the order it was
 * pushed. The queue itself wakes nobody: mailbox_push() says when the box was
 * empty, and the sender then signals the owner (uv_async_send).
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>

/* Embedded at the head of a message; the receiver owns the message once taken. */
struct mail {
	struct mail *next;
};

struct mailbox {
	_Atomic(struct mail *) head;
};

void mailbox_init(struct mailbox *box);

/* Any thread. True when the box was empty before, so that its owner must be woken. */
bool mailbox_push(struct mailbox *box, struct mail *mail);

/*
 * Everything pushed so far, oldest first, linked by `next`; NULL when empty. The owner, or another thread that pushes back
 * what it has no use for, in the same order: if it is the only sender, the owner sees it in the order of sending.
 */
struct mail *mailbox_take(struct mailbox *box);

/* Any thread. */
static inline bool mailbox_is_empty(const struct mailbox *box)
{
	return !atomic_load_explicit(&((struct mailbox *)box)->head, memory_order_relaxed);
}
