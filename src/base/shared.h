/*
 * Immutable bytes that several have a part in, on whatever thread: a message to many is held once.
 *
 * Leaf. Threads: any. Whoever lets go last frees it.
 */
#pragma once

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

struct shared {
	atomic_uint refs;
	uint32_t len;
	uint8_t bytes[];
};

/* A copy of the bytes, held once; NULL: not enough memory. */
struct shared *shared_new(const void *bytes, uint32_t len);

/* Holds it once more. */
struct shared *shared_hold(struct shared *shared);

/* Lets go once. NULL is nothing. */
void shared_drop(struct shared *shared);
