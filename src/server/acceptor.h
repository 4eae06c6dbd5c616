/*
 * Takes clients from the listeners, decides who may come in, and hands them to
 * the least loaded worker.
 *
 * Threads: the main thread, but for acceptor_left(), acceptor_closes() and acceptor_gone().
 */
#pragma once

#include "base/counters.h"
#include "server/balance.h"
#include "server/listeners.h"
#include "worker/worker.h"

struct acceptor {
	struct reactor *reactor;
	uv_loop_t *loop; /* the same one's */
	struct listeners *listeners;
	struct worker *workers;
	unsigned worker_count;
	struct balance balance;
	_Atomic(uint64_t) next_id;
	unsigned descriptor_budget;    /* connections that RLIMIT_NOFILE leaves room for */
	struct watched gate;           /* closed: UDP sockets may be read; fd -1: there is none */
	atomic_uint handing;           /* UDP sockets that workers have yet to leave to another process */
	atomic_uint open;              /* over all listeners */
	atomic_uint descriptors;       /* of connections: fewer than `open` while some wait to be forgotten */
	atomic_uint split_share;       /* of new connections, for the candidate, in billionths; 0: none */
	_Atomic(uint64_t) split_conns; /* it has been given since acceptor_split() */
	struct counters counters;      /* accepted, refused */
};

void acceptor_init(struct acceptor *acceptor, struct reactor *reactor, struct listeners *listeners,
		   struct worker *workers, unsigned worker_count);

/*
 * Begins to accept; the listeners of `config` are bound and workers ready. Derives how many connections the descriptor
 * limit leaves room for (raising the soft limit to the hard one), and says so when that is less than
 * the script asks for. `gate`: datagrams are read once that is closed at its other end, see INHERITED_GATE; it is the
 * acceptor's. -1: at once. 0 or an error.
 */
int acceptor_start(struct acceptor *acceptor, const struct config *config, int gate);

/*
 * Another configuration, in this order: acceptor_prepare() makes the listeners that are new, and nothing has happened
 * if it fails. acceptor_release() ends those that are no more, and gives who waits in their backlogs to the workers,
 * whose generation is still the old one. Then the workers are told of theirs. acceptor_configure() begins to accept
 * from the new ones, and sets the limits of the others. `why` explains errors.
 */
int acceptor_prepare(struct acceptor *acceptor, struct config *next, char *why, size_t size);
void acceptor_release(struct acceptor *acceptor, struct config *now, const struct config *next);
void acceptor_configure(struct acceptor *acceptor, const struct config *config);

/*
 * Makes Unix sockets anew whose files somebody has removed or replaced, as far as that can be; the log tells of each.
 */
void acceptor_renew(struct acceptor *acceptor, const struct config *config);

/*
 * Takes the clients that wait in the backlogs, then closes the listeners, see listener_close(). Before the workers are
 * told to drain, so that they serve what these clients have sent. has_successor: another process serves on. Idempotent.
 */
void acceptor_stop(struct acceptor *acceptor, bool has_successor);

/* After acceptor_stop() for a successor: may that read all UDP sockets? */
bool acceptor_has_handed_over(const struct acceptor *acceptor);

/* A worker has left a UDP socket to it. True: that was the last one. Any thread. */
bool acceptor_handed_over(struct acceptor *acceptor);

/*
 * From now on this share of each listener's connections (0 to 1) is the workers' candidate's, spread evenly: of 0.05
 * every twentieth, whichever worker gets it. 0: none is.
 */
void acceptor_split(struct acceptor *acceptor, double share);

/* Raises the soft limit of open files to the hard one; before anything is opened. */
void acceptor_raise_descriptor_limit(void);

/* The id of one more connection. Any thread. */
static inline uint64_t acceptor_next_id(struct acceptor *acceptor)
{
	return atomic_fetch_add_explicit(&acceptor->next_id, 1, memory_order_relaxed);
}

/* Is the listener's next connection the candidate's? Whoever accepts, or has the listener's door. */
bool acceptor_is_candidates(struct listener *listener);

/* A client was refused; the same. */
void acceptor_log_refusal(struct listener *listener, const char *name, const struct sockaddr_in6 *peer,
			  const char *limit, uint64_t now_ms);

/* A connection is forgotten. True: that was the last one. Any thread. */
bool acceptor_gone(struct acceptor *acceptor);

/* A connection has ended; its place is free, though its descriptor may linger. Any thread. */
void acceptor_left(struct acceptor *acceptor, uint16_t slot, const struct sockaddr_in6 *peer);

/*
 * One that was accepted is counted among those of this address, unless they are too many for this limit (false), or no
 * more. Any thread that has one of its connections.
 */
bool acceptor_count_in(struct acceptor *acceptor, uint16_t slot, const struct sockaddr_in6 *peer,
		       uint32_t per_ip);
void acceptor_count_out(struct acceptor *acceptor, uint16_t slot, const struct sockaddr_in6 *peer);

/* A connection's descriptor is about to be closed: before its client can know and come again. Any thread. */
void acceptor_closes(struct acceptor *acceptor);
