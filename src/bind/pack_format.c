#include "bind/pack_format.h"

#include "base/pattern.h"
#include "bind/bind.h"

#include <limits.h>

enum {
	INTEGER_BYTES_MAX = 16,
	WORD_BYTES = 8,  /* of Lua's integers */
	ALIGN_BYTES = 8, /* of what "!" alone means */
};

struct pack_format pack_format_of(lua_State *lua, const volatile sig_atomic_t *stop)
{
	return (struct pack_format){ .lua = lua,
				     .stop = stop,
				     .at = luaL_checkstring(lua, 1),
				     .is_little = __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
				     .align_max = 1 };
}

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

/* As many digits as are no overflow; the rest is no option. */
static int read_number(struct pack_format *format, int otherwise)
{
	int number = 0;
	if (!is_digit(*format->at))
		return otherwise;
	do
		number = number * 10 + (*format->at++ - '0');
	while (is_digit(*format->at) && number <= (INT_MAX - 9) / 10);
	return number;
}

/* MAY RAISE. */
static int read_size(struct pack_format *format, int otherwise)
{
	int size = read_number(format, otherwise);
	if (size > INTEGER_BYTES_MAX || size <= 0)
		RAISE(format->lua, "integral size (%d) out of limits [1,%d]", size, INTEGER_BYTES_MAX);
	return size;
}

/* MAY RAISE: it always does. */
static void raise_option(lua_State *lua, unsigned char c)
{
	if (c < ' ' || c > '~')
		RAISE(lua, "invalid format option '<\\%d>'", c);
	RAISE(lua, "invalid format option '%c'", c);
}

/* MAY RAISE. What only changes how others are read. */
static void read_setting(struct pack_format *format, char c)
{
	switch (c) {
	case ' ':
		break;
	case '<':
		format->is_little = true;
		break;
	case '>':
		format->is_little = false;
		break;
	case '=':
		format->is_little = __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__;
		break;
	case '!':
		format->align_max = read_size(format, ALIGN_BYTES);
		break;
	default:
		raise_option(format->lua, (unsigned char)c);
	}
}

/* Those of which a letter says all. */
static const struct {
	char letter;
	unsigned char option, size;
} PLAIN[] = {
	{ 'b', PACK_INTEGER, 1 },
	{ 'B', PACK_UNSIGNED, 1 },
	{ 'h', PACK_INTEGER, sizeof(short) },
	{ 'H', PACK_UNSIGNED, sizeof(short) },
	{ 'l', PACK_INTEGER, sizeof(long) },
	{ 'L', PACK_UNSIGNED, sizeof(long) },
	{ 'j', PACK_INTEGER, WORD_BYTES },
	{ 'J', PACK_UNSIGNED, WORD_BYTES },
	{ 'T', PACK_UNSIGNED, sizeof(size_t) },
	{ 'f', PACK_REAL, sizeof(float) },
	{ 'd', PACK_REAL, sizeof(double) },
	{ 'n', PACK_REAL, sizeof(double) },
	{ 'z', PACK_ZERO_ENDED, 0 },
	{ 'x', PACK_PADDING, 1 },
	{ 'X', PACK_ALIGNMENT, 0 },
};

/* MAY RAISE. */
static enum pack_option read_option(struct pack_format *format, int *size)
{
	char c = *format->at++;
	*size = 0;
	for (size_t i = 0; i < sizeof PLAIN / sizeof *PLAIN; i++) {
		if (PLAIN[i].letter != c)
			continue;
		*size = PLAIN[i].size;
		return (enum pack_option)PLAIN[i].option;
	}
	switch (c) {
	case 'i':
		*size = read_size(format, sizeof(int));
		return PACK_INTEGER;
	case 'I':
		*size = read_size(format, sizeof(int));
		return PACK_UNSIGNED;
	case 's':
		*size = read_size(format, sizeof(size_t));
		return PACK_COUNTED;
	case 'c':
		*size = read_number(format, -1);
		if (*size == -1)
			RAISE(format->lua, "missing size for format option 'c'");
		return PACK_CHARACTERS;
	default:
		read_setting(format, c);
		return PACK_NOTHING;
	}
}

bool pack_next_item(struct pack_format *format, size_t at, struct pack_item *item)
{
	if (!*format->at)
		return false;
	if (*format->stop)
		RAISE(format->lua, "%s", pattern_message(PATTERN_STOPPED));
	item->option = read_option(format, &item->size);
	item->skipped = 0;
	int align = item->size;
	if (item->option == PACK_ALIGNMENT &&
	    (!*format->at || read_option(format, &align) == PACK_CHARACTERS || align == 0))
		luaL_argerror(format->lua, 1, "invalid next option for option 'X'");
	if (align <= 1 || item->option == PACK_CHARACTERS)
		return true;
	if (align > format->align_max)
		align = format->align_max;
	if (align & (align - 1))
		luaL_argerror(format->lua, 1, "format asks for alignment not power of 2");
	item->skipped = (align - (int)(at & (size_t)(align - 1))) & (align - 1);
	return true;
}
