/* perilune.sources: the script set, as Perilune's own Lua reads it. */
#include "config/config.h"
#include "config/sources.h"

#include <errno.h>
#include <lauxlib.h>
#include <string.h>

static const struct source *source_at(lua_State *lua, int idx)
{
	const struct sources *sources = lua_touserdata(lua, lua_upvalueindex(1));
	return sources_find(sources, luaL_checkstring(lua, idx));
}

/* has(name) → is there such a file? It may be one that cannot be read. */
static int l_has(lua_State *lua)
{
	lua_pushboolean(lua, source_at(lua, 1) != NULL);
	return 1;
}

/* text(name[, bytes]) → at most so many bytes of it, or all; nil, why */
static int l_text(lua_State *lua)
{
	const struct source *source = source_at(lua, 1);
	lua_Number most = luaL_optnumber(lua, 2, SOURCE_MAX_BYTES);
	if (source && source->text) {
		size_t max = most > 0 ? (size_t)most : 0;
		lua_pushlstring(lua, source->text, source->bytes < max ? source->bytes : max);
		return 1;
	}
	int err = source ? source->err : ENOENT;
	lua_pushnil(lua);
	if (source && source->instead)
		lua_pushfstring(lua, "is %s, not a file", source->instead);
	else
		lua_pushstring(lua, err == EFBIG ? "is larger than 16 MiB" : strerror(err));
	return 2;
}

static bool mentions(const struct source *source, const char *text)
{
	return source->text && memmem(source->text, source->bytes, text, strlen(text));
}

/* mention(text) → does a file have it? */
static int l_mention(lua_State *lua)
{
	const struct sources *sources = lua_touserdata(lua, lua_upvalueindex(1));
	const char *text = luaL_checkstring(lua, 1);
	bool found = false;
	for (size_t i = 0; !found && i < sources->count; i++)
		found = mentions(&sources->files[i], text);
	lua_pushboolean(lua, found);
	return 1;
}

static void set_function(lua_State *lua, const char *name, lua_CFunction function,
			 const struct sources *sources)
{
	lua_pushlightuserdata(lua, (void *)sources);
	lua_pushcclosure(lua, function, 1);
	lua_setfield(lua, -2, name);
}

static void library_set_text(lua_State *lua, const char *key, const char *text)
{
	if (*text)
		lua_pushstring(lua, text);
	else
		lua_pushnil(lua);
	lua_setfield(lua, -2, key);
}

void config_open_sources(lua_State *lua, const struct config *config)
{
	const struct sources *sources = config->sources;
	lua_getglobal(lua, "package");
	lua_getfield(lua, -1, "loaded");
	lua_createtable(lua, 0, 4);
	set_function(lua, "has", l_has, sources);
	set_function(lua, "mention", l_mention, sources);
	set_function(lua, "text", l_text, sources);
	library_set_text(lua, "cut", sources->cut);
	lua_pushboolean(lua, sources->is_image);
	lua_setfield(lua, -2, "is_image");
	lua_setfield(lua, -2, "perilune.sources");
	lua_pop(lua, 2);
}
