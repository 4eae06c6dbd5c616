/*
 * Unpacks any bytes by any format, and packs what comes of it: the same format must take the values again, and give
 * back what they were. Neither may do anything but return or raise.
 *
 * Input: the format, a zero, the bytes.
 */
#include "bind/bind.h"
#include "vm/vm.h"

#include <stdio.h>
#include <stdlib.h>
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

enum { COLLECT_EVERY = 1000 };

static struct vm vm;

static void open_vm(void)
{
	char pattern[4096];
	if (vm_find_lua_path(pattern, sizeof pattern))
		abort();
	vm_set_lua_path(pattern);
	vm_set_libraries(BIND_LIBRARIES);
	if (vm_open(&vm) || luaL_loadstring(vm.lua, CHECK))
		abort();
	bind_pack(vm.lua);
}

/*
 * The VM outlives an input, and keeps what it has behind pointers with tags, which LeakSanitizer cannot follow. What is
 * tried here has no memory but the VM's.
 */
const char *__lsan_default_suppressions(void);

const char *__lsan_default_suppressions(void)
{
	return "leak:vm_alloc\n";
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static unsigned inputs;
	if (!vm.lua)
		open_vm();
	/* Nobody paces this VM's collector. What it leaves would be found as memory that grows. */
	if (++inputs % COLLECT_EVERY == 0)
		lua_gc(vm.lua, LUA_GCCOLLECT, 0);
	const uint8_t *end = size ? memchr(data, 0, size) : NULL;
	if (!end)
		return 0;
	lua_State *lua = vm.lua;
	/* check, packing */
	lua_pushvalue(lua, 1);
	lua_pushvalue(lua, 2);
	lua_pushlstring(lua, (const char *)data, (size_t)(end - data));
	lua_pushlstring(lua, (const char *)end + 1, size - (size_t)(end - data) - 1);
	if (lua_pcall(lua, 3, 0, 0)) {
		fprintf(stderr, "%s\n", lua_tostring(lua, -1));
		abort();
	}
	return 0;
}
