/*
 * The transport of real connections: stream sockets, watched by a poller.
 *
 * Threads: the poller's.
 */
#pragma once

#include "conn/conn.h"
#include "net/poller.h"

struct socket_conn {
	struct conn conn; /* first: carriers and connections convert by cast */
	struct polled polled;
	bool drained;     /* the last read took all there was */
	bool hung_up;     /* the peer's end-of-stream has arrived, behind whatever is unread */
	bool falls_short; /* a read may take less than there is: only EAGAIN says that it is drained */
	bool not_full;    /* a write fell short: only EAGAIN says that it is full */
};

/*
 * Takes over a connected, non-blocking descriptor and sets up conn.transport; conn.peer is set already. The
 * caller then calls conn_open().
 *
 * A read of TCP takes all there is, and what comes later is a new edge; but not past urgent data, and
 * on a Unix socket not past a message with descriptors or another sender's credentials.
 */
void socket_conn_init(struct socket_conn *socket, struct poller *poller, int fd);
