/*
 * What is on a network of apps in memory, and what becomes of what goes from one to another: nodes and links. A node is
 * an app with its address; it stays when the app dies, and may come back. A link leads one way. All that is drawn is
 * drawn from the network's seed.
 *
 * Threads: one owner.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct config;
struct lan;
struct world;

struct lan_node {
	struct lan_node *next;
	char *name;
	struct world *world;   /* NULL: it is down, or closed */
	struct config *config; /* held: where it listens, or did; NULL: it never has */
	bool is_stalled;       /* it does nothing, and its time does not pass */
	bool is_silent;        /* it is down, and nothing answers in its place */
};

/* What a link does to what goes along it. All zero: nothing. */
struct link_conditions {
	uint32_t latency_min_ms, latency_max_ms;
	uint64_t rate; /* bytes a second; 0: any number */
	double refuse; /* the share of connects that are refused */
	double loss;   /* the share of datagrams that are lost */
};

struct lan_link {
	struct lan_link *next;
	const struct lan_node *from, *to;
	struct link_conditions conditions;
	bool has_conditions; /* else those that hold for all links */
	bool is_parted;      /* nothing passes */
};

/* ---- numbers ---- */

/* SplitMix64: the next number of the generator whose state this is. */
uint64_t links_random(uint64_t *state);

/* 0 … n - 1 */
uint64_t links_draw(uint64_t *state, uint64_t n);

/* Is it one of that share? Nothing is drawn for none and for all. */
bool links_is_drawn(uint64_t *state, double share);

/* ---- nodes ---- */

/* NULL: no memory. */
struct lan_node *links_add_node(struct lan *lan, const char *name);

/* Its app is open from now on. */
void links_open_node(struct lan_node *node, struct world *world);

/* It is down; `is_silent`: see above. */
void links_close_node(struct lan_node *node, bool is_silent);

void links_free(struct lan *lan);

/* ---- links; nodes that are NULL have none ---- */

/* NULL nodes: of all links that have none of their own. False: no memory. */
bool links_set(struct lan *lan, const struct lan_node *from, const struct lan_node *to,
	       const struct link_conditions *conditions);

/* False: no memory. */
bool links_part(struct lan *lan, const struct lan_node *from, const struct lan_node *to, bool is_parted);

const struct link_conditions *links_find(const struct lan *lan, const struct lan_node *from,
					 const struct lan_node *to);
bool links_are_parted(const struct lan *lan, const struct lan_node *from, const struct lan_node *to);
