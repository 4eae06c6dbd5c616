#include "vm_calls.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

const struct vm_budget SHORT = { .ms = 10 }, AMPLE = { .ms = 5000 }, NONE = { 0 };
const char HOG[] = "local t = {} while true do t[#t + 1] = ('x'):rep(1000) .. #t end";

struct vm vm;

int vm_begin(void **state)
{
	(void)state;
	assert_int_equal(vm_open(&vm), 0);
	guard_set_least(&vm.guard, 5);
	return 0;
}

int vm_end(void **state)
{
	(void)state;
	vm_close(&vm);
	return 0;
}

void load(struct vm *in, const char *source)
{
	if (luaL_loadbuffer(in->lua, source, strlen(source), "@chat.lua"))
		fail_msg("%s", lua_tostring(in->lua, -1));
}

struct ending call_in(struct vm *in, const char *source, const struct vm_budget *budget)
{
	struct ending ending;
	load(in, source);
	vm_enter(in, budget);
	ending.status = lua_pcall(in->lua, 0, 1, 0);
	ending.verdict = vm_leave(in);
	return ending;
}

struct ending call(const char *source, const struct vm_budget *budget)
{
	return call_in(&vm, source, budget);
}

void assert_disarmed(void)
{
	assert_int_equal(vm.guard.verdict, GUARD_FINE);
	assert_false(guard_is_running(&vm.guard));
	assert_null(lua_gethook(vm.lua));
	assert_int_equal(lua_gethookmask(vm.lua), 0);
	if (vm.guard.hook_mask)
		assert_int_equal(*vm.guard.hook_mask, 0);
}

void assert_works(struct vm *in)
{
	struct ending ending =
	    call_in(in, "local s = 0 for i = 1, 1e5 do s = s + #tostring(i % 10) end return s", &AMPLE);
	assert_int_equal(ending.status, 0);
	assert_int_equal(ending.verdict, GUARD_FINE);
	assert_int_equal(lua_tointeger(in->lua, -1), 100000);
	lua_pop(in->lua, 1);
}

void assert_killed(struct ending ending, enum guard_verdict verdict)
{
	assert_int_equal(ending.verdict, verdict);
	assert_int_not_equal(ending.status, 0);
	lua_pop(vm.lua, 1);
	assert_disarmed();
}

void set_function(struct vm *in, const char *name, lua_CFunction function)
{
	lua_pushcfunction(in->lua, function);
	lua_setglobal(in->lua, name);
}

size_t heap_bytes(void)
{
	return (size_t)lua_gc(vm.lua, LUA_GCCOUNT, 0) << 10;
}

void relieve(void)
{
	for (int i = 0; vm.is_full; i++) {
		assert_in_range(i, 0, 10000);
		vm_relieve(&vm, i % 2);
	}
}

static int ways_before;

int some_of(int rounds)
{
	enum { FEWER = 4 };
#if defined __SANITIZE_ADDRESS__ || defined __SANITIZE_THREAD__
	rounds = rounds / FEWER + 1;
#endif
	return ways_before ? rounds / FEWER + 1 : rounds;
}

static int in_ways(int (*run)(const char *way), int ways)
{
	static const char *const WAYS[] = { "hook", "hook-mask", "profiler", "no-jit" };
	static char pattern[4096];
	int sum = 0;
	if (!vm_find_lua_path(pattern, sizeof pattern))
		vm_set_lua_path(pattern);
	for (size_t i = 0; i < sizeof WAYS / sizeof *WAYS && ways_before < ways; i++) {
		const char *way = guard_start_with(WAYS[i]);
		printf("%s: %s\n", WAYS[i], way ? "tested" : "does not work with this LuaJIT");
		sum += way ? run(way) : 0;
		ways_before += way ? 1 : 0;
		guard_stop();
	}
	return sum;
}

int in_each_way(int (*run)(const char *way))
{
	return in_ways(run, INT_MAX);
}

int in_the_usual_way(int (*run)(const char *way))
{
	return in_ways(run, 1);
}
