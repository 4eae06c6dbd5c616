#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/err.h"
#include "base/outq.h"

#include <stdlib.h>
#include <string.h>

enum { STEPS = 20000, EXPECTED_MAX = 1 << 20, LARGE = 3 * OUTQ_SHARE_BYTES };

static uint64_t seed = 20261129;

static uint32_t below(uint32_t bound)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return (uint32_t)(seed >> 16) % bound;
}

static struct buf_pool pool;
static struct outq out;

static int begin(void **state)
{
	(void)state;
	buf_pool_init(&pool, 0, 4);
	return 0;
}

static int end(void **state)
{
	(void)state;
	outq_release(&out, &pool);
	assert_int_equal(pool.lent_bytes, 0);
	buf_pool_deinit(&pool);
	return 0;
}

static struct shared *shared_of(char letter, uint32_t len)
{
	static char bytes[LARGE];
	memset(bytes, letter, len);
	return shared_new(bytes, len);
}

/* All that is pending, of the parts that fit; returns how many bytes. */
static size_t gather(char *to)
{
	struct iovec parts[OUTQ_IOV_MAX];
	int n = out.bytes ? outq_parts(&out, parts) : 0;
	size_t at = 0;
	for (int i = 0; i < n; i++) {
		assert_true(parts[i].iov_len > 0);
		memcpy(to + at, parts[i].iov_base, parts[i].iov_len);
		at += parts[i].iov_len;
	}
	return at;
}

static void nothing_pending_holds_nothing(void **state)
{
	(void)state;
	assert_null(out.bytes);
	assert_int_equal(outq_len(&out), 0);
	assert_false(outq_has_pieces(&out));
	struct shared *shared = shared_of('s', LARGE);
	assert_int_equal(outq_share(&out, &pool, shared, 0, LARGE), 0);
	assert_int_equal(outq_len(&out), LARGE);
	outq_consume(&out, &pool, LARGE);
	assert_null(out.bytes);
	assert_int_equal(atomic_load(&shared->refs), 1);
	shared_drop(shared);
}

static void few_bytes_are_copied(void **state)
{
	(void)state;
	struct shared *shared = shared_of('s', OUTQ_SHARE_BYTES);
	assert_int_equal(outq_share(&out, &pool, shared, 1, OUTQ_SHARE_BYTES - 1), 0);
	assert_false(outq_has_pieces(&out));
	assert_int_equal(atomic_load(&shared->refs), 1);
	assert_int_equal(outq_share(&out, &pool, shared, 0, OUTQ_SHARE_BYTES), 0);
	assert_true(outq_has_pieces(&out));
	assert_int_equal(atomic_load(&shared->refs), 2);
	shared_drop(shared);
	assert_int_equal(outq_len(&out), 2 * OUTQ_SHARE_BYTES - 1);
}

static void without_room_nothing_is_queued(void **state)
{
	(void)state;
	struct shared *shared = shared_of('s', LARGE);
	pool.limit_bytes = 1;
	assert_int_equal(outq_share(&out, &pool, shared, 0, LARGE), ERR_BUFFER_LIMIT);
	assert_null(out.bytes);
	assert_int_equal(atomic_load(&shared->refs), 1);
	shared_drop(shared);
}

static void parts_are_counted(void **state)
{
	(void)state;
	static char got[OUTQ_IOV_MAX * (LARGE + 1)];
	struct shared *shared = shared_of('s', LARGE);
	for (int i = 0; i < OUTQ_IOV_MAX; i++) {
		assert_int_equal(buf_append(&pool, &out.bytes, "o", 1), 0);
		assert_int_equal(outq_share(&out, &pool, shared, 0, LARGE), 0);
	}
	assert_int_equal(outq_len(&out), OUTQ_IOV_MAX * (LARGE + 1));
	assert_int_equal(gather(got), OUTQ_IOV_MAX / 2 * (LARGE + 1));
	outq_release(&out, &pool);
	assert_int_equal(atomic_load(&shared->refs), 1);
	shared_drop(shared);
}

/* Against one flat row of bytes. */
static void whatever_is_queued_comes_in_order(void **state)
{
	(void)state;
	static char expected[EXPECTED_MAX], got[EXPECTED_MAX];
	size_t len = 0;
	for (unsigned step = 0; step < STEPS; step++) {
		char letter = (char)('a' + step % 26);
		uint32_t n = 1 + below(below(4) ? 64 : LARGE - 1);
		if (below(3) == 0 && len + n <= sizeof expected) {
			memset(expected + len, letter, n);
			assert_int_equal(buf_append(&pool, &out.bytes, expected + len, n), 0);
			len += n;
		} else if (below(2) == 0 && len + n <= sizeof expected) {
			struct shared *shared = shared_of(letter, n);
			uint32_t at = below(n), part = n - at;
			assert_int_equal(outq_share(&out, &pool, shared, at, part), 0);
			shared_drop(shared);
			memset(expected + len, letter, part);
			len += part;
		} else if (len) {
			size_t gone = 1 + below((uint32_t)len);
			outq_consume(&out, &pool, gone);
			memmove(expected, expected + gone, len - gone);
			len -= gone;
		}
		assert_int_equal(outq_len(&out), len);
		size_t seen = gather(got);
		assert_memory_equal(got, expected, seen);
		assert_true(seen == len || seen >= OUTQ_IOV_MAX / 2);
		assert_true(!out.bytes == !len);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(nothing_pending_holds_nothing, begin, end),
		cmocka_unit_test_setup_teardown(few_bytes_are_copied, begin, end),
		cmocka_unit_test_setup_teardown(without_room_nothing_is_queued, begin, end),
		cmocka_unit_test_setup_teardown(parts_are_counted, begin, end),
		cmocka_unit_test_setup_teardown(whatever_is_queued_comes_in_order, begin, end),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
