#include "vm/values.h"

#include <lauxlib.h>
#include <string.h>

/* A byte each, and then: of a number 8 bytes, of a string and of what is packed its length and the bytes. */
enum { NIL, FALSE_, TRUE_, NUMBER, STRING, PACKED };

/* The first byte of all is how many there are. */
enum { HEAD_BYTES = 1, LENGTH_BYTES = sizeof(uint32_t) };

static size_t text_bytes(lua_State *lua, int idx)
{
	return 1 + LENGTH_BYTES + lua_objlen(lua, idx);
}

/* MAY RAISE. In its place comes a string; false: it has too many bytes. */
static bool values_pack(lua_State *lua, int idx, int pack, size_t most)
{
	lua_pushvalue(lua, pack);
	lua_pushvalue(lua, idx);
	lua_pushnumber(lua, (lua_Number)most);
	lua_call(lua, 2, 1);
	lua_replace(lua, idx);
	return lua_type(lua, idx) == LUA_TSTRING;
}

/* MAY RAISE. Its kind, and its bytes are added; false: they are too many. */
static bool ready_one(lua_State *lua, int idx, int pack, size_t most, struct values *values)
{
	uint8_t *kind = &values->kinds[values->count++];
	switch (lua_type(lua, idx)) {
	case LUA_TNIL:
		*kind = NIL;
		values->bytes++;
		return true;
	case LUA_TBOOLEAN:
		*kind = lua_toboolean(lua, idx) ? TRUE_ : FALSE_;
		values->bytes++;
		return true;
	case LUA_TNUMBER:
		*kind = NUMBER;
		values->bytes += 1 + sizeof(lua_Number);
		return true;
	case LUA_TSTRING:
		*kind = STRING;
		break;
	default:
		*kind = PACKED;
		if (!values_pack(lua, idx, pack, most))
			return false;
	}
	values->bytes += text_bytes(lua, idx);
	return values->bytes <= most && lua_objlen(lua, idx) <= UINT32_MAX;
}

bool values_ready(lua_State *lua, int idx, int pack, size_t most, struct values *values)
{
	int top = lua_gettop(lua);
	values->count = 0;
	values->bytes = HEAD_BYTES;
	for (int i = idx; i <= top; i++)
		if (!ready_one(lua, i, pack, most, values))
			return false;
	return true;
}

static uint8_t *values_write_text(lua_State *lua, int idx, uint8_t *at)
{
	size_t n;
	const char *text = lua_tolstring(lua, idx, &n);
	uint32_t length = (uint32_t)n;
	memcpy(at, &length, sizeof length);
	memcpy(at + sizeof length, text, n);
	return at + sizeof length + n;
}

void values_write(lua_State *lua, int idx, const struct values *values, uint8_t *bytes)
{
	uint8_t *at = bytes;
	*at++ = (uint8_t)values->count;
	for (unsigned i = 0; i < values->count; i++) {
		*at++ = values->kinds[i];
		if (values->kinds[i] == NUMBER) {
			lua_Number n = lua_tonumber(lua, idx + (int)i);
			memcpy(at, &n, sizeof n);
			at += sizeof n;
		} else if (values->kinds[i] >= STRING) {
			at = values_write_text(lua, idx + (int)i, at);
		}
	}
}

unsigned values_count(const uint8_t *bytes, size_t n)
{
	return n ? bytes[0] : 0;
}

/* What is behind it. */
static const uint8_t *values_skip(const uint8_t *at)
{
	uint32_t length;
	switch (*at++) {
	case NUMBER:
		return at + sizeof(lua_Number);
	case STRING:
	case PACKED:
		memcpy(&length, at, sizeof length);
		return at + sizeof length + length;
	default:
		return at;
	}
}

static void values_push_one(lua_State *lua, const uint8_t *at)
{
	lua_Number number;
	uint32_t length;
	switch (*at++) {
	case NUMBER:
		memcpy(&number, at, sizeof number);
		lua_pushnumber(lua, number);
		break;
	case STRING:
	case PACKED:
		memcpy(&length, at, sizeof length);
		lua_pushlstring(lua, (const char *)at + sizeof length, length);
		break;
	case NIL:
		lua_pushnil(lua);
		break;
	default:
		lua_pushboolean(lua, at[-1] == TRUE_);
	}
}

int values_read(lua_State *lua, const uint8_t *bytes, size_t n, bool *packed)
{
	unsigned count = values_count(bytes, n);
	const uint8_t *at = bytes + HEAD_BYTES;
	*packed = false;
	for (unsigned i = 0; i < count; i++) {
		*packed = *packed || *at == PACKED;
		values_push_one(lua, at);
		at = values_skip(at);
	}
	return (int)count;
}

void values_push_kinds(lua_State *lua, const uint8_t *bytes, size_t n)
{
	char kinds[VALUES_MAX];
	unsigned count = values_count(bytes, n);
	const uint8_t *at = bytes + HEAD_BYTES;
	for (unsigned i = 0; i < count; i++) {
		kinds[i] = *at == PACKED ? 'p' : '-';
		at = values_skip(at);
	}
	lua_pushlstring(lua, kinds, count);
}
