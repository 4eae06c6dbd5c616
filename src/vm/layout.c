/*
 * A guess counts only when all of what follows from it has happened in the probe, a VM without libraries that is
 * taken through a cycle of its collector step by step.
 */
#include "vm/layout.h"

#include <lauxlib.h>
#include <lua.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum {
	ARENA_BYTES = 1 << 20,
	STATE_WORDS_MAX = 2048,
	BLOCKS_MAX = 64,
	LEAST_BLOCK_BYTES = 1024,
	STRING_HEAD_BYTES = 24,
};

/* Offsets in the first block, in words of 8 bytes; 0: not found. LuaJIT's own first word is no place of ours. */
static struct {
	size_t state_bytes;
	size_t collector, strings;
	bool knows_hash;
} found;

/* A table that may be that of the strings: the blocks of the probe with a size that is a power of two. */
struct block {
	const void *at;
	size_t bytes;
};

/* All that the probe ever allocates lies in its arena: no pointer is followed that does not lead there. */
struct probe {
	uint8_t *arena;
	size_t used;
	const uint64_t *state;
	size_t state_bytes;
	struct block blocks[BLOCKS_MAX];
};

static bool is_power_of_two(size_t n)
{
	return n && !(n & (n - 1));
}

static struct block *find_block(struct probe *probe, const void *at)
{
	for (size_t i = 0; i < BLOCKS_MAX; i++)
		if (probe->blocks[i].at == at)
			return &probe->blocks[i];
	return NULL;
}

static bool is_in_arena(const struct probe *probe, const void *at, size_t bytes)
{
	uintptr_t from = (uintptr_t)probe->arena, to = from + probe->used, address = (uintptr_t)at;
	return address >= from && address < to && bytes <= to - address && !(address % sizeof(uint64_t));
}

/* Nothing is freed: the probe lives for a moment. */
static void *layout_allocate(void *data, void *block, size_t old_bytes, size_t new_bytes)
{
	struct probe *probe = data;
	size_t bytes = (new_bytes + 15) & ~(size_t)15;
	struct block *noted = block ? find_block(probe, block) : NULL;
	if (noted)
		*noted = (struct block){ 0 };
	if (!new_bytes || bytes > ARENA_BYTES - probe->used)
		return NULL;
	void *got = probe->arena + probe->used;
	probe->used += bytes;
	if (block)
		memcpy(got, block, old_bytes < new_bytes ? old_bytes : new_bytes);
	if (!probe->state) {
		probe->state = got;
		probe->state_bytes = new_bytes;
	} else if (new_bytes >= LEAST_BLOCK_BYTES && is_power_of_two(new_bytes) &&
		   (noted = find_block(probe, NULL))) {
		*noted = (struct block){ got, new_bytes };
	}
	return got;
}

static size_t words_of(const struct probe *probe)
{
	size_t words = probe->state_bytes / sizeof *probe->state;
	return words < STATE_WORDS_MAX ? words : STATE_WORDS_MAX;
}

/* ---- the collector ---- */

static size_t layout_heap_bytes(lua_State *lua)
{
	return (size_t)lua_gc(lua, LUA_GCCOUNT, 0) << 10 | (size_t)lua_gc(lua, LUA_GCCOUNTB, 0);
}

static const struct layout_collector *collector_at(const struct probe *probe, size_t word)
{
	return (const void *)(probe->state + word);
}

/* What is set is there, and the heap at which the collector goes on follows from it. */
static bool is_collector(const struct layout_collector *collector, lua_State *lua)
{
	enum { SPEED = 12347, PAUSE = 311 };
	if (collector->next_at < (size_t)1 << 40) /* it is stopped */
		return false;
	lua_gc(lua, LUA_GCSETSTEPMUL, SPEED);
	lua_gc(lua, LUA_GCSETPAUSE, PAUSE);
	if (collector->speed != SPEED || collector->pause != PAUSE)
		return false;
	lua_gc(lua, LUA_GCRESTART, -1);
	if (collector->next_at != collector->heap_bytes / 100 * PAUSE)
		return false;
	lua_gc(lua, LUA_GCCOLLECT, 0);
	if (collector->next_at != collector->live_bytes / 100 * PAUSE ||
	    collector->live_bytes != collector->heap_bytes)
		return false;
	lua_gc(lua, LUA_GCRESTART, 0);
	return collector->next_at == collector->heap_bytes;
}

/* The one word that is always as large as the heap. */
static size_t find_collector(const struct probe *probe, lua_State *lua)
{
	enum { ROUNDS = 4 };
	size_t words = words_of(probe), at = 0;
	uint8_t misses[STATE_WORDS_MAX] = { 0 };
	lua_gc(lua, LUA_GCSTOP, 0);
	for (size_t round = 1; round <= ROUNDS; round++) {
		lua_newuserdata(lua, 1000 * round);
		lua_pop(lua, 1);
		size_t bytes = layout_heap_bytes(lua);
		for (size_t i = 0; i < words; i++)
			misses[i] |= probe->state[i] != bytes;
	}
	for (size_t i = 1; i + sizeof(struct layout_collector) / sizeof *probe->state <= words; i++) {
		if (misses[i])
			continue;
		if (at)
			return 0;
		at = i;
	}
	return at && is_collector(collector_at(probe, at), lua) ? at : 0;
}

/* Through a cycle in the smallest of steps, each of which sweeps one slot. */
static bool has_phases(const struct layout_collector *collector, const struct layout_strings *strings,
		       lua_State *lua)
{
	enum { STEPS_MAX = 100000 };
	lua_gc(lua, LUA_GCCOLLECT, 0);
	if (collector->phase != COLLECTOR_PAUSED)
		return false;
	lua_gc(lua, LUA_GCSETSTEPMUL, 1);
	bool marked = false, swept = false;
	uint8_t phase = COLLECTOR_PAUSED;
	uint32_t slots = 1; /* the first one in the same step as the atomic phase */
	for (int i = 0; i < STEPS_MAX; i++) {
		int over = lua_gc(lua, LUA_GCSTEP, 0);
		if (over)
			return collector->phase == COLLECTOR_PAUSED && marked && swept;
		if (collector->phase < phase)
			return false;
		phase = collector->phase;
		marked = marked || phase == COLLECTOR_MARKING;
		if (phase == COLLECTOR_SWEEPING_STRINGS && collector->swept != slots++)
			return false;
		swept = swept || (phase == COLLECTOR_SWEEPING && collector->swept == strings->mask + 1);
	}
	return false;
}

/* ---- the table of strings ---- */

static const struct layout_strings *strings_at(const struct probe *probe, size_t word)
{
	return (const void *)(probe->state + word);
}

static bool may_be_strings(struct probe *probe, size_t word)
{
	const struct layout_strings *strings = strings_at(probe, word);
	if (!strings->slots || !is_power_of_two((size_t)strings->mask + 1) ||
	    strings->count > strings->mask + 1)
		return false;
	const struct block *block = find_block(probe, strings->slots);
	return block && block->bytes == ((size_t)strings->mask + 1) * sizeof *strings->slots;
}

/* The one place that looks like it, and counts one more for each new string. */
static size_t find_strings(struct probe *probe, lua_State *lua)
{
	enum { NEW = 3 };
	size_t at = 0;
	for (size_t i = 1; i + sizeof(struct layout_strings) / sizeof *probe->state <= words_of(probe); i++) {
		if (!may_be_strings(probe, i))
			continue;
		if (at)
			return 0;
		at = i;
	}
	for (int i = 0; at && i < NEW; i++) {
		uint32_t count = strings_at(probe, at)->count;
		lua_pushfstring(lua, "perilune.layout %d", i);
		if (strings_at(probe, at)->count != count + 1)
			at = 0;
		lua_pop(lua, 1);
	}
	return at;
}

static bool is_in_slot(const struct probe *probe, const struct layout_strings *strings, const char *text,
		       size_t len)
{
	const struct layout_string *string = (const void *)(text - STRING_HEAD_BYTES),
				   *other = layout_first(
				       strings, layout_slot(strings, (const void *)text, (uint32_t)len));
	for (uint32_t i = 0; i < strings->count && is_in_arena(probe, other, sizeof *other); i++) {
		if (other == string)
			return true;
		other = layout_next(other);
	}
	return false;
}

/* Strings of many lengths are all where layout_slot() says. */
static bool has_hash(const struct probe *probe, const struct layout_strings *strings, lua_State *lua)
{
	enum { LONGEST = 100 };
	char text[LONGEST];
	for (size_t len = 1; len <= LONGEST; len++) {
		for (size_t i = 0; i < len; i++)
			text[i] = (char)('!' + (i * 7 + len * 31) % 90);
		lua_pushlstring(lua, text, len);
		bool is_there = is_in_slot(probe, strings, lua_tostring(lua, -1), len);
		lua_pop(lua, 1);
		if (!is_there)
			return false;
	}
	return true;
}

/* ---- both ---- */

static int explore(lua_State *lua)
{
	struct probe *probe = lua_touserdata(lua, 1);
	size_t collector = find_collector(probe, lua), strings = find_strings(probe, lua);
	if (!collector || !strings)
		return 0;
	lua_gc(lua, LUA_GCSTOP, 0); /* or the strings would be gone before they are looked for */
	bool knows_hash = has_hash(probe, strings_at(probe, strings), lua);
	if (!has_phases(collector_at(probe, collector), strings_at(probe, strings), lua))
		return 0;
	found.collector = collector;
	found.strings = strings;
	found.knows_hash = knows_hash;
	found.state_bytes = probe->state_bytes;
	return 0;
}

static void layout_find(void)
{
	struct probe probe = { .arena = malloc(ARENA_BYTES) };
	lua_State *lua = probe.arena ? lua_newstate(layout_allocate, &probe) : NULL;
	if (lua) {
		lua_cpcall(lua, explore, &probe);
		lua_close(lua);
	}
	free(probe.arena);
}

/* In this VM as in the probe: each new string is counted. */
static bool counts_strings(const struct layout_strings *strings, lua_State *lua)
{
	uint32_t count = strings->count;
	lua_pushfstring(lua, "perilune.layout %p", (const void *)strings);
	bool is_counted =
	    strings->slots && is_power_of_two((size_t)strings->mask + 1) && strings->count == count + 1;
	lua_pop(lua, 1);
	return is_counted;
}

void layout_open(struct layout *layout, lua_State *lua, const void *state, size_t state_bytes,
		 const size_t *heap)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	pthread_once(&once, layout_find);
	*layout = (struct layout){ 0 };
	if (!found.collector || state_bytes != found.state_bytes)
		return;
	const uint64_t *words = state;
	const struct layout_collector *collector = (const void *)(words + found.collector);
	const struct layout_strings *strings = (const void *)(words + found.strings);
	if (heap != &collector->heap_bytes || !counts_strings(strings, lua))
		return;
	*layout = (struct layout){ collector, strings, found.knows_hash };
}

/* The head of a string may lie in two lines. */
static inline void fetch(const struct layout_string *string)
{
	__builtin_prefetch(string, 1);
	__builtin_prefetch((const char *)string + STRING_HEAD_BYTES - 1, 1);
}

void layout_fetch(const struct layout_string **first, unsigned n)
{
	unsigned chains = 0;
	for (unsigned i = 0; i < n; i++) {
		if (!first[i])
			continue;
		fetch(first[i]);
		first[chains++] = first[i];
	}
	n = chains;
	while (n) {
		unsigned left = 0;
		for (unsigned i = 0; i < n; i++) {
			const struct layout_string *next = layout_next(first[i]);
			if (!next)
				continue;
			fetch(next);
			first[left++] = next;
		}
		n = left;
	}
}
