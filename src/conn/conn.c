/* The state machine; see conn.h for the picture. */
#include "conn/internal.h"
#include "conn/transport.h"

#include <assert.h>
#include <stdlib.h>
#include <uv.h>

/* ---- codecs of its own ---- */

/* A codec that was replaced lives to the end of the event: a batch may have been decoded with it. */
struct own_codec {
	struct codec codec;
	struct own_codec *older;
};

static void free_codecs(struct own_codec *own)
{
	while (own) {
		struct own_codec *older = own->older;
		free(own);
		own = older;
	}
}

static void take_codec(struct conn *conn, const struct codec *codec)
{
	conn->codec = codec;
	conn_forget_scanned(conn);
	conn_attend(conn);
}

int conn_set_codec(struct conn *conn, const struct codec *codec)
{
	/* No batch is of the newest one yet: a handler may change its mind as often as it likes. */
	if (conn->fresh_codec) {
		conn->own_codecs->codec = *codec;
		take_codec(conn, &conn->own_codecs->codec);
		return 0;
	}
	struct own_codec *own = malloc(sizeof *own);
	if (!own)
		return UV_ENOMEM;
	own->codec = *codec;
	own->older = conn->own_codecs;
	conn->own_codecs = own;
	conn->fresh_codec = true;
	take_codec(conn, &own->codec);
	return 0;
}

void conn_share_codec(struct conn *conn, const struct codec *codec)
{
	if (conn->codec == codec)
		return;
	if (conn->fresh_codec) {
		struct own_codec *unused = conn->own_codecs;
		conn->own_codecs = unused->older;
		conn->fresh_codec = false;
		free(unused);
	}
	take_codec(conn, codec);
}

static void drop_newer_codecs(struct conn *conn, const struct own_codec *newest)
{
	while (conn->own_codecs != newest) {
		struct own_codec *own = conn->own_codecs;
		conn->own_codecs = own->older;
		free(own);
	}
}

/* Those that a batch may still have been of. */
static void retire_codecs(struct conn *conn)
{
	struct own_codec *own = conn->own_codecs;
	if (!own)
		return;
	struct own_codec **past = conn->codec == &own->codec ? &own->older : &conn->own_codecs;
	free_codecs(*past);
	*past = NULL;
}

/* ---- the end ---- */

void conn_close(struct conn *conn, enum close_reason reason, enum close_how how)
{
	if (conn->state == CONN_CLOSED)
		return;
	if (conn->reason == REASON_NONE)
		conn->reason = (uint8_t)reason;
	if (how > conn->how)
		conn->how = (uint8_t)how;
	if (conn->state == CONN_OPEN)
		conn->state = CONN_CLOSING;
	if (conn->host->current != conn)
		conn_attend(conn);
}

void conn_give_way(struct conn *conn)
{
	enum { REST_OF_THIS, ALL_OF_THE_NEXT, TURNS };
	conn->overran = true;
	conn->gives_way = TURNS;
}

/* A socket can fail for want of memory, too, and then the peer has done nothing. */
void conn_fail(struct conn *conn, int err)
{
	bool memory = err == UV_ENOMEM || err == UV_ENOBUFS;
	conn_close(conn, memory ? REASON_MEMORY : REASON_RESET, CLOSE_NOW);
}

/* The agent hears of the end before the transport is gone. */
static void tell_closed(struct conn *conn)
{
	if (!conn->opened)
		return;
	conn->opened = false;
	conn->host->handler->closed(conn, (enum close_reason)conn->reason);
}

static void release(struct conn *conn)
{
	buf_release(&conn->host->pool, &conn->in);
	buf_release(&conn->host->pool, &conn->out);
	wheel_disarm(&conn->timer);
	if (conn->own_timeouts)
		free((void *)conn->timeouts);
	free_codecs(conn->own_codecs);
	conn->own_codecs = NULL;
	conn->own_timeouts = false;
	conn->timeouts = &conn->rules->timeouts;
}

/* A peer that sees the end and comes back at once finds its place free. */
static void leave(struct conn *conn)
{
	if (conn->has_left)
		return;
	conn->has_left = true;
	if (conn->host->left)
		conn->host->left(conn);
}

/* ---- what it is at ---- */

static enum conn_phase phase_of(const struct conn *conn)
{
	if (conn->state != CONN_OPEN)
		return conn->state == CONN_CLOSED ? PHASE_NONE : PHASE_CLOSING;
	if (conn->busy)
		return PHASE_SUSPENDED;
	if (conn->choked)
		return PHASE_CHOKED;
	if (conn->paused)
		return PHASE_PAUSED;
	return conn->draining ? PHASE_DRAINING : PHASE_OPEN;
}

static void count_phase(struct conn *conn)
{
	enum conn_phase phase = phase_of(conn);
	if (phase == conn->phase)
		return;
	counter *phases = conn->host->counters->phases;
	count_add(&phases[conn->phase], (uint64_t)-1);
	count(&phases[phase]);
	conn->phase = (uint8_t)phase;
}

static void finish(struct conn *conn)
{
	if (conn->state == CONN_LINGER)
		conn->host->lingering--;
	conn->state = CONN_CLOSED;
	count_phase(conn);
	tell_closed(conn);
	leave(conn);
	count(&conn->host->counters->closed[conn->reason]);
	release(conn);
	if (conn->host->closes)
		conn->host->closes(conn);
	conn->transport->close(conn, conn->how == CLOSE_RESET);
}

/* Closing a socket with unread input resets it, and may take our last words along. */
static bool must_linger(struct conn *conn)
{
	return !conn->eof && !conn->lost && conn->host->lingering < CONN_LINGER_MAX &&
	       (conn->in || conn->transport->has_unread(conn));
}

static void linger(struct conn *conn)
{
	tell_closed(conn);
	leave(conn);
	buf_release(&conn->host->pool, &conn->in);
	conn->state = CONN_LINGER;
	conn->host->lingering++;
	conn->write_since_ms = conn->host->now_ms + CONN_LINGER_MS;
	if (!conn->shut && conn->transport->shutdown(conn))
		conn->how = CLOSE_NOW;
	conn->shut = true;
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

static void advance_end(struct conn *conn)
{
	if (conn->state == CONN_CLOSING && conn->how == CLOSE_FLUSH) {
		if (conn->out || gives_way(conn))
			return;
		if (must_linger(conn))
			linger(conn);
		else
			finish(conn);
	}
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

static void advance_shutdown(struct conn *conn)
{
	if (!conn->shut_asked || conn->shut || conn->out)
		return;
	conn->shut = true;
	if (conn->transport->shutdown(conn))
		conn_close(conn, REASON_RESET, CLOSE_NOW);
	else if (conn->eof)
		conn_close(conn, REASON_PEER, CLOSE_FLUSH);
}

/* Is there input that has not been fed, though it could be? */
static bool unfed(const struct conn *conn)
{
	return conn->more || (conn->in && (conn->queued || conn->paused || conn->choked));
}

/* The peer's end-of-stream comes after all of its frames. Who reads once it has been told meets it again. */
static void advance_eof(struct conn *conn)
{
	if (!conn->eof || (conn->eof_done && !conn->reading) || unfed(conn))
		return;
	if (conn->eof_later && conn->busy && !conn->reading)
		return;
	enum eof_answer answer = conn->host->handler->eof(conn);
	conn->eof_later = answer == EOF_LATER;
	conn->eof_done = conn->eof_done || answer != EOF_LATER;
	conn->idle_since_ms = conn->host->now_ms;
	if (answer == EOF_LATER && (conn->reading || !conn->busy))
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

/* What arrived before the drain is in flight: it is read and served. */
static void read_what_arrived(struct conn *conn)
{
	for (int i = 0; i < CONN_DRAIN_READS && input_wanted(conn); i++)
		if (input_read(conn) <= 0)
			break;
}

static void advance_drain(struct conn *conn)
{
	if (!conn->draining || conn->drain_kept)
		return;
	if (!conn->drain_told) {
		read_what_arrived(conn);
		if (conn->eof && !conn->eof_done && !conn->eof_later && !(conn->in && conn->paused)) {
			/* The end of its stream comes first; who is choked is queued once it is not. */
			if (!(conn->in && conn->choked))
				conn_attend(conn);
			return;
		}
		if (conn->state != CONN_OPEN || conn->busy || conn->more)
			return;
		conn->drain_told = true;
		uint64_t now_ms = conn->host->now_ms, end_ms = conn->host->drain_deadline_ms;
		conn->drain_kept = conn->host->handler->drain(conn, end_ms > now_ms ? end_ms - now_ms : 0);
	}
	bool in_flight =
	    conn->busy || (conn->more && !conn->paused) || (conn->in && !conn->paused && !conn->eof);
	if (!conn->drain_kept && !in_flight)
		conn_close(conn, REASON_DRAIN, CLOSE_FLUSH);
}

/* ---- every event ends here ---- */

static void watch(struct conn *conn)
{
	unsigned events = (input_wanted(conn) ? WATCH_READ : 0u) | (conn->blocked ? WATCH_WRITE : 0u);
	if (events == conn->watching)
		return;
	conn->watching = (uint8_t)events;
	if (conn->transport->watch(conn, events))
		conn_close(conn, REASON_MEMORY, CLOSE_NOW);
}

static void settle(struct conn *conn)
{
	retire_codecs(conn);
	if (conn->state == CONN_OPEN)
		advance_eof(conn);
	if (conn->state == CONN_OPEN)
		advance_drain(conn);
	output_flush(conn);
	if (conn->state == CONN_OPEN)
		advance_shutdown(conn);
	if (conn->state == CONN_CLOSING || conn->state == CONN_LINGER)
		advance_end(conn);
	if (conn->state == CONN_CLOSED)
		return;
	watch(conn);
	if (conn->how != CLOSE_FLUSH) /* watching failed */
		advance_end(conn);
	else
		deadline_arm(conn);
}

void conn_settle(struct conn *conn)
{
	if (conn->state == CONN_CLOSED)
		return;
	settle(conn);
	count_phase(conn);
}

/* ---- events ---- */

/*
 * Small output waits for the other events of this poll. Writing after writing, as reading after
 * reading, finds the kernel's code in the caches; and one peer is awake when the next is written to,
 * so most writes need not wake anybody. It is a seventh of what 16 small frames cost.
 */
static bool may_settle_later(const struct conn *conn)
{
	return conn->out && !conn->blocked && conn->state == CONN_OPEN &&
	       buf_len(conn->out) <= CONN_WRITE_LATER_BYTES;
}

static void settle_later(struct conn *conn)
{
	struct conn_host *host = conn->host;
	host->unsettled[host->unsettled_count++] = conn;
	host->unsettled_bytes += buf_len(conn->out);
	if (host->unsettled_count == CONN_UNSETTLED_MAX || host->unsettled_bytes >= CONN_UNSETTLED_BYTES)
		conn_host_settle(host);
}

void conn_on_readable(struct conn *conn)
{
	conn->host->current = conn;
	if (conn->state == CONN_LINGER) {
		if (input_discard(conn))
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

void conn_on_writable(struct conn *conn)
{
	conn->host->current = conn;
	conn->blocked = false;
	conn_settle(conn);
	conn->host->current = NULL;
}

/* Frames that came before a reset still count: a client may say its piece and hang up. */
void conn_on_broken(struct conn *conn)
{
	conn->host->current = conn;
	while (input_wanted(conn) && conn->state == CONN_OPEN && input_read(conn) > 0)
		;
	conn->lost = true;
	conn_close(conn, REASON_RESET, CLOSE_NOW);
	conn_settle(conn);
	conn->host->current = NULL;
}

void conn_on_closed(struct conn *conn)
{
	assert(conn->state == CONN_CLOSED);
	conn->gone = true;
	if (!conn->queued)
		host_forget(conn);
}

/* ---- the beginning ---- */

void conn_open(struct conn *conn, struct conn_host *host, const struct conn_rules *rules,
	       const struct codec *codec, uint64_t id)
{
	conn->host = host;
	conn->rules = rules;
	conn->timeouts = &rules->timeouts;
	conn->codec = codec;
	conn->id = id;
	conn->idle_since_ms = conn->first_since_ms = host->now_ms;
	conn->batch_limit = CONN_FIRST_BATCH;
	conn->watching = UINT8_MAX;
	conn->opened = true;
	host->open++;
	host->current = conn;
	if (idmap_put(&host->ids, id, conn))
		conn_close(conn, REASON_MEMORY, CLOSE_NOW);
	else
		host->handler->opened(conn);
	conn_settle(conn);
	host->current = NULL;
}

/* ---- state changes from above ---- */

static void changed(struct conn *conn)
{
	if (conn->host->current != conn)
		conn_attend(conn);
}

/* It is the peer's turn again, or will be: what it is given time for begins anew. */
static void peer_may_begin(struct conn *conn)
{
	conn->idle_since_ms = conn->first_since_ms = conn->read_since_ms = conn->host->now_ms;
}

void conn_pause(struct conn *conn)
{
	conn->paused = true;
	changed(conn);
}

void conn_resume(struct conn *conn)
{
	if (!conn->paused)
		return;
	conn->paused = false;
	peer_may_begin(conn);
	conn_attend(conn); /* even when current: frames at hand must be fed again */
}

void conn_set_busy(struct conn *conn, bool busy)
{
	conn->busy = busy;
	conn->scanned = 0; /* conn->reading may have changed with it, and is a framing of its own */
	peer_may_begin(conn);
	if ((conn->in && !busy) || (conn->reading && (conn->in || conn->eof)))
		conn_attend(conn);
	changed(conn);
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

/* ---- taking back ---- */

struct conn_mark conn_mark(struct conn *conn)
{
	assert(conn->state == CONN_OPEN);
	struct conn_mark mark = { .newest = conn->own_codecs,
				  .codec = conn->codec,
				  .timeouts = *conn->timeouts,
				  .was_fresh = conn->fresh_codec,
				  .had_own_timeouts = conn->own_timeouts,
				  .was_paused = conn->paused,
				  .was_shut_asked = conn->shut_asked };
	conn->fresh_codec = false; /* neither replaced nor freed */
	return mark;
}

void conn_keep(struct conn *conn, const struct conn_mark *mark)
{
	if (conn->codec == mark->codec)
		conn->fresh_codec = mark->was_fresh;
}

static void restore_timeouts(struct conn *conn, const struct conn_mark *mark)
{
	if (!conn->own_timeouts)
		return;
	struct timeouts *own = (struct timeouts *)conn->timeouts;
	if (mark->had_own_timeouts) {
		*own = mark->timeouts;
		return;
	}
	free(own);
	conn->own_timeouts = false;
	conn->timeouts = &conn->rules->timeouts;
}

void conn_restore(struct conn *conn, const struct conn_mark *mark)
{
	drop_newer_codecs(conn, mark->newest);
	conn->fresh_codec = mark->was_fresh;
	take_codec(conn, mark->codec);
	restore_timeouts(conn, mark);
	conn->paused = mark->was_paused;
	conn->shut_asked = mark->was_shut_asked;
	/* An end that was asked for takes place when the event is over. */
	conn->state = CONN_OPEN;
	conn->reason = REASON_NONE;
	conn->how = CLOSE_FLUSH;
}
