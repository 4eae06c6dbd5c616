#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/err.h"

#include <string.h>

/* What the smallest block carries. */
static const size_t SMALL = BUF_MIN_BYTES - sizeof(struct buf);

static uint64_t seed = 1;

static uint64_t rnd(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed;
}

static uint8_t bytes[1 << 20];

static int fill_bytes(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof bytes; i++)
		bytes[i] = (uint8_t)(rnd() >> 32);
	return 0;
}

static void assert_holds(const struct buf *b, const uint8_t *want, size_t n)
{
	assert_int_equal(buf_len(b), n);
	if (n > 0)
		assert_memory_equal(b->data + b->start, want, n);
}

static void nothing_pending_holds_no_block(void **state)
{
	(void)state;
	struct buf_pool pool;
	struct buf *b = NULL;
	buf_pool_init(&pool, 0, 4);
	assert_int_equal(buf_len(b), 0);
	assert_int_equal(buf_room(b), 0);
	assert_int_equal(buf_append(&pool, &b, "abc", 3), 0);
	assert_int_equal(pool.lent_bytes, SMALL);
	buf_consume(&pool, &b, 2);
	assert_holds(b, (const uint8_t *)"c", 1);
	buf_consume(&pool, &b, 1);
	assert_null(b);
	assert_int_equal(pool.lent_bytes, 0);
	buf_pool_deinit(&pool);
}

static void reserved_bytes_count_once_committed(void **state)
{
	(void)state;
	struct buf_pool pool;
	struct buf *b = NULL;
	buf_pool_init(&pool, 0, 4);
	uint8_t *to = buf_reserve(&pool, &b, 100);
	assert_non_null(to);
	assert_true(buf_room(b) >= 100);
	assert_int_equal(buf_len(b), 0);
	memcpy(to, bytes, 60);
	buf_commit(b, 60);
	assert_holds(b, bytes, 60);
	buf_release(&pool, &b);
	buf_pool_deinit(&pool);
}

static void a_buffer_grows_with_its_bytes(void **state)
{
	(void)state;
	struct buf_pool pool;
	struct buf *b = NULL;
	buf_pool_init(&pool, 0, 4);
	for (size_t n = 0; n < sizeof bytes; n += 1024) {
		assert_int_equal(buf_append(&pool, &b, bytes + n, 1024), 0);
		assert_int_equal(pool.lent_bytes, b->cap);
		assert_true(b->cap < 2 * (n + 1024) + 2 * BUF_MIN_BYTES);
	}
	assert_holds(b, bytes, sizeof bytes);
	buf_release(&pool, &b);
	assert_null(b);
	assert_int_equal(pool.lent_bytes, 0);
	buf_pool_deinit(&pool);
}

static void a_stale_front_makes_room_without_growing(void **state)
{
	(void)state;
	struct buf_pool pool;
	struct buf *b = NULL;
	buf_pool_init(&pool, 0, 4);
	assert_int_equal(buf_append(&pool, &b, bytes, SMALL), 0);
	buf_consume(&pool, &b, SMALL - 10);
	struct buf *before = b;
	assert_int_equal(buf_append(&pool, &b, bytes + SMALL, SMALL - 10), 0);
	assert_ptr_equal(b, before);
	assert_int_equal(b->start, 0);
	assert_holds(b, bytes + SMALL - 10, SMALL);
	buf_release(&pool, &b);
	buf_pool_deinit(&pool);
}

static void the_limit_refuses_and_changes_nothing(void **state)
{
	(void)state;
	struct buf_pool pool;
	struct buf *a = NULL, *b = NULL;
	buf_pool_init(&pool, SMALL, 4);
	assert_int_equal(buf_append(&pool, &a, bytes, SMALL - 1), 0);
	assert_int_equal(buf_append(&pool, &b, bytes, 1), ERR_BUFFER_LIMIT);
	assert_null(b);
	assert_int_equal(buf_append(&pool, &a, bytes, 2), ERR_BUFFER_LIMIT);
	assert_null(buf_reserve(&pool, &a, 2));
	assert_holds(a, bytes, SMALL - 1);
	assert_int_equal(pool.lent_bytes, SMALL);
	buf_release(&pool, &a);
	assert_int_equal(buf_append(&pool, &b, bytes, 1), 0);
	buf_release(&pool, &b);
	assert_int_equal(pool.lent_bytes, 0);
	buf_pool_deinit(&pool);
}

static void returned_blocks_are_lent_again(void **state)
{
	(void)state;
	struct buf_pool pool;
	struct buf *b = NULL;
	buf_pool_init(&pool, 0, 4);
	buf_append(&pool, &b, "x", 1);
	struct buf *first = b;
	buf_consume(&pool, &b, 1);
	assert_int_equal(pool.free_count, 1);
	buf_append(&pool, &b, "y", 1);
	assert_ptr_equal(b, first);
	assert_int_equal(pool.free_count, 0);
	assert_holds(b, (const uint8_t *)"y", 1);
	buf_release(&pool, &b);
	buf_pool_deinit(&pool);
}

static void the_pool_keeps_few_blocks_and_no_large_ones(void **state)
{
	(void)state;
	struct buf_pool pool;
	struct buf *b[5] = { 0 };
	buf_pool_init(&pool, 0, 2);
	for (unsigned i = 0; i < 5; i++)
		buf_append(&pool, &b[i], "x", 1);
	for (unsigned i = 0; i < 5; i++)
		buf_release(&pool, &b[i]);
	assert_int_equal(pool.free_count, 2);
	buf_pool_trim(&pool);
	assert_int_equal(pool.free_count, 0);
	assert_null(pool.free);
	buf_append(&pool, &b[0], bytes, BUF_POOLED_BYTES + 1);
	buf_release(&pool, &b[0]);
	assert_int_equal(pool.free_count, 0);
	buf_pool_deinit(&pool);
}

static void releasing_nothing_is_harmless(void **state)
{
	(void)state;
	struct buf_pool pool;
	struct buf *b = NULL;
	buf_pool_init(&pool, 0, 2);
	buf_release(&pool, &b);
	assert_null(b);
	assert_int_equal(pool.lent_bytes, 0);
	buf_pool_deinit(&pool);
}

/* ---- against a plain array ---- */

enum { QUEUES = 6, QUEUE_BYTES = 200000 };

static struct {
	struct buf *b;
	size_t len;
	uint8_t want[QUEUE_BYTES];
} queues[QUEUES];

static void model_append(struct buf_pool *pool, unsigned q)
{
	size_t n = rnd() % (rnd() % 16 ? 600 : 30000), from = rnd() % (sizeof bytes - n);
	size_t room = sizeof queues[q].want - queues[q].len;
	if (n == 0 || n > room)
		return;
	if (rnd() % 2) {
		if (buf_append(pool, &queues[q].b, bytes + from, n) != 0)
			return;
	} else {
		uint8_t *to = buf_reserve(pool, &queues[q].b, n);
		if (!to)
			return;
		n = 1 + rnd() % n; /* fewer came than there was room for */
		memcpy(to, bytes + from, n);
		buf_commit(queues[q].b, n);
	}
	memcpy(queues[q].want + queues[q].len, bytes + from, n);
	queues[q].len += n;
}

static void model_consume(struct buf_pool *pool, unsigned q)
{
	if (queues[q].len == 0)
		return;
	size_t n = 1 + rnd() % (rnd() % 4 ? queues[q].len : 1 + queues[q].len / 50);
	if (n > queues[q].len)
		n = queues[q].len;
	buf_consume(pool, &queues[q].b, n);
	queues[q].len -= n;
	memmove(queues[q].want, queues[q].want + n, queues[q].len);
}

static void check_accounts(const struct buf_pool *pool)
{
	size_t lent = 0;
	for (unsigned q = 0; q < QUEUES; q++) {
		lent += queues[q].b ? queues[q].b->cap : 0;
		assert_true((queues[q].len == 0) == (queues[q].b == NULL));
	}
	assert_int_equal(pool->lent_bytes, lent);
	assert_true(lent <= pool->limit_bytes);
	assert_true(pool->free_count <= pool->free_max);
}

static void queues_agree_with_plain_arrays(void **state)
{
	(void)state;
	struct buf_pool pool;
	buf_pool_init(&pool, 300000, 3);
	for (unsigned op = 0; op < 40000; op++) {
		unsigned q = (unsigned)(rnd() % QUEUES);
		if (rnd() % 500 == 0) {
			buf_release(&pool, &queues[q].b);
			queues[q].len = 0;
		} else if (rnd() % 2) {
			model_append(&pool, q);
		} else {
			model_consume(&pool, q);
		}
		if (rnd() % 1000 == 0)
			buf_pool_trim(&pool);
		check_accounts(&pool);
		assert_holds(queues[q].b, queues[q].want, queues[q].len);
	}
	for (unsigned q = 0; q < QUEUES; q++)
		buf_release(&pool, &queues[q].b);
	assert_int_equal(pool.lent_bytes, 0);
	buf_pool_deinit(&pool);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nothing_pending_holds_no_block),
		cmocka_unit_test(reserved_bytes_count_once_committed),
		cmocka_unit_test(a_buffer_grows_with_its_bytes),
		cmocka_unit_test(a_stale_front_makes_room_without_growing),
		cmocka_unit_test(the_limit_refuses_and_changes_nothing),
		cmocka_unit_test(returned_blocks_are_lent_again),
		cmocka_unit_test(the_pool_keeps_few_blocks_and_no_large_ones),
		cmocka_unit_test(releasing_nothing_is_harmless),
		cmocka_unit_test(queues_agree_with_plain_arrays),
	};
	return cmocka_run_group_tests_name("buf", tests, fill_bytes, NULL);
}
