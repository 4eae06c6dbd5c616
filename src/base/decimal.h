/*
 * Reads a number that somebody else wrote: digits and nothing else, no sign, no space, nothing behind it. strtoul(3)
 * takes "-1" for a large number and "12x" for 12.
 *
 * Leaf; any thread.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* False: it is none, or it is over `most`. */
static inline bool decimal_read(const char *text, uint64_t most, uint64_t *number)
{
	uint64_t value = 0;
	if (!*text)
		return false;
	for (; *text; text++) {
		uint64_t digit = (uint64_t)(unsigned char)*text - '0';
		if (digit > 9 || value > most / 10 || value * 10 > most - digit)
			return false;
		value = value * 10 + digit;
	}
	*number = value;
	return true;
}
