/*
 * Decodes and inflates any bytes. What was decoded must, when it is encoded and decoded again, be the same; and so must
 * be the bytes themselves.
 *
 * Input: a byte that chooses who reads the rest.
 */
#include "bind/bind.h"
#include "support/lua_fuzz.h"

static const char CHECK[] =
    "local which, bytes, encoding, packing = ...\n"
    "local names, formats = { 'base64', 'base64url', 'hex', 'url' }, { 'zlib', 'gzip', 'raw' }\n"
    "local name, format = names[which % 7 + 1], formats[which % 7 - 3]\n"
    "local function encode(value)\n"
    "  return name and encoding['encode_' .. name](value) or packing.deflate(value, { format = format, level "
    "= 1 })\n"
    "end\n"
    "local function decode(text)\n"
    "  if name then return encoding['decode_' .. name](text) end\n"
    "  return packing.inflate(text, { format = format, max = 65536 })\n"
    "end\n"
    "local value, message = decode(bytes)\n"
    "if value then\n"
    "  assert(#value <= 65536 and decode(encode(value)) == value, 'again')\n"
    "else\n"
    "  assert(message:find ' at byte %d+$' or message == 'the data becomes more than 65536 bytes', message)\n"
    "end\n"
    "assert(decode(encode(bytes)) == bytes, 'bytes')\n";

static void push_both(lua_State *lua)
{
	bind_encoding(lua);
	bind_deflate(lua);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (!size)
		return 0;
	lua_State *lua = lua_fuzz_vm(CHECK, push_both);
	/* check, encoding, packing */
	lua_pushvalue(lua, 1);
	lua_pushinteger(lua, data[0]);
	lua_pushlstring(lua, (const char *)data + 1, size - 1);
	lua_pushvalue(lua, 2);
	lua_pushvalue(lua, 3);
	if (lua_pcall(lua, 4, 0, 0))
		lua_fuzz_fail(lua);
	return 0;
}
