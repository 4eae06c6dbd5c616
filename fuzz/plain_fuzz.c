/*
 * Plain data on its way from VM to VM. The bytes say which values there are (a stack machine makes them), which are
 * written as those of a job are, and read again: what comes out must be what went in, or be refused with the way to what
 * is no plain data.
 */
#include "support/lua_fuzz.h"
#include "vm/values.h"

#include <lauxlib.h>
#include <stdlib.h>

/* Each byte is a step: a scalar, a longer one from the bytes behind it, or a table of what there is. */
static const char CHECK[] =
    "local bytes, trip = ...\n"
    "local plain = require 'perilune.plain'\n"
    "local stack, at = {}, 1\n"
    "local function push(value) if #stack < 200 then stack[#stack + 1] = value end end\n"
    "local function take() return table.remove(stack) end\n"
    "local function text(n) at = at + n return bytes:sub(at - n, at - 1) end\n"
    "local SCALARS = { [0] = 0, -0, 1 / 3, math.huge, -1, 2 ^ 53, true, false, '', 9007199254740993LL, "
    "-1LL,\n"
    "  18446744073709551615ULL }\n"
    "local steps = {\n"
    "  [0] = function(n) push(SCALARS[n % 12]) end,\n"
    "  function(n) push(text(n)) end,\n"
    "  function(n) push(n * 1000003 / 7) end,\n"
    "  function(n) local list = {} for i = 1, n % 8 do list[i] = take() end push(list) end,\n"
    "  function(n)\n"
    "    local map = {}\n"
    "    for _ = 1, n % 8 do\n"
    "      local key, item = take(), take()\n"
    "      local is_key = type(key) == 'string' or type(key) == 'number' and key == key\n"
    "      if is_key then map[key] = item end\n"
    "    end\n"
    "    push(map)\n"
    "  end,\n"
    "  function(n) local deep = take() for _ = 1, n do deep = { deep } end push(deep) end,\n"
    "  function() push(print) end,\n"
    "  function() push(setmetatable({}, {})) end,\n"
    "}\n"
    "while at <= #bytes do\n"
    "  local step = text(1):byte()\n"
    "  steps[step % 8](math.floor(step / 8))\n"
    "end\n"
    "local function differs(one, other)\n"
    "  if type(one) ~= type(other) then return true end\n"
    "  if type(one) ~= 'table' then return one ~= other or one == 0 and 1 / one ~= 1 / other end\n"
    "  for key, item in pairs(one) do if differs(item, other[key]) then return true end end\n"
    "  for key in pairs(other) do if one[key] == nil then return true end end\n"
    "end\n"
    "local function pack(value, most) return plain.pack(value, most, 'fuzz', 'tried') end\n"
    "local function check(ok, ...)\n"
    "  if not ok then\n"
    "    assert(tostring((...)):find('fuzz: only plain data can be tried: the value', 1, true), (...))\n"
    "    return\n"
    "  end\n"
    "  if (...) == 'too large' then return end\n"
    "  local back = { plain.open(...) }\n"
    "  for i = 1, #stack do assert(not differs(stack[i], back[i]), i) end\n"
    "  assert(#back == #stack, 'as many')\n"
    "end\n"
    "check(pcall(trip, pack, unpack(stack)))\n";

enum { BYTES_MOST = 65536, FIRST = 2 };

static int read_back(lua_State *lua, const uint8_t *bytes, size_t n)
{
	bool packed;
	lua_settop(lua, 0);
	luaL_checkstack(lua, (int)values_count(bytes, n) + 2, "values");
	lua_pushboolean(lua, 0);
	int count = values_read(lua, bytes, n, &packed);
	if (packed) {
		values_push_kinds(lua, bytes, n);
		lua_replace(lua, 1);
	}
	return count + 1;
}

/* pack, values… → false | which are packed, values…; or "too large" */
static int l_trip(lua_State *lua)
{
	struct values values;
	luaL_checkstack(lua, 8, "values");
	if (!values_ready(lua, FIRST, 1, BYTES_MOST, &values)) {
		lua_pushliteral(lua, "too large");
		return 1;
	}
	uint8_t *bytes = malloc(values.bytes); /* exactly: a sanitizer sees what is beyond */
	if (!bytes)
		abort();
	values_write(lua, FIRST, &values, bytes);
	int n = read_back(lua, bytes, values.bytes);
	free(bytes);
	return n;
}

static void push_trip(lua_State *lua)
{
	lua_pushcfunction(lua, l_trip);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	lua_State *lua = lua_fuzz_vm(CHECK, push_trip);
	/* check, trip */
	lua_pushvalue(lua, 1);
	lua_pushlstring(lua, (const char *)data, size);
	lua_pushvalue(lua, 2);
	if (lua_pcall(lua, 2, 0, 0))
		lua_fuzz_fail(lua);
	return 0;
}
