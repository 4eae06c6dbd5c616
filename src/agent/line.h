/*
 * Lines: calls that wait for the same Lua object, such as a channel or a semaphore, in the order in which they came.
 *
 * A line is there while calls wait in it. Whoever gives one of them what it waits for calls it out of the line, in C and
 * at once, so no other can take that: line_call(). It goes on in agents_turn(). If it is cancelled before that, what it
 * was given is given back (line_forsake()), and so the next one is called: no wake-up is lost.
 *
 * Threads: the one that has the agents.
 */
#pragma once

#include "agent/run.h"

/* What a call was given that somebody else could use, if it does not. */
enum line_gift {
	GIFT_NONE,
	GIFT_VALUE,  /* of a channel: on top of its coroutine's stack */
	GIFT_PERMIT, /* of a semaphore */
	GIFT_CONN,   /* a connection out, whose id is the key: client.h */
};

struct line {
	struct wheel_node waiting; /* a list of struct run, by line_place.node */
	unsigned called;           /* out of it, and not yet gone on */
	int object_ref;            /* the Lua object, in the registry */
};

/* Of each VM, while its script is loaded. MAY RAISE. */
void line_open(lua_State *lua);

/* The line of the object at idx, or NULL: nobody waits for it. */
struct line *line_of(lua_State *lua, int idx);

/*
 * MAY RAISE. The running call is to wait for the object at idx once it has yielded: with bind_wait() or the like, as
 * WAIT_LINE, at once.
 */
void line_join(lua_State *lua, int idx, struct run *run);

/* run_enter() found that it has yielded: it is in the line now. */
void line_enter(struct run *run);

/* How many stand in it; NULL: nobody. */
unsigned line_count(const struct line *line);

/* Who is first, or NULL; it stays where it is. */
struct run *line_first(const struct line *line);

/* Takes it out of its line: it goes on with the `nargs` values on its coroutine's stack, which are its `gift`. */
void line_call(struct agents *agents, struct run *run, int nargs, enum line_gift gift);

/* A call that is not in a line, or was never in one, goes on in agents_turn(), as after line_call(). */
void line_ready(struct agents *agents, struct run *run, int nargs);

/* It waits no longer, as its time is over or it goes on now. */
void line_leave(struct agents *agents, struct run *run);

/* It will never go on: gives back what it was given, and leaves. */
void line_forsake(struct agents *agents, struct run *run);
