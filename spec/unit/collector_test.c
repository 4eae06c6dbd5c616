/* When the collector runs, and so finalisers: in calls, and protected between them. */
#include "vm_calls.h"

#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

/* As with a LuaJIT whose numbers lie elsewhere, or are of another size. */
static void forget_words(void)
{
	vm.heap = vm.threshold = NULL;
	vm.layout = (struct layout){ 0 };
	lua_gc(vm.lua, LUA_GCSTOP, 0);
}

static bool is_forgotten;

static int begin(void **state)
{
	vm_begin(state);
	if (is_forgotten)
		forget_words();
	return 0;
}

#define IN_A_FRESH_VM(TEST) cmocka_unit_test_setup_teardown(TEST, begin, vm_end)

static void push_strings(size_t bytes)
{
	static unsigned serial;
	char text[4096] = { 0 };
	for (size_t done = 0; done < bytes; done += sizeof text) {
		snprintf(text, sizeof text, "%u", ++serial);
		lua_pushlstring(vm.lua, text, sizeof text);
		lua_pop(vm.lua, 1);
	}
}

static double global_number(const char *name)
{
	lua_getglobal(vm.lua, name);
	double number = lua_tonumber(vm.lua, -1);
	lua_pop(vm.lua, 1);
	return number;
}

static void the_collectors_own_numbers_are_found(void **state)
{
	(void)state;
	if (is_forgotten || sizeof(size_t) < 8)
		skip();
	assert_non_null(vm.threshold);
	push_strings(100000);
	size_t by_api = heap_bytes() | (size_t)lua_gc(vm.lua, LUA_GCCOUNTB, 0);
	assert_int_equal(*vm.heap, by_api);
}

/* Each leaves another behind, until they are told to stop. */
static const char RAISES[] = "raised = 0\n"
			     "function leave()\n"
			     "  getmetatable(newproxy(true)).__gc = function()\n"
			     "    if stop then return end\n"
			     "    raised = raised + 1 leave() error('no')\n"
			     "  end\n"
			     "end\n"
			     "leave()";

static void raise_no_more(void)
{
	lua_pushboolean(vm.lua, 1);
	lua_setglobal(vm.lua, "stop");
}

/* If it were called there, the error would have nobody to catch it: the process would end. */
static void no_finaliser_is_called_while_the_core_pushes_values(void **state)
{
	(void)state;
	assert_int_equal(call(RAISES, &AMPLE).status, 0);
	lua_settop(vm.lua, 0);
	for (int i = 0; i < 20; i++) {
		double before = global_number("raised");
		push_strings(4 << 20);
		assert_true(global_number("raised") == before);
		for (int steps = 0; global_number("raised") == before; steps++) {
			assert_in_range(steps, 0, 10);
			vm_collect_step(&vm, 10000);
		}
	}
}

static void what_a_finaliser_raises_between_calls_is_noted_and_no_more(void **state)
{
	(void)state;
	assert_int_equal(call(RAISES, &AMPLE).status, 0);
	lua_settop(vm.lua, 0);
	for (int i = 0; i < 200; i++)
		vm_collect_step(&vm, 1000);
	assert_true(vm.finaliser_failures > 10);
	assert_true(global_number("raised") == vm.finaliser_failures);
	assert_string_equal(vm.finaliser_error, "chat.lua:5: no");
	assert_int_equal(lua_gettop(vm.lua), 0);
	raise_no_more();
	assert_works(&vm);
}

/* An echo's handler allocates nothing itself: all garbage is made between its calls. */
static void what_the_core_leaves_behind_is_collected_all_the_same(void **state)
{
	(void)state;
	enum { LIMIT = 24 << 20 };
	assert_int_equal(call("function nothing() end", &AMPLE).status, 0);
	for (int i = 0; i < 3000; i++) {
		push_strings(65536);
		lua_getglobal(vm.lua, "nothing");
		assert_int_equal(vm_pcall(&vm, vm.lua, 0, 0, &AMPLE), 0);
		assert_true(heap_bytes() < LIMIT);
	}
}

static void the_collector_keeps_its_pace_over_calls(void **state)
{
	(void)state;
	if (is_forgotten)
		skip(); /* then it has none */
	call("kept = {} for i = 1, 20000 do kept[i] = { i } end function nothing() end", &AMPLE);
	vm_pace(&vm, 100);
	while (!vm_collect_step(&vm, 100))
		;
	unsigned cycles = 0;
	size_t made = 0;
	for (int i = 0; i < 20000; i++) {
		size_t at = vm.kept_threshold;
		push_strings(4096);
		made += 4096;
		lua_getglobal(vm.lua, "nothing");
		vm_pcall(&vm, vm.lua, 0, 0, &AMPLE);
		cycles += vm.kept_threshold > at + 100000; /* the pause after one */
	}
	assert_in_range(cycles, 2, made / 100000);
}

/* A finaliser may call a function of ours that enters Lua: that is no reason to collect. */
static int l_enter(lua_State *lua)
{
	lua_pushvalue(lua, 1);
	lua_pushinteger(lua, vm_pcall(&vm, lua, 0, 0, &AMPLE));
	return 1;
}

static void a_finaliser_may_enter_lua_again(void **state)
{
	(void)state;
	set_function(&vm, "enter", l_enter);
	call("entered = 0 getmetatable(newproxy(true)).__gc = function()\n"
	     "  for i = 1, 100 do enter(function() entered = entered + 1 return { } end) end end",
	     &AMPLE);
	lua_settop(vm.lua, 0);
	for (int i = 0; i < 20; i++)
		vm_collect_step(&vm, 1000);
	assert_true(global_number("entered") == 100);
	assert_int_equal(vm.finaliser_failures, 0);
	assert_works(&vm);
}

static void a_stack_is_made_larger_without_a_risk(void **state)
{
	(void)state;
	lua_State *co = lua_newthread(vm.lua);
	assert_true(vm_make_stack(&vm, co, 1000));
	assert_int_equal(lua_gettop(co), 0);
	assert_false(vm_make_stack(&vm, co, 100000));
	assert_int_equal(lua_gettop(co), 0);
	assert_int_equal(lua_gettop(vm.lua), 1);
	assert_works(&vm);
}

#if !defined __SANITIZE_ADDRESS__ && !defined __SANITIZE_THREAD__

static size_t address_space(void)
{
	unsigned long pages = 0;
	FILE *file = fopen("/proc/self/statm", "r");
	assert_non_null(file);
	assert_int_equal(fscanf(file, "%lu", &pages), 1);
	fclose(file);
	return pages * (size_t)sysconf(_SC_PAGESIZE);
}

/* Until the system has no more for the VM: it asks as a call would, to which nothing is lent. */
static void use_up_memory(void)
{
	static const size_t SIZES[] = { 1 << 20, 1 << 14, 1 << 8, 32 };
	vm_enter(&vm, &NONE);
	for (size_t i = 0; i < sizeof SIZES / sizeof *SIZES; i++)
		while (vm_alloc(&vm, NULL, 0, SIZES[i]))
			;
	vm_leave(&vm);
}

static void what_is_asked_for_between_calls_is_given_when_the_system_has_no_more(void **state)
{
	(void)state;
	struct rlimit before, now;
	getrlimit(RLIMIT_AS, &before);
	now = before;
	now.rlim_cur = address_space();
	assert_int_equal(setrlimit(RLIMIT_AS, &now), 0);
	use_up_memory();
	void *spare = vm.spare;
	push_strings(1 << 20);
	void *left = vm.spare;
	bool is_full = vm.is_full;
	setrlimit(RLIMIT_AS, &before);
	assert_non_null(spare);
	assert_null(left);
	assert_true(is_full);
	relieve();
	assert_non_null(vm.spare);
	assert_works(&vm);
}

#else

static void what_is_asked_for_between_calls_is_given_when_the_system_has_no_more(void **state)
{
	(void)state;
	skip(); /* a sanitizer's address space has no bounds */
}

#endif

static int run(const char *way)
{
	const struct CMUnitTest tests[] = {
		IN_A_FRESH_VM(the_collectors_own_numbers_are_found),
		IN_A_FRESH_VM(no_finaliser_is_called_while_the_core_pushes_values),
		IN_A_FRESH_VM(what_a_finaliser_raises_between_calls_is_noted_and_no_more),
		IN_A_FRESH_VM(what_the_core_leaves_behind_is_collected_all_the_same),
		IN_A_FRESH_VM(the_collector_keeps_its_pace_over_calls),
		IN_A_FRESH_VM(a_finaliser_may_enter_lua_again),
		IN_A_FRESH_VM(a_stack_is_made_larger_without_a_risk),
		IN_A_FRESH_VM(what_is_asked_for_between_calls_is_given_when_the_system_has_no_more),
	};
	int failed = 0;
	for (int i = 0; i < 2; i++) {
		is_forgotten = i;
		failed += cmocka_run_group_tests_name(way, tests, NULL, NULL);
	}
	return failed;
}

int main(void)
{
	return in_each_way(run);
}
