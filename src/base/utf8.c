#include "base/utf8.h"

#include <string.h>

/* Past all that is ASCII, eight bytes at a time. */
static size_t skip_ascii(const uint8_t *bytes, size_t at, size_t n)
{
	uint64_t eight;
	for (; n - at >= sizeof eight; at += sizeof eight) {
		memcpy(&eight, bytes + at, sizeof eight);
		if (eight & UINT64_C(0x8080808080808080))
			break;
	}
	while (at < n && bytes[at] < 0x80)
		at++;
	return at;
}

static bool begin_character(struct utf8 *utf8, uint8_t first)
{
	utf8->low = first == 0xe0 ? 0xa0 : first == 0xf0 ? 0x90 : 0x80;
	utf8->high = first == 0xed ? 0x9f : first == 0xf4 ? 0x8f : 0xbf;
	if (first >= 0xc2 && first <= 0xdf)
		utf8->left = 1;
	else if (first >= 0xe0 && first <= 0xef)
		utf8->left = 2;
	else if (first >= 0xf0 && first <= 0xf4)
		utf8->left = 3;
	else
		return false;
	return true;
}

bool utf8_take(struct utf8 *utf8, const uint8_t *bytes, size_t n)
{
	for (size_t at = 0;;) {
		for (; utf8->left && at < n; at++, utf8->left--) {
			if (bytes[at] < utf8->low || bytes[at] > utf8->high)
				return false;
			utf8->low = 0x80;
			utf8->high = 0xbf;
		}
		at = skip_ascii(bytes, at, n);
		if (at == n)
			return true;
		if (!begin_character(utf8, bytes[at++]))
			return false;
	}
}
