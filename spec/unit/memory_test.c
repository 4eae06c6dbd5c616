/* limits.memory and limits.allocation: who is ended, who is not, what is refused. */
#include "vm_calls.h"

#include <stdio.h>
#include <string.h>

static void a_call_that_fills_the_memory_is_ended_and_the_vm_goes_on(void **state)
{
	(void)state;
	vm.memory_bytes = heap_bytes() + (4 << 20);
	for (int i = 0; i < 3; i++) {
		assert_killed(call(HOG, &AMPLE), GUARD_MEMORY);
		assert_true(vm.is_full);
		relieve();
		assert_true(heap_bytes() < vm.memory_bytes);
		assert_works(&vm);
	}
}

static void pcall_does_not_keep_a_call_that_fills_the_memory(void **state)
{
	(void)state;
	vm.memory_bytes = heap_bytes() + (4 << 20);
	assert_killed(call("local t = {} while true do pcall(function() "
			   "while true do t[#t + 1] = { #t } end end) end",
			   &AMPLE),
		      GUARD_MEMORY);
	relieve();
	assert_works(&vm);
}

/* The collector's rhythm is set between calls: when it is set, the heap is small. */
static void garbage_ends_no_call_whatever_the_pace(void **state)
{
	static const char *const MAKERS[] = {
		"('x'):rep(100) .. i",
		"{ i }",
		"coroutine.create(print)",
		"('x'):rep(100000) .. i",
	};
	(void)state;
	vm.memory_bytes = 24 << 20;
	for (size_t i = 0; i < sizeof MAKERS / sizeof *MAKERS; i++) {
		char source[256];
		snprintf(source, sizeof source,
			 "local kept = {} for i = 1, 60000 do kept[i] = ('k'):rep(100) .. i end\n"
			 "for i = 1, %d do local garbage = %s end return 'done'",
			 i == 3 ? 3000 : 300000, MAKERS[i]);
		lua_gc(vm.lua, LUA_GCCOLLECT, 0);
		lua_gc(vm.lua, LUA_GCSETPAUSE, 1000);
		lua_gc(vm.lua, LUA_GCSETSTEPMUL, 400);
		struct ending ending = call(source, &NONE);
		assert_int_equal(ending.verdict, GUARD_FINE);
		assert_string_equal(lua_tostring(vm.lua, -1), "done");
		lua_settop(vm.lua, 0);
		assert_false(vm.is_full);
	}
}

/* What fills the memory, of several kinds; in `left` for as long as it is to seem live. */
static const char *const BOMBS[] = {
	"left = {} while true do left[#left + 1] = ('x'):rep(100000) .. #left end",
	"left = {} while true do left[#left + 1] = { left[#left] } end",
	"left = 'x' while true do left = left .. left end",
	"left = {} while true do left[#left + 1] = ('x'):rep(100) .. #left end",
};

/* Ones that need much of it, rightly. A table that grows does not let the collector work. */
static const char *const NEEDY[] = {
	"local t = {} for i = 1, 1e5 do t[i] = i end return #table.concat(t)",
	"local t = {} for i = 1, 5e5 do t[i] = i end return #t - 11105",
	"local s = ('x'):rep(7e6) return #s - 6511105",
	"local t = {} for i = 1, 50 do t[i] = ('x'):rep(50000) .. i end return #table.concat(t) - 2011196",
};

static unsigned random_below(unsigned bound)
{
	static uint32_t seed = 1;
	seed = seed * 1664525 + 1013904223;
	return (seed >> 8) % bound;
}

/* Ends anyhow: what counts is what it leaves. */
static void explode(const char *bomb)
{
	call(bomb, &AMPLE);
	lua_settop(vm.lua, 0);
	assert_disarmed();
}

static void drop_what_is_left(void)
{
	lua_pushnil(vm.lua);
	lua_setglobal(vm.lua, "left");
}

/*
 * The garbage of one or two calls that were ended is there to the last byte, or was live until just now (as an agent is
 * until it has been closed), or the collector is in the midst of it.
 */
static void what_others_left_ends_no_call(void **state)
{
	(void)state;
	vm.memory_bytes = 16 << 20;
	for (int i = 0; i < some_of(10); i++) {
		lua_gc(vm.lua, LUA_GCSETPAUSE, 100 + 50 * (int)random_below(20));
		lua_gc(vm.lua, LUA_GCSETSTEPMUL, 200 << random_below(6));
		bool stays_long = random_below(2);
		for (unsigned bombs = 1 + random_below(2); bombs; bombs--) {
			explode(BOMBS[random_below(4)]);
			if (stays_long)
				vm_relieve(&vm, true);
			drop_what_is_left();
			for (unsigned steps = random_below(3); steps; steps--)
				vm_relieve(&vm, random_below(2));
		}
		unsigned kind = random_below(4);
		struct ending ending = call(NEEDY[kind], &AMPLE);
		if (ending.verdict != GUARD_FINE || ending.status)
			fail_msg("round %d: %s: verdict %d, status %d, heap %zu", i, NEEDY[kind],
				 ending.verdict, ending.status, heap_bytes());
		assert_int_equal(lua_tointeger(vm.lua, -1), 488895);
		lua_settop(vm.lua, 0);
		assert_disarmed();
	}
}

/* It has not allocated much itself; but it is what is kept that fills the memory, and more is to be kept. */
static void what_others_keep_does_end_a_call(void **state)
{
	(void)state;
	vm.memory_bytes = 24 << 20;
	int ended = 0;
	assert_int_equal(call("kept = {}", &AMPLE).status, 0);
	for (int i = 0; i < 60; i++) {
		ended +=
		    call("kept[#kept + 1] = {} for i = 1, 1000 do kept[#kept][i] = ('x'):rep(990) .. #kept "
			 ".. i end",
			 &AMPLE)
			.verdict == GUARD_MEMORY;
		lua_settop(vm.lua, 0);
		assert_disarmed();
		relieve();
	}
	assert_in_range(ended, 5, 30);
}

static void a_call_that_goes_on_after_a_collection_is_still_ended(void **state)
{
	(void)state;
	vm.memory_bytes = 24 << 20;
	for (int i = 0; i < some_of(10); i++) {
		explode(BOMBS[i % 2]);
		drop_what_is_left();
		assert_killed(
		    call("local t = {} while true do pcall(function() for i = 1, 1000 do t[#t + 1] = {} "
			 "end end) end",
			 &AMPLE),
		    GUARD_MEMORY);
		explode(BOMBS[i % 2]);
		drop_what_is_left();
		assert_killed(call("local s = ('x'):rep(4e6) while true do s = s:sub(1, -2) end", &SHORT),
			      GUARD_CPU);
		relieve();
		assert_works(&vm);
	}
}

static void a_huge_request_is_refused(void **state)
{
	(void)state;
	vm.memory_bytes = heap_bytes() + (4 << 20);
	struct ending ending = call("return #('x'):rep(1e8)", &AMPLE);
	assert_int_equal(ending.status, LUA_ERRMEM);
	assert_int_equal(ending.verdict, GUARD_FINE);
	assert_disarmed();
	lua_settop(vm.lua, 0);
	assert_int_equal(call("return pcall(string.rep, 'x', 1e8)", &AMPLE).status, 0);
	assert_false(lua_toboolean(vm.lua, -1));
	assert_works(&vm);
}

enum { ASKED_LIMIT_BYTES = 24 << 20 };

/* Past all limits, and the hook has not ended the call: C does not run into it. */
static int l_ask(lua_State *lua)
{
	enum { PIECE = 1 << 20 };
	size_t huge = 4 * (size_t)ASKED_LIMIT_BYTES, doubled = 2 * (size_t)ASKED_LIMIT_BYTES;
	while (heap_bytes() < 4 * (size_t)ASKED_LIMIT_BYTES) {
		lua_newuserdata(lua, PIECE);
		luaL_ref(lua, LUA_REGISTRYINDEX);
	}
	void *given = vm_alloc(&vm, NULL, 0, doubled);
	lua_pushboolean(lua, given && !vm_alloc(&vm, NULL, 0, huge));
	vm_alloc(&vm, given, doubled, 0);
	return 1;
}

/* Its table of strings may be megabytes, and it crashes when refused one; so does compiled code. */
static void what_the_collector_or_a_loop_may_ask_for_is_never_refused(void **state)
{
	(void)state;
	vm.memory_bytes = ASKED_LIMIT_BYTES;
	lua_pushcfunction(vm.lua, l_ask);
	vm_enter(&vm, &AMPLE);
	int status = lua_pcall(vm.lua, 0, 1, 0);
	vm_leave(&vm);
	assert_int_equal(status, 0);
	assert_true(lua_toboolean(vm.lua, -1));
}

/* Told to end at its next instruction, before it doubles that again. */
static void what_doubles_is_ended_and_not_refused(void **state)
{
	(void)state;
	static const char *const KINDS[] = {
		"local s = 'x' while true do s = s .. s end",
		"local function f() local s = 'x' while true do s = s .. s end end while true do pcall(f) "
		"end",
		"local t = {} while true do t[#t + 1] = t end",
		"local t, n = {}, 0 while true do n = n + 1 t[n * 1e6] = n end",
		"local t = {} local function f() while true do t[#t + 1] = t end end while true do pcall(f) "
		"end",
	};
	enum { COUNT = sizeof KINDS / sizeof *KINDS };
	vm.memory_bytes = ASKED_LIMIT_BYTES;
	for (int i = 0; i < some_of(4) * COUNT; i++) {
		assert_killed(call(KINDS[i % COUNT], &AMPLE), GUARD_MEMORY);
		assert_true(heap_bytes() < 4 * (size_t)ASKED_LIMIT_BYTES);
		relieve();
	}
	assert_works(&vm);
}

static void nothing_is_refused_outside_of_calls(void **state)
{
	(void)state;
	vm.memory_bytes = heap_bytes() + (1 << 20);
	lua_newuserdata(vm.lua, 32 << 20);
	assert_false(vm.is_full);
	assert_disarmed();
}

static void a_call_that_allocates_too_much_is_ended(void **state)
{
	(void)state;
	const struct vm_budget budget = { .ms = 5000, .allocated_bytes = 1 << 20 };
	uint64_t before = vm_allocated(&vm);
	assert_killed(call("local t = {} while true do t[1] = { 1 } end", &budget), GUARD_ALLOCATION);
	assert_in_range(vm_allocated(&vm) - before, 1 << 20, 3 << 19);
	assert_works(&vm); /* has no such limit */
}

static void what_may_be_allocated_is_counted_for_each_call(void **state)
{
	(void)state;
	const struct vm_budget budget = { .ms = 5000, .allocated_bytes = 1 << 20 };
	for (int i = 0; i < 8; i++) {
		assert_int_equal(call("return #('x'):rep(300000)", &budget).verdict, GUARD_FINE);
		assert_int_equal(lua_tointeger(vm.lua, -1), 300000);
		lua_pop(vm.lua, 1);
	}
}

/* It runs with hooks off, and the collector puts the profiler's bit back as it was before. */
static void a_finaliser_that_meets_the_limit_does_not_save_its_call(void **state)
{
	(void)state;
	const struct vm_budget budget = { .allocated_bytes = 4 << 20 };
	static const char SOURCE[] = "collectgarbage('stop')\n"
				     "getmetatable(newproxy(true)).__gc = function() local t = {} for i = 1, "
				     "1e5 do t[i] = {} end end\n"
				     "local kept = {}\n"
				     "local function churn(n) for i = 1, n do kept[1] = { 1 } end end\n"
				     "churn(1000)\n"
				     "collectgarbage('restart')\n"
				     "churn(1e9)";
	assert_killed(call(SOURCE, &budget), GUARD_ALLOCATION);
	assert_works(&vm);
}

static int run(const char *way)
{
	const struct CMUnitTest tests[] = {
		IN_A_VM(a_call_that_fills_the_memory_is_ended_and_the_vm_goes_on),
		IN_A_VM(pcall_does_not_keep_a_call_that_fills_the_memory),
		IN_A_VM(garbage_ends_no_call_whatever_the_pace),
		IN_A_VM(what_others_left_ends_no_call),
		IN_A_VM(what_others_keep_does_end_a_call),
		IN_A_VM(a_call_that_goes_on_after_a_collection_is_still_ended),
		IN_A_VM(a_huge_request_is_refused),
		IN_A_VM(what_the_collector_or_a_loop_may_ask_for_is_never_refused),
		IN_A_VM(what_doubles_is_ended_and_not_refused),
		IN_A_VM(nothing_is_refused_outside_of_calls),
		IN_A_VM(a_call_that_allocates_too_much_is_ended),
		IN_A_VM(what_may_be_allocated_is_counted_for_each_call),
		IN_A_VM(a_finaliser_that_meets_the_limit_does_not_save_its_call),
	};
	return cmocka_run_group_tests_name(way, tests, NULL, NULL);
}

int main(void)
{
	return in_each_way(run);
}
