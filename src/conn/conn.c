/* The state machine; see conn.h for the picture. */
#include "conn/internal.h"
#include "net/networks.h"

#include <assert.h>
#include <stdlib.h>
#include <uv.h>

/* ---- phases ---- */

static enum conn_phase phase_of(const struct conn *conn)
{
	if (conn->state == CONN_CLOSED)
		return PHASE_NONE;
	if (conn->state == CONN_OPENING)
		return PHASE_OPENING;
	if (conn->state != CONN_OPEN)
		return PHASE_CLOSING;
	if (conn->first.busy)
		return PHASE_SUSPENDED;
	if (conn->choked)
		return PHASE_CHOKED;
	if (conn->first.paused)
		return PHASE_PAUSED;
	return conn->draining ? PHASE_DRAINING : PHASE_OPEN;
}

void conn_count_phase(struct conn *conn)
{
	enum conn_phase phase = phase_of(conn);
	if (phase == conn->phase)
		return;
	counter *phases = conn->host->counters->phases;
	count_add(&phases[conn->phase], (uint64_t)-1);
	count(&phases[phase]);
	conn->phase = (uint8_t)phase;
}

/* ---- every event ends here ---- */

/* For what the lowest stream has to be ready. What layers wait for while they open is theirs to say. */
static __attribute__((noinline)) unsigned layers_need(struct conn *conn, unsigned wanted)
{
	if (conn->state == CONN_OPENING)
		wanted = STREAM_READ | STREAM_WRITE;
	else if ((wanted & STREAM_READ) && stream_has_input(&conn->io))
		stream_again(&conn->io); /* no event will tell */
	return stream_needs(&conn->io, wanted);
}

static void conn_watch(struct conn *conn)
{
	/* One that is lost is read turn by turn, and has nothing more to tell. */
	bool reads = input_wanted(conn) && !conn->lost;
	unsigned events = (reads ? STREAM_READ : 0u) | (conn->blocked ? STREAM_WRITE : 0u);
	conn->wanted = (uint8_t)events;
	if (conn->layered)
		events = layers_need(conn, events);
	if (events == conn->watching)
		return;
	conn->watching = (uint8_t)events;
	if (stream_watch(&conn->io, events))
		conn_close(conn, REASON_MEMORY, CLOSE_NOW);
}

static void settle(struct conn *conn)
{
	if (conn->eof || conn->draining || conn->lost)
		end_prepare(conn);
	if (__builtin_expect(conn->has_further, 0))
		further_advance(conn);
	output_flush(conn);
	if (conn->state == CONN_OPEN && conn->shut_asked)
		end_advance_shutdown(conn);
	if (conn->state == CONN_CLOSING || conn->state == CONN_LINGER)
		end_advance(conn);
	if (conn->state == CONN_CLOSED)
		return;
	conn_watch(conn);
	if (conn->how != CLOSE_FLUSH) /* watching failed */
		end_advance(conn);
	else
		deadline_arm(conn);
}

void conn_settle(struct conn *conn)
{
	if (conn->state == CONN_CLOSED) {
		if (conn->first.opened)
			end_finish(conn);
		return;
	}
	settle(conn);
	conn_count_phase(conn);
}

/* ---- events ---- */

/*
 * Small output waits for the other events of this poll. Writing after writing, as reading after
 * reading, finds the kernel's code in the caches; and one peer is awake when the next is written to,
 * so most writes need not wake anybody. It is a seventh of what 16 small frames cost; to read all
 * before any is answered would save no more.
 */
static bool may_settle_later(const struct conn *conn)
{
	return conn->out.bytes && !conn->blocked && conn->state == CONN_OPEN &&
	       outq_len(&conn->out) <= CONN_WRITE_LATER_BYTES;
}

static void settle_later(struct conn *conn)
{
	struct conn_host *host = conn->host;
	host->unsettled[host->unsettled_count++] = conn;
	host->unsettled_bytes += outq_len(&conn->out);
	if (host->unsettled_count == CONN_UNSETTLED_MAX || host->unsettled_bytes >= CONN_UNSETTLED_BYTES)
		conn_host_settle(host);
}

static void conn_on_readable(struct conn *conn)
{
	conn->host->current = conn;
	if (conn->state == CONN_LINGER) {
		ssize_t n = input_discard(conn);
		if (n <= 0 && n != UV_EAGAIN)
			conn->how = CLOSE_NOW;
	} else if (input_wanted(conn)) {
		input_read(conn);
	}
	if (may_settle_later(conn)) {
		conn->host->current = NULL;
		settle_later(conn);
		return;
	}
	conn_settle(conn);
	conn->host->current = NULL;
}

static void conn_on_writable(struct conn *conn)
{
	conn->host->current = conn;
	if (conn->blocked)
		conn->idle_since_ms = conn->host->now_ms; /* it has made room by taking what it was sent */
	conn->blocked = false;
	conn_settle(conn);
	conn->host->current = NULL;
}

/* What had come before it went may be all that it was to say. Where it has yet to open, reading meets the end again. */
static void on_broken(struct conn *conn)
{
	conn->host->current = conn;
	if (conn->state == CONN_OPENING && !conn_advance_opening(conn)) {
		stream_again(&conn->io);
	} else {
		conn_lose(conn);
		conn_settle(conn);
	}
	conn->host->current = NULL;
}

static void conn_begin(struct conn *conn)
{
	conn->host->handler->opened(&conn->first);
	conn_begin_wait(conn);
}

/*
 * Nothing but what layers know is asked for: its own peer is the lowest stream's. It may be known before all have
 * opened: who has too many connections is to have no handshake.
 */
static void meet_peer(struct conn *conn, bool has_opened)
{
	struct sockaddr_in6 peer;
	int err = stream_peer_address(&conn->io, &peer);
	if (!err)
		conn->peer = peer;
	if ((!err || (has_opened && err != UV_EADDRNOTAVAIL)) && conn->host->admit)
		conn->host->admit(conn);
}

void conn_refuse(struct conn *conn, const char *limit, const char *words, size_t bytes)
{
	conn->host->handler->refused(&conn->first, REASON_LIMIT, limit);
	conn->has_finished = true;
	if (words && conn->state == CONN_OPEN)
		channel_send_raw(&conn->first, words, bytes, 0);
	conn_close(conn, REASON_LIMIT, CLOSE_FLUSH);
}

static void advance_opening(struct conn *conn)
{
	int err = stream_open(&conn->io);
	if (!err) {
		conn_leave_opening(conn);
		conn->state = CONN_OPEN;
		count(&conn->host->counters->handshakes);
	}
	meet_peer(conn, !err);
	if (err && err != UV_EAGAIN && conn->state == CONN_OPENING)
		conn_fail(conn, err);
	else if (conn->state == CONN_OPEN)
		conn_begin(conn);
}

bool conn_advance_opening(struct conn *conn)
{
	struct conn_host *host = conn->host;
	if (host->opening_ticks > host_stage_ticks(host))
		return false;
	uint64_t began = ticks_now();
	advance_opening(conn);
	host->opening_ticks += ticks_now() - began;
	return true;
}

static void on_opening(struct conn *conn)
{
	conn->host->current = conn;
	if (conn_advance_opening(conn))
		conn_settle(conn);
	else
		stream_again(&conn->io);
	conn->host->current = NULL;
}

void conn_read_late(struct conn *conn)
{
	struct input_late late = { 0 };
	uint64_t frames = conn->first.frames_in;
	conn->host->current = conn;
	if (input_may_deliver(conn))
		input_feed(conn);
	while (conn->first.reading && conn->first.frames_in == frames && input_read_late(conn, &late))
		;
	conn_settle(conn);
	conn->host->current = NULL;
}

static struct conn *conn_of_io(struct stream_user *io)
{
	return (struct conn *)(void *)((char *)io - offsetof(struct conn, io));
}

/* The event lets neither reading nor writing go on. Its layers may need another one now: settling asks for that. */
static void on_nothing(struct conn *conn)
{
	conn->host->current = conn;
	conn_settle(conn);
	conn->host->current = NULL;
}

/* Which of what is wanted can go on? A layer has its own idea of which event lets it. */
static __attribute__((noinline)) unsigned layers_serve(struct conn *conn, unsigned events)
{
	const struct stream_user *io = &conn->io;
	if (conn->state == CONN_OPENING) {
		on_opening(conn);
		return 0;
	}
	bool writes = events & stream_needs(io, STREAM_WRITE);
	bool reads = (events & stream_needs(io, STREAM_READ)) || stream_has_input(io);
	unsigned served = conn->wanted & ((writes ? STREAM_WRITE : 0u) | (reads ? STREAM_READ : 0u));
	if (!served)
		on_nothing(conn);
	return served;
}

static void conn_on_ready(struct stream_user *io, unsigned events)
{
	struct conn *conn = conn_of_io(io);
	if (events & STREAM_BROKEN) {
		on_broken(conn);
		return;
	}
	events = conn->layered ? layers_serve(conn, events) : events & conn->wanted;
	if (events & STREAM_WRITE)
		conn_on_writable(conn);
	if ((events & STREAM_READ) && conn->state != CONN_CLOSED) /* writing may have ended it */
		conn_on_readable(conn);
}

static void conn_on_closed(struct stream_user *io)
{
	struct conn *conn = conn_of_io(io);
	assert(conn->state == CONN_CLOSED);
	conn->gone = true;
	if (!conn->queued)
		host_forget(conn);
}

static const struct stream_events EVENTS = { conn_on_ready, conn_on_closed };

/* ---- the beginning ---- */

/* Before a byte of it is read. */
static void refuse_stranger(struct conn *conn)
{
	const char *why = "not in `trust`: if this is a proxy of yours, add its address there";
	conn->host->handler->refused(&conn->first, REASON_PROXY, why);
	conn_close(conn, REASON_PROXY, CLOSE_NOW);
}

static bool is_stranger(const struct conn *conn)
{
	const struct networks *trust = conn->endpoint->trust;
	return conn->layered && trust && !networks_have(trust, &conn->peer);
}

void conn_open(struct conn *conn, struct conn_host *host, const struct endpoint *endpoint, uint64_t id)
{
	conn->io.events = &EVENTS;
	conn->host = host;
	conn->endpoint = endpoint;
	conn->timeouts = &endpoint->rules.timeouts;
	conn->first.conn = conn;
	conn->first.id = id;
	conn->idle_since_ms = conn->first_since_ms = host->now_ms;
	conn->first.batch_limit = CONN_FIRST_BATCH;
	conn->watching = UINT8_MAX;
	conn->first.opened = true;
	conn->layered = stream_is_layered(&conn->io);
	conn->state = conn->layered && stream_begins(&conn->io) ? CONN_OPENING : CONN_OPEN;
	host->open++;
	host->current = conn;
	protocol_begin(conn, endpoint->protocol);
	host->opening += conn->state == CONN_OPENING && endpoint->has_handshake;
	if (idmap_put(&host->ids, id, &conn->first))
		conn_close(conn, REASON_MEMORY, CLOSE_NOW);
	else if (conn->state == CONN_OPEN)
		conn_begin(conn);
	else if (is_stranger(conn))
		refuse_stranger(conn);
	else if (endpoint->has_handshake && host->opening_max && host->opening > host->opening_max)
		conn_refuse(conn, "handshakes", NULL, 0);
	conn_settle(conn);
	host->current = NULL;
	if (host->overdue)
		conn_end_drain(conn, CLOSE_NOW);
	else if (host->draining)
		conn_drain(conn);
}

/* ---- state changes from above ---- */

static void changed(struct conn *conn)
{
	if (conn->host->current != conn)
		conn_attend(conn);
}

void conn_begin_wait(struct conn *conn)
{
	conn->idle_since_ms = conn->first_since_ms = conn->read_since_ms = host_now(conn->host);
}

/* It takes messages now and did not before, or the other way round. */
static void channel_changed(struct channel *channel)
{
	if (channel_is_first(channel))
		changed(channel->conn);
	else
		further_changed(channel);
}

void channel_pause(struct channel *channel)
{
	channel->paused = true;
	channel_changed(channel);
}

void channel_resume(struct channel *channel)
{
	if (!channel->paused)
		return;
	channel->paused = false;
	conn_begin_wait(channel->conn);
	conn_attend(channel->conn); /* even when current: frames at hand must be fed again */
	channel_changed(channel);
}

void channel_set_busy(struct channel *channel, bool busy)
{
	struct conn *conn = channel->conn;
	if (channel->lone) {
		channel->busy = busy;
		conn->endpoint->lone->changed(channel);
		return;
	}
	assert(!channel->reading || channel->reading == conn->protocol ||
	       channel->reading->ops->rewinds == conn->protocol->ops->rewinds);
	channel->busy = busy;
	/* channel->reading may have changed with it, and is a framing of its own */
	if (conn->protocol->ops->rewinds)
		conn->session.scanned = 0;
	conn_begin_wait(conn);
	if ((conn->in && !busy) || (channel->reading && (conn->in || conn->eof)))
		conn_attend(conn);
	channel_changed(channel);
}

static uint32_t *timeout_field(struct timeouts *timeouts, enum timeout_kind kind)
{
	switch (kind) {
	case TIMEOUT_READ:
		return &timeouts->read;
	case TIMEOUT_WRITE:
		return &timeouts->write;
	case TIMEOUT_IDLE:
		return &timeouts->idle;
	default:
		return &timeouts->first_frame;
	}
}

void conn_forget_timeouts(struct conn *conn)
{
	if (!conn->own_timeouts)
		return;
	free((void *)conn->timeouts);
	conn->own_timeouts = false;
	conn->timeouts = &conn->endpoint->rules.timeouts;
	changed(conn);
}

int conn_set_timeout(struct conn *conn, enum timeout_kind kind, uint32_t ms)
{
	if (!conn->own_timeouts) {
		struct timeouts *own = malloc(sizeof *own);
		if (!own)
			return UV_ENOMEM;
		*own = *conn->timeouts;
		conn->timeouts = own;
		conn->own_timeouts = true;
	}
	*timeout_field((struct timeouts *)conn->timeouts, kind) = ms;
	changed(conn);
	return 0;
}
