#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "agent/handle.h"

#include <math.h>

static const uint64_t IDS[] = { 1, 2, 255, 65536, UINT64_C(1) << 40, HANDLE_ID_MAX };

enum { ID_COUNT = sizeof IDS / sizeof *IDS, TABLES = 10000, TABLE_BYTES = 64 };

/* Only their addresses are of interest, as the allocator gives them. */
static char tables[TABLES][TABLE_BYTES];

static void what_was_sealed_is_opened(void **state)
{
	(void)state;
	for (size_t i = 0; i < ID_COUNT; i++)
		for (size_t at = 0; at < TABLES; at++)
			assert_int_equal(IDS[i], handle_open(tables[at], handle_seal(tables[at], IDS[i])));
}

/* Some of it looks like an id, but like none of those there may be. */
static void what_was_sealed_for_another_table_is_not(void **state)
{
	(void)state;
	for (size_t i = 0; i < ID_COUNT; i++) {
		double sealed = handle_seal(tables[0], IDS[i]);
		unsigned taken = 0;
		for (size_t at = 1; at < TABLES; at++) {
			uint64_t id = handle_open(tables[at], sealed);
			taken += id != 0;
			for (size_t other = 0; other < ID_COUNT; other++)
				assert_true(id != IDS[other]);
		}
		assert_in_range(taken, 0, TABLES / 1000);
	}
}

static void numbers_are_no_seals(void **state)
{
	(void)state;
	const double numbers[] = { 0,     -0.0,   1,      2,           3.5,      -1,       1e15,
				   1e300, -1e300, 5e-324, (double)NAN, INFINITY, -INFINITY };
	for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
		for (size_t at = 0; at < 100; at++)
			assert_int_equal(0, handle_open(tables[at], numbers[i]));
}

/* Lua keeps other values in such bits. */
static void a_seal_is_a_number(void **state)
{
	(void)state;
	for (size_t i = 0; i < ID_COUNT; i++)
		for (size_t at = 0; at < TABLES; at++) {
			double sealed = handle_seal(tables[at], IDS[i]);
			assert_true(isfinite(sealed) && sealed >= 0);
		}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_was_sealed_is_opened),
		cmocka_unit_test(what_was_sealed_for_another_table_is_not),
		cmocka_unit_test(numbers_are_no_seals),
		cmocka_unit_test(a_seal_is_a_number),
	};
	return cmocka_run_group_tests_name("handle", tests, NULL, NULL);
}
