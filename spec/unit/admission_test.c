#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "server/admission.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

static uint64_t seed = 1;

static uint64_t rnd(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed;
}

/* ---- who is who ---- */

static struct peer_key v4(const char *text, uint16_t port)
{
	struct sockaddr_in in = { .sin_family = AF_INET, .sin_port = htons(port) };
	assert_int_equal(inet_pton(AF_INET, text, &in.sin_addr), 1);
	return peer_key_of((const struct sockaddr *)&in);
}

static struct peer_key v6(const char *text, uint16_t port)
{
	struct sockaddr_in6 in6 = { .sin6_family = AF_INET6, .sin6_port = htons(port) };
	assert_int_equal(inet_pton(AF_INET6, text, &in6.sin6_addr), 1);
	return peer_key_of((const struct sockaddr *)&in6);
}

static bool same(struct peer_key a, struct peer_key b)
{
	return a.bits == b.bits && a.family == b.family && a.counted == b.counted;
}

static void an_ipv4_client_is_its_address(void **state)
{
	(void)state;
	struct peer_key key = v4("192.0.2.1", 1000);
	assert_int_equal(key.family, 4);
	assert_true(key.counted);
	assert_true(key.bits == 0xc0000201);
	assert_true(same(key, v4("192.0.2.1", 2000)));
	assert_false(same(key, v4("192.0.2.2", 1000)));
}

static void a_mapped_address_is_the_ipv4_one(void **state)
{
	(void)state;
	assert_true(same(v6("::ffff:192.0.2.1", 7), v4("192.0.2.1", 8)));
	assert_false(same(v6("::fffe:192.0.2.1", 7), v4("192.0.2.1", 7)));
}

static void an_ipv6_client_is_its_64(void **state)
{
	(void)state;
	struct peer_key key = v6("2001:db8:1:2::1", 1);
	assert_int_equal(key.family, 6);
	assert_true(key.counted);
	assert_true(same(key, v6("2001:db8:1:2:ffff:ffff:ffff:ffff", 2)));
	assert_false(same(key, v6("2001:db8:1:3::1", 1)));
	assert_false(same(v6("::c000:201", 1), v4("192.0.2.1", 1)));
	assert_false(same(v6("::1", 1), v4("0.0.0.0", 1)));
}

static struct peer_key on_link(const char *text, uint32_t scope)
{
	struct sockaddr_in6 in6 = { .sin6_family = AF_INET6, .sin6_scope_id = scope };
	assert_int_equal(inet_pton(AF_INET6, text, &in6.sin6_addr), 1);
	return peer_key_of((const struct sockaddr *)&in6);
}

static void a_link_local_client_is_its_address_on_its_link(void **state)
{
	(void)state;
	assert_true(same(on_link("fe80::1", 2), on_link("fe80::1", 2)));
	assert_false(same(on_link("fe80::1", 2), on_link("fe80::2", 2)));
	assert_false(same(on_link("fe80::1", 2), on_link("fe80::1", 3)));
	assert_false(same(on_link("fe80::1", 2), v6("0:0:0:1::", 0)));
}

static void unix_peers_are_not_counted(void **state)
{
	(void)state;
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	struct peer_key key = peer_key_of((const struct sockaddr *)&un);
	assert_int_equal(key.family, 0);
	assert_false(key.counted);
	assert_false(peer_key_of(NULL).counted);
}

/* ---- connections per peer ---- */

static struct peer_key key_number(uint64_t n)
{
	return (struct peer_key){ .bits = n, .family = n % 3 ? 4 : 6, .counted = true };
}

static void the_limit_holds_for_each_peer(void **state)
{
	(void)state;
	struct peer_table *table = peer_table_new();
	struct peer_key a = v4("192.0.2.1", 1), b = v4("192.0.2.2", 1);
	assert_true(peer_table_enter(table, a, 2));
	assert_true(peer_table_enter(table, a, 2));
	assert_false(peer_table_enter(table, a, 2));
	assert_true(peer_table_enter(table, b, 2));
	assert_int_equal(peer_table_count(table, a), 2);
	assert_int_equal(peer_table_size(table), 2);
	peer_table_leave(table, a);
	assert_true(peer_table_enter(table, a, 2));
	assert_false(peer_table_enter(table, a, 1));
	assert_false(peer_table_enter(table, key_number(9), 0));
	assert_int_equal(peer_table_size(table), 2);
	peer_table_free(table);
}

static void families_do_not_mix(void **state)
{
	(void)state;
	struct peer_table *table = peer_table_new();
	struct peer_key four = { .bits = 1, .family = 4, .counted = true };
	struct peer_key six = { .bits = 1, .family = 6, .counted = true };
	assert_true(peer_table_enter(table, four, 1));
	assert_true(peer_table_enter(table, six, 1));
	peer_table_leave(table, four);
	assert_int_equal(peer_table_count(table, six), 1);
	peer_table_free(table);
}

static void the_uncounted_always_enter(void **state)
{
	(void)state;
	struct peer_table *table = peer_table_new();
	struct peer_key key = peer_key_of(NULL);
	for (unsigned i = 0; i < 10; i++)
		assert_true(peer_table_enter(table, key, 1));
	assert_int_equal(peer_table_count(table, key), 0);
	assert_int_equal(peer_table_size(table), 0);
	peer_table_leave(table, key);
	peer_table_free(table);
}

static void many_peers_come_and_go(void **state)
{
	(void)state;
	enum { PEERS = 20000 };
	struct peer_table *table = peer_table_new();
	for (unsigned round = 0; round < 2; round++) {
		for (uint64_t i = 0; i < PEERS; i++)
			assert_true(peer_table_enter(table, key_number(i), 1));
		assert_int_equal(peer_table_size(table), PEERS);
		for (uint64_t i = 0; i < PEERS; i++)
			assert_false(peer_table_enter(table, key_number(i), 1));
		for (uint64_t i = 0; i < PEERS; i++) {
			peer_table_leave(table, key_number(i));
			assert_int_equal(peer_table_count(table, key_number(i)), 0);
			assert_int_equal(peer_table_count(table, key_number(PEERS - 1)), i < PEERS - 1);
		}
		assert_int_equal(peer_table_size(table), 0);
	}
	peer_table_free(table);
}

/* The smallest table, as full as it gets: runs that wrap around its end are common, and each new
 * table has another seed. */
static void leaving_hides_no_other_peer(void **state)
{
	(void)state;
	enum { PEERS = 12 };
	for (unsigned round = 0; round < 2000; round++) {
		struct peer_table *table = peer_table_new();
		bool in[PEERS];
		for (unsigned i = 0; i < PEERS; i++)
			in[i] = peer_table_enter(table, key_number(i), 1);
		for (unsigned left = PEERS; left > 0; left--) {
			unsigned gone = (unsigned)(rnd() % PEERS);
			while (!in[gone])
				gone = (gone + 1) % PEERS;
			peer_table_leave(table, key_number(gone));
			in[gone] = false;
			for (unsigned i = 0; i < PEERS; i++)
				assert_int_equal(peer_table_count(table, key_number(i)), in[i]);
		}
		peer_table_free(table);
	}
}

static void it_agrees_with_an_array(void **state)
{
	(void)state;
	enum { PEERS = 500, LIMIT = 3, OPS = 200000 };
	struct peer_table *table = peer_table_new();
	uint32_t want[PEERS] = { 0 };
	size_t present = 0;
	for (unsigned op = 0; op < OPS; op++) {
		unsigned i = (unsigned)(rnd() % PEERS);
		/* The tide turns, so that the table grows and shrinks. */
		bool enter = rnd() % 4 < (op / 20000 % 2 ? 1 : 3);
		if (enter) {
			assert_int_equal(peer_table_enter(table, key_number(i), LIMIT), want[i] < LIMIT);
			present += want[i] == 0;
			want[i] += want[i] < LIMIT;
		} else if (want[i] > 0) {
			peer_table_leave(table, key_number(i));
			want[i]--;
			present -= want[i] == 0;
		}
		unsigned other = (unsigned)(rnd() % PEERS);
		assert_int_equal(peer_table_count(table, key_number(other)), want[other]);
		assert_int_equal(peer_table_size(table), present);
	}
	for (unsigned i = 0; i < PEERS; i++)
		assert_int_equal(peer_table_count(table, key_number(i)), want[i]);
	peer_table_free(table);
}

/* ---- from many threads ---- */

enum { THREADS = 4, SHARED = 200, TURNS = 20000, SHARED_LIMIT = 2 };

static atomic_uint inside[SHARED];
static atomic_uint breaches;

static void *come_and_go(void *data)
{
	struct peer_table *table = data;
	unsigned mine[SHARED] = { 0 };
	uint64_t random = (uintptr_t)mine | 1;
	for (unsigned turn = 0; turn < TURNS; turn++) {
		random = random * UINT64_C(6364136223846793005) + 1442695040888963407;
		unsigned i = (unsigned)(random >> 33) % SHARED;
		if (mine[i] > 0) {
			atomic_fetch_sub(&inside[i], 1);
			peer_table_leave(table, key_number(i));
			mine[i]--;
		} else if (peer_table_enter(table, key_number(i), SHARED_LIMIT)) {
			if (atomic_fetch_add(&inside[i], 1) >= SHARED_LIMIT)
				atomic_fetch_add(&breaches, 1);
			mine[i]++;
		}
	}
	for (unsigned i = 0; i < SHARED; i++)
		for (; mine[i] > 0; mine[i]--) {
			atomic_fetch_sub(&inside[i], 1);
			peer_table_leave(table, key_number(i));
		}
	return NULL;
}

static void threads_share_a_table(void **state)
{
	(void)state;
	struct peer_table *table = peer_table_new();
	pthread_t threads[THREADS];
	for (unsigned i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, come_and_go, table), 0);
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	assert_int_equal(atomic_load(&breaches), 0);
	assert_int_equal(peer_table_size(table), 0);
	peer_table_free(table);
}

/* ---- accepts a second ---- */

static unsigned take_all(struct rate *rate, uint64_t now_ms)
{
	unsigned n = 0;
	while (rate_take(rate, now_ms))
		n++;
	return n;
}

static void no_rate_is_no_limit(void **state)
{
	(void)state;
	static const double none[] = { 0, -1, 0.0 / 0.0, 1 / 0.0 };
	for (unsigned i = 0; i < 4; i++) {
		struct rate rate;
		rate_init(&rate, none[i], 0);
		for (unsigned n = 0; n < 1000; n++)
			assert_true(rate_take(&rate, 0));
		assert_true(rate_wait_ms(&rate, 0) == 0);
	}
}

static void a_burst_is_one_seconds_worth(void **state)
{
	(void)state;
	struct rate rate;
	rate_init(&rate, 100, 5000);
	assert_int_equal(take_all(&rate, 5000), 100);
	assert_true(rate_wait_ms(&rate, 5000) == 10);
	assert_int_equal(take_all(&rate, 5009), 0);
	assert_int_equal(take_all(&rate, 5010), 1);
	assert_int_equal(take_all(&rate, 5510), 50);
}

static void a_long_idle_time_saves_no_more_than_a_burst(void **state)
{
	(void)state;
	struct rate rate;
	rate_init(&rate, 100, 0);
	take_all(&rate, 0);
	assert_int_equal(take_all(&rate, UINT64_C(1) << 50), 100);
	assert_int_equal(take_all(&rate, UINT64_MAX), 100);
}

static void less_than_one_a_second_works(void **state)
{
	(void)state;
	struct rate rate;
	rate_init(&rate, 0.5, 0);
	assert_int_equal(take_all(&rate, 0), 1);
	assert_true(rate_wait_ms(&rate, 0) == 2000);
	assert_int_equal(take_all(&rate, 1999), 0);
	assert_int_equal(take_all(&rate, 2000), 1);
	assert_int_equal(take_all(&rate, 60000), 1);
}

static void a_clock_that_goes_back_gives_nothing(void **state)
{
	(void)state;
	struct rate rate;
	rate_init(&rate, 1, 10000);
	assert_int_equal(take_all(&rate, 10000), 1);
	assert_int_equal(take_all(&rate, 0), 0);
	assert_int_equal(take_all(&rate, 10999), 0);
	assert_int_equal(take_all(&rate, 11000), 1);
}

static const double RATES[] = { 0.001, 0.1, 0.3, 0.5, 1, 3, 7.3, 99.9, 333, 1000, 1e6 };

static void waiting_is_never_in_vain_nor_too_long(void **state)
{
	(void)state;
	for (unsigned i = 0; i < sizeof RATES / sizeof *RATES; i++) {
		struct rate rate;
		uint64_t now = rnd() >> 23;
		rate_init(&rate, RATES[i], now);
		for (unsigned op = 0; op < 5000; op++) {
			now += rnd() % 4 ? 0 : rnd() % 700;
			uint64_t wait = rate_wait_ms(&rate, now);
			/* Asking in between, in vain, must not put it off. */
			for (uint64_t ms = 0; ms < wait && ms < 5; ms++)
				assert_false(rate_take(&rate, now + ms));
			if (wait > 0)
				assert_false(rate_take(&rate, now + wait - 1));
			now += wait;
			assert_true(rate_wait_ms(&rate, now) == 0);
			assert_true(rate_take(&rate, now));
		}
	}
}

static void the_long_run_average_is_the_rate(void **state)
{
	(void)state;
	for (unsigned i = 0; i + 1 < sizeof RATES / sizeof *RATES; i++) {
		struct rate rate;
		rate_init(&rate, RATES[i], 0);
		unsigned first = take_all(&rate, 0), taken = 0;
		uint64_t now = 0;
		for (; now < 100000; now += 1 + rnd() % 5)
			taken += take_all(&rate, now);
		assert_true(first >= 1);
		assert_true(taken <= RATES[i] * (double)now / 1000 + 1e-6);
		assert_true(taken + 1 >= RATES[i] * ((double)now - 5) / 1000 - 5 * RATES[i] / 1000 - 1);
	}
}

static void an_absurd_rate_neither_hangs_nor_overflows(void **state)
{
	(void)state;
	static const double absurd[] = { 5e-324, 1e-300, 1e-15, 1e-12, 1e300 };
	for (unsigned i = 0; i < 5; i++) {
		struct rate rate;
		rate_init(&rate, absurd[i], 1000);
		assert_true(rate_take(&rate, 1000));
		if (absurd[i] < 1)
			assert_true(rate_wait_ms(&rate, 1000) > UINT64_C(900000000000000));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_ipv4_client_is_its_address),
		cmocka_unit_test(a_mapped_address_is_the_ipv4_one),
		cmocka_unit_test(an_ipv6_client_is_its_64),
		cmocka_unit_test(a_link_local_client_is_its_address_on_its_link),
		cmocka_unit_test(unix_peers_are_not_counted),
		cmocka_unit_test(the_limit_holds_for_each_peer),
		cmocka_unit_test(families_do_not_mix),
		cmocka_unit_test(the_uncounted_always_enter),
		cmocka_unit_test(many_peers_come_and_go),
		cmocka_unit_test(leaving_hides_no_other_peer),
		cmocka_unit_test(it_agrees_with_an_array),
		cmocka_unit_test(threads_share_a_table),
		cmocka_unit_test(no_rate_is_no_limit),
		cmocka_unit_test(a_burst_is_one_seconds_worth),
		cmocka_unit_test(a_long_idle_time_saves_no_more_than_a_burst),
		cmocka_unit_test(less_than_one_a_second_works),
		cmocka_unit_test(a_clock_that_goes_back_gives_nothing),
		cmocka_unit_test(waiting_is_never_in_vain_nor_too_long),
		cmocka_unit_test(the_long_run_average_is_the_rate),
		cmocka_unit_test(an_absurd_rate_neither_hangs_nor_overflows),
	};
	return cmocka_run_group_tests_name("admission", tests, NULL, NULL);
}
