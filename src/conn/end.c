/*
 * How connections end: the peer's end of stream and ours, a reset, a drain, and what all of them come to.
 *
 * Whatever arrived is handed up, or counted as discarded. Each of these steps is taken in conn_settle().
 */
#include "conn/internal.h"

#include <stdlib.h>
#include <uv.h>

void conn_close(struct conn *conn, enum close_reason reason, enum close_how how)
{
	if (conn->state == CONN_CLOSED)
		return;
	if (conn->reason == REASON_NONE)
		conn->reason = (uint8_t)reason;
	/* One that has not opened yet has nothing to deliver. */
	if (conn->state == CONN_OPENING && how == CLOSE_FLUSH)
		how = CLOSE_NOW;
	if (how > conn->how)
		conn->how = how & 3; /* of two bits */
	conn_leave_opening(conn);
	if (conn->state == CONN_OPEN || conn->state == CONN_OPENING)
		conn->state = CONN_CLOSING;
	if (conn->host->current != conn)
		conn_attend(conn);
}

void channel_close(struct channel *channel, enum close_reason reason, enum close_how how)
{
	if (channel->lone)
		channel->conn->endpoint->lone->close(channel, reason, how);
	else if (channel_is_first(channel))
		conn_close(channel->conn, reason, how);
	else
		further_close(channel, reason, how);
}

void channel_give_way(struct channel *channel)
{
	enum { REST_OF_THIS, ALL_OF_THE_NEXT, TURNS };
	channel->overran = true;
	channel->conn->gives_way = TURNS;
}

/* ---- a reset ---- */

/*
 * A client may say its piece and hang up: frames that came before a reset still count. What is sent goes nowhere any
 * more, so it holds nothing up.
 */
void conn_lose(struct conn *conn)
{
	if (conn->state != CONN_OPEN) {
		conn_close(conn, REASON_RESET, CLOSE_NOW);
		return;
	}
	conn->lost = true;
	conn->choked = conn->blocked = false;
	outq_release(&conn->out, &conn->host->pool);
	conn_attend(conn);
}

/* A socket can fail for want of memory, too, and then the peer has done nothing; and a layer for reasons of its own. */
void conn_fail(struct conn *conn, int err)
{
	enum close_reason reason = stream_reason_of(&conn->io, err);
	if (err == UV_ENOMEM || err == UV_ENOBUFS)
		reason = REASON_MEMORY;
	if (reason != REASON_NONE)
		conn_close(conn, reason, CLOSE_NOW);
	else
		conn_lose(conn);
}

/* One read a turn, as from any other peer, until all is handed up, or the agent takes no more. */
static void advance_lost(struct conn *conn)
{
	bool may = input_may_deliver(conn), is_unfed = conn->more || (conn->in && conn->queued);
	if (may && (is_unfed || (input_wanted(conn) && input_goes_on(conn, input_read(conn)))))
		conn_attend(conn);
	else
		conn_close(conn, REASON_RESET, CLOSE_NOW);
}

/* ---- the end ---- */

/* The agent hears of the end before the stream is gone. False: that goes on in the next turn. */
static bool end_tell_closed(struct conn *conn)
{
	if (conn->has_further && !further_tell_end(conn))
		return false;
	if (conn->first.opened &&
	    !conn->host->handler->closed(&conn->first, (enum close_reason)conn->reason)) {
		conn_attend(conn);
		return false;
	}
	conn->first.opened = false;
	return true;
}

/* What it speaks stays until it is forgotten: who is served in the same poll may still ask for it. */
static void release(struct conn *conn)
{
	buf_release(&conn->host->pool, &conn->in);
	outq_release(&conn->out, &conn->host->pool);
	wheel_disarm(&conn->timer);
	conn_forget_timeouts(conn);
}

/* A peer that sees the end and comes back at once finds its place free. */
static void end_leave(struct conn *conn)
{
	if (conn->has_left)
		return;
	conn->has_left = true;
	if (conn->host->left)
		conn->host->left(conn);
}

/* Its stream stays open while its agents have more to do, and has nothing to tell. */
static void end_unwatch(struct conn *conn)
{
	if (conn->watching)
		stream_watch(&conn->io, 0);
	conn->watching = 0;
}

void end_finish(struct conn *conn)
{
	if (!end_tell_closed(conn)) {
		end_unwatch(conn);
		return;
	}
	end_leave(conn);
	count(&conn->host->counters->closed[conn->reason]);
	input_drop(conn, buf_len(conn->in));
	if (!conn->eof)
		input_drop_unread(conn);
	release(conn);
	if (conn->host->closes)
		conn->host->closes(conn);
	stream_close(&conn->io, conn->how == CLOSE_RESET);
}

static void finish(struct conn *conn)
{
	if (conn->state == CONN_LINGER)
		conn->host->lingering--;
	conn->state = CONN_CLOSED;
	conn_count_phase(conn);
	wheel_disarm(&conn->timer);
	end_finish(conn);
}

/*
 * Closing a socket with unread input resets it, and may take our last words along. So may it where the peer is about to
 * answer them.
 */
static bool must_linger(struct conn *conn)
{
	bool waits = conn->in || conn->protocol->ops->answers_finish || stream_unread(&conn->io);
	return !conn->eof && !conn->lost && conn->host->lingering < CONN_LINGER_MAX &&
	       !conn->endpoint->has_datagrams && waits;
}

static void linger(struct conn *conn)
{
	if (!end_tell_closed(conn))
		return;
	end_leave(conn);
	input_drop(conn, buf_len(conn->in));
	buf_release(&conn->host->pool, &conn->in);
	conn->state = CONN_LINGER;
	conn->host->lingering++;
	conn->write_since_ms = conn->host->now_ms + CONN_LINGER_MS;
}

/* Is our end of stream sent? One that cannot be sent is given up. */
static bool is_shut(struct conn *conn)
{
	int err = conn->shut ? 0 : conn->blocked ? UV_EAGAIN : output_shut(conn);
	if (err && err != UV_EAGAIN)
		conn->how = CLOSE_NOW;
	return conn->shut;
}

/* Is it still the turn of the others? */
static bool gives_way(struct conn *conn)
{
	if (!conn->gives_way)
		return false;
	conn->gives_way--;
	conn_attend(conn);
	return true;
}

/* A layer has a last word of its own, after which nothing can be sent. To a socket, closing is as good. */
static bool has_said_last(struct conn *conn)
{
	conn->shut_asked = true;
	return is_shut(conn) || conn->how != CLOSE_FLUSH;
}

/* The protocol's last word is behind all replies, and once it is said there are none. */
static void end_say_last(struct conn *conn)
{
	conn->has_finished = true;
	if (!conn->lost && conn->protocol->ops->finish) {
		output_finish(conn, 0, (enum close_reason)conn->reason);
		output_flush(conn);
	}
}

void end_advance(struct conn *conn)
{
	if (conn->resets && conn->state == CONN_CLOSING)
		conn->how = CLOSE_RESET;
	if (conn->out.bytes && conn->drain_cuts && conn->how == CLOSE_FLUSH)
		conn_cut(conn, CLOSE_NOW);
	if (conn->state == CONN_CLOSING && conn->how == CLOSE_FLUSH && !conn->has_finished)
		end_say_last(conn);
	if (conn->state == CONN_CLOSING && conn->how == CLOSE_FLUSH) {
		if (conn->out.bytes || gives_way(conn))
			return;
		if (conn->layered && !conn->lost && !has_said_last(conn))
			return;
		if (conn->how == CLOSE_FLUSH && must_linger(conn))
			linger(conn);
		else
			finish(conn);
	}
	if (conn->state == CONN_LINGER && conn->how == CLOSE_FLUSH)
		is_shut(conn);
	if ((conn->state == CONN_CLOSING || conn->state == CONN_LINGER) && conn->how != CLOSE_FLUSH)
		finish(conn);
}

/* ---- half-close, ours and theirs ---- */

void conn_shutdown(struct conn *conn)
{
	conn->shut_asked = true;
	if (conn->host->current != conn)
		conn_attend(conn);
}

void channel_shutdown(struct channel *channel)
{
	if (channel_is_first(channel))
		conn_shutdown(channel->conn);
	else
		further_shutdown(channel);
}

void end_advance_shutdown(struct conn *conn)
{
	if (conn->shut || conn->out.bytes || conn->lost || conn->blocked)
		return;
	int err = output_shut(conn);
	if (err && err != UV_EAGAIN)
		conn_close(conn, REASON_RESET, CLOSE_NOW);
	else if (!err && conn->eof)
		conn_close(conn, REASON_PEER, CLOSE_FLUSH);
}

/* Is there input that has not been fed, though it could be? */
static bool unfed(const struct conn *conn)
{
	return conn->more || (conn->in && (conn->queued || conn->first.paused || conn->choked));
}

/* The peer's end-of-stream comes after all of its frames. Who reads once it has been told meets it again. */
static void advance_eof(struct conn *conn)
{
	if ((conn->eof_done && !conn->first.reading) || unfed(conn))
		return;
	if (conn->stands) {
		conn->eof_done = true;
		conn_close(conn, REASON_PEER, CLOSE_FLUSH);
		return;
	}
	if (conn->eof_later && conn->first.busy && !conn->first.reading)
		return;
	enum eof_answer answer = conn->host->handler->eof(&conn->first);
	conn->eof_later = answer == EOF_LATER;
	conn->eof_done = conn->eof_done || answer != EOF_LATER;
	conn->idle_since_ms = host_now(conn->host);
	if (answer == EOF_LATER && (conn->first.reading || !conn->first.busy))
		conn_attend(conn); /* it is free again, or reads on past the end: ask again, in its turn */
	if (answer == EOF_CLOSE || (answer == EOF_KEEP && conn->shut))
		conn_close(conn, REASON_PEER, CLOSE_FLUSH);
}

/* ---- drain ---- */

void conn_drain(struct conn *conn)
{
	if (conn->draining)
		return;
	conn->draining = true;
	conn->read_since_ms = conn->host->now_ms;
	conn_attend(conn);
}

void conn_end_drain(struct conn *conn, enum close_how how)
{
	if (conn->state != CONN_OPEN) {
		conn_cut(conn, how);
		return;
	}
	conn->draining = conn->drain_over = true;
	conn->drain_cuts = how != CLOSE_FLUSH;
	conn_attend(conn);
}

void conn_cut(struct conn *conn, enum close_how how)
{
	bool has_ended = conn->state == CONN_LINGER || conn->state == CONN_CLOSED;
	if (how != CLOSE_FLUSH && !has_ended)
		count(&conn->host->counters->cut);
	conn_close(conn, REASON_DRAIN, how);
}

void conn_host_drain(struct conn_host *host, uint32_t ms)
{
	if (host->draining)
		return;
	host->draining = true;
	host->drain_deadline_ms = ms ? host->now_ms + ms : WHEEL_NEVER;
	conn_host_each(host, conn_drain);
}

static void end_drain_of(struct conn *conn)
{
	conn_end_drain(conn, CLOSE_NOW);
}

void conn_host_end_drain(struct conn_host *host)
{
	host->overdue = true;
	conn_host_each(host, end_drain_of);
}

static void cut_one(struct conn *conn)
{
	conn_cut(conn, CLOSE_NOW);
}

void conn_host_cut(struct conn_host *host)
{
	conn_host_drain(host, 0);
	host->overdue = true;
	conn_host_each(host, cut_one);
}

/*
 * What had arrived before the drain, or is there when it comes to close, is in flight: it is read and served. False:
 * there may be more of it, for the next turn.
 */
static bool take_what_arrived(struct conn *conn)
{
	uint64_t began = conn->first.handler_ticks;
	while (conn->drain_reads < CONN_DRAIN_READS && input_wanted(conn)) {
		if (channel_turn_is_over(&conn->first, began)) {
			conn_attend(conn);
			return false;
		}
		if (!input_goes_on(conn, input_read(conn)))
			break;
		conn->drain_reads++;
	}
	return true;
}

/* Is something under way that is to come to its end? */
static bool is_in_flight(const struct conn *conn)
{
	return conn->first.busy || conn->has_further || (conn->more && !conn->first.paused) ||
	       (conn->in && !conn->first.paused && !conn->eof);
}

/* The end of the peer's stream comes first. Whose frames have to wait for that is queued once they need not. */
static bool has_eof_to_tell(struct conn *conn)
{
	if (!conn->eof || conn->eof_done || conn->eof_later || (conn->in && conn->first.paused))
		return false;
	if (!conn->in || input_may_deliver(conn))
		conn_attend(conn);
	return true;
}

static void tell_drain(struct conn *conn)
{
	uint64_t now_ms = conn->host->now_ms, end_ms = conn->host->drain_deadline_ms;
	conn->drain_told = true;
	conn->drain_kept = conn->host->handler->drain(&conn->first, end_ms > now_ms ? end_ms - now_ms : 0);
}

/*
 * Its time is over. What has arrived by now came in time: the worker may not have looked before. But who has hundreds
 * of such connections comes to an end, too.
 */
static void finish_drain(struct conn *conn)
{
	uint64_t end_ms = conn->host->drain_deadline_ms, now_ms = host_now(conn->host);
	bool is_late = now_ms > end_ms && now_ms - end_ms >= CONN_LATE_DRAIN_MS;
	if (input_may_deliver(conn) && !is_late) {
		if (!take_what_arrived(conn) || (conn->more && input_may_deliver(conn)))
			return; /* it is queued */
	}
	if (conn->state == CONN_OPEN)
		conn_cut(conn, conn->drain_cuts ? CLOSE_NOW : CLOSE_FLUSH);
}

static void advance_drain(struct conn *conn)
{
	if (conn->stands) {
		conn_close(conn, REASON_DRAIN, CLOSE_FLUSH);
		return;
	}
	if (conn->drain_over) {
		finish_drain(conn);
		return;
	}
	if (conn->drain_kept || (conn->drain_told && is_in_flight(conn)))
		return;
	if (!take_what_arrived(conn) || conn->state != CONN_OPEN || has_eof_to_tell(conn))
		return;
	if (!conn->drain_told && !conn->first.busy && !conn->more)
		tell_drain(conn);
	if (conn->drain_told && !conn->drain_kept && !is_in_flight(conn))
		conn_close(conn, REASON_DRAIN, CLOSE_FLUSH);
}

/* Its beginning may have arrived before the drain, and what it asks for with it. */
static void end_drain_opening(struct conn *conn)
{
	if (!conn_advance_opening(conn))
		conn_attend(conn);
	else if (conn->state == CONN_OPENING)
		conn_close(conn, REASON_DRAIN, CLOSE_NOW);
}

void end_prepare(struct conn *conn)
{
	if (conn->state == CONN_OPENING)
		end_drain_opening(conn);
	if (conn->lost && conn->state == CONN_OPEN)
		advance_lost(conn);
	if (conn->eof && conn->state == CONN_OPEN)
		advance_eof(conn);
	if (conn->draining && conn->state == CONN_OPEN)
		advance_drain(conn);
}
