/*
 * perilune.workbench.lan: networks of apps in memory, as lua/perilune/test/net.lua sees them. A network is a box with a
 * pointer, a node a number of that network's.
 */
#include "workbench/app.h"

#include <stdlib.h>

static const char LAN_METATABLE[] = "perilune.workbench.lan";

/* ---- arguments; all of these may raise ---- */

static struct lan *check_lan(lua_State *lua)
{
	struct lan **box = luaL_checkudata(lua, 1, LAN_METATABLE);
	luaL_argcheck(lua, *box, 1, "it is gone");
	return *box;
}

/* NULL for 0. */
static struct lan_node *opt_node(lua_State *lua, const struct lan *lan, int idx)
{
	lua_Number number = luaL_checknumber(lua, idx);
	struct lan_node *node = lan->nodes;
	if (number == 0)
		return NULL;
	for (; node && --number > 0;)
		node = node->next;
	if (!node)
		luaL_argerror(lua, idx, "there is no such node");
	return node;
}

static struct lan_node *check_node(lua_State *lua, const struct lan *lan, int idx)
{
	struct lan_node *node = opt_node(lua, lan, idx);
	if (!node) {
		luaL_argerror(lua, idx, "a node expected");
		abort();
	}
	return node;
}

static double check_up_to(lua_State *lua, int idx, double most)
{
	lua_Number n = luaL_checknumber(lua, idx);
	luaL_argcheck(lua, n >= 0 && n <= most, idx, "a number that is out of its range");
	return n;
}

/* ---- the network ---- */

/* MAY RAISE. open(seed) → network */
static int l_lan_open(lua_State *lua)
{
	enum { SEED_BITS = 53, COLLECTED_KB = 512 };
	double seed = check_up_to(lua, 1, (double)(UINT64_C(1) << SEED_BITS));
	lua_gc(lua, LUA_GCSTEP,
	       COLLECTED_KB); /* it does not see what the histories of nets hold that are garbage */
	struct lan **box = lua_newuserdata(lua, sizeof(struct lan *));
	*box = NULL;
	luaL_getmetatable(lua, LAN_METATABLE);
	lua_setmetatable(lua, -2);
	*box = lan_open((uint64_t)seed);
	return *box ? 1 : luaL_error(lua, "not enough memory");
}

static int l_lan_gc(lua_State *lua)
{
	struct lan **box = luaL_checkudata(lua, 1, LAN_METATABLE);
	if (*box)
		lan_drop(*box);
	*box = NULL;
	return 0;
}

/* MAY RAISE. add(network, name) → a node, which is down */
static int l_lan_add(lua_State *lua)
{
	struct lan *lan = check_lan(lua);
	lua_Number number = 0;
	if (!links_add_node(lan, luaL_checkstring(lua, 2)))
		return luaL_error(lua, "not enough memory");
	for (const struct lan_node *node = lan->nodes; node; node = node->next)
		number++;
	lua_pushnumber(lua, number);
	return 1;
}

/* MAY RAISE. enter(network, node, app): it is that node's from now on */
static int l_lan_enter(lua_State *lua)
{
	struct lan *lan = check_lan(lua);
	struct lan_node *node = check_node(lua, lan, 2);
	struct bench_app **app = luaL_checkudata(lua, 3, APP_METATABLE);
	if (!*app || node->world || (*app)->world.lan)
		return luaL_argerror(lua, 3, "it is closed, or in a network, or another app is here");
	lan_enter(&(*app)->world, lan, node);
	return 0;
}

/* random(network, n) → 1 … n */
static int l_lan_random(lua_State *lua)
{
	struct lan *lan = check_lan(lua);
	uint64_t n = (uint64_t)check_up_to(lua, 2, 9e15);
	luaL_argcheck(lua, n, 2, "a whole number from 1 on expected");
	lua_pushnumber(lua, (lua_Number)(links_draw(&lan->chosen, n) + 1));
	return 1;
}

/* now(network) → milliseconds since it began */
static int l_lan_now(lua_State *lua)
{
	app_push_time(lua, check_lan(lua)->now_ms);
	return 1;
}

/* advance(network, ms) → true | false, "restless" | "stopped" */
static int l_lan_advance(lua_State *lua)
{
	struct lan *lan = check_lan(lua);
	uint64_t to_ms = lan->now_ms + (uint64_t)check_up_to(lua, 2, 1e13);
	if (lan->first)
		return app_push_quiet(lua, world_advance(lan->first, to_ms));
	lan->now_ms = to_ms;
	return app_push_quiet(lua, WORLD_QUIET);
}

/* history(network[, most]) → its last lines, a list; how many there were before them */
static int l_lan_history(lua_State *lua)
{
	const struct history *history = &check_lan(lua)->history;
	size_t kept = history_kept(history), most = (size_t)luaL_optnumber(lua, 2, HISTORY_LINES);
	size_t first = kept > most ? kept - most : 0;
	lua_createtable(lua, (int)(kept - first), 0);
	for (size_t i = first; i < kept; i++) {
		lua_pushstring(lua, history_line(history, i));
		lua_rawseti(lua, -2, (int)(i - first) + 1);
	}
	lua_pushnumber(lua, (lua_Number)(history->count + history->lost - (kept - first)));
	return 2;
}

/* ---- faults ---- */

/*
 * MAY RAISE. link(network, from, to, latency_min_ms, latency_max_ms, rate, refuse, loss): one way; nodes 0: all links
 */
static int l_lan_link(lua_State *lua)
{
	struct lan *lan = check_lan(lua);
	const struct lan_node *from = opt_node(lua, lan, 2), *to = opt_node(lua, lan, 3);
	const struct link_conditions conditions = {
		.latency_min_ms = (uint32_t)check_up_to(lua, 4, UINT32_MAX),
		.latency_max_ms = (uint32_t)check_up_to(lua, 5, UINT32_MAX),
		.rate = (uint64_t)check_up_to(lua, 6, 9e15),
		.refuse = check_up_to(lua, 7, 1),
		.loss = check_up_to(lua, 8, 1),
	};
	if (!links_set(lan, from, to, &conditions))
		return luaL_error(lua, "not enough memory");
	return 0;
}

/* MAY RAISE. part(network, from, to, on): nothing passes, one way */
static int l_lan_part(lua_State *lua)
{
	struct lan *lan = check_lan(lua);
	const struct lan_node *from = check_node(lua, lan, 2), *to = check_node(lua, lan, 3);
	bool is_parted = lua_toboolean(lua, 4);
	if (!links_part(lan, from, to, is_parted))
		return luaL_error(lua, "not enough memory");
	lan_note_link(lan, from, to, is_parted ? "parted" : "healed");
	return 0;
}

/* heal(network): all passes */
static int l_lan_heal(lua_State *lua)
{
	struct lan *lan = check_lan(lua);
	for (struct lan_link *link = lan->links; link; link = link->next) {
		if (link->is_parted)
			lan_note_link(lan, link->from, link->to, "healed");
		link->is_parted = false;
	}
	return 0;
}

/* stall(network, node, on) */
static int l_lan_stall(lua_State *lua)
{
	struct lan *lan = check_lan(lua);
	check_node(lua, lan, 2)->is_stalled = lua_toboolean(lua, 3);
	return 0;
}

/* reset(network, one, other, share) → how many; nodes 0: any */
static int l_lan_reset(lua_State *lua)
{
	struct lan *lan = check_lan(lua);
	const struct lan_node *one = opt_node(lua, lan, 2), *other = opt_node(lua, lan, 3);
	lua_pushnumber(lua, lan_reset(lan, one, other, check_up_to(lua, 4, 1)));
	return 1;
}

/* kill(network, node, is_silent): its app is to be closed then */
static int l_lan_kill(lua_State *lua)
{
	struct lan *lan = check_lan(lua);
	struct lan_node *node = check_node(lua, lan, 2);
	if (node->world)
		lan_kill(node->world, lua_toboolean(lua, 3));
	return 0;
}

/* note(network, node, what): a line of the history */
static int l_lan_note(lua_State *lua)
{
	struct lan *lan = check_lan(lua);
	lan_note_node(lan, check_node(lua, lan, 2), luaL_checkstring(lua, 3));
	return 0;
}

static const luaL_Reg FUNCTIONS[] = {
	{ "open", l_lan_open },       { "add", l_lan_add },     { "enter", l_lan_enter },
	{ "random", l_lan_random },   { "now", l_lan_now },     { "advance", l_lan_advance },
	{ "history", l_lan_history }, { "link", l_lan_link },   { "part", l_lan_part },
	{ "heal", l_lan_heal },       { "stall", l_lan_stall }, { "reset", l_lan_reset },
	{ "kill", l_lan_kill },       { "note", l_lan_note },   { NULL, NULL },
};

void bench_push_lan(lua_State *lua)
{
	luaL_newmetatable(lua, LAN_METATABLE);
	lua_pushcfunction(lua, l_lan_gc);
	lua_setfield(lua, -2, "__gc");
	lua_pop(lua, 1);
	lua_newtable(lua);
	luaL_register(lua, NULL, FUNCTIONS);
}
