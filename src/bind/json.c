#include "bind/json.h"

#include "base/text.h"

#include <string.h>

/* MAY RAISE. */
static unsigned check_depth(lua_State *lua, const char *what)
{
	lua_Number depth = lua_type(lua, -1) == LUA_TNUMBER ? lua_tonumber(lua, -1) : 0;
	if (!(depth >= 1 && depth <= JSON_DEPTH_MAX && depth == (unsigned)depth))
		RAISE(lua, "%s: depth expects 1 to %d", what, JSON_DEPTH_MAX);
	return (unsigned)depth;
}

/* MAY RAISE. The option's value is on top of the stack, its name below. */
static void check_option(lua_State *lua, struct json_options *options, const char *const *names,
			 const char *what)
{
	const char *name = bind_option_check(lua, names, what);
	if (!strcmp(name, "depth"))
		options->depth = check_depth(lua, what);
	else if (!strcmp(name, "max"))
		options->max = bind_size_option_check(lua, name, what);
	else
		options->is_sorted = lua_toboolean(lua, -1);
}

struct json_options json_check_options(lua_State *lua, int idx, const char *const *names, const char *what)
{
	struct json_options options = { .depth = JSON_DEPTH, .max = JSON_BYTES };
	if (lua_isnoneornil(lua, idx))
		return options;
	bind_type_of(lua, idx, LUA_TTABLE, what, "the options");
	for (lua_pushnil(lua); lua_next(lua, idx); lua_pop(lua, 1))
		check_option(lua, &options, names, what);
	return options;
}

/* The highest bit of a byte is set where it is not plain, up to the first that is not. */
static uint64_t not_plain(uint64_t bytes)
{
	const uint64_t ones = 0x0101010101010101, tops = 0x8080808080808080;
	uint64_t quotes = bytes ^ ones * '"', slashes = bytes ^ ones * '\\';
	return (bytes | (bytes - ones * 0x20) | (quotes - ones) | (slashes - ones)) & tops;
}

static uint64_t eight_bytes(const char *text)
{
	uint64_t bytes;
	memcpy(&bytes, text, 8);
	return bytes;
}

/* Fewer than eight, and four at least: the ones in the middle are there twice. */
static uint64_t four_bytes_and_last_four(const char *text, size_t n)
{
	uint32_t first, last;
	memcpy(&first, text, 4);
	memcpy(&last, text + n - 4, 4);
	return (uint64_t)last << 32 | first;
}

/* Are the last bytes of n, fewer than eight, plain, as those before are? False where that is not seen at a glance. */
static bool is_plain_end(const char *text, size_t n)
{
	if (n >= 8)
		return !not_plain(eight_bytes(text + n - 8));
	return n >= 4 && !not_plain(four_bytes_and_last_four(text, n));
}

static size_t ascii_plain(const char *text, size_t n)
{
	size_t i = 0;
	for (; n - i >= 8; i += 8) {
		uint64_t found = not_plain(eight_bytes(text + i));
		if (!found)
			continue;
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
		return i + (size_t)__builtin_ctzll(found) / 8;
#else
		break;
#endif
	}
	if (i == n || is_plain_end(text, n))
		return n;
	for (; i < n; i++) {
		unsigned char c = (unsigned char)text[i];
		if (c < 0x20 || c >= 0x80 || c == '"' || c == '\\')
			break;
	}
	return i;
}

static bool is_tail(char c)
{
	return ((unsigned char)c & 0xc0) == 0x80;
}

/* The bytes of the character that is not ASCII; 0: it is none. Most of them are told at a glance. */
static size_t character(const char *text, size_t n)
{
	uint32_t code;
	unsigned char c = (unsigned char)text[0];
	if (n > 1 && c >= 0xc2 && c < 0xe0)
		return is_tail(text[1]) ? 2 : 0;
	if (n > 2 && c > 0xe0 && c < 0xf0 && c != 0xed)
		return is_tail(text[1]) && is_tail(text[2]) ? 3 : 0;
	return text_character(text, n, &code);
}

size_t json_plain(const char *text, size_t n)
{
	size_t i = 0;
	for (;;) {
		i += ascii_plain(text + i, n - i);
		if (i == n || (unsigned char)text[i] < 0x80)
			return i;
		while (i < n && (unsigned char)text[i] >= 0x80) {
			size_t bytes = character(text + i, n - i);
			if (!bytes)
				return i;
			i += bytes;
		}
	}
}

/* MAY RAISE. array([list]) → list */
static int l_json_array(lua_State *lua)
{
	BIND_AT_MOST(lua, 1, "json.array");
	if (lua_isnoneornil(lua, 1)) {
		lua_settop(lua, 0);
		lua_newtable(lua);
	}
	bind_type_of(lua, 1, LUA_TTABLE, "json.array", "the list");
	if (lua_getmetatable(lua, 1)) {
		if (!lua_rawequal(lua, -1, lua_upvalueindex(1)))
			bind_raise(lua, "json.array: the list has a metatable of its own");
		lua_settop(lua, 1);
	}
	lua_pushvalue(lua, lua_upvalueindex(1));
	lua_setmetatable(lua, 1);
	return 1;
}

/* MAY RAISE. is_array(value) → boolean */
static int l_json_is_array(lua_State *lua)
{
	if (lua_isnone(lua, 1))
		bind_raise(lua, "json.is_array: a value is expected");
	bool is_marked = lua_type(lua, 1) == LUA_TTABLE && lua_getmetatable(lua, 1) &&
			 lua_rawequal(lua, -1, lua_upvalueindex(1));
	lua_pushboolean(lua, is_marked);
	return 1;
}

static const luaL_Reg FUNCTIONS[] = {
	{ "decode", json_l_decode },
	{ "encode", json_l_encode },
	{ "array", l_json_array },
	{ "is_array", l_json_is_array },
	{ NULL, NULL },
};

/* MAY RAISE. */
static void push_array_meta(lua_State *lua)
{
	luaL_newmetatable(lua, JSON_ARRAY_META); /* or the one that there is: arrays outlive the library */
	lua_pushliteral(lua, "json.array");
	lua_setfield(lua, -2, "__metatable");
}

void bind_json_reply(lua_State *lua)
{
	push_array_meta(lua);
	lua_pushcclosure(lua, json_l_encode_reply, 1);
	lua_setfield(lua, -2, "encode_reply");
}

void bind_json(lua_State *lua)
{
	lua_newtable(lua);
	push_array_meta(lua);
	for (const luaL_Reg *function = FUNCTIONS; function->name; function++) {
		lua_pushvalue(lua, -1);
		lua_pushcclosure(lua, function->func, 1);
		lua_setfield(lua, -3, function->name);
	}
	lua_pop(lua, 1);
	lua_pushlightuserdata(lua, NULL); /* as `ngx.null` is, and lua-cjson's */
	lua_setfield(lua, -2, "null");
}
