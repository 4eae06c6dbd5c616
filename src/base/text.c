#include "base/text.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

/* ---- characters ---- */

/*
 * Of a sequence by its first byte: its length, and the least code point that may take as many bytes. 0: it begins none.
 */
static size_t sequence_bytes(uint8_t first, uint32_t *least)
{
	static const uint32_t LEAST[] = { 0, 0, 0x80, 0x800, 0x10000 };
	size_t n = first < 0x80   ? 1
		   : first < 0xc2 ? 0
		   : first < 0xe0 ? 2
		   : first < 0xf0 ? 3
		   : first < 0xf5 ? 4
				  : 0;
	*least = LEAST[n];
	return n;
}

size_t text_character(const void *s, size_t n, uint32_t *code)
{
	const uint8_t *bytes = s;
	uint32_t least, value = bytes[0];
	size_t len = sequence_bytes(bytes[0], &least);
	if (!len || len > n)
		return 0;
	if (len > 1)
		value &= 0x7fu >> len;
	for (size_t i = 1; i < len; i++) {
		if ((bytes[i] & 0xc0) != 0x80)
			return 0;
		value = value << 6 | (bytes[i] & 0x3f);
	}
	if (value < least || value > 0x10ffff || (value >= 0xd800 && value <= 0xdfff))
		return 0;
	*code = value;
	return len;
}

bool text_is_utf8(const void *s, size_t n)
{
	const uint8_t *bytes = s;
	uint32_t code;
	for (size_t i = 0, len; i < n; i += len)
		if (!(len = bytes[i] < 0x80 ? 1 : text_character(bytes + i, n - i, &code)))
			return false;
	return true;
}

/* Ascending; perilune.printable has the same. */
static const struct {
	uint32_t first, last;
} HIDDEN[] = {
	{ 0x00, 0x1f },     { 0x7f, 0x9f },     { 0xad, 0xad },       { 0x61c, 0x61c },
	{ 0x180e, 0x180e }, { 0x200b, 0x200f }, { 0x2028, 0x202e },   { 0x2060, 0x206f },
	{ 0xfeff, 0xfeff }, { 0xfff9, 0xfffb }, { 0xe0000, 0xe0fff },
};

static bool is_hidden(uint32_t code)
{
	for (size_t i = 0; i < sizeof HIDDEN / sizeof *HIDDEN && code >= HIDDEN[i].first; i++)
		if (code <= HIDDEN[i].last)
			return true;
	return false;
}

/* ---- escapes ---- */

static bool is_plain_ascii(enum text_form form, uint8_t byte)
{
	if (byte == '\n' || byte == '\t')
		return form == TEXT_LINES;
	return byte >= 0x20 && byte < 0x7f && (form != TEXT_JSON || (byte != '"' && byte != '\\'));
}

size_t text_plain(enum text_form form, const void *s, size_t n)
{
	const uint8_t *bytes = s;
	size_t i = 0;
	while (i < n && is_plain_ascii(form, bytes[i]))
		i++;
	return i;
}

static int base_text_put_json(char piece[TEXT_PIECE_BYTES], uint32_t code)
{
	if (code == '"' || code == '\\')
		return snprintf(piece, TEXT_PIECE_BYTES, "\\%c", (int)code);
	if (code < 0x10000)
		return snprintf(piece, TEXT_PIECE_BYTES, "\\u%04x", code);
	code -= 0x10000;
	return snprintf(piece, TEXT_PIECE_BYTES, "\\u%04x\\u%04x", 0xd800 | code >> 10,
			0xdc00 | (code & 0x3ff));
}

static int put_hidden(enum text_form form, char piece[TEXT_PIECE_BYTES], uint32_t code)
{
	if (code == '\n' || code == '\r' || code == '\t')
		return snprintf(piece, TEXT_PIECE_BYTES, "\\%c",
				code == '\n'   ? 'n'
				: code == '\r' ? 'r'
					       : 't');
	if (form == TEXT_JSON)
		return base_text_put_json(piece, code);
	return snprintf(piece, TEXT_PIECE_BYTES, code < 0x80 ? "\\x%02x" : "\\u{%x}", code);
}

size_t text_piece(enum text_form form, const void *s, size_t n, char piece[TEXT_PIECE_BYTES], size_t *taken)
{
	const uint8_t *bytes = s;
	uint32_t code = bytes[0];
	size_t len = text_character(s, n, &code);
	*taken = len ? len : 1;
	if (!len)
		return (size_t)snprintf(piece, TEXT_PIECE_BYTES, form == TEXT_JSON ? "\\\\x%02x" : "\\x%02x",
					code);
	bool is_plain = len == 1 ? is_plain_ascii(form, bytes[0]) : !is_hidden(code);
	if (!is_plain)
		return (size_t)put_hidden(form, piece, code);
	memcpy(piece, s, len);
	return len;
}

/* ---- whole texts ---- */

size_t text_escape(enum text_form form, char *to, size_t size, const void *s, size_t n)
{
	static const char ELLIPSIS[] = "\xe2\x80\xa6";
	const uint8_t *bytes = s;
	char piece[TEXT_PIECE_BYTES];
	size_t len = 0, fits = 0; /* `fits`: with an ellipsis behind it */
	for (size_t i = 0, taken; i < n; i += taken) {
		size_t more = text_piece(form, bytes + i, n - i, piece, &taken);
		if (len + more >= size) {
			memcpy(to + fits, ELLIPSIS, sizeof ELLIPSIS);
			return fits + sizeof ELLIPSIS - 1;
		}
		memcpy(to + len, piece, more);
		len += more;
		if (len + sizeof ELLIPSIS <= size)
			fits = len;
	}
	to[len] = '\0';
	return len;
}

void text_put(FILE *to, enum text_form form, const void *s, size_t n)
{
	const uint8_t *bytes = s;
	char piece[TEXT_PIECE_BYTES];
	for (size_t i = 0, taken; i < n; i += taken) {
		taken = text_plain(form, bytes + i, n - i);
		if (taken)
			fwrite(bytes + i, 1, taken, to);
		else
			fwrite(piece, 1, text_piece(form, bytes + i, n - i, piece, &taken), to);
	}
}

/* What memory does not suffice for is cut. */
void text_printf(FILE *to, const char *format, ...)
{
	char some[1024], *all = NULL;
	va_list arguments;
	va_start(arguments, format);
	/* The analyser does not see va_start() where it has seen another file before this one. */
	int n =
	    vsnprintf(some, sizeof some, format, arguments); /* NOLINT(clang-analyzer-valist.Uninitialized) */
	va_end(arguments);
	if (n >= (int)sizeof some && (all = malloc((size_t)n + 1))) {
		va_start(arguments, format);
		vsnprintf(all, (size_t)n + 1, format,
			  arguments); /* NOLINT(clang-analyzer-valist.Uninitialized) */
		va_end(arguments);
	}
	const char *text = all ? all : some;
	text_put(to, TEXT_LINES, text, strlen(text));
	free(all);
}
