/* How often the collector runs beside live state, and what that costs: by counts. */
#include "vm_calls.h"

#include <stdio.h>
#include <string.h>

enum { FRAME_BYTES = 32, BATCH = 64, STATE = 60000 };

/* As with a LuaJIT whose state is not known. */
static void forget_layout(void)
{
	vm.layout = (struct layout){ 0 };
}

static void need_layout(void)
{
	if (!vm.layout.collector)
		skip();
}

static void make_state(void)
{
	char source[128];
	snprintf(source, sizeof source, "kept = {} for i = 1, %d do kept[i] = { name = 'object ' .. i } end",
		 STATE);
	assert_int_equal(call(source, &AMPLE).status, 0);
	assert_int_equal(call("function nothing() end", &AMPLE).status, 0);
	lua_settop(vm.lua, 0);
	vm_settle(&vm);
}

static void assert_state_is_whole(void)
{
	assert_int_equal(
	    call("for i, o in ipairs(kept) do assert(o.name == 'object ' .. i) end return #kept", &AMPLE)
		.status,
	    0);
	assert_int_equal(lua_tointeger(vm.lua, -1), STATE);
	lua_settop(vm.lua, 0);
}

struct served {
	unsigned cycles;
	uint32_t slots; /* the most that the table of strings had */
	size_t peak_bytes;
};

static void look(struct served *served)
{
	size_t heap = heap_bytes();
	served->peak_bytes = heap > served->peak_bytes ? heap : served->peak_bytes;
	if (!vm.layout.strings)
		return;
	uint32_t slots = vm.layout.strings->mask + 1;
	served->slots = slots > served->slots ? slots : served->slots;
}

/* Frames that come in batches, as the core pushes them; the handler itself allocates nothing. */
static struct served serve(unsigned frames)
{
	static unsigned serial;
	struct served served = { 0 };
	char frame[FRAME_BYTES] = { 0 };
	bool swept = false;
	for (unsigned i = 0; i < frames; i += BATCH) {
		for (unsigned k = 0; k < BATCH; k++) {
			serial++;
			memcpy(frame, &serial, sizeof serial);
			lua_pushlstring(vm.lua, frame, sizeof frame);
			lua_pop(vm.lua, 1);
		}
		look(&served);
		lua_getglobal(vm.lua, "nothing");
		assert_int_equal(vm_pcall(&vm, vm.lua, 0, 0, &AMPLE), 0);
		vm_sample(&vm);
		if (i % 4096 == 0)
			vm_pace(&vm, FRAME_BYTES);
		bool sweeps = vm.layout.collector && vm.layout.collector->phase == COLLECTOR_SWEEPING_STRINGS;
		served.cycles += sweeps && !swept;
		swept = sweeps;
	}
	return served;
}

static void beside_live_state_garbage_may_be_a_share_of_it(void **state)
{
	(void)state;
	enum { FRAMES = 400000, STRING_BYTES = 64 };
	need_layout();
	make_state();
	size_t live = heap_bytes();
	serve(FRAMES / 4);
	struct served served = serve(FRAMES);
	size_t made = (size_t)FRAMES * STRING_BYTES;
	assert_in_range(served.cycles, 1, made / (live / 4));
	assert_in_range(served.peak_bytes, live, live + live / 2);
	assert_state_is_whole();
}

static void less_garbage_is_a_matter_of_a_setting(void **state)
{
	(void)state;
	need_layout();
	make_state();
	size_t live = heap_bytes();
	serve(100000);
	unsigned cycles = serve(200000).cycles;
	vm.pace.garbage = 0.05;
	vm_pace(&vm, FRAME_BYTES);
	serve(100000);
	struct served served = serve(200000);
	assert_true(served.cycles > 2 * cycles);
	assert_in_range(served.peak_bytes, live, live + live / 5);
}

/* LuaJIT doubles it in one step, while everybody waits. */
static void dead_frames_do_not_make_the_table_of_strings_grow(void **state)
{
	(void)state;
	need_layout();
	make_state();
	uint32_t slots = vm.layout.strings->mask + 1;
	assert_true(slots >= 2 * STATE);
	assert_int_equal(serve(600000).slots, slots);
	vm.pace.garbage = 1;
	assert_int_equal(serve(600000).slots, slots);
	assert_int_equal(vm.layout.strings->mask + 1, slots);
	assert_state_is_whole();
}

/* Within a call LuaJIT does the steps, and waits for the memory of each string. */
static void a_call_of_a_large_heap_begins_with_nothing_to_collect(void **state)
{
	(void)state;
	enum { CALLS = 100000 };
	need_layout();
	make_state();
	unsigned steps = 0;
	for (unsigned i = 0; i < CALLS; i++) {
		lua_pushlstring(vm.lua, (const char *)&i, sizeof i);
		lua_pop(vm.lua, 1);
		steps += *vm.heap >= vm.kept_threshold;
		vm_enter(&vm, &AMPLE);
		assert_true(*vm.heap < *vm.threshold);
		assert_int_equal(vm_leave(&vm), GUARD_FINE);
	}
	assert_true(steps > 0);
}

/* State that comes while frames are served finds a table that is nearly full. */
static void room_for_strings_is_made_when_nobody_waits(void **state)
{
	(void)state;
	need_layout();
	assert_int_equal(
	    call("function nothing() end kept = {} for i = 1, 30000 do kept[i] = 'object ' .. i end", &AMPLE)
		.status,
	    0);
	lua_settop(vm.lua, 0);
	vm_pace(&vm, FRAME_BYTES);
	while (!vm_collect_step(&vm, 64))
		;
	uint32_t slots = vm.layout.strings->mask + 1;
	assert_true(slots < 2 * 30000);
	size_t before = vm.kept_threshold;
	vm_make_room_for_strings(&vm);
	assert_int_equal(vm.layout.strings->mask + 1, 2 * slots);
	assert_true(vm.kept_threshold >= before && vm.kept_threshold < (size_t)1 << 40);
	while (!vm_collect_step(&vm, 64))
		;
	vm_make_room_for_strings(&vm);
	assert_int_equal(vm.layout.strings->mask + 1, 2 * slots);
	assert_int_equal(serve(100000).slots, 2 * slots);
}

static void garbage_does_not_come_near_the_limit_of_memory(void **state)
{
	(void)state;
	need_layout();
	make_state();
	size_t live = heap_bytes();
	vm.memory_bytes = live / 10 * 16;
	vm.pace.garbage = 1;
	vm_pace(&vm, FRAME_BYTES);
	serve(100000);
	assert_in_range(serve(200000).peak_bytes, live, vm.memory_bytes / 100 * 80);
	assert_false(vm.is_full);
}

static void a_blind_pace_is_a_slower_one(void **state)
{
	(void)state;
	forget_layout();
	make_state();
	size_t live = heap_bytes();
	serve(100000);
	assert_in_range(serve(200000).peak_bytes, live, live + live / 4);
	assert_state_is_whole();
}

/* The table of 65,536 slots grows within two milliseconds; no share of a heap without strings makes a larger one. */
static void beside_tables_alone_the_table_of_strings_stays_small(void **state)
{
	(void)state;
	need_layout();
	assert_int_equal(
	    call("function nothing() end kept = {} for i = 1, 100000 do kept[i] = { i } end", &AMPLE).status,
	    0);
	lua_settop(vm.lua, 0);
	vm_settle(&vm);
	assert_in_range(serve(600000).slots, 1, 65536);
}

static int run(const char *way)
{
	const struct CMUnitTest tests[] = {
		IN_A_VM(beside_live_state_garbage_may_be_a_share_of_it),
		IN_A_VM(less_garbage_is_a_matter_of_a_setting),
		IN_A_VM(dead_frames_do_not_make_the_table_of_strings_grow),
		IN_A_VM(a_call_of_a_large_heap_begins_with_nothing_to_collect),
		IN_A_VM(room_for_strings_is_made_when_nobody_waits),
		IN_A_VM(garbage_does_not_come_near_the_limit_of_memory),
		IN_A_VM(a_blind_pace_is_a_slower_one),
		IN_A_VM(beside_tables_alone_the_table_of_strings_stays_small),
	};
	return cmocka_run_group_tests_name(way, tests, NULL, NULL);
}

int main(void)
{
	return in_the_usual_way(run); /* the collector knows nothing of interruptions */
}
