/*
 * perilune.json: RFC 8259, and nothing else.
 *
 * A whole number is a number below 2^53 either way and an int64_t or uint64_t beyond, as string.unpack() has it. Arrays
 * have the metatable that is the first upvalue of all functions here.
 */
#pragma once

#include "bind/bind.h"

#define JSON_ARRAY_META "perilune.json.array"

enum {
	JSON_CDATA = 10, /* LuaJIT's type of an int64_t */
	JSON_DEPTH = 128,
	JSON_DEPTH_MAX = 1000, /* what the stacks have room for */
	JSON_BYTES = 16 << 20
};

struct json_options {
	unsigned depth;
	size_t max;
	bool is_sorted;
};

/* MAY RAISE. Those at idx, if there are any. */
struct json_options json_check_options(lua_State *lua, int idx, const char *const *names, const char *what);

/* How many bytes of a string stand in JSON as they are, from its begin on: up to a control character, a quote, a
 * backslash, or what is no UTF-8. */
size_t json_plain(const char *text, size_t n);

int json_l_decode(lua_State *lua);
int json_l_encode(lua_State *lua);

/* The same of a reply of an HTTP agent, without options: what is wrong with it begins with "http: ". */
int json_l_encode_reply(lua_State *lua);

/* MAY RAISE. Puts encode_reply(value) → text into the table on top of the stack: for lua/perilune/requests.lua. */
void bind_json_reply(lua_State *lua);
