/* Arguments whose messages name the function and the argument. */
#include "bind/bind.h"

void bind_refuse_type(lua_State *lua, int idx, const char *expected, const char *what, const char *name)
{
	bind_raise(lua, "%s: %s: a %s is expected, got %s", what, name, expected, luaL_typename(lua, idx));
}

const char *bind_string_of(lua_State *lua, int idx, size_t *n, const char *what, const char *name)
{
	const char *text = lua_tolstring(lua, idx, n); /* of a number as well */
	if (!text)
		bind_refuse_type(lua, idx, "string", what, name);
	return text;
}

double bind_number_of(lua_State *lua, int idx, const char *what, const char *name)
{
	if (!lua_isnumber(lua, idx))
		bind_refuse_type(lua, idx, "number", what, name);
	return lua_tonumber(lua, idx);
}

void bind_type_of(lua_State *lua, int idx, int type, const char *what, const char *name)
{
	if (lua_type(lua, idx) != type)
		bind_refuse_type(lua, idx, lua_typename(lua, type), what, name);
}
