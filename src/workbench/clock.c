/*
 * The clock of an app in memory. It stands still while handlers run, as if they took no time; unless they say how much:
 * what they spend is on the clock at once for whoever asks it (struct conn_host, clock_ms), and for all others from the
 * next poll on, as in a server. There a connection's turn ends by what its handlers take, and so does it here by what
 * they spend.
 */
#include "agent/run.h"
#include "workbench/world.h"

static struct world *clock_world_of(struct conn_host *host)
{
	return (struct world *)(void *)host;
}

bool world_pass(struct world *world)
{
	bool passes = world->spent_ms;
	world->host.now_ms += world->spent_ms;
	world->spent_ms = 0;
	return passes;
}

static uint64_t clock_read_clock(struct conn_host *host)
{
	world_pass(clock_world_of(host));
	return host->now_ms;
}

static uint64_t clock_after(struct conn_host *host, uint32_t ms)
{
	return host->now_ms + clock_world_of(host)->spent_ms + ms;
}

enum { TURN_MS = 10, TICKS_PER_MS = CHANNEL_TICKS_PER_TURN / TURN_MS };

/* As the guard's watchdog does it in a server. */
static void cut_long_batch(struct world *world, uint64_t ms)
{
	uint64_t dispatch = atomic_load_explicit(&world->agents.vm.guard.dispatch, memory_order_relaxed);
	if (dispatch != world->spender)
		world->spender_ms = 0;
	world->spender = dispatch;
	world->spender_ms += ms;
	if (world->spender_ms >= TURN_MS)
		batch_cut_current(&world->agents);
}

/* spend(ms): of the app's VM */
static int l_spend(lua_State *lua)
{
	struct world *world = clock_world_of(agents_of(lua)->host);
	lua_Number ms = luaL_checknumber(lua, 1);
	luaL_argcheck(lua, ms >= 0 && ms <= UINT32_MAX, 1, "milliseconds expected");
	world->spent_ms += (uint64_t)ms;
	if (world->agents.accounted)
		world->agents.accounted->handler_ticks += (uint64_t)ms * TICKS_PER_MS;
	cut_long_batch(world, (uint64_t)ms);
	return 0;
}

/* Where lua/perilune/test/spending.lua finds it. MAY RAISE. */
static int install(lua_State *lua)
{
	lua_pushcfunction(lua, l_spend);
	lua_setfield(lua, LUA_REGISTRYINDEX, "perilune.spend");
	return 0;
}

bool world_open_clock(struct world *world)
{
	world->host.clock_ms = clock_read_clock;
	world->host.after_ms = clock_after;
	world->agents.vm.guard.cut = NULL; /* how fast the machine is decides nothing here */
	return !lua_cpcall(world->agents.vm.lua, install, NULL);
}
