/* What the files of this folder share. Nobody else includes it. */
#pragma once

#include "base/ticks.h"
#include "conn/conn.h"

#include <uv.h>

enum {
	CONN_LINGER_MS = 1000,          /* how long unread input may keep an ended connection */
	CONN_LINGER_MAX = 256,          /* so many at once, then they are closed without ceremony */
	CONN_CLOSING_WRITE_MS = 10000,  /* write deadline of an ending where timeout.write is off */
	CONN_FRAMES_PER_TURN = 256,     /* then others have their turn */
	CONN_FIRST_BATCH = 4,           /* frames: how long a handler takes is not known yet */
	CONN_DRAIN_PARTIAL_MS = 2000,   /* in a drain a begun frame must be complete by then */
	CONN_WRITE_LATER_BYTES = 32768, /* more is written at once, ... */
	CONN_UNSETTLED_BYTES = 65536, /* ... as is all when it is so much: it should still be in the caches */
	CONN_DRAIN_READS = 200,   /* reads granted to input that arrived before a drain has come to its end */
	CONN_LATE_DRAIN_MS = 500, /* so long after its deadline what has arrived is still served */
	CONN_LATE_READS = 64,     /* reads granted to a deadline, whatever has come meanwhile */
	CONN_HELD_MS = 1000,      /* a poll that ends so much too late: the process was stopped */
	CONN_GRACE_MAX_MS = 5000, /* then no peer times out for as long as it was stopped, but at most this */
	CONN_LOOKS = 8,           /* so often in timeout.idle we look whether a peer takes its output */
	CONN_TAKEN_BYTES = 4096,  /* up to so much output is on its way to an idle peer, too */
};

/*
 * now_ms, or where handlers have taken long since it was set, the clock: what begins now must not begin in the past.
 */
static inline uint64_t host_now(struct conn_host *host)
{
	if (host->clock_ms && ticks_now() - host->clock_ticks > CHANNEL_TICKS_PER_TURN)
		return host->clock_ms(host);
	return host->now_ms;
}

/* input.c */

/* May frames be handed up now? */
bool input_may_deliver(const struct conn *conn);

/* A suspended agent's frames wait in `in` as bytes; both their number and their size are bounded. */
bool input_is_full(const struct conn *conn);

/* Should the stream report readable? */
static inline bool input_wanted(const struct conn *conn)
{
	if (conn->state != CONN_OPEN)
		return conn->state == CONN_LINGER;
	if (conn->first.paused || (conn->choked && !conn->reads_on) || conn->eof || conn->more)
		return false;
	return !conn->first.busy || conn->first.reading || !input_is_full(conn);
}

/* Is a frame begun, and are we waiting for the peer to complete it? */
bool input_partial(const struct conn *conn);

/* Reads once and hands up frames. What read() said. */
ssize_t input_read(struct conn *conn);

/*
 * May the next read find more, after one that said n? A layer may hold input back though it had none for us: it has
 * read part of a record, or its own words.
 */
static inline bool input_goes_on(const struct conn *conn, ssize_t n)
{
	return n > 0 || (n == UV_EAGAIN && conn->layered && stream_has_input(&conn->io));
}

/* Hands up what can be decoded of the input at hand. */
void input_feed(struct conn *conn);

/*
 * How far the input is read that had come by a deadline: it came in time, however late it is read. All zero: nothing is
 * read yet.
 */
struct input_late {
	unsigned reads;
	size_t bytes; /* that were unread after the first of them, and still are */
};

/*
 * Reads once more of what had come and hands it up. False: that was all of it. What comes meanwhile may be read
 * too, but no more than so often: nobody puts a deadline off by sending on.
 */
bool input_read_late(struct conn *conn, struct input_late *late);

/* Reads and discards. What read() said. */
ssize_t input_discard(struct conn *conn);

/* Counts bytes of `in`, or what is unread, as discarded: nobody will be handed them. */
void input_drop(struct conn *conn, size_t n);
void input_drop_unread(struct conn *conn);

/* output.c */

/* Writes what the stream takes. 0, or an error that ends the connection. */
int output_write(struct conn *conn);

/*
 * Sends our end of stream, once: 0, or an error that ends the connection; UV_EAGAIN: it is blocked, and this is to be
 * called again once it can be written.
 */
int output_shut(struct conn *conn);

/* Writes, and tells the layer above what that changed. */
void output_flush(struct conn *conn);

/* deadline.c */

/* Makes sure the wheel wakes us in time. Cheap when nothing became earlier. */
void deadline_arm(struct conn *conn);

/* Handles what is due, and arms the rest. */
void deadline_fire(struct conn *conn);

/* conn.c */

/* The peer's time-outs begin anew: it is the peer's turn now, or will be. */
void conn_begin_wait(struct conn *conn);

/* Brings streams, timers and state in line with what happened. Ends every event. */
void conn_settle(struct conn *conn);

void conn_count_phase(struct conn *conn);

/*
 * The layers of its stream go on with their beginning; where they have come to the end of it, it is open. A handshake
 * takes long, and a thousand may go on in one turn. False: they have taken their time together, and this one is to
 * come again in the next turn.
 */
bool conn_advance_opening(struct conn *conn);

/* It is about to have another state: the host counts it among those in a handshake no longer. */
static inline void conn_leave_opening(struct conn *conn)
{
	conn->host->opening -= conn->state == CONN_OPENING && conn->endpoint->has_handshake;
}

/* Appends the protocol's last word in a channel, 0: in the connection. */
void output_finish(struct conn *conn, uint32_t number, enum close_reason reason);

/* Appends what the peer is to answer. */
void output_ping(struct conn *conn);

/* What was appended may be too much for a peer that does not read. */
void output_appended(struct conn *conn, unsigned frames);

/* Room for n bytes has run out: whoever holds most must go. False: that is this connection, and it is closed. */
bool output_make_room(struct conn *conn, size_t n);

/* further.c */

/* The channel of that number, which begins where there is none; 0: the first. NULL: there is no memory. */
struct channel *further_channel(struct conn *conn, uint32_t number);
uint32_t further_number(const struct channel *channel);

/* What is done elsewhere for a first channel: it was paused, suspended or resumed; it ends; its agent is told. */
void further_changed(struct channel *channel);
void further_close(struct channel *channel, enum close_reason reason, enum close_how how);
void further_shutdown(struct channel *channel);
bool further_is_shut(const struct channel *channel);
bool further_is_busy(const struct conn *conn);
void further_writable(struct conn *conn);
void further_flushed(struct conn *conn);

/* Its peer sends no more in it. */
void further_end_by_peer(struct conn *conn, uint32_t number);

/* Tells the agents of further channels that the peer has ended, and ends the channels that are to end. */
void further_advance(struct conn *conn);

/* Its connection has ended. False: one of them has more to do, in the connection's next turn. */
bool further_tell_end(struct conn *conn);

static inline bool channel_is_first(const struct channel *channel)
{
	return channel == &channel->conn->first;
}

/* protocol.c */

/* Begins the connection's first protocol; ends its last one. */
void protocol_begin(struct conn *conn, const struct protocol *protocol);
void protocol_end(struct conn *conn);

/* Takes up next_protocol, unless that has to wait for the end of a batch, or of a trial. */
void protocol_advance(struct conn *conn);

/* Forgets next_protocol: the connection goes on with the one it speaks. */
void protocol_drop_next(struct conn *conn);

/* end.c */

/* Reading or writing has failed: ends it, or makes conn_lose() of it. */
void conn_fail(struct conn *conn, int err);

/*
 * The peer has gone. What had arrived is handed up in the turns that follow, as far as the agent takes it; then it
 * ends.
 */
void conn_lose(struct conn *conn);

/* What may lead to an end, of one that is not ending yet: a reset, the end of the stream, a drain. */
void end_prepare(struct conn *conn);

/* Our end of the stream, once the output has gone. */
void end_advance_shutdown(struct conn *conn);

/* A connection in CLOSING or LINGER goes as far towards CLOSED as it can. */
void end_advance(struct conn *conn);

/* One that is CLOSED, and has more to do than fits into a turn: its agent is told, then the stream is closed. */
void end_finish(struct conn *conn);

/* host.c */

/* The last thing that happens to a connection: its memory is the carrier's. */
void host_forget(struct conn *conn);

/* Frees buffers by ending whoever holds most, so that `wanting`, one of conn's, can take n more bytes.
 * False: that would be conn itself, or would not help. */
bool host_relieve(struct conn_host *host, struct conn *conn, const struct buf *wanting, size_t n);

/* The memory for buffers is used up, and the connection is the one to go. The log says so once in a while. */
void host_evict(struct conn *conn);
