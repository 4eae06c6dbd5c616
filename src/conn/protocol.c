/* What a connection speaks: its protocol, and another one from the next message on. */
#include "conn/internal.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

static void end_session(struct conn *conn)
{
	const struct protocol *protocol = conn->protocol;
	assert(!conn->has_further);
	if (protocol->ops->end)
		protocol->ops->end(protocol, &conn->session);
	conn->session = (struct session){ 0 };
	conn->counted_bytes = conn->waiting_frames = 0;
}

static void begin_session(struct conn *conn)
{
	const struct protocol *protocol = conn->protocol;
	if (protocol->ops->begin && protocol->ops->begin(protocol, &conn->session))
		conn_close(conn, REASON_MEMORY, CLOSE_NOW);
	if (!protocol->ops->rewinds)
		conn->first.batch_limit = 1;
}

static void drop_protocol(struct conn *conn)
{
	if (conn->own_protocol)
		free((void *)conn->protocol);
	conn->own_protocol = false;
}

void protocol_drop_next(struct conn *conn)
{
	if (conn->own_next)
		free((void *)conn->next_protocol);
	conn->own_next = false;
	conn->next_protocol = NULL;
}

void protocol_begin(struct conn *conn, const struct protocol *protocol)
{
	conn->protocol = protocol;
	begin_session(conn);
}

void protocol_end(struct conn *conn)
{
	end_session(conn);
	protocol_drop_next(conn);
	drop_protocol(conn);
}

void protocol_advance(struct conn *conn)
{
	if (conn->trial || conn->host->decoding == conn)
		return;
	const struct protocol_ops *ops = conn->protocol->ops;
	bool keeps_session = ops == conn->next_protocol->ops && ops->keeps_session;
	if (!keeps_session)
		end_session(conn);
	drop_protocol(conn);
	conn->protocol = conn->next_protocol;
	conn->own_protocol = conn->own_next;
	conn->next_protocol = NULL;
	conn->own_next = false;
	if (!keeps_session)
		begin_session(conn);
}

int conn_set_protocol(struct conn *conn, const struct protocol *protocol, size_t own_bytes)
{
	if (conn->has_further)
		return UV_EBUSY;
	void *own = own_bytes ? malloc(own_bytes) : NULL;
	if (own_bytes && !own)
		return UV_ENOMEM;
	protocol_drop_next(conn);
	if (!own && protocol == conn->protocol)
		return 0;
	conn->next_protocol = own ? memcpy(own, protocol, own_bytes) : protocol;
	conn->own_next = own;
	protocol_advance(conn);
	conn_attend(conn);
	return 0;
}

int conn_change(struct conn *conn, const struct endpoint *endpoint, const struct protocol *protocol,
		size_t own_bytes)
{
	assert(!conn->trial);
	if (conn->host->decoding == conn) {
		conn->host->decoding = NULL;
		/* What a fault would show is not there any more. */
		conn->host->batch.frames[0] = (struct frame){ 0 };
	}
	conn->begun = conn->in_body = conn->pinged = false;
	/* What was told to the agent before, or asked by it, is nothing to the one that comes. */
	conn->drain_told = conn->drain_kept = false;
	conn->eof_done = conn->eof_later = false;
	conn->eof_reads = 0;
	conn->first.paused = false;
	conn->endpoint = endpoint;
	conn_forget_timeouts(conn);
	conn->timeouts = &endpoint->rules.timeouts;
	return conn_set_protocol(conn, protocol, own_bytes);
}

/* ---- what can be taken back ---- */

struct conn_mark conn_mark(struct conn *conn)
{
	assert(conn->state == CONN_OPEN && !conn->trial);
	struct conn_mark mark = { .next_protocol = conn->next_protocol,
				  .timeouts = *conn->timeouts,
				  .had_own_next = conn->own_next,
				  .had_own_timeouts = conn->own_timeouts,
				  .was_paused = conn->first.paused,
				  .was_shut_asked = conn->shut_asked };
	conn->trial = true;
	conn->own_next = false; /* whatever takes its place does not free it */
	conn->next_protocol = NULL;
	return mark;
}

/* The trial is over: what it has decided about the protocol takes place. */
static void end_trial(struct conn *conn)
{
	conn->trial = false;
	if (conn->next_protocol)
		protocol_advance(conn);
}

void conn_keep(struct conn *conn, const struct conn_mark *mark)
{
	if (conn->next_protocol == mark->next_protocol)
		conn->own_next = mark->had_own_next;
	else if (mark->had_own_next)
		free((void *)mark->next_protocol);
	end_trial(conn);
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
	conn->timeouts = &conn->endpoint->rules.timeouts;
}

void conn_restore(struct conn *conn, const struct conn_mark *mark)
{
	protocol_drop_next(conn);
	conn->next_protocol = mark->next_protocol;
	conn->own_next = mark->had_own_next;
	restore_timeouts(conn, mark);
	conn->first.paused = mark->was_paused;
	conn->shut_asked = mark->was_shut_asked;
	/* An end that was asked for takes place when the event is over. */
	conn->state = CONN_OPEN;
	conn->reason = REASON_NONE;
	conn->how = CLOSE_FLUSH;
	end_trial(conn);
	conn_attend(conn);
}
