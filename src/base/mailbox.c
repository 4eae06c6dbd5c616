#include "base/mailbox.h"

#include <stddef.h>

void mailbox_init(struct mailbox *box)
{
	atomic_init(&box->head, NULL);
}

bool mailbox_push(struct mailbox *box, struct mail *mail)
{
	struct mail *newest = atomic_load_explicit(&box->head, memory_order_relaxed);
	do
		mail->next = newest;
	while (!atomic_compare_exchange_weak_explicit(&box->head, &newest, mail, memory_order_release,
						      memory_order_relaxed));
	/* From here on mail is the owner's, who may have freed it: only the local copy is looked at. */
	return newest == NULL;
}

struct mail *mailbox_take(struct mailbox *box)
{
	/* Taking all at once is what makes the stack safe: with no single pop there is no ABA. One
	 * acquire sees every sender's writes, since their exchanges form one release sequence. */
	struct mail *newest = atomic_exchange_explicit(&box->head, NULL, memory_order_acquire);
	struct mail *oldest = NULL;
	while (newest) {
		struct mail *older = newest->next;
		newest->next = oldest;
		oldest = newest;
		newest = older;
	}
	return oldest;
}
