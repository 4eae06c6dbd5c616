/* perilune.shared: dictionaries that all workers have in common. Their Lua side is lua/perilune/dictionary.lua. */
#include "dict/dict.h"

#include "bind/bind.h"
#include "config/config.h"
#include "dict/dicts.h"

#include <math.h>
#include <string.h>
#include <uv.h>

/* ---- arguments; all of these MAY RAISE ---- */

/* What a script cannot make: there are no other userdata of this size that begin with this address. */
static const char TAG;

/* A VM has its dictionaries as long as it is there, whoever asks for them. NULL: it is being closed. */
struct dict_hold {
	struct dicts *dicts;
	struct dict *dict;
};

struct dict_box {
	const void *tag;
	const struct dict_hold *hold;
};

static struct dict *check_dict(lua_State *lua, const char *method)
{
	const struct dict_box *box = lua_touserdata(lua, 1);
	if (lua_type(lua, 1) != LUA_TUSERDATA || lua_objlen(lua, 1) != sizeof *box || box->tag != &TAG)
		bind_raise(lua, "shared:%s: call it with a colon, as in sessions:%s(…)", method, method);
	if (!box->hold->dict) /* a finaliser calls it */
		bind_raise(lua, "shared:%s: this generation of the script has ended", method);
	return box->hold->dict;
}

static struct dict_key check_key(lua_State *lua, const char *method)
{
	struct dict_key key;
	key.data = lua_tolstring(lua, 2, &key.len);
	if (!key.data)
		bind_raise(lua, "shared:%s: the key is a string or a number, got %s", method,
			   luaL_typename(lua, 2));
	if (key.len > DICT_KEY_MAX)
		bind_raise(lua, "shared:%s: the key has %d bytes, and may have %d", method, (int)key.len,
			   DICT_KEY_MAX);
	return key;
}

static double check_number(lua_State *lua, int idx, const char *method, const char *name)
{
	if (lua_type(lua, idx) != LUA_TNUMBER)
		bind_raise(lua, "shared:%s: %s is a number, got %s", method, name, luaL_typename(lua, idx));
	return lua_tonumber(lua, idx);
}

static uint64_t dict_now_ms(lua_State *lua)
{
	const struct instance *instance = instance_of(lua);
	return instance->now_ms(instance);
}

/* Nothing, and 0: it does not expire. */
static uint64_t check_expiry(lua_State *lua, int idx, uint64_t now_ms)
{
	uint32_t ms = lua_isnoneornil(lua, idx) ? 0 : bind_duration_of(lua, idx, "shared: the time to live:");
	return ms ? now_ms + ms : DICT_NEVER;
}

/* The function of that name that lua/perilune/dictionary.lua has put into the metatable. */
static void push_helper(lua_State *lua, const char *name)
{
	lua_getmetatable(lua, 1);
	lua_getfield(lua, -1, name);
	lua_remove(lua, -2);
}

/* The value refers to what lies at idx afterwards. False: it is larger than could be kept. */
static bool check_dict_value(lua_State *lua, int idx, const char *method, const struct dict *dict,
			     struct dict_value *value)
{
	*value = (struct dict_value){ .kind = DICT_STRING };
	switch (lua_type(lua, idx)) {
	case LUA_TNUMBER:
		value->kind = DICT_NUMBER;
		value->number = lua_tonumber(lua, idx);
		return true;
	case LUA_TBOOLEAN:
		value->kind = DICT_BOOLEAN;
		value->number = lua_toboolean(lua, idx);
		return true;
	case LUA_TSTRING:
		break;
	case LUA_TNONE:
	case LUA_TNIL:
		bind_raise(lua, "shared:%s: there is no value: shared:delete(key) removes one", method);
	default: /* it says itself what cannot be kept */
		value->kind = DICT_PACKED;
		push_helper(lua, "pack");
		lua_pushvalue(lua, idx);
		lua_pushstring(lua, method);
		lua_pushnumber(lua, (lua_Number)dict_limit(dict));
		lua_call(lua, 3, 1);
		lua_replace(lua, idx);
	}
	value->data = lua_tolstring(lua, idx, &value->len);
	return value->data;
}

/* ---- results ---- */

enum { COPIED_MAX = 1024 };

static int push_bytes(lua_State *lua)
{
	const struct dict_value *value = lua_touserdata(lua, 1);
	lua_pushlstring(lua, value->data, value->len);
	return 1;
}

/* On top of the stack: push_bytes() and the value's address, which are used up. MAY RAISE: nothing is held then. */
static void push_held(lua_State *lua, struct dict *dict, const struct dict_value *value)
{
	if (value->len <= COPIED_MAX) {
		char bytes[COPIED_MAX];
		memcpy(bytes, value->data, value->len);
		dict_release(dict, value);
		lua_pop(lua, 2);
		lua_pushlstring(lua, bytes, value->len);
		return;
	}
	int err = lua_pcall(lua, 1, 1, 0);
	dict_release(dict, value);
	if (err)
		lua_error(lua);
}

static void push_read(lua_State *lua, struct dict *dict, const struct dict_value *value)
{
	switch (value->kind) {
	case DICT_NUMBER:
		lua_pushnumber(lua, value->number);
		break;
	case DICT_BOOLEAN:
		lua_pushboolean(lua, value->number != 0);
		break;
	case DICT_STRING:
		push_held(lua, dict, value);
		break;
	case DICT_PACKED:
		push_held(lua, dict, value);
		push_helper(lua, "unpack");
		lua_insert(lua, -2);
		lua_call(lua, 1, 1);
		break;
	}
}

/*
 * MAY RAISE. Pushes the value, or nil. What it needs on the stack is there before anything is held: nothing in between
 * allocates, and so nothing raises, nor does a finaliser run. The function's first upvalue is push_bytes().
 */
static bool push_there(lua_State *lua, struct dict *dict, const char *method, uint64_t *version)
{
	struct dict_value value = { .version = 0 };
	struct dict_key key = check_key(lua, method);
	lua_pushvalue(lua, lua_upvalueindex(1));
	lua_pushlightuserdata(lua, &value);
	bool is_there = dict_get(dict, key, dict_now_ms(lua), &value);
	*version = value.version;
	if (is_there)
		push_read(lua, dict, &value);
	else
		lua_pushnil(lua);
	return is_there;
}

/* true | nil, message, code */
static int push_outcome(lua_State *lua, enum dict_error error)
{
	static const struct {
		const char *message, *code;
	} WORDS[] = {
		[DICT_EXISTS] = { "there is a value already", "EEXIST" },
		[DICT_ABSENT] = { "there is no value", "ENOENT" },
		[DICT_CHANGED] = { "it has changed meanwhile", "EAGAIN" },
		[DICT_NO_NUMBER] = { "the value is no number", "EINVAL" },
		[DICT_TOO_LARGE] = { "larger than the dictionary", "EMSGSIZE" },
		[DICT_BUSY] = { "others use all of its room", "EBUSY" },
		[DICT_NO_MEMORY] = { "not enough memory", "ENOMEM" },
	};
	if (error == DICT_OK) {
		lua_pushboolean(lua, 1);
		return 1;
	}
	lua_pushnil(lua);
	lua_pushstring(lua, WORDS[error].message);
	lua_pushstring(lua, WORDS[error].code);
	return 3;
}

/* ---- methods; all of these MAY RAISE ---- */

/* get(key) → value | nil */
static int l_dict_get(lua_State *lua)
{
	struct dict *dict = check_dict(lua, "get");
	uint64_t version;
	BIND_AT_MOST(lua, 2, "shared:get");
	push_there(lua, dict, "get", &version);
	return 1;
}

static int put(lua_State *lua, const char *method, enum dict_condition condition)
{
	struct dict *dict = check_dict(lua, method);
	struct dict_key key = check_key(lua, method);
	struct dict_value value;
	uint64_t now_ms = dict_now_ms(lua), expires_ms = check_expiry(lua, 4, now_ms);
	if (!check_dict_value(lua, 3, method, dict, &value))
		return push_outcome(lua, DICT_TOO_LARGE);
	return push_outcome(lua, dict_put(dict, key, &value, condition, expires_ms, now_ms));
}

/* set(key, value[, ttl]) → true | nil, message, code */
static int l_dict_set(lua_State *lua)
{
	BIND_AT_MOST(lua, 4, "shared:set");
	return put(lua, "set", DICT_ALWAYS);
}

/* The same, where there is none yet. */
static int l_dict_add(lua_State *lua)
{
	BIND_AT_MOST(lua, 4, "shared:add");
	return put(lua, "add", DICT_IF_ABSENT);
}

/* The same, where there is one. */
static int l_dict_replace(lua_State *lua)
{
	BIND_AT_MOST(lua, 4, "shared:replace");
	return put(lua, "replace", DICT_IF_PRESENT);
}

/* incr(key[, by[, begin[, ttl]]]) → number | nil, message, code. begin: false: there must be one */
static int l_dict_incr(lua_State *lua)
{
	struct dict *dict = check_dict(lua, "incr");
	struct dict_key key = check_key(lua, "incr");
	BIND_AT_MOST(lua, 5, "shared:incr");
	double by = lua_isnoneornil(lua, 3) ? 1 : check_number(lua, 3, "incr", "what is added");
	bool must_be = lua_isboolean(lua, 4) && !lua_toboolean(lua, 4);
	if (lua_type(lua, 4) == LUA_TSTRING)
		bind_raise(
		    lua, "shared:incr: the beginning is a number, got string: the time to live comes behind "
			 "it, as in incr(key, 1, 0, \"1m\")");
	bool has_begin = !must_be && !lua_isnoneornil(lua, 4);
	double begin = has_begin ? check_number(lua, 4, "incr", "the beginning") : 0, sum;
	uint64_t now_ms = dict_now_ms(lua), expires_ms = check_expiry(lua, 5, now_ms);
	enum dict_error error = dict_incr(dict, key, by, must_be ? NULL : &begin, expires_ms, now_ms, &sum);
	if (error)
		return push_outcome(lua, error);
	lua_pushnumber(lua, sum);
	return 1;
}

/* delete(key) → was there one? */
static int l_dict_delete(lua_State *lua)
{
	struct dict *dict = check_dict(lua, "delete");
	BIND_AT_MOST(lua, 2, "shared:delete");
	lua_pushboolean(lua, dict_delete(dict, check_key(lua, "delete"), 0, dict_now_ms(lua)));
	return 1;
}

/* expire(key[, ttl]) → is there one? */
static int l_dict_expire(lua_State *lua)
{
	struct dict *dict = check_dict(lua, "expire");
	struct dict_key key = check_key(lua, "expire");
	BIND_AT_MOST(lua, 3, "shared:expire");
	uint64_t now_ms = dict_now_ms(lua);
	lua_pushboolean(lua, dict_expire(dict, key, check_expiry(lua, 3, now_ms), now_ms));
	return 1;
}

/* ttl(key) → seconds, math.huge if it does not expire | nil */
static int l_dict_ttl(lua_State *lua)
{
	struct dict *dict = check_dict(lua, "ttl");
	BIND_AT_MOST(lua, 2, "shared:ttl");
	uint64_t now_ms = dict_now_ms(lua), expires_ms;
	if (!dict_expiry(dict, check_key(lua, "ttl"), now_ms, &expires_ms))
		lua_pushnil(lua);
	else
		lua_pushnumber(lua,
			       expires_ms == DICT_NEVER ? HUGE_VAL : (double)(expires_ms - now_ms) / 1000);
	return 1;
}

enum { AT_ONCE = 256 };

/* list, entries, count: adds the keys of the first `count`. */
static int push_keys(lua_State *lua)
{
	struct dict_entry **entries = lua_touserdata(lua, 2);
	size_t before = lua_objlen(lua, 1), n = (size_t)lua_tointeger(lua, 3);
	for (size_t i = 0; i < n; i++) {
		struct dict_key key = dict_entry_key(entries[i]);
		lua_pushlstring(lua, key.data, key.len);
		lua_rawseti(lua, 1, (int)(before + i + 1));
	}
	return 0;
}

/* MAY RAISE: nothing is held then. The list is at `list`. How many were added, of `left` at most. */
static size_t add_keys(lua_State *lua, struct dict *dict, struct dict_place *place, int list, size_t left)
{
	struct dict_entry *entries[AT_ONCE];
	lua_pushcfunction(lua, push_keys);
	lua_pushvalue(lua, list);
	lua_pushlightuserdata(lua, entries);
	size_t n = dict_walk(dict, place, dict_now_ms(lua), entries, AT_ONCE);
	size_t wanted = n < left ? n : left;
	lua_pushinteger(lua, (lua_Integer)wanted);
	int err = lua_pcall(lua, 3, 0, 0);
	for (size_t i = 0; i < n; i++)
		dict_leave(dict, entries[i]);
	if (err)
		lua_error(lua);
	return wanted;
}

/* keys([max]) → list */
static int l_dict_keys(lua_State *lua)
{
	enum { KEYS_DEFAULT = 1000, KEYS_MAX = 1000000, LIST = 3 };
	struct dict *dict = check_dict(lua, "keys");
	BIND_AT_MOST(lua, 2, "shared:keys");
	double most = lua_isnoneornil(lua, 2) ? KEYS_DEFAULT : check_number(lua, 2, "keys", "how many");
	if (!(most >= 0 && most <= KEYS_MAX))
		bind_raise(lua, "shared:keys: how many: from 0 to %d", KEYS_MAX);
	struct dict_place place = { 0, 0 };
	lua_settop(lua, LIST - 1);
	lua_newtable(lua);
	for (size_t left = (size_t)most; left && !dict_is_walked(&place);) {
		left -= add_keys(lua, dict, &place, LIST, left);
		bind_go_on(lua, "shared:keys");
	}
	return 1;
}

/* clear() */
static int l_dict_clear(lua_State *lua)
{
	struct dict *dict = check_dict(lua, "clear");
	BIND_AT_MOST(lua, 1, "shared:clear");
	while (dict_clear_some(dict))
		bind_go_on(lua, "shared:clear");
	return 0;
}

/* status() → { entries, bytes, limit, hits, misses, evicted, expired } */
static int l_dict_status(lua_State *lua)
{
	struct dict_counts counts;
	BIND_AT_MOST(lua, 1, "shared:status");
	dict_count(check_dict(lua, "status"), &counts);
	lua_createtable(lua, 0, 7);
	bind_set_number(lua, "entries", (double)counts.entries);
	bind_set_number(lua, "bytes", (double)counts.bytes);
	bind_set_number(lua, "limit", (double)counts.limit);
	bind_set_number(lua, "hits", (double)counts.hits);
	bind_set_number(lua, "misses", (double)counts.misses);
	bind_set_number(lua, "evicted", (double)counts.evicted);
	bind_set_number(lua, "expired", (double)counts.expired);
	return 1;
}

static const luaL_Reg METHODS[] = {
	{ "get", l_dict_get },         { "set", l_dict_set },       { "add", l_dict_add },
	{ "replace", l_dict_replace }, { "incr", l_dict_incr },     { "delete", l_dict_delete },
	{ "expire", l_dict_expire },   { "ttl", l_dict_ttl },       { "keys", l_dict_keys },
	{ "clear", l_dict_clear },     { "status", l_dict_status }, { NULL, NULL },
};

/* ---- for update() ---- */

/* shared_read(dict, key) → version, value; 0: there is none */
static int l_dict_read(lua_State *lua)
{
	struct dict *dict = check_dict(lua, "update");
	uint64_t version;
	push_there(lua, dict, "update", &version);
	lua_pushnumber(lua, (lua_Number)version);
	lua_insert(lua, -2);
	return 2;
}

/* shared_write(dict, key, value | nil, version, ttl) → true | nil, message, code; EAGAIN: another was quicker */
static int l_dict_write(lua_State *lua)
{
	struct dict *dict = check_dict(lua, "update");
	struct dict_key key = check_key(lua, "update");
	struct dict_value value;
	uint64_t version = (uint64_t)luaL_checknumber(lua, 4), now_ms = dict_now_ms(lua);
	uint64_t expires_ms = check_expiry(lua, 5, now_ms);
	if (lua_isnil(lua, 3)) {
		bool is_gone = !version || dict_delete(dict, key, version, now_ms);
		return push_outcome(lua, is_gone ? DICT_OK : DICT_CHANGED);
	}
	if (!check_dict_value(lua, 3, "update", dict, &value))
		return push_outcome(lua, DICT_TOO_LARGE);
	value.version = version;
	return push_outcome(lua, dict_put(dict, key, &value, DICT_IF_VERSION, expires_ms, now_ms));
}

/* ---- the dictionaries ---- */

#define HELD "perilune.dicts" /* in the registry: name → struct dict_hold */

static int l_hold_gc(lua_State *lua)
{
	struct dict_hold *hold = lua_touserdata(lua, 1);
	if (hold->dict)
		dicts_close(hold->dicts, hold->dict);
	hold->dict = NULL;
	return 0;
}

/* MAY RAISE. Pushes the table HELD. */
static void push_holds(lua_State *lua)
{
	lua_getfield(lua, LUA_REGISTRYINDEX, HELD);
	if (!lua_isnil(lua, -1))
		return;
	lua_pop(lua, 1);
	lua_newtable(lua);
	lua_pushvalue(lua, -1);
	lua_setfield(lua, LUA_REGISTRYINDEX, HELD);
}

/* MAY RAISE. Pushes one whose dictionary is still to be opened. */
static struct dict_hold *push_hold(lua_State *lua)
{
	struct dict_hold *hold = lua_newuserdata(lua, sizeof *hold);
	*hold = (struct dict_hold){ instance_of(lua)->dicts, NULL };
	if (luaL_newmetatable(lua, HELD ".hold")) {
		lua_pushcfunction(lua, l_hold_gc);
		lua_setfield(lua, -2, "__gc");
	}
	lua_setmetatable(lua, -2);
	return hold;
}

/* MAY RAISE. One of those that are declared. */
static const struct dict_hold *open_declared(lua_State *lua, const struct dict_config *config)
{
	push_holds(lua);
	lua_getfield(lua, -1, config->name);
	struct dict_hold *hold = lua_touserdata(lua, -1);
	if (!hold) {
		hold = push_hold(lua);
		lua_setfield(lua, -3, config->name);
		hold->dict = dicts_open(hold->dicts, config->name, config->bytes);
	}
	lua_pop(lua, 2);
	if (!hold->dict)
		bind_raise(lua, "shared.%s: not enough memory", config->name);
	if (dict_limit(hold->dict) != config->bytes)
		bind_raise(
		    lua,
		    "shared.%s: it has %.0f bytes since the process began: a size cannot change without a "
		    "restart",
		    config->name, (double)dict_limit(hold->dict));
	return hold;
}

void bind_open_dicts(lua_State *lua)
{
	const struct config *config = instance_of(lua)->config;
	for (unsigned i = 0; i < config->dict_count; i++)
		open_declared(lua, &config->dicts[i]);
}

/* MAY RAISE. shared(name, metatable) → dictionary | nil: none of that name is declared */
static int l_dict_open(lua_State *lua)
{
	const struct config *config = instance_of(lua)->config;
	const char *name = luaL_checkstring(lua, 1);
	luaL_checktype(lua, 2, LUA_TTABLE);
	unsigned i = 0;
	while (i < config->dict_count && strcmp(config->dicts[i].name, name) != 0)
		i++;
	if (i == config->dict_count)
		return 0;
	const struct dict_hold *hold = open_declared(lua, &config->dicts[i]);
	struct dict_box *box = lua_newuserdata(lua, sizeof *box);
	*box = (struct dict_box){ &TAG, hold };
	lua_pushvalue(lua, 2);
	lua_setmetatable(lua, -2);
	return 1;
}

/* names() → list of those that are declared */
static int l_dict_names(lua_State *lua)
{
	const struct config *config = instance_of(lua)->config;
	lua_createtable(lua, (int)config->dict_count, 0);
	for (unsigned i = 0; i < config->dict_count; i++) {
		lua_pushstring(lua, config->dicts[i].name);
		lua_rawseti(lua, -2, (int)i + 1);
	}
	return 1;
}

/* methods() → a new table of them */
static int l_dict_methods(lua_State *lua)
{
	lua_createtable(lua, 0, sizeof METHODS / sizeof *METHODS + 1);
	lua_pushcfunction(lua, push_bytes);
	luaL_openlib(lua, NULL, METHODS, 1);
	return 1;
}

void bind_dict(lua_State *lua)
{
	static const luaL_Reg FUNCTIONS[] = {
		{ "shared", l_dict_open },
		{ "shared_names", l_dict_names },
		{ "shared_methods", l_dict_methods },
		{ "shared_read", l_dict_read },
		{ "shared_write", l_dict_write },
		{ NULL, NULL },
	};
	lua_pushcfunction(lua, push_bytes);
	luaL_openlib(lua, NULL, FUNCTIONS, 1);
}
