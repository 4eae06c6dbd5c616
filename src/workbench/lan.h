/*
 * Apps in memory that reach each other by their addresses: a network of worlds with one clock.
 *
 * A connection out of one of them, and the connection in to another that it becomes, are the two ends of a wire
 * (wire.h). What is between them, and what may go wrong there, is said by nodes and links (links.h).
 *
 * Threads: one owner.
 */
#pragma once

#include "agent/client.h"
#include "workbench/history.h"
#include "workbench/links.h"

struct peer;
struct wire;
struct world;
struct world_worker;

struct lan {
	struct world *first; /* of its worlds */
	struct wire *wires;  /* in the order in which they were made */
	struct wire **end;
	struct lan_node *nodes; /* in the order in which they were added */
	struct lan_link *links;
	struct link_conditions conditions; /* of links that have none of their own */
	struct history history;
	uint64_t now_ms;
	/*
	 * Generators: of what the network draws, of what a specification does, of what TLS does, and of the order in
	 * which workers have their turns.
	 */
	uint64_t drawn, chosen, secret, turned;
	unsigned connections; /* so many have had a number */
	unsigned sockets;     /* ... and so many have had a port for their datagrams */
	bool is_held; /* a specification has it; else it goes with its last world, and notes no history */
};

/* What a worker's host leads to, for its connections out. */
struct world_outgoing {
	struct outgoing outgoing; /* first */
	struct world_worker *worker;
	struct conn_host host;
	struct counters counters;
};

/* A worker's: it has no connections yet; it has none any more, and its world has left its network. */
void world_outgoing_init(struct world_worker *worker);
void world_outgoing_deinit(struct world_worker *worker);

/* A network that a specification holds; NULL: no memory. */
struct lan *lan_open(uint64_t seed);
void lan_drop(struct lan *lan);

/* The world is that node's app from now on, at the network's time. It has made no connections. */
void lan_enter(struct world *world, struct lan *lan, struct lan_node *node);

/* What its wires have been given is on its way; then whoever is at their other ends sees them end. */
void lan_leave(struct world *world);

/* The app dies: it says nothing more to anybody. Whom it was connected to sees resets; or nothing, if `is_silent`. */
void lan_kill(struct world *world, bool is_silent);

/*
 * Connections between the two nodes are reset, at both ends; `to` NULL: all of that node; both NULL: all. Each is drawn
 * for `share` of them. Returns how many.
 */
unsigned lan_reset(struct lan *lan, const struct lan_node *one, const struct lan_node *to, double share);

/* Reports what has happened to the worker's connections out. True: something has. */
bool lan_poll(struct world_worker *worker);

/* Connects what is to be connected, and carries bytes. True: something has happened. */
bool lan_serve(struct world *world);

/* When something arrives next; WHEEL_NEVER. */
uint64_t lan_next_ms(const struct lan *lan);

/* OpenSSL draws for an app of this network from now on. Returns from what it did before. lan may be NULL. */
uint64_t *lan_draw_secrets(struct lan *lan);

/* The history, of a network that has one; what happens to others is not noted. lan may be NULL. */
bool lan_notes(const struct lan *lan);

/*
 * What the history calls a worker of a node's app: "web"; "web[1]" where it has several. NULL: it is not known which.
 */
struct lan_name {
	char text[256];
};
const char *lan_name(struct lan_name *name, const char *node, const struct world_worker *worker);
void lan_note_client(struct peer *peer, bool is_clients, const char *what);
void lan_note_client_bytes(struct peer *peer, bool is_clients, const void *bytes, size_t n);
void lan_note_link(struct lan *lan, const struct lan_node *from, const struct lan_node *to, const char *what);
void lan_note_node(struct lan *lan, const struct lan_node *node, const char *what);

/* ---- for wire.c ---- */

/* Somebody connects: let in, or refused. */
void lan_accept(struct wire *wire);

/* The answer has come. */
void lan_connected(struct wire *wire);
void lan_refused(struct wire *wire);

/* A datagram comes: wire->far is the one that it is for. False: nobody listens. */
bool lan_find_flow(struct wire *wire);

/* A datagram was sent to where nobody listens. */
void lan_refuse_datagram(struct wire *wire);
