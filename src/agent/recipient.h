/*
 * What makes an agent one that others can send to: its names, and the messages that wait for it.
 *
 * Messages are taken by its message(topic, data, from), which is a callback like any other: never beside another of the
 * same agent, and so those that come meanwhile wait, in their order. It may wait itself. It is found by the channel's
 * id, as what the agent has begun is (work.h): channel->has_post says that there is one.
 *
 * Threads: the one that has the agents.
 */
#pragma once

#include "agent/post.h"
#include "agent/run.h"

enum { RECIPIENT_NAMES_MAX = 100 };

struct recipient {
	struct wheel_node node; /* first: in agents->posted, while there are letters, and it may be called */
	struct channel *channel;
	struct name *names;        /* the first that it has registered first */
	struct name *address;      /* "@0/17": of one that has sent something without a name; or NULL */
	struct mail *first, *last; /* messages that wait: letters */
	struct letter *taken;      /* message() has it */
	unsigned name_count;
	bool is_mute; /* its agent cannot take messages: it has no address */
};

/* NULL: there is none. */
struct recipient *recipient_of(const struct agents *agents, const struct channel *channel);

/* The same, made if it is not there; NULL: there is no memory. */
struct recipient *recipient_begin(struct agents *agents, struct channel *channel);

/* Its name of that key, if it has that still. */
struct name *recipient_find(struct agents *agents, struct recipient *recipient, struct names_key key);

/* NAMES_EXISTS, NAMES_NO_MEMORY. It has fewer than RECIPIENT_NAMES_MAX. `replaces`: whoever has the name loses it. */
enum names_error recipient_register(struct agents *agents, struct recipient *recipient, struct names_key key,
				    bool replaces);

/* False: it has no such name. */
bool recipient_unregister(struct agents *agents, struct recipient *recipient, struct names_key key);

/* By which it can be answered, held; NULL: it cannot be. */
struct name *recipient_address(struct agents *agents, struct recipient *recipient);

/* It has no name, and is to have an address. False: there is no memory. */
bool recipient_make_address(struct agents *agents, struct recipient *recipient);

/* "@0/17": of any agent, whether somebody finds it by that or not. */
enum { RECIPIENT_ADDRESS_BYTES = 48 };
void recipient_write_address(char address[RECIPIENT_ADDRESS_BYTES], unsigned worker, uint64_t channel);

/* A message for it has come. */
void recipient_take(struct recipient *recipient, struct letter *letter);

/* A call of its agent's is over, which others had to wait for. */
void recipient_catch_up(struct channel *channel);

/* Its agent has gone to other agents, of the same worker. */
void recipient_follow(struct channel *channel, struct agents *to);

/* How many names it has; those that came later are given up again. */
unsigned recipient_mark(const struct channel *channel);
void recipient_restore(struct channel *channel, unsigned names);

/* At the end of its agent: its names go, and what waits is dropped. */
void recipient_end(struct agents *agents, struct channel *channel);

/* ... and then, of an agent without a socket: what waits is the next one's, a list. */
struct mail *recipient_leave(struct agents *agents, struct channel *channel);

/* Calls message() of those for whom something waits, for host_stage_ticks(). */
void recipients_turn(struct agents *agents);

/* Handles the end of a CALL_MESSAGE: its reply, its action, its fault. Ends the run. */
void recipient_finish(struct agents *agents, struct run *run, enum outcome outcome);
