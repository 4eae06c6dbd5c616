#include "base/shared.h"

#include <stdlib.h>
#include <string.h>

struct shared *shared_new(const void *bytes, uint32_t len)
{
	struct shared *shared = malloc(sizeof *shared + len);
	if (!shared)
		return NULL;
	atomic_init(&shared->refs, 1);
	shared->len = len;
	if (len)
		memcpy(shared->bytes, bytes, len);
	return shared;
}

struct shared *shared_hold(struct shared *shared)
{
	atomic_fetch_add_explicit(&shared->refs, 1, memory_order_relaxed);
	return shared;
}

/* What others have read of it happens before it is freed. */
void shared_drop(struct shared *shared)
{
	if (shared && atomic_fetch_sub_explicit(&shared->refs, 1, memory_order_acq_rel) == 1)
		free(shared);
}
