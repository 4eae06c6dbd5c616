/* Names to addresses, asked of a DNS server in this process. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "fake_dns.h"
#include "net/resolver.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { A_DAY_S = 86400, KEPT_MAX_MS = 300000 };

static struct fake_dns dns;
static struct resolver *resolver;
static struct resolver_settings settings;

/* What one was told. */
struct told {
	unsigned times;
	int err;
	unsigned count;
	char first[ADDRESS_TEXT_BYTES], last[ADDRESS_TEXT_BYTES];
	uint64_t at_ms;
	unsigned order; /* of all that were told anything */
};

static unsigned told_count;

static void on_told(void *data, int err, const union address *list, unsigned count)
{
	struct told *told = data;
	told->times++;
	told->err = err;
	told->count = count;
	told->at_ms = uv_now(&loop);
	told->order = ++told_count;
	assert_true(err ? !count : count);
	if (err)
		return;
	address_text(&list[0].any, told->first, sizeof told->first);
	address_text(&list[count - 1].any, told->last, sizeof told->last);
}

static int begin_test(void **state)
{
	begin_polling(state);
	told_count = 0;
	settings = (struct resolver_settings){ .hosts_path = write_file("hosts", "") };
	return 0;
}

static int end_test(void **state)
{
	resolver_free(resolver);
	resolver = NULL;
	fake_dns_close(&dns);
	return end_polling(state);
}

#define WITH_SERVER(TEST) cmocka_unit_test_setup_teardown(TEST, begin_test, end_test)

/* A server with these records, and a resolver that knows no other. */
static void open_with(struct fake_record *records)
{
	fake_dns_open(&dns, "127.0.0.1", 0, records);
	settings.dns.servers = fake_dns_server(&dns);
	resolver = resolver_new(&poller, &settings);
	assert_non_null(resolver);
}

static struct resolver_ask *ask(const char *name, int family, struct told *told)
{
	memset(told, 0, sizeof *told);
	struct resolver_ask *asked = resolver_ask(resolver, name, family, on_told, told);
	assert_non_null(asked);
	assert_int_equal(told->times, 0);
	return asked;
}

static struct told resolve(const char *name, int family)
{
	struct told told;
	ask(name, family, &told);
	UNTIL(told.times);
	return told;
}

static void expect_address(const char *name, int family, const char *address)
{
	struct told told = resolve(name, family);
	assert_int_equal(told.err, 0);
	assert_string_equal(told.first, address);
}

static void expect_error(const char *name, int family, int err)
{
	assert_int_equal(resolve(name, family).err, err);
}

/* ---- questions ---- */

static void answers_each_family_from_the_loop(void **state)
{
	struct fake_record records[] = {
		{ "a.test", FAKE_A, 60, .addresses = "127.0.0.3 127.0.0.4" },
		{ "a.test", FAKE_AAAA, 60, .addresses = "2001:db8::1" },
		{ 0 },
	};
	(void)state;
	open_with(records);
	struct told told = resolve("a.test", AF_INET);
	assert_int_equal(told.err, 0);
	assert_int_equal(told.count, 2);
	assert_string_equal(told.first, "127.0.0.3:0");
	assert_string_equal(told.last, "127.0.0.4:0");
	assert_false(uv_loop_alive(&loop)); /* its timer runs only while something is asked */
	expect_address("a.test", AF_INET6, "[2001:db8::1]:0");
	assert_int_equal(dns.asked, 2);
	expect_address("A.Test", AF_INET, "127.0.0.3:0"); /* from the cache, and from the loop as well */
	assert_int_equal(dns.asked, 2);
}

static void one_family_does_not_wait_for_the_other(void **state)
{
	struct fake_record records[] = {
		{ "a.test", FAKE_A, 60, .addresses = "127.0.0.3" },
		{ "a.test", FAKE_AAAA, 60, .addresses = "::1", .manner = FAKE_HOLDS },
		{ 0 },
	};
	struct told ipv6, ipv4;
	(void)state;
	open_with(records);
	ask("a.test", AF_INET6, &ipv6);
	ask("a.test", AF_INET, &ipv4);
	UNTIL(ipv4.times && dns.held_count);
	assert_int_equal(ipv6.times, 0);
	fake_dns_release(&dns, FAKE_AAAA);
	UNTIL(ipv6.times);
	assert_string_equal(ipv6.first, "[::1]:0");
}

static void says_why_there_is_no_address(void **state)
{
	struct fake_record records[] = {
		{ "empty.test", FAKE_A, 60, .addresses = NULL },
		{ "ipv4.test", FAKE_A, 60, .addresses = "127.0.0.1" },
		{ "broken.test", FAKE_A, 60, .rcode = 2 },
		{ "refused.test", FAKE_A, 60, .rcode = 5 },
		{ "garbage.test", FAKE_A, 60, .addresses = "127.0.0.1", .manner = FAKE_BREAKS },
		{ 0 },
	};
	(void)state;
	open_with(records);
	expect_error("unknown.test", AF_INET, UV_EAI_NONAME);
	expect_error("empty.test", AF_INET, UV_EAI_NODATA);
	expect_error("ipv4.test", AF_INET6, UV_EAI_NODATA);
	expect_error("broken.test", AF_INET, UV_EAI_AGAIN);
	expect_error("refused.test", AF_INET, UV_EAI_AGAIN);
	expect_error("garbage.test", AF_INET, UV_EAI_AGAIN);
}

static void a_silent_server_times_out(void **state)
{
	struct fake_record records[] = {
		{ "a.test", FAKE_A, 60, .addresses = "127.0.0.1", .manner = FAKE_SILENT }, { 0 }
	};
	(void)state;
	settings.dns.timeout_ms = 20;
	settings.dns.tries = 2;
	open_with(records);
	expect_error("a.test", AF_INET, UV_ETIMEDOUT);
	assert_int_equal(dns.asked, 2);
}

static void a_server_that_is_not_there_has_no_answer(void **state)
{
	struct fake_record records[] = { { 0 } };
	(void)state;
	open_with(records);
	poller_close(dns.udp); /* now the port is refused */
	poller_close(dns.tcp);
	expect_error("a.test", AF_INET, UV_EAI_AGAIN);
	fake_dns_open(&dns, "127.0.0.1", 0, records);
}

static void what_does_not_fit_comes_over_tcp(void **state)
{
	struct fake_record records[] = { { "a.test", FAKE_A, 60, .manner = FAKE_SHORTENS }, { 0 } };
	char list[1024] = "";
	(void)state;
	for (int i = 1; i <= ADDRESSES_MAX + 6; i++)
		sprintf(list + strlen(list), "127.1.0.%d ", i);
	records[0].addresses = list;
	open_with(records);
	struct told told = resolve("a.test", AF_INET);
	assert_int_equal(told.err, 0);
	assert_int_equal(told.count, ADDRESSES_MAX);
	assert_string_equal(told.first, "127.1.0.1:0");
	assert_string_equal(told.last, "127.1.0.64:0");
	assert_int_equal(dns.asked_over_tcp, 1);
}

static void follows_aliases(void **state)
{
	struct fake_record records[] = {
		{ "a.test", FAKE_A, 60, .addresses = "127.0.0.7", .aliases = "b.test c.test d.test" },
		{ "e.test", FAKE_A, 60, .aliases = "f.test" },
		{ 0 },
	};
	(void)state;
	open_with(records);
	expect_address("a.test", AF_INET, "127.0.0.7:0");
	expect_error("e.test", AF_INET, UV_EAI_NODATA);
}

static void listens_to_answers_of_its_questions_only(void **state)
{
	struct fake_record records[] = {
		{ "a.test", FAKE_A, 60, .addresses = "127.0.0.9", .manner = FAKE_MISLEADS }, { 0 }
	};
	(void)state;
	open_with(records);
	expect_address("a.test", AF_INET, "127.0.0.9:0");
	assert_int_equal(dns.asked, 1);
}

static void what_is_no_name_asks_nobody(void **state)
{
	static const char *const NAMES[] = { "",    ".",   "a..b",      ".a",  "a b",
					     "a\n", "a/b", "h\xc3\xa4", "a:1", "*.a" };
	struct fake_record records[] = { { 0 } };
	char label[65], longest[RESOLVER_NAME_MAX + 3];
	(void)state;
	open_with(records);
	for (size_t i = 0; i < sizeof NAMES / sizeof *NAMES; i++)
		expect_error(NAMES[i], AF_INET, UV_EINVAL);
	memset(label, 'x', sizeof label);
	label[64] = '\0';
	expect_error(label, AF_INET, UV_EINVAL);
	for (int i = 0; i < RESOLVER_NAME_MAX + 1; i++)
		longest[i] = i % 2 ? '.' : 'x';
	longest[RESOLVER_NAME_MAX + 1] = 'x';
	longest[RESOLVER_NAME_MAX + 2] = '\0';
	expect_error(longest, AF_INET, UV_EINVAL);
	assert_int_equal(dns.asked, 0);
	longest[RESOLVER_NAME_MAX] = '\0';
	expect_error(longest, AF_INET, UV_EAI_NONAME);
	assert_int_equal(dns.asked, 1);
}

static void an_address_is_its_own_answer(void **state)
{
	struct fake_record records[] = { { 0 } };
	(void)state;
	open_with(records);
	expect_address("127.0.0.1", AF_INET, "127.0.0.1:0");
	expect_address("::1", AF_INET6, "[::1]:0");
	expect_address("::ffff:127.0.0.1", AF_INET, "127.0.0.1:0");
	expect_address("fe80::1%lo", AF_INET6, "[fe80::1%lo]:0");
	expect_error("127.0.0.1", AF_INET6, UV_EAI_NODATA);
	expect_error("fe80::1%nolink", AF_INET6, UV_EINVAL);
	assert_int_equal(dns.asked, 0);
}

/* ---- the cache ---- */

/* It is kept for so long, and not a millisecond longer. */
static void expect_kept(const char *name, int family, uint64_t ms)
{
	uint64_t asked_ms = uv_now(&loop);
	struct told told = resolve(name, family);
	unsigned asked = dns.asked;
	uint64_t passed_ms = uv_now(&loop) - asked_ms;
	if (passed_ms < ms) { /* else the machine has no time, and it is too late to look */
		resolver_skip(resolver, ms - 1 - passed_ms);
		assert_int_equal(resolve(name, family).err, told.err);
		assert_int_equal(dns.asked, asked);
		resolver_skip(resolver, passed_ms + 1);
	} else {
		resolver_skip(resolver, ms);
	}
	resolve(name, family);
	assert_int_equal(dns.asked, asked + 1);
	resolver_skip(resolver, KEPT_MAX_MS);
}

static void keeps_an_answer_as_long_as_it_says_within_bounds(void **state)
{
	struct fake_record records[] = {
		{ "minute.test", FAKE_A, 60, .addresses = "127.0.0.1" },
		{ "never.test", FAKE_A, 0, .addresses = "127.0.0.1" },
		{ "day.test", FAKE_A, A_DAY_S, .addresses = "127.0.0.1" },
		{ "alias.test", FAKE_A, 30, .addresses = "127.0.0.1", .aliases = "b.test" },
		{ "ipv6.test", FAKE_AAAA, 10, .addresses = "::1" },
		{ 0 },
	};
	(void)state;
	open_with(records);
	expect_kept("minute.test", AF_INET, 60000);
	expect_kept("never.test", AF_INET, 1000);
	expect_kept("day.test", AF_INET, KEPT_MAX_MS);
	expect_kept("alias.test", AF_INET, 30000);
	expect_kept("ipv6.test", AF_INET6, 10000);
}

static void keeps_a_failure_for_a_second(void **state)
{
	struct fake_record records[] = {
		{ "empty.test", FAKE_A, A_DAY_S, .addresses = NULL },
		{ "broken.test", FAKE_A, A_DAY_S, .rcode = 2 },
		{ 0 },
	};
	(void)state;
	settings.dns.tries = 1;
	open_with(records);
	expect_kept("unknown.test", AF_INET, 1000);
	expect_kept("empty.test", AF_INET, 1000);
	expect_kept("broken.test", AF_INET, 1000);
}

static void keeps_what_was_used_last(void **state)
{
	enum { NAMES = RESOLVER_CACHED_MAX + 100 };
	struct fake_record records[] = {
		{ "used.test", FAKE_A, A_DAY_S, .addresses = "127.0.0.1" },
		{ "*", FAKE_A, A_DAY_S, .addresses = "127.0.0.2" },
		{ 0 },
	};
	char name[32];
	(void)state;
	open_with(records);
	for (int i = 0; i < NAMES; i++) {
		expect_address("used.test", AF_INET, "127.0.0.1:0");
		snprintf(name, sizeof name, "n%d.test", i);
		expect_address(name, AF_INET, "127.0.0.2:0");
	}
	assert_int_equal(records[0].asked, 1);
	assert_int_equal(records[1].asked, NAMES);
	expect_address(name, AF_INET, "127.0.0.2:0");
	expect_address("n101.test", AF_INET,
		       "127.0.0.2:0"); /* the oldest of those that are left: one is used.test */
	assert_int_equal(records[1].asked, NAMES);
	expect_address("n100.test", AF_INET, "127.0.0.2:0");
	assert_int_equal(records[1].asked, NAMES + 1);
}

/* ---- many who ask ---- */

static void asks_once_for_many(void **state)
{
	struct fake_record records[] = {
		{ "a.test", FAKE_A, 60, .addresses = "127.0.0.3", .manner = FAKE_HOLDS }, { 0 }
	};
	struct told told[5];
	(void)state;
	open_with(records);
	for (int i = 0; i < 4; i++)
		ask("a.test", AF_INET, &told[i]);
	UNTIL(dns.held_count);
	ask("a.test", AF_INET, &told[4]);
	fake_dns_release(&dns, FAKE_A);
	UNTIL(told[4].times);
	for (unsigned i = 0; i < 5; i++) {
		assert_int_equal(told[i].times, 1);
		assert_int_equal(told[i].order, i + 1);
		assert_string_equal(told[i].first, "127.0.0.3:0");
	}
	assert_int_equal(dns.asked, 1);
}

static void one_that_is_cancelled_is_not_told(void **state)
{
	struct fake_record records[] = {
		{ "a.test", FAKE_A, 60, .addresses = "127.0.0.3", .manner = FAKE_HOLDS }, { 0 }
	};
	struct told told[3];
	struct resolver_ask *asks[3];
	(void)state;
	open_with(records);
	for (int i = 0; i < 3; i++)
		asks[i] = ask("a.test", AF_INET, &told[i]);
	resolver_cancel(asks[0]);
	UNTIL(dns.held_count);
	resolver_cancel(asks[1]);
	fake_dns_release(&dns, FAKE_A);
	UNTIL(told[2].times);
	assert_int_equal(told[0].times + told[1].times, 0);
	resolver_cancel(ask("a.test", AF_INET, &told[0])); /* it is due already */
	resolve("a.test", AF_INET);
	assert_int_equal(told[0].times, 0);
	assert_int_equal(dns.asked, 1);
}

static void a_question_that_nobody_waits_for_goes_on(void **state)
{
	struct fake_record records[] = {
		{ "a.test", FAKE_A, 60, .addresses = "127.0.0.3", .manner = FAKE_HOLDS },
		{ "b.test", FAKE_A, 60, .addresses = "127.0.0.4" },
		{ 0 },
	};
	struct told told;
	(void)state;
	open_with(records);
	resolver_cancel(ask("a.test", AF_INET, &told));
	UNTIL(dns.held_count);
	fake_dns_release(&dns, FAKE_A);
	expect_address("b.test", AF_INET, "127.0.0.4:0"); /* sent later on the same socket */
	expect_address("a.test", AF_INET, "127.0.0.3:0");
	assert_int_equal(told.times, 0);
	assert_int_equal(records[0].asked, 1);
}

/* Told of one, it cancels another that would be told next, asks for a third, or ends everything. */
struct plot {
	struct resolver_ask *victim;
	struct told again;
	bool frees;
	unsigned told;
};

static void on_plot(void *data, int err, const union address *list, unsigned count)
{
	struct plot *plot = data;
	assert_int_equal(err, 0);
	plot->told++;
	if (plot->victim)
		resolver_cancel(plot->victim);
	if (plot->frees) {
		resolver_free(resolver);
		resolver = NULL;
	} else {
		ask("a.test", AF_INET, &plot->again);
	}
	assert_int_equal(count, 1); /* it is still there */
	assert_int_equal(list->any.sa_family, AF_INET);
}

static void a_callback_may_cancel_and_ask(void **state)
{
	struct fake_record records[] = { { "a.test", FAKE_A, 60, .addresses = "127.0.0.3" }, { 0 } };
	struct plot plot = { 0 };
	struct told told;
	(void)state;
	open_with(records);
	assert_non_null(resolver_ask(resolver, "a.test", AF_INET, on_plot, &plot));
	plot.victim = ask("a.test", AF_INET, &told);
	UNTIL(plot.again.times);
	assert_int_equal(told.times, 0);
	assert_int_equal(plot.told, 1);
}

static void a_callback_may_free_it(void **state)
{
	struct fake_record records[] = { { "a.test", FAKE_A, 60, .addresses = "127.0.0.3" }, { 0 } };
	struct plot plot = { .frees = true };
	struct told told;
	(void)state;
	open_with(records);
	assert_non_null(resolver_ask(resolver, "a.test", AF_INET, on_plot, &plot));
	ask("a.test", AF_INET, &told);
	UNTIL(plot.told);
	assert_int_equal(told.times, 0);
}

static void freeing_it_tells_nobody(void **state)
{
	struct fake_record records[] = {
		{ "held.test", FAKE_A, 60, .addresses = "127.0.0.3", .manner = FAKE_HOLDS },
		{ "a.test", FAKE_A, 60, .addresses = "127.0.0.4" },
		{ 0 },
	};
	struct told told[4];
	(void)state;
	open_with(records);
	ask("held.test", AF_INET, &told[0]);
	ask("a.test", AF_INET, &told[1]);
	UNTIL(dns.held_count && told[1].times);
	ask("a.test", AF_INET, &told[2]);
	ask("127.0.0.1", AF_INET, &told[3]);
	resolver_free(resolver);
	resolver = NULL;
	uv_run(&loop, UV_RUN_DEFAULT);
	assert_int_equal(told[0].times + told[2].times + told[3].times, 0);
}

/* c-ares looks for a number of 16 bits that no other question has: there must be some left. */
static void so_many_questions_are_under_way_at_most(void **state)
{
	struct fake_record records[] = { { "*", FAKE_A, 60, .manner = FAKE_SILENT }, { 0 } };
	struct told told[RESOLVER_PENDING_MAX + 1];
	char name[32];
	(void)state;
	settings.dns.timeout_ms = 1 << 30;
	open_with(records);
	for (int i = 0; i <= RESOLVER_PENDING_MAX; i++) {
		snprintf(name, sizeof name, "n%d.test", i);
		ask(name, AF_INET, &told[i]);
	}
	UNTIL(told[RESOLVER_PENDING_MAX].times);
	assert_int_equal(told[RESOLVER_PENDING_MAX].err, UV_EAI_AGAIN);
	for (int i = 0; i < RESOLVER_PENDING_MAX; i++)
		assert_int_equal(told[i].times, 0);
	expect_address("localhost", AF_INET6, "[::1]:0");
}

/* ---- files ---- */

static void the_hosts_file_needs_no_server(void **state)
{
	struct fake_record records[] = { { "a.test", FAKE_AAAA, 60, .addresses = "::1" }, { 0 } };
	(void)state;
	settings.hosts_path = write_file("hosts", "# nothing\n"
						  "127.0.0.8 a.test A2.test # b.test\n"
						  "not-an-address c.test\n"
						  "\t127.0.0.9\ta.test\r\n"
						  "127.0.0.9 a.test\n"
						  "::2 d.test");
	open_with(records);
	struct told told = resolve("a.test", AF_INET);
	assert_int_equal(told.count, 2);
	assert_string_equal(told.first, "127.0.0.8:0");
	assert_string_equal(told.last, "127.0.0.9:0");
	expect_address("a2.test", AF_INET, "127.0.0.8:0");
	expect_address("A.test.", AF_INET, "127.0.0.8:0");
	expect_address("d.test", AF_INET6, "[::2]:0");
	expect_error("a.test", AF_INET6, UV_EAI_NODATA);
	assert_int_equal(dns.asked, 0);
	expect_error("b.test", AF_INET, UV_EAI_NONAME);
	expect_error("c.test", AF_INET, UV_EAI_NONAME);
	assert_int_equal(dns.asked, 2);
}

static void localhost_needs_no_server(void **state)
{
	struct fake_record records[] = { { 0 } };
	(void)state;
	open_with(records);
	expect_address("localhost", AF_INET, "127.0.0.1:0");
	expect_address("LocalHost.", AF_INET6, "[::1]:0");
	expect_address("app.localhost", AF_INET, "127.0.0.1:0");
	assert_int_equal(dns.asked, 0);
	expect_error("notlocalhost", AF_INET, UV_EAI_NONAME);
}

static void notices_a_changed_hosts_file(void **state)
{
	struct fake_record records[] = { { 0 } };
	(void)state;
	settings.hosts_path = write_file("hosts", "127.0.0.8 a.test\n");
	open_with(records);
	expect_address("a.test", AF_INET, "127.0.0.8:0");
	write_file("hosts", "127.0.0.9 a.test\n");
	resolver_skip(resolver, 1000);
	expect_address("a.test", AF_INET, "127.0.0.9:0");
	unlink(settings.hosts_path);
	resolver_skip(resolver, 1000);
	expect_error("a.test", AF_INET, UV_EAI_NONAME);
}

static void notices_a_changed_resolv_conf(void **state)
{
	struct fake_record records[] = {
		{ "a.test", FAKE_A, 60, .addresses = "127.0.0.3" },
		{ "held.test", FAKE_A, 60, .addresses = "127.0.0.3", .manner = FAKE_HOLDS },
		{ 0 },
	};
	struct fake_record others[] = {
		{ "a.test", FAKE_A, 60, .addresses = "127.0.0.4" },
		{ "held.test", FAKE_A, 60, .addresses = "127.0.0.4" },
		{ 0 },
	};
	struct fake_dns other;
	struct told told;
	(void)state;
	fake_dns_open(&dns, "127.0.0.1", 0, records);
	fake_dns_open(&other, "127.0.0.2", dns.port, others);
	settings.dns.port = dns.port;
	settings.dns.resolv_path = write_file("resolv.conf", "nameserver 127.0.0.1\n");
	resolver = resolver_new(&poller, &settings);
	expect_address("a.test", AF_INET, "127.0.0.3:0");
	ask("held.test", AF_INET, &told);
	UNTIL(dns.held_count);
	write_file("resolv.conf", "nameserver 127.0.0.2\n");
	resolver_skip(resolver, 1000);
	expect_address("a.test", AF_INET, "127.0.0.4:0");
	expect_address("held.test", AF_INET, "127.0.0.4:0"); /* it does not join the old question */
	assert_int_equal(told.times, 0);
	fake_dns_release(&dns, FAKE_A);
	UNTIL(told.times); /* that ends where it has begun */
	assert_string_equal(told.first, "127.0.0.3:0");
	expect_address("held.test", AF_INET, "127.0.0.4:0");
	fake_dns_close(&other);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_SERVER(answers_each_family_from_the_loop),
		WITH_SERVER(one_family_does_not_wait_for_the_other),
		WITH_SERVER(says_why_there_is_no_address),
		WITH_SERVER(a_silent_server_times_out),
		WITH_SERVER(a_server_that_is_not_there_has_no_answer),
		WITH_SERVER(what_does_not_fit_comes_over_tcp),
		WITH_SERVER(follows_aliases),
		WITH_SERVER(listens_to_answers_of_its_questions_only),
		WITH_SERVER(what_is_no_name_asks_nobody),
		WITH_SERVER(an_address_is_its_own_answer),
		WITH_SERVER(keeps_an_answer_as_long_as_it_says_within_bounds),
		WITH_SERVER(keeps_a_failure_for_a_second),
		WITH_SERVER(keeps_what_was_used_last),
		WITH_SERVER(asks_once_for_many),
		WITH_SERVER(one_that_is_cancelled_is_not_told),
		WITH_SERVER(a_question_that_nobody_waits_for_goes_on),
		WITH_SERVER(a_callback_may_cancel_and_ask),
		WITH_SERVER(a_callback_may_free_it),
		WITH_SERVER(freeing_it_tells_nobody),
		WITH_SERVER(so_many_questions_are_under_way_at_most),
		WITH_SERVER(the_hosts_file_needs_no_server),
		WITH_SERVER(localhost_needs_no_server),
		WITH_SERVER(notices_a_changed_hosts_file),
		WITH_SERVER(notices_a_changed_resolv_conf),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
