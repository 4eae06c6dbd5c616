/* From replies to written bytes. */
#include "base/err.h"
#include "conn/internal.h"

#include <uv.h>

/* The deadline runs from when output first had to wait, and anew with each progress. */
static void begin_blocked(struct conn *conn)
{
	struct conn_host *host = conn->host;
	conn->write_since_ms = host->clock_ms ? host->clock_ms(host) : host->now_ms;
	conn->unsent = stream_unsent(&conn->io);
}

int output_shut(struct conn *conn)
{
	int err = stream_shutdown(&conn->io);
	if (err == UV_EAGAIN) {
		if (!conn->blocked && conn->state != CONN_LINGER)
			begin_blocked(conn);
		conn->blocked = true;
	}
	conn->shut = err != UV_EAGAIN;
	return err;
}

/* As stream_write(), of what own bytes and pieces follow each other. */
static __attribute__((noinline)) ssize_t write_parts(struct conn *conn)
{
	struct iovec parts[OUTQ_IOV_MAX];
	return stream_writev(&conn->io, parts, outq_parts(&conn->out, parts));
}

/* As stream_write(); what is done with is taken off the output. */
static inline __attribute__((always_inline)) ssize_t write_once(struct conn *conn)
{
	struct conn_host *host = conn->host;
	const struct buf *own = conn->out.bytes;
	ssize_t n =
	    own->pieces ? write_parts(conn) : stream_write(&conn->io, own->data + own->start, buf_len(own));
	if (n <= 0)
		return n;
	count_add(&host->counters->bytes_out, (uint64_t)n);
	outq_consume(&conn->out, &host->pool, (size_t)n);
	conn->untaken = true;
	if (conn->eof_done)
		conn->idle_since_ms = host->now_ms; /* no frame can complete any more, but it listens */
	return n;
}

/* A layer may take a piece at a time, and no event tells that there is room for the next. */
static __attribute__((noinline)) ssize_t write_on(struct conn *conn)
{
	ssize_t n;
	do
		n = write_once(conn);
	while (conn->out.bytes && n > 0);
	return n;
}

int output_write(struct conn *conn)
{
	ssize_t n = write_once(conn), last = n;
	if (conn->out.bytes && conn->layered && n > 0)
		last = write_on(conn);
	if (last < 0 && last != UV_EAGAIN)
		return (int)last;
	bool began = !conn->blocked;
	conn->blocked = conn->out.bytes;
	if (conn->blocked && (n > 0 || began))
		begin_blocked(conn);
	return 0;
}

static bool above_mark(const struct conn *conn)
{
	return outq_len(&conn->out) > conn->endpoint->rules.send_buffer_bytes;
}

/* Whatever is sent next is not lost in the middle of settling. What waits may have to wait on: for that none is due. */
static __attribute__((noinline)) void tell_flushed(struct conn *conn)
{
	bool is_awaited = conn->first.flushing;
	if (is_awaited)
		conn->host->handler->flushed(&conn->first);
	if (conn->first.has_queue)
		conn->host->handler->room(&conn->first);
	if (is_awaited || conn->out.bytes)
		conn_attend(conn);
}

void output_flush(struct conn *conn)
{
	int err = conn->out.bytes && !conn->blocked ? output_write(conn) : 0;
	if (err) {
		conn_fail(conn, err);
		return;
	}
	if (conn->choked && outq_len(&conn->out) <= conn->endpoint->rules.send_buffer_bytes / 2) {
		conn->choked = false;
		conn_begin_wait(conn);
		conn_attend(conn);
		if (conn->state == CONN_OPEN)
			conn->host->handler->writable(&conn->first);
		if (conn->has_further)
			further_writable(conn);
	}
	if (!conn->out.bytes && (conn->first.flushing || conn->first.has_queue) && conn->state == CONN_OPEN)
		tell_flushed(conn);
	if (!conn->out.bytes && conn->has_further)
		further_flushed(conn);
}

/*
 * Past the mark we try the stream before we judge: a reply that it takes at
 * once is no sign of a slow consumer, however large.
 */
static void judge(struct conn *conn)
{
	int err = conn->blocked ? 0 : output_write(conn);
	if (err) {
		conn_fail(conn, err);
		return;
	}
	if (!above_mark(conn))
		return;
	conn->choked = true;
	if (conn->endpoint->rules.slow == SLOW_CLOSE)
		conn_close(conn, REASON_SLOW_CONSUMER, CLOSE_NOW);
}

bool conn_flush_now(struct conn *conn)
{
	int err = conn->out.bytes && !conn->blocked ? output_write(conn) : 0;
	if (err)
		conn_fail(conn, err);
	return !conn->out.bytes && !conn->lost;
}

static bool is_sendable(const struct channel *channel)
{
	const struct conn *conn = channel->conn;
	bool open = conn->state == CONN_OPEN;
	/* Nothing follows the last word of a protocol that has one. */
	if (conn->state == CONN_CLOSING)
		open = conn->how == CLOSE_FLUSH && !(conn->has_finished && conn->protocol->ops->finish);
	bool is_first = channel_is_first(channel);
	return open && !channel->ended && !(is_first ? conn->shut_asked : further_is_shut(channel));
}

static bool is_dropping(const struct conn *conn)
{
	return conn->choked && conn->endpoint->rules.slow == SLOW_DROP;
}

bool output_make_room(struct conn *conn, size_t n)
{
	if (host_relieve(conn->host, conn, conn->out.bytes, n))
		return true;
	host_evict(conn);
	return false;
}

static inline void appended(struct conn *conn, unsigned frames)
{
	count_add(&conn->host->counters->frames_out, frames);
	if (above_mark(conn) && !conn->choked)
		judge(conn);
	if (conn->host->current != conn)
		conn_attend(conn);
}

void output_appended(struct conn *conn, unsigned frames)
{
	appended(conn, frames);
}

/* As protocol_ops.encode(), of what the connection speaks. */
static inline unsigned output_encode(struct channel *channel, const struct reply *replies, unsigned n,
				     int *error)
{
	struct conn *conn = channel->conn;
	const struct protocol *protocol = conn_speaks(conn);
	struct session *session = conn->next_protocol ? NULL : &conn->session;
	struct buf_pool *pool = &conn->host->pool;
	if (__builtin_expect(channel_is_first(channel), 1))
		return protocol->ops->encode(protocol, session, replies, n, pool, &conn->out.bytes, error);
	return protocol->ops->encode_in(protocol, session, further_number(channel), replies, n, pool,
					&conn->out.bytes, error);
}

int channel_send_batch(struct channel *channel, const struct reply *replies, unsigned n, unsigned *sent)
{
	struct conn *conn = channel->conn;
	*sent = 0;
	if (!is_sendable(channel))
		return UV_EPIPE;
	if (is_dropping(conn)) {
		count_add(&conn->host->counters->dropped_frames, n);
		*sent = n;
		return 0;
	}
	int err = 0;
	while (*sent < n) {
		*sent += output_encode(channel, replies + *sent, n - *sent, &err);
		if (err == ERR_BUFFER_LIMIT &&
		    output_make_room(conn, replies[*sent].len + PROTOCOL_OVERHEAD_MAX))
			continue;
		if (err)
			break;
	}
	if (*sent)
		appended(conn, *sent);
	return err == ERR_BUFFER_LIMIT ? UV_EPIPE : err;
}

int channel_send_by(struct channel *channel, channel_append *append, void *data, size_t bytes)
{
	struct conn *conn = channel->conn;
	if (!is_sendable(channel))
		return UV_EPIPE;
	if (is_dropping(conn)) {
		count(&conn->host->counters->dropped_frames);
		return 0;
	}
	int err;
	while ((err = append(data, &conn->session, &conn->host->pool, &conn->out.bytes)) == ERR_BUFFER_LIMIT)
		if (!output_make_room(conn, bytes))
			return UV_EPIPE;
	if (!err)
		appended(conn, 1);
	return err;
}

void output_finish(struct conn *conn, uint32_t number, enum close_reason reason)
{
	const struct protocol *protocol = conn->protocol;
	int err = 0;
	if (!protocol->ops->finish || conn->shut)
		return;
	do
		err = protocol->ops->finish(protocol, &conn->session, number, reason, &conn->host->pool,
					    &conn->out.bytes);
	while (err && output_make_room(conn, PROTOCOL_OVERHEAD_MAX));
	if (!err)
		appended(conn, 0);
}

void output_ping(struct conn *conn)
{
	const struct protocol *protocol = conn->protocol;
	conn->pinged = true;
	while (protocol->ops->ping(protocol, &conn->session, &conn->host->pool, &conn->out.bytes))
		if (!output_make_room(conn, PROTOCOL_OVERHEAD_MAX))
			return;
	appended(conn, 0);
}

int channel_send(struct channel *channel, const void *data, size_t len, bool *below)
{
	struct reply reply = { data, len };
	unsigned sent;
	int err = channel_send_batch(channel, &reply, 1, &sent);
	*below = !channel->conn->choked;
	return err;
}

int channel_share(struct channel *channel, struct shared *shared, uint32_t at, uint32_t len, unsigned frames)
{
	struct conn *conn = channel->conn;
	if (!is_sendable(channel))
		return UV_EPIPE;
	if (is_dropping(conn)) {
		count_add(&conn->host->counters->dropped_frames, frames);
		return 0;
	}
	while (outq_share(&conn->out, &conn->host->pool, shared, at, len))
		if (!output_make_room(conn, len < OUTQ_SHARE_BYTES ? len : 0))
			return UV_EPIPE;
	appended(conn, frames);
	return 0;
}

/* Do bytes that are not in the output have to wait? */
static bool has_to_wait(const struct conn *conn)
{
	return conn->out.bytes || conn->blocked || conn->layered || conn->state != CONN_OPEN;
}

/* The stream has been given bytes that are not in the output: how many it has taken, or an error. */
static ssize_t written_through(struct conn *conn, ssize_t put)
{
	if (put <= 0)
		return put == UV_EAGAIN ? 0 : put;
	count_add(&conn->host->counters->bytes_out, (uint64_t)put);
	conn->untaken = true;
	return put;
}

/* Whoever is sent something is not idle: whether it takes that is for timeout.write to say. */
int channel_pass(struct channel *channel, const void *bytes, size_t n)
{
	struct conn *conn = channel->conn;
	if (!is_sendable(channel))
		return UV_EPIPE;
	conn->idle_since_ms = conn->host->now_ms;
	ssize_t put = has_to_wait(conn) ? 0 : written_through(conn, stream_write(&conn->io, bytes, n));
	if (put < 0) {
		conn_fail(conn, (int)put);
		return UV_EPIPE;
	}
	return (size_t)put < n ? channel_send_raw(channel, (const char *)bytes + put, n - (size_t)put, 0) : 0;
}

int channel_share_now(struct channel *channel, struct shared *shared, unsigned frames)
{
	struct conn *conn = channel->conn;
	ssize_t put = 0;
	if (is_sendable(channel) && !is_dropping(conn) && !has_to_wait(conn))
		put = written_through(conn, stream_write(&conn->io, shared->bytes, shared->len));
	if (put < 0) {
		conn_fail(conn, (int)put);
		return UV_EPIPE;
	}
	if (put < (ssize_t)shared->len)
		return channel_share(channel, shared, (uint32_t)put, shared->len - (uint32_t)put, frames);
	count_add(&conn->host->counters->frames_out, frames);
	return 0;
}

int channel_pass_file(struct channel *channel, int file, uint64_t at, size_t n, size_t *passed)
{
	struct conn *conn = channel->conn;
	*passed = 0;
	if (!is_sendable(channel))
		return UV_EPIPE;
	if (has_to_wait(conn))
		return 0;
	ssize_t put = stream_send_file(&conn->io, file, at, n);
	if (put == UV_EAGAIN || put == UV_ENOTSUP || put == UV_EIO)
		return 0; /* what is wrong with the file is found by who reads it */
	put = written_through(conn, put);
	if (put < 0) {
		conn_fail(conn, (int)put);
		return UV_EPIPE;
	}
	*passed = (size_t)put;
	return 0;
}

int channel_send_raw(struct channel *channel, const void *bytes, size_t n, unsigned frames)
{
	struct conn *conn = channel->conn;
	if (!is_sendable(channel))
		return UV_EPIPE;
	if (is_dropping(conn)) {
		count_add(&conn->host->counters->dropped_frames, frames);
		return 0;
	}
	while (buf_append(&conn->host->pool, &conn->out.bytes, bytes, n))
		if (!output_make_room(conn, n))
			return UV_EPIPE;
	appended(conn, frames);
	return 0;
}
