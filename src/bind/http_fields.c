/* The fields of a head as a table, for lua/perilune/headers.lua: an API looks at several with each request. */
#include "bind/bind.h"

#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum {
	NAME_BYTES = 64,  /* longer names are rare */
	FIELD_BYTES = 32, /* of the lines of most heads: how many there are is guessed */
	FIELDS_GUESSED_MAX = 32
};

/* A field of a head. Its name is in small letters, and does not fit into `small` where it is longer than that. */
struct field {
	const char *name, *value;
	size_t name_bytes, value_bytes;
	char small[NAME_BYTES];
};

static bool fields_is_blank(char byte)
{
	return byte == ' ' || byte == '\t';
}

/* Behind the next "\r\n" from `at` on; NULL: there is none. */
static const char *next_line(const char *at, const char *end)
{
	while ((at = memchr(at, '\r', (size_t)(end - at))))
		if (++at < end && *at == '\n')
			return at + 1;
	return NULL;
}

static char small_letter(char letter)
{
	unsigned char byte = (unsigned char)letter;
	return (char)(byte | ((unsigned)(byte - 'A') < 26) << 5);
}

/* The same of eight at a time. Where the sums reach the highest bit, the letter is an A or more; or behind the Z. */
static uint64_t small_letters(uint64_t letters)
{
	const uint64_t ones = 0x0101010101010101, tops = 0x8080808080808080;
	uint64_t low = letters & ~tops;
	uint64_t from_a = low + ones * (0x80 - 'A'), behind_z = low + ones * (0x7f - 'Z');
	return letters | ((from_a & ~behind_z & ~letters & tops) >> 2);
}

/* Of the first n bytes of a line, NAME_BYTES at most. Up to seven more are written. */
static void write_small(char *small, const char *name, size_t n, const char *end)
{
	size_t i = 0;
	for (; i < n && end - name - (ptrdiff_t)i >= 8; i += 8) {
		uint64_t letters;
		memcpy(&letters, name + i, 8);
		letters = small_letters(letters);
		memcpy(small + i, &letters, 8);
	}
	for (; i < n; i++)
		small[i] = small_letter(name[i]);
}

/* Returns where the line ends, of a field or of none: that has no name. */
static const char *fields_take(const char *line, const char *end, struct field *field)
{
	const char *cr = memchr(line, '\r', (size_t)(end - line)), *stop = cr ? cr : end;
	const char *at = memchr(line, ':', (size_t)(stop - line));
	field->name_bytes = at ? (size_t)(at - line) : 0;
	if (!field->name_bytes)
		return stop;
	field->name = line;
	if (field->name_bytes <= NAME_BYTES)
		write_small(field->small, line, field->name_bytes, end);
	while (++at < stop && fields_is_blank(*at))
		;
	field->value = at;
	for (at = stop; at > field->value && fields_is_blank(at[-1]);)
		at--;
	field->value_bytes = (size_t)(at - field->value);
	return stop;
}

/* MAY RAISE. Pushes the name in small letters. */
static void push_name(lua_State *lua, const struct field *field)
{
	luaL_Buffer buffer;
	if (field->name_bytes <= NAME_BYTES) {
		lua_pushlstring(lua, field->small, field->name_bytes);
		return;
	}
	luaL_buffinit(lua, &buffer);
	for (size_t i = 0; i < field->name_bytes; i++)
		luaL_addchar(&buffer, small_letter(field->name[i]));
	luaL_pushresult(&buffer);
}

/*
 * MAY RAISE. With the name on top, and the table below: pushes the value; what is there of that name comes before it.
 */
static void push_joined(lua_State *lua, const struct field *field)
{
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
}

/* One bit of 64 for a name: those whose bit no other has set are new. */
static uint64_t mark_of(const struct field *field)
{
	unsigned first = (unsigned char)field->name[0] | 0x20,
		 last = (unsigned char)field->name[field->name_bytes - 1] | 0x20;
	return UINT64_C(1) << ((first * 7 + last * 3 + field->name_bytes) & 63);
}

/* MAY RAISE. Into the table on top. */
static void put_field(lua_State *lua, const struct field *field, uint64_t *seen)
{
	uint64_t mark = mark_of(field);
	push_name(lua, field);
	if (*seen & mark)
		push_joined(lua, field);
	else
		lua_pushlstring(lua, field->value, field->value_bytes);
	*seen |= mark;
	lua_rawset(lua, -3);
}

/*
 * MAY RAISE. read_fields(head) → by name in small letters, the values without the blanks around them; those of a name
 * that is there several times joined. Each begins behind "\r\n"; no line feed is anywhere else.
 */
static int l_read_fields(lua_State *lua)
{
	size_t bytes;
	struct field field;
	uint64_t seen = 0;
	const char *at = luaL_checklstring(lua, 1, &bytes), *end = at + bytes;
	size_t guessed = bytes / FIELD_BYTES;
	lua_createtable(lua, 0, (int)(guessed < FIELDS_GUESSED_MAX ? guessed : FIELDS_GUESSED_MAX));
	while ((at = next_line(at, end))) {
		at = fields_take(at, end, &field);
		if (field.name_bytes)
			put_field(lua, &field, &seen);
	}
	return 1;
}

void bind_http_fields(lua_State *lua)
{
	lua_pushcfunction(lua, l_read_fields);
	lua_setfield(lua, -2, "read_fields");
}
