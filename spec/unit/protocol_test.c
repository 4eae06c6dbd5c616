/* Protocols with a session: answers of their own, several channels on a connection, a last word. */
#include "conn_steps.h"

#include "net/poller.h"
#include "support/mux.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <uv.h>

enum { RECORDS = 4096, TEXT_BYTES = 1024, OUTPUT_BYTES = 65536 };

/* What the agent of a channel beside the first has seen. */
struct record {
	struct channel *channel; /* NULL once it has ended */
	uint64_t id;
	char seen[TEXT_BYTES];
	unsigned closed, eofs, flushed, turns; /* that closed() takes */
	enum eof_answer eof_answer;
	enum close_reason reason;
};

static struct record records[RECORDS];
static unsigned record_count, ended_count;
static unsigned closed_takes; /* turns, of channels that begin */
static const struct conn_handler *base;
static struct conn_handler handler;

/* ---- agents of channels ---- */

static bool is_first(const struct channel *channel)
{
	return channel == &channel->conn->first;
}

static struct record *record_of(const struct channel *channel)
{
	for (unsigned i = record_count; i--;)
		if (records[i].id == channel->id)
			return &records[i];
	fail();
	return NULL;
}

static void note(struct record *record, const void *text, size_t n)
{
	size_t at = strlen(record->seen);
	if (at + n + 2 > sizeof record->seen)
		return;
	memcpy(record->seen + at, text, n);
	memcpy(record->seen + at + n, "|", 2);
}

static void on_opened(struct channel *channel)
{
	if (is_first(channel)) {
		base->opened(channel);
		return;
	}
	assert_true(record_count < RECORDS);
	assert_ptr_equal(idmap_get(&host.ids, channel->id), channel);
	records[record_count++] = (struct record){
		.channel = channel, .id = channel->id, .turns = closed_takes, .eof_answer = EOF_CLOSE
	};
}

static void reply(struct channel *channel, const void *text, size_t n)
{
	bool is_below;
	channel_send(channel, text, n, &is_below);
}

static void obey(struct channel *channel, const char *text)
{
	if (!strcmp(text, "wait")) {
		channel_set_busy(channel, true);
	} else if (!strcmp(text, "pause")) {
		channel_pause(channel);
	} else if (!strcmp(text, "close")) {
		channel_close(channel, REASON_AGENT, CLOSE_FLUSH);
	} else if (!strcmp(text, "shutdown")) {
		channel_shutdown(channel);
	} else if (!strcmp(text, "flush")) {
		channel->flushing = true;
		channel_set_busy(channel, true);
	} else if (!strcmp(text, "all")) {
		conn_close(channel->conn, REASON_AGENT, CLOSE_FLUSH);
	} else {
		reply(channel, text, strlen(text));
	}
}

static unsigned on_frames(struct channel *channel, struct batch *batch)
{
	if (is_first(channel))
		return base->frames(channel, batch);
	char text[MUX_MESSAGE_MAX + 1];
	assert_int_equal(batch->count, 1);
	assert_true(channel_is_open(channel) && !channel->busy && !channel->paused);
	snprintf(text, sizeof text, "%.*s", (int)batch->frames[0].len, (const char *)batch->frames[0].data);
	note(record_of(channel), text, strlen(text));
	world_frames++;
	obey(channel, text);
	return 1;
}

static enum eof_answer on_eof(struct channel *channel)
{
	if (is_first(channel))
		return base->eof(channel);
	assert_false(channel->busy);
	record_of(channel)->eofs++;
	return record_of(channel)->eof_answer;
}

static void on_flushed(struct channel *channel)
{
	if (is_first(channel)) {
		base->flushed(channel);
		return;
	}
	record_of(channel)->flushed++;
	channel->flushing = false;
	channel_set_busy(channel, false);
}

static void on_writable(struct channel *channel)
{
	if (is_first(channel))
		base->writable(channel);
	else
		note(record_of(channel), "WRITABLE", strlen("WRITABLE"));
}

static bool on_closed(struct channel *channel, enum close_reason reason)
{
	if (is_first(channel)) {
		for (unsigned i = 0; i < record_count; i++)
			assert_false(records[i].channel && records[i].channel->conn == channel->conn);
		return base->closed(channel, reason);
	}
	struct record *record = record_of(channel);
	assert_true(reason != REASON_NONE);
	assert_int_equal(record->closed, 0);
	if (record->turns) {
		record->turns--;
		return false;
	}
	record->closed++;
	record->reason = reason;
	record->channel = NULL;
	return true;
}

/* ---- steps ---- */

static int mux_begin(void **state)
{
	int err = conns_begin(state);
	base = host.handler;
	handler = *base;
	handler.opened = on_opened;
	handler.frames = on_frames;
	handler.eof = on_eof;
	handler.flushed = on_flushed;
	handler.writable = on_writable;
	handler.closed = on_closed;
	host.handler = &handler;
	world_protocol = &MUX;
	line.empty = CODEC_EMPTY_IGNORE; /* what the protocol has answered itself nobody was handed */
	record_count = ended_count = closed_takes = 0;
	at_random_seed = 20261130;
	return err;
}

static int mux_end(void **state)
{
	int err = conns_end(state);
	assert_int_equal(mux_sessions, 0);
	for (unsigned i = 0; i < record_count; i++)
		assert_int_equal(records[i].closed, 1);
	return err;
}

#define WITH_MUX(TEST) cmocka_unit_test_setup_teardown(TEST, mux_begin, mux_end)

static unsigned free_slot(void)
{
	unsigned slot = 0;
	while (clients[slot])
		slot++;
	return slot;
}

/* Units as text: "1m:hello 2?:who 1e:". Returns their bytes. */
static size_t units(uint8_t *to, const char *text)
{
	size_t bytes = 0;
	while (*text) {
		unsigned channel = (unsigned)strtoul(text, (char **)&text, 10);
		char kind = *text;
		const char *from = text + 2;
		size_t n = strcspn(from, " ");
		bytes += mux_unit(to + bytes, channel, kind, from, n);
		text = from + n + (from[n] == ' ');
	}
	return bytes;
}

static void put_units(struct client *c, const char *text)
{
	uint8_t bytes[4096];
	put_bytes(c, bytes, units(bytes, text));
}

/* The other way round. */
static void show(const uint8_t *bytes, size_t n, char *text, size_t size)
{
	size_t at = 0;
	*text = '\0';
	while (n >= MUX_HEAD_BYTES && n >= MUX_HEAD_BYTES + (size_t)bytes[2]) {
		size_t whole = MUX_HEAD_BYTES + (size_t)bytes[2];
		at += (size_t)snprintf(text + at, size - at, "%s%u%c:%.*s", at ? " " : "", bytes[0], bytes[1],
				       bytes[2], (const char *)bytes + MUX_HEAD_BYTES);
		assert_true(at < size);
		bytes += whole;
		n -= whole;
	}
	assert_int_equal(n, 0);
}

static void expect_units(struct client *c, const char *text)
{
	uint8_t bytes[OUTPUT_BYTES];
	char got[OUTPUT_BYTES];
	size_t n = world_take(c, bytes, sizeof bytes);
	show(bytes, n, got, sizeof got);
	assert_string_equal(got, text);
	world_run();
}

static struct record *last_record(void)
{
	return &records[record_count - 1];
}

/* ---- tests ---- */

static void it_answers_by_itself_and_in_order(void **state)
{
	(void)state;
	struct client *c = join();
	c->echo = true;
	put_units(c, "0m:one 0?:who 0m:two 3?:there");
	assert_string_equal(c->seen, "one|two|");
	assert_int_equal(record_count, 0);
	expect_units(c, "0m:one 0!:who 0m:two 3!:there");
}

static void each_channel_has_an_agent(void **state)
{
	(void)state;
	struct client *c = join();
	c->echo = true;
	put_units(c, "1m:a 0m:b 2m:c 1m:d");
	assert_int_equal(record_count, 2);
	assert_string_equal(records[0].seen, "a|d|");
	assert_string_equal(records[1].seen, "c|");
	assert_string_equal(c->seen, "b|");
	assert_true(records[0].id != records[1].id && records[0].id > CONN_FURTHER_IDS);
	expect_units(c, "1m:a 0m:b 2m:c 1m:d");
	assert_int_equal(conn_of(c)->first.frames_in, 1);
	assert_int_equal(records[0].channel->frames_in, 2);
}

static void one_that_waits_holds_up_no_other(void **state)
{
	(void)state;
	struct client *c = join();
	put_units(c, "1m:wait 1m:a 2m:x 1m:b 2m:y");
	assert_string_equal(records[0].seen, "wait|");
	assert_string_equal(records[1].seen, "x|y|");
	expect_units(c, "2m:x 2m:y");
	channel_set_busy(records[0].channel, false);
	world_run(); /* what was kept comes, though no byte does */
	assert_string_equal(records[0].seen, "wait|a|b|");
	expect_units(c, "1m:a 1m:b");
}

static void one_that_is_paused_goes_on_when_it_is_resumed(void **state)
{
	(void)state;
	struct client *c = join();
	put_units(c, "1m:pause 1m:a 2m:x 1e:");
	assert_string_equal(records[0].seen, "pause|");
	assert_int_equal(records[0].eofs, 0);
	channel_resume(records[0].channel);
	world_run();
	assert_string_equal(records[0].seen, "pause|a|");
	assert_int_equal(records[0].eofs, 1);
	expect_units(c, "2m:x 1m:a 1e:peer");
}

/* While the first waits nothing is handed up: it is the connection's. */
static void the_first_holds_up_all(void **state)
{
	(void)state;
	struct client *c = join();
	channel_set_busy(channel_of(c), true);
	put_units(c, "0m:a 1m:x");
	assert_int_equal(record_count, 0);
	channel_set_busy(channel_of(c), false);
	world_run();
	assert_string_equal(c->seen, "a|");
	assert_string_equal(records[0].seen, "x|");
}

static void one_ends_and_its_connection_goes_on(void **state)
{
	(void)state;
	struct client *c = join();
	closed_takes = 2;
	put_units(c, "1m:a 1m:close 1m:late 2m:x");
	assert_string_equal(records[0].seen, "a|close|");
	assert_int_equal(records[0].closed, 1);
	assert_int_equal(records[0].reason, REASON_AGENT);
	assert_null(idmap_get(&host.ids, records[0].id));
	expect_units(c, "1m:a 2m:x 1e:agent");
	expect_open(c);
	put_units(c, "1m:again"); /* a number that nobody has is another channel's */
	assert_int_equal(record_count, 3);
	assert_string_equal(last_record()->seen, "again|");
}

static void its_peer_ends_one(void **state)
{
	(void)state;
	struct client *c = join();
	put_units(c, "1m:a 1e: 2m:x");
	assert_int_equal(records[0].eofs, 1);
	assert_int_equal(records[0].reason, REASON_PEER);
	assert_int_equal(records[1].closed, 0);
	expect_units(c, "1m:a 2m:x 1e:peer");
	records[1].eof_answer = EOF_KEEP;
	put_units(c, "2e:");
	assert_int_equal(records[1].closed, 0);
	reply(records[1].channel, "more", 4);
	channel_shutdown(records[1].channel);
	world_run();
	expect_units(c, "2m:more 2e:");
}

static void an_end_of_the_peer_waits_for_who_is_busy(void **state)
{
	(void)state;
	struct client *c = join();
	put_units(c, "1m:wait 1e:");
	assert_int_equal(records[0].eofs, 0);
	channel_set_busy(records[0].channel, false);
	world_run();
	assert_int_equal(records[0].eofs, 1);
	assert_int_equal(records[0].closed, 1);
}

static void a_connection_ends_with_all_of_them(void **state)
{
	(void)state;
	struct client *c = join();
	closed_takes = 3;
	put_units(c, "1m:a 2m:wait 3m:b 2m:kept 3m:all");
	expect_end(c, REASON_AGENT);
	assert_int_equal(record_count, 3);
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(records[i].closed, 1);
		assert_int_equal(records[i].reason, REASON_AGENT);
	}
	assert_string_equal(records[1].seen, "wait|");
	expect_units(c, "1m:a 3m:b 0e:agent");
}

static void a_reset_ends_all_of_them(void **state)
{
	(void)state;
	struct client *c = join();
	put_units(c, "1m:a 2m:wait");
	memory_stream_reset(&c->memory);
	world_run();
	expect_end(c, REASON_RESET);
	assert_int_equal(records[0].reason, REASON_RESET);
	assert_int_equal(records[1].reason, REASON_RESET);
}

/* Behind all replies, and what comes behind it is not sent. */
static void its_last_word_comes_last(void **state)
{
	(void)state;
	struct client *c = join();
	put_units(c, "0m:a");
	c->memory.window_bytes = 5;
	reply(channel_of(c), "first", 5);
	conn_close(conn_of(c), REASON_KICK, CLOSE_FLUSH);
	reply(channel_of(c), "second", 6);
	world_run();
	assert_int_equal(c->closed, 0);
	c->memory.window_bytes = SIZE_MAX;
	world_run();
	expect_end(c, REASON_KICK);
	expect_units(c, "0m:first 0m:second 0e:kick");
}

static void one_waits_until_all_is_sent(void **state)
{
	(void)state;
	struct client *c = join();
	c->memory.window_bytes = 5;
	put_units(c, "1m:abc 1m:flush");
	assert_int_equal(records[0].flushed, 0);
	c->memory.window_bytes = SIZE_MAX;
	world_run();
	assert_int_equal(records[0].flushed, 1);
	expect_units(c, "1m:abc");
}

/* Who asks and does not read the answers is read from no more. */
static void answers_are_bounded_as_replies_are(void **state)
{
	(void)state;
	struct client *c = join();
	c->memory.window_bytes = 0;
	for (int i = 0; i < 1000; i++)
		put_units(c, "0?:a-question-of-some-length 1m:x");
	assert_true(conn_of(c)->choked);
	assert_in_range(conn_pending_bytes(conn_of(c)), rules.send_buffer_bytes, 2 * rules.send_buffer_bytes);
	c->memory.window_bytes = SIZE_MAX;
	world_run();
	assert_false(conn_of(c)->choked);
	assert_string_not_equal(records[0].seen, "");
	assert_non_null(strstr(records[0].seen, "WRITABLE"));
	assert_int_equal(records[0].channel->frames_in, 1000);
}

static void what_is_wrong_ends_it_behind_what_was_right(void **state)
{
	(void)state;
	struct client *c = join();
	put_units(c, "1m:a 1x: 1m:b");
	assert_string_equal(records[0].seen, "a|");
	assert_int_equal(c->bad_frames, 1);
	hang_up(c);
	expect_end(c, REASON_FRAME_ERROR);
	assert_int_equal(records[0].reason, REASON_FRAME_ERROR);
}

static void one_that_keeps_too_much_is_refused(void **state)
{
	(void)state;
	struct client *c = join();
	put_units(c, "1m:wait");
	for (int i = 0; i < MUX_KEPT_MAX; i++)
		put_units(c, "1m:more");
	expect_open(c);
	put_units(c, "1m:one-too-many");
	hang_up(c);
	expect_end(c, REASON_OVERSIZE);
}

static void go_over(struct client *c, const char *text)
{
	if (!strcmp(text, "mux"))
		assert_int_equal(conn_set_protocol(conn_of(c), &MUX, 0), 0);
	if (!strcmp(text, "lines"))
		assert_int_equal(conn_set_protocol(conn_of(c), &line.protocol, 0), 0);
}

/* From a framing to a session and back, twice, wherever the bytes are cut. */
static void a_connection_speaks_one_after_the_other(void **state)
{
	(void)state;
	world_protocol = &line.protocol;
	for (size_t read_max = 0; read_max < 8; read_max++) {
		struct client *c = join();
		uint8_t bytes[256];
		c->on_frame = go_over;
		c->memory.read_max = read_max;
		for (int i = 0; i < 2; i++) {
			size_t n = (size_t)sprintf((char *)bytes, "a\nmux\n");
			n += units(bytes + n, "0m:b 0?:who 0m:lines");
			n += (size_t)sprintf((char *)bytes + n, "c\n");
			put_bytes(c, bytes, n);
		}
		assert_string_equal(c->seen, "a|mux|b|lines|c|a|mux|b|lines|c|");
		assert_int_equal(mux_sessions, 0);
		expect_units(c, "0!:who 0!:who");
	}
}

/* What follows the switch in the same read belongs to other channels, too. */
static void channels_begin_right_behind_the_switch(void **state)
{
	(void)state;
	world_protocol = &line.protocol;
	uint8_t bytes[256];
	struct client *c = join();
	c->on_frame = go_over;
	size_t n = (size_t)sprintf((char *)bytes, "a\nmux\n");
	n += units(bytes + n, "0m:b 3m:three 4m:four 3e:");
	put_bytes(c, bytes, n);
	assert_string_equal(c->seen, "a|mux|b|");
	assert_int_equal(record_count, 2);
	assert_string_equal(records[0].seen, "three|");
	assert_int_equal(records[0].eofs, 1);
	assert_string_equal(records[1].seen, "four|");
	assert_int_equal(conn_set_protocol(conn_of(c), &line.protocol, 0), UV_EBUSY);
}

static void who_is_shut_says_no_more(void **state)
{
	(void)state;
	struct client *c = join();
	put_units(c, "3m:a");
	bool is_below;
	channel_shutdown(records[0].channel);
	assert_int_equal(channel_send(records[0].channel, "late", 4, &is_below), UV_EPIPE);
	world_run();
	assert_int_equal(channel_send(records[0].channel, "later", 5, &is_below), UV_EPIPE);
	reply(channel_of(c), "b", 1);
	world_run();
	expect_units(c, "3m:a 3e: 0m:b");
}

/* An agent of another channel that works is reason enough to stay. */
static void one_that_works_keeps_its_connection(void **state)
{
	(void)state;
	rules.timeouts.idle = TIMEOUT_MS;
	struct client *c = join();
	put_units(c, "3m:wait");
	wait_ms(3 * TIMEOUT_MS);
	expect_open(c);
	channel_set_busy(records[0].channel, false);
	world_run();
	wait_ms(TIMEOUT_MS);
	expect_end(c, REASON_IDLE_TIMEOUT);
}

static void a_session_that_cannot_begin_ends_it(void **state)
{
	(void)state;
	mux_fails = true;
	struct client *c = join();
	world_run();
	expect_end(c, REASON_MEMORY);
	world_protocol = &line.protocol;
	c = join();
	c->on_frame = go_over;
	mux_fails = true;
	put(c, "a\nmux\n0m");
	expect_end(c, REASON_MEMORY);
	assert_string_equal(c->seen, "a|mux|");
}

/* The same whatever carries it and however it is cut. */
static void it_is_the_same_over_every_stream(void **state)
{
	(void)state;
	static const char ALL[] = "0m:a 1m:wait 2m:x 1m:kept 0?:who 2m:close 3m:y 1e: 3e: 4m:z";
	uint8_t bytes[256];
	size_t n = units(bytes, ALL);
	for (size_t read_max = 0; read_max < 12; read_max++) {
		for (unsigned layers = 0; layers <= LAYERS_MAX; layers++) {
			record_count = 0;
			struct client *c =
			    layers ? world_join_nasty(free_slot(), layers, at_random, 0) : join();
			c->echo = true;
			c->memory.read_max = read_max;
			put_bytes(c, bytes, n);
			assert_int_equal(record_count, 4);
			channel_set_busy(records[0].channel, false);
			world_run();
			conn_close(conn_of(c), REASON_KICK, CLOSE_FLUSH);
			for (int i = 0; i < 100 && !c->closed; i++)
				put_bytes(c, bytes, 0); /* a layer may want to read before it writes */
			hang_up(c);
			expect_end(c, REASON_KICK);
			assert_string_equal(c->seen, "a|");
			assert_string_equal(records[0].seen, "wait|kept|");
			assert_string_equal(records[1].seen, "x|close|");
			assert_string_equal(records[2].seen, "y|");
			assert_int_equal(records[1].reason, REASON_AGENT);
			assert_int_equal(records[3].reason, REASON_KICK);
			clients[c->slot] = NULL;
			memory_stream_deinit(&c->memory);
			free(c);
		}
	}
}

static void it_is_spoken_over_sockets(void **state)
{
	(void)state;
	uint8_t bytes[OUTPUT_BYTES];
	char got[OUTPUT_BYTES];
	uv_loop_t loop;
	struct poller poller;
	int fds[2];
	assert_int_equal(uv_loop_init(&loop), 0);
	assert_int_equal(poller_init(&poller, &loop), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
	struct client *c = world_join_socket(free_slot(), &poller, fds[0], false, at_random);
	c->echo = true;
	size_t n = units(bytes, "0m:a 1m:wait 2m:x 1m:kept 0?:who");
	c->memory.put_bytes = n;
	for (size_t i = 0; i < n; i++) {
		assert_int_equal(write(fds[1], bytes + i, 1), 1);
		serve_polled(&poller, -1);
	}
	channel_set_busy(records[0].channel, false);
	conn_host_turn(&host, now_ms);
	shutdown(fds[1], SHUT_WR);
	while (!c->gone)
		serve_polled(&poller, -1);
	ssize_t came = read(fds[1], bytes, sizeof bytes);
	assert_true(came > 0);
	show(bytes, (size_t)came, got, sizeof got);
	assert_string_equal(got, "0m:a 2m:x 0!:who 1m:kept 0e:peer");
	assert_int_equal(c->reason, REASON_PEER);
	close(fds[1]);
	poller_deinit(&poller);
	uv_loop_close(&loop);
}

/* ---- whatever happens ---- */

enum { STEPS = 200000, RANDOM_CLIENTS = 4 };

static void put_at_random(struct client *c)
{
	static const char *const WORDS[] = {
		"a", "b", "wait", "pause", "close", "shutdown", "flush", "text"
	};
	uint8_t bytes[256];
	const char *word = WORDS[at_random(sizeof WORDS / sizeof *WORDS)];
	unsigned channel = 1 + at_random(5);
	char kind = at_random(12) ? 'm' : at_random(3) ? '?' : 'e';
	size_t n = mux_unit(bytes, channel, kind, kind == 'e' ? "" : word, kind == 'e' ? 0 : strlen(word));
	put_bytes(c, bytes, n);
}

static void free_one(struct record *record)
{
	struct channel *channel = record->channel;
	if (!channel || channel->flushing)
		return;
	if (channel->paused)
		channel_resume(channel);
	else if (channel->busy)
		channel_set_busy(channel, false);
}

/* Records of channels that have ended make room. */
static void forget_records(void)
{
	unsigned kept = 0;
	for (unsigned i = 0; i < record_count; i++)
		if (records[i].channel)
			records[kept++] = records[i];
		else
			assert_int_equal(records[i].closed, 1);
	ended_count += record_count - kept;
	record_count = kept;
}

static void whatever_happens_each_channel_ends_once(void **state)
{
	(void)state;
	world_frees = true;
	for (unsigned step = 0; step < STEPS; step++) {
		unsigned slot = at_random(RANDOM_CLIENTS), what = at_random(100);
		struct client *c = clients[slot];
		if (!c) {
			closed_takes = at_random(3);
			world_join_nasty(slot, at_random(LAYERS_MAX + 1), at_random, 0);
		} else if (what < 60) {
			if (!c->memory.peer_shut && !c->memory.broken)
				put_at_random(c);
		} else if (what < 80 && record_count) {
			free_one(&records[at_random(record_count)]);
		} else if (what < 84) {
			c->memory.window_bytes = at_random(3) ? SIZE_MAX : at_random(200);
		} else if (what < 86) {
			conn_close(conn_of(c), REASON_KICK, (enum close_how)at_random(3));
		} else if (what == 86) {
			memory_stream_half_close(&c->memory);
		} else if (what == 87) {
			memory_stream_reset(&c->memory);
		} else if (what == 88) {
			conn_drain(conn_of(c));
		} else if (what == 89) {
			now_ms += at_random(20000);
		}
		world_run();
		forget_records();
	}
	assert_true(ended_count > STEPS / 20 && world_frames > STEPS / 4);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_MUX(it_answers_by_itself_and_in_order),
		WITH_MUX(each_channel_has_an_agent),
		WITH_MUX(one_that_waits_holds_up_no_other),
		WITH_MUX(one_that_is_paused_goes_on_when_it_is_resumed),
		WITH_MUX(the_first_holds_up_all),
		WITH_MUX(one_ends_and_its_connection_goes_on),
		WITH_MUX(its_peer_ends_one),
		WITH_MUX(an_end_of_the_peer_waits_for_who_is_busy),
		WITH_MUX(a_connection_ends_with_all_of_them),
		WITH_MUX(a_reset_ends_all_of_them),
		WITH_MUX(its_last_word_comes_last),
		WITH_MUX(one_waits_until_all_is_sent),
		WITH_MUX(answers_are_bounded_as_replies_are),
		WITH_MUX(what_is_wrong_ends_it_behind_what_was_right),
		WITH_MUX(one_that_keeps_too_much_is_refused),
		WITH_MUX(a_connection_speaks_one_after_the_other),
		WITH_MUX(channels_begin_right_behind_the_switch),
		WITH_MUX(who_is_shut_says_no_more),
		WITH_MUX(one_that_works_keeps_its_connection),
		WITH_MUX(a_session_that_cannot_begin_ends_it),
		WITH_MUX(it_is_the_same_over_every_stream),
		WITH_MUX(it_is_spoken_over_sockets),
		WITH_MUX(whatever_happens_each_channel_ends_once),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
