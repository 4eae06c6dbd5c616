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

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

enum { START_MS = 5, FRAME_MAX_BYTES = 10000, TIMEOUT_MS = 1000, CLIENTS = 40, MODEL_CLIENTS = 8 };

/* A connection, its peer, and what its agent has seen and shall do. */
struct client {
	struct memory_conn memory; /* first */
	char seen[4096];           /* "frame|frame|", and EOF, TIMEOUT … */
	unsigned opened, closed, left, gone, eofs, timeouts, writables, flushes, drains, bad_frames;
	enum close_reason reason;
	enum timeout_kind timeout_kind;
	uint64_t ended_ms, drain_remaining_ms;
	void (*on_frame)(struct client *client, const char *text);
	enum eof_answer eof_answer;
	bool echo, keep, drain_keeps;
	/* the model's */
	char rest[4096]; /* of a frame begun */
	unsigned slot, frames_begun, frames_put, frames_seen, sent, received, number;
};

static struct conn_host host;
static struct counters counters;
static struct conn_rules rules;
static struct codec line, u8;
static uint64_t now_ms, last_id;
static struct client *clients[CLIENTS];
static unsigned opened_total, closed_total, gone_total;
static bool in_handler, modelling;

/* ---- the agent ---- */

static struct client *enter(struct conn *conn)
{
	struct client *client = (struct client *)(void *)conn;
	assert_false(in_handler); /* never nested */
	assert_int_equal(client->closed, 0);
	in_handler = true;
	return client;
}

static void leave(void)
{
	in_handler = false;
}

static void see(struct client *client, const void *text, size_t len)
{
	size_t at = strlen(client->seen);
	if (modelling || at + len + 2 > sizeof client->seen)
		return;
	memcpy(client->seen + at, text, len);
	memcpy(client->seen + at + len, "|", 2);
}

static void on_opened(struct conn *conn)
{
	enter(conn)->opened++;
	leave();
}

static bool may_go_on(const struct conn *conn)
{
	return conn_is_open(conn) && !conn->busy && !conn->paused && !conn->choked;
}

static unsigned on_frames(struct conn *conn, struct frame_batch *batch)
{
	struct client *client = enter(conn);
	const struct codec *codec = conn->codec;
	unsigned used = 0;
	bool reading = conn->reading;
	assert_int_equal(client->opened, 1);
	assert_true(conn_is_open(conn) && !conn->paused && !conn->choked && (!conn->busy || reading));
	assert_in_range(batch->count, 1, reading ? 1 : FRAME_BATCH_MAX);
	do {
		const struct frame *frame = &batch->frames[used++];
		char text[64];
		snprintf(text, sizeof text, "%.*s", (int)frame->len, (const char *)frame->data);
		see(client, frame->data, frame->len);
		client->frames_seen++;
		bool below;
		if (client->echo)
			assert_int_equal(conn_send(conn, frame->data, frame->len, &below), 0);
		if (client->on_frame)
			client->on_frame(client, text);
	} while (used < batch->count && may_go_on(conn) && conn->codec == codec);
	leave();
	return used;
}

static enum eof_answer on_eof(struct conn *conn)
{
	struct client *client = enter(conn);
	client->eofs++;
	enum eof_answer answer = conn->busy ? EOF_LATER : client->eof_answer;
	if (answer != EOF_LATER)
		see(client, "EOF", 3);
	leave();
	return answer;
}

static bool on_timeout(struct conn *conn, enum timeout_kind kind)
{
	struct client *client = enter(conn);
	assert_true(conn_is_open(conn) && !conn->busy);
	client->timeouts++;
	client->timeout_kind = kind;
	leave();
	return client->keep;
}

static void on_bad_frame(struct conn *conn, const struct frame_batch *batch)
{
	struct client *client = enter(conn);
	assert_true(batch->error);
	client->bad_frames++;
	leave();
}

static void on_writable(struct conn *conn)
{
	enter(conn)->writables++;
	leave();
}

static void on_flushed(struct conn *conn)
{
	struct client *client = enter(conn);
	assert_int_equal(conn_pending_bytes(conn), 0);
	client->flushes++;
	conn->flushing = false;
	leave();
}

static bool on_drain(struct conn *conn, uint64_t remaining_ms)
{
	struct client *client = enter(conn);
	client->drains++;
	client->drain_remaining_ms = remaining_ms;
	leave();
	return client->drain_keeps;
}

static void on_closed(struct conn *conn, enum close_reason reason)
{
	struct client *client = enter(conn);
	assert_false(reason == REASON_NONE);
	client->closed++;
	closed_total++;
	client->reason = reason;
	client->ended_ms = now_ms;
	leave();
}

static const struct conn_handler HANDLER = {
	.opened = on_opened,
	.frames = on_frames,
	.eof = on_eof,
	.timeout = on_timeout,
	.bad_frame = on_bad_frame,
	.writable = on_writable,
	.flushed = on_flushed,
	.drain = on_drain,
	.closed = on_closed,
};

/* ---- the worker ---- */

static void on_left(struct conn *conn)
{
	struct client *client = (struct client *)(void *)conn;
	assert_int_equal(client->closed, 1);
	assert_int_equal(client->left++, 0);
}

static void on_gone(struct conn *conn)
{
	struct client *client = (struct client *)(void *)conn;
	assert_int_equal(client->left, 1);
	assert_int_equal(client->gone++, 0);
	assert_null(idmap_get(&host.ids, conn->id));
	gone_total++;
	if (!modelling)
		return;
	clients[client->slot] = NULL;
	memory_conn_deinit(&client->memory);
	free(client); /* whoever touches it now is caught by the sanitizer */
}

static int start_with(size_t buffer_limit_bytes)
{
	now_ms = START_MS;
	last_id = opened_total = closed_total = gone_total = 0;
	modelling = in_handler = false;
	memset(&counters, 0, sizeof counters);
	memset(clients, 0, sizeof clients);
	rules = (struct conn_rules){ .send_buffer_bytes = 1000, .inbox_frames = 16 };
	if (codec_init_named(&line, "line", FRAME_MAX_BYTES) || codec_init_named(&u8, "u8", 255))
		return -1;
	int err = conn_host_init(&host, &HANDLER, &counters, buffer_limit_bytes, now_ms);
	host.left = on_left;
	host.gone = on_gone;
	return err;
}

static int start(void **state)
{
	(void)state;
	return start_with(0);
}

static struct client *connect_in(unsigned slot)
{
	struct client *client = calloc(1, sizeof *client);
	assert_non_null(client);
	client->slot = slot;
	memory_conn_init(&client->memory);
	clients[slot] = client;
	opened_total++;
	conn_open(&client->memory.conn, &host, &rules, &line, ++last_id);
	return client;
}

static struct client *join(void)
{
	unsigned slot = 0;
	while (clients[slot])
		slot++;
	return connect_in(slot);
}

static struct conn *conn_of(struct client *client)
{
	return &client->memory.conn;
}

/* Would memory_conn_run() report anything? */
static bool has_event(const struct memory_conn *m)
{
	if (m->closed)
		return false;
	return m->closing || m->broken ||
	       ((m->watched & WATCH_WRITE) && m->outward_bytes < m->window_bytes) ||
	       ((m->watched & WATCH_READ) && (m->inward_bytes || m->peer_shut));
}

/* One poll: every connection that has an event gets it, then all are settled. */
static bool poll_all(void)
{
	bool any = false;
	for (unsigned i = 0; i < CLIENTS; i++)
		if (clients[i])
			any |= memory_conn_report(&clients[i]->memory);
	conn_host_settle(&host);
	return any;
}

static void run(void)
{
	for (unsigned turns = 0, more = 1; more; turns++) {
		assert_true(turns < 100000);
		while (poll_all())
			;
		more = conn_host_turn(&host, now_ms);
		more |= conn_host_next_ms(&host) <= now_ms;
		for (unsigned i = 0; i < CLIENTS; i++)
			more |= clients[i] && has_event(&clients[i]->memory);
	}
}

static void wait_ms(uint64_t ms)
{
	now_ms += ms;
	conn_host_turn(&host, now_ms);
	run();
}

static void put_bytes(struct client *client, const void *bytes, size_t n)
{
	if (n)
		memory_conn_put(&client->memory, bytes, n);
	run();
}

static void put(struct client *client, const char *text)
{
	put_bytes(client, text, strlen(text));
}

static void hang_up(struct client *client)
{
	memory_conn_half_close(&client->memory);
	run();
}

static void expect_output(struct client *client, const char *text)
{
	char got[4096];
	size_t n = memory_conn_take(&client->memory, got, sizeof got - 1);
	got[n] = '\0';
	assert_string_equal(got, text);
	run();
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

/* Every test: whatever was left is ended; then nothing is held, and the sums are right. */
static int end(void **state)
{
	(void)state;
	for (unsigned i = 0; i < CLIENTS; i++)
		if (clients[i] && !clients[i]->gone)
			memory_conn_reset(&clients[i]->memory);
	run();
	assert_int_equal(host.open, 0);
	assert_int_equal(host.ids.count, 0);
	assert_int_equal(host.pool.lent_bytes, 0);
	assert_null(host.attention);
	assert_true(conn_host_next_ms(&host) == WHEEL_NEVER);
	assert_int_equal(opened_total, gone_total);
	assert_int_equal(opened_total, closed_total);
	assert_int_equal(opened_total, counters_closed(&counters));
	conn_host_deinit(&host);
	for (unsigned i = 0; i < CLIENTS; i++) {
		if (clients[i])
			memory_conn_deinit(&clients[i]->memory);
		free(clients[i]);
	}
	return 0;
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
	run();
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
	run();
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
	run();
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
	run();
	assert_string_equal(c->seen, "");
	put(c, "c\2x");
	assert_string_equal(c->seen, "abc|");
	put(c, "y");
	assert_string_equal(c->seen, "abc|xy|");
	c = join();
	put(c, "\1a\1b\1");
	assert_int_equal(conn_set_codec(conn_of(c), &u8), 0);
	run(); /* whole frames by the new codec: they need no further byte */
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
		run();
	}
	/* Nor where the transport does not say at once that there is room again. */
	for (int i = 0; i < 5; i++) {
		assert_int_equal(memory_conn_take(&c->memory, &byte, 1), 1);
		now_ms += TIMEOUT_MS;
		conn_host_turn(&host, now_ms);
		expect_open(c);
	}
	run();
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
		run();
		wait_ms(TIMEOUT_MS);
		assert_int_equal(c->timeouts, 1);
		assert_int_equal(c->timeout_kind, kind);
		wait_ms(TIMEOUT_MS - 1);
		assert_int_equal(c->timeouts, 1);
		wait_ms(1);
		assert_int_equal(c->timeouts, kind == TIMEOUT_FIRST_FRAME ? 1 : 2); /* that one asks once */
		expect_open(c);
		memory_conn_reset(&c->memory);
		run();
	}
}

static void a_timeout_can_be_changed(void **state)
{
	(void)state;
	rules.timeouts.idle = 10 * TIMEOUT_MS;
	struct client *c = join(), *other = join();
	wait_ms(300);
	conn_set_timeout(conn_of(c), TIMEOUT_IDLE, TIMEOUT_MS);
	run();
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
	run();
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
		run();
		assert_int_equal(c->frames_seen, 11);
		assert_true(conn_of(c)->choked);
		assert_false(c->memory.watched & WATCH_READ);
		c->memory.window_bytes = 599; /* 501 are left: not yet half */
		run();
		assert_true(conn_of(c)->choked);
		assert_int_equal(c->writables, 0);
		c->memory.window_bytes = 600;
		run();
		assert_int_equal(c->writables, 1);
		assert_int_equal(c->frames_seen, 17);
		assert_true(conn_of(c)->choked);
		c->memory.window_bytes = SIZE_MAX;
		run();
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
	run();
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
	run();
	assert_int_equal(c->frames_seen, 30);
	assert_int_equal(c->memory.outward_bytes, 3000);
	assert_int_equal(conn_send(conn_of(c), "kept", 4, &below), 0);
	run();
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
	run();
	assert_int_equal(c->flushes, 0);
	c->memory.window_bytes = 6;
	run();
	assert_int_equal(c->flushes, 1);
	run();
	assert_int_equal(c->flushes, 1);
	conn_send(conn_of(c), "6", 1, &below);
	assert_false(conn_flush_now(conn_of(c)));
	c->memory.window_bytes = 8;
	run();
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
	run();
	return c;
}

static void close_flush_delivers_first(void **state)
{
	(void)state;
	bool below;
	struct client *c = pending_client();
	conn_close(conn_of(c), REASON_AGENT, CLOSE_FLUSH);
	assert_int_equal(conn_send(conn_of(c), "more", 4, &below), 0); /* from closed() */
	run();
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
	run();
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
	run();
	expect_end(c, REASON_AGENT);
	assert_false(c->memory.was_reset);
	expect_output(c, "las");
}

static void close_reset_is_seen(void **state)
{
	(void)state;
	struct client *c = pending_client();
	conn_close(conn_of(c), REASON_AGENT, CLOSE_FLUSH);
	run();
	assert_int_equal(c->closed, 0);
	conn_close(conn_of(c), REASON_KICK, CLOSE_RESET); /* harder, while it flushes */
	run();
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
	run();
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
	wait_ms(10 * TIMEOUT_MS); /* it is not the peer's turn any more */
	assert_string_equal(c->seen, "a|EOF|");
	expect_open(c);
	conn_send(conn_of(c), "still here", 10, &below);
	conn_shutdown(conn_of(c));
	assert_int_equal(conn_send(conn_of(c), "x", 1, &below), UV_EPIPE);
	run();
	expect_output(c, "still here\n");
	assert_true(c->memory.our_shut);
	expect_end(c, REASON_PEER);
	assert_int_equal(c->eofs, 1);
}

static void our_half_close_reads_on(void **state)
{
	(void)state;
	struct client *c = pending_client();
	conn_shutdown(conn_of(c));
	run();
	assert_false(c->memory.our_shut);
	c->memory.window_bytes = SIZE_MAX;
	run();
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
	run();
	assert_string_equal(c->seen, "!a|b|!c|");
	expect_open(c);
	conn_set_busy(conn_of(c), false);
	run();
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
	run();
	assert_string_equal(c->seen, "one|two|");
	expect_end(c, REASON_RESET);
	c = pending_client();
	memory_conn_reset(&c->memory);
	run();
	expect_end(c, REASON_RESET);
	c = lingering_client();
	memory_conn_reset(&c->memory);
	run();
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
	run();
	assert_string_equal(c->seen, "a|!b|c|de|EOF|");
	expect_end(c, REASON_PEER);
	c = join();
	conn_pause(conn_of(c));
	put(c, "par");
	wait_ms(10 * TIMEOUT_MS);
	conn_resume(conn_of(c));
	run();
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
		run();
		assert_string_equal(c->seen, "!|");
		assert_false(c->memory.watched & WATCH_READ);
		assert_in_range(conn_of(c)->waiting_frames, 16, 16 + FRAME_BATCH_MAX);
		if (read_max)
			assert_int_equal(conn_of(c)->waiting_frames, 16);
		wait_ms(10 * TIMEOUT_MS);
		conn_set_busy(conn_of(c), false);
		run();
		assert_string_equal(c->seen, expected);
		assert_int_equal(conn_of(c)->waiting_frames, 0);
		assert_true(c->memory.watched & WATCH_READ);
		memory_conn_reset(&c->memory);
		run();
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
	run();
	memory_conn_put(&unread->memory, "a\n", 2);
	host.drain_deadline_ms = now_ms + 700;
	for (unsigned i = 0; i < 5; i++)
		conn_drain(conn_of(clients[i]));
	conn_drain(conn_of(idle)); /* once is enough */
	run();
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
	run();
	expect_end(busy, REASON_DRAIN);
	assert_int_equal(busy->drain_remaining_ms, 500);
	put(kept, "b\n");
	assert_string_equal(kept->seen, "b|");
	expect_open(kept);
	conn_close(conn_of(kept), REASON_AGENT, CLOSE_FLUSH);
	run();
	expect_end(kept, REASON_AGENT);
}

/* ---- buffers ---- */

static int start_small(void **state)
{
	(void)state;
	return start_with(110000);
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
	run();
	expect_open(fat);
	put_bytes(other, bytes, FRAME_MAX_BYTES); /* input counts as well */
	assert_int_equal(conn_send_raw(conn_of(other), bytes, sizeof bytes, 1), 0);
	run();
	expect_end(fat, REASON_MEMORY);
	expect_open(thin);
	expect_open(other);
	assert_int_equal(count_read(&counters.closed[REASON_MEMORY]), 1);
	/* Whoever holds most itself has nobody to turn to. */
	int err = 0;
	for (int i = 0; i < 20 && !err; i++)
		err = conn_send_raw(conn_of(other), bytes, sizeof bytes, 1);
	assert_int_equal(err, UV_EPIPE);
	run();
	expect_end(other, REASON_MEMORY);
	expect_open(thin);
}

/* ---- at random ---- */

enum { MODEL_STEPS = 100000 };

static uint64_t seed;
static const struct conn_rules MODEL_RULES[] = {
	{ { 250, 900, 300, 200 }, 3000, 4, SLOW_PAUSE },
	{ { 0, 0, 0, 0 }, 5000, 16, SLOW_DROP },
	{ { 500, 0, 0, 0 }, 8000, 1, SLOW_CLOSE },
	{ { 0, 800, 0, 0 }, 1 << 20, 100, SLOW_PAUSE },
};

static uint32_t below(uint32_t bound)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return (uint32_t)(seed >> 16) % bound;
}

static bool chance(uint32_t in)
{
	return below(in) == 0;
}

/* Replies are numbered too, and some are long. */
static void model_send(struct client *c)
{
	static char text[6000];
	bool is_below;
	int n = snprintf(text, sizeof text, "%u ", c->sent + 1);
	size_t len = (size_t)n + (chance(8) ? below(5000) : 0);
	memset(text + n, '-', len - (size_t)n);
	if (!conn_send(conn_of(c), text, len, &is_below))
		c->sent++;
}

static void model_close(struct client *c)
{
	static const enum close_reason REASONS[] = { REASON_AGENT, REASON_ERROR, REASON_KICK };
	conn_close(conn_of(c), REASONS[below(3)], (enum close_how)below(3));
}

static void model_frame(struct client *c, const char *text)
{
	assert_int_equal(strtoul(text, NULL, 10), c->frames_seen); /* each, in order */
	unsigned what = below(200);
	if (what < 100)
		model_send(c);
	else if (what < 110)
		conn_set_busy(conn_of(c), true);
	else if (what < 115)
		conn_pause(conn_of(c));
	else if (what < 117)
		model_close(c);
	else if (what < 119 && clients[what % MODEL_CLIENTS])
		model_send(clients[what % MODEL_CLIENTS]);
}

static void model_join(unsigned slot)
{
	rules.slow = SLOW_PAUSE;
	struct client *c = connect_in(slot);
	conn_of(c)->rules = &MODEL_RULES[below(4)];
	conn_of(c)->timeouts = &conn_of(c)->rules->timeouts;
	c->on_frame = model_frame;
	c->eof_answer = chance(2) ? EOF_CLOSE : EOF_KEEP;
	c->keep = chance(4);
	c->drain_keeps = chance(3);
}

/* The peer sends numbered frames, cut anywhere. */
static void model_put(struct client *c)
{
	if (c->memory.peer_shut)
		return;
	for (unsigned n = 1 + below(20); n; n--) {
		if (!*c->rest)
			snprintf(c->rest, sizeof c->rest, "%u %.*s\n", ++c->frames_begun,
				 chance(10) ? (int)below(100) : 0, hundred);
		size_t len = strlen(c->rest), now = n == 1 ? below((uint32_t)len + 1) : len;
		if (now)
			memory_conn_put(&c->memory, c->rest, now);
		memmove(c->rest, c->rest + now, len + 1 - now);
		c->frames_put += now == len;
	}
}

static void model_take(struct client *c, size_t most)
{
	char bytes[5000];
	size_t n = memory_conn_take(&c->memory, bytes, most < sizeof bytes ? most : sizeof bytes);
	bool may_skip = conn_of(c)->rules->slow == SLOW_DROP;
	for (size_t i = 0; i < n; i++) {
		if (bytes[i] >= '0' && bytes[i] <= '9')
			c->number = c->number * 10 + (unsigned)(bytes[i] - '0');
		if (bytes[i] != '\n')
			continue;
		assert_true(may_skip ? c->number > c->received : c->number == c->received + 1);
		c->received = c->number;
		c->number = 0;
	}
}

static void model_step(struct client *c)
{
	struct conn *conn = conn_of(c);
	static const size_t WINDOWS[] = { 0, 100, 5000, SIZE_MAX };
	unsigned what = below(100);
	if (what < 35)
		model_put(c);
	else if (what < 50)
		model_take(c, 1 + below(5000));
	else if (what < 55)
		c->memory.window_bytes = WINDOWS[below(4)];
	else if (what < 58)
		c->memory.read_max = below(10);
	else if (what < 63)
		conn_pause(conn);
	else if (what < 70)
		conn_resume(conn);
	else if (what < 74)
		conn_set_busy(conn, true);
	else if (what < 82)
		conn_set_busy(conn, false);
	else if (what < 92)
		model_send(c);
	else if (what < 93)
		model_close(c);
	else if (what < 94)
		memory_conn_half_close(&c->memory);
	else if (what < 95 && chance(3))
		memory_conn_reset(&c->memory);
	else if (what < 96)
		conn_set_timeout(conn, (enum timeout_kind)below(TIMEOUT_KINDS), below(2000));
	else if (what < 97 && chance(3))
		conn_shutdown(conn);
	else if (what < 98 && chance(3))
		conn_drain(conn);
	else if (what < 99)
		conn->flushing = true;
}

/* Once nothing more happens, nothing that could have been done is left undone. */
static void check_rest(const struct client *c)
{
	const struct conn *conn = &c->memory.conn;
	if (!conn_is_open(conn))
		return;
	assert_int_equal(conn->watching, c->memory.watched);
	if (may_go_on(conn)) {
		assert_int_equal(c->memory.inward_bytes, 0);
		assert_int_equal(c->frames_seen, c->frames_put);
		assert_false(conn->eof && !conn->eof_done);
	}
	if (c->memory.window_bytes > c->memory.outward_bytes)
		assert_int_equal(conn_pending_bytes(conn), 0);
	assert_true(conn->busy || conn->waiting_frames == 0);
	assert_true(conn->waiting_frames <= conn->rules->inbox_frames + FRAME_BATCH_MAX);
}

static int start_model(void **state)
{
	(void)state;
	int err = start_with(60000);
	modelling = true;
	seed = 20260104;
	return err;
}

static void whatever_happens_each_end_is_told_once(void **state)
{
	(void)state;
	for (unsigned n = 0; n < MODEL_STEPS; n++) {
		unsigned slot = below(MODEL_CLIENTS);
		if (!clients[slot])
			model_join(slot);
		else if (!clients[slot]->closed)
			model_step(clients[slot]);
		if (chance(3) && clients[slot])
			memory_conn_run(&clients[slot]->memory);
		if (chance(4))
			conn_host_turn(&host, now_ms += below(60));
		if (!chance(5))
			continue;
		run();
		assert_true(conn_host_next_ms(&host) > now_ms);
		for (unsigned i = 0; i < CLIENTS; i++)
			if (clients[i])
				check_rest(clients[i]);
	}
	/* All that should come about has come about. */
	static const enum close_reason REASONS[] = {
		REASON_PEER,         REASON_AGENT,        REASON_ERROR,         REASON_KICK,
		REASON_READ_TIMEOUT, REASON_IDLE_TIMEOUT, REASON_WRITE_TIMEOUT, REASON_SLOW_CONSUMER,
		REASON_MEMORY,       REASON_RESET,        REASON_DRAIN,
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
		TEST(lingering_ends_after_a_second),
		TEST(the_end_of_stream_comes_after_the_frames),
		TEST(a_half_closed_connection_can_be_kept),
		TEST(our_half_close_reads_on),
		TEST(a_suspended_agent_is_asked_again_about_the_end),
		TEST(a_reset_ends_it_after_the_frames_before_it),
		TEST(paused_nothing_is_read),
		TEST(a_suspended_agents_frames_wait),
		TEST(what_waits_is_bounded_in_bytes_too),
		TEST(drain_ends_the_idle_at_once),
		cmocka_unit_test_setup_teardown(the_fattest_makes_room, start_small, end),
		cmocka_unit_test_setup_teardown(whatever_happens_each_end_is_told_once, start_model, end),
	};
	return cmocka_run_group_tests_name("conn", tests, NULL, NULL);
}
