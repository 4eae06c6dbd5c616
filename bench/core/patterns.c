/*
 * Lua patterns: our matcher against LuaJIT's own, in one VM.
 *
 *   patterns [SECONDS [CASE]]
 *
 * For each case the time of a call in both, in turns, the fastest turn of each counting: what else the
 * machine does only ever adds. Prints JSON; the ratio is ours to LuaJIT's, below 1 is faster.
 */
#include "bind/bind.h"
#include "harness.h"
#include "vm/vm.h"

#include <stdio.h>
#include <stdlib.h>

static int l_cpu_ns(lua_State *lua)
{
	lua_pushnumber(lua, (lua_Number)harness_cpu_ns());
	return 1;
}

/* A function a case and library, or else what LuaJIT compiled for one would slow the other. What LuaJIT compiles
 * gets arguments that change, or it would be moved out of the loop. */
static const char SCRIPT[] =
    "local seconds, only = ...\n"
    "local own = require('perilune.strings').new()\n"
    "local line = 'GET /some/path/to/a/thing.html HTTP/1.1 x'\n"
    "local words = 'the quick brown fox   jumps over 13 lazy dogs, again and again, '\n"
    "local long = ('0123456789abcdef'):rep(255) .. 'needle and more'\n"
    "local CASES = {\n"
    "  { 'match request line', 'match', line, '^(%w+)%s+(%S+)' },\n"
    "  { 'match two words', 'match', 'somebody@example.com  hello-there-again', '^(%S+)%s+(%S+)$' },\n"
    "  { 'match number', 'match', 'temperature = 1234', '%d+' },\n"
    "  { 'match set', 'match', line, '/([^/]+)%.html' },\n"
    "  { 'match key: value', 'match', 'Content-Length: 1234', '^([%w-]+):%s*(.-)%s*$' },\n"
    "  { 'match lazily', 'match', words, '(.-),' },\n"
    "  { 'match short', 'match', 'a', 'a(.?)' },\n"
    "  { 'find number', 'find', line, '%d+' },\n"
    "  { 'find plain in 4 KB', 'find', long, 'needle', 1, true, plain = true },\n"
    "  { 'find text in 4 KB', 'find', long, 'needle', plain = true },\n"
    "  { 'find short text', 'find', 'key=value', '=', plain = true },\n"
    "  { 'find class in 4 KB', 'find', long, '%s' },\n"
    "  { 'find set in 4 KB', 'find', long, '[ \\t]' },\n"
    "  { 'gmatch words', 'gmatch', words, '%a+' },\n"
    "  { 'gsub spaces', 'gsub', words, '%s+', ' ' },\n"
    "  { 'gsub captures', 'gsub', words, '(%w+) (%w+)', '%2 %1' },\n"
    "  { 'gsub function', 'gsub', words, '%w+', function() end },\n"
    "  { 'gsub nothing', 'gsub', words, '[<>&]', '' },\n"
    "  { 'rep 20', 'rep', 'ab', 20 },\n"
    "}\n"
    "local CALL = [[local f, n, a, b, c, d = ... for _ = 1, n do f(a, b, c, d) end]]\n"
    "local PLAIN = [[local f, n, a, b, c, d = ... for i = 1, n do f(a, b, i % 7 + 1, d) end]]\n"
    "local REPEAT = [[local f, n, a, b = ... local t = {} for i = 1, n do t[1] = f(a, b + i % 7) end]]\n"
    "local EACH = [[local f, n, a, b = ... for _ = 1, n do for _ in f(a, b) do end end]]\n"
    "local function timer(library, case)\n"
    "  local text = case[2] == 'gmatch' and EACH or case[2] == 'rep' and REPEAT or case.plain and PLAIN or "
    "CALL\n"
    "  local loop = assert(loadstring(text))\n"
    "  local fn = library[case[2]]\n"
    "  return function(n)\n"
    "    local from = cpu_ns()\n"
    "    loop(fn, n, case[3], case[4], case[5], case[6])\n"
    "    return (cpu_ns() - from) / n\n"
    "  end\n"
    "end\n"
    "local function compare(case)\n"
    "  local ours, theirs = timer(own, case), timer(string, case)\n"
    "  local best_ours, best_theirs = math.huge, math.huge\n"
    "  ours(500) theirs(500)\n"
    "  local n = math.max(100, math.floor(1e6 / theirs(500)))\n"
    "  local turns = math.max(3, math.floor(seconds * 1e9 / #CASES / 2 / 1e6))\n"
    "  for _ = 1, turns do\n"
    "    best_ours, best_theirs = math.min(best_ours, ours(n)), math.min(best_theirs, theirs(n))\n"
    "  end\n"
    "  return best_ours, best_theirs\n"
    "end\n"
    "local rows = {}\n"
    "for _, case in ipairs(CASES) do\n"
    "  if only and case[1] ~= only then goto next end\n"
    "  local ours, theirs = compare(case)\n"
    "  rows[#rows + 1] = ('{\"case\":%q,\"ns\":%.1f,\"luajit_ns\":%.1f,\"ratio\":%.2f}'):format(case[1], "
    "ours, theirs,\n"
    "    ours / theirs)\n"
    "  ::next::\n"
    "end\n"
    "print('[' .. table.concat(rows, ',\\n ') .. ']')\n";

int main(int argc, char **argv)
{
	char pattern[4096];
	struct vm vm;
	if (vm_find_lua_path(pattern, sizeof pattern))
		return 1;
	vm_set_lua_path(pattern);
	vm_set_libraries(BIND_LIBRARIES);
	if (vm_open(&vm))
		return 1;
	lua_register(vm.lua, "cpu_ns", l_cpu_ns);
	if (luaL_loadstring(vm.lua, SCRIPT))
		return 1;
	lua_pushnumber(vm.lua, argc > 1 ? atof(argv[1]) : 4);
	lua_pushstring(vm.lua, argc > 2 ? argv[2] : NULL);
	int status = lua_pcall(vm.lua, 2, 0, 0);
	if (status)
		fprintf(stderr, "%s\n", lua_tostring(vm.lua, -1));
	vm_close(&vm);
	return status;
}
