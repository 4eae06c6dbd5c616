/* Resets: what had arrived before is handed up in turns, and what cannot be is counted as discarded. */
#include "conn_steps.h"

#include <string.h>
#include <uv.h>

enum { MANY = 3000 };

static void put_many(struct client *c)
{
	for (int i = 0; i < MANY; i++)
		memory_stream_put(&c->memory, "line\n", 5);
}

static uint64_t discarded(void)
{
	return count_read(&counters.discarded_bytes);
}

static void all_frames_before_a_reset_are_handed_up(void **state)
{
	(void)state;
	for (size_t read_max = 0; read_max < 3000; read_max += 999) {
		struct client *c = join();
		c->memory.read_max = read_max;
		put_many(c);
		memory_stream_reset(&c->memory);
		world_run();
		assert_int_equal(c->frames_seen, MANY);
		assert_int_equal(c->eofs, 0);
		expect_end(c, REASON_RESET);
	}
	assert_int_equal(discarded(), 0);
}

static void replies_that_go_nowhere_hold_no_frame_up(void **state)
{
	(void)state;
	struct client *c = join();
	c->echo = true;
	c->memory.window_bytes = 10;
	for (int i = 0; i < 30; i++)
		memory_stream_put(&c->memory, hundred, 100);
	world_run();
	assert_true(conn_of(c)->choked);
	assert_int_equal(c->frames_seen, 11);
	memory_stream_reset(&c->memory);
	world_run();
	assert_int_equal(c->frames_seen, 30);
	expect_end(c, REASON_RESET);
	assert_int_equal(discarded(), 0);
}

static void a_write_that_fails_leaves_what_had_arrived(void **state)
{
	(void)state;
	struct client *c = join();
	c->echo = true;
	c->memory.read_max = 50;
	put_many(c);
	memory_stream_reset(&c->memory);
	c->memory.broken_told = true; /* the poll has yet to tell */
	world_run();
	assert_int_equal(c->frames_seen, MANY);
	expect_end(c, REASON_RESET);
	assert_int_equal(discarded(), 0);
}

static void a_reset_does_not_hold_up_the_others(void **state)
{
	(void)state;
	struct client *c = join(), *other = join();
	put_many(c);
	memory_stream_reset(&c->memory);
	memory_stream_put(&other->memory, "x\n", 2);
	world_serve(c);
	world_serve(other);
	assert_in_range(c->frames_seen, 1, 1000);
	assert_int_equal(other->frames_seen, 1);
	world_run();
	assert_int_equal(c->frames_seen, MANY);
	expect_end(c, REASON_RESET);
}

static void close_at_third(struct client *c, const char *text)
{
	(void)text;
	if (c->frames_seen == 3)
		conn_close(conn_of(c), REASON_ERROR, CLOSE_FLUSH);
}

static void pause_at_third(struct client *c, const char *text)
{
	(void)text;
	if (c->frames_seen == 3)
		channel_pause(channel_of(c));
}

static void wait_at_third(struct client *c, const char *text)
{
	(void)text;
	if (c->frames_seen == 3)
		channel_set_busy(channel_of(c), true);
}

static void frames_that_the_agent_does_not_take_are_counted(void **state)
{
	(void)state;
	static void (*const ACTS[])(struct client *, const char *) = { close_at_third, pause_at_third,
								       wait_at_third };
	static const enum close_reason REASONS[] = { REASON_ERROR, REASON_RESET, REASON_RESET };
	for (size_t i = 0; i < 3; i++) {
		struct client *c = join();
		uint64_t before = discarded();
		c->on_frame = ACTS[i];
		put_many(c);
		memory_stream_reset(&c->memory);
		world_run();
		assert_int_equal(c->frames_seen, 3);
		expect_end(c, REASONS[i]);
		assert_int_equal(discarded() - before, (MANY - 3) * 5);
	}
}

static void take_one(struct client *c, const char *text)
{
	(void)text;
	conn_of(c)->first.reading = c->frames_seen < 5 ? &line.protocol : NULL;
	channel_set_busy(channel_of(c), c->frames_seen < 5);
}

static void an_agent_that_reads_goes_on_reading(void **state)
{
	(void)state;
	struct client *c = join();
	c->on_frame = take_one;
	put_many(c);
	memory_stream_reset(&c->memory);
	world_run();
	assert_int_equal(c->frames_seen, MANY);
	expect_end(c, REASON_RESET);
}

static void what_is_lost_was_not_flushed(void **state)
{
	(void)state;
	struct client *c = join();
	bool below;
	c->memory.window_bytes = 3;
	channel_send(channel_of(c), "12345", 5, &below);
	world_run();
	conn_of(c)->first.flushing = true;
	channel_set_busy(channel_of(c), true);
	memory_stream_reset(&c->memory);
	memory_stream_report(&c->memory);
	assert_false(conn_flush_now(conn_of(c)));
	world_run();
	assert_int_equal(c->flushes, 0);
	expect_end(c, REASON_RESET);
}

/* ---- what is not handed up, on the ways out ---- */

static void end_with(enum close_reason reason, enum close_how how)
{
	struct client *c = join();
	uint64_t before = discarded();
	channel_set_busy(channel_of(c), true);
	put(c, "one\ntwo\nth");
	memory_stream_put(&c->memory, "ree\n", 4);
	conn_close(conn_of(c), reason, how);
	world_run();
	hang_up(c);
	expect_end(c, reason);
	assert_string_equal(c->seen, "");
	assert_int_equal(discarded() - before, 14);
}

static void whatever_ends_it_the_rest_is_counted(void **state)
{
	(void)state;
	static const enum close_reason REASONS[] = { REASON_AGENT, REASON_KICK, REASON_ERROR, REASON_DRAIN,
						     REASON_MEMORY };
	for (size_t i = 0; i < sizeof REASONS / sizeof *REASONS; i++)
		for (int how = CLOSE_FLUSH; how <= CLOSE_RESET; how++)
			end_with(REASONS[i], (enum close_how)how);
}

static void a_frame_that_is_not_complete_at_the_end_is_counted(void **state)
{
	(void)state;
	struct client *c = join();
	put(c, "whole\nnot who");
	hang_up(c);
	expect_end(c, REASON_PEER);
	assert_int_equal(discarded(), 7);
	c = join();
	put(c, "whole\nnot who");
	memory_stream_reset(&c->memory);
	world_run();
	expect_end(c, REASON_RESET);
	assert_int_equal(discarded(), 14);
}

static void a_time_out_counts_what_came(void **state)
{
	(void)state;
	rules.timeouts.read = TIMEOUT_MS;
	struct client *c = join();
	put(c, "whole\nnot who");
	wait_ms(TIMEOUT_MS);
	hang_up(c);
	expect_end(c, REASON_READ_TIMEOUT);
	assert_int_equal(discarded(), 7);
}

static void an_oversized_frame_is_counted_whole(void **state)
{
	(void)state;
	static char large[FRAME_MAX_BYTES + 100];
	struct client *c = join();
	memset(large, 'x', sizeof large);
	memory_stream_put(&c->memory, "good\n", 5);
	put_bytes(c, large, sizeof large);
	hang_up(c);
	expect_end(c, REASON_OVERSIZE);
	assert_int_equal(discarded(), sizeof large);
}

static int start_small(void **state)
{
	(void)state;
	return world_start(600);
}

static void what_there_is_no_buffer_for_is_counted(void **state)
{
	(void)state;
	struct client *c = join();
	memory_stream_put(&c->memory, "good\n", 5);
	for (int i = 0; i < 8; i++)
		memory_stream_put(&c->memory, hundred, 99);
	world_run();
	assert_string_equal(c->seen, "good|");
	expect_end(c, REASON_MEMORY);
	assert_int_equal(discarded(), 8 * 99);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_CONNS(all_frames_before_a_reset_are_handed_up),
		WITH_CONNS(replies_that_go_nowhere_hold_no_frame_up),
		WITH_CONNS(a_write_that_fails_leaves_what_had_arrived),
		WITH_CONNS(a_reset_does_not_hold_up_the_others),
		WITH_CONNS(frames_that_the_agent_does_not_take_are_counted),
		WITH_CONNS(an_agent_that_reads_goes_on_reading),
		WITH_CONNS(what_is_lost_was_not_flushed),
		WITH_CONNS(whatever_ends_it_the_rest_is_counted),
		WITH_CONNS(a_frame_that_is_not_complete_at_the_end_is_counted),
		WITH_CONNS(a_time_out_counts_what_came),
		WITH_CONNS(an_oversized_frame_is_counted_whole),
		cmocka_unit_test_setup_teardown(what_there_is_no_buffer_for_is_counted, start_small,
						conns_end),
	};
	return cmocka_run_group_tests_name("conn_reset", tests, NULL, NULL);
}
