/*
 * Lua's own faults, made to happen: what the core asks of Lua's API is led through here (cmake/faults.cmake).
 *
 *   FAULT=finaliser:97/       every 97th call that may collect raises, as if a finaliser of a script's had
 *   FAULT=lua_stack:1+        no stack of Lua's ever becomes larger
 *   FAULT=lua_memory:2/       every other time, the system has no memory for what is asked for between calls
 *   FAULT=lua_large:1+        nor ever has it any for 1 MiB or more at a time, with or without Perilune's spare
 *
 * Two rules hold in this build whatever is asked for; who breaks them ends the process:
 * - outside of a protected call, nothing may collect;
 * - while a coroutine runs, nothing may collect on the VM's own stack, where an error would be lost.
 */
#include "shim.h"

#include "vm/vm.h"

#include <lauxlib.h>
#include <lua.h>
#include <luajit.h>
#include <malloc.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

static _Thread_local unsigned depth;     /* of protected calls */
static _Thread_local lua_State *running; /* what the innermost of them is of */

/* ---- protected calls ---- */

#define PROTECTED(type, name, parameters, arguments)   \
	type __real_##name parameters;                 \
	type __wrap_##name parameters;                 \
	type __wrap_##name parameters                  \
	{                                              \
		unsigned outer_depth = depth;          \
		lua_State *outer = running;            \
		depth++;                               \
		running = lua;                         \
		type result = __real_##name arguments; \
		depth = outer_depth;                   \
		running = outer;                       \
		return result;                         \
	}

PROTECTED(int, lua_pcall, (lua_State * lua, int nargs, int nresults, int handler),
	  (lua, nargs, nresults, handler))
PROTECTED(int, lua_cpcall, (lua_State * lua, lua_CFunction function, void *data), (lua, function, data))
PROTECTED(int, lua_resume, (lua_State * lua, int nargs), (lua, nargs))

void __real_lua_close(lua_State *lua);
void __wrap_lua_close(lua_State *lua);
void __wrap_lua_close(lua_State *lua)
{
	depth++;
	__real_lua_close(lua);
	depth--;
}

/* ---- what may collect ---- */

static void break_off(const char *name, const char *why)
{
	fprintf(stderr, "FAULT: %s %s\n", name, why);
	abort();
}

static bool is_of_a_vm(lua_State *lua)
{
	void *data;
	return lua_getallocf(lua, &data) == vm_alloc;
}

/* MAY RAISE. */
static void may_collect(lua_State *lua, const char *name)
{
	if (!is_of_a_vm(lua))
		return;
	if (!depth && lua_gc(lua, LUA_GCISRUNNING, 0))
		break_off(name, "may collect outside of a protected call");
	struct vm *vm = vm_of(lua);
	if (depth && lua == vm->lua && running != lua && is_of_a_vm(running) && vm_of(running) == vm)
		break_off(name, "may collect on the VM's stack while a coroutine runs");
	if (depth && shim_is_due(FINALISER))
		luaL_error(lua, "a finaliser has raised, in %s", name);
}

#define COLLECTS(type, name, parameters, arguments) \
	type __real_##name parameters;              \
	type __wrap_##name parameters;              \
	type __wrap_##name parameters               \
	{                                           \
		may_collect(lua, #name);            \
		return __real_##name arguments;     \
	}
#define COLLECTS_VOID(name, parameters, arguments) \
	void __real_##name parameters;             \
	void __wrap_##name parameters;             \
	void __wrap_##name parameters              \
	{                                          \
		may_collect(lua, #name);           \
		__real_##name arguments;           \
	}

COLLECTS_VOID(lua_pushlstring, (lua_State * lua, const char *text, size_t n), (lua, text, n))
COLLECTS_VOID(lua_pushstring, (lua_State * lua, const char *text), (lua, text))
COLLECTS_VOID(lua_pushcclosure, (lua_State * lua, lua_CFunction function, int n), (lua, function, n))
COLLECTS_VOID(lua_createtable, (lua_State * lua, int items, int fields), (lua, items, fields))
COLLECTS(void *, lua_newuserdata, (lua_State * lua, size_t n), (lua, n))
COLLECTS(lua_State *, lua_newthread, (lua_State * lua), (lua))
COLLECTS_VOID(lua_concat, (lua_State * lua, int n), (lua, n))
COLLECTS_VOID(luaL_traceback, (lua_State * lua, lua_State *of, const char *text, int level),
	      (lua, of, text, level))
COLLECTS(int, luaL_loadstring, (lua_State * lua, const char *text), (lua, text))
COLLECTS(int, luaL_loadbuffer, (lua_State * lua, const char *text, size_t n, const char *name),
	 (lua, text, n, name))
COLLECTS(int, luaL_loadfile, (lua_State * lua, const char *path), (lua, path))
COLLECTS(int, luaL_newmetatable, (lua_State * lua, const char *name), (lua, name))

void __real_lua_call(lua_State *lua, int nargs, int nresults);
void __wrap_lua_call(lua_State *lua, int nargs, int nresults);
void __wrap_lua_call(lua_State *lua, int nargs, int nresults)
{
	if (!depth)
		break_off("lua_call", "is called outside of a protected call");
	__real_lua_call(lua, nargs, nresults);
}

const char *__real_lua_pushfstring(lua_State *lua, const char *format, ...);
const char *__wrap_lua_pushfstring(lua_State *lua, const char *format, ...);
const char *__wrap_lua_pushfstring(lua_State *lua, const char *format, ...)
{
	va_list more;
	may_collect(lua, "lua_pushfstring");
	va_start(more, format);
	const char *text = lua_pushvfstring(lua, format, more);
	va_end(more);
	return text;
}

const char *__real_lua_tolstring(lua_State *lua, int idx, size_t *n);
const char *__wrap_lua_tolstring(lua_State *lua, int idx, size_t *n);
const char *__wrap_lua_tolstring(lua_State *lua, int idx, size_t *n)
{
	if (lua_type(lua, idx) == LUA_TNUMBER)
		may_collect(lua, "lua_tolstring");
	return __real_lua_tolstring(lua, idx, n);
}

int __real_lua_gc(lua_State *lua, int what, int data);
int __wrap_lua_gc(lua_State *lua, int what, int data);
int __wrap_lua_gc(lua_State *lua, int what, int data)
{
	if (!depth && (what == LUA_GCSTEP || what == LUA_GCCOLLECT))
		break_off("lua_gc", "collects outside of a protected call");
	return __real_lua_gc(lua, what, data);
}

/* ---- memory ---- */

/* LuaJIT's head of a stack is the coroutine that it is of, and that points to its stack. */
static bool is_stack(const void *block, size_t bytes)
{
	enum { SMALLEST_BYTES = 40 * 8, STATE_WORDS = 10 };
	static const int64_t THREAD_TAG = -7;
	if (bytes < SMALLEST_BYTES)
		return false;
	int64_t head = *(const int64_t *)block;
	if (head >> 47 != THREAD_TAG)
		return false;
	const void *const *state = (const void *const *)(uintptr_t)(head & INT64_C(0x7fffffffffff));
	for (int i = 0; i < STATE_WORDS; i++)
		if (state[i] == block)
			return true;
	return false;
}

enum { LARGE_BYTES = 1 << 20 };

/* In the place of realloc() in src/vm/memory.c. */
void *lua_realloc(void *block, size_t bytes);
void *__real_realloc(void *block, size_t bytes);
void *lua_realloc(void *block, size_t bytes)
{
	size_t before = block ? malloc_usable_size(block) : 0;
	if (before && bytes > before && is_stack(block, before) && shim_is_due(LUA_STACK))
		return NULL;
	if (!depth && shim_is_due(LUA_MEMORY))
		return NULL;
	if (bytes >= LARGE_BYTES && shim_is_due(LUA_LARGE))
		return NULL;
	return __real_realloc(block, bytes);
}
