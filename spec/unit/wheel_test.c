#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/wheel.h"

#include <stdlib.h>

static const uint64_t DAY_MS = UINT64_C(86400000);
static const uint64_t REACH_MS = UINT64_C(1) << 36;

static uint64_t seed = 1;

static uint64_t rnd(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed;
}

/* Every order of magnitude is as likely as any other. */
static uint64_t rnd_bits(unsigned max_bits)
{
	unsigned bits = (unsigned)(rnd() % (max_bits + 1));
	return bits ? rnd() >> (64 - bits) : 0;
}

static unsigned count_due(struct wheel_node *due)
{
	unsigned n = 0;
	while (wheel_pop(due))
		n++;
	return n;
}

static unsigned advance(struct wheel *wheel, uint64_t now_ms)
{
	struct wheel_node due;
	wheel_advance(wheel, now_ms, &due);
	return count_due(&due);
}

/* ---- single promises ---- */

static void an_empty_wheel_has_nothing_to_do(void **state)
{
	(void)state;
	struct wheel wheel;
	wheel_init(&wheel, 5);
	assert_true(wheel_next_ms(&wheel) == WHEEL_NEVER);
	assert_int_equal(advance(&wheel, 6), 0);
	assert_int_equal(advance(&wheel, UINT64_MAX), 0);
	assert_true(wheel_next_ms(&wheel) == WHEEL_NEVER);
}

static void a_node_is_due_in_its_millisecond_and_not_before(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 2000; i++) {
		uint64_t start = rnd_bits(45), delay = 1 + rnd_bits(40);
		struct wheel wheel;
		struct wheel_node node = { 0 };
		wheel_init(&wheel, start);
		wheel_arm(&wheel, &node, start + delay);
		assert_int_equal(advance(&wheel, start + delay - 1), 0);
		assert_true(wheel_armed(&node));
		assert_int_equal(advance(&wheel, start + delay), 1);
		assert_false(wheel_armed(&node));
	}
}

static void the_past_and_the_present_are_due_at_the_next_advance(void **state)
{
	(void)state;
	struct wheel wheel;
	struct wheel_node past = { 0 }, present = { 0 };
	wheel_init(&wheel, 1000);
	wheel_arm(&wheel, &past, 0);
	wheel_arm(&wheel, &present, 1000);
	assert_true(wheel_next_ms(&wheel) == 1000);
	assert_int_equal(advance(&wheel, 1000), 2);
}

static void time_never_goes_back(void **state)
{
	(void)state;
	struct wheel wheel;
	struct wheel_node node = { 0 };
	wheel_init(&wheel, 1000);
	wheel_arm(&wheel, &node, 1100);
	assert_int_equal(advance(&wheel, 10), 0);
	assert_true(wheel.now_ms == 1000);
	assert_int_equal(advance(&wheel, 1099), 0);
	assert_int_equal(advance(&wheel, 1100), 1);
}

static void rearming_replaces_the_deadline(void **state)
{
	(void)state;
	struct wheel wheel;
	struct wheel_node node = { 0 };
	wheel_init(&wheel, 0);
	wheel_arm(&wheel, &node, 10);
	wheel_arm(&wheel, &node, 100000);
	wheel_arm(&wheel, &node, 5000);
	assert_int_equal(advance(&wheel, 4999), 0);
	assert_int_equal(advance(&wheel, 5000), 1);
	assert_int_equal(advance(&wheel, 200000), 0);
}

static void disarming_is_harmless_at_any_time(void **state)
{
	(void)state;
	struct wheel wheel;
	struct wheel_node node = { 0 };
	wheel_init(&wheel, 0);
	wheel_disarm(&node);
	wheel_arm(&wheel, &node, 70);
	wheel_disarm(&node);
	wheel_disarm(&node);
	assert_false(wheel_armed(&node));
	assert_true(wheel_next_ms(&wheel) == WHEEL_NEVER);
	assert_int_equal(advance(&wheel, 1000), 0);
}

static void bits_left_by_disarming_are_cleared(void **state)
{
	(void)state;
	struct wheel wheel;
	struct wheel_node node = { 0 };
	wheel_init(&wheel, 12345);
	for (unsigned i = 0; i < 1000; i++)
		wheel_arm(&wheel, &node, 12345 + rnd_bits(36));
	wheel_disarm(&node);
	assert_int_equal(advance(&wheel, 12345), 0);
	for (unsigned level = 0; level < WHEEL_LEVELS; level++)
		assert_true(wheel.occupied[level] == 0);
}

static void due_nodes_come_in_order_and_equal_ones_as_armed(void **state)
{
	(void)state;
	static const uint64_t at[] = { 70, 5000, 3, 70, 64, 300000, 3, 4096, 5000 };
	static const unsigned order[] = { 2, 6, 4, 0, 3, 7, 1, 8, 5 };
	struct wheel wheel;
	struct wheel_node nodes[9] = { 0 }, due;
	wheel_init(&wheel, 0);
	for (unsigned i = 0; i < 9; i++)
		wheel_arm(&wheel, &nodes[i], at[i]);
	wheel_advance(&wheel, 400000, &due);
	for (unsigned i = 0; i < 9; i++)
		assert_ptr_equal(wheel_pop(&due), &nodes[order[i]]);
	assert_null(wheel_pop(&due));
}

static void a_due_node_can_still_be_disarmed(void **state)
{
	(void)state;
	struct wheel wheel;
	struct wheel_node a = { 0 }, b = { 0 }, c = { 0 }, due;
	wheel_init(&wheel, 0);
	wheel_arm(&wheel, &a, 1);
	wheel_arm(&wheel, &b, 2);
	wheel_arm(&wheel, &c, 3);
	wheel_advance(&wheel, 10, &due);
	assert_ptr_equal(wheel_pop(&due), &a);
	assert_true(wheel_armed(&b));
	wheel_disarm(&b);
	assert_ptr_equal(wheel_pop(&due), &c);
	assert_null(wheel_pop(&due));
}

static void due_handling_may_rearm_what_is_and_what_was_due(void **state)
{
	(void)state;
	struct wheel wheel;
	struct wheel_node a = { 0 }, b = { 0 }, due;
	wheel_init(&wheel, 0);
	wheel_arm(&wheel, &a, 1);
	wheel_arm(&wheel, &b, 2);
	wheel_advance(&wheel, 10, &due);
	assert_ptr_equal(wheel_pop(&due), &a);
	wheel_arm(&wheel, &a, 0);   /* in the past: not in this round again */
	wheel_arm(&wheel, &b, 500); /* straight from the due list */
	assert_null(wheel_pop(&due));
	assert_true(wheel_next_ms(&wheel) == 10);
	wheel_advance(&wheel, 10, &due);
	assert_ptr_equal(wheel_pop(&due), &a);
	assert_null(wheel_pop(&due));
	assert_int_equal(advance(&wheel, 499), 0);
	assert_int_equal(advance(&wheel, 500), 1);
}

static void deadlines_beyond_the_wheel_are_kept(void **state)
{
	(void)state;
	static const uint64_t starts[] = { 0, 1, (UINT64_C(1) << 36) - 1, (UINT64_C(63) << 30) + 17 };
	for (unsigned i = 0; i < 4; i++) {
		struct wheel wheel;
		struct wheel_node far = { 0 }, further = { 0 }, next_door = { 0 }, never = { 0 };
		uint64_t start = starts[i];
		wheel_init(&wheel, start);
		wheel_arm(&wheel, &further, start + 1000 * REACH_MS + 1);
		wheel_arm(&wheel, &far, start + REACH_MS);
		wheel_arm(&wheel, &next_door, start + 1);
		wheel_arm(&wheel, &never, UINT64_MAX);
		assert_true(wheel_next_ms(&wheel) == start + 1);
		assert_int_equal(advance(&wheel, start + 1), 1);
		assert_int_equal(advance(&wheel, start + REACH_MS - 1), 0);
		assert_int_equal(advance(&wheel, start + REACH_MS), 1);
		assert_int_equal(advance(&wheel, start + 1000 * REACH_MS), 0);
		assert_int_equal(advance(&wheel, start + 1000 * REACH_MS + 1), 1);
		assert_true(wheel_armed(&never));
	}
}

static void a_deadline_just_across_the_wheels_turn_is_near(void **state)
{
	(void)state;
	struct wheel wheel;
	struct wheel_node node = { 0 };
	wheel_init(&wheel, REACH_MS - 1);
	wheel_arm(&wheel, &node, REACH_MS + 1);
	assert_true(wheel_next_ms(&wheel) <= REACH_MS + 1);
	assert_int_equal(advance(&wheel, REACH_MS), 0);
	assert_int_equal(advance(&wheel, REACH_MS + 1), 1);
}

static void the_end_of_time_can_be_reached(void **state)
{
	(void)state;
	struct wheel wheel;
	struct wheel_node last = { 0 }, before = { 0 };
	wheel_init(&wheel, UINT64_MAX - 3 * REACH_MS);
	wheel_arm(&wheel, &last, UINT64_MAX - 1);
	wheel_arm(&wheel, &before, UINT64_MAX - DAY_MS);
	assert_int_equal(advance(&wheel, UINT64_MAX - DAY_MS), 1);
	assert_int_equal(advance(&wheel, UINT64_MAX - 2), 0);
	assert_int_equal(advance(&wheel, UINT64_MAX - 1), 1);
}

static void waiting_for_next_meets_every_deadline_in_few_steps(void **state)
{
	(void)state;
	enum { N = 500 };
	static struct wheel_node nodes[N];
	for (unsigned round = 0; round < 20; round++) {
		struct wheel wheel;
		uint64_t now = rnd_bits(42);
		wheel_init(&wheel, now);
		for (unsigned i = 0; i < N; i++)
			wheel_arm(&wheel, &nodes[i], now + rnd_bits(35));
		unsigned met = 0, calls = 0;
		for (uint64_t next; (next = wheel_next_ms(&wheel)) != WHEEL_NEVER; calls++) {
			assert_true(calls == 0 || next > now);
			now = next;
			struct wheel_node due, *node;
			wheel_advance(&wheel, now, &due);
			for (; (node = wheel_pop(&due)); met++)
				assert_true(node->expires_ms == now);
		}
		assert_int_equal(met, N);
		assert_true(calls <= N * WHEEL_LEVELS);
	}
}

/* ---- against a model ---- */

enum { NODES = 300 };

struct model {
	struct wheel wheel;
	struct wheel_node nodes[NODES];
	struct {
		bool armed;
		uint64_t due_ms, serial;
	} want[NODES];
	uint64_t now_ms, serial;
};

static struct model m;

static int by_due_then_serial(const void *a, const void *b)
{
	unsigned i = *(const unsigned *)a, j = *(const unsigned *)b;
	if (m.want[i].due_ms != m.want[j].due_ms)
		return m.want[i].due_ms < m.want[j].due_ms ? -1 : 1;
	return m.want[i].serial < m.want[j].serial ? -1 : 1;
}

static unsigned model_due(unsigned due[NODES])
{
	unsigned n = 0;
	for (unsigned i = 0; i < NODES; i++)
		if (m.want[i].armed && m.want[i].due_ms <= m.now_ms)
			due[n++] = i;
	qsort(due, n, sizeof *due, by_due_then_serial);
	return n;
}

static void model_arm(unsigned i)
{
	bool back = rnd() % 16 == 0;
	uint64_t delta = rnd_bits(rnd() % 4 ? 18 : 34);
	uint64_t at = !back ? m.now_ms + delta : m.now_ms > delta ? m.now_ms - delta : 0;
	wheel_arm(&m.wheel, &m.nodes[i], at);
	m.want[i].armed = true;
	m.want[i].due_ms = at > m.now_ms ? at : m.now_ms;
	m.want[i].serial = m.serial++;
}

static void model_disarm(unsigned i)
{
	wheel_disarm(&m.nodes[i]);
	m.want[i].armed = false;
}

/* Advances, and while handling what is due arms and disarms others. */
static void model_advance(uint64_t now_ms)
{
	struct wheel_node due;
	unsigned want[NODES];
	m.now_ms = now_ms;
	wheel_advance(&m.wheel, now_ms, &due);
	unsigned n = model_due(want);
	for (unsigned i = 0; i < n; i++) {
		if (!m.want[want[i]].armed)
			continue;
		struct wheel_node *node = wheel_pop(&due);
		assert_ptr_equal(node, &m.nodes[want[i]]);
		m.want[want[i]].armed = false;
		if (i + 1 < n && rnd() % 8 == 0)
			model_disarm(want[i + 1 + rnd() % (n - i - 1)]);
		if (rnd() % 4 == 0)
			model_arm(want[i]);
	}
	assert_null(wheel_pop(&due));
}

static void check_next(void)
{
	uint64_t earliest = WHEEL_NEVER, next = wheel_next_ms(&m.wheel);
	for (unsigned i = 0; i < NODES; i++) {
		assert_true(m.want[i].armed == wheel_armed(&m.nodes[i]));
		if (m.want[i].armed && m.want[i].due_ms < earliest)
			earliest = m.want[i].due_ms;
	}
	assert_true(next <= earliest);
	assert_true((next == WHEEL_NEVER) == (earliest == WHEEL_NEVER));
	assert_true(next >= m.now_ms);
	if (earliest >> 6 == m.now_ms >> 6)
		assert_true(next == earliest);
}

static void model_step(void)
{
	unsigned i = (unsigned)(rnd() % NODES);
	switch (rnd() % 8) {
	case 0:
	case 1:
	case 2:
	case 3:
		model_arm(i);
		break;
	case 4:
		model_disarm(i);
		break;
	case 5:
		if (wheel_next_ms(&m.wheel) != WHEEL_NEVER)
			model_advance(wheel_next_ms(&m.wheel));
		break;
	default:
		model_advance(m.now_ms + rnd_bits(rnd() % 64 ? 12 : 33));
		break;
	}
}

static void it_agrees_with_a_sorted_list(void **state)
{
	(void)state;
	static const uint64_t starts[] = { 0, (UINT64_C(1) << 36) - 100000, (UINT64_C(1) << 30) - 5,
					   UINT64_C(1700000000000) };
	for (unsigned round = 0; round < 4; round++) {
		m = (struct model){ .now_ms = starts[round] };
		wheel_init(&m.wheel, m.now_ms);
		for (unsigned op = 0; op < 25000; op++) {
			model_step();
			if (op % 8 == 0)
				check_next();
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_empty_wheel_has_nothing_to_do),
		cmocka_unit_test(a_node_is_due_in_its_millisecond_and_not_before),
		cmocka_unit_test(the_past_and_the_present_are_due_at_the_next_advance),
		cmocka_unit_test(time_never_goes_back),
		cmocka_unit_test(rearming_replaces_the_deadline),
		cmocka_unit_test(disarming_is_harmless_at_any_time),
		cmocka_unit_test(bits_left_by_disarming_are_cleared),
		cmocka_unit_test(due_nodes_come_in_order_and_equal_ones_as_armed),
		cmocka_unit_test(a_due_node_can_still_be_disarmed),
		cmocka_unit_test(due_handling_may_rearm_what_is_and_what_was_due),
		cmocka_unit_test(deadlines_beyond_the_wheel_are_kept),
		cmocka_unit_test(a_deadline_just_across_the_wheels_turn_is_near),
		cmocka_unit_test(the_end_of_time_can_be_reached),
		cmocka_unit_test(waiting_for_next_meets_every_deadline_in_few_steps),
		cmocka_unit_test(it_agrees_with_a_sorted_list),
	};
	return cmocka_run_group_tests_name("wheel", tests, NULL, NULL);
}
