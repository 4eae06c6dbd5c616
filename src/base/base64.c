#include "base/base64.h"

#include <string.h>

static const char ALPHABETS[][65] = {
	[BASE64_PLAIN] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/",
	[BASE64_URL] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_",
};

/* What a character stands for, below 64; with it that it is of one alphabet only, or of none. */
enum { PLAIN_ONLY = 0x40, URL_ONLY = 0x80, VALUE = 0x3f, NONE = 0xff };

static const uint8_t VALUES[256] = {
	0xff, 0xff, 0xff,
	0xff, 0xff, 0xff,
	0xff, 0xff, 0xff,
	0xff, 0xff, 0xff,
	0xff, 0xff, 0xff,
	0xff, 0xff, 0xff,
	0xff, 0xff, 0xff,
	0xff, 0xff, 0xff,
	0xff, 0xff, 0xff,
	0xff, 0xff, 0xff,
	0xff, 0xff, 0xff,
	0xff, 0xff, 0xff,
	0xff, 0xff, 0xff,
	0xff, 0xff, 0xff,
	0xff, 0x7e, 0xff,
	0xbe, 0xff, 0x7f,
	0x34, 0x35, 0x36,
	0x37, 0x38, 0x39,
	0x3a, 0x3b, 0x3c,
	0x3d, 0xff, 0xff,
	0xff, 0xff, 0xff,
	0xff, 0xff, 0x00,
	0x01, 0x02, 0x03,
	0x04, 0x05, 0x06,
	0x07, 0x08, 0x09,
	0x0a, 0x0b, 0x0c,
	0x0d, 0x0e, 0x0f,
	0x10, 0x11, 0x12,
	0x13, 0x14, 0x15,
	0x16, 0x17, 0x18,
	0x19, 0xff, 0xff,
	0xff, 0xff, 0xbf,
	0xff, 0x1a, 0x1b,
	0x1c, 0x1d, 0x1e,
	0x1f, 0x20, 0x21,
	0x22, 0x23, 0x24,
	0x25, 0x26, 0x27,
	0x28, 0x29, 0x2a,
	0x2b, 0x2c, 0x2d,
	0x2e, 0x2f, 0x30,
	0x31, 0x32, 0x33,
	0xff, 0xff, 0xff,
	0xff, 0xff, [128 ... 255] = 0xff,
};

static const uint8_t REFUSED[] = { [BASE64_PLAIN] = URL_ONLY, [BASE64_URL] = PLAIN_ONLY };

static uint8_t value_of(char c)
{
	return VALUES[(unsigned char)c];
}

size_t base64_text_bytes(size_t n, bool is_padded)
{
	size_t rest = n % 3;
	return n / 3 * 4 + (!rest ? 0 : is_padded ? 4 : rest + 1);
}

char *base64_encode(char *to, const uint8_t *from, size_t n, enum base64_alphabet alphabet, bool is_padded)
{
	const char *characters = ALPHABETS[alphabet];
	for (; n >= 3; n -= 3, from += 3, to += 4) {
		uint32_t bits = (uint32_t)from[0] << 16 | (uint32_t)from[1] << 8 | from[2];
		to[0] = characters[bits >> 18];
		to[1] = characters[bits >> 12 & VALUE];
		to[2] = characters[bits >> 6 & VALUE];
		to[3] = characters[bits & VALUE];
	}
	if (!n)
		return to;
	uint32_t bits = (uint32_t)from[0] << 16 | (uint32_t)(n > 1 ? from[1] : 0) << 8;
	*to++ = characters[bits >> 18];
	*to++ = characters[bits >> 12 & VALUE];
	if (n > 1)
		*to++ = characters[bits >> 6 & VALUE];
	for (size_t i = n; is_padded && i < 3; i++)
		*to++ = '=';
	return to;
}

size_t base64_text_end(const char *text, size_t n)
{
	size_t end = n;
	while (end && n - end < 2 && text[end - 1] == '=')
		end--;
	return end % 4 == 1 || (end != n && n % 4) ? SIZE_MAX : end;
}

size_t base64_bytes(size_t text_bytes)
{
	return text_bytes / 4 * 3 + text_bytes % 4 * 3 / 4;
}

/* The last characters, which make fewer than three bytes. */
static size_t decode_rest(uint8_t *to, const char *text, size_t n, uint8_t refused)
{
	uint32_t bits = 0;
	for (size_t i = 0; i < n; i++) {
		uint8_t value = value_of(text[i]);
		if (value & refused)
			return i;
		bits |= (uint32_t)(value & VALUE) << (18 - 6 * i);
	}
	if (n > 1)
		to[0] = (uint8_t)(bits >> 16);
	if (n > 2)
		to[1] = (uint8_t)(bits >> 8);
	return n;
}

size_t base64_decode(uint8_t *to, const char *text, size_t n, enum base64_alphabet alphabet)
{
	uint8_t refused = REFUSED[alphabet];
	size_t i = 0;
	for (; n - i >= 4; i += 4, to += 3) {
		uint8_t a = value_of(text[i]), b = value_of(text[i + 1]), c = value_of(text[i + 2]),
			d = value_of(text[i + 3]);
		if ((a | b | c | d) & refused)
			return i + decode_rest(to, text + i, 4, refused);
		uint32_t bits = (uint32_t)(a & VALUE) << 18 | (uint32_t)(b & VALUE) << 12 |
				(uint32_t)(c & VALUE) << 6 | (d & VALUE);
		to[0] = (uint8_t)(bits >> 16);
		to[1] = (uint8_t)(bits >> 8);
		to[2] = (uint8_t)bits;
	}
	return i + decode_rest(to, text + i, n - i, refused);
}

bool base64_has_stray_bits(const char *text, size_t n)
{
	uint8_t value = n % 4 ? value_of(text[n - 1]) : 0;
	return n % 4 == 2 ? value & 0x0f : value & 0x03;
}
