/*
 * A clock that costs next to nothing to read: for adding up short times. It runs steadily on every
 * processor of the last fifteen years, at a rate that ticks_start() and the system's clock tell.
 *
 * Threads: any. Ticks of different threads can be compared.
 */
#pragma once

#include <stdint.h>
#include <time.h>

static inline uint64_t ticks_clock_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static inline uint64_t ticks_now(void)
{
#if defined(__x86_64__)
	return __builtin_ia32_rdtsc();
#else
	return ticks_clock_ns();
#endif
}

/* Where the rate is measured from. */
struct ticks_start {
	uint64_t ticks, ns;
};

static inline struct ticks_start ticks_start(void)
{
	return (struct ticks_start){ ticks_now(), ticks_clock_ns() };
}

/* How long that many ticks are, in seconds; the better, the longer ago the start. */
static inline double ticks_seconds(const struct ticks_start *start, uint64_t ticks)
{
	uint64_t passed = ticks_now() - start->ticks, ns = ticks_clock_ns() - start->ns;
	return passed ? (double)ticks * ((double)ns / (double)passed) / 1e9 : 0;
}
