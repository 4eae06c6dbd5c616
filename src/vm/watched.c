/*
 * Where a call that has stalled (stall.h) was in Lua: told by the functions in C that it called, when they return.
 * LuaJIT calls all of those by way of a wrapper, if it is asked to, but for its own; so scripts get copies of its own
 * that may block. It costs a few instructions for each such call, and is asked for only where a script can call what
 * may block for long: with doors of `unsafe`, or modules of the system, once it is loaded. What is always there and
 * opens or reads files says so by itself.
 */
#include "vm/vm.h"

#include <luajit.h>

static int call_watched(lua_State *lua, lua_CFunction function)
{
	int results = function(lua);
	/* Less than 0: it yields, and its stack is not its own any more. */
	if (results >= 0)
		guard_note_return(&vm_of(lua)->guard, lua);
	return results;
}

/* Not often: what is being compiled is given up. */
int vm_l_watch_calls(lua_State *lua)
{
	lua_pushlightuserdata(lua, (void *)(uintptr_t)call_watched);
	luaJIT_setmode(lua, -1, LUAJIT_MODE_WRAPCFUNC | LUAJIT_MODE_ON);
	return 0;
}

/* MAY RAISE. Such a copy of a function; of one in Lua, that function. */
int vm_l_watched(lua_State *lua)
{
	lua_CFunction function = lua_tocfunction(lua, 1);
	int upvalues = 0;
	lua_settop(lua, 1);
	if (!function)
		return 1;
	luaL_checkstack(lua, UINT8_MAX + LUA_MINSTACK, "too many upvalues");
	while (lua_getupvalue(lua, 1, upvalues + 1))
		upvalues++;
	lua_pushcclosure(lua, function, upvalues);
	lua_getfenv(lua, 1); /* the functions of `io` have the metatable of files there */
	lua_setfenv(lua, -2);
	return 1;
}
