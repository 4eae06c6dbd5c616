/* Waiting for each other: channels, semaphores, tasks. Their Lua side is lua/perilune/waiting.lua. */
#include "agent/sync.h"
#include "bind/bind.h"

#include <string.h>

/* MAY RAISE. The object at 1 has the metatable of that name. */
static void check_object(lua_State *lua, const char *name, const char *what)
{
	bool is_it = false;
	if (lua_istable(lua, 1) && lua_getmetatable(lua, 1)) {
		lua_getfield(lua, LUA_REGISTRYINDEX, name);
		is_it = lua_rawequal(lua, -1, -2);
		lua_pop(lua, 2);
	}
	if (!is_it)
		bind_raise(lua, "%s: write it with a colon, as in object%s(…)", what, strrchr(what, ':'));
}

/* MAY RAISE. For how long at most, for a time-out at idx, in milliseconds; 0: any time. */
static uint32_t check_timeout(lua_State *lua, int idx, const char *what)
{
	return lua_isnoneornil(lua, idx) ? 0 : bind_duration_of(lua, idx, what);
}

struct run *bind_check_waiter(lua_State *lua, const char *what)
{
	struct run *run = bind_check_may_wait(lua, what);
	if (!lua_isyieldable(lua))
		bind_raise(lua, "%s: cannot wait here: a function in C has called this one", what);
	return run;
}

/* MAY YIELD. What is on top stays on the stack of the call that waits: `kept` values. */
static int wait_in_line(lua_State *lua, struct run *run, uint32_t ms, int kept)
{
	run->wait = WAIT_LINE;
	run->until_ms = ms ? conn_host_after(agents_of(lua)->host, ms) : WHEEL_NEVER;
	return lua_yield(lua, kept);
}

static int fail(lua_State *lua, const char *message, const char *code)
{
	lua_pushnil(lua);
	lua_pushstring(lua, message);
	lua_pushstring(lua, code);
	return 3;
}

/* MAY RAISE, MAY YIELD. wait(object[, timeout[, what]]) → true | nil, "timeout", "ETIMEDOUT" */
static int l_sync_wait(lua_State *lua)
{
	luaL_checktype(lua, 1, LUA_TTABLE);
	const char *what = luaL_optstring(lua, 3, "task:join");
	uint32_t ms = check_timeout(lua, 2, what);
	struct run *run = bind_check_waiter(lua, what);
	line_join(lua, 1, run);
	return wait_in_line(lua, run, ms, 0);
}

/* MAY RAISE. waiting(object) → how many calls wait for it */
static int l_sync_waiting(lua_State *lua)
{
	luaL_checktype(lua, 1, LUA_TTABLE);
	lua_pushinteger(lua, (lua_Integer)line_count(line_of(lua, 1)));
	return 1;
}

/* ---- channels ---- */

/* MAY RAISE. channel(capacity) → channel */
static int l_sync_channel(lua_State *lua)
{
	enum { CAPACITY_MAX = 1000000000 };
	BIND_AT_MOST(lua, 1, "perilune.channel");
	lua_Number capacity = lua_isnoneornil(lua, 1) ? 0 : lua_isnumber(lua, 1) ? lua_tonumber(lua, 1) : -1;
	if (!(capacity >= 0 && capacity <= CAPACITY_MAX && capacity == (int)capacity))
		bind_raise(lua, "perilune.channel expects how many values may wait: a whole number from 0");
	lua_createtable(lua, 0, 5);
	lua_pushinteger(lua, 1);
	lua_rawseti(lua, -2, CHANNEL_FIRST);
	lua_pushinteger(lua, 1);
	lua_rawseti(lua, -2, CHANNEL_NEXT);
	lua_pushinteger(lua, 0);
	lua_rawseti(lua, -2, CHANNEL_COUNT);
	lua_pushinteger(lua, (lua_Integer)capacity);
	lua_rawseti(lua, -2, CHANNEL_CAPACITY);
	lua_pushinteger(lua, 0);
	lua_rawseti(lua, -2, CHANNEL_CLOSED);
	lua_getfield(lua, LUA_REGISTRYINDEX, "perilune.channel");
	lua_setmetatable(lua, -2);
	return 1;
}

static bool channel_is_closed(lua_State *lua)
{
	return sync_get(lua, 1, CHANNEL_CLOSED) != 0;
}

/* MAY RAISE. */
static void check_value(lua_State *lua, const char *what)
{
	check_object(lua, "perilune.channel", what);
	if (lua_isnoneornil(lua, 2))
		bind_raise(lua, "%s: a value expected, got nil", what);
}

/* MAY RAISE, MAY YIELD. channel:send(value[, timeout]) → true | nil, message, code */
static int l_sync_send(lua_State *lua)
{
	check_value(lua, "channel:send");
	BIND_AT_MOST(lua, 3, "channel:send");
	uint32_t ms = check_timeout(lua, 3, "channel:send");
	if (channel_is_closed(lua))
		return fail(lua, "closed", "EPIPE");
	lua_settop(lua, 2);
	if (sync_put(lua, 1)) {
		lua_pushboolean(lua, 1);
		return 1;
	}
	struct run *run = bind_check_waiter(lua, "channel:send");
	line_join(lua, 1, run);
	run->place.gives = true;
	return wait_in_line(lua, run, ms, 1);
}

/* MAY RAISE. channel:try_send(value) → true | false: it is full | nil, message, code */
static int l_sync_try_send(lua_State *lua)
{
	check_value(lua, "channel:try_send");
	BIND_AT_MOST(lua, 2, "channel:try_send");
	if (channel_is_closed(lua))
		return fail(lua, "closed", "EPIPE");
	lua_pushboolean(lua, sync_put(lua, 1));
	return 1;
}

/* MAY RAISE, MAY YIELD. channel:receive([timeout]) → value | nil, message, code */
static int l_sync_receive(lua_State *lua)
{
	check_object(lua, "perilune.channel", "channel:receive");
	BIND_AT_MOST(lua, 2, "channel:receive");
	uint32_t ms = check_timeout(lua, 2, "channel:receive");
	if (sync_take(lua, 1))
		return 1;
	if (channel_is_closed(lua))
		return fail(lua, "closed", "EOF");
	struct run *run = bind_check_waiter(lua, "channel:receive");
	line_join(lua, 1, run);
	return wait_in_line(lua, run, ms, 0);
}

/* MAY RAISE. channel:try_receive() → value | nil, message, code */
static int l_sync_try_receive(lua_State *lua)
{
	check_object(lua, "perilune.channel", "channel:try_receive");
	BIND_AT_MOST(lua, 1, "channel:try_receive");
	if (sync_take(lua, 1))
		return 1;
	return channel_is_closed(lua) ? fail(lua, "closed", "EOF") : fail(lua, "empty", "EAGAIN");
}

/* MAY RAISE. channel:close() */
static int l_sync_close(lua_State *lua)
{
	check_object(lua, "perilune.channel", "channel:close");
	BIND_AT_MOST(lua, 1, "channel:close");
	sync_close(lua, 1);
	return 0;
}

/* MAY RAISE. channel:count() → how many values wait in it */
static int l_sync_count(lua_State *lua)
{
	check_object(lua, "perilune.channel", "channel:count");
	lua_pushinteger(lua, sync_get(lua, 1, CHANNEL_COUNT));
	return 1;
}

/* ---- semaphores ---- */

/* MAY RAISE. semaphore(permits) → semaphore */
static int l_sync_semaphore(lua_State *lua)
{
	enum { PERMITS_MAX = 1000000000 };
	BIND_AT_MOST(lua, 1, "perilune.semaphore");
	lua_Number permits = lua_isnoneornil(lua, 1) ? 1 : lua_isnumber(lua, 1) ? lua_tonumber(lua, 1) : -1;
	if (!(permits >= 0 && permits <= PERMITS_MAX && permits == (int)permits))
		bind_raise(lua,
			   "perilune.semaphore expects how many permits there are: a whole number from 0");
	lua_createtable(lua, 0, 1);
	lua_pushinteger(lua, (lua_Integer)permits);
	lua_rawseti(lua, -2, SEMAPHORE_PERMITS);
	lua_getfield(lua, LUA_REGISTRYINDEX, "perilune.semaphore");
	lua_setmetatable(lua, -2);
	return 1;
}

/* MAY RAISE, MAY YIELD. */
static int acquire(lua_State *lua, bool holds, const char *what)
{
	check_object(lua, "perilune.semaphore", what);
	uint32_t ms = check_timeout(lua, 2, what);
	struct run *run = holds ? bind_check_waiter(lua, what) : NULL;
	if (sync_acquire(lua, 1, run)) {
		lua_pushboolean(lua, 1);
		return 1;
	}
	run = bind_check_waiter(lua, what);
	line_join(lua, 1, run);
	run->place.holds = holds;
	return wait_in_line(lua, run, ms, 0);
}

/* MAY RAISE, MAY YIELD. semaphore:acquire([timeout]) → true | nil, "timeout", "ETIMEDOUT" */
static int l_sync_acquire(lua_State *lua)
{
	BIND_AT_MOST(lua, 2, "semaphore:acquire");
	return acquire(lua, false, "semaphore:acquire");
}

/* MAY RAISE, MAY YIELD. The same, and the permit goes back with the running call: hold(semaphore[, timeout[, what]]) */
static int l_sync_hold(lua_State *lua)
{
	return acquire(lua, true, luaL_optstring(lua, 3, "semaphore:with"));
}

/* MAY RAISE. unhold(semaphore[, timeout[, what]]) */
static int l_sync_unhold(lua_State *lua)
{
	const struct run *run = agents_of(lua)->current;
	check_object(lua, "perilune.semaphore", "semaphore:with");
	if (run)
		sync_unhold(lua, 1, run);
	return 0;
}

/* MAY RAISE. semaphore:try_acquire() → is it acquired? */
static int l_sync_try_acquire(lua_State *lua)
{
	check_object(lua, "perilune.semaphore", "semaphore:try_acquire");
	BIND_AT_MOST(lua, 1, "semaphore:try_acquire");
	lua_pushboolean(lua, sync_acquire(lua, 1, NULL));
	return 1;
}

/* MAY RAISE. semaphore:release() */
static int l_sync_release(lua_State *lua)
{
	check_object(lua, "perilune.semaphore", "semaphore:release");
	BIND_AT_MOST(lua, 1, "semaphore:release");
	sync_release(lua, 1);
	return 0;
}

/* MAY RAISE. semaphore:count() → how many permits are left */
static int l_sync_permits(lua_State *lua)
{
	check_object(lua, "perilune.semaphore", "semaphore:count");
	lua_pushinteger(lua, sync_get(lua, 1, SEMAPHORE_PERMITS));
	return 1;
}

/* ---- what lua/perilune/waiting.lua is given ---- */

/* MAY RAISE. install(name, metatable): of tasks, channels, semaphores. */
static int l_sync_install(lua_State *lua)
{
	lua_pushfstring(lua, "perilune.%s", luaL_checkstring(lua, 1));
	lua_pushvalue(lua, 2);
	lua_settable(lua, LUA_REGISTRYINDEX);
	return 0;
}

static void push_methods(lua_State *lua, const char *name, const luaL_Reg *methods)
{
	lua_newtable(lua);
	luaL_register(lua, NULL, methods);
	lua_setfield(lua, -2, name);
}

void bind_sync(lua_State *lua)
{
	static const luaL_Reg FUNCTIONS[] = {
		{ "wait", l_sync_wait },           { "channel", l_sync_channel },
		{ "semaphore", l_sync_semaphore }, { "hold", l_sync_hold },
		{ "unhold", l_sync_unhold },       { "install", l_sync_install },
		{ "waiting", l_sync_waiting },     { NULL, NULL },
	};
	static const luaL_Reg CHANNEL[] = {
		{ "send", l_sync_send },
		{ "try_send", l_sync_try_send },
		{ "receive", l_sync_receive },
		{ "try_receive", l_sync_try_receive },
		{ "close", l_sync_close },
		{ "count", l_sync_count },
		{ NULL, NULL },
	};
	static const luaL_Reg SEMAPHORE[] = {
		{ "acquire", l_sync_acquire },
		{ "try_acquire", l_sync_try_acquire },
		{ "release", l_sync_release },
		{ "count", l_sync_permits },
		{ NULL, NULL },
	};
	luaL_register(lua, NULL, FUNCTIONS);
	push_methods(lua, "channel_methods", CHANNEL);
	push_methods(lua, "semaphore_methods", SEMAPHORE);
}
