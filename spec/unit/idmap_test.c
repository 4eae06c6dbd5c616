#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/idmap.h"

#include <stdbool.h>
#include <string.h>

enum { MODEL_IDS = 3000, MODEL_STEPS = 40000 };

static struct idmap map;
static uint64_t seed;
static bool present[MODEL_IDS];
static char values[MODEL_IDS]; /* for their addresses */

static uint32_t below(uint32_t bound)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return (uint32_t)(seed >> 16) % bound;
}

static int start(void **state)
{
	(void)state;
	idmap_init(&map);
	seed = 20260101;
	for (size_t i = 0; i < MODEL_IDS; i++)
		present[i] = false;
	return 0;
}

static int end(void **state)
{
	(void)state;
	idmap_deinit(&map);
	return 0;
}

static void an_empty_map_has_nothing(void **state)
{
	(void)state;
	assert_null(idmap_get(&map, 0));
	assert_null(idmap_get(&map, 1));
	idmap_remove(&map, 1);
	idmap_remove(&map, 0);
	assert_int_equal(map.count, 0);
	assert_int_equal(map.capacity, 0);
}

static void check_all(uint64_t first, uint64_t stride)
{
	size_t count = 0;
	for (size_t i = 0; i < MODEL_IDS; i++) {
		assert_ptr_equal(idmap_get(&map, first + i * stride), present[i] ? &values[i] : NULL);
		count += present[i];
	}
	assert_int_equal(map.count, count);
	assert_true(map.count * 4 <= map.capacity * 3);
}

static void step(uint64_t first, uint64_t stride, size_t i, bool wanted)
{
	uint64_t id = first + i * stride;
	if (wanted && !present[i])
		assert_int_equal(idmap_put(&map, id, &values[i]), 0);
	else if (!wanted)
		idmap_remove(&map, id);
	present[i] = wanted;
	assert_ptr_equal(idmap_get(&map, id), present[i] ? &values[i] : NULL);
}

/* Fills and empties by turns, so that it grows and shrinks. */
static void behaves_like_an_array(uint64_t first, uint64_t stride)
{
	for (unsigned n = 0; n < MODEL_STEPS; n++) {
		bool filling = n / 10000 % 2 == 0;
		step(first, stride, below(MODEL_IDS), below(10) < (filling ? 8 : 1));
		if (n % 2000 == 0)
			check_all(first, stride);
	}
	check_all(first, stride);
	for (size_t i = 0; i < MODEL_IDS; i++)
		step(first, stride, i, false);
	check_all(first, stride);
}

static void consecutive_ids(void **state)
{
	(void)state;
	behaves_like_an_array(1, 1);
}

/* As where several workers hand out ids in turn. */
static void strided_ids(void **state)
{
	(void)state;
	behaves_like_an_array(3, 3);
	behaves_like_an_array(3, 8);
}

static void huge_ids(void **state)
{
	(void)state;
	behaves_like_an_array(UINT64_MAX - MODEL_IDS, 1);
}

/* Runs that wrap round the end of the table. */
static void runs_wrap_around(void **state)
{
	(void)state;
	for (unsigned offset = 0; offset < 8; offset++) {
		uint64_t first = 64 * 100 - offset;
		for (size_t i = 0; i < 16; i++)
			assert_int_equal(idmap_put(&map, first + 64 * i, &values[i]), 0);
		for (size_t gone = 0; gone < 16; gone++) {
			idmap_remove(&map, first + 64 * gone);
			for (size_t i = 0; i < 16; i++)
				assert_ptr_equal(idmap_get(&map, first + 64 * i),
						 i > gone ? &values[i] : NULL);
		}
	}
}

static void it_grows_and_shrinks(void **state)
{
	(void)state;
	for (uint64_t id = 1; id <= 100000; id++)
		assert_int_equal(idmap_put(&map, id, &map), 0);
	size_t most = map.capacity;
	assert_true(most >= 100000);
	for (uint64_t id = 1; id <= 100000; id++)
		idmap_remove(&map, id);
	assert_int_equal(map.count, 0);
	assert_true(map.capacity < most / 20);
}

/* Ids are never used again: a connection that is gone is nobody, though its place has a new one. */
static void stale_ids_find_nothing(void **state)
{
	(void)state;
	for (uint64_t id = 1; id <= 20000; id++) {
		assert_int_equal(idmap_put(&map, id, &values[id % MODEL_IDS]), 0);
		if (id > 50)
			idmap_remove(&map, id - 50);
		for (uint64_t stale = id > 200 ? id - 200 : 1; stale + 50 <= id; stale++)
			assert_null(idmap_get(&map, stale));
		assert_null(idmap_get(&map, id + 1));
	}
	idmap_remove(&map, 1); /* once more, and of somebody unknown */
	idmap_remove(&map, 1000000);
	assert_int_equal(map.count, 50);
	assert_int_equal(map.capacity, 128);
}

/* ---- walks ---- */

enum { WALK_IDS = MODEL_IDS };

static bool visited[WALK_IDS];

static void note_visit(void *value, void *data)
{
	(void)data;
	visited[(char *)value - values] = true;
}

/*
 * Random ids come and go between two steps, more of the ones than of the others. Ids divisible by `stays` do neither.
 */
static void change(uint64_t first, unsigned stays, unsigned times, bool filling)
{
	for (unsigned n = 0; n < times; n++) {
		size_t i = below(WALK_IDS);
		if (i % stays)
			step(first, 1, i, below(10) < (filling ? 9 : 1));
	}
}

static void walk_sees_who_stays(unsigned stays, unsigned changes, bool is_full, bool filling)
{
	uint64_t cursor = 0, first = 1 + below(1000000);
	memset(visited, 0, sizeof visited);
	for (size_t i = 0; i < WALK_IDS; i++)
		step(first, 1, i, is_full || i % stays == 0);
	do {
		idmap_walk(&map, &cursor, note_visit, NULL);
		change(first, stays, changes, filling);
	} while (cursor);
	for (size_t i = 0; i < WALK_IDS; i += stays)
		assert_true(visited[i]);
	for (size_t i = 0; i < WALK_IDS; i++)
		step(first, 1, i, false);
}

static void a_walk_sees_who_stays_while_others_leave(void **state)
{
	(void)state;
	for (unsigned n = 0; n < 30; n++) {
		walk_sees_who_stays(20, 1 + below(40), true, false);
		walk_sees_who_stays(3, 1 + below(3), true, false);
	}
}

static void a_walk_sees_who_stays_while_others_come(void **state)
{
	(void)state;
	for (unsigned n = 0; n < 30; n++) {
		walk_sees_who_stays(20, 1 + below(40), false, true);
		walk_sees_who_stays(3, 1 + below(3), false, true);
	}
}

static void count_visit(void *value, void *data)
{
	visited[(char *)value - values] = true;
	++*(unsigned *)data;
}

static void a_walk_of_what_stands_still_visits_each_once(void **state)
{
	uint64_t cursor = 0;
	unsigned n = 0, said = 0;
	(void)state;
	memset(visited, 0, sizeof visited);
	said += idmap_walk(&map, &cursor, count_visit, &n);
	assert_int_equal(cursor, 0);
	for (size_t i = 0; i < WALK_IDS; i++)
		step(1, 1, i, true);
	do
		said += idmap_walk(&map, &cursor, count_visit, &n);
	while (cursor);
	assert_int_equal(n, WALK_IDS);
	assert_int_equal(said, WALK_IDS);
	for (size_t i = 0; i < WALK_IDS; i++)
		assert_true(visited[i]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(an_empty_map_has_nothing, start, end),
		cmocka_unit_test_setup_teardown(consecutive_ids, start, end),
		cmocka_unit_test_setup_teardown(strided_ids, start, end),
		cmocka_unit_test_setup_teardown(huge_ids, start, end),
		cmocka_unit_test_setup_teardown(runs_wrap_around, start, end),
		cmocka_unit_test_setup_teardown(it_grows_and_shrinks, start, end),
		cmocka_unit_test_setup_teardown(stale_ids_find_nothing, start, end),
		cmocka_unit_test_setup_teardown(a_walk_sees_who_stays_while_others_leave, start, end),
		cmocka_unit_test_setup_teardown(a_walk_sees_who_stays_while_others_come, start, end),
		cmocka_unit_test_setup_teardown(a_walk_of_what_stands_still_visits_each_once, start, end),
	};
	return cmocka_run_group_tests_name("idmap", tests, NULL, NULL);
}
