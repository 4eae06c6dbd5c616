/*
 * The transport of real connections: stream sockets, watched by an epoll set of their own.
 *
 * libuv's loop is for everything else; its descriptor is one of the set. A connection then costs
 * one system call to watch and none to forget (libuv: five), and an event one indirect call. The set
 * is edge-triggered: a level-triggered one asks every socket again, at the next poll, whether it has
 * more. We ask only those that were not read empty.
 *
 * Threads: a poller and its sockets belong to one thread.
 */
#pragma once

#include "conn/conn.h"

#include <stdatomic.h>
#include <uv.h>

struct poller {
	int epoll_fd;
	struct conn_host *host;
	uv_loop_t *loop;
	struct socket_conn *ready;       /* not read empty, or not written full: no edge will tell */
	struct socket_conn *closed;      /* their descriptors are; their memory waits for poller_forget() */
	_Atomic(uint64_t) busy_since_ms; /* for others: since when it has not waited; 0: it waits */
};

struct socket_conn {
	struct conn conn; /* first: carriers and connections convert by cast */
	struct poller *poller;
	struct socket_conn *next_ready, *next_closed;
	int fd;
	bool registered;  /* in the epoll set */
	bool drained;     /* the last read took all there was */
	bool hung_up;     /* the peer's end-of-stream has arrived, behind whatever is unread */
	bool falls_short; /* a read may take less than there is: only EAGAIN says that it is drained */
	bool not_full;    /* a write fell short: only EAGAIN says that it is full */
	bool is_ready;    /* in the poller's list, for either reason */
};

/* `host` and `loop` outlive it. 0 or an error. */
int poller_init(struct poller *poller, struct conn_host *host, uv_loop_t *loop);
void poller_deinit(struct poller *poller);

/*
 * Waits, at most so long (-1: for ever) and no longer than libuv may, and serves what happened: of
 * sockets first, of libuv then. Sets host->now_ms.
 */
void poller_poll(struct poller *poller, int timeout_ms);

/* When the last poll has ended, by the loop's clock; 0: one is waiting. Any thread. */
static inline uint64_t poller_busy_since_ms(const struct poller *poller)
{
	return atomic_load_explicit(&((struct poller *)poller)->busy_since_ms, memory_order_relaxed);
}

/* Reads the clock anew and sets host->now_ms: for host->clock_ms. */
uint64_t poller_read_clock(struct poller *poller);

/* Reports conn_on_closed() for connections that have been closed since the last call. */
void poller_forget(struct poller *poller);

/*
 * Takes over a connected, non-blocking descriptor and sets up conn.transport; conn.peer is set already. The
 * caller then calls conn_open().
 *
 * A read of TCP takes all there is, and what comes later is a new edge; but not past urgent data, and
 * on a Unix socket not past a message with descriptors or another sender's credentials.
 */
void socket_conn_init(struct socket_conn *socket, struct poller *poller, int fd);
