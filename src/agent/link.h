/*
 * Connections that have to do with each other: conn:link(), conn:pipe().
 *
 * Linked ones end together. Of piped ones the bytes of each are the output of the other, without Lua: both speak raw
 * bytes, one that does not take its output pauses the other, an end of stream is passed on, and when both have passed,
 * or one of them is lost, both end.
 *
 * Who is linked with whom is found by the ids of their channels: who is with nobody pays nothing.
 *
 * Threads: the one that has the agents.
 */
#pragma once

#include "agent/run.h"

/* When one of them ends, the other does, as `how` says. 0 or UV_ENOMEM. */
int link_join(struct agents *agents, struct channel *one, struct channel *other, enum close_how how);

/*
 * Their bytes go to each other from now on. 0; UV_EBUSY: one of them is piped already; UV_ENOMEM: who speaks raw bytes
 * by then has ended.
 */
int link_pipe(struct agents *agents, struct channel *one, struct channel *other);

/* The channel has ended: so do those that it is linked with. Once. */
void link_end(struct agents *agents, struct channel *channel, enum close_reason reason);

/* With the agents. */
void link_free(struct agents *agents);

/* ---- struct conn_handler, of one that is piped ---- */

unsigned pipe_frames(struct channel *channel, const struct batch *batch);
enum eof_answer pipe_eof(struct channel *channel);
void pipe_writable(struct channel *channel);
