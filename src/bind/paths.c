/* What lua/perilune/app.lua has to know of paths, and Lua cannot tell. */
#include "base/regular.h"
#include "bind/bind.h"

#include <errno.h>
#include <limits.h>
#include <string.h>

/*
 * MAY RAISE. real(path) → the absolute path without links, "." and ".."; or nil, message. It looks at each folder of
 * the path, so it is for loading.
 */
static int l_real(lua_State *lua)
{
	char real[PATH_MAX]; /* not on the heap: pushing it may raise */
	const char *path = luaL_checkstring(lua, 1);
	if (realpath(path, real)) {
		lua_pushstring(lua, real);
		return 1;
	}
	lua_pushnil(lua);
	lua_pushfstring(lua, "%s: %s", path, strerror(errno));
	return 2;
}

/* MAY RAISE. kind(path) → "a FIFO", "a folder" …; nil: it is a regular file, or there is nothing. */
static int l_kind(lua_State *lua)
{
	lua_pushstring(lua, irregular_kind(luaL_checkstring(lua, 1)));
	return 1;
}

static const luaL_Reg FUNCTIONS[] = {
	{ "kind", l_kind },
	{ "real", l_real },
	{ NULL, NULL },
};

void bind_paths(lua_State *lua)
{
	lua_newtable(lua);
	luaL_register(lua, NULL, FUNCTIONS);
}
