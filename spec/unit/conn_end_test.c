/* How connections end, and what holds them up. */
#include "conn_steps.h"

#include <string.h>
#include <uv.h>

/* ---- ends ---- */

static struct client *pending_client(void)
{
	struct client *c = join();
	bool below;
	c->memory.window_bytes = 3;
	assert_int_equal(channel_send(channel_of(c), "last words", 10, &below), 0);
	world_run();
	return c;
}

static void close_flush_delivers_first(void **state)
{
	(void)state;
	bool below;
	struct client *c = pending_client();
	conn_close(conn_of(c), REASON_AGENT, CLOSE_FLUSH);
	assert_int_equal(channel_send(channel_of(c), "more", 4, &below), 0); /* from closed() */
	world_run();
	assert_int_equal(c->closed, 0);
	put(c, "ignored\n");
	c->memory.window_bytes = SIZE_MAX;
	hang_up(c);
	expect_output(c, "last words\nmore\n");
	expect_end(c, REASON_AGENT);
	assert_string_equal(c->seen, "");
}

static void close_flush_does_not_wait_for_ever(void **state)
{
	(void)state;
	struct client *c = pending_client();
	conn_close(conn_of(c), REASON_AGENT, CLOSE_FLUSH);
	world_run();
	wait_ms(9999);
	assert_int_equal(c->closed, 0);
	wait_ms(1);
	expect_end(c, REASON_AGENT); /* the first reason is the one that counts */
}

static void close_now_drops(void **state)
{
	(void)state;
	struct client *c = pending_client();
	conn_close(conn_of(c), REASON_AGENT, CLOSE_NOW);
	conn_close(conn_of(c), REASON_KICK, CLOSE_FLUSH);
	world_run();
	expect_end(c, REASON_AGENT);
	assert_false(c->memory.was_reset);
	expect_output(c, "las");
}

static void close_reset_is_seen(void **state)
{
	(void)state;
	struct client *c = pending_client();
	conn_close(conn_of(c), REASON_AGENT, CLOSE_FLUSH);
	world_run();
	assert_int_equal(c->closed, 0);
	conn_close(conn_of(c), REASON_KICK, CLOSE_RESET); /* harder, while it flushes */
	world_run();
	expect_end(c, REASON_AGENT);
	assert_true(c->memory.was_reset);
}

static void close_it(struct client *c, const char *text)
{
	(void)text;
	conn_close(conn_of(c), REASON_AGENT, CLOSE_FLUSH);
}

static struct client *lingering_client(void)
{
	struct client *c = join();
	c->echo = true;
	c->on_frame = close_it;
	c->memory.read_max = 2;
	put(c, "a\nb\nc\n");
	assert_int_equal(c->closed, 1);
	assert_int_equal(c->left, 1);
	assert_int_equal(c->gone, 0);
	assert_true(c->memory.our_shut);
	assert_string_equal(c->seen, "a|");
	return c;
}

static void unread_input_lingers_to_the_end_of_stream(void **state)
{
	(void)state;
	struct client *c = lingering_client();
	wait_ms(500);
	put(c, "d\n");
	assert_int_equal(c->gone, 0);
	hang_up(c);
	expect_end(c, REASON_AGENT);
	assert_false(c->memory.was_reset);
	assert_int_equal(count_read(&counters.discarded_bytes), 6);
	expect_output(c, "a\n");
}

static void overrun(struct client *client, const char *text)
{
	channel_give_way(channel_of(client));
	conn_close(conn_of(client), REASON_PROCEED_TIMEOUT, text[0] == 'f' ? CLOSE_FLUSH : CLOSE_NOW);
}

/* An event as the poll reports it, and the end of the poll. */
static void poll_with(struct client *client, const char *text)
{
	memory_stream_put(&client->memory, text, strlen(text));
	memory_stream_report(&client->memory);
	conn_host_settle(&host);
}

static void the_end_of_what_has_overrun_gives_way_to_the_next_poll(void **state)
{
	(void)state;
	struct client *c = join(), *neighbour = join();
	c->on_frame = overrun;
	neighbour->echo = true;
	world_run();
	poll_with(c, "flush\n");
	conn_host_turn(&host, now_ms);
	assert_int_equal(c->closed, 0);
	assert_true(conn_host_next_ms(&host) <= now_ms);
	poll_with(neighbour, "a\n");
	assert_int_equal(c->closed, 0);
	expect_output(neighbour, "a\n");
	expect_end(c, REASON_PROCEED_TIMEOUT);
}

static void the_end_of_what_has_overrun_gives_way_only_where_it_may_wait(void **state)
{
	(void)state;
	struct client *c = join();
	c->on_frame = overrun;
	world_run();
	poll_with(c, "now\n");
	assert_int_equal(c->closed, 1);
	world_run();
	expect_end(c, REASON_PROCEED_TIMEOUT);
}

static void lingering_ends_after_a_second(void **state)
{
	(void)state;
	struct client *c = lingering_client();
	wait_ms(500);
	put(c, "d\n"); /* no extension */
	wait_ms(499);
	assert_int_equal(c->gone, 0);
	wait_ms(1);
	expect_end(c, REASON_AGENT);
	assert_false(c->memory.was_reset);
}

static void the_end_of_stream_comes_after_the_frames(void **state)
{
	(void)state;
	struct client *c = join();
	c->echo = true;
	c->memory.window_bytes = 1;
	c->memory.read_max = 3;
	memory_stream_put(&c->memory, "a\nb\nrest", 8);
	hang_up(c);
	assert_string_equal(c->seen, "a|b|EOF|");
	assert_int_equal(c->closed, 0);
	c->memory.window_bytes = SIZE_MAX;
	world_run();
	expect_end(c, REASON_PEER);
	expect_output(c, "a\nb\n");
	assert_false(c->memory.was_reset);
}

static void a_half_closed_connection_can_be_kept(void **state)
{
	(void)state;
	rules.timeouts = (struct timeouts){ .read = TIMEOUT_MS, .idle = TIMEOUT_MS };
	struct client *c = join();
	bool below;
	c->eof_answer = EOF_KEEP;
	memory_stream_put(&c->memory, "a\nrest", 6);
	hang_up(c);
	wait_ms(TIMEOUT_MS - 1); /* the rest need not complete any more */
	assert_string_equal(c->seen, "a|EOF|");
	expect_open(c);
	channel_send(channel_of(c), "still here", 10, &below);
	conn_shutdown(conn_of(c));
	assert_int_equal(channel_send(channel_of(c), "x", 1, &below), UV_EPIPE);
	world_run();
	expect_output(c, "still here\n");
	assert_true(c->memory.our_shut);
	expect_end(c, REASON_PEER);
	assert_int_equal(c->eofs, 1);
}

static void a_kept_half_closed_connection_is_idle_when_nothing_goes_to_it(void **state)
{
	(void)state;
	rules.timeouts = (struct timeouts){ .write = 100 * TIMEOUT_MS, .idle = TIMEOUT_MS };
	struct client *c = join();
	bool below;
	c->eof_answer = EOF_KEEP;
	hang_up(c);
	for (int i = 0; i < 5; i++) { /* what goes to it keeps it */
		wait_ms(TIMEOUT_MS - 1);
		expect_open(c);
		channel_send(channel_of(c), "news", 4, &below);
		world_run();
		expect_output(c, "news\n");
	}
	channel_set_busy(channel_of(c), true); /* a suspended agent is at work */
	wait_ms(3 * TIMEOUT_MS);
	expect_open(c);
	channel_set_busy(channel_of(c), false);
	c->memory.window_bytes = 0; /* as does what it has not taken yet: that is the write deadline's */
	channel_send(channel_of(c), "more", 4, &below);
	world_run();
	wait_ms(3 * TIMEOUT_MS);
	expect_open(c);
	c->memory.window_bytes = SIZE_MAX;
	world_run();
	wait_ms(TIMEOUT_MS - 1);
	expect_open(c);
	wait_ms(1);
	expect_end(c, REASON_IDLE_TIMEOUT);
}

static void go_to_and_fro(struct client *c, const char *text)
{
	if (!strcmp(text, "switch"))
		assert_int_equal(conn_set_protocol(conn_of(c), &u8.protocol, sizeof u8), 0);
	if (!strcmp(text, "back"))
		conn_set_protocol(conn_of(c), &line.protocol, 0);
}

static void a_shared_protocol_takes_over_and_the_own_one_is_gone(void **state)
{
	(void)state;
	for (size_t read_max = 0; read_max < 6; read_max++) {
		struct client *c = join();
		c->on_frame = go_to_and_fro;
		c->memory.read_max = read_max;
		put(c, "a\nswitch\n\1b\4backc\nswitch\n\1d\4backe\n");
		assert_string_equal(c->seen, "a|switch|b|back|c|switch|d|back|e|");
		assert_ptr_equal(conn_of(c)->protocol, &line.protocol);
		assert_false(conn_of(c)->own_protocol || conn_of(c)->own_next);
	}
}

static void changing_ones_mind_about_protocols_keeps_none(void **state)
{
	(void)state;
	struct client *c = join();
	for (int i = 0; i < 10; i++) {
		assert_int_equal(conn_set_protocol(conn_of(c), &u8.protocol, sizeof u8), 0);
		conn_set_protocol(conn_of(c), &line.protocol, 0);
		assert_false(conn_of(c)->own_protocol || conn_of(c)->own_next);
	}
	put(c, "a\n");
	assert_string_equal(c->seen, "a|");
}

/* Of those that are set while a batch is handed up the last one counts; until then replies are by it, too. */
static void change_ones_mind(struct client *c, const char *text)
{
	if (strcmp(text, "switch") != 0)
		return;
	const struct protocol *before = conn_of(c)->protocol;
	for (int i = 0; i < 10; i++) {
		assert_int_equal(conn_set_protocol(conn_of(c), &line.protocol, sizeof line), 0);
		assert_int_equal(conn_set_protocol(conn_of(c), &u8.protocol, sizeof u8), 0);
	}
	assert_ptr_equal(conn_of(c)->protocol, before);
	assert_true(conn_of(c)->own_next);
	bool is_below;
	assert_int_equal(channel_send(channel_of(c), "hi", 2, &is_below), 0);
}

static void the_last_protocol_set_in_a_batch_follows_it(void **state)
{
	(void)state;
	struct client *c = join();
	c->on_frame = change_ones_mind;
	put(c, "a\nswitch\n\1b");
	assert_string_equal(c->seen, "a|switch|b|");
	assert_true(conn_of(c)->own_protocol);
	assert_false(conn_of(c)->own_next);
	expect_output(c, "\2hi");
}

/* A trial leaves what there was, or what it has made of it, and nothing behind. */
static void a_trial_of_a_protocol_is_taken_back_or_kept(void **state)
{
	(void)state;
	struct codec nets;
	assert_int_equal(codec_init_named(&nets, "netstring", 64), 0);
	for (int own = 0; own < 2; own++) {
		for (int keep = 0; keep < 2; keep++) {
			struct client *c = join();
			if (own)
				assert_int_equal(conn_set_protocol(conn_of(c), &u8.protocol, sizeof u8), 0);
			struct conn_mark mark = conn_mark(conn_of(c));
			assert_int_equal(conn_set_protocol(conn_of(c), &nets.protocol, sizeof nets), 0);
			assert_int_equal(conn_set_protocol(conn_of(c), &nets.protocol, sizeof nets), 0);
			(keep ? conn_keep : conn_restore)(conn_of(c), &mark);
			put(c, keep ? "1:a," : own ? "\1a" : "a\n");
			assert_string_equal(c->seen, "a|");
		}
	}
}

static void our_half_close_reads_on(void **state)
{
	(void)state;
	struct client *c = pending_client();
	conn_shutdown(conn_of(c));
	world_run();
	assert_false(c->memory.our_shut);
	c->memory.window_bytes = SIZE_MAX;
	world_run();
	assert_true(c->memory.our_shut);
	put(c, "a\n");
	expect_open(c);
	hang_up(c);
	assert_string_equal(c->seen, "a|EOF|");
	expect_end(c, REASON_PEER);
}

static void suspend(struct client *c, const char *text)
{
	if (*text == '!')
		channel_set_busy(channel_of(c), true);
}

static void a_suspended_agent_is_asked_again_about_the_end(void **state)
{
	(void)state;
	struct client *c = join();
	c->on_frame = suspend;
	memory_stream_put(&c->memory, "!a\nb\n!c\nd\n", 10);
	hang_up(c);
	assert_int_equal(c->eofs, 1);
	assert_string_equal(c->seen, "!a|");
	channel_set_busy(channel_of(c), false);
	world_run();
	assert_string_equal(c->seen, "!a|b|!c|");
	expect_open(c);
	channel_set_busy(channel_of(c), false);
	world_run();
	assert_string_equal(c->seen, "!a|b|!c|d|EOF|");
	assert_in_range(c->eofs, 2, 3);
	expect_end(c, REASON_PEER);
}

static void a_reset_ends_it_after_the_frames_before_it(void **state)
{
	(void)state;
	struct client *c = join();
	c->memory.read_max = 3;
	memory_stream_put(&c->memory, "one\ntwo\nrest", 12);
	conn_of(c)->io.events->ready(
	    &conn_of(c)->io, STREAM_BROKEN); /* as a socket does: what was received can still be read */
	world_run();
	assert_string_equal(c->seen, "one|two|");
	expect_end(c, REASON_RESET);
	c = pending_client();
	memory_stream_reset(&c->memory);
	world_run();
	expect_end(c, REASON_RESET);
	c = lingering_client();
	memory_stream_reset(&c->memory);
	world_run();
	expect_end(c, REASON_AGENT);
}

/* ---- pause, suspension, drain ---- */

static void pause_it(struct client *c, const char *text)
{
	if (*text == '!')
		channel_pause(channel_of(c));
}

static void paused_nothing_is_read(void **state)
{
	(void)state;
	rules.timeouts = (struct timeouts){ .read = TIMEOUT_MS, .idle = TIMEOUT_MS };
	struct client *c = join();
	c->on_frame = pause_it;
	put(c, "a\n!b\nc\nd");
	put(c, "e\n");
	assert_string_equal(c->seen, "a|!b|");
	assert_int_equal(c->memory.watched, 0);
	hang_up(c);
	wait_ms(10 * TIMEOUT_MS);
	expect_open(c);
	channel_resume(channel_of(c));
	world_run();
	assert_string_equal(c->seen, "a|!b|c|de|EOF|");
	expect_end(c, REASON_PEER);
	c = join();
	channel_pause(channel_of(c));
	put(c, "par");
	wait_ms(10 * TIMEOUT_MS);
	channel_resume(channel_of(c));
	world_run();
	expect_timeout_after(c, TIMEOUT_MS, TIMEOUT_READ, REASON_READ_TIMEOUT);
}

static void a_suspended_agents_frames_wait(void **state)
{
	(void)state;
	rules.timeouts = (struct timeouts){ .read = TIMEOUT_MS, .idle = TIMEOUT_MS };
	for (size_t read_max = 0; read_max < 4; read_max++) {
		struct client *c = join();
		char expected[400] = "!|";
		c->on_frame = suspend;
		c->memory.read_max = read_max;
		memory_stream_put(&c->memory, "!\n", 2);
		for (int i = 10; i < 60; i++) {
			char text[16];
			snprintf(text, sizeof text, "%d\n", i);
			memory_stream_put(&c->memory, text, 3);
			snprintf(expected + strlen(expected), 16, "%d|", i);
		}
		world_run();
		assert_string_equal(c->seen, "!|");
		assert_false(c->memory.watched & STREAM_READ);
		assert_in_range(conn_of(c)->waiting_frames, 16, 16 + BATCH_MAX);
		if (read_max)
			assert_int_equal(conn_of(c)->waiting_frames, 16);
		wait_ms(10 * TIMEOUT_MS);
		channel_set_busy(channel_of(c), false);
		world_run();
		assert_string_equal(c->seen, expected);
		assert_int_equal(conn_of(c)->waiting_frames, 0);
		assert_true(c->memory.watched & STREAM_READ);
		memory_stream_reset(&c->memory);
		world_run();
	}
}

/* A frame that never ends cannot be counted: its bytes are. */
static void what_waits_is_bounded_in_bytes_too(void **state)
{
	(void)state;
	static char large[400000];
	struct client *c = join();
	memset(large, 'x', sizeof large);
	channel_set_busy(channel_of(c), true);
	put_bytes(c, large, sizeof large);
	assert_false(c->memory.watched & STREAM_READ);
	assert_true(buf_len(conn_of(c)->in) <= FRAME_MAX_BYTES + 4 * CONN_SCRATCH_BYTES);
}

static void drain_ends_the_idle_at_once(void **state)
{
	(void)state;
	struct client *idle = join(), *partial = join(), *kept = join(), *busy = join(), *unread = join();
	unread->echo = kept->drain_keeps = true;
	put(partial, "par");
	channel_set_busy(channel_of(busy), true);
	world_run();
	memory_stream_put(&unread->memory, "a\n", 2);
	host.drain_deadline_ms = now_ms + 700;
	for (unsigned i = 0; i < 5; i++)
		conn_drain(conn_of(clients[i]));
	conn_drain(conn_of(idle)); /* once is enough */
	world_run();
	expect_end(idle, REASON_DRAIN);
	assert_int_equal(idle->drains, 1);
	assert_int_equal(idle->drain_remaining_ms, 700);
	expect_end(unread, REASON_DRAIN);
	expect_output(unread, "a\n");
	assert_int_equal(busy->drains, 0); /* one callback at a time */
	wait_ms(200);
	expect_open(partial);
	expect_open(kept);
	expect_open(busy);
	put(partial, "tial\n");
	assert_string_equal(partial->seen, "partial|");
	expect_end(partial, REASON_DRAIN);
	channel_set_busy(channel_of(busy), false);
	world_run();
	expect_end(busy, REASON_DRAIN);
	assert_int_equal(busy->drain_remaining_ms, 500);
	put(kept, "b\n");
	assert_string_equal(kept->seen, "b|");
	expect_open(kept);
	conn_close(conn_of(kept), REASON_AGENT, CLOSE_FLUSH);
	world_run();
	expect_end(kept, REASON_AGENT);
}

/* Draining, it has read a part of a frame and the end of the stream, which the agent does not know yet. */
static struct client *ending_client(void)
{
	struct client *c = join();
	host.drain_deadline_ms = now_ms + 700;
	c->memory.window_bytes = 0;
	memory_stream_put(&c->memory, "part", 4);
	memory_stream_half_close(&c->memory);
	conn_drain(conn_of(c));
	conn_host_turn(&host, now_ms);
	assert_true(conn_of(c)->eof && !conn_of(c)->eof_done);
	return c;
}

static void a_drain_rests_while_the_peer_does_not_read(void **state)
{
	(void)state;
	struct client *c = ending_client();
	assert_int_equal(channel_send_raw(channel_of(c), hundred, 100, 1), 0);
	for (int i = 0; i < 10; i++)
		channel_send_raw(channel_of(c), hundred, 100, 1);
	world_run(); /* which asserts that it comes to rest */
	assert_int_equal(c->eofs, 0);
	expect_open(c);
	c->memory.window_bytes = SIZE_MAX;
	world_run();
	assert_int_equal(c->eofs, 1);
	expect_end(c, REASON_PEER);
}

static void a_drain_does_not_wait_for_who_is_paused(void **state)
{
	(void)state;
	struct client *c = ending_client();
	channel_pause(channel_of(c));
	world_run();
	assert_int_equal(c->drains, 1);
	expect_end(c, REASON_DRAIN);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_CONNS(close_flush_delivers_first),
		WITH_CONNS(close_flush_does_not_wait_for_ever),
		WITH_CONNS(close_now_drops),
		WITH_CONNS(close_reset_is_seen),
		WITH_CONNS(unread_input_lingers_to_the_end_of_stream),
		WITH_CONNS(the_end_of_what_has_overrun_gives_way_to_the_next_poll),
		WITH_CONNS(the_end_of_what_has_overrun_gives_way_only_where_it_may_wait),
		WITH_CONNS(lingering_ends_after_a_second),
		WITH_CONNS(the_end_of_stream_comes_after_the_frames),
		WITH_CONNS(a_half_closed_connection_can_be_kept),
		WITH_CONNS(a_kept_half_closed_connection_is_idle_when_nothing_goes_to_it),
		WITH_CONNS(a_shared_protocol_takes_over_and_the_own_one_is_gone),
		WITH_CONNS(changing_ones_mind_about_protocols_keeps_none),
		WITH_CONNS(the_last_protocol_set_in_a_batch_follows_it),
		WITH_CONNS(a_trial_of_a_protocol_is_taken_back_or_kept),
		WITH_CONNS(our_half_close_reads_on),
		WITH_CONNS(a_suspended_agent_is_asked_again_about_the_end),
		WITH_CONNS(a_reset_ends_it_after_the_frames_before_it),
		WITH_CONNS(paused_nothing_is_read),
		WITH_CONNS(a_suspended_agents_frames_wait),
		WITH_CONNS(what_waits_is_bounded_in_bytes_too),
		WITH_CONNS(drain_ends_the_idle_at_once),
		WITH_CONNS(a_drain_rests_while_the_peer_does_not_read),
		WITH_CONNS(a_drain_does_not_wait_for_who_is_paused),
	};
	return cmocka_run_group_tests_name("conn_end", tests, NULL, NULL);
}
