/*
 * The clock of an app in memory. It stands still while handlers run, as if they took no time; unless they say how much:
 * what they spend is on the clock at once for whoever asks it (struct conn_host, clock_ms), and for all others from the
 * next poll on, as in a server. There a connection's turn ends by what its handlers take, and so does it here by what
 * they spend.
 */
#include "agent/run.h"
#include "workbench/world.h"

bool world_pass(struct world_worker *worker)
{
	bool passes = worker->spent_ms;
	worker->host.now_ms += worker->spent_ms;
	worker->spent_ms = 0;
	return passes;
}

static uint64_t clock_read_clock(struct conn_host *host)
{
	world_pass(world_worker_of(host));
	return host->now_ms;
}

static uint64_t clock_after(struct conn_host *host, uint32_t ms)
{
	return host->now_ms + world_worker_of(host)->spent_ms + ms;
}

enum { TURN_MS = 10 };

/* As the guard's watchdog does it in a server. */
static void cut_long_batch(struct world_worker *worker, struct agents *agents, uint64_t ms)
{
	uint64_t dispatch = atomic_load_explicit(&agents->vm.guard.dispatch, memory_order_relaxed);
	if (dispatch != worker->spender)
		worker->spender_ms = 0;
	worker->spender = dispatch;
	worker->spender_ms += ms;
	if (worker->spender_ms >= TURN_MS)
		batch_cut_current(agents);
}

/* spend(ms): of the app's VM */
static int l_spend(lua_State *lua)
{
	struct agents *agents = agents_of(lua);
	struct world_worker *worker = world_worker_of(agents->host);
	lua_Number ms = luaL_checknumber(lua, 1);
	luaL_argcheck(lua, ms >= 0 && ms <= UINT32_MAX, 1, "milliseconds expected");
	worker->spent_ms += (uint64_t)ms;
	if (agents->accounted)
		agents->accounted->handler_ticks += (uint64_t)ms * (WORLD_TURN_TICKS / TURN_MS);
	cut_long_batch(worker, agents, (uint64_t)ms);
	return 0;
}

/* Where lua/perilune/test/spending.lua finds it. MAY RAISE. */
static int install(lua_State *lua)
{
	lua_pushcfunction(lua, l_spend);
	lua_setfield(lua, LUA_REGISTRYINDEX, "perilune.spend");
	return 0;
}

bool world_open_clock(struct world_worker *worker, struct agents *agents)
{
	worker->host.clock_ms = clock_read_clock;
	worker->host.after_ms = clock_after;
	worker->host.turn_ticks = WORLD_TURN_TICKS;
	agents->vm.guard.cut = NULL; /* how fast the machine is decides nothing here */
	return !lua_cpcall(agents->vm.lua, install, NULL);
}
