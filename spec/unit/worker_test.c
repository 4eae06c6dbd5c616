/* What a worker that is held up gives away: the orders alone, without its thread. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "worker/worker.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { ASKED_MAX = 100 };

static uv_loop_t loop;
static struct worker one, other;
static uint16_t asked[ASKED_MAX]; /* slots of the listeners that a taker was asked for */
static unsigned asked_count;

static void open_worker(struct worker *worker)
{
	memset(worker, 0, sizeof *worker);
	assert_int_equal(orders_open(&worker->orders), 0);
	assert_int_equal(uv_async_init(&loop, &worker->wake, NULL), 0);
}

static void close_worker(struct worker *worker)
{
	struct mail *mail;
	while ((mail = orders_pop(&worker->orders)))
		free(mail);
	orders_close(&worker->orders);
	uv_close((uv_handle_t *)&worker->wake, NULL);
}

/* Three clients are given to `one`, by listeners 0 to 2. */
static int begin_test(void **state)
{
	(void)state;
	struct sockaddr_in6 peer = { 0 };
	asked_count = 0;
	uv_loop_init(&loop);
	open_worker(&one);
	open_worker(&other);
	for (uint16_t slot = 0; slot < 3; slot++)
		if (worker_give(&one, -1, slot, slot + 1, &peer, &peer, false))
			return -1;
	return 0;
}

static int end_test(void **state)
{
	(void)state;
	close_worker(&one);
	close_worker(&other);
	uv_run(&loop, UV_RUN_DEFAULT);
	return uv_loop_close(&loop);
}

#define WITH_WORKERS(TEST) cmocka_unit_test_setup_teardown(TEST, begin_test, end_test)

/* Bounded, so that a worker that gives to itself for ever does not. */
static bool note(uint16_t slot)
{
	if (asked_count == ASKED_MAX)
		return false;
	asked[asked_count++] = slot;
	return true;
}

static struct worker *take_by_itself(void *owner, uint16_t slot)
{
	(void)owner;
	return note(slot) ? &one : NULL;
}

static struct worker *take_the_second(void *owner, uint16_t slot)
{
	(void)owner;
	return !note(slot) ? NULL : slot == 1 ? &other : &one;
}

static unsigned count_orders(struct worker *worker)
{
	unsigned n = 0;
	for (struct mail *mail; (mail = orders_pop(&worker->orders)); n++)
		free(mail);
	return n;
}

static void a_worker_that_turns_again_keeps_its_clients(void **state)
{
	(void)state;
	worker_give_away(&one, take_by_itself, NULL);
	assert_int_equal(asked_count, 3);
	for (uint16_t slot = 0; slot < 3; slot++)
		assert_int_equal(asked[slot], slot);
	assert_int_equal(atomic_load(&one.load), 3);
	assert_int_equal(count_orders(&one), 3);
}

static void the_others_get_what_they_take(void **state)
{
	(void)state;
	worker_give_away(&one, take_the_second, NULL);
	assert_in_range(asked_count, 3, 5);
	assert_int_equal(atomic_load(&one.load), 2);
	assert_int_equal(atomic_load(&other.load), 1);
	assert_int_equal(count_orders(&one), 2);
	assert_int_equal(count_orders(&other), 1);
}

/* Mail to a worker that has gone away: clients that it was given are not left hanging. */
static void who_was_given_to_one_that_has_ended_is_let_go(void **state)
{
	(void)state;
	struct sockaddr_in6 peer = { 0 };
	int fds[2];
	char byte;
	assert_int_equal(pipe(fds), 0);
	assert_int_equal(worker_give(&one, fds[1], 3, 4, &peer, &peer, false), 0);
	worker_set_policy(&one, RELOAD_DRAIN);
	worker_drain(&one); /* part of the worker: nothing of it is to be freed */
	worker_drop_orders(&one);
	assert_int_equal(read(fds[0], &byte, 1), 0);
	assert_int_equal(count_orders(&one), 0);
	close(fds[0]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_WORKERS(a_worker_that_turns_again_keeps_its_clients),
		WITH_WORKERS(the_others_get_what_they_take),
		WITH_WORKERS(who_was_given_to_one_that_has_ended_is_let_go),
	};
	return cmocka_run_group_tests_name("worker", tests, NULL, NULL);
}
