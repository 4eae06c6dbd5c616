#include "base/inbox.h"

void inbox_init(struct inbox *box)
{
	mailbox_init(&box->mailbox);
}

/* The fences: either the sender sees the owner, or the owner, who looks before he waits, sees what was sent. */
void inbox_open(struct inbox *box, void *owner)
{
	atomic_store_explicit(&box->owner, owner, memory_order_release);
	atomic_thread_fence(memory_order_seq_cst);
}

void inbox_close(struct inbox *box)
{
	atomic_store_explicit(&box->is_closed, true, memory_order_release);
}

bool inbox_reserve(struct inbox *box, size_t bytes, size_t most)
{
	if (inbox_is_closed(box))
		return false;
	size_t before = atomic_fetch_add_explicit(&box->bytes, bytes, memory_order_relaxed);
	if (before + bytes <= most)
		return true;
	inbox_return(box, bytes);
	return false;
}

void inbox_return(struct inbox *box, size_t bytes)
{
	atomic_fetch_sub_explicit(&box->bytes, bytes, memory_order_relaxed);
}

void inbox_ring(const struct inbox *box, void (*ring)(void *owner))
{
	atomic_thread_fence(memory_order_seq_cst);
	void *owner = atomic_load_explicit(&((struct inbox *)box)->owner, memory_order_acquire);
	if (owner)
		ring(owner);
}

void inbox_post(struct inbox *box, struct mail *mail, void (*ring)(void *owner))
{
	if (mailbox_push(&box->mailbox, mail))
		inbox_ring(box, ring);
}

bool inbox_has_mail(const struct inbox *box)
{
	return atomic_load_explicit(&((struct inbox *)box)->mailbox.head, memory_order_relaxed);
}

struct mail *inbox_collect(struct inbox *box)
{
	return inbox_has_mail(box) ? mailbox_take(&box->mailbox) : NULL;
}
