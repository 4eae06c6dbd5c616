/* The C side of `require "perilune"`; its Lua side is lua/perilune.lua. */
#include "agent/run.h"
#include "base/log.h"
#include "bind/bind.h"
#include "conn/peer.h"

#include <uv.h>

/* MAY RAISE, MAY YIELD. sleep(duration): suspends the handler; its frames wait, others go on. */
static int l_core_sleep(lua_State *lua)
{
	luaL_checkany(lua, 1);
	BIND_AT_MOST(lua, 1, "perilune.sleep");
	uint32_t ms = bind_duration_check(lua, 1);
	struct run *run = bind_check_may_wait(lua, "perilune.sleep");
	return bind_wait(lua, run, WAIT_SLEEP, conn_host_after(agents_of(lua)->host, ms));
}

/* now() → seconds on the loop's monotonic clock, as it was last read: it stands still while a handler computes. */
static int l_core_now(lua_State *lua)
{
	const struct agents *agents = agents_of(lua);
	BIND_AT_MOST(lua, 0, "perilune.now");
	/* While the script is loaded, by another thread perhaps, there is no loop to ask yet. */
	uint64_t now_ms = agents->attached ? agents->host->now_ms : uv_hrtime() / 1000000;
	lua_pushnumber(lua, (lua_Number)now_ms / 1000);
	return 1;
}

/* MAY RAISE. log(level, message[, fields]) */
static int l_core_log(lua_State *lua)
{
	struct agents *agents = agents_of(lua);
	struct log_field fields[BIND_LOG_FIELDS + 5];
	struct log_entry entry;
	bind_log_check(lua, &entry, fields);
	if (!log_enabled(entry.level))
		return 0;
	const struct run *run = agents->current;
	char peer[PEER_TEXT_BYTES];
	if (run) {
		fields[entry.count++] = F_INT("conn", run->channel->id);
		fields[entry.count++] = F_TEXT("peer", peer_text(run->channel->conn, peer, sizeof peer));
		fields[entry.count++] = F_TEXT("listener", run->channel->conn->endpoint->name);
	}
	fields[entry.count++] = F_INT("worker", agents->instance.worker);
	fields[entry.count++] = F_INT("generation", agents->instance.generation);
	log_entry(&entry);
	return 0;
}

static const luaL_Reg FUNCTIONS[] = {
	{ "sleep", l_core_sleep },
	{ "now", l_core_now },
	{ "log", l_core_log },
	{ NULL, NULL },
};

void bind_core(lua_State *lua)
{
	lua_newtable(lua);
	luaL_register(lua, NULL, FUNCTIONS);
}
