/*
 * UDP listeners: one socket for each worker, all of one address, and the kernel leads each peer to one of them.
 *
 * Threads: the main thread, but for datagrams_begin_flow() and datagrams_socket_closed().
 */
#pragma once

#include "server/listener.h"
#include "worker/worker.h"

struct acceptor;

/* ---- sockets ---- */

/* Makes all sockets of a listener, bound to this address. 0 or an error. */
int datagrams_open(struct listener *listener, const struct sockaddr *address, socklen_t bytes);

/*
 * The listener has taken the first of those that were inherited: takes all others of its address, which may be more
 * than there are workers, and makes what is still missing. 0, or an error with an explanation in `why`.
 */
int datagrams_adopt(struct listener *listener, struct inheritance *inheritance, const struct inherited *first,
		    char *why, size_t size);

/* Closes what is the main thread's; workers have duplicates. */
void datagrams_close(struct listener *listener);

/* ---- workers ---- */

/* Before datagrams_start(): what may fail for want of memory. 0 or an error. */
int datagrams_ready(struct listener *listener);

/* Gives each worker its socket. */
void datagrams_start(struct listener *listener, struct worker *workers);

/*
 * The workers begin no more flows. `handing`, or NULL: another process is to read on (worker/flows.h), and it is counted
 * up for each socket that has yet to be handed over. Once.
 */
void datagrams_end(struct listener *listener, atomic_uint *handing);

/* Has every worker done with its socket? Then the listener may be freed: datagrams_free(). */
bool datagrams_are_over(const struct listener *listener);
void datagrams_free(struct listener *listener);

/* As worker_links has it. Any thread. */
bool datagrams_begin_flow(struct acceptor *acceptor, uint16_t slot, const struct listener_config *config,
			  const struct sockaddr_in6 *peer, struct admission *admission);
void datagrams_socket_closed(struct acceptor *acceptor, uint16_t slot);
