/*
 * A listening socket: bound, then listening, then closed. It knows nothing of
 * connections; the acceptor asks it for descriptors.
 *
 * Threads: the main thread.
 */
#pragma once

#include "config/config.h"
#include "server/admission.h"

#include <netinet/in.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <uv.h>

struct listener {
	const struct listener_config *config;
	int fd;                           /* -1: closed */
	char address[192];                /* what it really got: "tcp://127.0.0.1:40213" */
	uint64_t unix_inode, unix_device; /* of the socket file, to remove no other */

	/* Admission. `open` counts connections that are or were handed to a worker and are not gone. */
	atomic_uint open;
	struct peer_table *peers; /* NULL: no limit per address */
	struct rate rate;

	/* The acceptor's. */
	void *owner;
	uv_poll_t poll;
	uv_timer_t pause; /* running while accepting is suspended */
	uint64_t refused, refused_logged_ms, error_logged_ms;
	unsigned faults_in_row; /* of clients, with no accept between */
};

/*
 * Binds. A stale Unix socket (nobody answers) is replaced; a live one, and anything that is no
 * socket, is not. 0, or an error with an explanation in `why`.
 */
int listener_bind(struct listener *listener, const struct listener_config *config, char *why, size_t size);

/* Starts to listen. 0 or an error, explained. */
int listener_listen(struct listener *listener, char *why, size_t size);

/*
 * Takes one client: a non-blocking, close-on-exec descriptor (which inherits NODELAY and keep-alive
 * from the listening one), or a negative error. *peer is IPv6, mapped for IPv4; family AF_UNIX for Unix sockets.
 */
int listener_accept(struct listener *listener, struct sockaddr_in6 *peer);

/* Closes the socket; the address is free at once. Removes a Unix socket's file. Idempotent. */
void listener_close(struct listener *listener);
