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

/* The owner: everything pushed so far, oldest first, linked by `next`; NULL when empty. */
struct mail *mailbox_take(struct mailbox *box);
