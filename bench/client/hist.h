/*
 * A latency histogram in the manner of HdrHistogram: 128 linear buckets to each power of two, so a value is known to
 * better than 1 % over the whole range of 64 bits, and adding costs a shift and an increment.
 */
#pragma once

#include <stdint.h>

enum {
	HIST_BITS = 7,
	HIST_LINEAR = 1 << HIST_BITS,
	HIST_BUCKETS = (64 - HIST_BITS + 1) * HIST_LINEAR,
};

struct hist {
	uint64_t count, max;
	uint64_t buckets[HIST_BUCKETS];
};

static inline unsigned hist_bucket(uint64_t value)
{
	unsigned shift;

	if (value < HIST_LINEAR)
		return (unsigned)value;
	shift = 63u - HIST_BITS - (unsigned)__builtin_clzll(value);
	return (shift << HIST_BITS) + (unsigned)(value >> shift);
}

static inline void hist_add(struct hist *h, uint64_t value, uint64_t times)
{
	h->buckets[hist_bucket(value)] += times;
	h->count += times;
	if (value > h->max)
		h->max = value;
}

void hist_reset(struct hist *h);

/* The value that the fraction q of all values does not exceed; zero for an empty histogram. */
uint64_t hist_quantile(const struct hist *h, double q);
