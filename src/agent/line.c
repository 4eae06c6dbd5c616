#include "agent/line.h"

#include "agent/client.h"
#include "agent/sync.h"

#include <stdlib.h>

#define LINES "perilune.lines" /* in the registry: object → its line, as a light userdata; weak keys */

void line_open(lua_State *lua)
{
	lua_newtable(lua);
	lua_createtable(lua, 0, 1);
	lua_pushliteral(lua, "k");
	lua_setfield(lua, -2, "__mode");
	lua_setmetatable(lua, -2);
	lua_setfield(lua, LUA_REGISTRYINDEX, LINES);
}

static struct run *run_in_line(struct wheel_node *node)
{
	return (struct run *)(void *)((char *)node - offsetof(struct run, place.node));
}

struct line *line_of(lua_State *lua, int idx)
{
	lua_pushvalue(lua, idx);
	lua_getfield(lua, LUA_REGISTRYINDEX, LINES);
	lua_insert(lua, -2);
	lua_rawget(lua, -2);
	struct line *line = lua_touserdata(lua, -1);
	lua_pop(lua, 2);
	return line;
}

/* MAY RAISE, and owns nothing then that somebody would have to free. */
static struct line *line_new(lua_State *lua, int idx)
{
	lua_getfield(lua, LUA_REGISTRYINDEX, LINES);
	lua_pushvalue(lua, idx);
	lua_pushboolean(lua, 0);
	lua_rawset(lua, -3); /* its place is there now, and a weak one if the next line raises */
	lua_pushvalue(lua, idx);
	int ref = luaL_ref(lua, LUA_REGISTRYINDEX);
	struct line *line = malloc(sizeof *line);
	if (!line) {
		luaL_unref(lua, LUA_REGISTRYINDEX, ref);
		luaL_error(lua, "not enough memory to wait");
		abort();
	}
	*line = (struct line){ .object_ref = ref };
	wheel_list_init(&line->waiting);
	lua_pushvalue(lua, idx);
	lua_pushlightuserdata(lua, line);
	lua_rawset(lua, -3);
	lua_pop(lua, 1);
	return line;
}

void line_join(lua_State *lua, int idx, struct run *run)
{
	struct line *line = line_of(lua, idx);
	run->place = (struct line_place){ .line = line ? line : line_new(lua, idx) };
}

void line_enter(struct run *run)
{
	wheel_list_append(&run->place.line->waiting, &run->place.node);
}

unsigned line_count(const struct line *line)
{
	unsigned count = 0;
	for (const struct wheel_node *node = line ? line->waiting.next : NULL; node && node != &line->waiting;
	     node = node->next)
		count++;
	return count;
}

struct run *line_first(const struct line *line)
{
	return !line || wheel_is_empty(&line->waiting) ? NULL : run_in_line(line->waiting.next);
}

/* It ends with the last call that has to do with it. */
static void line_tidy(struct agents *agents, struct line *line)
{
	lua_State *lua = agents->vm.lua;
	if (!wheel_is_empty(&line->waiting) || line->called)
		return;
	lua_getfield(lua, LUA_REGISTRYINDEX, LINES);
	lua_rawgeti(lua, LUA_REGISTRYINDEX, line->object_ref);
	lua_pushnil(lua);
	lua_rawset(lua, -3);
	lua_pop(lua, 1);
	luaL_unref(lua, LUA_REGISTRYINDEX, line->object_ref);
	free(line);
}

void line_ready(struct agents *agents, struct run *run, int nargs)
{
	run->wait = WAIT_READY;
	run->place.nargs = nargs;
	run->place.gift = GIFT_NONE;
	wheel_list_append(&agents->ready, &run->place.node);
}

void line_call(struct agents *agents, struct run *run, int nargs, enum line_gift gift)
{
	wheel_disarm(&run->place.node);
	wheel_disarm(&run->timer);
	run->place.line->called++;
	line_ready(agents, run, nargs);
	run->place.gift = (uint8_t)gift;
}

void line_leave(struct agents *agents, struct run *run)
{
	struct line *line = run->place.line;
	wheel_disarm(&run->place.node);
	run->place.line = NULL;
	if (!line)
		return;
	line->called -= run->wait == WAIT_READY;
	line_tidy(agents, line);
}

void line_forsake(struct agents *agents, struct run *run)
{
	bool has_gift = run->wait == WAIT_READY && run->place.gift != GIFT_NONE;
	if (has_gift && run->place.gift == GIFT_CONN)
		client_give_back(agents, run);
	else if (has_gift)
		sync_give_back(agents, run);
	line_leave(agents, run);
}
