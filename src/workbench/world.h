/*
 * An app in memory: a worker's insides without its thread and its sockets. The script's VM, its agents and their
 * connections are those of a server; bytes come from peers (peer.h), and the clock goes on when it is told to.
 *
 * Threads: one owner.
 */
#pragma once

#include "agent/agent.h"
#include "config/config.h"
#include "conn/conn.h"
#include "record/tape.h"
#include "workbench/entries.h"
#include "workbench/peer.h"

struct peer_table;

enum { WORLD_BEGIN_MS = 1000 };

struct world {
	struct conn_host host; /* first: a connection's host leads here. host.now_ms is the clock */
	struct agents agents;
	struct counters counters;
	struct config *config; /* held */
	struct entries log;
	struct tape tape;    /* what is recorded; the host has it while something is */
	struct peer **peers; /* all that ever were */
	size_t peer_count, peer_room;
	struct peer *live; /* those whose connection is not yet gone, the first one first */
	struct peer **live_end;
	uint32_t *open;               /* connections that have a place, by listener */
	struct peer_table *addresses; /* NULL: no listener has limits.per_ip */
	uint64_t next_id;
	uint64_t spent_ms;                 /* by handlers since the last poll: clock.c */
	uint64_t spender, spender_ms;      /* the guard's dispatch that spent last, and how much of it */
	const volatile sig_atomic_t *stop; /* not 0: whoever asks is to be told at once; or NULL */
	bool is_open;
};

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

/* Cuts what is left, runs teardown(app), frees all peers. */
void world_close(struct world *world);

/* What is left of an app after world_close(): its log. */
void world_free_log(struct world *world);

/* How a client comes. All zero: from nowhere. */
struct world_way {
	struct sockaddr_in6 from;   /* its address; family 0: it has none, as on a Unix socket */
	size_t read_max, write_max; /* as in struct memory_stream */
	bool is_bare;               /* its connection has no layers (peer_new()) */
};

/* A client connects. It may be refused (peer->refused), as by a server. NULL: no memory. */
struct peer *world_connect(struct world *world, unsigned listener, const struct world_way *way);

/* A peer without a connection: for its codec alone. NULL: no memory. */
struct peer *world_add_codec(struct world *world, unsigned listener);

/* For world.c: the clock of an app that is open. False: no memory. */
bool world_open_clock(struct world *world);

/* The clock shows what handlers have spent. True: it had not yet. */
bool world_pass(struct world *world);

/* Polls and turns until nothing more happens at this time. */
enum world_quiet world_settle(struct world *world);

/* Goes from one deadline to the next, and settles each time, until it is to_ms. */
enum world_quiet world_advance(struct world *world, uint64_t to_ms);

/* When something is due next; WHEEL_NEVER. */
uint64_t world_next_ms(const struct world *world);

/*
 * As a server that is told to stop, and has the time of timeout.drain for it: what is left then is cut. Settles. Peers
 * may go on while it does, world_advance() lets the time pass.
 */
enum world_quiet world_begin_drain(struct world *world);

/* The same, to its end, whether it has begun or not. */
enum world_quiet world_drain(struct world *world);
