#include "agent/letter.h"

#include <stdlib.h>
#include <string.h>

static void write_letter(struct letter *letter, const struct letter_value *value)
{
	letter->kind = (uint8_t)value->kind;
	letter->number = value->number;
	letter->len = (uint32_t)value->len;
	if (value->len)
		memcpy(letter->data, value->data, value->len);
}

struct letter *letter_new(struct name *to, const struct letter_value *value)
{
	struct letter *letter = malloc(letter_bytes(value->len));
	if (!letter)
		return NULL;
	*letter = (struct letter){ .to = to, .room = (uint32_t)value->len };
	write_letter(letter, value);
	return letter;
}

struct letter *letter_say(struct letter *letter, const struct letter_value *value)
{
	struct letter *said = letter;
	if (value->len > letter->room) {
		said = malloc(letter_bytes(value->len));
		if (!said)
			return NULL;
		*said = *letter;
		said->room = (uint32_t)value->len;
		free(letter);
	}
	write_letter(said, value);
	return said;
}

void letter_leave_names(struct letter *letter)
{
	names_leave(letter->to);
	names_leave(letter->from);
	letter->to = letter->from = NULL;
}

void letter_free(struct letter *letter)
{
	letter_leave_names(letter);
	free(letter);
}

bool letter_push(struct vm *vm, lua_State *lua, const struct letter *letter)
{
	switch (letter->kind) {
	case LETTER_BOOLEAN:
		lua_pushboolean(lua, letter->number != 0);
		return true;
	case LETTER_NUMBER:
		lua_pushnumber(lua, letter->number);
		return true;
	case LETTER_STRING:
	case LETTER_PACKED:
		return vm_push_bytes(vm, lua, letter->data, letter->len);
	default:
		lua_pushnil(lua);
		return true;
	}
}

bool letter_read(lua_State *lua, int idx, struct letter_value *value)
{
	*value = (struct letter_value){ .kind = LETTER_NIL };
	switch (lua_type(lua, idx)) {
	case LUA_TNIL:
	case LUA_TNONE:
		return true;
	case LUA_TBOOLEAN:
		value->kind = LETTER_BOOLEAN;
		value->number = lua_toboolean(lua, idx);
		return true;
	case LUA_TNUMBER:
		value->kind = LETTER_NUMBER;
		value->number = lua_tonumber(lua, idx);
		return true;
	case LUA_TSTRING:
		value->kind = LETTER_STRING;
		value->data = lua_tolstring(lua, idx, &value->len);
		return true;
	default:
		return false;
	}
}
