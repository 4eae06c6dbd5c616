/*
 * From a host and a port, or the path of a Unix socket, to a connected socket: a stream, or a UDP socket that sends to
 * one peer and hears nobody else.
 *
 * IPv6 and IPv4 race (RFC 8305, "Happy Eyeballs"): both are asked for at once. An attempt begins some time after the
 * one before it, or as soon as one fails. The first that connects wins, the others are closed. For a UDP socket
 * nobody has to answer: the first address that a way leads to wins at once. There is no deadline in here: the caller
 * has it, and cancels.
 *
 * Threads: the poller's.
 */
#pragma once

#include "net/address.h"
#include "net/poller.h"
#include "net/resolver.h"

/* One of each thread. */
struct dialer {
	struct poller *poller;
	struct resolver *resolver;                /* NULL: nobody has asked for a host yet */
	const struct resolver_settings *settings; /* of the resolver; NULL: those of the machine */
	uint32_t attempt_ms, resolution_ms;       /* the delays of RFC 8305, section 8 */
	unsigned count;                           /* of what is under way */
};

/* `settings` are read with the first host. */
void dialer_init(struct dialer *dialer, struct poller *poller, const struct resolver_settings *settings);

/* Nothing is under way any more. The memory is freed by poller_forget() and the loop's next turn. */
void dialer_deinit(struct dialer *dialer);

/* ---- connecting ---- */

/* Whom to connect to. Read by dial_begin() only. */
struct dial_target {
	bool is_local;    /* a Unix socket */
	bool is_datagram; /* UDP */
	const char *host; /* a name, or an address as text: "127.0.0.1", "::1", "fe80::1%eth0" */
	uint16_t port;
	const char *path;                    /* of the Unix socket; with '@' in front it is abstract */
	const struct sockaddr_storage *from; /* the local address, its port may be 0; NULL: any */
};

struct dial;

/*
 * fd >= 0: connected, non-blocking, closed on exec, in no epoll set, and the caller's. Else -1 and `err`; of several
 * errors the last of those that tell most. `why` says what was tried, until it returns:
 * "db.example:6379: connection refused (127.0.0.1:6379), …"; NULL without an error. The dial is gone.
 */
typedef void (*dial_done)(void *data, int fd, int err, const char *why);

/* `done` is called once, by the poller's loop, never from within here. NULL: no memory. */
struct dial *dial_begin(struct dialer *dialer, const struct dial_target *target, dial_done done, void *data);

/* Before `done` is called. It will not be. */
void dial_cancel(struct dial *dial);

/* ---- only resolving ---- */

struct dialer_query;

/* All addresses, in the order in which they would be tried, with ports 0; or none, and an error of resolver_done. */
typedef void (*dialer_resolved)(void *data, int err, const union address *list, unsigned count);

/*
 * `family`: AF_INET, AF_INET6, or AF_UNSPEC for both. `done` is called once, by the poller's loop, never from within
 * here, and the query is gone then. NULL: no memory.
 */
struct dialer_query *dialer_resolve(struct dialer *dialer, const char *name, int family, dialer_resolved done,
				    void *data);

/* Before `done` is called. It will not be. */
void dialer_resolve_cancel(struct dialer_query *query);

/* ---- within net ---- */

/* NULL: no memory. */
struct resolver *dialer_resolver(struct dialer *dialer);
