#include "hist.h"

#include <string.h>

void hist_reset(struct hist *h)
{
	memset(h, 0, sizeof *h);
}

static uint64_t highest_in(unsigned bucket)
{
	unsigned shift;

	if (bucket < 2 * HIST_LINEAR)
		return bucket;
	shift = (bucket >> HIST_BITS) - 1;
	return (((uint64_t)bucket - ((uint64_t)shift << HIST_BITS) + 1) << shift) - 1;
}

uint64_t hist_quantile(const struct hist *h, double q)
{
	double wanted = q * (double)h->count;
	uint64_t seen = 0;

	for (unsigned i = 0; i < HIST_BUCKETS; i++) {
		seen += h->buckets[i];
		if (h->buckets[i] && (double)seen >= wanted)
			return highest_in(i) < h->max ? highest_in(i) : h->max;
	}
	return h->max;
}
