/*
 * Doubles as text: the shortest that is read as the same double, and back. Whatever the locale. Any thread.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

enum { REAL_TEXT_BYTES = 40 };

/*
 * Writes a finite double as JSON and Lua read it, not terminated; returns what is behind it. A whole number below 2^64
 * has all of its digits, and no others: who reads whole numbers exactly gets this one. (A power of two below 1e-6 may
 * have one digit more than it needs.)
 */
char *real_print(char *to, double number);

/* Writes a whole number; the same. */
char *real_print_whole(char *to, uint64_t number);

/* The double that is next to digits * 10^exponent, which the text that is given says, too: for where that is more than
 * can be computed. `digits` may have been cut where is_cut. */
double real_of(uint64_t digits, int exponent, int is_cut, const char *text);
