/*
 * The stream of stream sockets (TCP, Unix), watched by a poller.
 *
 * Threads: the poller's.
 */
#pragma once

#include "net/poller.h"
#include "stream/stream.h"

struct socket_stream {
	struct stream stream;
	struct polled polled; /* its flags are the stream's, see socket.c */
};

/*
 * Begins a stack, in zeroed memory, and takes over a connected, non-blocking descriptor. `is_local`: it is a Unix
 * socket.
 *
 * A read of TCP takes all there is, and what comes later is a new edge; but not past urgent data, and
 * on a Unix socket not past a message with descriptors or another sender's credentials.
 */
void socket_stream_start(struct socket_stream *socket, struct stream_user *user, struct poller *poller,
			 int fd, bool is_local);
