#include "base/counters.h"

/* The struct holds nothing but counters, so it can be walked as an array. */
_Static_assert(sizeof(struct counters) % sizeof(counter) == 0, "only counters in here");

#define NAME(name, help) { #name, offsetof(struct counters, name) },

const struct counter_name COUNTER_NAMES[COUNTER_COUNT] = { COUNTERS(NAME) };

void counters_sum(struct counters *to, const struct counters *from)
{
	counter *sum = (counter *)to;
	const counter *part = (const counter *)from;
	for (size_t i = 0; i < sizeof *to / sizeof *sum; i++)
		count_add(&sum[i], count_read(&part[i]));
}

void counters_sum_all(struct counters *to, const struct counters_all *all)
{
	counters_sum(to, all->more);
	for (unsigned i = 0; i < all->count; i++)
		counters_sum(
		    to, (const struct counters *)(const void *)((const char *)all->first + i * all->stride));
}

uint64_t counters_closed(const struct counters *c)
{
	uint64_t total = 0;
	for (int i = 0; i < REASON_COUNT; i++)
		total += count_read(&c->closed[i]);
	return total;
}
