#include "vm/vm.h"

#include <limits.h>
#include <lualib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>

#ifdef PERILUNE_PLAIN_ALLOC
/* Sanitizer builds: malloc knows each block's bounds, a slab does not. */
static void *vm_alloc(void *data, void *block, size_t old_bytes, size_t new_bytes)
{
	(void)data;
	(void)old_bytes;
	if (new_bytes)
		return realloc(block, new_bytes);
	free(block);
	return NULL;
}
#else
#define vm_alloc slab_alloc
#endif

static char lua_path[4096];

void vm_set_lua_path(const char *pattern)
{
	snprintf(lua_path, sizeof lua_path, "%s", pattern);
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

static int setup(lua_State *lua)
{
	luaL_openlibs(lua);
	lua_getglobal(lua, "package");
	lua_pushfstring(lua, "%s;%s", lua_path, "");
	lua_getfield(lua, -2, "path");
	lua_concat(lua, 2);
	lua_setfield(lua, -2, "path");
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
	slab_init(&vm->slab);
	vm->low_kb = INT_MAX;
	vm->lua = lua_newstate(vm_alloc, &vm->slab);
	if (!vm->lua)
		return UV_ENOMEM;
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
	if (vm->lua)
		lua_close(vm->lua);
	vm->lua = NULL;
	slab_deinit(&vm->slab);
}

struct vm *vm_of(lua_State *lua)
{
	void *slab;
	(void)lua_getallocf(lua, &slab);
	return slab;
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
