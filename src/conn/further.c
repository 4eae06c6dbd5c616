/*
 * Channels beside a connection's first: those of a protocol that has several.
 *
 * The protocol numbers them. A message of a number that no channel has begins one. What a channel asks for takes place
 * in conn_settle(), as all that a connection asks for: its last word, closed(), and with that its end.
 */
#include "conn/internal.h"

#include <assert.h>
#include <stdlib.h>

struct further {
	struct channel channel; /* first */
	struct further *next;
	uint32_t number;       /* the protocol's: of its channel */
	uint8_t reason, how;   /* of its end, once one was decided: enum close_reason, enum close_how */
	bool eof : 1;          /* the peer sends no more in it */
	bool eof_done : 1;     /* ... and the agent knows */
	bool shut_asked : 1;   /* the agent sends no more in it */
	bool has_finished : 1; /* ... and the protocol has told the peer */
};

static struct further *further_of(struct channel *channel)
{
	return (struct further *)(void *)channel;
}

static struct further *further_find(const struct conn *conn, uint32_t number)
{
	struct further *each = conn->further;
	while (each && each->number != number)
		each = each->next;
	return each;
}

static struct further *further_begin(struct conn *conn, uint32_t number)
{
	struct conn_host *host = conn->host;
	struct further *further = calloc(1, sizeof *further);
	if (!further || idmap_put(&host->ids, ++host->last_further_id, &further->channel)) {
		free(further);
		conn_close(conn, REASON_MEMORY, CLOSE_NOW);
		return NULL;
	}
	further->number = number;
	further->channel = (struct channel){ .conn = conn,
					     .id = host->last_further_id,
					     .agents = conn->first.agents,
					     .batch_limit = 1,
					     .opened = true };
	further->next = conn->further;
	conn->further = further;
	conn->has_further = true;
	host->handler->opened(&further->channel);
	return further;
}

struct channel *further_channel(struct conn *conn, uint32_t number)
{
	if (!number)
		return &conn->first;
	struct further *further = further_find(conn, number);
	if (!further)
		further = further_begin(conn, number);
	return further ? &further->channel : NULL;
}

/* Its messages wait. Those of one that has ended do not: they are dropped. */
static bool is_held(const struct channel *channel)
{
	return !channel->ended && (channel->paused || (channel->busy && !channel->reading));
}

void further_end_by_peer(struct conn *conn, uint32_t number)
{
	struct further *further = further_find(conn, number);
	if (further)
		further->eof = true;
}

uint32_t further_number(const struct channel *channel)
{
	return ((const struct further *)(const void *)channel)->number;
}

void further_changed(struct channel *channel)
{
	struct conn *conn = channel->conn;
	const struct protocol *protocol = conn->protocol;
	protocol->ops->hold(protocol, &conn->session, further_number(channel), is_held(channel));
	conn_attend(conn);
}

void further_close(struct channel *channel, enum close_reason reason, enum close_how how)
{
	struct further *further = further_of(channel);
	if (!channel->ended)
		further->reason = (uint8_t)reason;
	if (how > further->how)
		further->how = (uint8_t)how;
	channel->ended = true;
	further_changed(channel);
}

void further_shutdown(struct channel *channel)
{
	further_of(channel)->shut_asked = true;
	conn_attend(channel->conn);
}

bool further_is_shut(const struct channel *channel)
{
	return ((const struct further *)(const void *)channel)->shut_asked;
}

/* Is one of them at something? */
bool further_is_busy(const struct conn *conn)
{
	for (const struct further *each = conn->further; each; each = each->next)
		if (each->channel.busy)
			return true;
	return false;
}

/* ---- what takes place while its connection settles ---- */

/* The protocol's last word in it, once. */
static void further_finish(struct further *further)
{
	struct conn *conn = further->channel.conn;
	if (!further->has_finished)
		output_finish(conn, further->number, (enum close_reason)further->reason);
	further->has_finished = true;
}

static void further_tell_eof(struct further *further)
{
	struct channel *channel = &further->channel;
	if (channel->busy && !channel->reading)
		return;
	enum eof_answer answer = channel->conn->host->handler->eof(channel);
	further->eof_done = answer != EOF_LATER;
	if (answer == EOF_LATER)
		conn_attend(channel->conn);
	if (answer == EOF_CLOSE || (answer == EOF_KEEP && further->has_finished))
		further_close(channel, REASON_PEER, CLOSE_FLUSH);
}

/* False: its agent has more to do, in the connection's next turn. */
static bool further_tell_closed(struct further *further)
{
	struct channel *channel = &further->channel;
	struct conn *conn = channel->conn;
	if (!conn->host->handler->closed(channel, (enum close_reason)further->reason)) {
		conn_attend(conn);
		return false;
	}
	channel->opened = false;
	return true;
}

static void further_forget(struct further **at)
{
	struct further *further = *at;
	struct conn *conn = further->channel.conn;
	idmap_remove(&conn->host->ids, further->channel.id);
	*at = further->next;
	conn->has_further = conn->further;
	free(further);
}

static void further_advance_one(struct further *further)
{
	bool is_open = channel_is_open(&further->channel);
	if (further->eof && !further->eof_done && is_open)
		further_tell_eof(further);
	if (further->shut_asked || further->channel.ended)
		further_finish(further);
}

void further_advance(struct conn *conn)
{
	for (struct further **at = &conn->further; *at;) {
		struct further *further = *at;
		further_advance_one(further);
		if (further->channel.ended && further_tell_closed(further))
			further_forget(at);
		else
			at = &further->next;
	}
}

bool further_tell_end(struct conn *conn)
{
	for (struct further **at = &conn->further; *at;) {
		struct further *further = *at;
		if (!further->channel.ended)
			further->reason = conn->reason;
		further->channel.ended = true;
		if (further_tell_closed(further))
			further_forget(at);
		else
			at = &further->next;
	}
	return !conn->has_further;
}

void further_writable(struct conn *conn)
{
	for (struct further *each = conn->further; each; each = each->next)
		if (channel_is_open(&each->channel))
			conn->host->handler->writable(&each->channel);
}

void further_flushed(struct conn *conn)
{
	for (struct further *each = conn->further; each; each = each->next)
		if (channel_is_open(&each->channel) && each->channel.flushing)
			conn->host->handler->flushed(&each->channel);
}
