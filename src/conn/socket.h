/*
 * The transport of real connections: a stream socket, watched by libuv.
 *
 * libuv says when, we read and write ourselves: a uv_poll_t is smaller than a
 * uv_tcp_t, and nothing is copied or queued behind our back.
 */
#pragma once

#include "conn/conn.h"

#include <uv.h>

struct socket_conn {
	struct conn conn; /* first: carriers and connections convert by cast */
	uv_poll_t poll;
};

/*
 * Takes over a connected, non-blocking descriptor (closed on failure) on `loop`, and
 * sets up conn.transport. The caller then calls conn_open(). 0 or an error.
 */
int socket_conn_init(struct socket_conn *socket, uv_loop_t *loop, int fd);
