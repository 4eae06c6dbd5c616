/*
 * A listening socket: bound, then listening, then closed. It knows nothing of
 * connections; the acceptor asks it for descriptors.
 *
 * Threads: the main thread.
 */
#pragma once

#include "config/config.h"
#include "loop/reactor.h"
#include "restart/inherit.h"
#include "server/admission.h"

#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <uv.h>

/* BOUND: it listens, or is about to, and nobody accepts yet. GONE: it is closed, and may have connections. */
enum listener_stage { LISTENER_BOUND, LISTENER_ACCEPTING, LISTENER_GONE };

struct listener {
	const struct listener_config *config;
	enum listener_stage stage;
	uint16_t slot;
	struct config *held; /* whose `config` is, once that is no more what is served; or NULL */
	int fd;              /* -1: closed */
	int *sockets;        /* of UDP, one for each worker, `fd` the first of them; else NULL */
	unsigned socket_count;
	char address[192];       /* what it really got: "tcp://127.0.0.1:40213", "tls://…", "udp://…" */
	struct socket_file file; /* of a Unix socket: no other is removed */
	bool shared;             /* with our predecessor or our successor: the file is not ours to remove */
	/* Who made the socket, as INHERITED_OWN has it: a service manager removes its files itself. */
	char origin[INHERITED_NAME_BYTES];

	/* Admission. `open` counts connections that are or were handed to a worker and are not gone. */
	atomic_uint open;
	struct peer_table *peers; /* NULL: no limit per address */
	struct rate rate;

	/* Of UDP: what workers do with it (datagrams.h). */
	pthread_mutex_t door; /* held while a flow is counted in: for the rate, the split, the log's times */
	struct worker_socket *readers; /* one for each socket: what its worker has of it; NULL: not ready */
	atomic_uint reading;           /* what workers have not done with: theirs of them, orders to end it */
	bool is_read;                  /* they have been given to the workers */

	/* The acceptor's. */
	void *owner;
	struct watched watched;
	uv_timer_t pause; /* running while accepting is suspended */
	bool has_timer;   /* open, or not yet closed */
	_Atomic(uint64_t) refused;
	uint64_t refused_logged_ms, error_logged_ms;
	uint32_t split_due; /* how much of a connection those who share it are owed: see acceptor_split() */
	unsigned faults_in_row; /* of clients, with no accept between */
};

/*
 * Binds. A stale Unix socket (nobody answers) is replaced; a live one, and anything that is no
 * socket, is not. 0, or an error with an explanation in `why`.
 */
int listener_bind(struct listener *listener, const struct listener_config *config, char *why, size_t size);

/* Takes an inherited socket of its address, instead of binding one. It is shared until listener_own(). */
int listener_adopt(struct listener *listener, const struct listener_config *config,
		   struct inherited *inherited, char *why, size_t size);

/* Nobody else serves on it any more. */
void listener_own(struct listener *listener);

/* Somebody else will: its file stays when it is closed. */
void listener_share(struct listener *listener);

/* What a successor is given of it, so many, which are lent until it is closed. */
static inline unsigned listener_count_bequests(const struct listener *listener)
{
	return listener->sockets ? listener->socket_count : 1;
}
unsigned listener_bequeath(const struct listener *listener, struct bequest *to);

/* Starts to listen. 0 or an error, explained. */
int listener_listen(struct listener *listener, char *why, size_t size);

/* Of a Unix socket: is its file gone, or another's in its place, so that no client finds it? */
bool listener_is_lost(const struct listener *listener);

/*
 * Makes the socket anew at its path: `fresh` is bound and listens, and is to be given to listener_take(), or to
 * listener_close(). 0, or an error, explained: then nothing has changed.
 */
int listener_renew(const struct listener *listener, struct listener *fresh, char *why, size_t size);

/* Goes on with that socket, and closes the one so far. */
void listener_take(struct listener *listener, const struct listener *fresh);

/* Goes on with other settings for the same address: backlog and socket options. What waits in the backlog stays. */
void listener_configure(struct listener *listener, const struct listener_config *config);

/*
 * Takes one client: a non-blocking, close-on-exec descriptor (which inherits NODELAY and keep-alive
 * from the listening one), or a negative error. *peer is IPv6, mapped for IPv4; family AF_UNIX for Unix sockets.
 */
int listener_accept(struct listener *listener, struct sockaddr_in6 *peer);

/* Closes the socket; unless it is shared, the address is free at once, and a Unix socket's file removed. Idempotent. */
void listener_close(struct listener *listener);
