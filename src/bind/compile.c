/*
 * Compiling a text for load(). LuaJIT compiles it in one go, which takes seconds for 100 MB, and nothing can end that.
 * Here it asks for the text piece by piece, and gets no more of it once the call has to end.
 */
#include "bind/bind.h"
#include "vm/vm.h"

#include <string.h>

struct text {
	const char *at;
	size_t left;
	struct guard *guard;
};

/*
 * A lua_Reader. MAY RAISE. A byte that is no part of any program makes the compiler give up; within a string or a
 * comment, the end does.
 */
static const char *compile_read_piece(lua_State *lua, void *data, size_t *n)
{
	enum { PIECE_BYTES = 65536 };
	static const char NONSENSE[] = "\1";
	struct text *text = data;
	const char *piece = text->at;
	*n = text->left < PIECE_BYTES ? text->left : PIECE_BYTES;
	if (*n && guard_must_end(text->guard, lua)) {
		*n = text->left = 1;
		piece = NONSENSE;
	}
	text->at += *n;
	text->left -= *n;
	return *n ? piece : NULL;
}

/* LuaJIT makes loops of its own kind only where `pairs` or `next` stands in the text. */
static bool may_have_loops(const char *text, size_t n)
{
	return memmem(text, n, "pairs", 5) || memmem(text, n, "next", 4);
}

/* MAY RAISE. compile(text, name, globals) → a function; or nil, message */
static int l_compile(lua_State *lua)
{
	struct text text = { .guard = &vm_of(lua)->guard };
	text.at = luaL_checklstring(lua, 1, &text.left);
	bool has_loops = may_have_loops(text.at, text.left);
	const char *name = luaL_checkstring(lua, 2);
	luaL_checktype(lua, 3, LUA_TTABLE);
	if (lua_loadx(lua, compile_read_piece, &text, name, "t")) {
		lua_pushnil(lua);
		lua_insert(lua, -2);
		return 2;
	}
	if (has_loops)
		vm_despecialize(lua);
	lua_pushvalue(lua, 3);
	lua_setfenv(lua, -2);
	return 1;
}

/* MAY RAISE. despecialize(chunk) → the same, as compile() would have made it: vm_despecialize() */
static int l_despecialize(lua_State *lua)
{
	luaL_checktype(lua, 1, LUA_TFUNCTION);
	lua_settop(lua, 1);
	vm_despecialize(lua);
	return 1;
}

static const luaL_Reg FUNCTIONS[] = {
	{ "compile", l_compile },
	{ "despecialize", l_despecialize },
	{ NULL, NULL },
};

void bind_compile(lua_State *lua)
{
	lua_newtable(lua);
	luaL_register(lua, NULL, FUNCTIONS);
}
