/* Modules whose loading was ended half-way. */
#include "vm/vm.h"

#define NAME "perilune.loading"
#define MARK "perilune.loading.mark" /* in the registry */
#define LOADED "_LOADED"             /* there: package.loaded */

/* As a module: what stands in package.loaded while one is being loaded. It is not documented. */
static int l_note_mark(lua_State *lua)
{
	lua_getfield(lua, LUA_REGISTRYINDEX, LOADED);
	lua_getfield(lua, -1, NAME);
	lua_setfield(lua, LUA_REGISTRYINDEX, MARK);
	return 0;
}

static void set_preload(lua_State *lua, lua_CFunction loader)
{
	lua_getglobal(lua, "package");
	lua_getfield(lua, -1, "preload");
	if (loader)
		lua_pushcfunction(lua, loader);
	else
		lua_pushnil(lua);
	lua_setfield(lua, -2, NAME);
	lua_pop(lua, 2);
}

void vm_open_loading(lua_State *lua)
{
	set_preload(lua, l_note_mark);
	lua_getglobal(lua, "require");
	lua_pushliteral(lua, NAME);
	lua_call(lua, 1, 0);
	set_preload(lua, NULL);
	lua_getfield(lua, LUA_REGISTRYINDEX, LOADED);
	lua_pushnil(lua);
	lua_setfield(lua, -2, NAME);
	lua_pop(lua, 1);
}

void vm_forget_loading(struct vm *vm)
{
	lua_State *lua = vm->lua;
	int loaded = lua_gettop(lua) + 1, mark = loaded + 1;
	lua_getfield(lua, LUA_REGISTRYINDEX, LOADED);
	lua_getfield(lua, LUA_REGISTRYINDEX, MARK);
	for (lua_pushnil(lua); lua_next(lua, loaded); lua_pop(lua, 1)) {
		if (!lua_rawequal(lua, -1, mark))
			continue;
		lua_pushvalue(lua, -2);
		lua_pushnil(lua);
		lua_rawset(lua, loaded);
	}
	lua_settop(lua, loaded - 1);
}
