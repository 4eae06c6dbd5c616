/* One of a few words as an argument. */
#include "base/suggest.h"
#include "base/text.h"
#include "bind/bind.h"
#include "vm/vm.h"

#include <stdarg.h>
#include <string.h>

enum { SHOWN_BYTES = 64, LEVELS_MAX = 8 };

static bool is_frame_of_ours(const lua_Debug *frame)
{
	return strstr(frame->source, "/lua/perilune/");
}

void bind_raise(lua_State *lua, const char *format, ...)
{
	va_list arguments;
	lua_Debug frame;
	int level = 1;
	while (level < LEVELS_MAX && lua_getstack(lua, level, &frame) && lua_getinfo(lua, "Sl", &frame) &&
	       is_frame_of_ours(&frame))
		level++;
	luaL_where(lua, level);
	va_start(arguments, format);
	lua_pushvfstring(lua, format, arguments);
	va_end(arguments);
	lua_concat(lua, 2);
	lua_error(lua);
	abort();
}

/* MAY RAISE. Pushes what is said where `given` is none of the names. */
static void push_refusal(lua_State *lua, const char *given, size_t n, const char *const *names)
{
	luaL_Buffer text;
	char shown[SHOWN_BYTES];
	unsigned count = 0;
	while (names[count])
		count++;
	const char *near = strlen(given) == n ? suggest_nearest(given, names, count) : NULL;
	text_escape(TEXT_LINE, shown, sizeof shown, given, n);
	luaL_buffinit(lua, &text);
	for (unsigned i = 0; i < count; i++) {
		luaL_addstring(&text, !i ? "expects \"" : i + 1 < count ? "\", \"" : "\" or \"");
		luaL_addstring(&text, names[i]);
	}
	luaL_addstring(&text, "\", got \"");
	luaL_addstring(&text, shown);
	luaL_addstring(&text, "\"");
	if (near) {
		luaL_addstring(&text, " (did you mean \"");
		luaL_addstring(&text, near);
		luaL_addstring(&text, "\"?)");
	}
	luaL_pushresult(&text);
}

unsigned bind_choice_of(lua_State *lua, int idx, const char *const *names, const char *what)
{
	size_t n;
	const char *given = lua_tolstring(lua, idx, &n);
	if (!given && !what)
		given = luaL_checklstring(lua, idx, &n);
	if (!given)
		bind_raise(lua, "%s: a string is expected, got %s", what, luaL_typename(lua, idx));
	for (unsigned i = 0; names[i]; i++)
		if (!strcmp(names[i], given) && strlen(given) == n)
			return i;
	push_refusal(lua, given, n, names);
	if (what)
		bind_raise(lua, "%s %s", what, lua_tostring(lua, -1));
	return (unsigned)luaL_argerror(lua, idx, lua_tostring(lua, -1)); /* which does not return */
}

unsigned bind_choice_check(lua_State *lua, int idx, const char *const *names)
{
	return bind_choice_of(lua, idx, names, NULL);
}

const char *bind_option_check(lua_State *lua, const char *const *names, const char *what)
{
	unsigned count = 0;
	const char *name = lua_type(lua, -2) == LUA_TSTRING ? lua_tostring(lua, -2) : "";
	while (names[count] && strcmp(names[count], name) != 0)
		count++;
	if (names[count])
		return names[count];
	const char *near = suggest_nearest(name, names, count);
	if (near)
		RAISE(lua, "%s: unknown option \"%s\" (did you mean \"%s\"?)", what, name, near);
	RAISE(lua, "%s: unknown option \"%s\"", what, name);
}

size_t bind_size_option_check(lua_State *lua, const char *name, const char *what)
{
	vm_push_function(lua, "perilune.units", "size");
	lua_pushvalue(lua, -2);
	lua_call(lua, 1, 2);
	if (lua_isnil(lua, -2))
		RAISE(lua, "%s: %s %s", what, name, lua_tostring(lua, -1));
	size_t bytes = (size_t)lua_tonumber(lua, -2);
	lua_pop(lua, 2);
	return bytes;
}

void bind_refuse_more(lua_State *lua, int n, const char *what)
{
	static const char *const MOST[] = { "no argument", "one argument", "two arguments at most",
					    "three arguments at most", "four arguments at most" };
	int self = strchr(what, ':') != NULL, most = n - self, given = lua_gettop(lua);
	while (given > n && lua_isnil(lua, given))
		given--;
	if (given > n)
		RAISE(lua, "%s takes %s, not %d", what, MOST[most], given - self);
}
