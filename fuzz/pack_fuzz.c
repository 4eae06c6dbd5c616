/*
 * Unpacks any bytes by any format, and packs what comes of it: the same format must take the values again, and give
 * back what they were. Neither may do anything but return or raise.
 *
 * Input: the format, a zero, the bytes.
 */
#include "bind/bind.h"
#include "support/lua_fuzz.h"

#include <string.h>

static const char CHECK[] =
    "local packing, format, bytes = ...\n"
    "local pack, unpack, packsize = packing.pack, packing.unpack, packing.packsize\n"
    "packing.limit_results(2^20)\n"
    "local function same(a, b) return a == b or a ~= a and b ~= b end\n"
    "local sized, size = pcall(packsize, format)\n"
    "local values = { pcall(unpack, format, bytes) }\n"
    "if not values[1] then pcall(pack, format, bytes, 1, bytes, 2^60, -1, bytes) return end\n"
    "local n = #values\n"
    "assert(values[n] >= 1 and values[n] <= #bytes + 1, 'position')\n"
    "assert(not sized or size == values[n] - 1, 'packsize')\n"
    "local packed = pack(format, _G.unpack(values, 2, n - 1))\n"
    "assert(#packed == values[n] - 1, 'length')\n"
    "local again = { unpack(format, packed) }\n"
    "assert(#again == n - 1, 'count')\n"
    "for i = 1, n - 1 do assert(same(values[i + 1], again[i]), 'value') end\n";

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const uint8_t *end = size ? memchr(data, 0, size) : NULL;
	if (!end)
		return 0;
	lua_State *lua = lua_fuzz_vm(CHECK, bind_pack);
	/* check, packing */
	lua_pushvalue(lua, 1);
	lua_pushvalue(lua, 2);
	lua_pushlstring(lua, (const char *)data, (size_t)(end - data));
	lua_pushlstring(lua, (const char *)end + 1, size - (size_t)(end - data) - 1);
	if (lua_pcall(lua, 3, 0, 0))
		lua_fuzz_fail(lua);
	return 0;
}
