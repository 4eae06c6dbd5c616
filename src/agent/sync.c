#include "agent/sync.h"

#include <stdlib.h>

#define HELD \
	"perilune.held" /* in the registry: a call's serial → the semaphores of which it holds permits, a list */

void sync_open(lua_State *lua)
{
	lua_newtable(lua);
	lua_setfield(lua, LUA_REGISTRYINDEX, HELD);
}

lua_Integer sync_get(lua_State *lua, int object, int key)
{
	lua_rawgeti(lua, object, key);
	lua_Integer value = lua_tointeger(lua, -1);
	lua_pop(lua, 1);
	return value;
}

/* The key is there, so this needs no memory. */
static void sync_set(lua_State *lua, int object, int key, lua_Integer value)
{
	lua_pushinteger(lua, value);
	lua_rawseti(lua, object, key);
}

/* ---- channels ---- */

/* Keys of values only ever grow, and are numbers that may be larger than an int. */
static void push_at(lua_State *lua, int channel, lua_Integer at)
{
	lua_pushnumber(lua, (lua_Number)at);
	lua_rawget(lua, channel);
}

/* The value on top of the stack is popped. */
static void store(lua_State *lua, int channel, lua_Integer at)
{
	lua_pushnumber(lua, (lua_Number)at);
	lua_insert(lua, -2);
	lua_rawset(lua, channel); /* may raise */
	sync_set(lua, channel, CHANNEL_COUNT, sync_get(lua, channel, CHANNEL_COUNT) + 1);
}

/* The next value's key. */
static lua_Integer take_key(lua_State *lua, int channel)
{
	lua_Integer next = sync_get(lua, channel, CHANNEL_NEXT);
	sync_set(lua, channel, CHANNEL_NEXT, next + 1);
	return next;
}

static void put_last(lua_State *lua, int channel)
{
	store(lua, channel, sync_get(lua, channel, CHANNEL_NEXT));
	take_key(lua, channel);
}

/* To where it was before it was given away. */
static void put_in_place(lua_State *lua, int channel, lua_Integer at)
{
	store(lua, channel, at);
	if (at < sync_get(lua, channel, CHANNEL_FIRST))
		sync_set(lua, channel, CHANNEL_FIRST, at);
}

/* Pushes the oldest. There is one. What was given away, and has not come back, has left a gap. */
static void take_first(lua_State *lua, int channel)
{
	lua_Integer at = sync_get(lua, channel, CHANNEL_FIRST);
	lua_Integer count = sync_get(lua, channel, CHANNEL_COUNT) - 1;
	for (push_at(lua, channel, at); lua_isnil(lua, -1); push_at(lua, channel, ++at))
		lua_pop(lua, 1);
	lua_pushnumber(lua, (lua_Number)at);
	lua_pushnil(lua);
	lua_rawset(lua, channel);
	sync_set(lua, channel, CHANNEL_FIRST, count ? at + 1 : sync_get(lua, channel, CHANNEL_NEXT));
	sync_set(lua, channel, CHANNEL_COUNT, count);
}

static struct run *waiting_receiver(lua_State *lua, int channel)
{
	struct run *run = line_first(line_of(lua, channel));
	return run && !run->place.gives ? run : NULL;
}

static struct run *waiting_sender(lua_State *lua, int channel)
{
	struct run *run = line_first(line_of(lua, channel));
	return run && run->place.gives ? run : NULL;
}

bool sync_put(lua_State *lua, int channel)
{
	struct run *receiver = waiting_receiver(lua, channel);
	if (receiver) {
		lua_xmove(lua, receiver->co.lua, 1);
		line_call(agents_of(lua), receiver, 1, GIFT_VALUE);
		receiver->place.key = take_key(lua, channel);
		return true;
	}
	if (sync_get(lua, channel, CHANNEL_COUNT) >= sync_get(lua, channel, CHANNEL_CAPACITY))
		return false;
	put_last(lua, channel);
	return true;
}

/* Its value has been taken. */
static void thank(lua_State *lua, struct run *sender)
{
	lua_pop(sender->co.lua, 1);
	lua_pushboolean(sender->co.lua, 1);
	line_call(agents_of(lua), sender, 1, GIFT_NONE);
}

bool sync_take(lua_State *lua, int channel)
{
	struct run *sender = waiting_sender(lua, channel);
	bool has_values = sync_get(lua, channel, CHANNEL_COUNT) > 0;
	if (sender) {
		lua_pushvalue(sender->co.lua, -1);
		lua_xmove(sender->co.lua, lua, 1);
	}
	if (has_values && sender)
		put_last(lua, channel);
	if (has_values)
		take_first(lua, channel);
	if (sender)
		thank(lua, sender);
	return has_values || sender;
}

void sync_close(lua_State *lua, int channel)
{
	struct run *run;
	lua_pushliteral(lua, "closed"); /* what may raise does so before anything is changed */
	lua_pushliteral(lua, "EPIPE");
	lua_pushliteral(lua, "EOF");
	sync_set(lua, channel, CHANNEL_CLOSED, 1);
	while ((run = line_first(line_of(lua, channel)))) {
		lua_State *co = run->co.lua;
		lua_pushnil(lua); /* here, where it may raise: a stack that waits is nobody's to unwind */
		lua_pushliteral(lua, "closed");
		lua_pushstring(lua, run->place.gives ? "EPIPE" : "EOF");
		lua_settop(co, 0);
		lua_xmove(lua, co, 3);
		line_call(agents_of(lua), run, 3, GIFT_NONE);
	}
}

/* ---- semaphores ---- */

/* The permit is noted before it is taken: what raises has taken none. */
static void note_held(lua_State *lua, int semaphore, uint64_t serial)
{
	lua_getfield(lua, LUA_REGISTRYINDEX, HELD);
	lua_pushnumber(lua, (lua_Number)serial);
	lua_rawget(lua, -2);
	if (lua_isnil(lua, -1)) {
		lua_pop(lua, 1);
		lua_newtable(lua);
		lua_pushnumber(lua, (lua_Number)serial);
		lua_pushvalue(lua, -2);
		lua_rawset(lua, -4);
	}
	lua_pushvalue(lua, semaphore);
	lua_rawseti(lua, -2, (int)lua_objlen(lua, -2) + 1);
	lua_pop(lua, 2);
}

bool sync_acquire(lua_State *lua, int semaphore, struct run *holder)
{
	struct agents *agents = agents_of(lua);
	lua_Integer permits = sync_get(lua, semaphore, SEMAPHORE_PERMITS);
	if (holder && !holder->serial)
		holder->serial = ++agents->last_serial;
	if (permits < 1)
		return false;
	if (holder)
		note_held(lua, semaphore, holder->serial);
	sync_set(lua, semaphore, SEMAPHORE_PERMITS, permits - 1);
	return true;
}

void sync_release(lua_State *lua, int semaphore)
{
	struct run *next = line_first(line_of(lua, semaphore));
	if (!next) {
		sync_set(lua, semaphore, SEMAPHORE_PERMITS, sync_get(lua, semaphore, SEMAPHORE_PERMITS) + 1);
		return;
	}
	bool holds = next->place.holds;
	if (holds)
		note_held(lua, semaphore, next->serial);
	lua_pushboolean(next->co.lua, 1);
	line_call(agents_of(lua), next, 1, holds ? GIFT_NONE : GIFT_PERMIT);
}

void sync_unhold(lua_State *lua, int semaphore, const struct run *holder)
{
	lua_getfield(lua, LUA_REGISTRYINDEX, HELD);
	lua_pushnumber(lua, (lua_Number)holder->serial);
	lua_rawget(lua, -2);
	int list = lua_gettop(lua), n = lua_istable(lua, list) ? (int)lua_objlen(lua, list) : 0, at = n;
	for (; at; at--) {
		lua_rawgeti(lua, list, at);
		bool is_it = lua_rawequal(lua, -1, semaphore);
		lua_pop(lua, 1);
		if (is_it)
			break;
	}
	if (!at)
		return; /* it was released otherwise */
	sync_release(lua, semaphore);
	lua_rawgeti(lua, list, n);
	lua_rawseti(lua, list, at);
	lua_pushnil(lua);
	lua_rawseti(lua, list, n);
	if (n > 1)
		return;
	lua_pushnumber(lua, (lua_Number)holder->serial);
	lua_pushnil(lua);
	lua_rawset(lua, list - 1);
}

/* ---- outside of calls ---- */

static const struct vm_budget BUDGET = { 0 };

static void protectedly(struct agents *agents, lua_CFunction fn, void *with)
{
	lua_State *lua = agents->vm.lua;
	lua_pushcfunction(lua, fn);
	lua_pushlightuserdata(lua, with);
	if (vm_pcall(&agents->vm, lua, 1, 0, &BUDGET))
		lua_pop(lua, 1); /* there is no memory, and so no value for anybody */
}

/* Runs protected. */
static int l_give_back(lua_State *lua)
{
	struct run *run = lua_touserdata(lua, 1);
	lua_settop(lua, 0);
	lua_rawgeti(lua, LUA_REGISTRYINDEX, run->place.line->object_ref);
	if (run->place.gift == GIFT_PERMIT) {
		sync_release(lua, 1);
		return 0;
	}
	struct run *receiver = waiting_receiver(lua, 1);
	lua_xmove(run->co.lua, receiver ? receiver->co.lua : lua, 1);
	if (!receiver) {
		put_in_place(lua, 1, run->place.key);
		return 0;
	}
	line_call(agents_of(lua), receiver, 1, GIFT_VALUE);
	receiver->place.key = run->place.key;
	return 0;
}

void sync_give_back(struct agents *agents, struct run *run)
{
	protectedly(agents, l_give_back, run);
}

/* Runs protected. */
static int l_release_held(lua_State *lua)
{
	const uint64_t *serial = lua_touserdata(lua, 1);
	lua_settop(lua, 0);
	lua_getfield(lua, LUA_REGISTRYINDEX, HELD);
	lua_pushnumber(lua, (lua_Number)*serial);
	lua_rawget(lua, 1);
	for (int n = (int)lua_objlen(lua, 2); n; n--) {
		lua_rawgeti(lua, 2, n);
		sync_release(lua, 3);
		lua_settop(lua, 2);
		lua_pushnil(lua);
		lua_rawseti(lua, 2, n);
	}
	lua_pushnumber(lua, (lua_Number)*serial);
	lua_pushnil(lua);
	lua_rawset(lua, 1);
	return 0;
}

void sync_release_held(struct agents *agents, uint64_t serial)
{
	lua_State *lua = agents->vm.lua;
	lua_getfield(lua, LUA_REGISTRYINDEX, HELD);
	lua_pushnumber(lua, (lua_Number)serial);
	lua_rawget(lua, -2);
	bool holds = lua_istable(lua, -1);
	lua_pop(lua, 2);
	if (holds)
		protectedly(agents, l_release_held, &serial);
}
