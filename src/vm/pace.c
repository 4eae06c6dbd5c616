/*
 * The collector's pace.
 *
 * A cycle of LuaJIT's collector marks all that lives and then sweeps all there is: of strings each slot of their table,
 * and each string. So a cycle costs by what lives, and a frame its share of it: the more garbage may wait for a cycle,
 * the less a frame costs. Three things bound the garbage:
 *
 * - Memory: limits.garbage is a share of what lives. A small heap may have more, as long as it fits the caches.
 * - The table of strings. LuaJIT doubles it, in one long step, when there are more strings than slots, and dead ones
 *   count until they are swept. A pace that does not look at it makes it grow in the midst of traffic.
 * - limits.memory.
 *
 * The table of strings gets room after loading and in idle moments, and a cycle begins when the table is nearly full.
 *
 * In a large heap the collector runs over the second half of the garbage: the longer it may take, the smaller its
 * steps.
 *
 * What a cycle costs follows from LuaJIT's own numbers (layout.h). Where they were not found the pace is blind: little
 * garbage, as then nobody knows how full the table of strings is.
 */
#include "vm/vm.h"

#include <limits.h>
#include <string.h>

enum {
	KB = 1024,
	STRING_BYTES = 32,    /* a string's head, as memory */
	COUNTED_BYTES = 25,   /* as the heap's size counts it */
	SMALL_STRINGS = 6000, /* garbage of a small heap, in strings as large as frames */
	SMALL_MAX_KB = 1536,
	LARGE_SLOTS = 32768, /* a table of so many strings is not in the caches */
	CHEAP_SLOTS = 65536, /* it grows to so many within two milliseconds */
	LARGE_KB = 4096,
	ROOM_STRINGS = 2500, /* the least that a table should have room for */
	BLIND_PERCENT = 4,
	CYCLE_KB = 700, /* allocated while a cycle of a small heap runs */
	SPEED_MIN = 400,
	SPEED_MAX = 10000,
};

const struct vm_pace VM_PACE_DEFAULT = {
	.garbage = 0.28,
	.speed = SPEED_MIN,
	.low_kb = INT_MAX,
	.begin_strings = UINT32_MAX,
	.due_bytes = VM_DUE_BYTES,
};

/* ---- the table of strings ---- */

static uint32_t slots_of(const struct vm *vm)
{
	return vm->layout.strings->mask + 1;
}

/* LuaJIT doubles the table at one string more than slots. Where a cycle takes hundreds of milliseconds, 4 of them for
 * that are cheap. */
static uint32_t strings_limit(const struct vm *vm, size_t live_kb)
{
	enum { HUGE_KB = 65536 };
	uint32_t cheap = live_kb < HUGE_KB ? CHEAP_SLOTS : 2 * CHEAP_SLOTS;
	uint32_t slots = slots_of(vm) > cheap ? slots_of(vm) : cheap;
	return slots - slots / 16;
}

struct growth {
	const struct layout_strings *strings;
	uint32_t slots;
};

/* MAY RAISE: memory. Makes strings until the table has grown. They are garbage. */
static int grow_strings(lua_State *lua)
{
	const struct growth *growth = lua_touserdata(lua, 1);
	char text[] = "perilune.slot\0\0\0\0";
	for (uint32_t i = 0; growth->strings->mask < growth->slots - 1 && i < growth->slots; i++) {
		memcpy(text + sizeof text - 1 - sizeof i, &i, sizeof i);
		lua_pushlstring(lua, text, sizeof text - 1);
		lua_pop(lua, 1);
	}
	return 0;
}

static void pace_make_room(struct vm *vm, uint32_t slots_max)
{
	const struct layout_strings *strings = vm->layout.strings;
	if (!strings || vm->layout.collector->phase != COLLECTOR_PAUSED)
		return;
	uint32_t slots = slots_of(vm);
	if (slots < LARGE_SLOTS || slots > slots_max || strings->count < slots / 8 * 5)
		return;
	const struct layout_collector *collector = vm->layout.collector;
	size_t before = collector->heap_bytes;
	struct growth growth = { strings, 2 * slots };
	if (lua_cpcall(vm->lua, grow_strings, &growth))
		lua_pop(vm->lua, 1);
	vm->kept_threshold += collector->heap_bytes - before;
}

void vm_make_room_for_strings(struct vm *vm)
{
	enum { SLOTS_MAX = 1 << 17 }; /* some milliseconds, which somebody may come to wait for after all */
	pace_make_room(vm, SLOTS_MAX);
}

void vm_settle(struct vm *vm)
{
	enum { STEP_KB = 256, CYCLES = 2 }; /* the first may have begun before the garbage was made */
	int heap_kb = lua_gc(vm->lua, LUA_GCCOUNT, 0);
	for (int i = 0; heap_kb >= LARGE_KB && i < CYCLES; i++) {
		for (int done_kb = 0; done_kb < 2 * heap_kb && !vm_collect_step(vm, STEP_KB);
		     done_kb += STEP_KB)
			; /* in steps: each has a budget */
		pace_make_room(vm, UINT32_MAX);
		vm_pace(vm, 0); /* the end of a cycle sets the beginning of the next one */
	}
	slab_trim(&vm->slab);
	vm_pace(vm, 0);
}

/* ---- steps ---- */

/*
 * LuaJIT sweeps slot by slot, and waits for the memory of each string. Here what the next slots lead to is fetched for
 * all of them at once.
 */
static void fetch_strings(const struct vm *vm)
{
	const struct layout_strings *strings = vm->layout.strings;
	const struct layout_string *first[LAYOUT_FETCH_MAX];
	uint32_t from = vm->layout.collector->swept, n = strings->mask + 1 - from;
	n = n < (uint32_t)vm->pace.speed ? n : (uint32_t)vm->pace.speed;
	n = n < LAYOUT_FETCH_MAX ? n : LAYOUT_FETCH_MAX;
	for (uint32_t i = 0; i < n; i++)
		first[i] = layout_first(strings, from + i);
	layout_fetch(first, n);
}

/* LuaJIT does a step more than it is asked for. */
bool vm_step(struct vm *vm, lua_State *lua, int kb)
{
	const struct layout_collector *collector = vm->layout.collector;
	for (; kb >= 0 && vm->pace.is_large && collector->phase == COLLECTOR_SWEEPING_STRINGS; kb--) {
		fetch_strings(vm);
		if (lua_gc(lua, LUA_GCSTEP, 0))
			return true;
	}
	return kb >= 0 && lua_gc(lua, LUA_GCSTEP, kb);
}

void vm_sample(struct vm *vm)
{
	struct vm_pace *pace = &vm->pace;
	int heap_kb = lua_gc(vm->lua, LUA_GCCOUNT, 0);
	if (heap_kb < pace->low_kb)
		pace->low_kb = heap_kb;
	if (vm->layout.collector && vm->layout.strings->count >= pace->begin_strings &&
	    vm->layout.collector->phase == COLLECTOR_PAUSED)
		vm->kept_threshold = vm->layout.collector->heap_bytes;
}

/* ---- the pace ---- */

/* What may wait as garbage, by memory. */
static size_t garbage_by_memory(const struct vm *vm, size_t live_kb, size_t frame_bytes)
{
	size_t kb = (frame_bytes + STRING_BYTES) * SMALL_STRINGS / KB;
	double share = vm->layout.collector ? vm->pace.garbage : BLIND_PERCENT / 100.0;
	size_t share_kb = (size_t)((double)live_kb * share);
	kb = kb < SMALL_MAX_KB ? kb : SMALL_MAX_KB;
	kb = kb > share_kb ? kb : share_kb;
	/* Not into where memory.c hurries the collector. */
	size_t near_kb = vm->memory_bytes / KB / 4 * 3, left_kb = near_kb > live_kb ? near_kb - live_kb : 0;
	size_t least_kb = live_kb * BLIND_PERCENT / 100;
	left_kb = left_kb > least_kb ? left_kb : least_kb;
	return (vm->memory_bytes && kb > left_kb ? left_kb : kb) + 1;
}

static void set_pace(struct vm *vm, size_t waiting_kb, size_t live_kb, size_t speed)
{
	enum { PAUSE_MAX = 10000 };
	size_t pause = 100 + 100 * waiting_kb / (live_kb + 1);
	vm->pace.speed = (int)(speed < SPEED_MAX ? speed : SPEED_MAX);
	lua_gc(vm->lua, LUA_GCSETPAUSE, (int)(pause < PAUSE_MAX ? pause : PAUSE_MAX));
	lua_gc(vm->lua, LUA_GCSETSTEPMUL, vm->pace.speed);
}

/* A cycle should be over before CYCLE_KB more have been allocated. */
static void pace_small(struct vm *vm, size_t live_kb, size_t garbage_kb)
{
	size_t speed = 100 * (live_kb / CYCLE_KB);
	set_pace(vm, garbage_kb, live_kb, speed > SPEED_MIN ? speed : SPEED_MIN);
}

/*
 * A step of LuaJIT's comes for each KB that is allocated. It does as much as marks 10 * speed bytes, or sweeps `speed`
 * slots or objects. Strings need no marking but by the way.
 */
struct work {
	size_t marks, sweeps; /* a step of speed 1 does one of these */
};

static struct work work_of(const struct vm *vm, size_t live_kb)
{
	enum { BYTES_PER_MARK = 10, OBJECT_BYTES = 128 };
	size_t bytes = live_kb * KB, slots = slots_of(vm);
	size_t of_strings = slots * sizeof(uintptr_t) + (size_t)vm->pace.live_strings * STRING_BYTES;
	size_t marked = bytes > 2 * of_strings ? bytes - of_strings : bytes / 2;
	return (struct work){ marked / BYTES_PER_MARK, slots + marked / OBJECT_BYTES };
}

/* Between two cycles: what was allocated since the last one is taken for strings as large as frames. */
static void count_strings(struct vm *vm, size_t string_bytes)
{
	const struct layout_collector *collector = vm->layout.collector;
	if (collector->phase != COLLECTOR_PAUSED && vm->pace.live_strings)
		return;
	size_t heap = collector->heap_bytes,
	       since = heap > collector->live_bytes ? heap - collector->live_bytes : 0;
	size_t count = vm->layout.strings->count, new = since / string_bytes;
	vm->pace.live_strings = (uint32_t)(new < count / 2 ? count - new : count / 2);
}

static void pace_large(struct vm *vm, size_t live_kb, size_t garbage_kb, size_t string_bytes)
{
	size_t limit = strings_limit(vm, live_kb), live = vm->pace.live_strings, least = ROOM_STRINGS;
	size_t room = limit > live + least ? limit - live : least, room_kb = room * string_bytes / KB + 1;
	garbage_kb = garbage_kb < room_kb ? garbage_kb : room_kb;
	struct work work = work_of(vm, live_kb);
	size_t speed = (work.marks + work.sweeps) / (garbage_kb / 2 + 1) + 1;
	size_t marking_kb = work.marks / speed, sweeping_kb = work.sweeps / speed,
	       running_kb = marking_kb + sweeping_kb;
	size_t waiting_kb = garbage_kb > running_kb ? garbage_kb - running_kb : 0;
	set_pace(vm, sweeping_kb + waiting_kb, live_kb, speed);
	size_t coming = marking_kb * KB / string_bytes;
	vm->pace.begin_strings = (uint32_t)(limit - (coming < room / 2 ? coming : room / 2));
}

void vm_pace(struct vm *vm, size_t frame_bytes)
{
	struct vm_pace *pace = &vm->pace;
	const struct layout_collector *collector = vm->layout.collector;
	vm_sample(vm);
	size_t live_kb = (size_t)pace->low_kb;
	pace->low_kb = INT_MAX;
	pace->begin_strings = UINT32_MAX;
	pace->is_large = collector && slots_of(vm) >= LARGE_SLOTS;
	/* Every step is to be vm_step()'s: those that LuaJIT does within a call fetch nothing. */
	pace->due_bytes = pace->is_large ? 0 : VM_DUE_BYTES;
	if (collector && collector->live_bytes)
		live_kb = collector->live_bytes / KB;
	size_t garbage_kb = garbage_by_memory(vm, live_kb, frame_bytes);
	if (!pace->is_large && (!collector || live_kb < LARGE_KB)) {
		pace_small(vm, live_kb, garbage_kb);
		return;
	}
	count_strings(vm, frame_bytes + COUNTED_BYTES);
	pace_large(vm, live_kb, garbage_kb, frame_bytes + COUNTED_BYTES);
}
