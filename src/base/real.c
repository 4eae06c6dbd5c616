#include "base/real.h"

#include <assert.h>
#include <float.h>
#include <locale.h>
#include <math.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Of these, and of whole numbers below 2^53, a double is each, so that a product or a quotient is rounded once. */
static const double POWERS[] = { 1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
				 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22 };
enum { POWERS_COUNT = sizeof POWERS / sizeof *POWERS, DIGITS_MAX = 17 };

static const double TWO_53 = 9007199254740992.0, TWO_64 = 18446744073709551616.0;

/* ---- reading ---- */

static locale_t plain;
static pthread_once_t plain_once = PTHREAD_ONCE_INIT;

static void make_plain(void)
{
	plain = newlocale(LC_ALL_MASK, "C", (locale_t)0);
}

static double read_slowly(const char *text)
{
	pthread_once(&plain_once, make_plain);
	return plain ? strtod_l(text, NULL, plain) : strtod(text, NULL);
}

double real_of(uint64_t digits, int exponent, int is_cut, const char *text)
{
	if (!is_cut && digits < (uint64_t)1 << DBL_MANT_DIG && exponent > -POWERS_COUNT &&
	    exponent < POWERS_COUNT)
		return exponent < 0 ? (double)digits / POWERS[-exponent] : (double)digits * POWERS[exponent];
	return read_slowly(text);
}

/* ---- writing ---- */

char *real_print_whole(char *to, uint64_t number)
{
	char digits[20];
	unsigned n = 0;
	do
		digits[n++] = (char)('0' + number % 10);
	while (number /= 10);
	while (n)
		*to++ = digits[--n];
	return to;
}

/* So many of the digits are behind the point, none of which is a zero at the end. */
static char *print_decimal(char *to, uint64_t digits, unsigned decimals)
{
	char text[24];
	size_t n = (size_t)(real_print_whole(text, digits) - text);
	if (n > decimals) {
		memcpy(to, text, n - decimals);
		to += n - decimals;
		*to++ = '.';
		memcpy(to, text + n - decimals, decimals);
		return to + decimals;
	}
	*to++ = '0';
	*to++ = '.';
	for (size_t i = n; i < decimals; i++)
		*to++ = '0';
	memcpy(to, text, n);
	return to + n;
}

/*
 * Few digits are tried first, as most numbers have few: where a whole number below 2^53 divided by a power of ten is
 * the double, the text that says so is read as it. The first power that does has the fewest digits. NULL: none does.
 */
static char *print_short(char *to, double number)
{
	for (unsigned decimals = 1; decimals < POWERS_COUNT; decimals++) {
		double scaled = number * POWERS[decimals];
		if (scaled >= TWO_53)
			return NULL;
		uint64_t digits = (uint64_t)(scaled + 0.5);
		if ((double)digits / POWERS[decimals] == number)
			return print_decimal(to, digits, decimals);
	}
	return NULL;
}

__extension__ typedef unsigned __int128 wide;

/* A double as bits / 2^scale. */
struct exact {
	uint64_t bits;
	int scale;
};

static wide power_of_five(int n)
{
	static const uint64_t FIVE_11 = 48828125;
	wide power = n >= 22 ? (wide)FIVE_11 * FIVE_11 : n >= 11 ? FIVE_11 : 1;
	for (n %= 11; n; n--)
		power *= 5;
	return power;
}

/* The whole number next to the double times 10^decimals, and how far it is from it: one is 2^(scale - decimals). All of
 * this is exact, since 53 bits times 5^22 are 105 bits. */
static uint64_t scale_up(struct exact exact, int decimals, wide *distance)
{
	int shift = exact.scale - decimals;
	assert(shift >= 0);
	wide scaled = exact.bits * power_of_five(decimals), half = shift ? (wide)1 << (shift - 1) : 0;
	uint64_t number = (uint64_t)((scaled + half) >> shift);
	wide back = (wide)number << shift;
	*distance = back > scaled ? back - scaled : scaled - back;
	return number;
}

/*
 * Of 16 digits or 17, by the double's own bits, from 1e-6 to 2^53: 16 are enough where they are nearer to the double
 * than half of what is between it and its neighbours, which is 5^decimals to scale_up(). Below a power of two it is
 * half as much.
 */
static char *print_by_bits(char *to, double number)
{
	struct exact exact;
	int power, digits_before = 17;
	wide distance;
	exact.bits = (uint64_t)ldexp(frexp(number, &power), DBL_MANT_DIG);
	exact.scale = DBL_MANT_DIG - power;
	while (digits_before > 1 && number < POWERS[digits_before - 1])
		digits_before--;
	for (double larger = number; larger < 1; digits_before--)
		larger *= 10;
	int decimals = 16 - digits_before;
	uint64_t digits = scale_up(exact, decimals, &distance);
	int parts = exact.bits == (uint64_t)1 << (DBL_MANT_DIG - 1) ? 4 : 2;
	while ((wide)parts * distance >= power_of_five(decimals))
		digits = scale_up(exact, ++decimals, &distance);
	return print_decimal(to, digits, (unsigned)decimals);
}

/* The digits of a double, of which so many are enough to be read as it, and `least` at least; the first is before the
 * point. */
static unsigned find_digits(double number, int least, char digits[DIGITS_MAX], int *exponent)
{
	char text[REAL_TEXT_BYTES];
	for (int n = least;; n++) {
		snprintf(text, sizeof text, "%.*e", n - 1, number);
		char *point = n > 1 ? text + 1 : NULL;
		if (point)
			*point = '.'; /* the locale may have another one */
		if (n < DIGITS_MAX && read_slowly(text) != number)
			continue;
		digits[0] = text[0];
		memcpy(digits + 1, text + 2, (size_t)n - 1);
		*exponent = (int)strtol(strchr(text, 'e') + 1, NULL, 10);
		while (n > 1 && digits[n - 1] == '0')
			n--;
		return (unsigned)n;
	}
}

/*
 * With an exponent where the other way is long. A whole number that comes here is too large to have all of its digits.
 */
static char *print_long(char *to, double number, int least)
{
	enum { PLAIN_LEAST = -7, PLAIN_BEYOND = 17 };
	char digits[DIGITS_MAX];
	int exponent;
	unsigned n = find_digits(number, least, digits, &exponent);
	bool is_plain = exponent >= PLAIN_LEAST && exponent < PLAIN_BEYOND;
	int before = is_plain ? exponent + 1 : 1; /* digits before the point */
	if (before <= 0) {
		*to++ = '0';
		*to++ = '.';
		for (int i = before; i < 0; i++)
			*to++ = '0';
	}
	for (unsigned i = 0; i < n || (int)i < before; i++) {
		if ((int)i == before && before > 0)
			*to++ = '.';
		*to++ = i < n ? digits[i] : '0';
	}
	return is_plain ? to : to + sprintf(to, "e%+d", exponent);
}

char *real_print(char *to, double number)
{
	if (signbit(number)) {
		*to++ = '-';
		number = -number;
	}
	if (number < TWO_64 && number == trunc(number))
		return real_print_whole(to, (uint64_t)number);
	if (number < 1e-7 || number >= TWO_53)
		return print_long(to, number,
				  number < DBL_MIN ? 1 : 15); /* fifteen are what the others always hold */
	char *end = print_short(to, number);
	if (end)
		return end;
	return number >= 1e-6 ? print_by_bits(to, number) : print_long(to, number, 16);
}
