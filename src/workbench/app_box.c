/* The box that Lua has of an app in memory, and what is asked of the app's own VM. */
#include "workbench/app.h"

const char APP_METATABLE[] = "perilune.workbench.app";

struct bench_app *app_check(lua_State *lua)
{
	struct bench_app **box = luaL_checkudata(lua, 1, APP_METATABLE);
	if (!*box)
		luaL_error(lua, "the app is closed");
	return *box;
}

struct world *app_check_world(lua_State *lua)
{
	return &app_check(lua)->world;
}

struct world_worker *app_check_worker(lua_State *lua, int idx)
{
	const struct world *world = app_check_world(lua);
	lua_Number number = luaL_checknumber(lua, idx);
	if (!(number >= 0 && number < (lua_Number)world->worker_count))
		luaL_argerror(lua, idx, "there is no such worker");
	return &world->workers[(size_t)number];
}

struct peer *app_check_peer(lua_State *lua)
{
	struct world *world = app_check_world(lua);
	lua_Number number = luaL_checknumber(lua, 2);
	if (!(number >= 1 && number <= (lua_Number)world->peer_count))
		luaL_argerror(lua, 2, "there is no such client");
	return world->peers[(size_t)number - 1];
}

bool app_call_inside(struct agents *agents, int nargs)
{
	struct vm *vm = &agents->vm;
	return !vm_pcall(vm, vm->lua, nargs, 1, &VM_LOAD_BUDGET);
}

void app_push_inside(struct agents *agents, const char *name)
{
	lua_State *inside = agents->vm.lua;
	lua_getfield(inside, LUA_REGISTRYINDEX, "perilune.inside");
	lua_getfield(inside, -1, name);
	lua_remove(inside, -2);
}

void app_take_string(struct agents *agents, lua_State *lua, int top)
{
	lua_State *inside = agents->vm.lua;
	size_t n;
	const char *bytes = lua_tolstring(inside, -1, &n);
	lua_pushlstring(lua, bytes ? bytes : "", bytes ? n : 0);
	lua_settop(inside, top);
}

void app_push_time(lua_State *lua, uint64_t at_ms)
{
	lua_pushnumber(lua, (lua_Number)(at_ms > WORLD_BEGIN_MS ? at_ms - WORLD_BEGIN_MS : 0));
}
