/*
 * A worker: one thread with an event loop, a VM, a timer wheel and its connections.
 *
 * It shares nothing. What it is told and what it reports are mail; what others
 * may read of it are counters.
 */
#pragma once

#include "agent/audience.h"
#include "agent/post.h"
#include "conn/conn.h"
#include "jobs/jobs.h"
#include "net/poller.h"
#include "worker/generation.h"
#include "worker/mail.h"
#include "worker/orders.h"
#include "worker/overtime.h"
#include "worker/stalls.h"

#include <uv.h>

struct config;
struct dicts;
struct flow_host;
struct handover_part;
struct listener_config;
struct names;
struct taping;
struct worker_socket;

/* How a flow begins that may. */
struct admission {
	uint64_t id;
	bool to_candidate;
};

/* How a worker reaches the server; all may be called from any thread. */
struct worker_links {
	void *server;
	struct dicts *dicts;                 /* that all workers share, */
	struct jobs *jobs;                   /* ... and these; NULL: there are none */
	struct names *names;                 /* the same: of their agents, */
	struct hub *hub;                     /* ... and of the topics that they are members of */
	const struct counters_all *counters; /* of all workers, and of who accepts */
	void (*post)(void *server, struct report *report); /* it is delivered in the main thread */
	const struct report_receivers *receivers;
	/*
	 * The place of a client is free again: one that came by the listener of this slot, from this address. NULL: it
	 * does not count for limits.per_ip.
	 */
	void (*left)(void *server, uint16_t slot, const struct sockaddr_in6 *peer);
	void (*closes)(void *server); /* its descriptor is about to be closed */
	void (*gone)(void *server);   /* it is forgotten */
	void (*failed)(void *server); /* a fault has ended one of the candidate's */
	/* A client counts for limits.per_ip from now on, if that allows it (else false); or no more. */
	bool (*count_in)(void *server, uint16_t slot, const struct sockaddr_in6 *peer, uint32_t per_ip);
	void (*count_out)(void *server, uint16_t slot, const struct sockaddr_in6 *peer);
	/* A flow begins at the listener of this slot, counted in by these limits. False: it may not. */
	bool (*begin_flow)(void *server, uint16_t slot, const struct listener_config *config,
			   const struct sockaddr_in6 *peer, struct admission *admission);
	/* It uses no more what worker_give_socket() has given, or the order of worker_end_socket(). */
	void (*socket_closed)(void *server, uint16_t slot);
	/* Another process may read a socket, as worker_end_socket() said. */
	void (*handed_over)(void *server);
	/* Has any worker a client? */
	bool (*has_clients)(void *server);
};

struct worker {
	unsigned index;
	atomic_uint load;      /* connections given to it and not yet gone; the server adds, it subtracts */
	struct config *config; /* the newest generation's */
	struct worker_links links;
	uv_thread_t thread;
	uv_loop_t loop;
	uv_async_t wake;
	struct poller poller;
	struct flow_host *flows; /* what its UDP sockets share (flows.h, outgoing.c); NULL: it has had none */
	struct worker_socket *sockets; /* of UDP */
	struct polled bell;            /* rung when others have sent something to its agents, */
	int bell_fd;                   /* ... and open until nobody can ring it any more */
	struct post post;
	struct audience audience;
	struct orders orders;
	struct job_port job_port; /* its agents' jobs come back here */
	struct conn_host host;
	struct conn_host *out; /* of connections out (outgoing.h); NULL: there have been none */
	struct generation
	    *generation; /* the newest; behind it the candidate and those that have connections still */
	struct generation *candidate; /* it has only the connections that are given to it; or NULL */
	struct counters counters, outgoing_counters;
	struct snapshot_source *kept; /* for its first generation; lent until it is ready, or NULL */
	/* Reports and orders that are sent at most once; embedded so that sending them cannot fail. */
	struct report first_words, last_words;
	struct order drain, stop;

	uint64_t activity;                  /* of the counters, when last looked at */
	uint64_t paced_ms;                  /* when the collector was last tuned, */
	uint64_t paced_frames, paced_bytes; /* ... and what had come in by then */
	uint64_t look_ms;                   /* when to look again; WHEEL_NEVER: it is quiet and tidy */
	uint64_t migrate_at; /* how far migrating has come in the map of connections; while `migrating` */
	struct handover_part *handover; /* who is to be told when migrating is over; or NULL */
	struct taping *taping;          /* NULL: nothing is recorded */
	unsigned waiting_to_migrate;    /* agents that wait, and follow when they are done */
	unsigned tidy_cycles;           /* collections still to finish before it is tidy */
	bool migrating;
	bool is_empty;    /* in a drain: it had nothing more when it last looked, */
	bool knows_end;   /* ... and neither had any other */
	bool owes_orders; /* there was no time for all of its orders in the last turn */

	/* For others. */
	bool has_stopped;        /* the main thread's, as are held_up and overtime */
	atomic_bool poked;       /* asked whether it turns, and has not answered */
	atomic_int off;          /* not 0: the loading of its first script is called off */
	atomic_uint generations; /* how many; anyone may read it */
	_Atomic pid_t tid;       /* of its thread; 0: it has not begun */
	struct held_up held_up;
	struct overtime overtime;
};

/* Reports to the server; the report is delivered by `deliver`, one of the receivers. The worker's thread. */
void worker_report(struct worker *worker, struct report *report,
		   void (*deliver)(void *server, struct report *report));

/*
 * Starts the thread; its first report says that it is ready, or has failed. 0 or an error. `kept`: what a process
 * before has kept for it, lent until that report; NULL: nothing.
 */
int worker_start(struct worker *worker, struct config *config, unsigned index, struct worker_links links,
		 struct snapshot_source *kept);

/*
 * Gives it a generation that is loaded and has left its thread: connections given after this begin with it, and once
 * that is reported (adopted), those there know of it, too. With `is_candidate` set it has only those connections that
 * are given to it, until it is promoted or withdrawn. Cannot fail. The main thread.
 */
void worker_adopt(struct worker *worker, struct generation *generation);

/* The candidate becomes what serves; reported (adopted). Cannot fail. The main thread. */
void worker_promote(struct worker *worker, struct generation *candidate);

/*
 * The candidate is one no more; its connections go by its policies, and what serves is their successor. Cannot fail.
 * The main thread.
 */
void worker_withdraw(struct worker *worker, struct generation *candidate);

/*
 * Gives it a connected, non-blocking descriptor, for its candidate if it has one and is told to. `counted` is the peer
 * where that counts for limits.per_ip, or NULL. Any thread. 0 or UV_ENOMEM, and then the descriptor is still the
 * caller's. Call worker_kick() after the last of several.
 */
int worker_give(struct worker *worker, int fd, uint16_t slot, uint64_t id, const struct sockaddr_in6 *peer,
		const struct sockaddr_in6 *counted, bool to_candidate);
void worker_kick(struct worker *worker);

/* Since when it has been busy with one turn, by uv_now(); 0: it waits for events. Any thread. */
static inline uint64_t worker_busy_since_ms(const struct worker *worker)
{
	return poller_busy_since_ms(&worker->poller);
}

/*
 * Gives descriptors that it was given, and has not opened yet, to whoever taker() says. One stays where that is NULL,
 * or this worker, which may turn again by now. All other orders stay, too, in their order. The main thread, which has
 * given all of them; not after worker_drain().
 */
void worker_give_away(struct worker *worker, struct worker *(*taker)(void *owner, uint16_t slot),
		      void *owner);

/* Something has come for its agents: what names_new() is given, of all workers. Any thread. */
void worker_ring(void *worker);

/* Asks whether its loop turns. Has it answered since the last time? Not after worker_drain(). Any thread. */
bool worker_poke(struct worker *worker);

/*
 * Another policy for the connections of the older generations, whatever the newest one's script says; the candidate's,
 * if there is one, for the time when it is none any more. 0 or UV_ENOMEM. Any thread.
 */
int worker_set_policy(struct worker *worker, enum reload_policy policy);

/*
 * After an order that lets connections migrate: the report says how that came out, once all of them have been
 * asked, or sooner if the worker is told of something later. Any thread.
 */
void worker_hand_over(struct worker *worker, struct handover_part *part);

/*
 * Ends eviction->conn with the reason `kick`, delivering what is pending; one that is ending already is cut. The
 * eviction is its until it is reported. Any thread.
 */
void worker_evict(struct worker *worker, struct eviction *eviction);

/*
 * Has the generation that serves take a snapshot, while nothing of the script runs. The request is the worker's until
 * it is answered. Any thread.
 */
void worker_ask_snapshot(struct worker *worker, struct snapshot_request *request);

/* Nobody wants it any more. True: it is the caller's again. False: it is, or will have been, answered. Any thread. */
bool worker_take_request_back(struct worker *worker, struct snapshot_request *request);

/* Records new connections, until it is told otherwise or stops; then that is reported (taping.h). Any thread. */
void worker_record(struct worker *worker, struct taping *taping);
void worker_record_no_more(struct worker *worker, struct taping *taping);

/*
 * Before it is ready: ends the loading of the script; then it has failed with UV_ECANCELED. Once it is ready this does
 * nothing. Any thread.
 */
void worker_call_off(struct worker *worker);

/* Asks it to finish what is in flight and stop. Any thread. */
void worker_drain(struct worker *worker);

/* Asks it to cut what is left and stop. Any thread. */
void worker_stop(struct worker *worker);

/* What it was told and has not done is not done any more. Once its thread has ended. */
void worker_drop_orders(struct worker *worker);

/* After all of them have reported that they have stopped, or failed: waits for the thread and frees what it had. */
void worker_join(struct worker *worker);
