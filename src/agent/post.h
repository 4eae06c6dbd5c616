/*
 * The post of a worker: what its agents send to names, and what comes for them. A letter to an agent of the same worker
 * goes to it at once, any other by the box of its worker (names.h).
 *
 * A message that was sent is delivered or dropped, once, and counted as that. Of a call, somebody waits for the reply:
 * whatever becomes of the message, a letter comes back. A reply that nobody waits for any more is dropped.
 *
 * Threads: the worker's.
 */
#pragma once

#include "agent/agent.h"
#include "agent/letter.h"

struct post {
	struct names *names;
	struct counters *counters; /* the worker's */
	struct agents *newest;     /* who makes agents without a socket */
	struct idmap recipients;   /* by the ids of their channels: recipient.h */
	struct idmap calls;        /* that wait, by their numbers */
	uint64_t last_call;
	struct mail *come, **come_end; /* what was collected, and is still to be looked at */
	unsigned worker;
};

/* A worker's host has it from now on. */
void post_open(struct post *post, struct names *names, struct conn_host *host, unsigned worker);

/* There are no agents any more: what is still coming is dropped, and whoever sends is told that nobody is there. */
void post_close(struct post *post);

/* What has come after that is dropped, once nothing more can. One that was never opened is zeroed. Any thread. */
void post_drop_rest(struct post *post);

/* Takes what has come to those that it is for. True: there is more, for the next turn. */
bool post_collect(struct post *post);

/* Is there something to collect? */
bool post_has_mail(const struct post *post);

static inline struct post *post_of(const struct agents *agents)
{
	return agents->host->post;
}

/* ---- sending ---- */

enum post_error {
	POST_OK,
	POST_ABSENT,
	POST_BUSY,     /* too many messages wait for that name */
	POST_FULL,     /* too much is on its way to that worker */
	POST_CROWDED,  /* there are as many agents of that kind as there may be */
	POST_DEADLOCK, /* it is a call of the agent's to itself */
	POST_NO_MEMORY,
};

struct call; /* call.h */

/*
 * Sends it on behalf of the channel, which is the running call's. `call` is to wait for the reply; NULL: nobody does.
 */
enum post_error post_send(struct agents *agents, const struct channel *by, struct names_key key,
			  const struct letter_value *value, struct call *call);

/* ---- for recipient.c and resident.c ---- */

/* A message that has come to its worker: its agent gets it, or it is dropped. */
void post_take(struct post *post, struct letter *letter);

/* A message that was delivered, and has its reply; it is the post's then. Of one that is no call it is freed. */
void post_reply(struct post *post, struct letter *letter, const struct letter_value *value);

/* The same, and there is no reply. */
void post_refuse(struct post *post, struct letter *letter, enum letter_about why);

/* A message is taken by its agent: it waits no more, and counts as delivered. */
void post_deliver(struct post *post, struct letter *letter);

/* A message that nobody will take: it counts as dropped, and is freed. */
void post_drop(struct post *post, struct letter *letter);
