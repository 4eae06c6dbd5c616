#include "support/conn_model.h"

#include "support/conn_world.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SLOTS = 8, CODECS = 6, DRAIN_MS = 500, WILD_BYTES = 24 };

static uint32_t (*below)(uint32_t bound);
static struct codec codecs[CODECS];
static bool draining;

static const struct conn_rules RULES[] = {
	{ { 250, 900, 300, 200, 100, 0, 0 }, 3000, 4, SLOW_PAUSE },
	{ { 0, 0, 0, 0, 0, 0, 0 }, 5000, 16, SLOW_DROP },
	{ { 500, 0, 0, 0, 0, 0, 0 }, 8000, 1, SLOW_CLOSE },
	{ { 0, 800, 0, 0, 300, 0, 0 }, 1 << 20, 100, SLOW_PAUSE },
};

static bool chance(uint32_t in)
{
	return below(in) == 0;
}

static struct conn *conn_of(struct client *c)
{
	return &c->conn;
}

static struct channel *channel_of(struct client *c)
{
	return &c->conn.first;
}

/* ---- what agents do ---- */

/* Replies are numbered, and some are long. */
static void send_one(struct client *c)
{
	static char text[6000];
	bool is_below;
	int n = snprintf(text, sizeof text, "%u ", c->sent + 1);
	size_t len = (size_t)n + (chance(8) ? below(5000) : 0);
	memset(text + n, '-', len - (size_t)n);
	if (!channel_send(channel_of(c), text, len, &is_below))
		c->sent++;
}

/* The same, framed already. */
static void send_raw(struct client *c)
{
	char text[16];
	int n = snprintf(text, sizeof text, "%u \n", c->sent + 1);
	if (!channel_send_raw(channel_of(c), text, (size_t)n, 1))
		c->sent++;
}

/* The same of what is held elsewhere as well, or was until now. */
static void share_one(struct client *c)
{
	static char text[3000];
	int n = snprintf(text, sizeof text, "%u ", c->sent + 1);
	uint32_t len = (uint32_t)n + 1 + below(sizeof text - 20);
	memset(text + n, '=', len - (size_t)n);
	text[len - 1] = '\n';
	struct shared *shared = shared_new(text, len);
	assert(shared);
	if (!channel_share(channel_of(c), shared, 0, len, 1))
		c->sent++;
	shared_drop(shared);
}

static void close_one(struct client *c)
{
	static const enum close_reason REASONS[] = { REASON_AGENT, REASON_ERROR, REASON_KICK };
	enum close_reason reason = REASONS[below(3)];
	conn_close(conn_of(c), reason, (enum close_how)below(3));
}

static void suspend(struct client *c)
{
	if (!conn_of(c)->first.reading)
		channel_set_busy(channel_of(c), true);
}

static void wake(struct client *c)
{
	conn_of(c)->first.reading = NULL;
	channel_set_busy(channel_of(c), false);
}

/* Another framing, for good or for one frame. Only where the peer's frames are not numbered. */
static void reframe(struct client *c)
{
	struct conn *conn = conn_of(c);
	const struct codec *codec = &codecs[below(CODECS)];
	if (chance(5)) {
		conn_set_protocol(conn, &codec->protocol, 0);
	} else if (chance(2)) {
		int err = conn_set_protocol(conn, &codec->protocol, sizeof *codec);
		assert(!err);
	} else if (!conn->first.busy) {
		conn->first.reading = &codec->protocol;
		channel_set_busy(&conn->first, true);
	}
}

static void act(struct client *c)
{
	unsigned what = below(200);
	if (what < 100)
		send_one(c);
	else if (what < 110)
		suspend(c);
	else if (what < 115)
		channel_pause(channel_of(c));
	else if (what < 117)
		close_one(c);
	else if (what < 119 && clients[what % SLOTS])
		send_one(clients[what % SLOTS]);
	else if (what < 121)
		conn_shutdown(conn_of(c));
	else if (what < 124)
		conn_flush_now(conn_of(c));
	else if (what < 140 && c->wild)
		reframe(c);
	else if (what >= 140 && what < 150)
		send_raw(c);
	else if (what >= 150 && what < 170)
		share_one(c);
}

static void on_frame(struct client *c, const char *text)
{
	bool in_order = c->wild || strtoul(text, NULL, 10) == c->frames_seen;
	assert(in_order);
	if (conn_of(c)->first.reading)
		wake(c);
	act(c);
}

/* ---- what peers do ---- */

/* Numbered frames, cut anywhere. */
static void put_frames(struct client *c)
{
	static const char PADDING[] =
	    "1234567890123456789012345678901234567890"
	    "1234567890123456789012345678901234567890123456789012345678901234567890";
	for (unsigned n = 1 + below(20); n; n--) {
		if (!*c->rest)
			snprintf(c->rest, sizeof c->rest, "%u %.*s\n", ++c->frames_begun,
				 chance(10) ? (int)below(100) : 0, PADDING);
		size_t len = strlen(c->rest), now = n == 1 ? below((uint32_t)len + 1) : len;
		if (now)
			world_put(c, c->rest, now);
		memmove(c->rest, c->rest + now, len + 1 - now);
		c->frames_put += now == len;
	}
}

/* Bytes that mean something to one codec or another, and now and then many. */
static void put_wild(struct client *c)
{
	static const char BYTES[] = "\n\r\0\1\2\3\377\200"
				    "0123456789:,ab";
	char bytes[WILD_BYTES], many[FRAME_MAX_BYTES];
	size_t n = 1 + below(WILD_BYTES);
	for (size_t i = 0; i < n; i++)
		bytes[i] = BYTES[below(sizeof BYTES - 1)];
	world_put(c, bytes, n);
	if (!chance(16))
		return;
	memset(many, 'm', sizeof many);
	world_put(c, many, below(sizeof many));
}

static void put(struct client *c)
{
	if (c->memory.peer_shut)
		return;
	if (c->wild)
		put_wild(c);
	else
		put_frames(c);
}

static void take(struct client *c, size_t most)
{
	char bytes[5000];
	size_t n = world_take(c, bytes, most < sizeof bytes ? most : sizeof bytes);
	bool may_skip = c->endpoint.rules.slow == SLOW_DROP;
	for (size_t i = 0; i < n && !c->wild; i++) {
		if (bytes[i] >= '0' && bytes[i] <= '9')
			c->number = c->number * 10 + (unsigned)(bytes[i] - '0');
		if (bytes[i] != '\n')
			continue;
		assert(may_skip ? c->number > c->received : c->number == c->received + 1);
		c->received = c->number;
		c->number = 0;
	}
}

/* ---- what happens ---- */

static void join(unsigned slot)
{
	rules.slow = SLOW_PAUSE;
	unsigned fails_in = chance(4) ? 1 + below(40) : 0;
	struct client *c =
	    chance(3) ? world_join_nasty(slot, 1 + below(LAYERS_MAX), below, fails_in) : world_join(slot);
	c->endpoint.rules = RULES[below(4)];
	c->on_frame = on_frame;
	c->wild = chance(4);
	c->eof_answer = chance(2) ? EOF_CLOSE : EOF_KEEP;
	c->keep = chance(4);
	c->drain_keeps = chance(3);
	if (draining)
		conn_drain(conn_of(c));
}

static void step(struct client *c)
{
	struct conn *conn = conn_of(c);
	static const size_t WINDOWS[] = { 0, 100, 5000, SIZE_MAX };
	unsigned what = below(100);
	if (what < 35)
		put(c);
	else if (what < 50)
		take(c, 1 + below(5000));
	else if (what < 55)
		c->memory.window_bytes = WINDOWS[below(4)];
	else if (what < 58)
		c->memory.read_max = below(10);
	else if (what < 63)
		channel_pause(&conn->first);
	else if (what < 70)
		channel_resume(&conn->first);
	else if (what < 74)
		suspend(c);
	else if (what < 82)
		wake(c);
	else if (what < 91)
		send_one(c);
	else if (what < 92 && c->wild)
		reframe(c);
	else if (what < 93)
		close_one(c);
	else if (what < 94)
		memory_stream_half_close(&c->memory);
	else if (what < 95 && chance(3))
		memory_stream_reset(&c->memory);
	else if (what < 96)
		conn_set_timeout(conn, (enum timeout_kind)below(TIMEOUT_KINDS), below(2000));
	else if (what < 97 && chance(3))
		conn_shutdown(conn);
	else if (what < 98 && chance(3))
		conn_drain(conn);
	else if (what < 99)
		conn->first.flushing = true;
	else
		conn_flush_now(conn);
}

/* A poll in which some have one event each. */
static void poll_some(void)
{
	for (unsigned i = 0; i < SLOTS; i++)
		if (clients[i] && chance(2))
			memory_stream_report(&clients[i]->memory);
	conn_host_settle(&host);
}

/* Once nothing more happens, nothing that could have been done is left undone. */
static void check_rest(const struct client *c)
{
	const struct conn *conn = &c->conn;
	if (conn->state == CONN_OPENING && !world_is_stuck(c)) /* it waits until it can write */
		assert(c->memory.outward.bytes >= c->memory.window_bytes && conn->watching == STREAM_WRITE);
	if (!conn_is_open(conn))
		return;
	assert(conn->watching == c->memory.watched);
	if (world_is_stuck(c))
		return;
	if (world_may_go_on(conn)) {
		assert(c->nasty[0].held_bytes == 0 && c->nasty[1].held_bytes == 0);
		assert(c->memory.inward.bytes == 0);
		assert(c->wild || c->frames_seen == c->frames_put);
		assert(!conn->eof || conn->eof_done);
	}
	if (c->memory.window_bytes > c->memory.outward.bytes)
		assert(conn_pending_bytes(conn) == 0);
	/* Where a read took bytes in another framing the count is an estimate, and so it stays until they are used. */
	assert(c->wild || conn->first.busy || !world_may_go_on(conn) || conn->waiting_frames == 0);
	assert(conn->counted_bytes <= buf_len(conn->in));
	assert(conn->waiting_frames <= conn->endpoint->rules.inbox_frames + BATCH_MAX);
}

static void rest(void)
{
	world_run();
	assert(conn_host_next_ms(&host) > now_ms);
	for (unsigned i = 0; i < SLOTS; i++)
		if (clients[i])
			check_rest(clients[i]);
}

int model_start(size_t buffer_limit_bytes, uint32_t (*choose)(uint32_t bound))
{
	static const char *const NAMES[CODECS] = { "line", "u8", "u32be", "varint", "netstring", "raw" };
	int err = world_start(buffer_limit_bytes);
	for (unsigned i = 0; i < CODECS && !err; i++)
		err = codec_init_named(&codecs[i], NAMES[i], FRAME_MAX_BYTES);
	below = choose;
	draining = false;
	world_frees = true;
	return err;
}

void model_round(void)
{
	unsigned slot = below(SLOTS);
	if (!clients[slot])
		join(slot);
	else if (!clients[slot]->closed)
		step(clients[slot]);
	switch (below(8)) {
	case 0:
	case 1:
		if (clients[slot])
			world_serve(clients[slot]);
		break;
	case 2:
		poll_some();
		break;
	case 3:
	case 4:
		conn_host_turn(&host, now_ms += below(60));
		break;
	case 5:
		rest();
		break;
	default:
		break;
	}
}

void model_drain(void)
{
	draining = true;
	host.drain_deadline_ms = now_ms + DRAIN_MS;
	for (unsigned i = 0; i < SLOTS; i++)
		if (clients[i])
			conn_drain(conn_of(clients[i]));
	world_run();
	conn_host_turn(&host, now_ms += DRAIN_MS);
	for (unsigned i = 0; i < SLOTS; i++)
		if (clients[i] && !clients[i]->closed)
			conn_close(conn_of(clients[i]), REASON_DRAIN, CLOSE_NOW);
	world_run();
}
