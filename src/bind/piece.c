/* What goes through much data does so in pieces: between two of them the call may be ended. */
#include "bind/bind.h"
#include "vm/vm.h"

void bind_go_on(lua_State *lua, const char *what)
{
	if (guard_must_end(&vm_of(lua)->guard, lua))
		RAISE(lua, "%s was ended", what);
}

char *bind_room(lua_State *lua, struct bind_small *small, size_t n)
{
	return n <= sizeof small->bytes ? small->bytes : lua_newuserdata(lua, n);
}

int bind_refuse_byte(lua_State *lua, size_t at, const char *what)
{
	lua_pushnil(lua);
	lua_pushfstring(lua, "%s at byte %d", what, (int)(at + 1));
	return 2;
}
