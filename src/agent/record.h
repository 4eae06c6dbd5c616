/*
 * Taking down what agents get and send: from here to a tape (record/tape.h), and from that to whoever writes it.
 *
 * A connection is recorded if a tape ran when it began (channel->recorded), and then from its beginning to its end; so
 * whoever asks that first pays one test of a bit for all others. Its frames are handed up one by one, so that each
 * reply stands behind the frame that it is for.
 *
 * Threads: the worker's.
 */
#pragma once

#include "conn/conn.h"
#include "record/tape.h"

struct agents;

/* ---- onto the tape: of connections with channel->recorded, but for the first ---- */

/* The connection begins; if there is a tape that wants it, it is recorded from now on. */
void record_open(struct channel *channel);

/* The first frame of a batch of this codec is about to be handed up. */
void record_in(struct channel *channel, const struct batch *batch);

/* Something was sent: as it is before it is framed, or after a codec in Lua has framed it. */
void record_out(struct channel *channel, const void *data, size_t len);

/* One entry of several parts, TRACE_IN or TRACE_OUT. */
struct record_part {
	const void *data;
	size_t len;
};
void record_parts(struct channel *channel, enum trace_kind kind, const struct record_part *parts, size_t n);

/* What was appended to the output behind `before` bytes, if there is a tape. */
void record_appended(struct channel *channel, const struct buf *out, size_t before);

/* TRACE_EOF; before it the close frame of a WebSocket, as what has come. */
void record_eof(struct channel *channel);

/* TRACE_BAD_FRAME, TRACE_DRAIN. */
void record_note(struct channel *channel, enum trace_kind kind);

void record_close(struct channel *channel, enum close_reason reason);

/* ---- off the tape ---- */

/*
 * Takes all off, as events whose frames have been through the script's record.redact. Runs Lua, so not within a call
 * of it, and while the agents of all entries are still there. What that does to connections is on the tape afterwards.
 */
void record_take(struct tape *tape, void (*take)(void *data, const struct trace_event *event), void *data);
