/*
 * From readable bytes to frames handed up.
 *
 * A read goes to the worker's scratch buffer. What is left of it (a partial frame, frames that wait for a suspended
 * agent) moves to a buffer of the connection's own, from the worker's pool. Frames wait there as bytes: they are
 * counted for limits.inbox, none becomes a string twice, and set_frame still applies to them.
 */
#include "base/err.h"
#include "conn/internal.h"

#include <assert.h>
#include <string.h>
#include <uv.h>

bool input_may_deliver(const struct conn *conn)
{
	const struct channel *channel = &conn->first;
	if (conn->state != CONN_OPEN || (conn->choked && !conn->reads_on))
		return false;
	return (!channel->paused && !channel->busy) || (!channel->paused && channel->reading);
}

bool input_is_full(const struct conn *conn)
{
	const struct protocol *protocol = conn->protocol;
	size_t has = buf_len(conn->in);
	return (protocol->ops->counts && conn->waiting_frames >= conn->endpoint->rules.inbox_frames) ||
	       has >= (size_t)protocol->max_bytes + CONN_SCRATCH_BYTES ||
	       (protocol->ops->ahead && has >= protocol->ops->ahead(protocol, &conn->session));
}

bool input_partial(const struct conn *conn)
{
	return conn->in && !conn->more && !conn->eof && input_may_deliver(conn);
}

/* What is answered without the agent is answered while that is suspended, too. */
static __attribute__((noinline)) void look_ahead(struct conn *conn)
{
	const struct protocol *protocol = conn->protocol;
	const struct buf *in = conn->in;
	while (protocol->ops->look_ahead(protocol, &conn->session, in->data + in->start, buf_len(in),
					 &conn->host->pool, &conn->out.bytes))
		if (!output_make_room(conn, PROTOCOL_OVERHEAD_MAX))
			return;
	output_appended(conn, 0);
}

/*
 * Counts the whole frames that wait while the agent is suspended. It goes on where it had come to: what was counted
 * stays counted until it is handed up, however often the agent suspends.
 */
static void count_waiting(struct conn *conn)
{
	const struct protocol *protocol = conn->protocol;
	struct batch *batch = &conn->host->batch;
	if (conn->in && protocol->ops->look_ahead)
		look_ahead(conn);
	if (!conn->in || !protocol->ops->counts)
		return; /* only its bytes bound what waits */
	while (conn->waiting_frames < conn->endpoint->rules.inbox_frames) {
		const uint8_t *from = conn->in->data + conn->in->start + conn->counted_bytes;
		size_t n = buf_len(conn->in) - conn->counted_bytes;
		struct session ahead = { .scanned = conn->session.counted };
		bool is_ahead = conn->counted_bytes;
		protocol->ops->decode(protocol, from, n, BATCH_MAX, is_ahead ? &ahead : &conn->session,
				      batch);
		if (is_ahead)
			conn->session.counted = ahead.scanned;
		else if (batch->consumed)
			conn->session = (struct session){ .counted = conn->session.scanned };
		conn->waiting_frames += batch->count;
		conn->counted_bytes += (uint32_t)batch->consumed;
		if (batch->count < BATCH_MAX)
			break;
	}
}

/* The first `used` bytes are handed up. Where conn:read() took them in another framing, the count is an estimate. */
static void uncount(struct conn *conn, size_t used, unsigned frames)
{
	if (used < conn->counted_bytes) {
		conn->counted_bytes -= (uint32_t)used;
		conn->waiting_frames -= frames < conn->waiting_frames ? frames : conn->waiting_frames;
		return;
	}
	if (used == conn->counted_bytes && !conn->first.reading &&
	    conn->session.scanned < conn->session.counted)
		conn->session.scanned = conn->session.counted;
	conn->counted_bytes = conn->session.counted = conn->waiting_frames = 0;
}

static unsigned deliver(struct conn *conn, struct batch *batch)
{
	struct conn_host *host = conn->host;
	conn->framed = true;
	conn->idle_since_ms = conn->read_since_ms = host->now_ms;
	unsigned used = host->handler->frames(&conn->first, batch);
	count_add(&host->counters->frames_in, used);
	conn->first.frames_in += used;
	return used;
}

/*
 * An agent that suspends makes decoding ahead a waste; trust returns by doubling. One that takes long gets batches
 * that fit its turn: nobody else is served before a batch has come to its end.
 */
static inline __attribute__((always_inline)) void
fit_batch(struct channel *channel, const struct protocol_ops *by, unsigned used, uint64_t ticks)
{
	uint16_t limit = channel->batch_limit;
	uint64_t turn = channel->conn->host->turn_ticks;
	bool is_suspended = channel->busy && !channel->owed;
	if (is_suspended || channel->conn->choked || !used || channel->recorded)
		channel->batch_limit = 1;
	else if (ticks > turn)
		channel->batch_limit = (uint16_t)(used * turn / ticks + 1);
	else if (limit < BATCH_MAX && ticks < turn / 2 && by->rewinds)
		channel->batch_limit = (uint16_t)(limit < BATCH_MAX / 2 ? limit * 2 : BATCH_MAX);
}

static void input_refuse(struct conn *conn, const struct batch *batch)
{
	conn->host->handler->bad_frame(&conn->first, batch);
	bool too_large = batch->error == ERR_FRAME_TOO_LARGE;
	conn_close(conn, too_large ? REASON_OVERSIZE : REASON_FRAME_ERROR, CLOSE_FLUSH);
}

/*
 * A codec in Lua is code of the user's: after it the connection may have ended, be paused, or have asked for another
 * framing. Messages in the batch came before that, and are handed up as what they are, by what decoded them.
 */
static void input_decode(struct conn *conn, const uint8_t *in, size_t n, unsigned limit)
{
	struct conn_host *host = conn->host;
	const struct protocol *protocol = conn->first.reading ? conn->first.reading : conn->protocol;
	host->decoding = conn;
	host->input = in;
	host->input_bytes = n;
	host->batch.answers = &conn->out.bytes;
	protocol->ops->decode(protocol, in, n, limit, &conn->session, &host->batch);
	host->batch.by = protocol;
}

size_t conn_unused_bytes(const struct conn *conn, unsigned at)
{
	const struct conn_host *host = conn->host;
	if (host->decoding != conn)
		return buf_len(conn->in);
	return at < host->batch.count ? host->input_bytes - host->batch.frames[at].end : host->input_bytes;
}

/* Nobody uses the batch any more, so another protocol may be taken up. */
static void end_batch(struct conn *conn)
{
	conn->host->decoding = NULL;
	if (__builtin_expect(conn->next_protocol != NULL, 0))
		protocol_advance(conn);
}

/* What has been decoded and holds no message; returns how many bytes are done with. */
static size_t feed_nothing(struct conn *conn, const struct batch *batch)
{
	bool later = batch->error == ERR_FRAME_LATER;
	size_t consumed = batch->consumed;
	if (batch->error && !later)
		input_refuse(conn, batch);
	else if (consumed)
		conn->idle_since_ms = conn->host->now_ms; /* frames to be ignored: a keep-alive */
	end_batch(conn);
	return consumed;
}

/*
 * Hands up the batch. Adds how many bytes are done with to *used, and how many messages to *frames. False: some of it
 * are left, or what follows is to be looked at in another way.
 */
static inline __attribute__((always_inline)) bool feed_batch(struct conn *conn, struct batch *batch,
							     size_t *used, unsigned *frames)
{
	/* What decodes one frame for an agent that waits may go with its wait. */
	const struct protocol_ops *by = batch->by->ops;
	const struct protocol *asked = conn->next_protocol; /* by decode(): for what follows */
	struct session session = conn->session;
	bool reading = conn->first.reading;
	unsigned count = batch->count;
	size_t consumed = batch->consumed;
	uint64_t ticks = conn->first.handler_ticks;
	unsigned taken = deliver(conn, batch);
	ticks = conn->first.handler_ticks - ticks;
	fit_batch(&conn->first, by, taken, ticks);
	if (ticks > conn->host->turn_ticks)
		conn_begin_wait(conn); /* its peer has its replies only now */
	*frames += taken;
	bool is_whole = taken == count && !reading && !conn->first.reading && conn->next_protocol == asked;
	if (is_whole || !by->rewinds) {
		*used += consumed;
		conn->session = session;
	} else {
		*used += taken ? batch->frames[taken - 1].end : 0;
		conn->session.scanned = 0;
		/* Those that are left will be decoded again, and with them what has asked for it behind them. */
		if (taken < count && asked && conn->next_protocol == asked)
			protocol_drop_next(conn);
	}
	end_batch(conn);
	return is_whole;
}

/*
 * Hands up the messages of in[0 .. n); returns how many bytes are done with. Part of both its callers: a call would
 * be thirty instructions for each read.
 */
static inline __attribute__((always_inline)) size_t feed(struct conn *conn, const uint8_t *in, size_t n)
{
	struct batch *batch = &conn->host->batch;
	size_t used = 0;
	unsigned frames = 0;
	const struct protocol *protocol = conn->protocol;
	uint64_t began = conn->first.handler_ticks;
	conn->more = false;
	while (used < n && input_may_deliver(conn)) {
		if (frames >= CONN_FRAMES_PER_TURN || channel_turn_is_over(&conn->first, began)) {
			conn->more = true;
			conn_attend(conn);
			break;
		}
		unsigned limit = conn->first.reading ? 1 : conn->first.batch_limit;
		input_decode(conn, in + used, n - used, limit);
		if (!batch->count) {
			bool later = batch->error == ERR_FRAME_LATER;
			used += feed_nothing(conn, batch);
			if (later)
				continue;
			break;
		}
		bool is_last = batch->count < limit && !batch->error;
		if (feed_batch(conn, batch, &used, &frames) && is_last)
			break;
		/* What it speaks now is fed in another way, when its turn comes again. */
		if (__builtin_expect(conn->protocol != protocol, 0) && !conn->protocol->ops->rewinds)
			return used;
	}
	if (conn->counted_bytes)
		uncount(conn, used, frames);
	return used;
}

/* ---- of protocols that do not rewind ---- */

static bool has_kept(const struct conn *conn)
{
	const struct protocol *protocol = conn->protocol;
	return protocol->ops->has_kept && protocol->ops->has_kept(protocol, &conn->session);
}

/* Hands up the one message that there is, to its channel. One that has ended gets none. */
static void deliver_one(struct conn *conn, struct batch *batch)
{
	struct conn_host *host = conn->host;
	struct channel *channel = further_channel(conn, batch->channel);
	conn->framed = true;
	conn->idle_since_ms = conn->read_since_ms = host->now_ms;
	if (!channel || !channel_is_open(channel))
		return;
	/* What was received in pieces is handed up in one. */
	if (batch->consumed < batch->frames[0].len)
		batch->consumed = batch->frames[0].len;
	unsigned used = host->handler->frames(channel, batch);
	assert(used == batch->count);
	count_add(&host->counters->frames_in, used);
	channel->frames_in += used;
}

static void forget_message(struct conn *conn, const struct protocol *by)
{
	if (conn->protocol == by)
		by->ops->taken(by, &conn->session);
}

/* What decode() has found: a message, or what is wrong; and perhaps the end of a channel. */
static void take_one(struct conn *conn, struct batch *batch)
{
	uint32_t number = batch->channel;
	bool ends = batch->ends;
	output_appended(conn, 0);
	const struct protocol *by = batch->by;
	bool forgets = batch->count && by->ops->taken; /* `by` may go with the wait of an agent that reads */
	if (batch->count)
		deliver_one(conn, batch);
	else if (batch->error == ERR_BUFFER_LIMIT)
		host_evict(conn);
	else if (batch->error)
		input_refuse(conn, batch);
	if (forgets)
		forget_message(conn, by);
	if (ends && number)
		further_end_by_peer(conn, number);
	else if (ends)
		conn->eof = true;
	end_batch(conn);
}

/* decode(), and again while others can give it the room that it wants. */
static void decode_one(struct conn *conn, const uint8_t *in, size_t n)
{
	struct conn_host *host = conn->host;
	struct batch *batch = &host->batch;
	input_decode(conn, in, n, 1);
	while (batch->error == ERR_BUFFER_LIMIT && batch->announced &&
	       host_relieve(host, conn, NULL, (size_t)batch->announced)) {
		size_t consumed = batch->consumed;
		input_decode(conn, in + consumed, n - consumed, 1);
		batch->consumed += consumed;
	}
}

/*
 * How far the next message has come. What has begun is waited for by timeout.read, from its first byte on; a body by
 * timeout.body, from its last one.
 */
static void note_begun(struct conn *conn, const struct batch *batch)
{
	bool is_body = batch->begun == BATCH_BODY_BEGUN;
	uint64_t now_ms = conn->host->now_ms;
	if ((is_body && (batch->has_come_on || !conn->in_body)) ||
	    (batch->begun && (!conn->begun || batch->begins_anew)))
		conn->read_since_ms = now_ms;
	if (batch->begun || batch->has_come_on)
		conn->idle_since_ms =
		    now_ms; /* it is not between two of them, or has shown that it is there */
	conn->in_body = is_body;
	conn->begun = batch->begun;
	conn->pinged = false;
}

/* feed() message by message; what its protocol keeps comes without another byte. */
static __attribute__((noinline)) size_t feed_session(struct conn *conn, const uint8_t *in, size_t n)
{
	struct batch *batch = &conn->host->batch;
	const struct protocol *protocol = conn->protocol;
	uint64_t began = ticks_now();
	unsigned frames = 0;
	size_t used = 0;
	conn->more = false;
	batch->begun = BATCH_NOTHING_BEGUN;
	while (conn->protocol == protocol && input_may_deliver(conn) && (used < n || has_kept(conn))) {
		if (frames++ >= CONN_FRAMES_PER_TURN || ticks_now() - began > conn->host->turn_ticks) {
			conn->more = true;
			conn_attend(conn);
			break;
		}
		batch->channel = 0;
		batch->ends = batch->has_come_on = batch->begins_anew = false;
		batch->begun = BATCH_NOTHING_BEGUN;
		decode_one(conn, in + used, n - used);
		note_begun(conn, batch);
		size_t consumed = batch->consumed;
		bool goes_on = consumed || batch->count || batch->ends;
		used += consumed;
		take_one(conn, batch);
		if (!goes_on)
			break;
	}
	return used;
}

/* Bytes that nobody will look at any more are not kept. */
static bool keep_rest(const struct conn *conn)
{
	return conn->state == CONN_OPEN;
}

void input_drop(struct conn *conn, size_t n)
{
	count_add(&conn->host->counters->discarded_bytes, n);
}

/* Those who were never read have been received all the same. */
void input_drop_unread(struct conn *conn)
{
	size_t n = stream_unread(&conn->io);
	count_add(&conn->host->counters->bytes_in, n);
	input_drop(conn, n);
}

/*
 * The session has taken all that has come of a message. It is begun all the same: an empty buffer says so, to time-outs
 * and to a drain, until it has come to its end.
 */
static void keep_place(struct conn *conn)
{
	struct conn_host *host = conn->host;
	if (conn->in && !buf_len(conn->in) && !conn->begun)
		buf_release(&host->pool, &conn->in);
	if (conn->in || !host->batch.begun || !keep_rest(conn))
		return;
	while (!buf_reserve(&host->pool, &conn->in, 1)) {
		if (!host_relieve(host, conn, conn->in, 1)) {
			host_evict(conn);
			return;
		}
	}
}

static void feed_scratch(struct conn *conn, size_t n)
{
	struct conn_host *host = conn->host;
	bool rewinds = conn->protocol->ops->rewinds;
	size_t used = rewinds ? feed(conn, host->scratch, n) : feed_session(conn, host->scratch, n);
	if (used == n) {
		if (!rewinds)
			keep_place(conn);
		return;
	}
	if (!keep_rest(conn)) {
		input_drop(conn, n - used);
		return;
	}
	conn->read_since_ms = host->now_ms;
	while (buf_append(&host->pool, &conn->in, host->scratch + used, n - used)) {
		if (!host_relieve(host, conn, conn->in, n - used)) {
			input_drop(conn, n - used);
			host_evict(conn);
			return;
		}
	}
	if (conn->first.busy && !conn->first.reading)
		count_waiting(conn);
}

static __attribute__((noinline)) size_t feed_kept(struct conn *conn)
{
	const uint8_t *in = conn->in ? conn->in->data + conn->in->start : conn->host->scratch;
	return feed_session(conn, in, buf_len(conn->in));
}

void input_feed(struct conn *conn)
{
	bool rewinds = conn->protocol->ops->rewinds;
	if (!conn->in && rewinds)
		return;
	if (conn->first.busy && !conn->first.reading) {
		count_waiting(conn);
		return;
	}
	size_t used =
	    rewinds ? feed(conn, conn->in->data + conn->in->start, buf_len(conn->in)) : feed_kept(conn);
	if (used)
		buf_consume(&conn->host->pool, &conn->in, used);
	if (!rewinds)
		keep_place(conn);
	if (conn->in && !keep_rest(conn)) {
		input_drop(conn, buf_len(conn->in));
		buf_release(&conn->host->pool, &conn->in);
	}
	if (conn->in && conn->first.busy && !conn->first.reading)
		count_waiting(conn);
}

/* Room grows with what was received: at most as much again, never what was announced. */
static uint8_t *tail_room(struct conn *conn)
{
	struct conn_host *host = conn->host;
	size_t len = buf_len(conn->in), want = BUF_MIN_BYTES / 4;
	if (buf_room(conn->in) < want)
		want = len > want ? len : want;
	if (conn->endpoint->has_datagrams && stream_unread(&conn->io) > want)
		want = stream_unread(&conn->io); /* the next one comes whole, or not at all */
	if (want > CONN_SCRATCH_BYTES)
		want = CONN_SCRATCH_BYTES;
	uint8_t *tail;
	while (!(tail = buf_reserve(&host->pool, &conn->in, want)))
		if (!host_relieve(host, conn, conn->in, want))
			return NULL;
	return tail;
}

ssize_t input_read(struct conn *conn)
{
	struct conn_host *host = conn->host;
	ssize_t n;
	if (!buf_len(conn->in)) { /* one that is empty only keeps the place: what comes is the session's */
		n = stream_read(&conn->io, host->scratch, CONN_SCRATCH_BYTES);
		if (n > 0)
			feed_scratch(conn, (size_t)n);
	} else {
		uint8_t *tail = tail_room(conn);
		if (!tail) {
			host_evict(conn);
			return UV_ENOMEM;
		}
		n = stream_read(&conn->io, tail, buf_room(conn->in));
		if (n > 0) {
			buf_commit(conn->in, (size_t)n);
			input_feed(conn);
		}
	}
	if (n > 0)
		count_add(&host->counters->bytes_in, (uint64_t)n);
	else if (n == 0)
		conn->eof = true;
	else if (n != UV_EAGAIN)
		conn_fail(conn, (int)n);
	return n;
}

bool input_read_late(struct conn *conn, struct input_late *late)
{
	if (!input_wanted(conn) || (late->reads >= CONN_LATE_READS && !late->bytes))
		return false;
	ssize_t n = input_read(conn);
	if (!input_goes_on(conn, n))
		return false;
	size_t taken = n > 0 ? (size_t)n : 1;
	if (!late->reads++)
		late->bytes = stream_unread(&conn->io);
	else
		late->bytes -= taken < late->bytes ? taken : late->bytes;
	return true;
}

ssize_t input_discard(struct conn *conn)
{
	ssize_t n = stream_read(&conn->io, conn->host->scratch, CONN_SCRATCH_BYTES);
	if (n > 0) {
		count_add(&conn->host->counters->bytes_in, (uint64_t)n);
		input_drop(conn, (size_t)n);
	}
	return n;
}
