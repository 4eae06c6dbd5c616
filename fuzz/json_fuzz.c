/*
 * Decodes any bytes as JSON, beside jansson, which must agree whether they are. What was decoded is encoded, which
 * jansson must read as the same value, and decoded again, which must give the same text.
 *
 * Numbers are compared as doubles: to jansson 1 and 1.0 are not equal. It has no zero byte in a key, which we have, and
 * takes one behind a value for the end.
 */
#include "bind/bind.h"
#include "support/lua_fuzz.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The text that the value has, or nothing. */
static const char CHECK[] =
    "local json, text = ...\n"
    "local value, message = json.decode(text, { depth = 1000 })\n"
    "if value == nil then\n"
    "  assert(message:find ' at byte %d+$', message)\n"
    "  return nil\n"
    "end\n"
    "local options = { sorted = true, depth = 1000 }\n"
    "local again = json.encode(value, options)\n"
    "assert(again == json.encode(json.decode(again, { depth = 1000 }), options), 'again')\n"
    "assert(#json.encode(value, { depth = 1000 }) == #again, 'order')\n"
    "return again\n";

enum {
	COLLECT_EVERY = 1000,
	FLAGS = JSON_REJECT_DUPLICATES | JSON_DECODE_ANY | JSON_ALLOW_NUL | JSON_DECODE_INT_AS_REAL,
	DEPTH_MAX = 1000
};

static void __attribute__((noreturn)) fail(const char *what, const char *text, size_t n)
{
	fprintf(stderr, "%s: %.*s\n", what, (int)n, text);
	abort();
}

/* Is it what we read, and jansson does not? */
static bool is_own(const json_error_t *error)
{
	enum json_error_code code = json_error_code(error);
	return code == json_error_null_byte_in_key;
}

/* Both have read the text; `again` is ours of it. */
static void compare(json_t *theirs, const char *again, size_t n)
{
	json_error_t error;
	json_t *ours = json_loadb(again, n, FLAGS, &error);
	if (!ours && !is_own(&error))
		fail("jansson refuses what was encoded", again, n);
	if (ours && !json_equal(ours, theirs))
		fail("jansson reads another value", again, n);
	json_decref(ours);
}

static void compare_all(const char *text, size_t size, const char *again, size_t n)
{
	json_error_t error;
	json_t *theirs = json_loadb(text, size, FLAGS, &error);
	if (theirs && !again && !memchr(text, 0, size))
		fail("only jansson reads it", text, size);
	if (!theirs && again && !is_own(&error))
		fail("jansson does not read it", text, size);
	if (theirs && again)
		compare(theirs, again, n);
	json_decref(theirs);
}

/* Both have a limit, and not the same. */
static bool may_be_deep(const uint8_t *data, size_t size)
{
	unsigned begins = 0;
	for (size_t i = 0; i < size; i++)
		begins += data[i] == '[' || data[i] == '{';
	return begins > DEPTH_MAX;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	size_t n;
	if (may_be_deep(data, size))
		return 0;
	lua_State *lua = lua_fuzz_vm(CHECK, bind_json);
	/* check, json */
	lua_pushvalue(lua, 1);
	lua_pushvalue(lua, 2);
	lua_pushlstring(lua, (const char *)data, size);
	if (lua_pcall(lua, 2, 1, 0))
		lua_fuzz_fail(lua);
	const char *again = lua_tolstring(lua, -1, &n);
	compare_all((const char *)data, size, again, n);
	lua_pop(lua, 1);
	return 0;
}
