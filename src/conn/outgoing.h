/*
 * Connections out: those that scripts make. Their state machine is that of all others, on a host of their own, so that
 * they are counted, drained and bounded apart from those of clients.
 *
 * Who carries them (a worker by sockets, an app in memory by queues) says how one is made: struct outgoing_ops. There
 * is no host before the first is: who makes none does not pay for one.
 *
 * Threads: the one that has the connections.
 */
#pragma once

#include "conn/conn.h"
#include "net/dial.h"

struct outgoing;
struct client; /* the layer above: agent/client.h */

/* A connection out, or one that is to be. Its carrier allocates it, zeroed, with what carries its bytes behind it. */
struct outgoing_conn {
	struct conn conn; /* first */
	struct client *client;
};

/* One that is being made. */
struct attempt {
	struct outgoing *outgoing;
	const struct endpoint *endpoint; /* its layers are put on what carries it */
	/*
	 * It is over. `made` is connected, and yet to be opened: outgoing_open(). Else NULL: err, and in words why.
	 * From the loop, never from within a call of this file.
	 */
	void (*done)(struct attempt *attempt, struct outgoing_conn *made, int err, const char *why);
	void *carried; /* the carrier's, while it is under way; NULL: it is not */
};

/* A name whose addresses are asked for. */
struct inquiry {
	struct outgoing *outgoing;
	/* `count` addresses, the best first; none: err. From the loop, as above. */
	void (*done)(struct inquiry *inquiry, int err, const union address *list, unsigned count);
	void *carried;
};

struct outgoing_ops {
	/* Makes outgoing->host. 0 or UV_ENOMEM. */
	int (*begin)(struct outgoing *outgoing);

	/* What `target` points to is the caller's. 0 or an error, and then done() is not called. */
	int (*dial)(struct attempt *attempt, const struct dial_target *target);

	/* done() is not called any more. */
	void (*cancel)(struct attempt *attempt);

	int (*resolve)(struct inquiry *inquiry, const char *name);
	void (*cancel_inquiry)(struct inquiry *inquiry);
};

/* A host's, which leads to it: conn_host.outgoing. */
struct outgoing {
	const struct outgoing_ops *ops;
	struct conn_host *host; /* of the connections; NULL: there has been none */
	uint64_t last_id;
	unsigned number; /* of the thread: whose part of the ids is theirs */
	unsigned max;    /* so many at once, those under way included; 0: any number */
	unsigned count;
};

/* Their ids are of their own, each thread's in the upper half of its part of those of further channels. */
#define CONN_OUTGOING_BIT (UINT64_C(1) << 36)

static inline bool conn_id_is_outgoing(uint64_t id)
{
	return id >= CONN_FURTHER_IDS && (id & CONN_OUTGOING_BIT);
}

static inline uint64_t outgoing_new_id(struct outgoing *outgoing)
{
	return CONN_FURTHER_IDS_OF(outgoing->number) + CONN_OUTGOING_BIT + ++outgoing->last_id;
}

/* Opens one that attempt->done() was given, for these agents. */
static inline void outgoing_open(struct outgoing *outgoing, struct outgoing_conn *made,
				 const struct endpoint *endpoint)
{
	count(&outgoing->host->counters->accepted);
	conn_open(&made->conn, outgoing->host, endpoint, outgoing_new_id(outgoing));
}

/* The host of the connection with that id, or NULL. */
static inline struct conn_host *host_of_id(struct conn_host *host, uint64_t id)
{
	if (!conn_id_is_outgoing(id))
		return host;
	return host->outgoing ? host->outgoing->host : NULL;
}

/* Whose bytes this thread decodes and hands up, or NULL: one host at a time is at it. */
static inline struct conn *host_decoding(const struct conn_host *host)
{
	if (host->decoding || !host->outgoing || !host->outgoing->host)
		return host->decoding;
	return host->outgoing->host->decoding;
}

static inline bool conn_is_outgoing(const struct conn *conn)
{
	return conn_id_is_outgoing(conn->first.id);
}
