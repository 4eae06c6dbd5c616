/* Flows: which datagram is whose, what waits and what is dropped, and what is sent. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "support/flow_model.h"

#include <stdlib.h>

static uint64_t numbers;

/* xorshift64* */
static uint32_t choose(uint32_t bound)
{
	numbers ^= numbers >> 12;
	numbers ^= numbers << 25;
	numbers ^= numbers >> 27;
	return (uint32_t)((numbers * UINT64_C(0x2545f4914f6cdd1d)) >> 32) % bound;
}

static void whatever_happens_all_datagrams_are_accounted_for(void **state)
{
	enum { RUNS = 20, ROUNDS = 2000 };
	struct flow_model_counts sum = { 0 };
	(void)state;
	for (uint64_t seed = 1; seed <= RUNS; seed++) {
		numbers = seed * UINT64_C(0x9e3779b97f4a7c15);
		flow_model_start(choose);
		for (int i = 0; i < ROUNDS; i++)
			flow_model_round();
		flow_model_end();
		const struct flow_model_counts *counts = flow_model_counts();
		sum.taken += counts->taken;
		sum.dropped += counts->dropped;
		sum.truncated += counts->truncated;
		sum.replies += counts->replies;
		sum.parted += counts->parted;
	}
	assert_true(sum.taken > 1000 && sum.dropped > 100 && sum.truncated > 10);
	assert_true(sum.replies > 500 && sum.parted > 50);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(whatever_happens_all_datagrams_are_accounted_for),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
