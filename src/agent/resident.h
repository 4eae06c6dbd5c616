/*
 * Agents without a socket, of the kinds that the script declares in `agents`.
 *
 * One is a channel that is on no connection. What a channel asks of its connection its kind has, in a connection that
 * never opens (as the app has one, work.h); what it changes there is told to this file (struct lone_ops). So all that an
 * agent may do is done as for any other: calls, tasks, timers, connections out, its migration, its end.
 *
 *   resident_begin() ──▶ on the wheel ──▶ ending ──▶ its closed(), and all that it has begun, have ended: freed
 *                          │      ▲
 *                          ▼      │
 *                        draining ┘
 *
 * It is in one of these at a time, by its node; while a call of it waits, in none. resident_settle() says where.
 *
 * Threads: the one that has the agents.
 */
#pragma once

#include "agent/agent.h"

struct name;
struct names_birth;
struct names_key;
struct letter;
struct post;
struct recipient;

/* There may be a million of them: what few have is elsewhere (work.h). */
struct resident {
	struct channel channel; /* first */
	struct wheel_node node; /* on the wheel, or in a list of struct residents */
	struct name *name;      /* "user:42", held */
	uint32_t
	    since_ms; /* of the clock, its lower half: a message has come, or a call that waited has ended */
	uint8_t reason;     /* enum close_reason, once its end was decided */
	bool begun : 1;     /* its opened() was called */
	bool has_taken : 1; /* ... and its message() */
	bool draining : 1;  /* it is to end when it is at nothing */
	bool drain_told : 1;
	bool drain_kept : 1; /* ... and has said that it ends by itself */
};

static inline struct resident *resident_of(const struct channel *channel)
{
	return (struct resident *)(void *)channel;
}

/* "user:42" */
const char *resident_name(const struct channel *channel);

/* ---- the kinds of a VM ---- */

/* Of each VM; nothing where its script declares none. False: there is no memory. */
bool residents_open(struct agents *agents, const struct config *config);

/* What the agents of a kind have in common: its place is that in the configuration. */
struct agent_endpoint *residents_endpoint(struct agents *agents, unsigned kind);

/* The agents have come to their worker. */
void residents_attach(struct agents *agents);

/* There are none any more. */
void residents_free(struct agents *agents);

/* How many there are. */
size_t residents_count(const struct agents *agents);

/* What becomes of those of a kind that another generation has: the policy of the kind, or of what is removed. */
enum reload_policy residents_policy(const struct agents *by, const char *kind);

/* ---- one of them ---- */

/*
 * Where messages to a name go that is one's: it is made, if it is not there. That may be in a call: its opened() is
 * called before the first of them, by resident_open(). NULL: there is no memory, no such kind any more, or the worker
 * ends.
 */
struct recipient *resident_recipient(struct post *post, const struct letter *letter);

/* Calls its opened(). It may have ended by then. From the loop. */
void resident_open(struct agents *agents, struct resident *resident);

/* By which it is answered, held. */
struct name *resident_address(const struct channel *channel);

/* The kind that such a name is of, or -1. */
int residents_kind_of(const struct agents *agents, struct names_key key);

/* What makes a name of that key, if it is of a kind. */
bool residents_birth(const struct agents *agents, struct names_key key, struct names_birth *birth);

/* It is not idle. */
void resident_touch(struct resident *resident);

/* It is given a message. */
void resident_take(struct resident *resident);

/* Something of it has changed: it is put where it belongs. */
void resident_settle(struct resident *resident);

/* The server goes away, or its generation does: it ends when it is at nothing, after its drain(). */
void resident_drain(struct channel *channel);

/* Its drain(), which has waited, has not said that it goes on. */
void resident_keep_no_more(struct channel *channel);

/* That has taken too long. */
void resident_end_drain(struct channel *channel);

/* Its end, which was asked for in vain, is taken back. */
void resident_go_on(struct channel *channel);

/* Its place in the kinds of another generation's agents, or -1. */
int resident_kind_in(const struct agents *agents, const struct channel *channel);

/* It belongs to these agents from now on, of which it has that kind; and to those before no more. */
void resident_move(struct channel *channel, struct agents *to, unsigned kind);

/* Push what its opener is told of it: "42", and "user:42". */
void resident_push_key(lua_State *lua, const struct channel *channel);
void resident_push_name(lua_State *lua, const struct channel *channel);

/* ---- turns ---- */

/* Those that are idle, drain or end, as far as there is time. */
void residents_turn(struct agents *agents, uint64_t now_ms);

/* When that must next run. */
uint64_t residents_next_ms(const struct agents *agents);
