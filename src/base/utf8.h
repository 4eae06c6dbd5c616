/*
 * UTF-8 that comes in pieces: is it right so far, and is it whole? As RFC 3629 has it: no overlong forms, no
 * surrogates, nothing past U+10FFFF. What is wrong is known with the first byte that makes it so. Whole texts
 * are text_is_utf8()'s.
 *
 * Leaf; any thread.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* All zero: between two characters. */
struct utf8 {
	uint8_t left;      /* bytes that the character at hand still needs */
	uint8_t low, high; /* what the next of them may be */
};

/* False: these bytes do not go on as UTF-8 does. */
bool utf8_take(struct utf8 *utf8, const uint8_t *bytes, size_t n);

static inline bool utf8_is_whole(const struct utf8 *utf8)
{
	return !utf8->left;
}
