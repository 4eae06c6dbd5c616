/*
 * Requests whose replies are a call's own: pool:forward().
 *
 * A handler returns what it got from pool:forward() in the place of a reply, and its call is over. What comes from the
 * connection that is asked goes straight to the one that has asked, in the order of the frames: replies that are there
 * already wait for those before them. The run waits for all of that as one that has returned (WAIT_OWED), and so its
 * agent gets no frames meanwhile. Nothing is suspended, and Lua is entered for none of the replies.
 *
 * Threads: the one that has the agents.
 */
#pragma once

#include "agent/request.h"

enum forward_state {
	FORWARD_OWED,
	FORWARD_GIVEN, /* its reply has come before its call has returned */
	FORWARD_LOST,  /* the same, and there is none */
};

/* A request, and whose reply it is. */
struct forward {
	struct request request; /* first */
	struct forward *next;   /* of the same call, in the order of its frames */
	struct client *client;
	uint64_t until_ms; /* when its reply must be there; WHEEL_NEVER: any time */
	unsigned index;    /* the frame's, in the call's batch */
	uint8_t state;     /* enum forward_state */
	int value_ref;     /* the reply if there is none; FORWARD_GIVEN: the reply; or LUA_NOREF */
};

/* Of one call. */
struct forwards {
	struct run *run;              /* NULL: it is neither suspended nor over */
	struct forward *first, *last; /* those that are of use still */
	struct request *unsent;       /* of a forward whose data is being sent, or NULL */
	unsigned newest;              /* the frame that was forwarded last, from 1 */
};

enum { FORWARDS_KEPT = 1000 }; /* of the memory of those that are over, for the next ones */

#define FORWARD_NOT_RETURNED \
	"a frame was forwarded, and its handler has returned something else: write return pool:forward(…)"

/* What a handler returns for one: `true`, which is nothing that could be sent. */
static inline bool forward_is_token(lua_State *lua, int idx)
{
	return lua_type(lua, idx) == LUA_TBOOLEAN && lua_toboolean(lua, idx);
}

/* May the running call have one? Where it may not, a request does the same: request_send(). depth: as many replies may
 * be owed. */
bool forward_is_possible(struct client *client, uint32_t depth);

/*
 * The same as forward_send(), of bytes and with the time-out of the connection, as LuaJIT's compiled code calls it
 * (lua/perilune/pooling.lua declares it): it calls nothing of Lua's that could raise. `id` is the connection's, which
 * is asked unless forward_choose() finds another; as many replies may be owed: `first_depth` by it, `depth` by the
 * other. False: nothing was done, and l_forward() says why or finds another way.
 */
bool forward_bytes(struct agents *agents, double id, uint32_t first_depth, uint32_t depth, const char *data,
		   size_t len);

/*
 * Instead of this connection the one, to the same endpoint, that owes the running call a reply already: what one client
 * sends in a batch is carried out in its order.
 */
struct client *forward_choose(const struct agents *agents, struct client *client);

/*
 * MAY RAISE. The data at idx is sent, and the reply is the running call's: it is to return the token, which is pushed.
 * 0 ms: it may come at any time. At `otherwise` lies the reply that is given if none comes; nil, or nothing: the
 * connection ends.
 */
void forward_send(lua_State *lua, struct client *client, int idx, uint32_t ms, int otherwise);

/*
 * The call has returned. FORWARD_HELD: it waits for replies, and is not over. FORWARD_FAILED: what it has returned
 * cannot be sent, or there is no memory to wait; an error message is on the VM's stack.
 */
enum forward_hold { FORWARD_NONE, FORWARD_HELD, FORWARD_FAILED };
enum forward_hold forward_hold(struct agents *agents, struct run *run);

/* Its reply has come; it is no request any more. */
void forward_reply(struct forward *forward, const struct batch *batch, unsigned i);

/* The same, and it does not come. */
void forward_fail(struct forward *forward);

/* Those whose time is over have not come. */
void forward_time_out(struct agents *agents, struct run *run, uint64_t now_ms);

/* With the agents. */
void forward_free_kept(struct agents *agents);

/* The call is over, or never goes on: nobody waits for its replies. */
void forward_end(struct agents *agents, struct run *run);
