/* What had arrived in time counts, however late the worker comes to look: before time-outs, drains and cuts. */
#include "conn_steps.h"

#include <string.h>
#include <uv.h>

/* As in src/conn/internal.h. */
enum {
	CONN_DRAIN_PARTIAL_MS = 2000, /* a frame begun before a drain must be complete by then */
	CONN_LATE_DRAIN_MS = 500,     /* after its deadline, and no more is served */
	CONN_TAKEN_BYTES = 4096,      /* so much may be on its way to any peer */
};

/* The peer's bytes wait in the stream while the worker is busy, or stopped. */
static void leave_unread(struct client *c, const char *text)
{
	memory_stream_put(&c->memory, text, strlen(text));
}

/* The worker turns again, and the first that it knows is the time: the poll has not told it of any event yet. */
static void turn_late(uint64_t ms)
{
	now_ms += ms;
	conn_host_turn(&host, now_ms);
}

static struct client *join_with(enum timeout_kind kind)
{
	struct client *c = join();
	assert_int_equal(conn_set_timeout(conn_of(c), kind, TIMEOUT_MS), 0);
	world_run();
	return c;
}

/* ---- time-outs ---- */

static void a_frame_that_had_arrived_is_served_before_its_time_out(void **state)
{
	(void)state;
	static const enum timeout_kind KINDS[] = { TIMEOUT_READ, TIMEOUT_IDLE, TIMEOUT_FIRST_FRAME };
	for (size_t i = 0; i < sizeof KINDS / sizeof *KINDS; i++) {
		struct client *c = join_with(KINDS[i]);
		c->echo = true;
		if (KINDS[i] == TIMEOUT_READ)
			put(c, "beg");
		leave_unread(c, "un\nnext\n");
		turn_late(10 * TIMEOUT_MS);
		assert_int_equal(c->timeouts, 0);
		expect_open(c);
		assert_string_equal(c->seen, KINDS[i] == TIMEOUT_READ ? "begun|next|" : "un|next|");
		world_run();
		expect_output(c, KINDS[i] == TIMEOUT_READ ? "begun\nnext\n" : "un\nnext\n");
	}
}

static void it_is_read_to_the_end_however_small_the_pieces(void **state)
{
	(void)state;
	for (size_t read_max = 1; read_max <= 7; read_max += 3) {
		struct client *c = join_with(TIMEOUT_IDLE);
		c->memory.read_max = read_max;
		for (int i = 0; i < 30; i++)
			memory_stream_put(&c->memory, hundred, i < 29 ? 99 : 100);
		turn_late(TIMEOUT_MS);
		assert_int_equal(c->frames_seen, 1);
		assert_int_equal(c->timeouts, 0);
		expect_open(c);
	}
}

static void what_arrived_is_not_enough(struct client *c, enum close_reason reason)
{
	leave_unread(c, "no end");
	turn_late(TIMEOUT_MS);
	assert_int_equal(c->timeouts, 1);
	hang_up(c);
	expect_end(c, reason);
}

static void bytes_that_complete_no_frame_are_no_excuse(void **state)
{
	(void)state;
	what_arrived_is_not_enough(join_with(TIMEOUT_IDLE), REASON_IDLE_TIMEOUT);
	what_arrived_is_not_enough(join_with(TIMEOUT_FIRST_FRAME), REASON_IDLE_TIMEOUT);
	struct client *c = join_with(TIMEOUT_READ);
	put(c, "begun, ");
	what_arrived_is_not_enough(c, REASON_READ_TIMEOUT);
}

static void an_end_of_stream_that_had_arrived_is_no_time_out(void **state)
{
	(void)state;
	struct client *c = join_with(TIMEOUT_IDLE);
	leave_unread(c, "last\n");
	memory_stream_half_close(&c->memory);
	turn_late(10 * TIMEOUT_MS);
	world_run();
	assert_int_equal(c->timeouts, 0);
	assert_string_equal(c->seen, "last|EOF|");
	expect_end(c, REASON_PEER);
}

static void nor_is_a_reset(void **state)
{
	(void)state;
	struct client *c = join_with(TIMEOUT_IDLE);
	leave_unread(c, "last\n");
	memory_stream_reset(&c->memory);
	turn_late(10 * TIMEOUT_MS);
	world_run();
	assert_int_equal(c->timeouts, 0);
	assert_string_equal(c->seen, "last|");
	expect_end(c, REASON_RESET);
}

static void who_stood_still_is_patient_for_a_while(void **state)
{
	(void)state;
	static const uint64_t HELD_MS[] = { 999, 1000, 3000, 60000 }, GRACE_MS[] = { 0, 1000, 3000, 5000 };
	for (size_t i = 0; i < 4; i++) {
		struct client *c = join_with(TIMEOUT_IDLE), *other = join_with(TIMEOUT_WRITE);
		bool below;
		conn_host_waited(&host, UINT64_MAX);
		other->memory.window_bytes = 0;
		channel_send(channel_of(other), "x", 1, &below);
		world_run();
		host.now_ms = now_ms += TIMEOUT_MS + HELD_MS[i];
		conn_host_waited(&host, now_ms - HELD_MS[i]);
		if (GRACE_MS[i]) {
			turn_late(GRACE_MS[i] - 1);
			put(c, "par");
			expect_open(c);
			expect_open(other);
			assert_true(conn_host_next_ms(&host) > now_ms &&
				    conn_host_next_ms(&host) <= now_ms + 1);
			now_ms++;
		}
		turn_late(0);
		hang_up(c);
		expect_end(c, REASON_IDLE_TIMEOUT);
		expect_end(other, REASON_WRITE_TIMEOUT);
	}
}

/* On a machine that is always late by so much there would be no time-outs else. */
static void but_not_again_and_again(void **state)
{
	(void)state;
	struct client *c = join_with(TIMEOUT_IDLE);
	unsigned waits = 0;
	uint64_t began_ms = now_ms;
	host.now_ms = now_ms += 1;
	conn_host_waited(&host, UINT64_MAX);
	while (!c->timeouts && waits++ < 1000) {
		uint64_t wanted_ms = conn_host_next_ms(&host);
		host.now_ms = now_ms = wanted_ms + 1500;
		conn_host_waited(&host, wanted_ms);
		turn_late(0);
	}
	assert_int_equal(c->timeouts, 1);
	assert_true(now_ms - began_ms < TIMEOUT_MS + 20000);
	hang_up(c);
	expect_end(c, REASON_IDLE_TIMEOUT);
	/* Once it has kept up again, a stop counts as before. */
	struct client *other = join_with(TIMEOUT_IDLE);
	host.now_ms = ++now_ms;
	conn_host_waited(&host, UINT64_MAX);
	host.now_ms = now_ms += TIMEOUT_MS + 3000;
	conn_host_waited(&host, now_ms - 3000);
	turn_late(2999);
	expect_open(other);
	turn_late(1);
	hang_up(other);
	expect_end(other, REASON_IDLE_TIMEOUT);
}

/* A peer that has more to send whenever it is looked at, and never ends its frame. */
static unsigned flood_reads;

static ssize_t flood_read(struct stream *stream, void *to, size_t n)
{
	(void)n;
	flood_reads++;
	((struct memory_stream *)(void *)stream)->put_bytes += 5;
	memcpy(to, "flood", 5);
	return 5;
}

static size_t flood_unread(struct stream *stream)
{
	(void)stream;
	return 5;
}

static void nobody_puts_a_time_out_off_by_sending_on(void **state)
{
	(void)state;
	struct client *c = join_with(TIMEOUT_IDLE);
	const struct stream_ops *ops = c->memory.stream.ops;
	struct stream_ops flood = *ops;
	flood.read = flood_read;
	flood.unread = flood_unread;
	flood_reads = 0;
	c->memory.stream.ops = &flood;
	turn_late(TIMEOUT_MS);
	assert_int_equal(c->timeouts, 1);
	assert_in_range(flood_reads, 1, 100);
	c->memory.stream.ops = ops;
	hang_up(c);
	expect_end(c, REASON_IDLE_TIMEOUT);
}

static void none_of_many_is_ended_for_the_others(void **state)
{
	(void)state;
	struct client *all[CLIENTS];
	rules.timeouts.idle = TIMEOUT_MS;
	for (unsigned i = 0; i < CLIENTS; i++)
		all[i] = join();
	world_run();
	for (unsigned i = 0; i < CLIENTS; i++)
		leave_unread(all[i], i % 2 ? "a\nb\n" : "a\n");
	turn_late(TIMEOUT_MS);
	world_run();
	for (unsigned i = 0; i < CLIENTS; i++) {
		assert_int_equal(all[i]->timeouts, 0);
		assert_string_equal(all[i]->seen, i % 2 ? "a|b|" : "a|");
		expect_open(all[i]);
	}
}

static void slow(struct client *c, const char *text)
{
	if (strcmp(text, "slow") != 0)
		return;
	now_ms += 10 * TIMEOUT_MS;
	conn_of(c)->first.handler_ticks += UINT64_C(10000000000);
}

/* A clock that is worth asking, whatever the processor's counter says. */
static uint64_t read_clock(struct conn_host *of)
{
	of->clock_ticks = 0;
	return of->now_ms = now_ms;
}

static void a_peers_time_begins_when_its_reply_leaves(void **state)
{
	(void)state;
	host.clock_ms = read_clock;
	rules.timeouts.idle = TIMEOUT_MS;
	struct client *first = join(), *second = join();
	first->echo = second->echo = true;
	second->on_frame = slow;
	world_run();
	wait_ms(1);
	host.polled_ms = now_ms;
	leave_unread(first, "quick\n");
	leave_unread(second, "slow\n");
	memory_stream_report(&first->memory);
	memory_stream_report(&second->memory);
	assert_int_equal(first->memory.outward.bytes, 0); /* its reply leaves with the other one */
	conn_host_settle(&host);
	turn_late(0);
	expect_open(first);
	expect_open(second);
	turn_late(TIMEOUT_MS - 1);
	expect_open(first);
	expect_open(second);
	turn_late(1);
	assert_int_equal(first->timeouts, 1);
	assert_int_equal(second->timeouts, 1);
}

static void who_is_served_slowly_has_its_time_afterwards(void **state)
{
	(void)state;
	host.clock_ms = read_clock;
	struct client *c = join_with(TIMEOUT_IDLE);
	c->on_frame = slow;
	put(c, "slow\n");
	turn_late(TIMEOUT_MS - 1);
	expect_open(c);
	turn_late(1);
	world_run();
	expect_end(c, REASON_IDLE_TIMEOUT);
}

static void what_others_send_it_late_makes_it_no_less_idle(void **state)
{
	(void)state;
	bool below;
	host.clock_ms = read_clock;
	struct client *c = join_with(TIMEOUT_IDLE);
	now_ms += TIMEOUT_MS - 1;
	conn_host_turn(&host, now_ms);
	host.polled_ms = now_ms;
	channel_send(channel_of(c), "news", 4, &below);
	leave_unread(c, "par");
	memory_stream_report(&c->memory);
	now_ms++;
	conn_host_settle(&host);
	world_run();
	assert_int_equal(c->timeouts, 1);
	hang_up(c);
}

static void the_last_words_survive_a_late_end(void **state)
{
	(void)state;
	struct client *c = join();
	c->memory.read_max = 2;
	leave_unread(c, "a\nb\n");
	memory_stream_report(&c->memory);
	conn_close(conn_of(c), REASON_AGENT, CLOSE_FLUSH);
	conn_host_turn(&host, now_ms);
	assert_int_equal(conn_of(c)->state, CONN_LINGER);
	leave_unread(c, "c\n");
	memory_stream_half_close(&c->memory);
	turn_late(10 * TIMEOUT_MS);
	assert_false(c->memory.was_reset);
	world_run();
	expect_end(c, REASON_AGENT);
}

static void a_wait_for_one_frame_looks_first(void **state)
{
	(void)state;
	for (size_t read_max = 0; read_max < 3; read_max++) {
		struct client *c = join();
		c->memory.read_max = read_max;
		conn_of(c)->first.reading = &u8.protocol;
		channel_set_busy(channel_of(c), true);
		world_run();
		put_bytes(c, "\5ab", 3);
		leave_unread(c, "cdemore\n");
		c->on_frame = NULL;
		conn_read_late(conn_of(c));
		assert_string_equal(c->seen, "abcde|");
		conn_of(c)->first.reading = NULL;
		channel_set_busy(channel_of(c), false);
		world_run();
		assert_string_equal(c->seen, "abcde|more|");
	}
}

/* ---- drains ---- */

static void drain(struct client *c, uint64_t ms)
{
	host.drain_deadline_ms = now_ms + ms;
	conn_drain(conn_of(c));
	world_run();
}

static void a_drain_waits_for_the_rest_of_a_frame_that_has_arrived(void **state)
{
	(void)state;
	struct client *c = join();
	c->echo = true;
	put(c, "beg");
	drain(c, 10 * CONN_DRAIN_PARTIAL_MS);
	expect_open(c);
	leave_unread(c, "un\nanother\nhal");
	turn_late(2 * CONN_DRAIN_PARTIAL_MS);
	assert_string_equal(c->seen, "begun|another|");
	leave_unread(c, "f\n");
	turn_late(2 * CONN_DRAIN_PARTIAL_MS);
	world_run();
	assert_string_equal(c->seen, "begun|another|half|");
	expect_output(c, "begun\nanother\nhalf\n");
	expect_end(c, REASON_DRAIN);
}

static void a_drain_looks_once_more_before_it_closes(void **state)
{
	(void)state;
	struct client *c = join();
	c->echo = true;
	c->memory.read_max = 4;
	put(c, "on");
	drain(c, TIMEOUT_MS);
	expect_open(c);
	leave_unread(c, "e\n");
	leave_unread(c, "two\n");
	world_serve(c);
	assert_string_equal(c->seen, "one|two|");
	world_run();
	expect_output(c, "one\ntwo\n");
	expect_end(c, REASON_DRAIN);
}

static void the_end_of_a_drain_serves_what_had_arrived(void **state)
{
	(void)state;
	for (int how = CLOSE_FLUSH; how <= CLOSE_NOW; how++) {
		struct client *c = join();
		uint64_t cut = count_read(&counters.cut);
		c->echo = c->drain_keeps = true;
		drain(c, TIMEOUT_MS);
		expect_open(c);
		for (int i = 0; i < 600; i++)
			leave_unread(c, "x\n");
		now_ms += TIMEOUT_MS;
		conn_end_drain(conn_of(c), (enum close_how)how);
		conn_host_turn(&host, now_ms);
		world_run();
		assert_int_equal(c->frames_seen, 600);
		assert_int_equal(c->memory.outward.bytes, 1200);
		expect_end(c, REASON_DRAIN);
		assert_int_equal(count_read(&counters.cut) - cut, how == CLOSE_NOW);
	}
	assert_int_equal(count_read(&counters.discarded_bytes), 0);
}

static void what_cannot_be_served_at_the_end_of_a_drain_is_cut_and_counted(void **state)
{
	(void)state;
	struct client *waits = join(), *stalls = join();
	channel_set_busy(channel_of(waits), true);
	stalls->drain_keeps = stalls->echo = true;
	stalls->memory.window_bytes = 2;
	world_run();
	drain(waits, TIMEOUT_MS);
	drain(stalls, TIMEOUT_MS);
	leave_unread(waits, "1234\n");
	leave_unread(stalls, "12\n345\n");
	now_ms += TIMEOUT_MS;
	conn_end_drain(conn_of(waits), CLOSE_NOW);
	conn_end_drain(conn_of(stalls), CLOSE_NOW);
	world_run();
	expect_end(waits, REASON_DRAIN);
	expect_end(stalls, REASON_DRAIN);
	assert_string_equal(stalls->seen, "12|345|");
	assert_int_equal(count_read(&counters.cut), 2);
	assert_int_equal(count_read(&counters.discarded_bytes), 5);
}

static void close_it(struct client *c, const char *text)
{
	(void)text;
	conn_close(conn_of(c), REASON_AGENT, CLOSE_FLUSH);
}

static void an_agent_may_end_it_at_the_end_of_a_drain(void **state)
{
	(void)state;
	for (size_t window = 3; window <= 4; window++) {
		struct client *c = join();
		uint64_t cut = count_read(&counters.cut);
		c->drain_keeps = c->echo = true;
		c->on_frame = close_it;
		c->memory.window_bytes = window;
		drain(c, TIMEOUT_MS);
		leave_unread(c, "bye\n");
		now_ms += TIMEOUT_MS;
		conn_end_drain(conn_of(c), CLOSE_NOW);
		world_run();
		expect_end(c, REASON_AGENT);
		assert_int_equal(count_read(&counters.cut) - cut,
				 window == 3); /* its last word was too long */
	}
}

static void a_late_end_of_a_drain_comes_to_an_end(void **state)
{
	(void)state;
	struct client *c = join();
	c->drain_keeps = true;
	drain(c, TIMEOUT_MS);
	leave_unread(c, "x\ny\n");
	turn_late(TIMEOUT_MS + CONN_LATE_DRAIN_MS);
	conn_end_drain(conn_of(c), CLOSE_NOW);
	conn_host_turn(&host, now_ms);
	assert_string_equal(c->seen, "");
	world_run();
	expect_end(c, REASON_DRAIN);
	assert_int_equal(count_read(&counters.discarded_bytes), 4);
}

/* ---- output ---- */

/* So much waits for the peer that it is no matter of bytes on their way. */
static struct client *join_taking(size_t window)
{
	static char reply[5 * CONN_TAKEN_BYTES];
	bool below;
	rules.send_buffer_bytes = 1 << 20;
	struct client *c = join_with(TIMEOUT_IDLE);
	c->memory.window_bytes = window;
	memset(reply, 'x', sizeof reply);
	assert_int_equal(channel_send(channel_of(c), reply, sizeof reply, &below), 0);
	assert_true(below);
	world_run();
	return c;
}

static void take_some(struct client *c)
{
	char bytes[CONN_TAKEN_BYTES / 4];
	assert_int_equal(memory_stream_take(&c->memory, bytes, sizeof bytes), sizeof bytes);
}

static void who_takes_its_output_slowly_is_not_idle(void **state)
{
	(void)state;
	static const size_t WINDOWS[] = { SIZE_MAX, 3 * CONN_TAKEN_BYTES };
	for (size_t i = 0; i < 2; i++) {
		struct client *c = join_taking(WINDOWS[i]);
		for (int n = 0; n < 15; n++) {
			wait_ms(TIMEOUT_MS / 4);
			take_some(c);
			if (n % 3 == 0)
				world_run(); /* it may be a while until the stream tells */
		}
		expect_open(c);
		assert_int_equal(c->timeouts, 0);
		for (int n = 0; n < 9; n++) /* not for ever, once it takes no more */
			wait_ms(TIMEOUT_MS / 4);
		assert_int_equal(c->timeouts, 1);
		expect_end(c, REASON_IDLE_TIMEOUT);
	}
}

static void a_few_bytes_on_their_way_keep_nobody(void **state)
{
	(void)state;
	struct client *c = join_with(TIMEOUT_IDLE);
	char bytes[5];
	bool below;
	for (int n = 0; n < 9; n++) {
		assert_int_equal(channel_send(channel_of(c), "news", 4, &below), 0);
		world_run();
		wait_ms(TIMEOUT_MS / 10);
		assert_int_equal(memory_stream_take(&c->memory, bytes, 5), 5);
		expect_open(c);
	}
	wait_ms(TIMEOUT_MS / 10);
	expect_end(c, REASON_IDLE_TIMEOUT);
}

static void below_the_mark_again_its_time_begins_anew(void **state)
{
	(void)state;
	rules.timeouts = (struct timeouts){ .read = TIMEOUT_MS, .idle = TIMEOUT_MS };
	struct client *c = join();
	c->memory.window_bytes = 0;
	c->echo = true;
	for (int i = 0; i < 12; i++)
		memory_stream_put(&c->memory, hundred, i < 11 ? 100 : 50);
	world_run();
	assert_true(conn_of(c)->choked);
	wait_ms(10 * TIMEOUT_MS);
	c->memory.window_bytes = SIZE_MAX;
	world_run();
	wait_ms(TIMEOUT_MS - 1);
	expect_open(c);
	assert_int_equal(c->timeouts, 0);
	wait_ms(1);
	hang_up(c);
	expect_end(c, REASON_READ_TIMEOUT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_CONNS(a_frame_that_had_arrived_is_served_before_its_time_out),
		WITH_CONNS(it_is_read_to_the_end_however_small_the_pieces),
		WITH_CONNS(bytes_that_complete_no_frame_are_no_excuse),
		WITH_CONNS(an_end_of_stream_that_had_arrived_is_no_time_out),
		WITH_CONNS(nor_is_a_reset),
		WITH_CONNS(who_stood_still_is_patient_for_a_while),
		WITH_CONNS(but_not_again_and_again),
		WITH_CONNS(nobody_puts_a_time_out_off_by_sending_on),
		WITH_CONNS(none_of_many_is_ended_for_the_others),
		WITH_CONNS(a_peers_time_begins_when_its_reply_leaves),
		WITH_CONNS(who_is_served_slowly_has_its_time_afterwards),
		WITH_CONNS(what_others_send_it_late_makes_it_no_less_idle),
		WITH_CONNS(the_last_words_survive_a_late_end),
		WITH_CONNS(a_wait_for_one_frame_looks_first),
		WITH_CONNS(a_drain_waits_for_the_rest_of_a_frame_that_has_arrived),
		WITH_CONNS(a_drain_looks_once_more_before_it_closes),
		WITH_CONNS(the_end_of_a_drain_serves_what_had_arrived),
		WITH_CONNS(what_cannot_be_served_at_the_end_of_a_drain_is_cut_and_counted),
		WITH_CONNS(an_agent_may_end_it_at_the_end_of_a_drain),
		WITH_CONNS(a_late_end_of_a_drain_comes_to_an_end),
		WITH_CONNS(who_takes_its_output_slowly_is_not_idle),
		WITH_CONNS(a_few_bytes_on_their_way_keep_nobody),
		WITH_CONNS(below_the_mark_again_its_time_begins_anew),
	};
	return cmocka_run_group_tests_name("conn_late", tests, NULL, NULL);
}
