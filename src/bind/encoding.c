/*
 * perilune.encoding: bytes as text, and back: base64, hexadecimal digits, percent signs.
 *
 * A result is measured before it is made. What decodes takes nothing that its counterpart does not write, but for
 * padding, and digits in capitals.
 */
#include "base/base64.h"
#include "bind/bind.h"

#include <string.h>

enum { PIECE = BIND_PIECE_BYTES / 12 * 12 }; /* of three and of four */

/* ---- base64 ---- */

/* MAY RAISE. The second argument, if there is one: whether the text is padded. */
static bool check_padded(lua_State *lua, bool default_is, const char *what)
{
	if (lua_isnoneornil(lua, 2))
		return default_is;
	bind_type_of(lua, 2, LUA_TBOOLEAN, what, "padded");
	return lua_toboolean(lua, 2);
}

static int push_base64(lua_State *lua, enum base64_alphabet alphabet, bool is_padded, const char *what)
{
	struct bind_small small;
	size_t n;
	const uint8_t *bytes = (const uint8_t *)bind_string_of(lua, 1, &n, what, "the bytes");
	size_t total = base64_text_bytes(n, is_padded);
	char *text = bind_room(lua, &small, total), *to = text;
	for (; n > PIECE; n -= PIECE, bytes += PIECE) {
		to = base64_encode(to, bytes, PIECE, alphabet, false);
		bind_go_on(lua, what);
	}
	base64_encode(to, bytes, n, alphabet, is_padded);
	lua_pushlstring(lua, text, total);
	return 1;
}

/* MAY RAISE. encode_base64(bytes[, padded]) → text */
static int l_encode_base64(lua_State *lua)
{
	static const char WHAT[] = "encoding.encode_base64";
	BIND_AT_MOST(lua, 2, WHAT);
	return push_base64(lua, BASE64_PLAIN, check_padded(lua, true, WHAT), WHAT);
}

/* MAY RAISE. encode_base64url(bytes[, padded]) → text */
static int l_encode_base64url(lua_State *lua)
{
	static const char WHAT[] = "encoding.encode_base64url";
	BIND_AT_MOST(lua, 2, WHAT);
	return push_base64(lua, BASE64_URL, check_padded(lua, false, WHAT), WHAT);
}

/* Where the padding, or the end, is not as it has to be. */
static int refuse_end(lua_State *lua, const char *text, size_t n)
{
	const char *padding = memchr(text, '=', n);
	return bind_refuse_byte(lua, padding ? (size_t)(padding - text) : n,
				padding ? "misplaced padding" : "the text is cut short");
}

static int push_bytes_of(lua_State *lua, enum base64_alphabet alphabet, bool is_strict, const char *what)
{
	struct bind_small small;
	size_t n, at = 0, done = 0;
	const char *text = bind_string_of(lua, 1, &n, what, "the text");
	size_t end = base64_text_end(text, n), total = end == SIZE_MAX ? 0 : base64_bytes(end);
	if (end == SIZE_MAX)
		return refuse_end(lua, text, n);
	uint8_t *bytes = (uint8_t *)bind_room(lua, &small, total);
	for (; end - at > PIECE && done == at; at += PIECE) {
		done += base64_decode(bytes + at / 4 * 3, text + at, PIECE, alphabet);
		bind_go_on(lua, what);
	}
	if (done == at)
		done += base64_decode(bytes + at / 4 * 3, text + at, end - at, alphabet);
	if (done < end)
		return bind_refuse_byte(lua, done, "no character of the alphabet");
	if (is_strict && base64_has_stray_bits(text, end))
		return bind_refuse_byte(lua, end - 1, "bits that belong to no byte");
	lua_pushlstring(lua, (char *)bytes, total);
	return 1;
}

/* MAY RAISE. decode_base64(text) → bytes | nil, message */
static int l_decode_base64(lua_State *lua)
{
	BIND_AT_MOST(lua, 1, "encoding.decode_base64");
	return push_bytes_of(lua, BASE64_PLAIN, true, "encoding.decode_base64");
}

/* MAY RAISE. decode_base64url(text) → bytes | nil, message */
static int l_decode_base64url(lua_State *lua)
{
	BIND_AT_MOST(lua, 1, "encoding.decode_base64url");
	return push_bytes_of(lua, BASE64_URL, true, "encoding.decode_base64url");
}

/* MAY RAISE. As nginx decodes. */
static int l_decode_loose_base64(lua_State *lua)
{
	return push_bytes_of(lua, BASE64_PLAIN, false, "ngx.decode_base64");
}

void bind_push_loose_base64(lua_State *lua)
{
	lua_pushcfunction(lua, l_decode_loose_base64);
}

/* ---- hexadecimal digits ---- */

enum { NO_DIGIT = 16 };

static unsigned hex_digit(char c)
{
	unsigned digit = (unsigned char)c - '0', letter = ((unsigned char)c | 0x20) - 'a';
	return digit < 10 ? digit : letter < 6 ? letter + 10 : NO_DIGIT;
}

/* MAY RAISE. encode_hex(bytes) → text */
static int l_encode_hex(lua_State *lua)
{
	static const char DIGITS[] = "0123456789abcdef";
	struct bind_small small;
	size_t n;
	BIND_AT_MOST(lua, 1, "encoding.encode_hex");
	const unsigned char *bytes =
	    (const unsigned char *)bind_string_of(lua, 1, &n, "encoding.encode_hex", "the bytes");
	char *text = bind_room(lua, &small, 2 * n);
	for (size_t i = 0; i < n; i++) {
		text[2 * i] = DIGITS[bytes[i] >> 4];
		text[2 * i + 1] = DIGITS[bytes[i] & 15];
		if (i % BIND_PIECE_BYTES == BIND_PIECE_BYTES - 1)
			bind_go_on(lua, "encoding.encode_hex");
	}
	lua_pushlstring(lua, text, 2 * n);
	return 1;
}

/* MAY RAISE. decode_hex(text) → bytes | nil, message */
static int l_decode_hex(lua_State *lua)
{
	struct bind_small small;
	size_t n;
	BIND_AT_MOST(lua, 1, "encoding.decode_hex");
	const char *text = bind_string_of(lua, 1, &n, "encoding.decode_hex", "the text");
	char *bytes = bind_room(lua, &small, n / 2);
	for (size_t i = 0; i < n / 2; i++) {
		unsigned high = hex_digit(text[2 * i]), low = hex_digit(text[2 * i + 1]);
		if (high == NO_DIGIT || low == NO_DIGIT)
			return bind_refuse_byte(lua, 2 * i + (high != NO_DIGIT), "no hexadecimal digit");
		bytes[i] = (char)(high << 4 | low);
		if (i % BIND_PIECE_BYTES == BIND_PIECE_BYTES - 1)
			bind_go_on(lua, "encoding.decode_hex");
	}
	if (n % 2)
		return bind_refuse_byte(
		    lua, n - 1, hex_digit(text[n - 1]) == NO_DIGIT ? "no hexadecimal digit" : "half a byte");
	lua_pushlstring(lua, bytes, n / 2);
	return 1;
}

/* ---- percent signs, as in URLs ---- */

/* RFC 3986 calls these unreserved. */
static bool is_unreserved(unsigned char c)
{
	return (unsigned)(c | 0x20) - 'a' < 26 || (unsigned)c - '0' < 10 || c == '-' || c == '.' ||
	       c == '_' || c == '~';
}

/* MAY RAISE. How long the text gets. */
static size_t measure_url(lua_State *lua, const unsigned char *bytes, size_t n)
{
	size_t total = n;
	for (size_t i = 0; i < n; i++) {
		total += is_unreserved(bytes[i]) ? 0 : 2;
		if (i % BIND_PIECE_BYTES == BIND_PIECE_BYTES - 1)
			bind_go_on(lua, "encoding.encode_url");
	}
	return total;
}

/* MAY RAISE. encode_url(bytes) → text */
static int l_encode_url(lua_State *lua)
{
	static const char DIGITS[] = "0123456789ABCDEF";
	struct bind_small small;
	size_t n;
	BIND_AT_MOST(lua, 1, "encoding.encode_url");
	const unsigned char *bytes =
	    (const unsigned char *)bind_string_of(lua, 1, &n, "encoding.encode_url", "the bytes");
	size_t total = measure_url(lua, bytes, n);
	char *text = bind_room(lua, &small, total), *to = text;
	for (size_t i = 0; i < n; i++) {
		unsigned char c = bytes[i];
		if (is_unreserved(c)) {
			*to++ = (char)c;
		} else {
			*to++ = '%';
			*to++ = DIGITS[c >> 4];
			*to++ = DIGITS[c & 15];
		}
		if (i % BIND_PIECE_BYTES == BIND_PIECE_BYTES - 1)
			bind_go_on(lua, "encoding.encode_url");
	}
	lua_pushlstring(lua, text, total);
	return 1;
}

/* The byte that the percent sign at `text` begins, of the n bytes that are left; -1: it begins none. */
static int escaped_byte(const char *text, size_t n)
{
	unsigned high = n > 1 ? hex_digit(text[1]) : NO_DIGIT, low = n > 2 ? hex_digit(text[2]) : NO_DIGIT;
	return high == NO_DIGIT || low == NO_DIGIT ? -1 : (int)(high << 4 | low);
}

/* MAY RAISE. decode_url(text) → bytes | nil, message */
static int l_decode_url(lua_State *lua)
{
	struct bind_small small;
	size_t n;
	BIND_AT_MOST(lua, 1, "encoding.decode_url");
	const char *text = bind_string_of(lua, 1, &n, "encoding.decode_url", "the text");
	char *bytes = bind_room(lua, &small, n), *to = bytes;
	size_t piece = BIND_PIECE_BYTES;
	for (size_t i = 0; i < n; i++) {
		int byte = (unsigned char)text[i];
		if (byte == '%') {
			byte = escaped_byte(text + i, n - i);
			if (byte < 0)
				return bind_refuse_byte(lua, i,
							"a percent sign without two hexadecimal digits");
			i += 2;
		}
		*to++ = (char)byte;
		if (!--piece) {
			bind_go_on(lua, "encoding.decode_url");
			piece = BIND_PIECE_BYTES;
		}
	}
	lua_pushlstring(lua, bytes, (size_t)(to - bytes));
	return 1;
}

static const luaL_Reg FUNCTIONS[] = {
	{ "encode_base64", l_encode_base64 },
	{ "decode_base64", l_decode_base64 },
	{ "encode_base64url", l_encode_base64url },
	{ "decode_base64url", l_decode_base64url },
	{ "encode_hex", l_encode_hex },
	{ "decode_hex", l_decode_hex },
	{ "encode_url", l_encode_url },
	{ "decode_url", l_decode_url },
	{ NULL, NULL },
};

void bind_encoding(lua_State *lua)
{
	lua_newtable(lua);
	luaL_register(lua, NULL, FUNCTIONS);
}
