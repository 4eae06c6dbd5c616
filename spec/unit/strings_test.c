/* The functions that take patterns, inside a VM of ours, and beside LuaJIT's own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "bind/bind.h"
#include "vm/vm.h"

static struct vm vm;

/* stop(on): sets the VM's flag, as a signal handler would. */
static int l_stop(lua_State *lua)
{
	vm_of(lua)->guard.verdict = lua_toboolean(lua, 1);
	return 0;
}

static int open_vm(void **state)
{
	char pattern[4096];
	(void)state;
	if (vm_find_lua_path(pattern, sizeof pattern))
		return -1;
	vm_set_lua_path(pattern);
	vm_set_libraries(BIND_LIBRARIES);
	if (vm_open(&vm))
		return -1;
	lua_register(vm.lua, "stop", l_stop);
	return luaL_dostring(vm.lua, "package.path = './?.lua;' .. package.path\n"
				     "own = require('perilune.strings').new()\n"
				     "function fails(fn, ...)\n"
				     "  local ok, message = pcall(fn, ...)\n"
				     "  assert(not ok, 'should have failed')\n"
				     "  return message\n"
				     "end\n"
				     "function has(part, text)\n"
				     "  assert(text:find(part, 1, true), part .. ' is not in ' .. text)\n"
				     "end\n");
}

static int close_vm(void **state)
{
	(void)state;
	vm_close(&vm);
	return 0;
}

/* Runs Lua; what it raises fails the test. */
static void run(const char *code)
{
	if (luaL_dostring(vm.lua, code))
		fail_msg("%s", lua_tostring(vm.lua, -1));
	lua_settop(vm.lua, 0);
}

/* There is one thread, so that ThreadSanitizer has nothing to find, and takes long. */
#if defined __SANITIZE_THREAD__
enum { CASES = 4000, TIMES = 100, KINDS_OF_SETS = 0 };
#elif defined __SANITIZE_ADDRESS__
enum { CASES = 20000, TIMES = 1000, KINDS_OF_SETS = 0 };
#else
enum { CASES = 100000, TIMES = 1000, KINDS_OF_SETS = 3 };
#endif

static void set_number(const char *name, int number)
{
	lua_pushinteger(vm.lua, number);
	lua_setglobal(vm.lua, name);
}

static void all_is_as_luajit_has_it(void **state)
{
	(void)state;
	set_number("cases", CASES);
	run("local compared, difference = require 'spec.support.pattern_cases'(own, cases)\n"
	    "assert(not difference, difference)\n"
	    "assert(compared == 4 * cases)");
}

static void a_budget_ends_what_backtracks(void **state)
{
	(void)state;
	run("local a = ('a'):rep(100000)\n"
	    "for name, call in pairs {\n"
	    "  find = function() own.find(a, '.-b') end,\n"
	    "  match = function() own.match(a, '(.-)b$') end,\n"
	    "  gmatch = function() own.gmatch(a, '.-(%d)')() end,\n"
	    "  gsub = function() own.gsub(a, 'a-%d', '') end,\n"
	    "  power = function() own.find(('a'):rep(40), ('a?'):rep(40) .. ('a'):rep(40)) end,\n"
	    "} do\n"
	    "  local message = fails(call)\n"
	    "  has('pattern too complex: over 1', message)\n"
	    "  has('simplify the pattern', message)\n"
	    "end\n"
	    "has('over 16,400,000 steps on a subject of 100,000 bytes', fails(own.find, a, '.-b'))");
}

static void work_in_proportion_to_the_subject_is_done(void **state)
{
	(void)state;
	run("local text = ('some words and 12345 numbers, '):rep(200000)\n"
	    "assert(select(2, own.gsub(text, '%w+', '%0')) == 1000000)\n"
	    "assert(select(2, own.gsub(text, '%s+', ' ')) == 1000000)\n"
	    "local n = 0\n"
	    "for _ in own.gmatch(text, '%d+') do n = n + 1 end\n"
	    "assert(n == 200000)");
}

static void the_flag_interrupts(void **state)
{
	(void)state;
	run("stop(true)\n"
	    "local message = fails(own.find, ('a'):rep(100000), '.-b')\n"
	    "local growing = fails(own.gsub, ('a'):rep(100000), 'a', 'bb')\n"
	    "stop(false)\n"
	    "assert(message == 'interrupted', message)\n"
	    "assert(growing == 'interrupted', growing)\n"
	    "assert(own.find('ab', '%w') == 1)");
}

static void nested_callbacks_end_in_an_error(void **state)
{
	(void)state;
	run("local function deep(s) return (own.gsub(s, 'a', deep)) end\n"
	    "for _ = 1, 200 do has('nested too deep', fails(deep, 'a')) end\n"
	    "local through = setmetatable({}, {})\n"
	    "getmetatable(through).__index = function() return (own.gsub('a', 'a', through)) end\n"
	    "has('nested too deep', fails(own.gsub, 'a', 'a', through))\n"
	    "local function wrapped(s)\n"
	    "  return (own.gsub(s, 'a', coroutine.wrap(function() return wrapped(s) end)))\n"
	    "end\n"
	    "has('nested too deep', fails(wrapped, 'a'))");
}

static void errors_do_not_add_to_the_depth(void **state)
{
	(void)state;
	set_number("times", TIMES);
	run("local function levels(n)\n"
	    "  if n == 0 then error 'bottom' end\n"
	    "  return (own.gsub('a', 'a', function() return levels(n - 1) end))\n"
	    "end\n"
	    "for _ = 1, times do\n"
	    "  has('bottom', fails(levels, 149))\n"
	    "  own.gsub('aaa', 'a', function()\n"
	    "    pcall(levels, 100)\n"
	    "    has('bottom', fails(levels, 140))\n"
	    "  end)\n"
	    "end\n"
	    "has('nested too deep', fails(levels, 151))");
}

static void callbacks_cannot_yield(void **state)
{
	(void)state;
	run("local co = coroutine.create(function() own.gsub('a', 'a', function() coroutine.yield() end) "
	    "end)\n"
	    "local ok, message = coroutine.resume(co)\n"
	    "assert(not ok)\n"
	    "has('attempt to yield across C-call boundary', message)");
}

static void large_results_are_refused(void **state)
{
	(void)state;
	run("local message = fails(own.rep, 'x', 5000000000)\n"
	    "has('string.rep: a result of 5,000,000,000 bytes is over the memory limit of 512 MiB', "
	    "message)\n"
	    "local limit = 100\n"
	    "local small = require('perilune.strings').new(function() return limit end)\n"
	    "limit = 10000\n"
	    "assert(#small.rep('ab', 5000) == 10000)\n"
	    "has('over the memory limit of 10,000 bytes', fails(small.rep, 'ab', 5001))\n"
	    "has('over the memory limit', fails(small.rep, 'a', 5001, '-'))\n"
	    "has('over the memory limit', fails(small.rep, '', 2e9, '-'))\n"
	    "assert(small.rep('', 1e9) == '' and small.rep('x', -5) == '' and small.rep(1, '3') == '111')\n"
	    "local strict = require('perilune.strings').new(2000)\n"
	    "has('over the memory limit', fails(strict.gsub, ('a'):rep(1500), 'a', 'bb'))\n"
	    "own = require('perilune.strings').new()");
}

static void plain_searches_are_linear(void **state)
{
	(void)state;
	run("local from, text = os.clock(), ('a'):rep(1000000)\n"
	    "assert(not own.find(text, ('a'):rep(500000) .. 'b', 1, true))\n"
	    "assert(not own.find(text, ('a'):rep(500000) .. 'b'))\n"
	    "assert(os.clock() - from < 2)");
}

static void long_sets_are_bounded_too(void **state)
{
	(void)state;
	/* A step over a long set takes no longer than some over short ones: of the build that people run. */
	set_number("kinds", KINDS_OF_SETS);
	run("local text, sets = ('a'):rep(10000), { ('xyz'):rep(3000), ('%d%s'):rep(3000), ('0-9'):rep(3000) "
	    "}\n"
	    "local function seconds_of(pattern)\n"
	    "  local from = os.clock()\n"
	    "  pcall(own.gsub, text, pattern, 'b')\n"
	    "  return os.clock() - from\n"
	    "end\n"
	    "local function all_forms(set)\n"
	    "  local sum = 0\n"
	    "  for _, form in ipairs { '[%s]', '[%s]+$', '[%s]-c', '[%s]*[%s]*c', '[^%s]-c', '[^%s]*c', "
	    "'%%f[%s]' } do\n"
	    "    sum = sum + seconds_of((form:gsub('%%%%?(.)', { s = set, f = '%%f' })))\n"
	    "  end\n"
	    "  return sum\n"
	    "end\n"
	    "local short = kinds > 0 and all_forms('xyz')\n"
	    "for i = 1, kinds do\n"
	    "  local long = all_forms(sets[i])\n"
	    "  assert(long < 20 * short, long .. ' s, to ' .. short .. ' s')\n"
	    "end\n"
	    "for i = 1, 120 do\n"
	    "  for _, set in ipairs { 'a-f', '^%w', '%s%d_', ']x', '^]-a', '+--', '^a-c%z' } do\n"
	    "    local s = ('abc_]1 '):rep(i):sub(1, i) .. '\\0\\255+.' .. ('x'):rep(i)\n"
	    "    assert(own.gsub(s, '[' .. set .. ']+', '<%0>') == string.gsub(s, '[' .. set .. ']+', "
	    "'<%0>'))\n"
	    "  end\n"
	    "end");
}

static void plain_patterns_are_remembered_only_so_far(void **state)
{
	(void)state;
	run("for i = 1, 3000 do\n"
	    "  assert(own.find('x' .. i .. 'y', i .. 'y') == 2)\n"
	    "  assert(own.find('x' .. i .. 'y', i .. '[y]') == 2)\n"
	    "end\n"
	    "local long = ('y'):rep(500)\n"
	    "assert(own.find('x' .. long, long) == 2)");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(all_is_as_luajit_has_it),
		cmocka_unit_test(a_budget_ends_what_backtracks),
		cmocka_unit_test(work_in_proportion_to_the_subject_is_done),
		cmocka_unit_test(the_flag_interrupts),
		cmocka_unit_test(nested_callbacks_end_in_an_error),
		cmocka_unit_test(errors_do_not_add_to_the_depth),
		cmocka_unit_test(callbacks_cannot_yield),
		cmocka_unit_test(large_results_are_refused),
		cmocka_unit_test(plain_searches_are_linear),
		cmocka_unit_test(long_sets_are_bounded_too),
		cmocka_unit_test(plain_patterns_are_remembered_only_so_far),
	};
	return cmocka_run_group_tests_name("strings", tests, open_vm, close_vm);
}
