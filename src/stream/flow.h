/*
 * Flows: what UDP has for connections. All datagrams that a socket gets from one peer are a flow, which is the lowest
 * stream of a connection; it reads and writes records (net/datagram.h).
 *
 *     socket ── peer's address ──▶ flow ──▶ struct conn
 *
 * A flow begins with the first datagram of a peer that has none, if its owner lets it, and ends with its connection.
 * One of a connection out has a socket of its own from the start, which is connected to its peer.
 * Datagrams that its connection does not take wait with it, so many as its owner says and FLOW_WAITING_BYTES at most;
 * what comes then is dropped and counted, for the socket is shared: nobody waits for another's agent. What flows write
 * is sent together, by flow_host_flush() at the end of each turn.
 *
 * One socket that cannot be written holds up what all others of the thread send: that is rare, and short.
 *
 * Threads: those of one poller.
 */
#pragma once

#include "base/buf.h"
#include "base/counters.h"
#include "net/datagrams.h"
#include "net/poller.h"
#include "stream/stream.h"

#include <netinet/in.h>

enum { FLOW_WAITING_BYTES = 65536 };

struct flow;
struct flow_socket;

/* What flows of one thread share. */
struct flow_host {
	struct poller *poller;
	struct buf_pool *pool; /* where what waits is kept */
	struct counters *counters;
	struct datagrams_in *in;
	int16_t next[DATAGRAMS_MAX]; /* of a message of the batch: the next one of its flow; -1: none */
	int16_t arriving;            /* the message whose peer has no flow yet; -1: none */
	struct flow *touched;        /* a batch has datagrams for them */
	struct flow *again;          /* have datagrams that wait, and want them */
	struct flow *blocked;        /* want to write, and there is no room */
	struct flow *closed;         /* have been, and their users are to be told */
	uint64_t turn,
	    behind_turn; /* the turns are counted: the last in which a flow had more than it may, and read on */
	int batch_max;   /* messages of a batch: fewer where they took long */
	struct flow_socket *sending; /* whose datagrams are in `out` */
	struct datagrams_out out;
};

struct flow_socket_ops {
	/*
	 * A datagram has come from a peer that has no flow. Calls flow_begin(), or does not, and the datagram is dropped.
	 * Of a socket that has only one flow: never.
	 */
	void (*begin)(struct flow_socket *socket, const struct sockaddr_in6 *peer);

	/* It is closed, and nothing leads to it any more. */
	void (*closed)(struct flow_socket *socket);

	/*
	 * Of a socket that has only one flow: what that has sent was refused, as the system says, now or before. From the
	 * loop, and from within what flows write. May be NULL.
	 */
	void (*refused)(struct flow_socket *socket, int err);
};

/* A UDP socket. */
struct flow_socket {
	struct polled polled;
	struct flow_host *host;
	const struct flow_socket_ops *ops;
	struct flow **buckets; /* flows by the hash of their peers; their number is a power of two */
	size_t bucket_count, flow_count;
	uint64_t seed;
	uint32_t lost; /* datagrams that the kernel had no room for, as last told */
	bool is_ipv6;
	struct flow *only;   /* it is connected to this one's peer; NULL: it has the flows in its buckets */
	bool is_ending;      /* begins no more flows, and closes with the last one */
	bool is_handed_over; /* another process reads it */
	bool waits_to_send;  /* it is watched until it can be written */
};

struct flow {
	struct stream stream;       /* first */
	struct flow_socket *socket; /* sends and receives for it */
	struct flow_socket *home;   /* knows it by its peer: the same, until it has one of its own */
	struct flow *next;          /* of its bucket */
	struct flow *next_touched, *next_again, *next_blocked, *next_closed;
	struct sockaddr_in6 peer;
	struct in6_addr local; /* which of our addresses it asks; all zero: the socket's */
	uint32_t max_bytes;    /* of a datagram; larger ones are dropped */
	int16_t message,
	    last;    /* of the batch: the first that is its own and not read, and the last; -1: none */
	uint32_t at; /* how far the first is read */
	struct buf *waiting;                 /* records that came before the batch, */
	uint32_t waiting_count, waiting_max; /* ... and how many; at most so many */
	uint8_t watched;                     /* STREAM_* */
	bool is_touched, is_again, is_blocked, is_closed;
};

/* ---- all of a thread ---- */

/* NULL: no memory. */
struct flow_host *flow_host_new(struct poller *poller, struct buf_pool *pool, struct counters *counters);
void flow_host_free(struct flow_host *host);

/* Sends what flows have written. At the end of each turn, and of what is served in it. */
void flow_host_flush(struct flow_host *host);

/* Tells the users of flows that were closed (stream_events.closed()). When the events of a turn are served. */
void flow_host_forget(struct flow_host *host);

/* ---- sockets ---- */

/*
 * Takes over a descriptor that is bound and does not block, in zeroed memory, and watches it. One that is connected has
 * `only` set before, to a flow that begins next. 0 or an error, and then the descriptor is the caller's.
 */
int flow_socket_open(struct flow_socket *socket, struct flow_host *host, int fd,
		     const struct flow_socket_ops *ops);

/* What has come by now is put to its flows, which begin with it, and waits there. */
void flow_socket_gather(struct flow_socket *socket);

/* No more flows begin. It closes with its last one. */
void flow_socket_end(struct flow_socket *socket);

/* The same, and nothing more is read: another process does. What its flows write still goes out. */
void flow_socket_leave(struct flow_socket *socket);

/*
 * Gives the flow a socket of its own, in zeroed memory, which is bound to the same address and connected to the peer:
 * the kernel prefers it, so another process may read the one that was shared. What that still holds of the flow's comes
 * to it as before. It closes with the flow. 0 or an error: then nothing has changed.
 */
int flow_part(struct flow *flow, struct flow_socket *own);

/* Calls `visit` for each of its flows, which may part. */
void flow_socket_each(struct flow_socket *socket, void (*visit)(void *data, struct flow *flow), void *data);

/* ---- flows ---- */

/*
 * In flow_socket_ops.begin(), or for the socket that has only this one: begins a stack in zeroed memory, for this peer.
 * max_bytes: of a datagram that is read; waiting_max: how many may wait.
 */
void flow_begin(struct flow *flow, struct stream_user *user, struct flow_socket *socket,
		const struct sockaddr_in6 *peer, uint32_t max_bytes, uint32_t waiting_max);
