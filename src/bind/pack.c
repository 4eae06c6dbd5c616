/*
 * string.pack, string.unpack and string.packsize as Lua 5.3 has them, in a VM whose numbers are doubles.
 *
 * Lua 5.3.6 is the specification, down to its messages and the order of its checks; spec/support/pack_vectors.lua was
 * made with it. Where it cannot be had: whole numbers of 2^53 and more are int64_t or uint64_t
 * (lua/perilune/int64.lua), and "z" without its zero is an error, as in Lua 5.4.
 *
 * A result is measured before it is made, so that none is over the limit. Nothing is held across a call that may raise.
 */
#include "bind/bind.h"
#include "bind/pack_format.h"
#include "vm/vm.h"

#include <assert.h>
#include <limits.h>
#include <math.h>
#include <stddef.h>
#include <string.h>

enum {
	WORD_BYTES = 8, /* of Lua's integers */
	CDATA = 10,     /* LuaJIT's type of an int64_t */
	SMALL_BYTES = 512,
};

/* Integers below it, either way, are numbers; beyond, a double has not each of them. */
static const uint64_t EXACT = UINT64_C(1) << 53;
static const double TWO_63 = 9223372036854775808.0, TWO_64 = 18446744073709551616.0;

/* A VM's: the first upvalue of all functions here. */
struct packing {
	const volatile sig_atomic_t *stop; /* the VM's */
	size_t result_max;                 /* bytes of a result of pack */
};

static struct packing *packing_of(lua_State *lua)
{
	return lua_touserdata(lua, lua_upvalueindex(1));
}

/* ---- integers ---- */

struct integer {
	uint64_t bits;
	bool is_negative;
	bool is_over; /* 2^63 or more: it has no bits as a signed one */
};

/* MAY RAISE. An int64_t or uint64_t: lua/perilune/int64.lua takes it apart. */
static struct integer check_box(lua_State *lua, int arg)
{
	vm_push_function(lua, "perilune.int64", "split");
	lua_pushvalue(lua, arg);
	lua_call(lua, 1, 3);
	if (lua_isnil(lua, -3))
		luaL_checknumber(lua, arg); /* raises */
	uint64_t bits = (uint64_t)lua_tonumber(lua, -3) << 32 | (uint64_t)lua_tonumber(lua, -2);
	bool is_signed = lua_toboolean(lua, -1), has_top = bits >> 63;
	lua_pop(lua, 3);
	return (struct integer){ bits, is_signed && has_top, !is_signed && has_top };
}

/* MAY RAISE. */
static struct integer check_integer(lua_State *lua, int arg, bool is_signed)
{
	if (lua_type(lua, arg) == CDATA)
		return check_box(lua, arg);
	double number = luaL_checknumber(lua, arg);
	if (!(number >= -TWO_63 && number < (is_signed ? TWO_63 : TWO_64)) || number != trunc(number))
		luaL_argerror(lua, arg, "number has no integer representation");
	if (number < 0)
		return (struct integer){ (uint64_t)(int64_t)number, true, false };
	return (struct integer){ (uint64_t)number, false, number >= TWO_63 };
}

/* MAY RAISE. For so many bytes. */
static struct integer check_fit(lua_State *lua, int arg, const struct pack_item *item)
{
	bool is_signed = item->option == PACK_INTEGER;
	struct integer integer = check_integer(lua, arg, is_signed);
	if (is_signed && integer.is_over)
		luaL_argerror(lua, arg, "integer overflow");
	integer.is_negative &= is_signed; /* as bits it is none */
	if (item->size >= WORD_BYTES)
		return integer;
	uint64_t most = UINT64_C(1) << (8 * item->size - is_signed);
	if (is_signed && !(integer.is_negative ? ~integer.bits < most : integer.bits < most))
		luaL_argerror(lua, arg, "integer overflow");
	if (!is_signed && integer.bits >= most)
		luaL_argerror(lua, arg, "unsigned overflow");
	return integer;
}

static void put_integer(uint8_t *to, struct integer integer, int size, bool is_little)
{
	const uint64_t beyond = integer.is_negative ? UINT64_MAX : 0;
	for (int i = 0; i < size; i++) {
		uint64_t bits = i < WORD_BYTES ? integer.bits >> 8 * i : beyond;
		to[is_little ? i : size - 1 - i] = (uint8_t)bits;
	}
}

/* MAY RAISE. The last bytes of more than eight must say nothing. */
static uint64_t get_integer(lua_State *lua, const uint8_t *from, int size, bool is_signed, bool is_little)
{
	assert(size > 0);
	uint64_t bits = 0;
	int within = size < WORD_BYTES ? size : WORD_BYTES;
	for (int i = within; i--;)
		bits = bits << 8 | from[is_little ? i : size - 1 - i];
	if (size < WORD_BYTES) {
		uint64_t sign = UINT64_C(1) << (8 * size - 1);
		return is_signed ? (bits ^ sign) - sign : bits;
	}
	uint8_t beyond = is_signed && bits >> 63 ? 0xff : 0;
	for (int i = WORD_BYTES; i < size; i++)
		if (from[is_little ? i : size - 1 - i] != beyond)
			RAISE(lua, "%d-byte integer does not fit into Lua Integer", size);
	return bits;
}

/* MAY RAISE. */
static void push_integer(lua_State *lua, uint64_t bits, bool is_signed)
{
	bool is_negative = is_signed && bits >> 63;
	if ((is_negative ? -bits : bits) < EXACT) {
		lua_pushnumber(lua, is_negative ? -(lua_Number)-bits : (lua_Number)bits);
		return;
	}
	vm_push_function(lua, "perilune.int64", is_signed ? "signed" : "unsigned");
	lua_pushnumber(lua, is_signed ? (lua_Number)((int64_t)bits >> 32) : (lua_Number)(bits >> 32));
	lua_pushnumber(lua, (lua_Number)(bits & UINT32_MAX));
	lua_call(lua, 2, 1);
}

/* ---- pack ---- */

/* What pack makes; it is only measured as long as `bytes` is NULL. */
struct packed {
	struct pack_format format;
	size_t total;
	size_t most;
	uint8_t *bytes;
	int arg; /* the last that was taken */
};

/* MAY RAISE. Room for n bytes more, or NULL when they are only counted. */
static uint8_t *pack_add(struct packed *packed, size_t n)
{
	uint8_t *to = packed->bytes ? packed->bytes + packed->total : NULL;
	if (n > packed->most - packed->total)
		bind_raise_too_large(packed->format.lua, "string.pack", packed->most);
	packed->total += n;
	return to;
}

static void add_zeros(struct packed *packed, size_t n)
{
	uint8_t *to = pack_add(packed, n);
	if (to)
		memset(to, 0, n);
}

static void add_bytes(struct packed *packed, const void *bytes, size_t n)
{
	uint8_t *to = pack_add(packed, n);
	if (to)
		memcpy(to, bytes, n);
}

static void add_integer(struct packed *packed, struct integer integer, int size)
{
	uint8_t *to = pack_add(packed, (size_t)size);
	if (to)
		put_integer(to, integer, size, packed->format.is_little);
}

/* MAY RAISE. */
static double check_real(lua_State *lua, int arg)
{
	if (lua_type(lua, arg) != CDATA)
		return luaL_checknumber(lua, arg);
	struct integer integer = check_box(lua, arg);
	return integer.is_negative ? (double)(int64_t)integer.bits : (double)integer.bits;
}

/* MAY RAISE. */
static void add_real(struct packed *packed, int size)
{
	double number = check_real(packed->format.lua, packed->arg);
	float narrow = (float)number;
	struct integer integer = { 0 };
	if (size == sizeof narrow) {
		uint32_t bits;
		memcpy(&bits, &narrow, sizeof bits);
		integer.bits = bits;
	} else {
		memcpy(&integer.bits, &number, sizeof integer.bits);
	}
	add_integer(packed, integer, size);
}

/* MAY RAISE. */
static void pack_add_text(struct packed *packed, const struct pack_item *item)
{
	lua_State *lua = packed->format.lua;
	size_t n, size = (size_t)item->size;
	const char *text = luaL_checklstring(lua, packed->arg, &n);
	switch (item->option) {
	case PACK_CHARACTERS:
		luaL_argcheck(lua, n <= size, packed->arg, "string longer than given size");
		add_bytes(packed, text, n);
		add_zeros(packed, size - n);
		break;
	case PACK_COUNTED:
		luaL_argcheck(lua, size >= sizeof n || n < (size_t)1 << 8 * size, packed->arg,
			      "string length does not fit in given size");
		add_integer(packed, (struct integer){ .bits = n }, item->size);
		add_bytes(packed, text, n);
		break;
	default:
		luaL_argcheck(lua, strlen(text) == n, packed->arg, "string contains zeros");
		add_bytes(packed, text, n + 1);
	}
}

/* MAY RAISE. */
static void add_item(struct packed *packed, const struct pack_item *item)
{
	add_zeros(packed, (size_t)item->skipped);
	switch (item->option) {
	case PACK_PADDING:
		add_zeros(packed, 1);
		return;
	case PACK_ALIGNMENT:
	case PACK_NOTHING:
		return;
	case PACK_INTEGER:
	case PACK_UNSIGNED:
		packed->arg++;
		add_integer(packed, check_fit(packed->format.lua, packed->arg, item), item->size);
		return;
	case PACK_REAL:
		packed->arg++;
		add_real(packed, item->size);
		return;
	default:
		packed->arg++;
		pack_add_text(packed, item);
	}
}

/* MAY RAISE. */
static size_t pack_into(lua_State *lua, uint8_t *bytes)
{
	struct packed packed = { pack_format_of(lua, packing_of(lua)->stop), 0, packing_of(lua)->result_max,
				 bytes, 1 };
	struct pack_item item;
	while (pack_next_item(&packed.format, packed.total, &item))
		add_item(&packed, &item);
	return packed.total;
}

/* MAY RAISE. pack(format, …) */
static int l_pack(lua_State *lua)
{
	uint8_t small[SMALL_BYTES];
	lua_pushnil(lua); /* what an argument is that there is not */
	size_t total = pack_into(lua, NULL);
	uint8_t *bytes = total <= sizeof small ? small : lua_newuserdata(lua, total);
	pack_into(lua, bytes);
	lua_pushlstring(lua, (char *)bytes, total);
	return 1;
}

/* MAY RAISE. packsize(format) */
static int l_packsize(lua_State *lua)
{
	struct pack_format format = pack_format_of(lua, packing_of(lua)->stop);
	struct pack_item item;
	size_t total = 0;
	while (pack_next_item(&format, total, &item)) {
		luaL_argcheck(lua, item.option != PACK_COUNTED && item.option != PACK_ZERO_ENDED, 1,
			      "variable-length format");
		size_t more = (size_t)item.skipped + (size_t)item.size;
		luaL_argcheck(lua, more <= INT_MAX && total <= INT_MAX - more, 1, "format result too large");
		total += more;
	}
	lua_pushnumber(lua, (lua_Number)total);
	return 1;
}

/* ---- unpack ---- */

struct unpacked {
	struct pack_format format;
	const char *bytes;
	size_t n;
	size_t at;
};

/* MAY RAISE. Where the third argument has it begin. */
static size_t check_start(lua_State *lua, size_t n)
{
	if (lua_isnoneornil(lua, 3))
		return 0;
	struct integer at = check_integer(lua, 3, true);
	if (at.is_negative)
		return -at.bits <= n ? n - (size_t)-at.bits : SIZE_MAX; /* as Lua 5.3 has it: 0 is no place */
	return at.bits && at.bits - 1 <= n ? (size_t)at.bits - 1 : SIZE_MAX;
}

static void push_real(struct unpacked *unpacked, int size)
{
	lua_State *lua = unpacked->format.lua;
	const uint8_t *from = (const uint8_t *)unpacked->bytes + unpacked->at;
	uint64_t bits = get_integer(lua, from, size, false, unpacked->format.is_little);
	uint32_t narrow_bits = (uint32_t)bits;
	float narrow;
	double number;
	memcpy(&narrow, &narrow_bits, sizeof narrow);
	memcpy(&number, &bits, sizeof number);
	/* It makes one NaN of all: others would be values of any type to LuaJIT. */
	lua_pushnumber(lua, size == sizeof narrow ? (double)narrow : number);
}

/* MAY RAISE. Behind the size is what is behind the text, in unpacked->at. */
static void push_counted(struct unpacked *unpacked, int size)
{
	lua_State *lua = unpacked->format.lua;
	const uint8_t *from = (const uint8_t *)unpacked->bytes + unpacked->at;
	uint64_t len = get_integer(lua, from, size, false, unpacked->format.is_little);
	unpacked->at += (size_t)size;
	luaL_argcheck(lua, len <= unpacked->n - unpacked->at, 2, "data string too short");
	lua_pushlstring(lua, unpacked->bytes + unpacked->at, (size_t)len);
	unpacked->at += (size_t)len;
}

/* MAY RAISE. */
static void push_zero_ended(struct unpacked *unpacked)
{
	lua_State *lua = unpacked->format.lua;
	const char *from = unpacked->bytes + unpacked->at;
	const char *end = memchr(from, 0, unpacked->n - unpacked->at);
	if (!end)
		luaL_argerror(lua, 2, "unfinished string for format 'z'");
	lua_pushlstring(lua, from, (size_t)(end - from));
	unpacked->at += (size_t)(end - from) + 1;
}

/* MAY RAISE. One value, or none. */
static void push_item(struct unpacked *unpacked, const struct pack_item *item)
{
	lua_State *lua = unpacked->format.lua;
	const uint8_t *from = (const uint8_t *)unpacked->bytes + unpacked->at;
	bool is_signed = item->option == PACK_INTEGER;
	switch (item->option) {
	case PACK_INTEGER:
	case PACK_UNSIGNED:
		push_integer(lua, get_integer(lua, from, item->size, is_signed, unpacked->format.is_little),
			     is_signed);
		break;
	case PACK_REAL:
		push_real(unpacked, item->size);
		break;
	case PACK_CHARACTERS:
		lua_pushlstring(lua, (const char *)from, (size_t)item->size);
		break;
	case PACK_COUNTED:
		push_counted(unpacked, item->size);
		return;
	case PACK_ZERO_ENDED:
		push_zero_ended(unpacked);
		return;
	default:
		break;
	}
	unpacked->at += (size_t)item->size;
}

/* MAY RAISE. unpack(format, s [, position]) → values, the position behind them */
static int l_unpack(lua_State *lua)
{
	struct unpacked unpacked = { .format = pack_format_of(lua, packing_of(lua)->stop) };
	struct pack_item item;
	unpacked.bytes = luaL_checklstring(lua, 2, &unpacked.n);
	unpacked.at = check_start(lua, unpacked.n);
	luaL_argcheck(lua, unpacked.at <= unpacked.n, 3, "initial position out of string");
	int first = lua_gettop(lua);
	while (pack_next_item(&unpacked.format, unpacked.at, &item)) {
		size_t takes = (size_t)item.skipped + (size_t)item.size;
		luaL_argcheck(lua, takes <= unpacked.n - unpacked.at, 2, "data string too short");
		unpacked.at += (size_t)item.skipped;
		luaL_checkstack(lua, 8, "too many results");
		push_item(&unpacked, &item);
	}
	lua_pushnumber(lua, (lua_Number)unpacked.at + 1);
	return lua_gettop(lua) - first;
}

/* ---- the table ---- */

/* MAY RAISE. limit_results(bytes): how large a result of pack may become. */
static int l_pack_limit_results(lua_State *lua)
{
	lua_Number bytes = luaL_checknumber(lua, 1);
	luaL_argcheck(lua, bytes >= 0, 1, "negative");
	packing_of(lua)->result_max = bytes < (lua_Number)INT_MAX ? (size_t)bytes : INT_MAX;
	return 0;
}

static const luaL_Reg FUNCTIONS[] = {
	{ "pack", l_pack },
	{ "unpack", l_unpack },
	{ "packsize", l_packsize },
	{ "limit_results", l_pack_limit_results },
	{ NULL, NULL },
};

void bind_pack(lua_State *lua)
{
	lua_newtable(lua);
	struct packing *packing = lua_newuserdata(lua, sizeof *packing);
	*packing = (struct packing){ .stop = &vm_of(lua)->guard.verdict, .result_max = INT_MAX };
	for (const luaL_Reg *function = FUNCTIONS; function->name; function++) {
		lua_pushvalue(lua, -1);
		lua_pushcclosure(lua, function->func, 1);
		lua_setfield(lua, -3, function->name);
	}
	lua_pop(lua, 1);
}
