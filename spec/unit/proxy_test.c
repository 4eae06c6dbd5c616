/* Connections behind a proxy: the layer that takes its header off, who may send one, and who is counted. */
#include "conn_steps.h"

#include "conn/peer.h"
#include "net/networks.h"
#include "stream/proxy.h"

#include <stdio.h>
#include <string.h>

enum { OPENING_MS = 100 };

static const char HEADER[] = "PROXY TCP4 203.0.113.7 192.0.2.1 5060 9000\r\n";

enum { HEADER_BYTES = sizeof HEADER - 1 };

static unsigned free_slot(void)
{
	unsigned slot = 0;
	while (clients[slot])
		slot++;
	return slot;
}

static struct client *join_proxied(const struct proxy_settings *settings, const char *arrived)
{
	struct client *c = world_join_proxied(free_slot(), settings, NULL, arrived);
	c->echo = true;
	return c;
}

/* It has begun; nobody above hears of the bytes of its header. */
static void expect_begun(struct client *c, const char *peer)
{
	char text[PEER_TEXT_BYTES];
	assert_int_equal(c->opened, 1);
	assert_string_equal(peer_text(conn_of(c), text, sizeof text), peer);
	if (strcmp(peer, "10.0.0.1:999") != 0)
		c->memory.put_bytes -= HEADER_BYTES;
}

static void a_header_is_taken_off_wherever_it_is_cut(void **state)
{
	(void)state;
	static const char REST[] = "one\ntwo\n";
	char all[sizeof HEADER + sizeof REST];
	size_t n = (size_t)sprintf(all, "%s%s", HEADER, REST);
	world_frees = true;
	for (size_t cut = 0; cut <= n; cut++) {
		for (size_t read_max = 0; read_max < 4; read_max++) {
			struct client *c = join_proxied(&PROXY_REQUIRED, "");
			c->memory.read_max = read_max;
			put_bytes(c, all, cut);
			assert_int_equal(c->opened, cut >= HEADER_BYTES);
			put_bytes(c, all + cut, n - cut);
			expect_begun(c, "203.0.113.7:5060");
			expect_output(c, REST);
			unsigned slot = c->slot;
			hang_up(c);
			assert_null(clients[slot]);
		}
	}
	world_frees = false;
}

static void what_comes_with_it_needs_no_other_event(void **state)
{
	(void)state;
	struct client *c = join_proxied(&PROXY_REQUIRED, "");
	put(c, "PROXY TCP4 203.0.113.7 192.0.2.1 5060 9000\r\none\n");
	expect_begun(c, "203.0.113.7:5060");
	expect_output(c, "one\n");
	put(c, "two\n");
	expect_output(c, "two\n");
	hang_up(c);
}

/* Who is paused when it begins is handed what came with its header later. */
static void what_comes_with_it_waits_for_who_is_paused(void **state)
{
	(void)state;
	struct client *c = join_proxied(&PROXY_REQUIRED, "");
	channel_pause(channel_of(c));
	put(c, "PROXY TCP4 203.0.113.7 192.0.2.1 5060 9000\r\none\ntwo\n");
	expect_begun(c, "203.0.113.7:5060");
	expect_output(c, "");
	channel_resume(channel_of(c));
	world_run();
	expect_output(c, "one\ntwo\n");
	hang_up(c);
}

static void what_nobody_reads_is_discarded(void **state)
{
	(void)state;
	struct client *c = join_proxied(&PROXY_REQUIRED, "");
	channel_pause(channel_of(c));
	put(c, "PROXY TCP4 203.0.113.7 192.0.2.1 5060 9000\r\none\ntwo\n");
	expect_begun(c, "203.0.113.7:5060");
	conn_close(conn_of(c), REASON_AGENT, CLOSE_FLUSH);
	world_run();
	hang_up(c);
	expect_end(c, REASON_AGENT);
	assert_int_equal(count_read(&counters.discarded_bytes), 8);
}

static void a_wrong_header_ends_it(void **state)
{
	(void)state;
	struct client *c = join_proxied(&PROXY_REQUIRED, "");
	put(c, "PROXY TCP4 nobody\r\none\n");
	expect_end(c, REASON_PROXY);
	assert_int_equal(c->opened, 0);
	assert_non_null(c->failure);
}

static void who_says_nothing_and_leaves_has_done_no_wrong(void **state)
{
	(void)state;
	struct client *c = join_proxied(&PROXY_REQUIRED, "");
	hang_up(c);
	expect_end(c, REASON_PEER);
	assert_null(c->failure);
	c = join_proxied(&PROXY_REQUIRED, "");
	put(c, "PROXY");
	hang_up(c);
	expect_end(c, REASON_PROXY);
	assert_non_null(c->failure);
}

static void a_header_must_come_in_time(void **state)
{
	(void)state;
	rules.timeouts.opening = OPENING_MS;
	struct client *c = join_proxied(&PROXY_REQUIRED, "");
	wait_ms(OPENING_MS - 1);
	put(c, "PROXY");
	assert_int_equal(c->closed, 0);
	wait_ms(1);
	expect_end(c, REASON_IDLE_TIMEOUT);
	assert_int_equal(c->opened, 0);
}

static void one_that_came_in_time_counts_however_late_it_is_read(void **state)
{
	(void)state;
	rules.timeouts.opening = OPENING_MS;
	struct client *c = join_proxied(&PROXY_REQUIRED, HEADER);
	now_ms += 10 * OPENING_MS;
	conn_host_turn(&host, now_ms);
	expect_begun(c, "203.0.113.7:5060");
	hang_up(c);
}

static void what_arrived_before_a_drain_is_served(void **state)
{
	(void)state;
	struct client *c =
	    join_proxied(&PROXY_REQUIRED, "PROXY TCP4 203.0.113.7 192.0.2.1 5060 9000\r\none\n");
	struct client *silent = join_proxied(&PROXY_REQUIRED, "PROXY TCP4");
	conn_drain(conn_of(c));
	conn_drain(conn_of(silent));
	conn_host_turn(&host, now_ms); /* before the poll tells that anything came */
	expect_begun(c, "203.0.113.7:5060");
	world_run();
	expect_output(c, "one\n");
	hang_up(c);
	expect_end(c, REASON_DRAIN);
	expect_end(silent, REASON_DRAIN);
	assert_int_equal(silent->opened, 0);
}

static void what_arrived_before_a_reset_is_handed_up(void **state)
{
	(void)state;
	struct client *c =
	    join_proxied(&PROXY_REQUIRED, "PROXY TCP4 203.0.113.7 192.0.2.1 5060 9000\r\none\n");
	c->memory.put_bytes -= HEADER_BYTES;
	memory_stream_reset(&c->memory);
	world_run();
	expect_end(c, REASON_RESET);
	assert_int_equal(c->opened, 1);
	assert_int_equal(count_read(&counters.frames_in), 1);
	c = join_proxied(&PROXY_REQUIRED, "PROXY");
	memory_stream_reset(&c->memory);
	world_run();
	expect_end(c, REASON_RESET);
	assert_int_equal(c->opened, 0);
}

/* Others have taken all the time that openings have in a turn: its end is met again in the next. */
static void a_reset_waits_until_it_may_go_on_with_its_opening(void **state)
{
	(void)state;
	static const char *const ARRIVED[] = { "PROXY TCP4 203.0.113.7 192.0.2.1 5060 9000\r\none\n",
					       "PROXY" };
	for (int i = 0; i < 2; i++) {
		struct client *c = join_proxied(&PROXY_REQUIRED, ARRIVED[i]);
		c->memory.put_bytes -= i ? 0 : HEADER_BYTES;
		memory_stream_reset(&c->memory);
		host.opening_ticks = UINT64_MAX;
		memory_stream_report(&c->memory);
		assert_true(c->memory.broken_told);
		assert_int_equal(c->opened + c->closed, 0);
		conn_host_turn(&host, now_ms);
		world_run();
		expect_end(c, REASON_RESET);
		assert_int_equal(c->opened, i == 0);
	}
	assert_int_equal(count_read(&counters.frames_in), 1);
}

static void where_it_is_optional_the_first_bytes_decide(void **state)
{
	(void)state;
	static const char *const LINES[] = { "one\n", "PROXX\n", "\r\n\r\nx\n", "P\n" };
	for (size_t i = 0; i < sizeof LINES / sizeof *LINES; i++) {
		struct client *c = join_proxied(&PROXY_OPTIONAL, "");
		for (const char *at = LINES[i]; *at; at++)
			put_bytes(c, at, 1);
		expect_begun(c, "10.0.0.1:999");
		hang_up(c);
		expect_end(c, REASON_PEER);
	}
	struct client *c = join_proxied(&PROXY_OPTIONAL, "");
	put(c, HEADER);
	expect_begun(c, "203.0.113.7:5060");
	hang_up(c);
}

static void strangers_are_not_read_from(void **state)
{
	(void)state;
	struct network network;
	assert_true(network_read("10.0.0.0/24", &network));
	struct networks trust = { .list = &network, .count = 1 }, nobody = { 0 };
	struct client *c = world_join_proxied(free_slot(), &PROXY_REQUIRED, &nobody, HEADER);
	assert_int_equal(c->closed, 1);
	assert_int_equal(c->memory.inward.bytes, HEADER_BYTES);
	world_run();
	expect_end(c, REASON_PROXY);
	assert_non_null(c->refused);
	c = world_join_proxied(free_slot(), &PROXY_REQUIRED, &trust, HEADER);
	world_run();
	expect_begun(c, "203.0.113.7:5060");
	hang_up(c);
}

static unsigned admitted;
static bool refuses;

static void on_admit(struct conn *conn)
{
	admitted++;
	if (refuses)
		conn_refuse(conn, "per_ip", "busy\n", 5);
}

static void a_peer_is_admitted_once_it_is_known(void **state)
{
	(void)state;
	host.admit = on_admit;
	admitted = 0;
	refuses = false;
	struct client *c = join_proxied(&PROXY_REQUIRED, "");
	put(c, "PROXY");
	assert_int_equal(admitted, 0);
	put(c, HEADER + 5);
	assert_int_equal(admitted, 1);
	expect_begun(c, "203.0.113.7:5060");
	put(c, "one\n");
	assert_int_equal(admitted, 1);
	hang_up(c);
	c = join_proxied(&PROXY_OPTIONAL, "");
	put(c, "one\n");
	assert_int_equal(admitted, 2);
	hang_up(c);
	c = join_proxied(&PROXY_REQUIRED, "");
	put(c, "PROXY UNKNOWN\r\n");
	c->memory.put_bytes = 0;
	assert_int_equal(c->opened, 1);
	assert_int_equal(admitted, 2);
	hang_up(c);
}

static void one_that_is_refused_is_told_so(void **state)
{
	(void)state;
	host.admit = on_admit;
	refuses = true;
	struct client *c = join_proxied(&PROXY_REQUIRED, "");
	put(c, "PROXY TCP4 203.0.113.7 192.0.2.1 5060 9000\r\none\n");
	c->memory.put_bytes -= HEADER_BYTES;
	expect_output(c, "busy\n");
	hang_up(c);
	expect_end(c, REASON_LIMIT);
	assert_int_equal(c->opened, 0);
	assert_string_equal(c->refused, "per_ip");
	assert_false(c->memory.was_reset);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_CONNS(a_header_is_taken_off_wherever_it_is_cut),
		WITH_CONNS(what_comes_with_it_needs_no_other_event),
		WITH_CONNS(what_comes_with_it_waits_for_who_is_paused),
		WITH_CONNS(what_nobody_reads_is_discarded),
		WITH_CONNS(a_wrong_header_ends_it),
		WITH_CONNS(who_says_nothing_and_leaves_has_done_no_wrong),
		WITH_CONNS(a_header_must_come_in_time),
		WITH_CONNS(one_that_came_in_time_counts_however_late_it_is_read),
		WITH_CONNS(what_arrived_before_a_drain_is_served),
		WITH_CONNS(what_arrived_before_a_reset_is_handed_up),
		WITH_CONNS(a_reset_waits_until_it_may_go_on_with_its_opening),
		WITH_CONNS(where_it_is_optional_the_first_bytes_decide),
		WITH_CONNS(strangers_are_not_read_from),
		WITH_CONNS(a_peer_is_admitted_once_it_is_known),
		WITH_CONNS(one_that_is_refused_is_told_so),
	};
	return cmocka_run_group_tests_name("proxy", tests, NULL, NULL);
}
