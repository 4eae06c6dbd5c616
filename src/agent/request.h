/*
 * A connection out that several agents share: each sends a request, and the replies come in the order of the requests.
 *
 * Who has gone, or does not wait any more, keeps its place: the reply that comes for it is dropped, and nobody else
 * gets it. A reply that nobody has asked for ends the connection, and so do those that are still owed when it ends:
 * each who waits is told why.
 *
 * Threads: the one that has the agents.
 */
#pragma once

#include "agent/client.h"

/*
 * The connection is the app's from now on, and idles: its owner's no more, whose conn object finds nothing any more,
 * for its channel has the new id. False: it is of no use to others. There is something to be read on it, or to be written;
 * it has ended; somebody waits for it, or has waited in vain: what comes late is not the next one's; or something of it
 * was changed.
 */
bool client_release(struct agents *agents, struct client *client, uint64_t new_id);

/* One that idles belongs to who has `work` from now on. False: it has said something meanwhile, or has ended. */
bool client_acquire(struct client *client, struct work *work);

/* One that idles is shared from now on: each frame of it is a reply to a request. */
void client_share(struct client *client);

/* One that somebody waits for, or nobody any more; in the order of the requests. */
struct request {
	struct errand errand; /* first; of a call that is suspended until the reply comes */
	struct request *next;
	uint64_t sent_ms;
	bool is_forward;           /* it is the beginning of a struct forward: forward.h */
	struct forwards *forwards; /* of one: whose reply it is; NULL: nobody's any more */
};

/* A frame was sent, and the reply is owed to this request. */
void request_append(struct client *client, struct request *request);

/*
 * MAY RAISE. The data at idx of lua's stack is sent, and the reply is owed to the request whose memory *unborn is: it
 * is the client's then, and *unborn NULL. What raises leaves it there.
 */
struct request *request_post(lua_State *lua, struct client *client, int idx, struct request **unborn);

/*
 * MAY RAISE, MAY YIELD: return what it returns. The data at idx of lua's stack is sent, and the run waits for the reply
 * to it; 0 ms: any time. Of a connection that is shared.
 */
int request_send(lua_State *lua, struct run *run, struct client *client, int idx, uint32_t ms);

/*
 * May one be sent? Not where something has come that nobody has asked for: it would be taken for the reply. The
 * connection ends then.
 */
bool request_may_send(struct client *client);

/* For how long it has said nothing, though it owes a reply; 0 as long as the process may not have heard it. */
uint64_t request_silence_ms(const struct client *client);

/* Replies have come, in a batch. Returns how many were used. */
unsigned request_frames(struct client *client, const struct batch *batch);

/*
 * Those who wait for a reply are told that it does not come: what `push` pushes, as many values as it returns. False:
 * there are more of them, for the connection's next turn.
 */
bool request_end_some(struct client *client,
		      int (*push)(lua_State *lua, const struct conn *conn, enum close_reason reason),
		      enum close_reason reason);
