/*
 * Time decides nothing here, for the machine may be busy: a compiled loop allocates, and the allocator, called from
 * the midst of it, sends the guard's signal to its own thread. Either the loop allocates no more after that, or it
 * runs to its end, which is near; only then does a hook that compiled code does not look at raise its error.
 */
#include "vm/self_test.h"

#include "vm/guard.h"

#include <lauxlib.h>
#include <lualib.h>
#include <stdlib.h>

enum { ROUNDS = 5000, ROUNDS_BEFORE = 500, ROUNDS_AFTER = 10 };

struct trial {
	struct guard guard;
	void *state; /* the VM's first block */
	size_t state_bytes;
	bool counts;
	int allocations;
};

static void *self_test_allocate(void *data, void *block, size_t old_bytes, size_t new_bytes)
{
	struct trial *trial = data;
	(void)old_bytes;
	if (!new_bytes) {
		free(block);
		return NULL;
	}
	if (trial->counts && ++trial->allocations == ROUNDS_BEFORE)
		guard_kill(&trial->guard, atomic_load(&trial->guard.dispatch));
	block = realloc(block, new_bytes);
	if (!trial->state) {
		trial->state = block;
		trial->state_bytes = new_bytes;
	}
	return block;
}

/* Returns the loop, which is compiled, if it is compiled. What it makes is kept, or it would not be made. */
static const char LOOP[] = "local kept = {}\n"
			   "local function loop(n) for i = 1, n do kept[i % 64] = { i } end end\n"
			   "loop(1000)\n"
			   "return require('jit.util').traceinfo(1) and loop";

static bool is_ended(struct trial *trial, lua_State *lua)
{
	if (luaL_loadstring(lua, LOOP) || lua_pcall(lua, 0, 1, 0) || !lua_isfunction(lua, -1))
		return false;
	lua_pushinteger(lua, ROUNDS);
	lua_gc(lua, LUA_GCSTOP, 0); /* with it the loop would be left now and then */
	trial->counts = true;
	guard_enter(&trial->guard, GUARD_UNBOUNDED_MS);
	int status = lua_pcall(lua, 1, 0, 0);
	trial->counts = false;
	return guard_leave(&trial->guard) == GUARD_CPU && status &&
	       trial->allocations < ROUNDS_BEFORE + ROUNDS_AFTER;
}

static int open_libraries(lua_State *lua)
{
	luaL_openlibs(lua);
	return 0;
}

bool self_test_passes(void)
{
	struct trial trial = { 0 };
	lua_State *lua = lua_newstate(self_test_allocate, &trial);
	if (!lua)
		return false;
	bool passed = false;
	if (!lua_cpcall(lua, open_libraries, NULL)) {
		guard_open(&trial.guard, lua, trial.state, trial.state_bytes);
		passed = is_ended(&trial, lua);
		guard_close(&trial.guard);
	}
	lua_close(lua);
	return passed;
}
