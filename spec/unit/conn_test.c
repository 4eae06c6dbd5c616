#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/counters.h"
#include "base/err.h"
#include "conn/conn.h"
#include "conn/memory.h"
#include "conn/transport.h"
#include "support/conn_model.h"
#include "support/conn_world.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

enum { TIMEOUT_MS = 1000 };

static int start(void **state)
{
	(void)state;
	return world_start(0);
}

static int end(void **state)
{
	(void)state;
	world_end();
	return 0;
}

static struct conn *conn_of(struct client *client)
{
	return &client->memory.conn;
}

static struct client *join(void)
{
	unsigned slot = 0;
	while (clients[slot])
		slot++;
	return world_join(slot);
}

static void wait_ms(uint64_t ms)
{
	now_ms += ms;
	conn_host_turn(&host, now_ms);
	world_run();
}

static void put_bytes(struct client *client, const void *bytes, size_t n)
{
	if (n)
		memory_conn_put(&client->memory, bytes, n);
	world_run();
}

static void put(struct client *client, const char *text)
{
	put_bytes(client, text, strlen(text));
}

static void hang_up(struct client *client)
{
	memory_conn_half_close(&client->memory);
	world_run();
}

static void expect_output(struct client *client, const char *text)
{
	char got[4096];
	size_t n = memory_conn_take(&client->memory, got, sizeof got - 1);
	got[n] = '\0';
	assert_string_equal(got, text);
	world_run();
}

static void expect_open(struct client *client)
{
	assert_int_equal(client->closed, 0);
	assert_true(conn_is_open(conn_of(client)));
}

static void expect_end(struct client *client, enum close_reason reason)
{
	assert_int_equal(client->closed, 1);
	assert_string_equal(reason_name(client->reason), reason_name(reason));
	assert_int_equal(client->gone, 1);
	assert_true(count_read(&counters.closed[reason]) > 0);
}

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
	assert_int_equal(conn_send(conn_of(c), "by itself", 9, &below), 0);
	assert_true(below);
	world_run();
	expect_output(c, "by itself\n");
}

static void small_output_of_a_poll_leaves_together(void **state)
{
	(void)state;
	struct client *c = join(), *other = join();
	c->echo = other->echo = true;
	memory_conn_put(&c->memory, "one\n", 4);
	memory_conn_put(&other->memory, "two\n", 4);
	assert_true(memory_conn_report(&c->memory));
	assert_true(memory_conn_report(&other->memory));
	assert_int_equal(c->memory.outward_bytes, 0);
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
		memory_conn_put(&all[i]->memory, "x\n", 2);
	}
	for (unsigned i = 0; i <= CONN_UNSETTLED_MAX; i++)
		assert_true(memory_conn_report(&all[i]->memory));
	assert_int_equal(all[CONN_UNSETTLED_MAX]->memory.outward_bytes, 0);
	assert_int_equal(all[CONN_UNSETTLED_MAX - 1]->memory.outward_bytes, 2);
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
	memory_conn_put(&c->memory, frames, sizeof frames);
	assert_true(memory_conn_report(&c->memory));
	assert_int_equal(c->memory.outward_bytes, sizeof frames);
}

static void many_frames_take_turns(void **state)
{
	(void)state;
	struct client *c = join(), *other = join();
	static char many[2 * 2000];
	for (size_t i = 0; i < sizeof many; i += 2)
		memcpy(many + i, "x\n", 2);
	memory_conn_put(&c->memory, many, sizeof many);
	memory_conn_put(&other->memory, "y\n", 2);
	memory_conn_run(&c->memory);
	assert_in_range(c->frames_seen, 1, 512);
	memory_conn_run(&other->memory);
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
	memory_conn_put(&c->memory, "good\n", 5);
	memory_conn_put(&c->memory, large, sizeof large);
	hang_up(c);
	assert_string_equal(c->seen, "good|");
	assert_int_equal(c->bad_frames, 1);
	expect_output(c, "good\n");
	expect_end(c, REASON_OVERSIZE);
}

static void switch_to_u8(struct client *c, const char *text)
{
	if (!strcmp(text, "switch"))
		assert_int_equal(conn_set_codec(conn_of(c), &u8), 0);
	if (!strcmp(text, "back"))
		assert_int_equal(conn_set_codec(conn_of(c), &line), 0);
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
	assert_int_equal(conn_set_codec(conn_of(c), &u8), 0);
	world_run();
	assert_string_equal(c->seen, "");
	put(c, "c\2x");
	assert_string_equal(c->seen, "abc|");
	put(c, "y");
	assert_string_equal(c->seen, "abc|xy|");
	c = join();
	put(c, "\1a\1b\1");
	assert_int_equal(conn_set_codec(conn_of(c), &u8), 0);
	world_run(); /* whole frames by the new codec: they need no further byte */
	assert_string_equal(c->seen, "a|b|");
}

static void read_one_u8(struct client *c, const char *text)
{
	if (!strcmp(text, "want")) {
		conn_of(c)->reading = &u8;
		conn_set_busy(conn_of(c), true);
	} else if (conn_of(c)->reading) {
		conn_of(c)->reading = NULL;
		conn_set_busy(conn_of(c), false);
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

static void expect_timeout_after(struct client *c, uint64_t ms, enum timeout_kind kind,
				 enum close_reason reason)
{
	uint64_t from_ms = now_ms;
	wait_ms(ms - 1);
	expect_open(c);
	assert_int_equal(c->timeouts, 0);
	assert_true(conn_host_next_ms(&host) <= now_ms + 1);
	wait_ms(1);
	assert_int_equal(c->timeouts, 1);
	assert_int_equal(c->timeout_kind, kind);
	assert_int_equal(c->ended_ms, from_ms + ms);
	hang_up(c); /* a partial frame makes it linger */
	expect_end(c, reason);
}

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
	conn_send(conn_of(c), "x", 1, &below);
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
		assert_int_equal(memory_conn_take(&c->memory, &byte, 1), 1);
		world_run();
	}
	/* Nor where the transport does not say at once that there is room again. */
	for (int i = 0; i < 5; i++) {
		assert_int_equal(memory_conn_take(&c->memory, &byte, 1), 1);
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
		memory_conn_reset(&c->memory);
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

static char hundred[] = "123456789012345678901234567890123456789012345678901234567890"
			"123456789012345678901234567890123456789\n";

static struct client *choked_client(void)
{
	struct client *c = join();
	c->memory.window_bytes = 0;
	c->echo = true;
	for (int i = 0; i < 30; i++)
		memory_conn_put(&c->memory, hundred, 100);
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
			memory_conn_put(&c->memory, hundred, 100);
		world_run();
		assert_int_equal(c->frames_seen, 11);
		assert_true(conn_of(c)->choked);
		assert_false(c->memory.watched & WATCH_READ);
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
		assert_int_equal(c->memory.outward_bytes, 3000);
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
	/* What the transport takes at once is no sign of a slow consumer, however large. */
	static char large[5000];
	bool below;
	c = join();
	memset(large, 'x', sizeof large);
	assert_int_equal(conn_send(conn_of(c), large, sizeof large, &below), 0);
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
		assert_int_equal(conn_send(conn_of(c), "lost", 4, &below), 0);
	assert_false(below);
	assert_int_equal(conn_send_raw(conn_of(c), "lost\nlost\n", 10, 2), 0);
	assert_int_equal(count_read(&counters.dropped_frames), 7);
	assert_int_equal(conn_pending_bytes(conn_of(c)), 1100);
	c->memory.window_bytes = SIZE_MAX;
	world_run();
	assert_int_equal(c->frames_seen, 30);
	assert_int_equal(c->memory.outward_bytes, 3000);
	assert_int_equal(conn_send(conn_of(c), "kept", 4, &below), 0);
	world_run();
	assert_int_equal(c->memory.outward_bytes, 3005);
	assert_int_equal(count_read(&counters.dropped_frames), 7);
}

static void flushed_is_told_once_all_is_gone(void **state)
{
	(void)state;
	struct client *c = join();
	bool below;
	c->memory.window_bytes = 3;
	conn_send(conn_of(c), "12345", 5, &below);
	conn_of(c)->flushing = true;
	world_run();
	assert_int_equal(c->flushes, 0);
	c->memory.window_bytes = 6;
	world_run();
	assert_int_equal(c->flushes, 1);
	world_run();
	assert_int_equal(c->flushes, 1);
	conn_send(conn_of(c), "6", 1, &below);
	assert_false(conn_flush_now(conn_of(c)));
	c->memory.window_bytes = 8;
	world_run();
	assert_true(conn_flush_now(conn_of(c)));
	expect_output(c, "12345\n6\n");
}

/* ---- ends ---- */

static struct client *pending_client(void)
{
	struct client *c = join();
	bool below;
	c->memory.window_bytes = 3;
	assert_int_equal(conn_send(conn_of(c), "last words", 10, &below), 0);
	world_run();
	return c;
}

static void close_flush_delivers_first(void **state)
{
	(void)state;
	bool below;
	struct client *c = pending_client();
	conn_close(conn_of(c), REASON_AGENT, CLOSE_FLUSH);
	assert_int_equal(conn_send(conn_of(c), "more", 4, &below), 0); /* from closed() */
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
	conn_give_way(conn_of(client));
	conn_close(conn_of(client), REASON_PROCEED_TIMEOUT, text[0] == 'f' ? CLOSE_FLUSH : CLOSE_NOW);
}

/* An event as the poll reports it, and the end of the poll. */
static void poll_with(struct client *client, const char *text)
{
	memory_conn_put(&client->memory, text, strlen(text));
	memory_conn_report(&client->memory);
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
	memory_conn_put(&c->memory, "a\nb\nrest", 8);
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
	memory_conn_put(&c->memory, "a\nrest", 6);
	hang_up(c);
	wait_ms(TIMEOUT_MS - 1); /* the rest need not complete any more */
	assert_string_equal(c->seen, "a|EOF|");
	expect_open(c);
	conn_send(conn_of(c), "still here", 10, &below);
	conn_shutdown(conn_of(c));
	assert_int_equal(conn_send(conn_of(c), "x", 1, &below), UV_EPIPE);
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
		conn_send(conn_of(c), "news", 4, &below);
		world_run();
		expect_output(c, "news\n");
	}
	conn_set_busy(conn_of(c), true); /* a suspended agent is at work */
	wait_ms(3 * TIMEOUT_MS);
	expect_open(c);
	conn_set_busy(conn_of(c), false);
	c->memory.window_bytes = 0; /* as does what it has not taken yet: that is the write deadline's */
	conn_send(conn_of(c), "more", 4, &below);
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
		assert_int_equal(conn_set_codec(conn_of(c), &u8), 0);
	if (!strcmp(text, "back"))
		conn_share_codec(conn_of(c), &line);
}

static void a_shared_codec_takes_over_and_the_own_one_is_gone(void **state)
{
	(void)state;
	for (size_t read_max = 0; read_max < 6; read_max++) {
		struct client *c = join();
		c->on_frame = go_to_and_fro;
		c->memory.read_max = read_max;
		put(c, "a\nswitch\n\1b\4backc\nswitch\n\1d\4backe\n");
		assert_string_equal(c->seen, "a|switch|b|back|c|switch|d|back|e|");
		assert_ptr_equal(conn_of(c)->codec, &line);
		assert_null(conn_of(c)->own_codecs);
	}
}

static void changing_ones_mind_about_codecs_keeps_none(void **state)
{
	(void)state;
	struct client *c = join();
	for (int i = 0; i < 10; i++) {
		assert_int_equal(conn_set_codec(conn_of(c), &u8), 0);
		conn_share_codec(conn_of(c), &line);
		assert_null(conn_of(c)->own_codecs);
	}
	put(c, "a\n");
	assert_string_equal(c->seen, "a|");
}

static void a_codec_that_decoded_nothing_is_replaced_in_place(void **state)
{
	(void)state;
	struct client *c = join();
	struct codec codec;
	assert_int_equal(codec_init_named(&codec, "line", 64), 0);
	assert_int_equal(conn_set_codec(conn_of(c), &codec), 0);
	const struct codec *first = conn_of(c)->codec;
	assert_int_equal(codec_init_named(&codec, "u8", 64), 0);
	for (int i = 0; i < 10; i++)
		assert_int_equal(conn_set_codec(conn_of(c), &codec), 0);
	assert_ptr_equal(conn_of(c)->codec, first);
	put_bytes(c, "\1a", 2);
	assert_string_equal(c->seen, "a|");
	assert_int_equal(conn_set_codec(conn_of(c), &codec), 0);
	assert_ptr_not_equal(conn_of(c)->codec, first); /* a batch may be of that one */
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
		conn_set_busy(conn_of(c), true);
}

static void a_suspended_agent_is_asked_again_about_the_end(void **state)
{
	(void)state;
	struct client *c = join();
	c->on_frame = suspend;
	memory_conn_put(&c->memory, "!a\nb\n!c\nd\n", 10);
	hang_up(c);
	assert_int_equal(c->eofs, 1);
	assert_string_equal(c->seen, "!a|");
	conn_set_busy(conn_of(c), false);
	world_run();
	assert_string_equal(c->seen, "!a|b|!c|");
	expect_open(c);
	conn_set_busy(conn_of(c), false);
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
	memory_conn_put(&c->memory, "one\ntwo\nrest", 12);
	conn_on_broken(conn_of(c)); /* as a socket does: what was received can still be read */
	world_run();
	assert_string_equal(c->seen, "one|two|");
	expect_end(c, REASON_RESET);
	c = pending_client();
	memory_conn_reset(&c->memory);
	world_run();
	expect_end(c, REASON_RESET);
	c = lingering_client();
	memory_conn_reset(&c->memory);
	world_run();
	expect_end(c, REASON_AGENT);
}

/* ---- pause, suspension, drain ---- */

static void pause_it(struct client *c, const char *text)
{
	if (*text == '!')
		conn_pause(conn_of(c));
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
	assert_int_equal(c->memory.watched, WATCH_NONE);
	hang_up(c);
	wait_ms(10 * TIMEOUT_MS);
	expect_open(c);
	conn_resume(conn_of(c));
	world_run();
	assert_string_equal(c->seen, "a|!b|c|de|EOF|");
	expect_end(c, REASON_PEER);
	c = join();
	conn_pause(conn_of(c));
	put(c, "par");
	wait_ms(10 * TIMEOUT_MS);
	conn_resume(conn_of(c));
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
		memory_conn_put(&c->memory, "!\n", 2);
		for (int i = 10; i < 60; i++) {
			char text[16];
			snprintf(text, sizeof text, "%d\n", i);
			memory_conn_put(&c->memory, text, 3);
			snprintf(expected + strlen(expected), 16, "%d|", i);
		}
		world_run();
		assert_string_equal(c->seen, "!|");
		assert_false(c->memory.watched & WATCH_READ);
		assert_in_range(conn_of(c)->waiting_frames, 16, 16 + FRAME_BATCH_MAX);
		if (read_max)
			assert_int_equal(conn_of(c)->waiting_frames, 16);
		wait_ms(10 * TIMEOUT_MS);
		conn_set_busy(conn_of(c), false);
		world_run();
		assert_string_equal(c->seen, expected);
		assert_int_equal(conn_of(c)->waiting_frames, 0);
		assert_true(c->memory.watched & WATCH_READ);
		memory_conn_reset(&c->memory);
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
	conn_set_busy(conn_of(c), true);
	put_bytes(c, large, sizeof large);
	assert_false(c->memory.watched & WATCH_READ);
	assert_true(buf_len(conn_of(c)->in) <= FRAME_MAX_BYTES + 4 * CONN_SCRATCH_BYTES);
}

static void drain_ends_the_idle_at_once(void **state)
{
	(void)state;
	struct client *idle = join(), *partial = join(), *kept = join(), *busy = join(), *unread = join();
	unread->echo = kept->drain_keeps = true;
	put(partial, "par");
	conn_set_busy(conn_of(busy), true);
	world_run();
	memory_conn_put(&unread->memory, "a\n", 2);
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
	conn_set_busy(conn_of(busy), false);
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
	memory_conn_put(&c->memory, "part", 4);
	memory_conn_half_close(&c->memory);
	conn_drain(conn_of(c));
	conn_host_turn(&host, now_ms);
	assert_true(conn_of(c)->eof && !conn_of(c)->eof_done);
	return c;
}

static void a_drain_rests_while_the_peer_does_not_read(void **state)
{
	(void)state;
	struct client *c = ending_client();
	assert_int_equal(conn_send_raw(conn_of(c), hundred, 100, 1), 0);
	for (int i = 0; i < 10; i++)
		conn_send_raw(conn_of(c), hundred, 100, 1);
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
	conn_pause(conn_of(c));
	world_run();
	assert_int_equal(c->drains, 1);
	expect_end(c, REASON_DRAIN);
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
	assert_int_equal(conn_send_raw(conn_of(thin), bytes, 100, 1), 0);
	for (int i = 0; i < 2; i++)
		assert_int_equal(conn_send_raw(conn_of(fat), bytes, sizeof bytes, 1), 0);
	world_run();
	expect_open(fat);
	put_bytes(other, bytes, FRAME_MAX_BYTES); /* input counts as well */
	assert_int_equal(conn_send_raw(conn_of(other), bytes, sizeof bytes, 1), 0);
	world_run();
	expect_end(fat, REASON_MEMORY);
	expect_open(thin);
	expect_open(other);
	assert_int_equal(count_read(&counters.closed[REASON_MEMORY]), 1);
	/* Whoever holds most itself has nobody to turn to. */
	int err = 0;
	for (int i = 0; i < 20 && !err; i++)
		err = conn_send_raw(conn_of(other), bytes, sizeof bytes, 1);
	assert_int_equal(err, UV_EPIPE);
	world_run();
	expect_end(other, REASON_MEMORY);
	expect_open(thin);
}

/* ---- at random ---- */

enum { MODEL_ROUNDS = 100000 };

static uint64_t seed;

static uint32_t at_random(uint32_t bound)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return (uint32_t)(seed >> 16) % bound;
}

static int start_model(void **state)
{
	(void)state;
	seed = 20260104;
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
		REASON_FRAME_ERROR,
	};
	for (size_t i = 0; i < sizeof REASONS / sizeof *REASONS; i++)
		if (!count_read(&counters.closed[REASONS[i]]))
			fail_msg("never: %s", reason_name(REASONS[i]));
	assert_true(count_read(&counters.dropped_frames) > 0);
	assert_true(count_read(&counters.discarded_bytes) > 0);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, start, end)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(frames_come_in_order_however_reads_split),
		TEST(replies_are_written),
		TEST(small_output_of_a_poll_leaves_together),
		TEST(replies_of_an_event_leave_in_one_write),
		TEST(a_full_list_is_settled_within_the_poll),
		TEST(large_output_leaves_at_once),
		TEST(many_frames_take_turns),
		TEST(a_bad_frame_ends_it_after_the_good_ones),
		TEST(a_new_codec_takes_over_with_the_next_byte),
		TEST(a_codec_set_in_mid_frame_keeps_the_bytes),
		TEST(a_suspended_agent_reads_one_frame_with_another_codec),
		TEST(a_started_frame_must_complete),
		TEST(trickling_does_not_help),
		TEST(only_whole_frames_count_against_idleness),
		TEST(the_first_frame_has_its_own_deadline),
		TEST(output_must_make_progress),
		TEST(a_slow_reader_that_reads_is_not_cut),
		TEST(the_agent_can_keep_it),
		TEST(a_timeout_can_be_changed),
		TEST(past_the_mark_it_is_not_read),
		TEST(choked_it_is_not_idle),
		TEST(slow_close_ends_it),
		TEST(slow_drop_drops_and_counts),
		TEST(flushed_is_told_once_all_is_gone),
		TEST(close_flush_delivers_first),
		TEST(close_flush_does_not_wait_for_ever),
		TEST(close_now_drops),
		TEST(close_reset_is_seen),
		TEST(unread_input_lingers_to_the_end_of_stream),
		TEST(the_end_of_what_has_overrun_gives_way_to_the_next_poll),
		TEST(the_end_of_what_has_overrun_gives_way_only_where_it_may_wait),
		TEST(lingering_ends_after_a_second),
		TEST(the_end_of_stream_comes_after_the_frames),
		TEST(a_half_closed_connection_can_be_kept),
		TEST(a_kept_half_closed_connection_is_idle_when_nothing_goes_to_it),
		TEST(a_shared_codec_takes_over_and_the_own_one_is_gone),
		TEST(changing_ones_mind_about_codecs_keeps_none),
		TEST(a_codec_that_decoded_nothing_is_replaced_in_place),
		TEST(our_half_close_reads_on),
		TEST(a_suspended_agent_is_asked_again_about_the_end),
		TEST(a_reset_ends_it_after_the_frames_before_it),
		TEST(paused_nothing_is_read),
		TEST(a_suspended_agents_frames_wait),
		TEST(what_waits_is_bounded_in_bytes_too),
		TEST(drain_ends_the_idle_at_once),
		TEST(a_drain_rests_while_the_peer_does_not_read),
		TEST(a_drain_does_not_wait_for_who_is_paused),
		cmocka_unit_test_setup_teardown(the_fattest_makes_room, start_small, end),
		cmocka_unit_test_setup_teardown(whatever_happens_each_end_is_told_once, start_model, end),
	};
	return cmocka_run_group_tests_name("conn", tests, NULL, NULL);
}
