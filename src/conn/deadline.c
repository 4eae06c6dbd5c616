/*
 * A connection's deadlines.
 *
 * One wheel node serves them all. Activity only writes a time stamp; the node
 * is moved when a deadline becomes earlier than it stands, and one that fires
 * too early is filed again. So the hot path does not touch the wheel.
 */
#include "base/err.h"
#include "conn/internal.h"

static const enum close_reason REASONS[TIMEOUT_KINDS] = {
	[TIMEOUT_READ] = REASON_READ_TIMEOUT,
	[TIMEOUT_WRITE] = REASON_WRITE_TIMEOUT,
	[TIMEOUT_IDLE] = REASON_IDLE_TIMEOUT,
	/* A peer that never says anything is idle; the log names the deadline. */
	[TIMEOUT_FIRST_FRAME] = REASON_IDLE_TIMEOUT,
};

static uint64_t deadline_after(uint64_t since_ms, uint32_t ms)
{
	return ms ? since_ms + ms : WHEEL_NEVER;
}

/* Is it the peer's turn? A suspended or paused agent makes no peer idle. */
static bool peers_turn(const struct conn *conn)
{
	if (conn->has_further && further_is_busy(conn))
		return false;
	return input_may_deliver(conn) && !conn->more && !conn->eof;
}

/*
 * A peer that half-closed completes no frame any more, and an agent that keeps the connection for its own
 * sake may forget it. So idle goes on from the end of the stream while nothing is under way.
 */
static bool is_kept_idle(const struct conn *conn)
{
	bool kept = conn->eof_done && conn->state == CONN_OPEN && !conn->first.busy && !conn->first.paused;
	return kept && !conn->blocked;
}

static bool may_be_idle(const struct conn *conn)
{
	return peers_turn(conn) || is_kept_idle(conn);
}

/* One that is silent is asked first whether it is there, unless it may not be silent for as long. */
static bool is_to_ping(const struct conn *conn)
{
	const struct timeouts *timeouts = conn->timeouts;
	bool comes_first = timeouts->ping && (!timeouts->idle || timeouts->ping < timeouts->idle);
	return comes_first && !conn->pinged && !conn->eof && conn->protocol->ops->ping &&
	       conn->state == CONN_OPEN;
}

/*
 * A peer that slowly takes what it was sent is not idle either. So some time after output was written, the stream is
 * asked how much of it is unsent; and when timeout.idle has passed, whether that has become less.
 */
static uint64_t idle_deadline(const struct conn *conn)
{
	uint32_t ms = conn->timeouts->idle;
	if (__builtin_expect(conn->timeouts->ping != 0, 0) && is_to_ping(conn))
		return conn->idle_since_ms + conn->timeouts->ping;
	return ms ? conn->idle_since_ms + (conn->untaken ? ms / CONN_LOOKS : ms) : WHEEL_NEVER;
}

static uint64_t write_deadline(const struct conn *conn)
{
	uint32_t ms = conn->timeouts->write;
	if (!ms && conn->state == CONN_CLOSING)
		ms = CONN_CLOSING_WRITE_MS;
	return conn->blocked ? deadline_after(conn->write_since_ms, ms) : WHEEL_NEVER;
}

/* A frame that was begun is no reason to hold up a drain: who sends it may have no intention to end it. */
static uint64_t read_deadline(const struct conn *conn)
{
	uint32_t ms = conn->in_body ? conn->timeouts->body : conn->timeouts->read;
	if (conn->draining && (!ms || ms > CONN_DRAIN_PARTIAL_MS))
		ms = CONN_DRAIN_PARTIAL_MS;
	return deadline_after(conn->read_since_ms, ms);
}

static uint64_t deadline_of(const struct conn *conn, enum timeout_kind kind)
{
	switch (kind) {
	case TIMEOUT_WRITE:
		return write_deadline(conn);
	case TIMEOUT_READ:
		return input_partial(conn) ? read_deadline(conn) : WHEEL_NEVER;
	case TIMEOUT_IDLE:
		return may_be_idle(conn) ? idle_deadline(conn) : WHEEL_NEVER;
	case TIMEOUT_FIRST_FRAME:
		return !conn->framed && peers_turn(conn)
			   ? deadline_after(conn->first_since_ms, conn->timeouts->first_frame)
			   : WHEEL_NEVER;
	case TIMEOUT_KINDS:
		break;
	}
	return WHEEL_NEVER;
}

/* deadline_of() of all kinds, without asking the same question twice: it ends every event. */
static uint64_t deadline_earliest(const struct conn *conn)
{
	if (conn->state == CONN_LINGER)
		return conn->write_since_ms;
	if (conn->state == CONN_OPENING)
		return deadline_after(conn->first_since_ms, conn->timeouts->opening);
	uint64_t first = conn->blocked ? write_deadline(conn) : WHEEL_NEVER, at;
	bool is_peers = peers_turn(conn);
	if (!is_peers && !is_kept_idle(conn))
		return first;
	if ((at = idle_deadline(conn)) < first)
		first = at;
	if (!is_peers)
		return first;
	if (conn->in && (at = read_deadline(conn)) < first)
		first = at;
	if (!conn->framed && (at = deadline_after(conn->first_since_ms, conn->timeouts->first_frame)) < first)
		first = at;
	return first;
}

void deadline_arm(struct conn *conn)
{
	uint64_t at = deadline_earliest(conn);
	if (at == WHEEL_NEVER)
		return;
	if (wheel_armed(&conn->timer) && at >= conn->timer.expires_ms)
		return;
	if (at < conn->host->grace_until_ms && conn->state != CONN_LINGER)
		at = conn->host->grace_until_ms;
	wheel_arm(&conn->host->wheel, &conn->timer, at);
}

static void deadline_keep(struct conn *conn, enum timeout_kind kind)
{
	uint64_t now_ms = host_now(conn->host);
	switch (kind) {
	case TIMEOUT_READ:
		conn->read_since_ms = now_ms;
		break;
	case TIMEOUT_WRITE:
		conn->write_since_ms = now_ms;
		break;
	case TIMEOUT_FIRST_FRAME:
		conn->framed = true; /* asked once; idle watches from here on */
		break;
	case TIMEOUT_IDLE:
	case TIMEOUT_KINDS:
		conn->idle_since_ms = now_ms;
		conn->pinged = false;
		break;
	}
}

/*
 * A stream says "writable" late: a socket only when a third of its buffer is free. So a peer that
 * takes its bytes slowly, but takes them, is recognised by what the stream still holds.
 */
static bool made_progress(struct conn *conn, size_t least)
{
	size_t before = conn->unsent;
	conn->unsent = stream_unsent(&conn->io);
	return before > least && conn->unsent < before;
}

/* Does what its peer takes keep it? A few bytes may just be on their way to one that is idle all the same. */
static bool is_kept(struct conn *conn, enum timeout_kind kind)
{
	uint64_t now_ms = conn->host->now_ms;
	if (kind == TIMEOUT_WRITE && made_progress(conn, 0)) {
		conn->write_since_ms = now_ms;
		return true;
	}
	if (kind != TIMEOUT_IDLE)
		return false;
	if (is_to_ping(conn)) {
		output_ping(conn);
		return true;
	}
	bool is_early = conn->untaken;
	conn->untaken = made_progress(conn, CONN_TAKEN_BYTES);
	if (conn->untaken)
		conn->idle_since_ms = now_ms;
	return is_early || conn->untaken;
}

static void expire(struct conn *conn, enum timeout_kind kind)
{
	if (is_kept(conn, kind))
		return;
	bool drained = kind == TIMEOUT_READ && conn->draining && !conn->drain_kept;
	if (drained) {
		conn_close(conn, REASON_DRAIN, CLOSE_FLUSH);
		return;
	}
	/* A suspended agent cannot be asked: one callback at a time. */
	bool ask = conn->state == CONN_OPEN && !conn->first.busy;
	if (ask && conn->host->handler->timeout(&conn->first, kind)) {
		deadline_keep(conn, kind);
		return;
	}
	conn_close(conn, REASONS[kind], kind == TIMEOUT_WRITE ? CLOSE_NOW : CLOSE_FLUSH);
}

/*
 * Has the time come, and had nothing arrived by then? The worker may have been busy, or stopped: what is there is read
 * before anybody is said to be late.
 */
static bool is_due(struct conn *conn, enum timeout_kind kind)
{
	struct input_late late = { 0 };
	uint64_t now_ms = conn->host->now_ms;
	bool concerns_input = kind != TIMEOUT_WRITE && !(kind == TIMEOUT_IDLE && conn->untaken);
	while (now_ms >= deadline_of(conn, kind))
		if (!concerns_input || !input_read_late(conn, &late))
			return true;
	return false;
}

/* The last words must not be lost to a reset for what the peer had sent in time. */
static void end_linger(struct conn *conn)
{
	unsigned reads = 0;
	while (reads < CONN_LATE_READS && input_goes_on(conn, input_discard(conn)))
		reads++;
	conn->how = CLOSE_NOW;
}

/* What had come in time is looked at first, as it is of those that are open. It may be due again in the next turn. */
static void end_opening(struct conn *conn)
{
	if (!conn_advance_opening(conn) || conn->state != CONN_OPENING)
		return;
	enum close_reason reason = stream_reason_of(&conn->io, ERR_OPENING_LATE);
	conn_close(conn, reason == REASON_NONE ? REASON_IDLE_TIMEOUT : reason, CLOSE_NOW);
}

void deadline_fire(struct conn *conn)
{
	uint64_t now_ms = conn->host->now_ms;
	if (conn->state == CONN_LINGER) {
		if (now_ms >= conn->write_since_ms)
			end_linger(conn);
		return;
	}
	if (now_ms < conn->host->grace_until_ms)
		return;
	if (conn->state == CONN_OPENING) {
		if (now_ms >= deadline_after(conn->first_since_ms, conn->timeouts->opening))
			end_opening(conn);
		return;
	}
	/* Once one has ended the connection, the others have nothing to say. */
	for (int kind = 0; kind < TIMEOUT_KINDS && conn->how == CLOSE_FLUSH; kind++)
		if (is_due(conn, (enum timeout_kind)kind))
			expire(conn, (enum timeout_kind)kind);
}
