/*
 * The hub: which topics have members on which workers, and the boxes in which workers find what is published to those.
 * It knows neither Lua nor connections: who the members are, each worker knows itself (agent/audience.h).
 *
 * The directory is divided as that of names is: topics by the hash of their name, each part with a lock that is held
 * for a few steps. Patterns are in one trie with a lock of its own, which nobody takes while there are none.
 *
 * Whoever publishes looks up which workers have members, and posts one reference to each of them, itself included. So
 * what one publishes to a topic comes in its order at every worker; and a worker that is stuck blocks nobody: its box
 * fills, and what finds no room there is dropped and counted.
 *
 * Threads: any, but where said otherwise.
 */
#pragma once

#include "base/counters.h"
#include "hub/message.h"
#include "hub/policy.h"
#include "hub/topic.h"

enum {
	HUB_WORKERS_MAX = 256,
	HUB_UNDERWAY_BYTES = 64 << 20, /* of all messages in a worker's box */
};

/* What has become of a message for a member. */
enum hub_fate {
	HUB_DELIVERED,
	HUB_DROPPED_OLDEST,
	HUB_DROPPED_NEWEST,
	HUB_REPLACED, /* by a later one with its key */
	HUB_UNFIT,    /* the member's framing cannot carry it */
	HUB_EVICTED,  /* the member was disconnected, as it did not keep up */
	HUB_LEFT,     /* the member has left, or its connection has ended */
	HUB_FATES
};

/* Addressed is all that became of it, and what still waits. Its worker writes; any thread reads. */
struct hub_account {
	counter addressed, fates[HUB_FATES];
};

struct hub;

/* A topic that has members on one worker: it is in the worker's own table, and known to the hub. */
struct hub_part {
	struct topic topic;    /* first */
	struct hub_topic *of;  /* the hub's */
	struct hub_part *next; /* another worker's of it: the hub's */
	unsigned worker;
	counter members; /* its worker writes */
	struct hub_account account;
};

/* For so many workers. `ring` and `key` are as for names_new(). NULL: there is no memory. */
struct hub *hub_new(unsigned workers, void (*ring)(void *owner), const struct siphash_key *key);

/* Nobody has members any more, nor waits for mail. */
void hub_free(struct hub *hub);

unsigned hub_workers(const struct hub *hub);

/* By which topics are hashed. */
const struct siphash_key *hub_key(const struct hub *hub);

/* ---- members ---- */

/*
 * A worker has its first member of a topic; its name is set, and is no other part's of that worker. 0 or UV_ENOMEM.
 * From then on who publishes to it posts to that worker.
 */
int hub_enter(struct hub *hub, struct hub_part *part);

/* It has no members any more. Messages may still be on their way. */
void hub_leave(struct hub *hub, struct hub_part *part);

/* How many members a message to that topic would be for. */
uint64_t hub_count(struct hub *hub, const char *name, size_t len);

/* Topics and patterns that have members. */
size_t hub_topics(struct hub *hub);

/* The accounts of a topic, or of a pattern, of all workers, and its members. False: it has none. */
bool hub_account_of(struct hub *hub, const struct topic *topic, struct hub_account *sum, uint64_t *members);

/* ---- messages ---- */

/* A message for so many workers, which is counted as long as it is held. */
struct hub_message *hub_make_message(struct hub *hub, const struct hub_draft *draft, unsigned workers);

/* How many bytes all messages take that are held: on their way, or for members that have yet to take them. */
size_t hub_message_memory(const struct hub *hub);

/* The workers that have members for a message. */
struct hub_reach {
	uint64_t bits[HUB_WORKERS_MAX / 64];
	unsigned count;
};

void hub_find(struct hub *hub, const char *name, size_t len, struct hub_reach *reach);

/*
 * Posts it to each of those workers, unless `most` messages are in its box already. `own` is the caller's, which looks
 * into its box before it waits: it cannot be stuck, and only the bytes there are bounded. Returns how many workers have
 * not got it. The message is held for those that have; the caller's hold stays the caller's.
 */
unsigned hub_post(struct hub *hub, struct hub_message *message, const struct hub_reach *reach, unsigned own,
		  unsigned most);

/* ---- boxes ---- */

/* Its owner looks into it from now on, and counts into `counters`, which stay as long as the hub. */
void hub_open_box(struct hub *hub, unsigned worker, void *owner, const struct counters *counters);

/* Nobody reads it any more: nothing is posted to it. */
void hub_close_box(struct hub *hub, unsigned worker);

bool hub_has_mail(const struct hub *hub, unsigned worker);

/* The worker's thread, or once that has ended: all that has come, struct hub_mail, the oldest first; NULL: nothing. */
struct mail *hub_collect(struct hub *hub, unsigned worker);

/* A worker is done with a message that it has collected: it lets go of that. */
void hub_done(struct hub *hub, unsigned worker, struct hub_message *message);

/* How many messages are in a worker's box, or were collected and are not done. */
unsigned hub_depth(const struct hub *hub, unsigned worker);

/* Adds up what all workers count that have opened a box. */
void hub_sum(const struct hub *hub, struct counters *sum);
