/* One of a few words as an argument. */
#include "base/suggest.h"
#include "base/text.h"
#include "bind/bind.h"

#include <string.h>

enum { SHOWN_BYTES = 64 };

/* MAY RAISE. `given` is none of the names. */
static int choice_refuse(lua_State *lua, int idx, const char *given, size_t n, const char *const *names,
			 unsigned count)
{
	luaL_Buffer text;
	char shown[SHOWN_BYTES];
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
	return luaL_argerror(lua, idx, lua_tostring(lua, -1));
}

unsigned bind_choice_check(lua_State *lua, int idx, const char *const *names)
{
	size_t n;
	unsigned i = 0;
	const char *given = luaL_checklstring(lua, idx, &n);
	for (; names[i]; i++)
		if (!strcmp(names[i], given) && strlen(given) == n)
			return i;
	choice_refuse(lua, idx, given, n, names, i);
	return 0; /* not reached */
}

void bind_refuse_more(lua_State *lua, int n, const char *what)
{
	int self = strchr(what, ':') != NULL, most = n - self, given = lua_gettop(lua);
	while (given > n && lua_isnil(lua, given))
		given--;
	if (given > n)
		RAISE(lua, "%s takes %s, not %d", what,
		      !most       ? "no argument"
		      : most == 1 ? "one argument"
				  : "two arguments at most",
		      given - self);
}
