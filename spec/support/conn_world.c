#include "support/conn_world.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct conn_host host;
struct counters counters;
struct conn_rules rules;
struct codec line, u8;
uint64_t now_ms;
struct client *clients[CLIENTS];
bool world_frees;
const struct protocol *world_protocol;
struct layer world_top;
uint64_t world_frames;

static uint64_t last_id;
static unsigned begun_total, closed_total, gone_total;
static uint64_t put_total, handed_total; /* bytes that peers sent, and that agents were handed */
static bool in_handler;

/* ---- the agent ---- */

static struct client *enter(struct conn *conn)
{
	struct client *client = (struct client *)(void *)conn;
	assert(!in_handler); /* never nested */
	assert(client->closed == 0);
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
	if (world_frees || at + len + 2 > sizeof client->seen)
		return;
	memcpy(client->seen + at, text, len);
	memcpy(client->seen + at + len, "|", 2);
}

static void on_opened(struct channel *channel)
{
	enter(channel->conn)->opened++;
	leave();
}

bool world_may_go_on(const struct conn *conn)
{
	return conn_is_open(conn) && !conn->first.busy && !conn->first.paused && !conn->choked;
}

static void echo(struct conn *conn, const struct frame *frame)
{
	bool below;
	int err = channel_send(&conn->first, frame->data, frame->len, &below);
	assert(!err || conn->shut_asked);
}

static unsigned on_frames(struct channel *channel, struct batch *batch)
{
	struct conn *conn = channel->conn;
	struct client *client = enter(conn);
	const struct protocol *next = conn->next_protocol;
	unsigned used = 0;
	bool reading = conn->first.reading;
	assert(client->opened == 1);
	assert(conn_is_open(conn) && !conn->first.paused && !conn->choked && (!conn->first.busy || reading));
	assert(batch->count >= 1 && batch->count <= (reading ? 1 : BATCH_MAX));
	do {
		const struct frame *frame = &batch->frames[used++];
		char text[64];
		snprintf(text, sizeof text, "%.*s", (int)frame->len, (const char *)frame->data);
		see(client, frame->data, frame->len);
		client->frames_seen++;
		world_frames++;
		if (client->echo)
			echo(conn, frame);
		if (client->on_frame)
			client->on_frame(client, text);
	} while (used < batch->count && world_may_go_on(conn) && conn->next_protocol == next);
	handed_total += batch->frames[used - 1].end;
	leave();
	return used;
}

static enum eof_answer on_eof(struct channel *channel)
{
	struct conn *conn = channel->conn;
	struct client *client = enter(conn);
	client->eofs++;
	if (conn->first.reading) { /* it is told that nothing more comes */
		conn->first.reading = NULL;
		channel_set_busy(&conn->first, false);
		leave();
		return EOF_LATER;
	}
	enum eof_answer answer = conn->first.busy ? EOF_LATER : client->eof_answer;
	if (answer != EOF_LATER)
		see(client, "EOF", 3);
	leave();
	return answer;
}

static bool on_timeout(struct channel *channel, enum timeout_kind kind)
{
	struct conn *conn = channel->conn;
	struct client *client = enter(conn);
	assert(conn_is_open(conn) && !conn->first.busy);
	/* Nothing had come in time, but what only a write makes readable. */
	assert(kind == TIMEOUT_WRITE || client->memory.inward.bytes == 0 || world_is_stuck(client));
	client->timeouts++;
	client->timeout_kind = kind;
	leave();
	return client->keep;
}

static void on_bad_frame(struct channel *channel, const struct batch *batch)
{
	struct conn *conn = channel->conn;
	struct client *client = enter(conn);
	assert(batch->error);
	client->bad_frames++;
	leave();
}

static void on_writable(struct channel *channel)
{
	enter(channel->conn)->writables++;
	leave();
}

static void on_flushed(struct channel *channel)
{
	struct conn *conn = channel->conn;
	struct client *client = enter(conn);
	assert(conn_pending_bytes(conn) == 0);
	client->flushes++;
	conn->first.flushing = false;
	leave();
}

static bool on_drain(struct channel *channel, uint64_t remaining_ms)
{
	struct conn *conn = channel->conn;
	struct client *client = enter(conn);
	client->drains++;
	client->drain_remaining_ms = remaining_ms;
	leave();
	return client->drain_keeps;
}

static bool on_closed(struct channel *channel, enum close_reason reason)
{
	struct conn *conn = channel->conn;
	struct client *client = enter(conn);
	assert(reason != REASON_NONE);
	client->closed++;
	closed_total++;
	client->reason = reason;
	const char *failure = stream_failure(&conn->io);
	snprintf(client->failure_text, sizeof client->failure_text, "%s", failure ? failure : "");
	client->failure = failure ? client->failure_text : NULL;
	client->ended_ms = now_ms;
	leave();
	return true;
}

static void on_refused(struct channel *channel, enum close_reason reason, const char *why)
{
	struct client *client = (struct client *)(void *)channel->conn;
	assert(reason != REASON_NONE);
	client->refused = why;
}

static const struct conn_handler HANDLER = {
	.opened = on_opened,
	.refused = on_refused,
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
	assert(client->closed == 1);
	assert(client->left == 0);
	client->left++;
}

static void on_gone(struct conn *conn)
{
	struct client *client = (struct client *)(void *)conn;
	assert(client->left == 1);
	assert(client->gone == 0);
	client->gone++;
	assert(!idmap_get(&host.ids, conn->first.id));
	gone_total++;
	put_total += client->memory.put_bytes;
	if (!world_frees)
		return;
	clients[client->slot] = NULL;
	memory_stream_deinit(&client->memory);
	free(client->proxy);
	free(client); /* whoever touches it now is caught by the sanitizer */
}

int world_start(size_t buffer_limit_bytes)
{
	now_ms = START_MS;
	last_id = begun_total = closed_total = gone_total = 0;
	world_frames = put_total = handed_total = 0;
	world_protocol = &line.protocol;
	world_top = (struct layer){ 0 };
	world_frees = in_handler = false;
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

static struct client *make(unsigned slot)
{
	struct client *client = calloc(1, sizeof *client);
	assert(client);
	client->slot = slot;
	client->conn.peer.sin6_family = AF_UNIX;
	return client;
}

static struct client *make_in_memory(unsigned slot)
{
	struct client *client = make(slot);
	memory_stream_init(&client->memory, &client->conn.io);
	return client;
}

static void put_nasty(struct client *client, uint32_t (*choose)(uint32_t bound), unsigned fails_in)
{
	struct nasty_stream *nasty = &client->nasty[client->layers++];
	nasty->key = client->layers > 1 ? NASTY_UPPER_KEY : NASTY_KEY;
	nasty->choose = choose;
	nasty->fails_in = fails_in;
	stack_push(&nasty->layer, &(struct layer){ &NASTY_STREAM, NULL }, &client->conn.io);
}

bool world_is_stuck(const struct client *client)
{
	for (unsigned i = 0; i < client->layers; i++)
		if (nasty_is_stuck(&client->nasty[i]))
			return true;
	return false;
}

static struct client *begin(struct client *client, const struct networks *trust)
{
	clients[client->slot] = client;
	begun_total++;
	if (world_top.ops) {
		assert(world_top.ops->bytes <= sizeof client->top);
		stack_push((struct stream_layer *)(void *)client->top, &world_top, &client->conn.io);
	}
	client->endpoint =
	    (struct endpoint){ .name = "a test", .rules = rules, .protocol = world_protocol, .trust = trust };
	conn_open(&client->conn, &host, &client->endpoint, ++last_id);
	return client;
}

struct client *world_join(unsigned slot)
{
	return begin(make_in_memory(slot), NULL);
}

struct client *world_join_nasty(unsigned slot, unsigned layers, uint32_t (*choose)(uint32_t bound),
				unsigned fails_in)
{
	static const uint8_t HELLO[NASTY_HELLO_BYTES] = { NASTY_FILLER };
	struct client *client = make_in_memory(slot);
	/* What one layer begins with comes through those below it. */
	for (unsigned i = 0; i < layers; i++) {
		world_put(client, HELLO, sizeof HELLO);
		put_nasty(client, choose, i ? 0 : fails_in);
	}
	client->memory.put_bytes = 0; /* nobody above will hear of them */
	return begin(client, NULL);
}

struct client *world_join_proxied(unsigned slot, const struct proxy_settings *settings,
				  const struct networks *trust, const char *arrived)
{
	static const uint8_t MAPPED[16] = { [10] = 0xff, [11] = 0xff, [12] = 10, [15] = 1 };
	struct client *client = make_in_memory(slot);
	stream_layers layers = { { &PROXY_STREAM, settings } };
	client->proxy = calloc(1, layers_bytes(layers));
	assert(client->proxy);
	layers_init(layers, client->proxy, &client->conn.io);
	client->conn.peer = (struct sockaddr_in6){ .sin6_family = AF_INET6, .sin6_port = htons(999) };
	memcpy(&client->conn.peer.sin6_addr, MAPPED, sizeof MAPPED);
	memory_stream_put(&client->memory, arrived, strlen(arrived));
	return begin(client, trust);
}

struct client *world_join_socket(unsigned slot, struct poller *poller, int fd, bool is_nasty,
				 uint32_t (*choose)(uint32_t bound))
{
	struct client *client = make(slot);
	client->memory.closed = true; /* it reports nothing */
	socket_stream_start(&client->socket, &client->conn.io, poller, fd, true);
	if (is_nasty)
		put_nasty(client, choose, 0);
	return begin(client, NULL);
}

void world_put(struct client *client, const void *bytes, size_t n)
{
	memory_stream_put(&client->memory, bytes, n);
	for (unsigned i = 0; i < client->layers; i++)
		nasty_translate(client->memory.inward.first + client->memory.inward.bytes - n, n,
				client->nasty[i].key);
}

size_t world_take(struct client *client, void *to, size_t n)
{
	uint8_t *bytes = to;
	n = memory_stream_take(&client->memory, to, n);
	for (unsigned layer = 0; layer < client->layers; layer++) {
		size_t kept = 0;
		for (size_t i = 0; i < n; i++)
			if (bytes[i] > NASTY_ASK)
				bytes[kept++] = bytes[i];
		nasty_translate(bytes, kept, client->nasty[layer].key);
		n = kept;
	}
	return n;
}

void world_serve(struct client *client)
{
	while (memory_stream_report(&client->memory))
		conn_host_settle(&host);
}

/* One poll: every connection that has an event gets it, then all are settled. */
static bool poll_all(void)
{
	bool any = false;
	for (unsigned i = 0; i < CLIENTS; i++)
		if (clients[i])
			any |= memory_stream_report(&clients[i]->memory);
	conn_host_settle(&host);
	return any;
}

/* Every connection is at something, and is counted there. */
static void check_phases(void)
{
	uint64_t expected[PHASE_COUNT] = { 0 }, all = 0;
	for (unsigned i = 0; i < CLIENTS; i++)
		if (clients[i] && !clients[i]->gone)
			expected[clients[i]->conn.phase]++;
	for (int phase = PHASE_NONE + 1; phase < PHASE_COUNT; phase++) {
		assert(count_read(&counters.phases[phase]) == expected[phase]);
		all += expected[phase];
	}
	assert(all <= host.open);
}

void world_run(void)
{
	for (unsigned turns = 0, more = 1; more; turns++) {
		assert(turns < 100000);
		/* What asks for another turn of others is asked again in each poll. */
		for (unsigned polls = 0; polls < 100 && poll_all(); polls++)
			;
		more = conn_host_turn(&host, now_ms);
		more |= conn_host_next_ms(&host) <= now_ms;
		for (unsigned i = 0; i < CLIENTS; i++)
			more |= clients[i] && memory_stream_has_event(&clients[i]->memory);
	}
	check_phases();
}

/* Whatever arrived was handed up, or is counted as discarded, and nothing twice. */
static void check_bytes(void)
{
	uint64_t bytes = count_read(&counters.bytes_in), discarded = count_read(&counters.discarded_bytes);
	assert(bytes == put_total || world_top.ops); /* a layer may make more or fewer of them */
	if (line.empty != CODEC_EMPTY_IGNORE)
		assert(bytes == handed_total + discarded);
}

void world_end(void)
{
	for (unsigned i = 0; i < CLIENTS; i++)
		if (clients[i] && !clients[i]->gone)
			memory_stream_reset(&clients[i]->memory);
	world_run();
	assert(host.open == 0);
	assert(host.ids.count == 0);
	assert(host.pool.lent_bytes == 0);
	assert(!host.attention);
	assert(host.unsettled_count == 0 && host.lingering == 0);
	assert(conn_host_next_ms(&host) == WHEEL_NEVER);
	assert(begun_total == gone_total);
	assert(begun_total == closed_total);
	assert(begun_total == counters_closed(&counters));
	assert(world_frames == count_read(&counters.frames_in));
	check_bytes();
	conn_host_deinit(&host);
	for (unsigned i = 0; i < CLIENTS; i++) {
		if (clients[i]) {
			memory_stream_deinit(&clients[i]->memory);
			free(clients[i]->proxy);
		}
		free(clients[i]);
		clients[i] = NULL;
	}
}
