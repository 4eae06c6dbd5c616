/*
 * An app in memory: workers without their threads and sockets. The VMs of the script, their agents and connections are
 * those of a server; bytes come from peers (peer.h), and the clock goes on when it is told to.
 *
 * A server's workers run at once; here one after the other has its turn. What a worker has, no other one sees; what a
 * server has once for all of them, the world has: who is let in (door.c), ids, the limits by listener.
 *
 * Threads: one owner.
 */
#pragma once

#include "agent/agent.h"
#include "agent/audience.h"
#include "agent/post.h"
#include "bind/job_vm.h"
#include "config/config.h"
#include "conn/conn.h"
#include "record/tape.h"
#include "workbench/entries.h"
#include "workbench/lan.h"
#include "workbench/peer.h"
#include "worker/generation.h"

struct peer_table;

enum { WORLD_BEGIN_MS = 1000, WORLD_FAULTS_MAX = 16 };

/* A call that is to raise: the left-th of this callback. */
struct world_fault {
	char callback[16];
	unsigned left; /* 0: none is to */
	int worker;    /* of that one; -1: whichever's it is */
};

/* What handlers spend ends a turn, not how long they take on this machine: seconds, and not milliseconds. */
#define WORLD_TURN_TICKS (UINT64_C(1000) * CHANNEL_TICKS_PER_TURN)

/* The time of day then: the first second of 2026, so that a specification knows it. */
#define WORLD_EPOCH_MS (UINT64_C(1767225600000) - WORLD_BEGIN_MS)

/* What is a thread in a server. */
struct world_worker {
	struct conn_host host; /* first: a connection's host leads here. host.now_ms is the clock */
	struct job_port job_port;
	struct post post;
	struct audience audience;
	struct world *world;
	unsigned index;
	unsigned load;                 /* connections that it was given and that are not yet gone */
	struct agents *agents;         /* of the newest generation */
	struct generation *generation; /* the newest; older ones have connections still (generations.c) */
	struct generation *loaded;     /* that is to be the newest, once all workers have theirs; or NULL */
	struct counters counters;
	struct tape tape; /* what is recorded; the host has it while something is */
	struct world_outgoing outgoing;
	struct peer *live; /* those whose connection is not yet gone, the first one first */
	struct peer **live_end;
	size_t buffer_bytes;     /* its share of limits.buffers */
	uint64_t drain_until_ms; /* older generations' connections that are drained end then; WHEEL_NEVER */
	uint64_t spent_ms;       /* by handlers since the last poll: clock.c */
	uint64_t spender, spender_ms; /* the guard's dispatch that spent last, and how much of it */
	bool is_stalled;              /* it does nothing; clients that it is given wait */
};

struct world {
	struct world_worker *workers;
	unsigned worker_count;
	unsigned next_worker;     /* where the search for the least loaded begins */
	uint16_t *order;          /* in which they have their turns */
	struct config *config;    /* of the newest generation */
	struct counters counters; /* of clients that were let in nowhere */
	struct counters_all all_counters;
	struct entries log;
	struct lan *lan; /* the apps that it can reach, itself included; NULL: it has tried to reach none */
	struct world *next_in_lan;
	struct lan_node *node; /* what it is there; NULL: it is alone */
	struct peer **peers;   /* all that ever were */
	size_t peer_count, peer_room;
	uint32_t *open;      /* connections that have a place, by listener */
	struct dicts *dicts; /* that all workers share, */
	struct jobs *jobs;   /* ... and these, which run when the workers have had their turns */
	struct job_surroundings surroundings;
	bool holds_jobs;              /* none runs but by world_run_jobs() */
	struct names *names;          /* the same: of their agents, */
	struct hub *hub;              /* ... and of topics */
	struct peer_table *addresses; /* NULL: no listener has limits.per_ip */
	uint64_t next_id;
	struct world_fault faults[WORLD_FAULTS_MAX]; /* faults.c */
	const volatile sig_atomic_t *stop;           /* not 0: whoever asks is to be told at once; or NULL */
	bool is_open;
};

/* The worker whose connections it has. */
static inline struct world_worker *world_worker_of(struct conn_host *host)
{
	return (struct world_worker *)(void *)host;
}

/* The clock, which all workers have. */
static inline uint64_t world_now_ms(const struct world *world)
{
	return world->workers[0].host.now_ms;
}

/* How settling came out. */
enum world_quiet {
	WORLD_QUIET,
	WORLD_RESTLESS, /* there is always more to do, without the time going on */
	WORLD_STOPPED,  /* world->stop said so */
};

/*
 * Opens the app of a loaded configuration, which it holds. False: why not, in `why`; nothing is to be closed. What it
 * logs goes to world->log while a function of this file runs, and to the log otherwise. `inside`: see struct config.
 */
bool world_open(struct world *world, struct config *config, const char *inside, char *why, size_t size);

/*
 * A new generation of the script takes new connections; what becomes of those that there are is what it says in
 * `reload`, as in a server, but at once. False: why not, in `why`, and nothing has changed.
 */
bool world_reload(struct world *world, struct config *config, const char *inside, char *why, size_t size);

/* Cuts what is left, runs teardown(app), frees all peers. */
void world_close(struct world *world);

/* What is left of an app after world_close(): its log. */
void world_free_log(struct world *world);

/* How a client comes. All zero: from nowhere. */
struct world_way {
	struct sockaddr_in6 from;   /* its address; family 0: it has none, as on a Unix socket */
	size_t read_max, write_max; /* as in struct memory_stream */
	bool is_bare;               /* its connection has no layers (peer_new()) */
	struct wire *wire;          /* it is another app's; NULL: a specification's */
	struct world_worker *to;    /* whose client it is to be; NULL: as a server deals it */
};

/* It does nothing, whatever happens to it; or the whole app does not (links.h). */
bool world_worker_is_stalled(const struct world_worker *worker);

/* A client connects. It may be refused (peer->refused), as by a server. NULL: no memory. */
struct peer *world_connect(struct world *world, unsigned listener, const struct world_way *way);

/* Its connection begins, or waits for a worker that is stalled, if it is let in; false: it is refused. */
bool world_receive(struct world *world, struct peer *peer);

/* A peer without a connection: for its codec alone. NULL: no memory. */
struct peer *world_add_codec(struct world *world, unsigned listener);

/* ---- for world.c, door.c, generations.c, clock.c ---- */

/* What its host tells of connections that clients have begun (door.c). */
void world_open_door(struct world_worker *worker);

/* A client that it was given while it was stalled is its own now. */
void world_begin_conn(struct peer *peer);

/* The first generation, or the next one, of all workers. False: why not, in `why`; then none has it. */
bool world_add_generation(struct world *world, struct config *config, const char *inside, char *why,
			  size_t size);

/* What older generations are to do by now; those that have ended go. True: something has happened. */
bool world_turn_generations(struct world_worker *worker);

/* When the next does; WHEEL_NEVER. */
uint64_t world_generations_next_ms(const struct world_worker *worker);

/* All of them, without connections. */
void world_close_generations(struct world_worker *worker);

/* The clock, for the VM of those agents. False: no memory. */
bool world_open_clock(struct world_worker *worker, struct agents *agents);

/* The clock shows what handlers have spent. True: it had not yet. */
bool world_pass(struct world_worker *worker);

/* The left-th call of this callback from now on raises, of this worker or (-1) of any. False: too many callbacks. */
bool world_add_fault(struct world *world, const char *callback, unsigned left, int worker);

/* Where lua/perilune/test/inside.lua asks whether a call is to raise. False: no memory. */
bool world_open_faults(struct agents *agents);

/* Polls and turns until nothing more happens at this time. */
enum world_quiet world_settle(struct world *world);

/* Goes from one deadline to the next, and settles each time, until it is to_ms. */
enum world_quiet world_advance(struct world *world, uint64_t to_ms);

/* Runs so many of the jobs that wait, whether they are held or not, and settles. *ran: how many there were. */
enum world_quiet world_run_jobs(struct world *world, unsigned most, unsigned *ran);

/* When something is due next; WHEEL_NEVER. */
uint64_t world_next_ms(struct world *world);

/*
 * As a server that is told to stop, and has the time of timeout.drain for it: what is left then is cut. Settles. Peers
 * may go on while it does, world_advance() lets the time pass.
 */
enum world_quiet world_begin_drain(struct world *world);

/* The same, to its end, whether it has begun or not. */
enum world_quiet world_drain(struct world *world);
