/*
 * The audience of a worker: its connections that are members of topics, and what the hub has for them.
 *
 * A message that has come is given to the members of all topics and patterns that it fits, one after the other, in
 * audience_turn(). Those behind it to the same topic go along: each member is given all of them before the next one is,
 * so that they leave in one write. Where members are many that goes on in the next turns, and what comes behind waits
 * for that. Who joins meanwhile may be given them as well; who has joined before they were published is.
 *
 * What is given to a few is written in the turns of their connections, together with what else those have. Of many it
 * is written at once: buffers of thousands would not stay in the caches.
 *
 * Threads: the worker's.
 */
#pragma once

#include "agent/agent.h"
#include "agent/cast.h"
#include "hub/hub.h"

struct membership;

enum {
	AUDIENCE_GROUP_MAX = 128,    /* messages to one topic that go along */
	AUDIENCE_GROUP_BYTES = 8192, /* ... and what they have, unless it is one */
	AUDIENCE_FEW = 32,           /* members in a turn */
};

/* A topic that has members here. */
struct audience_topic {
	struct hub_part part; /* first */
	struct membership *first, *last;
	char name[];
};

struct audience {
	struct hub *hub;
	struct conn_host *host;
	struct counters *counters; /* the worker's */
	struct topic_map names;    /* of struct audience_topic */
	struct topic_trie patterns;
	struct idmap members;          /* by the ids of their channels: member.h */
	struct mail *come, **come_end; /* what was collected, and is still to be delivered */
	/* What is being delivered: the messages, their topics, and the membership that is next in the first of them. */
	struct hub_message *group[AUDIENCE_GROUP_MAX];
	unsigned group_count;
	struct audience_topic **topics; /* NULL in there: its last member has left meanwhile */
	size_t topic_count, topic_room, topic_at;
	struct membership *next;
	struct membership *current; /* that is given them; NULL: it has ended meanwhile */
	unsigned given;             /* members in this turn, */
	uint32_t turn;              /* ... which has this number */
	struct cast cast;
	struct seldom evictions;
	unsigned worker;
};

/* A worker's host has it from now on. */
void audience_open(struct audience *audience, struct hub *hub, struct conn_host *host, unsigned worker);

/* There are no members any more: what still comes is dropped. */
void audience_close(struct audience *audience);

/* What has come after that, once nothing more can. One that was never opened is zeroed. Any thread. */
void audience_drop_rest(struct audience *audience);

/* Delivers what has come, for host_stage_ticks(). True: there is more, for the next turn. */
bool audience_turn(struct audience *audience);

/* Is there something to deliver? */
bool audience_has_mail(const struct audience *audience);

static inline struct audience *audience_of(const struct agents *agents)
{
	return agents->host->audience;
}

/* ---- for member.c ---- */

/* The topic that has members here, or NULL. */
struct audience_topic *audience_find(const struct audience *audience, const struct topic *topic);

/* The same, made if it is not there: it has no member, and is to get one. NULL: there is no memory. */
struct audience_topic *audience_begin(struct audience *audience, const struct topic *topic);

/* Links a membership in, or out: its topic goes with its last one. */
void audience_add(struct audience *audience, struct membership *membership);
void audience_remove(struct audience *audience, struct membership *membership);
