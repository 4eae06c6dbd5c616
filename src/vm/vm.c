#include "vm/vm.h"

#include <limits.h>
#include <luajit.h>
#include <lualib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>

/* ---- memory ---- */

enum {
	CREDIT_BYTES = 65536, /* allocated between two looks at the limits */
	HARD_SPARE_BYTES = 8 << 20,
};

static size_t heap_bytes(const struct vm *vm)
{
	return (size_t)lua_gc(vm->lua, LUA_GCCOUNT, 0) << 10;
}

static void give_credit(struct vm *vm)
{
	int64_t allocated = (int64_t)vm_allocated(vm), more = CREDIT_BYTES;
	if (vm->call_end > allocated && vm->call_end - allocated < more)
		more = vm->call_end - allocated;
	vm->credit = more;
	vm->granted = allocated + more;
}

/* What is live even after a collection cannot be helped by ending calls: then only growth ends them. */
static size_t soft_limit(const struct vm *vm)
{
	size_t live_and_some = vm->live_bytes + vm->memory_bytes / 16;
	return live_and_some > vm->memory_bytes ? live_and_some : vm->memory_bytes;
}

/*
 * Past the limit (soft) a call is told to end and memory is given all the same, since Lua takes a refusal
 * well only where it may raise; the call ends at its next instruction. Past an eighth more (hard)
 * there is none: that is for one huge request. Outside of calls the core allocates little, and
 * may not raise: it is never refused.
 */
static bool may_have(struct vm *vm, size_t bytes)
{
	if (!vm->memory_bytes || !guard_is_running(&vm->guard))
		return true;
	size_t heap = heap_bytes(vm) + bytes,
	       hard = vm->memory_bytes + vm->memory_bytes / 8 + HARD_SPARE_BYTES;
	/* Large strings outrun the collector, which does a fixed share of work at a time: near the limit it
	 * finishes its cycle at the next opportunity, so that a call is never ended for its garbage. */
	if (heap > vm->memory_bytes / 4 * 3)
		lua_gc(vm->lua, LUA_GCSETSTEPMUL, 0);
	if (heap <= soft_limit(vm))
		return true;
	vm->is_full = true;
	if (heap > hard)
		return false;
	guard_interrupt(&vm->guard, GUARD_MEMORY);
	return true;
}

/* The credit is used up. False: the request is refused. */
static __attribute__((noinline)) bool look_at_limits(struct vm *vm, size_t bytes)
{
	if (!vm->lua) {
		give_credit(vm);
		return true;
	}
	if (!may_have(vm, bytes)) {
		vm->credit += (int64_t)bytes;
		return false;
	}
	if ((int64_t)vm_allocated(vm) > vm->call_end)
		guard_interrupt(&vm->guard, GUARD_ALLOCATION);
	give_credit(vm);
	return true;
}

static void *allocate(struct vm *vm, void *block, size_t old_bytes, size_t new_bytes)
{
#ifdef PERILUNE_PLAIN_ALLOC
	/* Sanitizer builds: malloc knows each block's bounds, a slab does not. */
	(void)vm;
	(void)old_bytes;
	if (new_bytes)
		return realloc(block, new_bytes);
	free(block);
	return NULL;
#else
	return slab_alloc(&vm->slab, block, old_bytes, new_bytes);
#endif
}

static void *vm_alloc(void *data, void *block, size_t old_bytes, size_t new_bytes)
{
	struct vm *vm = data;
	if (new_bytes > old_bytes) {
		vm->credit -= (int64_t)(new_bytes - old_bytes);
		if (__builtin_expect(vm->credit < 0, 0) && !look_at_limits(vm, new_bytes - old_bytes))
			return NULL;
	}
	return allocate(vm, block, old_bytes, new_bytes);
}

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

void vm_limit_call(struct vm *vm, uint64_t bytes)
{
	vm->call_end = (int64_t)(vm_allocated(vm) + bytes);
	give_credit(vm);
}

void vm_unlimit_call(struct vm *vm)
{
	vm->call_end = INT64_MAX;
	give_credit(vm);
}

void vm_relieve(struct vm *vm)
{
	if (!vm->is_full)
		return;
	lua_gc(vm->lua, LUA_GCCOLLECT, 0);
	vm->is_full = false;
	vm->live_bytes = heap_bytes(vm);
}

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
	vm->verdict = verdict == GUARD_FINE && status == LUA_ERRMEM ? GUARD_MEMORY : verdict;
	if (verdict != GUARD_FINE) {
		lua_pop(lua, 1);
		guard_push_error(&vm->guard, lua);
	}
	return status;
}

/* ---- the VM ---- */

static char lua_path[4096];
static const char *library_name;
static void (*library_push)(lua_State *lua);

void vm_set_lua_path(const char *pattern)
{
	snprintf(lua_path, sizeof lua_path, "%s", pattern);
}

void vm_set_library(const char *name, void (*push)(lua_State *lua))
{
	library_name = name;
	library_push = push;
}

/* Nothing may raise outside of a protected call; if it does, say so before the end. */
static int on_panic(lua_State *lua)
{
	const char *message = lua_tostring(lua, -1);
	fprintf(stderr, "perilune: unprotected error in Lua: %s\n", message ? message : "(not a string)");
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

static void open_guard(lua_State *lua)
{
	lua_getglobal(lua, "package");
	lua_getfield(lua, -1, "loaded");
	lua_createtable(lua, 0, 2);
	lua_pushcfunction(lua, l_interrupted);
	lua_setfield(lua, -2, "interrupted");
	lua_pushcfunction(lua, l_memory);
	lua_setfield(lua, -2, "memory");
	lua_setfield(lua, -2, "perilune.guard");
	lua_pop(lua, 2);
}

/* package.loaded is on top of the stack. */
static void load_library(lua_State *lua)
{
	if (!library_push)
		return;
	library_push(lua);
	lua_setfield(lua, -2, library_name);
}

static int setup(lua_State *lua)
{
	luaL_openlibs(lua);
	open_guard(lua);
	lua_getglobal(lua, "package");
	lua_pushfstring(lua, "%s;%s", lua_path, "");
	lua_getfield(lua, -2, "path");
	lua_concat(lua, 2);
	lua_setfield(lua, -2, "path");
	lua_getfield(lua, -1, "loaded");
	load_library(lua);
	if (luaL_loadstring(lua, TUNE_JIT))
		return lua_error(lua);
	lua_call(lua, 0, 0);
	/* Shared by all strings of the VM: a handler must not change it. */
	lua_pushliteral(lua, "");
	lua_getmetatable(lua, -1);
	lua_pushliteral(lua, "locked");
	lua_setfield(lua, -2, "__metatable");
	return 0;
}

int vm_open(struct vm *vm)
{
	*vm = (struct vm){ .low_kb = INT_MAX, .call_end = INT64_MAX };
	slab_init(&vm->slab);
	if (!guard_start())
		return UV_EAGAIN;
	vm->lua = lua_newstate(first_alloc, vm);
	if (!vm->lua) {
		slab_deinit(&vm->slab);
		return UV_ENOMEM;
	}
	lua_setallocf(vm->lua, vm_alloc, vm);
	guard_open(&vm->guard, vm->lua, vm->state, vm->state_bytes);
	lua_atpanic(vm->lua, on_panic);
	int status = lua_cpcall(vm->lua, (lua_CFunction)setup, NULL);
	if (status) {
		vm_close(vm);
		return UV_ENOMEM;
	}
	vm_pace(vm, 0);
	return 0;
}

void vm_close(struct vm *vm)
{
	guard_close(&vm->guard);
	if (vm->lua)
		lua_close(vm->lua);
	vm->lua = NULL;
	slab_deinit(&vm->slab);
}

struct vm *vm_of(lua_State *lua)
{
	void *vm;
	(void)lua_getallocf(lua, &vm);
	return vm;
}

void vm_sample(struct vm *vm)
{
	int heap_kb = lua_gc(vm->lua, LUA_GCCOUNT, 0);
	if (heap_kb < vm->low_kb)
		vm->low_kb = heap_kb;
}

/*
 * LuaJIT starts a cycle when the heap has grown by `pause` percent. In a small heap that is soon: it
 * would mark the standard libraries again for every few hundred frames. In a large one it is late:
 * hundreds of thousands of dead strings would make the string table grow, which LuaJIT does in one
 * long step, and shrink again after the cycle. So we aim at so much garbage a cycle that a table of
 * 8192 is well filled (sweeping costs by the slot) and all fits the caches; a large heap may have
 * GARBAGE_PERCENT of itself. Keeping live strings of our own to stop a small table from shrinking
 * gains nothing with small frames, and costs a fifth with large ones: they have few strings a cycle.
 */
void vm_pace(struct vm *vm, size_t frame_bytes)
{
	enum {
		STRING_BYTES = 32, /* a string's head */
		GARBAGE_STRINGS = 6000,
		GARBAGE_MAX_KB = 1536,
		GARBAGE_PERCENT = 4,
		CYCLE_KB = 700,
		SPEED_MIN = 400,
		SPEED_MAX = 10000
	};
	vm_sample(vm);
	size_t garbage_kb = (frame_bytes + STRING_BYTES) * GARBAGE_STRINGS / 1024;
	if (garbage_kb > GARBAGE_MAX_KB)
		garbage_kb = GARBAGE_MAX_KB;
	int percent = 100 * (int)garbage_kb / (vm->low_kb + 1);
	lua_gc(vm->lua, LUA_GCSETPAUSE, 100 + (percent > GARBAGE_PERCENT ? percent : GARBAGE_PERCENT));
	/* A cycle must also be over before CYCLE_KB more have been allocated: the larger the heap, the
	 * more is marked for each kilobyte. At SPEED_MAX that is 100 KB of objects in one step. */
	int speed = 100 * (vm->low_kb / CYCLE_KB);
	lua_gc(vm->lua, LUA_GCSETSTEPMUL,
	       speed < SPEED_MIN   ? SPEED_MIN
	       : speed > SPEED_MAX ? SPEED_MAX
				   : speed);
	vm->low_kb = INT_MAX;
}

int vm_find_lua_path(char *pattern, size_t size)
{
	/* Beside the binary; build/perilune; build/<preset>/perilune; build/<preset>/x/test; installed. */
	static const char *const PLACES[] = { "lua", "../lua", "../../lua", "../../../lua",
					      "../share/perilune/lua" };
	char exe[2048], probe[4096];
	size_t len = sizeof exe;
	if (uv_exepath(exe, &len))
		return UV_ENOENT;
	char *slash = strrchr(exe, '/');
	if (!slash)
		return UV_ENOENT;
	*slash = '\0';
	for (size_t i = 0; i < sizeof PLACES / sizeof *PLACES; i++) {
		snprintf(probe, sizeof probe, "%s/%s/perilune/runtime.lua", exe, PLACES[i]);
		if (access(probe, R_OK))
			continue;
		int n = snprintf(pattern, size, "%s/%s/?.lua", exe, PLACES[i]);
		return n > 0 && (size_t)n < size ? 0 : UV_ENAMETOOLONG;
	}
	return UV_ENOENT;
}
