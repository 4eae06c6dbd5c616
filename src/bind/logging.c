/* perilune.log(): what it is given is in the entry, or is an error. */
#include "base/text.h"
#include "bind/bind.h"

#include <math.h>
#include <string.h>

enum {
	NAME_BYTES = 32,
	SHOWN_BYTES = 512, /* of a text: then all fields have room in an entry */
	EXACT_BITS = 53,   /* whole numbers of so many are written without an exponent */
	QUOTED_BYTES = 80,
};

static const char *const LEVELS[] = { "debug", "info", "warn", "error", NULL };

/* What an entry has already: of the log itself, of the connection, for people; in a specification, of app:log(). */
static const char *const OURS[] = { "time",     "at_ms",  "level",      "message", "conn", "peer",
				    "listener", "worker", "generation", "excerpt", NULL };

/* MAY RAISE: for the key at idx, if it is no name that a field can have. */
static const char *check_name(lua_State *lua, int idx)
{
	size_t n;
	if (lua_type(lua, idx) != LUA_TSTRING) {
		bool is_number = lua_type(lua, idx) == LUA_TNUMBER;
		lua_pushvalue(lua, idx); /* as text it must not be the key of the traversal */
		RAISE(lua, "perilune.log: each field has a name, as in { user = \"ann\" }: %s%s is none",
		      is_number ? "" : "a ", is_number ? lua_tostring(lua, -1) : luaL_typename(lua, idx));
	}
	const char *name = lua_tolstring(lua, idx, &n);
	size_t good = strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_0123456789");
	if (!n || good != n || n > NAME_BYTES || (*name >= '0' && *name <= '9')) {
		char shown[QUOTED_BYTES];
		text_escape(TEXT_LINE, shown, sizeof shown, name, n);
		RAISE(lua, "perilune.log: a field's name has letters, digits and _ only, at most %d: \"%s\"",
		      NAME_BYTES, shown);
	}
	for (unsigned i = 0; OURS[i]; i++)
		if (!strcmp(name, OURS[i]))
			RAISE(lua, "perilune.log: the field '%s' is the server's own: choose another name",
			      name);
	return name;
}

static struct log_field logging_number_field(const char *name, double number)
{
	if (number == trunc(number) && fabs(number) <= (double)(INT64_C(1) << EXACT_BITS))
		return F_INT(name, number);
	return (struct log_field){ .key = name, .kind = LOG_IS_REAL, .real = number };
}

/* MAY RAISE. The name is at idx, the value behind it. */
static struct log_field check_field(lua_State *lua, int idx)
{
	const char *name = check_name(lua, idx);
	struct log_field field = { .key = name };
	switch (lua_type(lua, idx + 1)) {
	case LUA_TSTRING:
		field.kind = LOG_IS_TEXT;
		field.text = lua_tolstring(lua, idx + 1, &field.len);
		field.shows_empty = true;
		field.most = SHOWN_BYTES;
		return field;
	case LUA_TNUMBER:
		return logging_number_field(name, lua_tonumber(lua, idx + 1));
	case LUA_TBOOLEAN:
		field.kind = LOG_IS_BOOLEAN;
		field.number = lua_toboolean(lua, idx + 1);
		return field;
	default:
		RAISE(lua,
		      "perilune.log: the field '%s' is a %s: a text, a number or a boolean can be logged "
		      "(tostring(…))",
		      name, luaL_typename(lua, idx + 1));
	}
}

static int logging_by_name(const void *one, const void *other)
{
	return strcmp(((const struct log_field *)one)->key, ((const struct log_field *)other)->key);
}

/* MAY RAISE. Of the table at 3. */
static size_t check_fields(lua_State *lua, struct log_field *fields)
{
	size_t n = 0;
	if (lua_type(lua, 3) != LUA_TTABLE)
		RAISE(lua, "perilune.log: fields are a table, as in { user = \"ann\" }, not a %s",
		      luaL_typename(lua, 3));
	for (lua_pushnil(lua); lua_next(lua, 3); lua_pop(lua, 1)) {
		if (n == BIND_LOG_FIELDS)
			RAISE(lua, "perilune.log: an entry has at most %d fields", BIND_LOG_FIELDS);
		fields[n++] = check_field(lua, lua_gettop(lua) - 1);
	}
	qsort(fields, n, sizeof *fields, logging_by_name);
	return n;
}

void bind_log_check(lua_State *lua, struct log_entry *entry, struct log_field *fields)
{
	*entry = (struct log_entry){ .fields = fields };
	entry->level = (enum log_level)bind_choice_check(lua, 1, LEVELS);
	entry->message = luaL_checklstring(lua, 2, &entry->message_bytes);
	if (lua_gettop(lua) > 3)
		RAISE(lua, "perilune.log takes a level, a message and a table of fields, not %d arguments",
		      lua_gettop(lua));
	if (!lua_isnoneornil(lua, 3))
		entry->count = check_fields(lua, fields);
}

/* MAY RAISE. check(level, message[, fields]): raises what log() would. */
static int l_check(lua_State *lua)
{
	struct log_field fields[BIND_LOG_FIELDS];
	struct log_entry entry;
	bind_log_check(lua, &entry, fields);
	return 0;
}

void bind_logging(lua_State *lua)
{
	lua_createtable(lua, 0, 1);
	lua_pushcfunction(lua, l_check);
	lua_setfield(lua, -2, "check");
}
