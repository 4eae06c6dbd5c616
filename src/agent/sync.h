/*
 * Channels and semaphores: what calls of a worker wait for and give each other.
 *
 * Both are Lua tables whose state is at integer keys and is changed here, in C and at once, so that no call that is
 * ended in between leaves half of a change. Who waits stands in the table's line (line.h). A table needs no finaliser,
 * and goes when nobody has it.
 *
 * A permit that semaphore:with() takes is held by the call: when that is over, however it ends, it goes back.
 *
 * Threads: the one that has the agents. Functions that take a lua_State MAY RAISE, and have changed nothing then.
 */
#pragma once

#include "agent/line.h"

/* Keys. */
enum {
	CHANNEL_FIRST = -1,    /* no value is before this key; they have those that follow, with gaps */
	CHANNEL_COUNT = -2,    /* of values */
	CHANNEL_CAPACITY = -3, /* so many may wait without a sender that waits */
	CHANNEL_CLOSED = -4,   /* 1: it is */
	CHANNEL_NEXT =
	    -5, /* the key of the next value that is sent, whether it waits here or is somebody's at once */
	SEMAPHORE_PERMITS = -1
};

/* Of each VM, while its script is loaded. MAY RAISE. */
void sync_open(lua_State *lua);

lua_Integer sync_get(lua_State *lua, int object, int key);

/* ---- channels; `channel` and `semaphore` are stack indices, from the bottom ---- */

/* The value on top of the stack goes to who waits for it, or waits itself; it is popped. False: neither, and it stays. */
bool sync_put(lua_State *lua, int channel);

/* Pushes the oldest value. False: there is none, and nothing is pushed. */
bool sync_take(lua_State *lua, int channel);

/* Those who wait are told, and values that are there can still be taken. */
void sync_close(lua_State *lua, int channel);

/* ---- semaphores ---- */

/* False: there is none left. `holder`: the call that it goes back with, or NULL. */
bool sync_acquire(lua_State *lua, int semaphore, struct run *holder);

void sync_release(lua_State *lua, int semaphore);

/* A permit that the call holds goes back before it is over. */
void sync_unhold(lua_State *lua, int semaphore, const struct run *holder);

/* ---- outside of calls ---- */

/* What the call was given and will not use. */
void sync_give_back(struct agents *agents, struct run *run);

/* The call of that serial is over. */
void sync_release_held(struct agents *agents, uint64_t serial);
