#include "vm/vm.h"

#include "base/text.h"

#include <luajit.h>
#include <lualib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>

/* ---- calls ---- */

const struct vm_budget VM_LOAD_BUDGET = { .ms = 10000 };

void vm_stop_jit(struct vm *vm)
{
	luaJIT_setmode(vm->lua, 0, LUAJIT_MODE_ENGINE | LUAJIT_MODE_OFF);
}

int vm_pcall(struct vm *vm, lua_State *lua, int nargs, int nresults, const struct vm_budget *budget)
{
	if (guard_is_running(&vm->guard))
		return lua_pcall(lua, nargs, nresults, 0);
	vm_enter(vm, budget);
	int status = lua_pcall(lua, nargs, nresults, 0);
	enum guard_verdict verdict = vm_leave(vm);
	if (!status)
		return 0;
	vm_forget_loading(vm);
	vm->verdict = verdict == GUARD_FINE && status == LUA_ERRMEM ? GUARD_MEMORY : verdict;
	if (verdict != GUARD_FINE) {
		lua_pop(lua, 1);
		guard_push_error(&vm->guard, lua);
	}
	return status;
}

/* ---- the VM ---- */

/* LuaJIT's first block is the VM's state. */
static void *first_alloc(void *data, void *block, size_t old_bytes, size_t new_bytes)
{
	struct vm *vm = data;
	void *got = vm_alloc(vm, block, old_bytes, new_bytes);
	if (!vm->state && got) {
		vm->state = got;
		vm->state_bytes = new_bytes;
	}
	return got;
}

static char lua_path[4096];
static const struct vm_library *libraries;

void vm_set_lua_path(const char *pattern)
{
	snprintf(lua_path, sizeof lua_path, "%s", pattern);
}

const char *vm_lua_path(void)
{
	return lua_path;
}

void vm_set_libraries(const struct vm_library *list)
{
	libraries = list;
}

/*
 * Nothing raises outside of a protected call: the collector does not run there (collector.c), every stack has room for
 * what is pushed, what is large is pushed protected, and for the rest a spare lends the memory (memory.c). If something
 * does all the same, say so before the end.
 */
static int on_panic(lua_State *lua)
{
	static const char NO_MEMORY[] = "not enough memory"; /* LuaJIT's own words */
	const char *message = lua_type(lua, -1) == LUA_TSTRING ? lua_tostring(lua, -1) : "(not a string)";
	text_printf(stderr, "perilune: fatal: an error in Lua that nothing catches: %s (%s)\n", message,
		    strcmp(message, NO_MEMORY) ? "a fault of Perilune" : "the system has no memory left");
	abort();
}

/* luajit's defaults suit short scripts; a server compiles for days. */
static const char TUNE_JIT[] = "jit.opt.start('maxtrace=4000', 'maxrecord=8000', 'maxmcode=8192')";

/* perilune.guard.interrupted() → is the running call being ended? */
static int l_interrupted(lua_State *lua)
{
	lua_pushboolean(lua, vm_of(lua)->guard.verdict != GUARD_FINE);
	return 1;
}

/* perilune.guard.loading() → is the script being loaded, or does its setup(), snapshot() or teardown() run? */
static int l_loading(lua_State *lua)
{
	lua_pushboolean(lua, vm_of(lua)->stage != VM_SERVING);
	return 1;
}

/* perilune.guard.memory() → limits.memory in bytes, or nil when there is none */
static int l_memory(lua_State *lua)
{
	struct vm *vm = vm_of(lua);
	if (vm->memory_bytes)
		lua_pushnumber(lua, (lua_Number)vm->memory_bytes);
	else
		lua_pushnil(lua);
	return 1;
}

/*
 * MAY RAISE. perilune.guard.check_nesting(name): for functions in C that call back, and so may be entered within each
 * other: LuaJIT takes time by the square of their number to leave them by an error, and nothing can interrupt it.
 */
static int l_check_nesting(lua_State *lua)
{
	enum { STACK_BYTES = 256 << 10 };
	uintptr_t base = vm_of(lua)->guard.stack, here = (uintptr_t)__builtin_frame_address(0);
	if (base > here && base - here > STACK_BYTES)
		return luaL_error(lua, "%s: nested too deep", luaL_checkstring(lua, 1));
	return 0;
}

/* perilune.guard.is_in_c(value) → is it a function in C, in which no hook can end a call? */
static int l_is_in_c(lua_State *lua)
{
	lua_pushboolean(lua, lua_iscfunction(lua, 1));
	return 1;
}

/*
 * LuaJIT has one profiler for the process, and the guard has it: started by a script it would never call back, but
 * what is compiled from then on might not be interruptible.
 */
static int l_no_profiler(lua_State *lua)
{
	return luaL_error(lua,
			  "jit.profile cannot be used here: Perilune needs LuaJIT's profiler to end calls "
			  "that do not return");
}

static void open_guard(lua_State *lua)
{
	lua_getglobal(lua, "package");
	lua_getfield(lua, -1, "preload");
	lua_pushcfunction(lua, l_no_profiler);
	lua_setfield(lua, -2, "jit.profile");
	lua_pop(lua, 1);
	lua_getfield(lua, -1, "loaded");
	lua_createtable(lua, 0, 6);
	lua_pushcfunction(lua, vm_l_watch_calls);
	lua_setfield(lua, -2, "watch_calls");
	lua_pushcfunction(lua, vm_l_watched);
	lua_setfield(lua, -2, "watched");
	lua_pushcfunction(lua, l_loading);
	lua_setfield(lua, -2, "loading");
	lua_pushcfunction(lua, l_check_nesting);
	lua_setfield(lua, -2, "check_nesting");
	lua_pushcfunction(lua, l_is_in_c);
	lua_setfield(lua, -2, "is_in_c");
	lua_pushcfunction(lua, l_interrupted);
	lua_setfield(lua, -2, "interrupted");
	lua_pushcfunction(lua, l_memory);
	lua_setfield(lua, -2, "memory");
	lua_setfield(lua, -2, "perilune.guard");
	lua_pop(lua, 2);
}

const struct vm_library *vm_late_library(const char *name)
{
	for (const struct vm_library *library = libraries; library && library->name; library++)
		if (library->is_late && !strcmp(library->name, name))
			return library;
	return NULL;
}

/* package.loaded is on top of the stack. */
static void load_libraries(lua_State *lua)
{
	for (const struct vm_library *library = libraries; library && library->name; library++) {
		if (library->is_late)
			continue;
		library->push(lua);
		lua_setfield(lua, -2, library->name);
	}
}

/* LuaJIT's own seed is a constant: all workers would draw the same numbers, after each start. */
static void seed_random(lua_State *lua)
{
	uint64_t seed;
	if (uv_random(NULL, NULL, &seed, sizeof seed, 0, NULL))
		seed = uv_hrtime() ^ (uint64_t)(uintptr_t)lua << 16;
	lua_getglobal(lua, "math");
	lua_getfield(lua, -1, "randomseed");
	lua_pushnumber(lua, (lua_Number)(seed >> 11)); /* a double holds 53 bits */
	lua_call(lua, 1, 0);
	lua_pop(lua, 1);
}

static int setup(lua_State *lua)
{
	luaL_openlibs(lua);
	seed_random(lua);
	open_guard(lua);
	lua_getglobal(lua, "package");
	bool is_template = !strchr(lua_path, ';') && strchr(lua_path, '?') == strrchr(lua_path, '?');
	lua_pushfstring(lua, "%s;", is_template ? lua_path : ""); /* else only our own searcher can take it */
	lua_getfield(lua, -2, "path");
	lua_concat(lua, 2);
	lua_setfield(lua, -2, "path");
	vm_open_modules(lua, lua_path);
	vm_open_loading(lua);
	lua_getfield(lua, -1, "loaded");
	load_libraries(lua);
	vm_open_despecialize(lua);
	if (luaL_loadstring(lua, TUNE_JIT))
		return lua_error(lua);
	lua_call(lua, 0, 0);
	/* Shared by all strings of the VM: a handler must not change it. */
	lua_pushliteral(lua, "");
	lua_getmetatable(lua, -1);
	lua_pushliteral(lua, "locked");
	lua_setfield(lua, -2, "__metatable");
	struct vm *vm = vm_of(lua);
	vm_open_collector(vm, lua);
	layout_open(&vm->layout, lua, vm->state, vm->state_bytes, vm->heap);
	return 0;
}

int vm_open(struct vm *vm)
{
	*vm = (struct vm){
		.call_end = INT64_MAX, .step_ms = VM_TEARDOWN_MS, .pace = VM_PACE_DEFAULT, .limits = "limits"
	};
	slab_init(&vm->slab);
	if (!guard_start())
		return guard_error();
	vm_take_spare(vm); /* LuaJIT does not survive to be refused what it begins with */
	vm->lua = vm->spare ? lua_newstate(first_alloc, vm) : NULL;
	if (!vm->lua) {
		vm_drop_spare(vm);
		slab_deinit(&vm->slab);
		return UV_ENOMEM;
	}
	lua_setallocf(vm->lua, vm_alloc, vm);
	lua_atpanic(vm->lua, on_panic);
	int status = lua_cpcall(vm->lua, (lua_CFunction)setup, NULL);
	if (status) {
		vm_close(vm);
		return UV_ENOMEM;
	}
	guard_open(&vm->guard, vm->lua, vm->state, vm->state_bytes);
	vm_limit_memory(vm);
	vm_explain_limits(vm);
	vm_pace(vm, 0);
	vm_stop_collector(vm);
	vm_take_spare(vm);
	return 0;
}

/* The state goes last, and with it what a signal's handler would write to. */
static void *last_alloc(void *data, void *block, size_t old_bytes, size_t new_bytes)
{
	struct vm *vm = data;
	if (block == vm->state && !new_bytes)
		guard_end(&vm->guard);
	return vm_alloc(vm, block, old_bytes, new_bytes);
}

/*
 * All finalisers that are left run now, and share a budget; each that does not return when it is used up is ended.
 * Nothing compiled is left to them, so that a hook will do: what else ends compiled code would have to be taken back
 * while the VM is still there.
 */
static void close_lua(struct vm *vm)
{
	enum { CLOSE_MS = 500, HALF = (sizeof vm->finaliser_error - 3) / 2 };
	luaJIT_setmode(vm->lua, 0, LUAJIT_MODE_ENGINE | LUAJIT_MODE_FLUSH);
	vm_stop_jit(vm);
	lua_setallocf(vm->lua, last_alloc, vm);
	guard_name(&vm->guard, "a finaliser", 0);
	guard_begin_end(&vm->guard, vm->step_ms > CLOSE_MS ? vm->step_ms : CLOSE_MS);
	lua_close(vm->lua);
	guard_end(&vm->guard);
	if (vm->guard.verdict != GUARD_FINE) {
		const struct guard *guard = &vm->guard;
		snprintf(vm->finaliser_error, sizeof vm->finaliser_error, "%.*s%s%.*s", HALF, guard->place,
			 *guard->place ? ": " : "", HALF, guard->why);
		vm->finaliser_failures++;
	}
}

void vm_close(struct vm *vm)
{
	if (vm->lua)
		close_lua(vm);
	guard_close(&vm->guard);
	vm->lua = NULL;
	vm_drop_spare(vm);
	slab_deinit(&vm->slab);
}

struct vm *vm_of(lua_State *lua)
{
	void *vm;
	(void)lua_getallocf(lua, &vm);
	return vm;
}

int vm_find_lua_path(char *pattern, size_t size)
{
	char exe[2048];
	size_t len = sizeof exe;
	return uv_exepath(exe, &len) ? UV_ENOENT : vm_find_lua_path_from(exe, pattern, size);
}

int vm_find_lua_path_from(const char *exe, char *pattern, size_t size)
{
	/* Beside the binary; build/perilune; build/<preset>/perilune; build/<preset>/x/test; installed. */
	static const char *const PLACES[] = { "lua", "../lua", "../../lua", "../../../lua",
					      "../share/perilune/lua" };
	char probe[4096];
	const char *slash = strrchr(exe, '/');
	int length = slash ? (int)(slash - exe) : 0;
	if (!slash || length > 2048)
		return UV_ENOENT;
	for (size_t i = 0; i < sizeof PLACES / sizeof *PLACES; i++) {
		snprintf(probe, sizeof probe, "%.*s/%s/perilune/runtime.lua", length, exe, PLACES[i]);
		if (access(probe, R_OK))
			continue;
		int n = snprintf(pattern, size, "%.*s/%s/?.lua", length, exe, PLACES[i]);
		return n > 0 && (size_t)n < size ? 0 : UV_ENAMETOOLONG;
	}
	return UV_ENOENT;
}
