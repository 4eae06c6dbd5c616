/* The fields of a head as a table, for lua/perilune/headers.lua: an API looks at several with each request. */
#include "bind/bind.h"

#include <string.h>

enum { COUNT_GUESSED = 8 };

struct field {
	const char *name, *value;
	size_t name_bytes, value_bytes;
};

static bool fields_is_blank(char byte)
{
	return byte == ' ' || byte == '\t';
}

static bool ends_line(char byte)
{
	return byte == '\r' || byte == '\n';
}

/* The field that begins at `at`, behind the end of a line. Returns where its line ends. A line may be none. */
static const char *fields_take(const char *at, const char *end, struct field *field)
{
	const char *colon = at, *value;
	while (colon < end && *colon != ':' && !ends_line(*colon))
		colon++;
	*field = (struct field){ .name = at, .name_bytes = (size_t)(colon - at) };
	if (colon == end || *colon != ':') {
		field->name_bytes = 0;
		return colon;
	}
	for (value = colon + 1; value < end && fields_is_blank(*value);)
		value++;
	for (at = value; at < end && !ends_line(*at);)
		at++;
	field->value = value;
	field->value_bytes = (size_t)(at - value);
	while (field->value_bytes && fields_is_blank(value[field->value_bytes - 1]))
		field->value_bytes--;
	return at;
}

/* MAY RAISE. Pushes the name in small letters. */
static void push_name(lua_State *lua, const struct field *field)
{
	luaL_Buffer buffer;
	luaL_buffinit(lua, &buffer);
	for (size_t i = 0; i < field->name_bytes; i++) {
		char byte = field->name[i];
		luaL_addchar(&buffer, byte >= 'A' && byte <= 'Z' ? (char)(byte | 0x20) : byte);
	}
	luaL_pushresult(&buffer);
}

/* MAY RAISE. Into the table on top; what is there of that name comes before it. */
static void put_field(lua_State *lua, const struct field *field)
{
	push_name(lua, field);
	lua_pushvalue(lua, -1);
	lua_rawget(lua, -3);
	bool is_there = !lua_isnil(lua, -1);
	if (!is_there)
		lua_pop(lua, 1);
	else
		lua_pushstring(lua, strcmp(lua_tostring(lua, -2), "cookie") ? ", " : "; ");
	lua_pushlstring(lua, field->value, field->value_bytes);
	if (is_there)
		lua_concat(lua, 3);
	lua_rawset(lua, -3);
}

/*
 * MAY RAISE. read_fields(head) → by name in small letters, the values without the blanks around them; those of a name
 * that is there several times joined. A field begins behind "\r\n".
 */
static int l_read_fields(lua_State *lua)
{
	size_t n;
	const char *at = luaL_checklstring(lua, 1, &n), *end = at + n;
	struct field field;
	lua_createtable(lua, 0, COUNT_GUESSED);
	while ((at = memchr(at, '\r', (size_t)(end - at)))) {
		if (++at == end || *at != '\n')
			continue;
		at = fields_take(at + 1, end, &field);
		if (field.name_bytes)
			put_field(lua, &field);
	}
	return 1;
}

void bind_http_fields(lua_State *lua)
{
	lua_pushcfunction(lua, l_read_fields);
	lua_setfield(lua, -2, "read_fields");
}
