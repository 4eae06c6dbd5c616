#include "conn_steps.h"

#include "base/err.h"
#include "support/conn_model.h"

#include <string.h>
#include <uv.h>

/* ---- frames and replies ---- */

static void frames_come_in_order_however_reads_split(void **state)
{
	(void)state;
	for (size_t read_max = 1; read_max <= 7; read_max++) {
		struct client *c = join();
		c->memory.read_max = read_max;
		put(c, "one\ntwo\n\nthree\nfo");
		put(c, "ur\nrest");
		assert_string_equal(c->seen, line.empty == CODEC_EMPTY_DELIVER ? "one|two||three|four|"
									       : "one|two|three|four|");
		assert_int_equal(c->opened, 1);
	}
}

static void replies_are_written(void **state)
{
	(void)state;
	struct client *c = join();
	c->echo = true;
	put(c, "one\ntwo\nthr");
	expect_output(c, "one\ntwo\n");
	assert_int_equal(count_read(&counters.frames_in), 2);
	assert_int_equal(count_read(&counters.frames_out), 2);
	assert_int_equal(count_read(&counters.bytes_in), 11);
	assert_int_equal(count_read(&counters.bytes_out), 8);
	bool below = false;
	assert_int_equal(channel_send(channel_of(c), "by itself", 9, &below), 0);
	assert_true(below);
	world_run();
	expect_output(c, "by itself\n");
}

static void small_output_of_a_poll_leaves_together(void **state)
{
	(void)state;
	struct client *c = join(), *other = join();
	c->echo = other->echo = true;
	memory_stream_put(&c->memory, "one\n", 4);
	memory_stream_put(&other->memory, "two\n", 4);
	assert_true(memory_stream_report(&c->memory));
	assert_true(memory_stream_report(&other->memory));
	assert_int_equal(c->memory.outward.bytes, 0);
	conn_host_settle(&host);
	expect_output(c, "one\n");
	expect_output(other, "two\n");
}

static void replies_of_an_event_leave_in_one_write(void **state)
{
	(void)state;
	struct client *c = join();
	char text[600] = "";
	for (unsigned i = 0; i < 200; i++)
		strcat(text, "x\n");
	c->echo = true;
	put(c, text);
	expect_output(c, text);
	assert_int_equal(c->memory.writes, 1);
}

static void a_full_list_is_settled_within_the_poll(void **state)
{
	(void)state;
	struct client *all[CONN_UNSETTLED_MAX + 1];
	for (unsigned i = 0; i <= CONN_UNSETTLED_MAX; i++) {
		all[i] = join();
		all[i]->echo = true;
		memory_stream_put(&all[i]->memory, "x\n", 2);
	}
	for (unsigned i = 0; i <= CONN_UNSETTLED_MAX; i++)
		assert_true(memory_stream_report(&all[i]->memory));
	assert_int_equal(all[CONN_UNSETTLED_MAX]->memory.outward.bytes, 0);
	assert_int_equal(all[CONN_UNSETTLED_MAX - 1]->memory.outward.bytes, 2);
	expect_output(all[0], "x\n");
	world_run();
	expect_output(all[CONN_UNSETTLED_MAX], "x\n");
}

static void large_output_leaves_at_once(void **state)
{
	(void)state;
	struct client *c = join();
	static char frames[4 * FRAME_MAX_BYTES];
	memset(frames, 'x', sizeof frames);
	for (size_t end = FRAME_MAX_BYTES; end <= sizeof frames; end += FRAME_MAX_BYTES)
		frames[end - 1] = '\n';
	c->echo = true;
	memory_stream_put(&c->memory, frames, sizeof frames);
	assert_true(memory_stream_report(&c->memory));
	assert_int_equal(c->memory.outward.bytes, sizeof frames);
}

static void many_frames_take_turns(void **state)
{
	(void)state;
	struct client *c = join(), *other = join();
	static char many[2 * 2000];
	for (size_t i = 0; i < sizeof many; i += 2)
		memcpy(many + i, "x\n", 2);
	memory_stream_put(&c->memory, many, sizeof many);
	memory_stream_put(&other->memory, "y\n", 2);
	world_serve(c);
	assert_in_range(c->frames_seen, 1, 512);
	world_serve(other);
	assert_int_equal(other->frames_seen, 1);
	assert_true(conn_host_turn(&host, now_ms));
	world_run();
	assert_int_equal(c->frames_seen, 2000);
}

static void a_bad_frame_ends_it_after_the_good_ones(void **state)
{
	(void)state;
	static char large[FRAME_MAX_BYTES + 100];
	struct client *c = join();
	c->echo = true;
	memset(large, 'x', sizeof large);
	memory_stream_put(&c->memory, "good\n", 5);
	memory_stream_put(&c->memory, large, sizeof large);
	hang_up(c);
	assert_string_equal(c->seen, "good|");
	assert_int_equal(c->bad_frames, 1);
	expect_output(c, "good\n");
	expect_end(c, REASON_OVERSIZE);
}

static void switch_to_u8(struct client *c, const char *text)
{
	if (!strcmp(text, "switch"))
		assert_int_equal(conn_set_protocol(conn_of(c), &u8.protocol, sizeof u8), 0);
	if (!strcmp(text, "back"))
		assert_int_equal(conn_set_protocol(conn_of(c), &line.protocol, sizeof line), 0);
}

static void a_new_codec_takes_over_with_the_next_byte(void **state)
{
	(void)state;
	for (size_t read_max = 0; read_max < 6; read_max++) {
		struct client *c = join();
		c->on_frame = switch_to_u8;
		c->memory.read_max = read_max;
		put(c, "a\nswitch\n\3b\nc\4backd\nswitch\n\1x\1yre");
		assert_string_equal(c->seen, "a|switch|b\nc|back|d|switch|x|y|");
	}
}

static void a_codec_set_in_mid_frame_keeps_the_bytes(void **state)
{
	(void)state;
	struct client *c = join();
	put(c, "\3ab");
	assert_int_equal(conn_set_protocol(conn_of(c), &u8.protocol, sizeof u8), 0);
	world_run();
	assert_string_equal(c->seen, "");
	put(c, "c\2x");
	assert_string_equal(c->seen, "abc|");
	put(c, "y");
	assert_string_equal(c->seen, "abc|xy|");
	c = join();
	put(c, "\1a\1b\1");
	assert_int_equal(conn_set_protocol(conn_of(c), &u8.protocol, sizeof u8), 0);
	world_run(); /* whole frames by the new codec: they need no further byte */
	assert_string_equal(c->seen, "a|b|");
}

static void read_one_u8(struct client *c, const char *text)
{
	if (!strcmp(text, "want")) {
		conn_of(c)->first.reading = &u8.protocol;
		channel_set_busy(channel_of(c), true);
	} else if (conn_of(c)->first.reading) {
		conn_of(c)->first.reading = NULL;
		channel_set_busy(channel_of(c), false);
	}
}

static void a_suspended_agent_reads_one_frame_with_another_codec(void **state)
{
	(void)state;
	for (size_t read_max = 0; read_max < 4; read_max++) {
		struct client *c = join();
		c->on_frame = read_one_u8;
		c->memory.read_max = read_max;
		put(c, "a\nwant\n\3b\ncd\nwant\n");
		put(c, "\1e");
		put(c, "f\n");
		assert_string_equal(c->seen, "a|want|b\nc|d|want|e|f|");
	}
}

/* ---- deadlines ---- */

static void a_started_frame_must_complete(void **state)
{
	(void)state;
	rules.timeouts.read = TIMEOUT_MS;
	struct client *c = join();
	wait_ms(10 * TIMEOUT_MS); /* nothing is begun */
	put(c, "par");
	wait_ms(400);
	put(c, "tial\nnext"); /* a new frame, a new deadline */
	expect_timeout_after(c, TIMEOUT_MS, TIMEOUT_READ, REASON_READ_TIMEOUT);
	c = join();
	put(c, "a\n");
	wait_ms(10 * TIMEOUT_MS);
	expect_open(c);
}

static void trickling_does_not_help(void **state)
{
	(void)state;
	rules.timeouts.read = TIMEOUT_MS;
	struct client *c = join();
	put(c, "x");
	for (int i = 0; i < 9; i++) {
		wait_ms(100);
		put(c, "x");
	}
	expect_timeout_after(c, 100, TIMEOUT_READ, REASON_READ_TIMEOUT);
}

static void only_whole_frames_count_against_idleness(void **state)
{
	(void)state;
	rules.timeouts.idle = TIMEOUT_MS;
	struct client *c = join();
	bool below;
	wait_ms(900);
	put(c, "a\nb");
	wait_ms(900);
	put(c, "c\nd");
	wait_ms(500);
	put(c, "e");
	channel_send(channel_of(c), "x", 1, &below);
	expect_timeout_after(c, 500, TIMEOUT_IDLE, REASON_IDLE_TIMEOUT);
	expect_timeout_after(join(), TIMEOUT_MS, TIMEOUT_IDLE, REASON_IDLE_TIMEOUT);
}

static void the_first_frame_has_its_own_deadline(void **state)
{
	(void)state;
	rules.timeouts.first_frame = TIMEOUT_MS;
	struct client *c = join();
	wait_ms(600);
	put(c, "par");
	expect_timeout_after(c, 400, TIMEOUT_FIRST_FRAME, REASON_IDLE_TIMEOUT);
	c = join();
	wait_ms(999);
	put(c, "a\n");
	wait_ms(100 * TIMEOUT_MS);
	expect_open(c);
}

static void frames_that_are_ignored_are_no_first_frame(void **state)
{
	(void)state;
	rules.timeouts = (struct timeouts){ .idle = 500, .first_frame = TIMEOUT_MS };
	line.empty = CODEC_EMPTY_IGNORE;
	struct client *c = join();
	for (int i = 0; i < 3; i++) {
		wait_ms(300);
		put(c, "\n");
	}
	expect_timeout_after(c, 100, TIMEOUT_FIRST_FRAME, REASON_IDLE_TIMEOUT);
}

static void output_must_make_progress(void **state)
{
	(void)state;
	rules.timeouts.write = TIMEOUT_MS;
	struct client *c = join();
	c->memory.window_bytes = 0;
	c->echo = true;
	wait_ms(10 * TIMEOUT_MS); /* nothing to write */
	put(c, "a\n");
	wait_ms(300);
	put(c, "b\n"); /* more output is no progress */
	expect_timeout_after(c, 700, TIMEOUT_WRITE, REASON_WRITE_TIMEOUT);
	expect_output(c, "");
}

static void a_slow_reader_that_reads_is_not_cut(void **state)
{
	(void)state;
	char byte;
	rules.timeouts.write = TIMEOUT_MS;
	struct client *c = join();
	c->memory.window_bytes = 10;
	c->echo = true;
	put(c, "0123456789abcdefghijklmnopqrst\n");
	for (int i = 0; i < 10; i++) {
		wait_ms(TIMEOUT_MS - 1);
		assert_int_equal(memory_stream_take(&c->memory, &byte, 1), 1);
		world_run();
	}
	/* Nor where the stream does not say at once that there is room again. */
	for (int i = 0; i < 5; i++) {
		assert_int_equal(memory_stream_take(&c->memory, &byte, 1), 1);
		now_ms += TIMEOUT_MS;
		conn_host_turn(&host, now_ms);
		expect_open(c);
	}
	world_run();
	assert_int_equal(c->timeouts, 0);
	expect_timeout_after(c, TIMEOUT_MS, TIMEOUT_WRITE, REASON_WRITE_TIMEOUT);
}

static void the_agent_can_keep_it(void **state)
{
	(void)state;
	for (int kind = 0; kind < TIMEOUT_KINDS; kind++) {
		struct client *c = join();
		c->keep = true;
		c->memory.window_bytes = 0;
		c->echo = kind == TIMEOUT_WRITE;
		put(c, kind == TIMEOUT_WRITE ? "a\n" : kind == TIMEOUT_READ ? "par" : "");
		assert_int_equal(conn_set_timeout(conn_of(c), (enum timeout_kind)kind, TIMEOUT_MS), 0);
		world_run();
		wait_ms(TIMEOUT_MS);
		assert_int_equal(c->timeouts, 1);
		assert_int_equal(c->timeout_kind, kind);
		wait_ms(TIMEOUT_MS - 1);
		assert_int_equal(c->timeouts, 1);
		wait_ms(1);
		assert_int_equal(c->timeouts, kind == TIMEOUT_FIRST_FRAME ? 1 : 2); /* that one asks once */
		expect_open(c);
		memory_stream_reset(&c->memory);
		world_run();
	}
}

static void a_timeout_can_be_changed(void **state)
{
	(void)state;
	rules.timeouts.idle = 10 * TIMEOUT_MS;
	struct client *c = join(), *other = join();
	wait_ms(300);
	conn_set_timeout(conn_of(c), TIMEOUT_IDLE, TIMEOUT_MS);
	world_run();
	expect_timeout_after(c, 700, TIMEOUT_IDLE, REASON_IDLE_TIMEOUT);
	conn_set_timeout(conn_of(other), TIMEOUT_IDLE, 0);
	wait_ms(100 * TIMEOUT_MS);
	expect_open(other);
}

/* ---- peers that do not read ---- */

static struct client *choked_client(void)
{
	struct client *c = join();
	c->memory.window_bytes = 0;
	c->echo = true;
	for (int i = 0; i < 30; i++)
		memory_stream_put(&c->memory, hundred, 100);
	world_run();
	return c;
}

static void past_the_mark_it_is_not_read(void **state)
{
	(void)state;
	for (size_t read_max = 0; read_max <= 100; read_max += 50) {
		struct client *c = join();
		c->memory.read_max = read_max;
		c->memory.window_bytes = 0;
		c->echo = true;
		for (int i = 0; i < 30; i++)
			memory_stream_put(&c->memory, hundred, 100);
		world_run();
		assert_int_equal(c->frames_seen, 11);
		assert_true(conn_of(c)->choked);
		assert_false(c->memory.watched & STREAM_READ);
		c->memory.window_bytes = 599; /* 501 are left: not yet half */
		world_run();
		assert_true(conn_of(c)->choked);
		assert_int_equal(c->writables, 0);
		c->memory.window_bytes = 600;
		world_run();
		assert_int_equal(c->writables, 1);
		assert_int_equal(c->frames_seen, 17);
		assert_true(conn_of(c)->choked);
		c->memory.window_bytes = SIZE_MAX;
		world_run();
		assert_int_equal(c->writables, 2);
		assert_int_equal(c->frames_seen, 30);
		assert_int_equal(c->memory.outward.bytes, 3000);
	}
}

static void choked_it_is_not_idle(void **state)
{
	(void)state;
	rules.timeouts = (struct timeouts){ .read = TIMEOUT_MS, .idle = TIMEOUT_MS };
	struct client *c = choked_client();
	wait_ms(10 * TIMEOUT_MS);
	expect_open(c);
	assert_int_equal(c->timeouts, 0);
}

static void slow_close_ends_it(void **state)
{
	(void)state;
	rules.slow = SLOW_CLOSE;
	struct client *c = choked_client();
	expect_end(c, REASON_SLOW_CONSUMER);
	assert_int_equal(c->frames_seen, 11);
	/* What the stream takes at once is no sign of a slow consumer, however large. */
	static char large[5000];
	bool below;
	c = join();
	memset(large, 'x', sizeof large);
	assert_int_equal(channel_send(channel_of(c), large, sizeof large, &below), 0);
	assert_true(below);
	world_run();
	expect_open(c);
}

static void slow_drop_drops_and_counts(void **state)
{
	(void)state;
	rules.slow = SLOW_DROP;
	struct client *c = choked_client();
	bool below = true;
	for (int i = 0; i < 5; i++)
		assert_int_equal(channel_send(channel_of(c), "lost", 4, &below), 0);
	assert_false(below);
	assert_int_equal(channel_send_raw(channel_of(c), "lost\nlost\n", 10, 2), 0);
	assert_int_equal(count_read(&counters.dropped_frames), 7);
	assert_int_equal(conn_pending_bytes(conn_of(c)), 1100);
	c->memory.window_bytes = SIZE_MAX;
	world_run();
	assert_int_equal(c->frames_seen, 30);
	assert_int_equal(c->memory.outward.bytes, 3000);
	assert_int_equal(channel_send(channel_of(c), "kept", 4, &below), 0);
	world_run();
	assert_int_equal(c->memory.outward.bytes, 3005);
	assert_int_equal(count_read(&counters.dropped_frames), 7);
}

static void flushed_is_told_once_all_is_gone(void **state)
{
	(void)state;
	struct client *c = join();
	bool below;
	c->memory.window_bytes = 3;
	channel_send(channel_of(c), "12345", 5, &below);
	conn_of(c)->first.flushing = true;
	world_run();
	assert_int_equal(c->flushes, 0);
	c->memory.window_bytes = 6;
	world_run();
	assert_int_equal(c->flushes, 1);
	world_run();
	assert_int_equal(c->flushes, 1);
	channel_send(channel_of(c), "6", 1, &below);
	assert_false(conn_flush_now(conn_of(c)));
	c->memory.window_bytes = 8;
	world_run();
	assert_true(conn_flush_now(conn_of(c)));
	expect_output(c, "12345\n6\n");
}

/* ---- buffers ---- */

static int start_small(void **state)
{
	(void)state;
	return world_start(110000);
}

static void the_fattest_makes_room(void **state)
{
	(void)state;
	static char bytes[20000];
	struct client *thin = join(), *fat = join(), *other = join();
	rules.send_buffer_bytes = 1 << 20;
	memset(bytes, 'x', sizeof bytes);
	for (int i = 0; i < 3; i++)
		clients[i]->memory.window_bytes = 0;
	assert_int_equal(channel_send_raw(channel_of(thin), bytes, 100, 1), 0);
	for (int i = 0; i < 2; i++)
		assert_int_equal(channel_send_raw(channel_of(fat), bytes, sizeof bytes, 1), 0);
	world_run();
	expect_open(fat);
	put_bytes(other, bytes, FRAME_MAX_BYTES); /* input counts as well */
	assert_int_equal(channel_send_raw(channel_of(other), bytes, sizeof bytes, 1), 0);
	world_run();
	expect_end(fat, REASON_MEMORY);
	expect_open(thin);
	expect_open(other);
	assert_int_equal(count_read(&counters.closed[REASON_MEMORY]), 1);
	/* Whoever holds most itself has nobody to turn to. */
	int err = 0;
	for (int i = 0; i < 20 && !err; i++)
		err = channel_send_raw(channel_of(other), bytes, sizeof bytes, 1);
	assert_int_equal(err, UV_EPIPE);
	world_run();
	expect_end(other, REASON_MEMORY);
	expect_open(thin);
}

/* ---- at random ---- */

#ifdef __SANITIZE_THREAD__
enum { MODEL_ROUNDS = 100000 }; /* there is but one thread */
#else
enum { MODEL_ROUNDS = 1000000 };
#endif

static int start_model(void **state)
{
	(void)state;
	at_random_seed = 20260104;
	return model_start(60000, at_random);
}

static void whatever_happens_each_end_is_told_once(void **state)
{
	(void)state;
	for (unsigned n = 0; n < MODEL_ROUNDS; n++)
		model_round();
	/* All that should come about has come about. */
	static const enum close_reason REASONS[] = {
		REASON_PEER,         REASON_AGENT,        REASON_ERROR,         REASON_KICK,
		REASON_READ_TIMEOUT, REASON_IDLE_TIMEOUT, REASON_WRITE_TIMEOUT, REASON_SLOW_CONSUMER,
		REASON_MEMORY,       REASON_RESET,        REASON_DRAIN,         REASON_OVERSIZE,
		REASON_FRAME_ERROR,  REASON_TLS,
	};
	for (size_t i = 0; i < sizeof REASONS / sizeof *REASONS; i++)
		if (!count_read(&counters.closed[REASONS[i]]))
			fail_msg("never: %s", reason_name(REASONS[i]));
	assert_true(count_read(&counters.dropped_frames) > 0);
	assert_true(count_read(&counters.discarded_bytes) > 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_CONNS(frames_come_in_order_however_reads_split),
		WITH_CONNS(replies_are_written),
		WITH_CONNS(small_output_of_a_poll_leaves_together),
		WITH_CONNS(replies_of_an_event_leave_in_one_write),
		WITH_CONNS(a_full_list_is_settled_within_the_poll),
		WITH_CONNS(large_output_leaves_at_once),
		WITH_CONNS(many_frames_take_turns),
		WITH_CONNS(a_bad_frame_ends_it_after_the_good_ones),
		WITH_CONNS(a_new_codec_takes_over_with_the_next_byte),
		WITH_CONNS(a_codec_set_in_mid_frame_keeps_the_bytes),
		WITH_CONNS(a_suspended_agent_reads_one_frame_with_another_codec),
		WITH_CONNS(a_started_frame_must_complete),
		WITH_CONNS(trickling_does_not_help),
		WITH_CONNS(only_whole_frames_count_against_idleness),
		WITH_CONNS(the_first_frame_has_its_own_deadline),
		WITH_CONNS(frames_that_are_ignored_are_no_first_frame),
		WITH_CONNS(output_must_make_progress),
		WITH_CONNS(a_slow_reader_that_reads_is_not_cut),
		WITH_CONNS(the_agent_can_keep_it),
		WITH_CONNS(a_timeout_can_be_changed),
		WITH_CONNS(past_the_mark_it_is_not_read),
		WITH_CONNS(choked_it_is_not_idle),
		WITH_CONNS(slow_close_ends_it),
		WITH_CONNS(slow_drop_drops_and_counts),
		WITH_CONNS(flushed_is_told_once_all_is_gone),
		cmocka_unit_test_setup_teardown(the_fattest_makes_room, start_small, conns_end),
		cmocka_unit_test_setup_teardown(whatever_happens_each_end_is_told_once, start_model,
						conns_end),
	};
	return cmocka_run_group_tests_name("conn", tests, NULL, NULL);
}
