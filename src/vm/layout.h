/*
 * What LuaJIT keeps to itself, and the collector's pace needs: the state of the collector, and the table of strings.
 * Both lie in the first block of a VM. No interface says where, so it is found out once, in a VM made for that, where
 * each place is proven by what happens there (layout.c). What is not found is NULL, and everybody does without.
 *
 * These are read and never written, but for the collector's threshold (collector.c). Threads: as the VM's.
 */
#pragma once

#include <lua.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum layout_phase {
	COLLECTOR_PAUSED, /* between two cycles */
	COLLECTOR_MARKING,
	COLLECTOR_ATOMIC,
	COLLECTOR_SWEEPING_STRINGS,
	COLLECTOR_SWEEPING,
	COLLECTOR_FINALIZING,
};

struct layout_collector {
	size_t heap_bytes;
	size_t next_at; /* the heap at which there is something to do next */
	uint8_t white;
	uint8_t phase; /* enum layout_phase */
	uint8_t unused[2];
	uint32_t swept; /* slots of the table of strings, in COLLECTOR_SWEEPING_STRINGS */
	uint64_t lists[6];
	size_t debt_bytes;
	size_t live_bytes; /* once a cycle is over: without what was allocated while it swept */
	uint32_t speed, pause;
} __attribute__((may_alias));

/* A string begins with the link to the next one of its slot. The lowest bit of a slot is a flag. */
struct layout_string {
	uintptr_t next;
} __attribute__((may_alias));

struct layout_strings {
	const uintptr_t *slots;
	uint32_t mask, count; /* slots less one; strings */
	uint32_t unused[2];
	uint64_t seed;
} __attribute__((may_alias));

struct layout {
	const struct layout_collector *collector;
	const struct layout_strings *strings;
	bool knows_hash; /* layout_slot() tells where a string is */
};

/*
 * MAY RAISE. Of a VM whose first block this is, and which counts the bytes of its heap there (NULL: nobody knows
 * where).
 */
void layout_open(struct layout *layout, lua_State *lua, const void *state, size_t state_bytes,
		 const size_t *heap);

static inline uint32_t layout_rotate(uint32_t word, int bits)
{
	return word << bits | word >> (32 - bits);
}

static inline uint32_t layout_word(const uint8_t *at)
{
	uint32_t word;
	__builtin_memcpy(&word, at, sizeof word);
	return word;
}

/* LuaJIT's hash of a text, which is not empty: the slot that the string has, or will have. */
static inline uint32_t layout_slot(const struct layout_strings *strings, const uint8_t *text, uint32_t len)
{
	uint32_t a, b, h = len ^ (uint32_t)strings->seed;
	if (len >= 4) {
		a = layout_word(text);
		h ^= layout_word(text + len - 4);
		b = layout_word(text + (len >> 1) - 2);
		h ^= b;
		h -= layout_rotate(b, 14);
		b += layout_word(text + (len >> 2) - 1);
	} else {
		a = text[0];
		h ^= text[len - 1];
		b = text[len >> 1];
		h ^= b;
		h -= layout_rotate(b, 14);
	}
	a ^= h;
	a -= layout_rotate(h, 11);
	b ^= a;
	b -= layout_rotate(a, 25);
	h ^= b;
	h -= layout_rotate(b, 16);
	return h & strings->mask;
}

/* The first string of a slot; NULL: there is none. */
static inline const struct layout_string *layout_first(const struct layout_strings *strings, uint32_t slot)
{
	return (const struct layout_string *)(strings->slots[slot] & ~(uintptr_t)1);
}

static inline const struct layout_string *layout_next(const struct layout_string *string)
{
	return (const struct layout_string *)string->next;
}

enum { LAYOUT_FETCH_MAX = 1024 };

/*
 * Brings the chains that begin with these strings into the caches; NULL is none. `first` is used up. A chain is a list,
 * so each of its strings has to wait for the one before; therefore all chains are followed together. With a million
 * live strings that halves what a frame costs.
 */
void layout_fetch(const struct layout_string **first, unsigned n);
