/* perilune.crc: checksums of frames. */
#include "base/crc.h"
#include "bind/bind.h"

#include <math.h>
#include <zlib.h>

/* A VM's, the upvalue of all functions here: made when they are first called. */
struct crc_tables {
	uint32_t of_32c[8][256];
	uint16_t of_16[CRC16_COUNT][256];
	bool has_32c, has_16[CRC16_COUNT];
};

static struct crc_tables *tables_of(lua_State *lua)
{
	return lua_touserdata(lua, lua_upvalueindex(1));
}

/* MAY RAISE. What the last call returned, if it is to be gone on with. */
static uint32_t check_so_far(lua_State *lua, int idx, uint32_t default_is, double max, const char *what)
{
	if (lua_isnoneornil(lua, idx))
		return default_is;
	double number = bind_number_of(lua, idx, what, "the sum so far");
	if (!(number >= 0 && number <= max && number == floor(number)))
		bind_raise(lua, "%s: the sum so far expects what the last call returned", what);
	return (uint32_t)number;
}

/* A piece of the data: from `at` on, so many bytes. */
static size_t piece_at(size_t n, size_t at)
{
	return n - at < BIND_PIECE_BYTES ? n - at : BIND_PIECE_BYTES;
}

/* MAY RAISE. crc32(data[, so_far]) → number */
static int l_crc32(lua_State *lua)
{
	size_t n;
	BIND_AT_MOST(lua, 2, "crc.crc32");
	const uint8_t *data = (const uint8_t *)bind_string_of(lua, 1, &n, "crc.crc32", "the data");
	unsigned long value = check_so_far(lua, 2, 0, UINT32_MAX, "crc.crc32");
	for (size_t at = 0; at < n; at += BIND_PIECE_BYTES) {
		value = crc32(value, data + at, (unsigned)piece_at(n, at));
		bind_go_on(lua, "crc.crc32");
	}
	lua_pushnumber(lua, (lua_Number)value);
	return 1;
}

/* MAY RAISE. crc32c(data[, so_far]) → number */
static int l_crc32c(lua_State *lua)
{
	struct crc_tables *tables = tables_of(lua);
	size_t n;
	BIND_AT_MOST(lua, 2, "crc.crc32c");
	const uint8_t *data = (const uint8_t *)bind_string_of(lua, 1, &n, "crc.crc32c", "the data");
	uint32_t value = check_so_far(lua, 2, 0, UINT32_MAX, "crc.crc32c");
	if (!tables->has_32c)
		crc32c_fill(tables->of_32c);
	tables->has_32c = true;
	for (size_t at = 0; at < n; at += BIND_PIECE_BYTES) {
		value = crc32c_add((const uint32_t(*)[256])tables->of_32c, value, data + at, piece_at(n, at));
		bind_go_on(lua, "crc.crc32c");
	}
	lua_pushnumber(lua, value);
	return 1;
}

/* MAY RAISE. crc16(name, data[, so_far]) → number */
static int l_crc16(lua_State *lua)
{
	struct crc_tables *tables = tables_of(lua);
	size_t n;
	BIND_AT_MOST(lua, 3, "crc.crc16");
	unsigned which = bind_choice_of(lua, 1, CRC16_NAMES, "crc.crc16: the name");
	const struct crc16 *crc = &CRC16[which];
	const uint8_t *data = (const uint8_t *)bind_string_of(lua, 2, &n, "crc.crc16", "the data");
	uint16_t value = (uint16_t)check_so_far(lua, 3, crc16_empty(crc), UINT16_MAX, "crc.crc16");
	if (!tables->has_16[which])
		crc16_fill(crc, tables->of_16[which]);
	tables->has_16[which] = true;
	for (size_t at = 0; at < n; at += BIND_PIECE_BYTES) {
		value = crc16_add(crc, tables->of_16[which], value, data + at, piece_at(n, at));
		bind_go_on(lua, "crc.crc16");
	}
	lua_pushinteger(lua, value);
	return 1;
}

static const luaL_Reg FUNCTIONS[] = {
	{ "crc32", l_crc32 },
	{ "crc32c", l_crc32c },
	{ "crc16", l_crc16 },
	{ NULL, NULL },
};

void bind_crc(lua_State *lua)
{
	lua_newtable(lua);
	struct crc_tables *tables = lua_newuserdata(lua, sizeof *tables);
	tables->has_32c = false;
	for (unsigned i = 0; i < CRC16_COUNT; i++)
		tables->has_16[i] = false;
	for (const luaL_Reg *function = FUNCTIONS; function->name; function++) {
		lua_pushvalue(lua, -1);
		lua_pushcclosure(lua, function->func, 1);
		lua_setfield(lua, -3, function->name);
	}
	lua_pop(lua, 1);
}
