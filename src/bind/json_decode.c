/*
 * Reads JSON straight into Lua's values.
 *
 * The values of an array, and the keys and values of an object, wait on the stack until it is known how many they are:
 * then the table is made for just so many. Where there are more than a few, or the nesting is deep, they go into it one
 * by one.
 *
 * A fault is noted, and the way back to the top is by returns: nothing is held, and nothing needs to be undone.
 */
#include "base/real.h"
#include "bind/json.h"
#include "vm/vm.h"

#include <math.h>
#include <string.h>

enum {
	WAITING_ITEMS = 32,
	WAITING_PAIRS = 16,
	WAITING_DEPTH = 64, /* deeper than this nothing waits: a stack has 8,000 slots */
	WIDEST_BYTES = 8
};

struct reader {
	lua_State *lua;
	const char *at, *end;
	const char *look_at; /* here it is looked whether the call has to end */
	const char *fault;   /* what is wrong; NULL: nothing */
	const char *faulty;  /* where */
	unsigned depth, depth_max;
};

static bool read_value(struct reader *reader);

static bool set_fault(struct reader *reader, const char *at, const char *what)
{
	reader->fault = what;
	reader->faulty = at;
	return false;
}

/* MAY RAISE. */
static void reader_go_on(struct reader *reader)
{
	bind_go_on(reader->lua, "json.decode");
	reader->look_at =
	    reader->end - reader->at < BIND_PIECE_BYTES ? reader->end : reader->at + BIND_PIECE_BYTES;
}

/* The next byte that is no white space; 0: there is none, or it is one. */
static char skip(struct reader *reader)
{
	while (reader->at < reader->end &&
	       (*reader->at == ' ' || *reader->at == '\n' || *reader->at == '\r' || *reader->at == '\t'))
		reader->at++;
	return reader->at < reader->end ? *reader->at : '\0';
}

/* ---- numbers ---- */

static bool is_json_digit(char c)
{
	return c >= '0' && c <= '9';
}

/* A number as it is read: digits * 10^exponent. */
struct number {
	uint64_t digits;
	int exponent;
	bool is_whole,
	    is_cut; /* it has neither point nor exponent; there are more digits than there is room for */
};

static void add_digit(struct number *number, char c, bool is_behind_point)
{
	uint64_t digit = (uint64_t)(c - '0');
	if (number->is_cut || number->digits > (UINT64_MAX - digit) / 10) {
		number->is_cut = true;
		return;
	}
	number->digits = 10 * number->digits + digit;
	number->exponent -= is_behind_point;
}

/* The text ends with a zero, which is behind the Lua string and no digit. */
static bool read_exponent(struct reader *reader, struct number *number)
{
	enum { ENOUGH = 100000 };
	int value = 0;
	char sign = reader->at[1];
	reader->at += sign == '-' || sign == '+' ? 2 : 1;
	if (!is_json_digit(*reader->at))
		return set_fault(reader, reader->at, "a digit of the exponent is expected");
	for (; is_json_digit(*reader->at); reader->at++)
		value = value < ENOUGH ? 10 * value + (*reader->at - '0') : value;
	number->exponent += sign == '-' ? -value : value;
	number->is_whole = false;
	return true;
}

/* After the sign. */
static bool scan_number(struct reader *reader, struct number *number)
{
	if (!is_json_digit(*reader->at))
		return set_fault(reader, reader->at, "a digit is expected");
	if (*reader->at == '0' && is_json_digit(reader->at[1]))
		return set_fault(reader, reader->at + 1,
				 "a number does not begin with a zero, but for 0 itself");
	for (; is_json_digit(*reader->at); reader->at++)
		add_digit(number, *reader->at, false);
	if (*reader->at == '.') {
		number->is_whole = false;
		if (!is_json_digit(*++reader->at))
			return set_fault(reader, reader->at, "a digit is expected behind the point");
		for (; is_json_digit(*reader->at); reader->at++)
			add_digit(number, *reader->at, true);
	}
	if (*reader->at == 'e' || *reader->at == 'E')
		return read_exponent(reader, number);
	return true;
}

/* MAY RAISE. One that no double is. False: nor is an integer of 64 bits. */
static bool push_wide(lua_State *lua, uint64_t digits, bool is_negative)
{
	if (is_negative && digits > (uint64_t)1 << 63)
		return false;
	bool is_signed = is_negative || digits <= INT64_MAX;
	uint64_t bits = is_negative ? -digits : digits;
	vm_push_function(lua, "perilune.int64", is_signed ? "signed" : "unsigned");
	lua_pushnumber(lua, is_signed ? (lua_Number)((int64_t)bits >> 32) : (lua_Number)(bits >> 32));
	lua_pushnumber(lua, (lua_Number)(bits & UINT32_MAX));
	lua_call(lua, 2, 1);
	return true;
}

static bool read_json_number(struct reader *reader)
{
	struct number number = { .is_whole = true };
	const char *begin = reader->at;
	bool is_negative = *begin == '-';
	reader->at += is_negative;
	if (!scan_number(reader, &number))
		return false;
	if (number.is_whole && !number.is_cut && number.digits >= (uint64_t)1 << 53 &&
	    push_wide(reader->lua, number.digits, is_negative))
		return true;
	double value = real_of(number.digits, number.exponent, number.is_cut, begin + is_negative);
	if (isinf(value))
		return set_fault(reader, begin, "a number that is too large");
	lua_pushnumber(reader->lua, is_negative ? -value : value);
	return true;
}

/* ---- strings ---- */

static unsigned digit_value(char c)
{
	unsigned digit = (unsigned char)c - '0', letter = ((unsigned char)c | 0x20) - 'a';
	return digit < 10 ? digit : letter < 6 ? letter + 10 : 16;
}

/* The four digits at `at`; UINT32_MAX: they are none. */
static uint32_t four_digits(const char *at, const char *end)
{
	uint32_t code = 0;
	if (end - at < 4)
		return UINT32_MAX;
	for (int i = 0; i < 4; i++) {
		unsigned value = digit_value(at[i]);
		if (value > 15)
			return UINT32_MAX;
		code = code << 4 | value;
	}
	return code;
}

static bool is_high(uint32_t code)
{
	return code >= 0xd800 && code < 0xdc00;
}

static bool is_low(uint32_t code)
{
	return code >= 0xdc00 && code < 0xe000;
}

/* The character of the escape \u whose digits are at `at`; *taken is how many bytes say it. UINT32_MAX: none. */
static uint32_t read_unicode(const char *at, const char *end, size_t *taken)
{
	uint32_t code = four_digits(at, end);
	*taken = 4;
	if (!is_high(code))
		return is_low(code) ? UINT32_MAX : code;
	uint32_t low = end - at > 6 && at[4] == '\\' && at[5] == 'u' ? four_digits(at + 6, end) : UINT32_MAX;
	*taken = 10;
	return low != UINT32_MAX && is_low(low) ? 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00)
						: UINT32_MAX;
}

/* At a backslash. */
static bool scan_escape(struct reader *reader)
{
	const char *at = reader->at;
	size_t taken = 0;
	if (reader->end - at < 2)
		return set_fault(reader, reader->end, "the string does not end");
	if (at[1] == 'u') {
		if (four_digits(at + 2, reader->end) == UINT32_MAX)
			return set_fault(reader, at, "\\u without four hexadecimal digits");
		if (read_unicode(at + 2, reader->end, &taken) == UINT32_MAX)
			return set_fault(reader, at, "half of a surrogate pair");
	} else if (!at[1] || !strchr("\"\\/bfnrt", at[1])) {
		return set_fault(reader, at, "an unknown escape");
	}
	reader->at += 2 + taken;
	return true;
}

/* Behind the first quote; *has_escapes: it has. Then reader->at is at the last one. MAY RAISE. */
static bool scan_string(struct reader *reader, bool *has_escapes)
{
	*has_escapes = false;
	for (;;) {
		reader->at += json_plain(reader->at, (size_t)(reader->end - reader->at));
		if (reader->at == reader->end)
			return set_fault(reader, reader->end, "the string does not end");
		if (reader->at >= reader->look_at)
			reader_go_on(reader);
		unsigned char c = (unsigned char)*reader->at;
		if (c == '"')
			return true;
		if (c < 0x20)
			return set_fault(reader, reader->at, "a control character in a string");
		if (c == '\\') {
			*has_escapes = true;
			if (!scan_escape(reader))
				return false;
			continue;
		}
		return set_fault(reader, reader->at, "no UTF-8");
	}
}

static char *put_character(char *to, uint32_t code)
{
	if (code < 0x80) {
		*to++ = (char)code;
		return to;
	}
	int tails = code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
	static const unsigned char LEADS[] = { 0, 0xc0, 0xe0, 0xf0 };
	*to++ = (char)(LEADS[tails] | code >> 6 * tails);
	while (tails--)
		*to++ = (char)(0x80 | (code >> 6 * tails & 0x3f));
	return to;
}

/* What a letter behind a backslash stands for. */
static char escaped(char c)
{
	switch (c) {
	case 'b':
		return '\b';
	case 'f':
		return '\f';
	case 'n':
		return '\n';
	case 'r':
		return '\r';
	case 't':
		return '\t';
	default:
		return c;
	}
}

/* What was scanned, without its escapes; there is room for it. Returns what is behind it. */
static char *unescape(char *to, const char *at, const char *end)
{
	while (at < end) {
		const char *slash = memchr(at, '\\', (size_t)(end - at));
		size_t taken, n = (size_t)((slash ? slash : end) - at);
		memcpy(to, at, n);
		to += n;
		if (!slash)
			break;
		at = slash + 2;
		if (slash[1] != 'u') {
			*to++ = escaped(slash[1]);
			continue;
		}
		to = put_character(to, read_unicode(at, end, &taken));
		at += taken;
	}
	return to;
}

/* MAY RAISE. Not within its caller, which calls itself, and needs no such room each time. */
static __attribute__((noinline)) void push_unescaped(lua_State *lua, const char *begin, size_t n)
{
	struct bind_small small;
	char *bytes = bind_room(lua, &small, n);
	lua_pushlstring(lua, bytes, (size_t)(unescape(bytes, begin, begin + n) - bytes));
	if (bytes != small.bytes)
		lua_remove(lua, -2);
}

/* At its first quote; pushes it. MAY RAISE. */
static bool read_string(struct reader *reader)
{
	bool has_escapes;
	const char *begin = ++reader->at;
	if (!scan_string(reader, &has_escapes))
		return false;
	size_t n = (size_t)(reader->at++ - begin);
	if (has_escapes)
		push_unescaped(reader->lua, begin, n);
	else
		lua_pushlstring(reader->lua, begin, n);
	return true;
}

/* ---- arrays, objects ---- */

/* MAY RAISE. At the bracket; the table's place on the stack, at which nothing is yet. */
static bool json_enter(struct reader *reader, int slots)
{
	if (++reader->depth > reader->depth_max)
		return set_fault(reader, reader->at, "nested too deeply");
	reader->at++;
	luaL_checkstack(reader->lua, slots + WIDEST_BYTES, "json.decode");
	lua_pushnil(reader->lua);
	return true;
}

/* MAY RAISE. What waits above its place becomes an array. */
static void make_array(lua_State *lua, int table, int count)
{
	lua_createtable(lua, count, 0);
	lua_replace(lua, table);
	for (int i = count; i > 0; i--)
		lua_rawseti(lua, table, i);
}

/* Behind a value: is there another one? `last` ends them all. */
static bool read_separator(struct reader *reader, char last, bool *is_last, const char *expected)
{
	char c = skip(reader);
	*is_last = c == last;
	if (c != ',' && c != last)
		return set_fault(reader, reader->at, expected);
	reader->at++;
	return true;
}

/* MAY RAISE. Those behind the first value. */
static bool read_items(struct reader *reader, int table)
{
	lua_State *lua = reader->lua;
	int waits = reader->depth <= WAITING_DEPTH ? WAITING_ITEMS : 1, count = 0;
	for (bool is_last = false; !is_last;) {
		if (!read_value(reader))
			return false;
		count++;
		if (count == waits)
			make_array(lua, table, count);
		else if (count > waits)
			lua_rawseti(lua, table, count);
		if (!read_separator(reader, ']', &is_last, "a comma or ] is expected"))
			return false;
	}
	if (count < waits)
		make_array(lua, table, count);
	return true;
}

static bool read_array(struct reader *reader)
{
	lua_State *lua = reader->lua;
	if (!json_enter(reader, WAITING_ITEMS))
		return false;
	int table = lua_gettop(lua);
	if (skip(reader) == ']') {
		reader->at++;
		make_array(lua, table, 0);
	} else if (!read_items(reader, table)) {
		return false;
	}
	lua_pushvalue(lua, lua_upvalueindex(1));
	lua_setmetatable(lua, table);
	reader->depth--;
	return true;
}

/* MAY RAISE. What waits above its place becomes an object. */
static void make_object(lua_State *lua, int table, int count)
{
	lua_createtable(lua, 0, count);
	lua_replace(lua, table);
	for (; count; count--)
		lua_rawset(lua, table);
}

/* The keys of an object that wait: as strings of Lua's, of which each is there once. */
struct keys {
	const char *waiting[WAITING_PAIRS];
	int count, waits;
	int table;
};

/* MAY RAISE. Is the key on top of the stack new? */
static bool is_new_key(lua_State *lua, struct keys *keys)
{
	if (keys->count >= keys->waits) {
		lua_pushvalue(lua, -1);
		lua_rawget(lua, keys->table);
		bool is_new = lua_isnil(lua, -1);
		lua_pop(lua, 1);
		return is_new;
	}
	const char *key = lua_tostring(lua, -1);
	for (int i = 0; i < keys->count; i++)
		if (keys->waiting[i] == key)
			return false;
	keys->waiting[keys->count] = key;
	return true;
}

/* MAY RAISE. A key, a colon. */
static bool read_member_key(struct reader *reader, struct keys *keys)
{
	if (skip(reader) != '"')
		return set_fault(reader, reader->at, "a key in quotes is expected");
	const char *begin = reader->at;
	if (!read_string(reader))
		return false;
	if (!is_new_key(reader->lua, keys))
		return set_fault(reader, begin, "a key that the object has already");
	if (skip(reader) != ':')
		return set_fault(reader, reader->at, "a colon is expected");
	reader->at++;
	return true;
}

/* MAY RAISE. */
static bool read_members(struct reader *reader, struct keys *keys)
{
	lua_State *lua = reader->lua;
	for (bool is_last = false; !is_last;) {
		if (!read_member_key(reader, keys) || !read_value(reader))
			return false;
		keys->count++;
		if (keys->count == keys->waits)
			make_object(lua, keys->table, keys->count);
		else if (keys->count > keys->waits)
			lua_rawset(lua, keys->table);
		if (!read_separator(reader, '}', &is_last, "a comma or } is expected"))
			return false;
	}
	if (keys->count < keys->waits)
		make_object(lua, keys->table, keys->count);
	return true;
}

static bool read_object(struct reader *reader)
{
	lua_State *lua = reader->lua;
	struct keys keys;
	if (!json_enter(reader, 2 * WAITING_PAIRS))
		return false;
	keys.count = 0;
	keys.waits = reader->depth <= WAITING_DEPTH ? WAITING_PAIRS : 1;
	keys.table = lua_gettop(lua);
	if (skip(reader) == '}') {
		reader->at++;
		make_object(lua, keys.table, 0);
	} else if (!read_members(reader, &keys)) {
		return false;
	}
	reader->depth--;
	return true;
}

/* ---- values ---- */

static bool read_word(struct reader *reader, const char *word, size_t n)
{
	if ((size_t)(reader->end - reader->at) < n || memcmp(reader->at, word, n) != 0)
		return set_fault(reader, reader->at, "a value is expected");
	reader->at += n;
	return true;
}

static bool read_true(struct reader *reader)
{
	lua_pushboolean(reader->lua, 1);
	return read_word(reader, "true", 4);
}

static bool read_false(struct reader *reader)
{
	lua_pushboolean(reader->lua, 0);
	return read_word(reader, "false", 5);
}

static bool read_null(struct reader *reader)
{
	lua_pushlightuserdata(reader->lua, NULL);
	return read_word(reader, "null", 4);
}

/* MAY RAISE. Pushes it. */
static bool read_value(struct reader *reader)
{
	char c = skip(reader);
	if (reader->at >= reader->look_at)
		reader_go_on(reader);
	switch (c) {
	case '"':
		return read_string(reader);
	case '{':
		return read_object(reader);
	case '[':
		return read_array(reader);
	case 't':
		return read_true(reader);
	case 'f':
		return read_false(reader);
	case 'n':
		return read_null(reader);
	default:
		if (c == '-' || is_json_digit(c))
			return read_json_number(reader);
		return set_fault(reader, reader->at, "a value is expected");
	}
}

/* MAY RAISE. All of the text. */
static bool read_text(struct reader *reader)
{
	if (!read_value(reader))
		return false;
	skip(reader);
	return reader->at == reader->end ||
	       set_fault(reader, reader->at, "there is something behind the value");
}

int json_l_decode(lua_State *lua)
{
	static const char *const OPTIONS[] = { "depth", "max", NULL };
	size_t n;
	BIND_AT_MOST(lua, 2, "json.decode");
	bind_type_of(lua, 1, LUA_TSTRING, "json.decode", "the text");
	const char *text = lua_tolstring(lua, 1, &n);
	struct json_options options = json_check_options(lua, 2, OPTIONS, "json.decode");
	if (n > options.max) {
		lua_pushnil(lua);
		lua_pushfstring(lua, "the text is over %f bytes", (lua_Number)options.max);
		return 2;
	}
	struct reader reader = { .lua = lua,
				 .at = text,
				 .end = text + n,
				 .look_at = text + (n < BIND_PIECE_BYTES ? n : BIND_PIECE_BYTES),
				 .depth_max = options.depth };
	if (read_text(&reader))
		return 1;
	return bind_refuse_byte(lua, (size_t)(reader.faulty - text), reader.fault);
}
