#include "record/tape.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { KEPT_BYTES = 1 << 20 }; /* a larger tape goes back to the system when it is empty */

void tape_init(struct tape *tape, unsigned worker, uint64_t began_us)
{
	*tape = (struct tape){ .worker = worker, .began_us = began_us };
}

void tape_deinit(struct tape *tape)
{
	free(tape->entries);
	tape->entries = NULL;
	tape->used = tape->room = 0;
}

uint64_t tape_clock_us(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static uint64_t time_of(const struct tape *tape)
{
	uint64_t now_us = tape->now_ms ? *tape->now_ms * 1000 : tape_clock_us();
	return now_us > tape->began_us ? now_us - tape->began_us : 0;
}

/* Heads stay aligned. */
static size_t size_of(uint32_t len)
{
	return sizeof(struct tape_entry) + (((size_t)len + 7) & ~(size_t)7);
}

static bool tape_grow(struct tape *tape, size_t wanted)
{
	size_t room = tape->room ? tape->room : 16384;
	while (room < wanted)
		room *= 2;
	uint8_t *grown = realloc(tape->entries, room);
	if (!grown)
		return false;
	tape->entries = grown;
	tape->room = room;
	return true;
}

/* What others add meanwhile may take it over the limit, by as much as they have in hand. */
static bool is_full(const struct tape *tape, size_t more)
{
	size_t elsewhere =
	    tape->held_bytes ? atomic_load_explicit(tape->held_bytes, memory_order_relaxed) : 0;
	return tape->limit_bytes && elsewhere + tape->used + more > tape->limit_bytes;
}

uint8_t *tape_put(struct tape *tape, const struct tape_entry *entry)
{
	size_t size = size_of(entry->len);
	bool must = entry->kind == TRACE_LOST;
	if (tape->is_broken || (!must && is_full(tape, size)))
		return NULL;
	if (tape->used + size > tape->room && !tape_grow(tape, tape->used + size)) {
		tape->is_broken = must;
		return NULL;
	}
	struct tape_entry *to = (struct tape_entry *)(void *)(tape->entries + tape->used);
	*to = *entry;
	to->at_us = time_of(tape);
	tape->used += size;
	if (entry->kind == TRACE_IN || entry->kind == TRACE_OUT) {
		tape->frames++;
		tape->bytes += entry->len;
	}
	return (uint8_t *)(to + 1);
}

/* They are taken off first: what is put on meanwhile may move the tape, and is for the next time. */
void tape_take(struct tape *tape,
	       void (*visit)(void *data, const struct tape_entry *entry, const uint8_t *bytes), void *data)
{
	uint8_t *entries = tape->entries;
	size_t used = tape->used, room = tape->room;
	tape->entries = NULL;
	tape->used = tape->room = 0;
	for (size_t at = 0; at < used;) {
		const struct tape_entry *entry = (const struct tape_entry *)(void *)(entries + at);
		visit(data, entry, (const uint8_t *)(entry + 1));
		at += size_of(entry->len);
	}
	if (tape->entries || room > KEPT_BYTES) {
		free(entries);
	} else {
		tape->entries = entries;
		tape->room = room;
	}
}

uint64_t tape_oldest_us(const struct tape *tape)
{
	if (!tape->used)
		return 0;
	return ((const struct tape_entry *)(void *)tape->entries)->at_us + tape->began_us;
}
