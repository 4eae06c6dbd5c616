/*
 * A connection that is a member of topics: its memberships, and the messages that wait for it.
 *
 * A message goes onto the connection at once while little is pending there. What does not fit waits, by reference, and
 * goes on when the peer has taken what is pending (conn_handler.room): a peer that does not keep up has its messages
 * waiting here, where each membership's policy bounds them, and not in its output. So what a connection has to say by
 * itself, pings among it, never waits behind more than a little of that.
 *
 * Messages for the agent (`deliver = "agent"`) wait here as well, until its message() can be called: a callback like
 * any other, and never beside another.
 *
 * A member is found by its channel's id: channel->has_hub says that there is one.
 *
 * Threads: the worker's.
 */
#pragma once

#include "agent/audience.h"
#include "agent/run.h"

enum { MEMBER_TOPICS_MAX = 1000 };

/* What was asked for in conn:join. */
struct membership_rules {
	enum hub_policy policy;
	bool is_for_agent;
	uint32_t messages; /* that may wait, */
	uint32_t bytes;    /* ... and of all of them */
};

/* A message that waits for a member: in the line of its connection or of its agent, and in that of its membership. */
struct waiting;

struct wait_line {
	struct waiting *first, *last;
};

struct membership {
	struct audience_topic *topic;
	struct member *member;
	struct membership *before, *after;   /* of the topic */
	struct membership *sibling;          /* the next of the same member */
	struct membership_rules rules, next; /* next: once the trial is over */
	bool is_on_trial;                    /* it was there before upgrade(), which runs, */
	bool is_to_end;                      /* ... and has left it, */
	bool is_to_change;                   /* ... or has joined with other rules: `next` */
	struct wait_line waits;
	uint32_t waiting; /* messages, */
	size_t bytes;     /* ... and what they take */
	/* The same when the audience's turn of this number began: an agent is called behind that. */
	uint32_t turn, had_waiting;
	size_t had_bytes;
	uint64_t delivered, dropped;
};

struct member {
	struct wheel_node
	    node; /* first: in agents->heard, while something waits for its agent, and it may be called */
	struct channel *channel;
	struct membership *memberships; /* the one that was joined first first */
	unsigned count;
	struct wait_line lines[2]; /* for its connection, and for its agent */
};

/* NULL: there is none. */
struct member *member_of(const struct audience *audience, const struct channel *channel);

enum member_error { MEMBER_OK, MEMBER_CROWDED, MEMBER_NO_MEMORY };

/* From when it returns on the channel is a member of the topic, or has other rules as one. Its hash is set. */
enum member_error member_join(struct audience *audience, struct channel *channel, const struct topic *topic,
			      const struct membership_rules *rules);

/* False: it was none. What waits for it is dropped. */
bool member_leave(struct audience *audience, struct channel *channel, const struct topic *topic);

/* All that it is a member of ends, and what waits for it with that. */
void member_end(struct channel *channel);

/* The same of what is sent on its connection: on that nothing follows. What is for its agent goes on. */
void member_end_sent(struct channel *channel);

/* A message has come for it. It may not be a member any more afterwards. */
void member_hear(struct audience *audience, struct membership *membership, struct hub_message *message);

/*
 * The same of some to one topic, where all of them can go onto its connection now. False: they are to come one by
 * one.
 */
bool member_hear_all(struct audience *audience, struct membership *membership,
		     struct hub_message *const *messages, unsigned n);

/* As conn_handler.room. */
void member_has_room(struct channel *channel);

/* A call of its agent's is over, which others had to wait for. */
void member_catch_up(struct channel *channel);

/* Its agent has gone to other agents, of the same worker. */
void member_follow(struct channel *channel, struct agents *to);

/*
 * upgrade() is about to run, which may fail: what it does to memberships that are there takes effect in
 * member_follow(), and never after member_restore(), which gives up those that it has made as well.
 */
void member_try(struct channel *channel);
void member_restore(struct channel *channel);

/* Calls message() of those for whom something waits, for host_stage_ticks(). */
void members_turn(struct agents *agents);

/* Handles the end of a CALL_HEARD: its action, its fault. Ends the run. */
void member_finish(struct agents *agents, struct run *run, enum outcome outcome);
