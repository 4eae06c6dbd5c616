/* The C side of `require "perilune"`; its Lua side is lua/perilune.lua. */
#include "agent/whose.h"
#include "agent/work.h"
#include "base/counters.h"
#include "base/log.h"
#include "bind/bind.h"

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

/*
 * While the script is loaded, by another thread perhaps, there is no loop to ask; but an app in memory has its own
 * time.
 */
uint64_t bind_now_ms(const struct agents *agents)
{
	return agents->attached || agents->host->epoch_ms ? agents->host->now_ms : uv_hrtime() / 1000000;
}

/* now() → seconds on the loop's monotonic clock, as it was last read: it stands still while a handler computes. */
static int l_core_now(lua_State *lua)
{
	const struct agents *agents = agents_of(lua);
	BIND_AT_MOST(lua, 0, "perilune.now");
	uint64_t now_ms = bind_now_ms(agents);
	lua_pushnumber(lua, (lua_Number)now_ms / 1000);
	return 1;
}

/* time() → seconds since 1970, with fractions: of an app in memory, as far as its own clock has come. */
static int l_core_time(lua_State *lua)
{
	const struct conn_host *host = agents_of(lua)->host;
	BIND_AT_MOST(lua, 0, "perilune.time");
	uv_timeval64_t now = { 0 };
	if (host->epoch_ms) {
		lua_pushnumber(lua, (lua_Number)(host->epoch_ms + host->now_ms) / 1000);
		return 1;
	}
	uv_gettimeofday(&now);
	lua_pushnumber(lua, (lua_Number)now.tv_sec + (lua_Number)now.tv_usec / 1e6);
	return 1;
}

/* MAY RAISE. log(level, message[, fields]) */
static int l_core_log(lua_State *lua)
{
	struct agents *agents = agents_of(lua);
	struct log_field fields[BIND_LOG_FIELDS + 6];
	struct log_entry entry;
	bind_log_check(lua, &entry, fields);
	if (!log_enabled(entry.level))
		return 0;
	const struct run *run = agents->current;
	struct whose about;
	if (run && !work_is_apps(run->channel)) {
		whose(run->channel, &about);
		fields[entry.count++] = about.conn;
		fields[entry.count++] = about.peer;
		fields[entry.count++] = about.listener;
		fields[entry.count++] = about.agent;
	}
	fields[entry.count++] = F_INT("worker", agents->instance.worker);
	fields[entry.count++] = F_INT("generation", agents->instance.generation);
	log_entry(&entry);
	return 0;
}

/* place() → which worker this is, from 0, and how many there are */
static int l_core_place(lua_State *lua)
{
	const struct instance *instance = &agents_of(lua)->instance;
	lua_pushinteger(lua, (lua_Integer)instance->worker);
	lua_pushinteger(lua, (lua_Integer)instance->config->workers);
	return 2;
}

/* `counts` has one a reason; those that are not 0. */
static void set_reasons(lua_State *lua, const char *name, const counter *counts)
{
	lua_newtable(lua);
	for (int i = 0; i < REASON_COUNT; i++)
		if (count_read(&counts[i]))
			bind_set_number(lua, reason_name((enum close_reason)i),
					(double)count_read(&counts[i]));
	lua_setfield(lua, -2, name);
}

/* MAY RAISE. stats() → what all threads of the process have counted so far */
static int l_core_stats(lua_State *lua)
{
	const struct conn_host *host = agents_of(lua)->host;
	struct counters sum = { 0 };
	BIND_AT_MOST(lua, 0, "perilune.stats");
	if (host->all_counters)
		counters_sum_all(&sum, host->all_counters);
	lua_createtable(lua, 0, COUNTER_COUNT + 5);
	uint64_t accepted = count_read(&sum.accepted), closed = counters_closed(&sum);
	bind_set_number(lua, "accepted", (double)accepted);
	bind_set_number(lua, "closed", (double)closed);
	bind_set_number(lua, "open", (double)(accepted > closed ? accepted - closed : 0));
	for (int i = 0; i < COUNTER_COUNT; i++)
		bind_set_number(lua, COUNTER_NAMES[i].name, (double)counters_read(&sum, &COUNTER_NAMES[i]));
	set_reasons(lua, "reasons", sum.closed);
	set_reasons(lua, "fault_reasons", sum.faults_by);
	return 1;
}

static const luaL_Reg FUNCTIONS[] = {
	{ "sleep", l_core_sleep }, { "now", l_core_now },     { "time", l_core_time }, { "log", l_core_log },
	{ "place", l_core_place }, { "stats", l_core_stats }, { NULL, NULL },
};

void bind_core(lua_State *lua)
{
	lua_newtable(lua);
	luaL_register(lua, NULL, FUNCTIONS);
	bind_begin(lua);
	bind_sync(lua);
	bind_connect(lua);
	bind_dict(lua);
	bind_job(lua);
	bind_names(lua);
	bind_hub(lua);
}
