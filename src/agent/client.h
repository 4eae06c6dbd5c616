/*
 * Connections out, as agents have them: perilune.connect().
 *
 * One belongs to what has begun it, an agent or the app, and ends with that. It has an agent of its own, and is then as
 * any other connection; or it has none, and its owner's calls read from it in straight lines. Then its channel is busy
 * for as long as it lives: its frames wait, as those of an agent that is suspended, until a call reads one.
 *
 * A WebSocket begins with a handshake (client_websocket.c), whose answer is a frame of its own; what is behind it are
 * messages already. Its agent, if it is to have one, comes when that is over.
 *
 * Threads: the one that has the agents.
 */
#pragma once

#include "agent/work.h"
#include "conn/outgoing.h"
#include "http/handshake.h"

enum { WORK_CLIENTS_MAX = 10000 }; /* of one agent, or of the app */

/* What connections to one address, with the same options, have in common. */
struct client_endpoint {
	struct agent_endpoint endpoint; /* first */
	struct client_endpoint *next;   /* of agents->client_endpoints */
	unsigned users;                 /* connections, and those that are being made */
	uint64_t used;                  /* when it was last, as a number that grows */
	uint32_t connect_ms, read_ms;   /* 0: any time */
	uint32_t keepalive_ms;          /* TCP asks a silent peer after so long; 0: never */
	bool has_agent;
	bool is_websocket;          /* `handshake` is made, and then its `websocket` is spoken */
	struct handshake handshake; /* its texts are this endpoint's */
	int key_ref;                /* by what Lua finds it */
	char name[];
};

enum client_stage {
	CLIENT_DIALS,  /* there is no connection yet */
	CLIENT_OPENS,  /* ... whose layers are to open */
	CLIENT_SHAKES, /* ... of a WebSocket, whose handshake is under way */
	CLIENT_OPEN,
	CLIENT_ENDED,
};

/* Of a connection that is shared: request.h. */
struct requests {
	struct request *first, *last;
	unsigned count; /* replies that are owed */
	unsigned at;    /* in the batch: the reply that is being given */
};

/* There may be many that idle: what is needed at different times shares its place. */
struct client {
	union {
		struct attempt attempt; /* first; while it dials */
		struct {
			union {
				struct requests requests;
				uint8_t nonce[HANDSHAKE_NONCE_BYTES]; /* while it shakes */
			};
			uint64_t lessee; /* the call that it ends with, by its serial; 0: none */
		};
	};
	struct work *work; /* whose it is; NULL: that has ended, or it has */
	struct client *next, *prev;
	struct outgoing_conn *made; /* NULL: it dials */
	union {
		struct errand errand; /* until it is open: of who waits in perilune.connect */
		struct run *reader;   /* ... and then who waits in conn:read; NULL: nobody */
	};
	int16_t refusal; /* of a datagram that was sent, and of which nobody was told yet; 0: none */
	uint8_t stage;   /* enum client_stage */
	uint8_t subprotocol_bytes; /* of a WebSocket: the chosen one's; 0: there is none */
	uint16_t subprotocol_at;   /* ... where it is in handshake.subprotocols */
	uint8_t kept_in;           /* while it shakes: the window that it has offered; 0: none */
	bool is_leased : 1;        /* it is to end with the call that waits for it */
	bool is_idle : 1;          /* the app's, and nobody uses it */
	bool is_owing : 1;         /* a call has waited for a frame that has not come, and may come yet */
	bool is_shared : 1;        /* its frames are replies to requests of several */
};

static inline struct agents *client_agents(const struct client *client)
{
	return client->made ? client->made->conn.first.agents : client->work->channel->agents;
}

static inline struct client_endpoint *client_endpoint(const struct client *client)
{
	const struct endpoint *endpoint =
	    client->made ? client->made->conn.endpoint : client->attempt.endpoint;
	return (struct client_endpoint *)(void *)endpoint;
}

/* Are its frames for an agent of its own? */
static inline bool client_has_agent(const struct client *client)
{
	return client_endpoint(client)->has_agent && client->stage != CLIENT_SHAKES;
}

/* What calls it: a host of connections out has this. */
extern const struct conn_handler CLIENT_HANDLER;

/* The one of a connection out, whether it has an agent or not. */
static inline struct client *client_behind(const struct channel *channel)
{
	return ((const struct outgoing_conn *)(const void *)channel->conn)->client;
}

/* It is open: its agent comes, if it has one, and who waits for it goes on. */
void client_begin(struct client *client);

/* The client whose channel it is, or NULL: it is one of an incoming connection, or has an agent of its own. */
struct client *client_of(const struct channel *channel);

/*
 * Begins to connect for who has `work`; a call is to wait for its errand. The endpoint gains a user.
 * NULL: *err says why.
 */
struct client *client_dial(struct agents *agents, struct work *work, struct client_endpoint *endpoint,
			   const struct dial_target *target, int *err);

/* The run was told of a connection, and never goes on. */
void client_give_back(struct agents *agents, const struct run *run);

/* It belongs to who has `work` from now on. */
void client_move(struct client *client, struct work *work);

/* The call of that serial is over: what of its agent's it has leased ends. */
void client_end_leases(struct agents *agents, const struct channel *channel, uint64_t serial);

/* All that somebody has begun end with it. */
void client_end_all(struct work *work);

/*
 * A datagram that it has sent was refused: who reads is told, and if nobody does, who reads or sends next. The
 * connection goes on. Of one that has an agent nobody is told. From the loop.
 */
void client_refused(struct outgoing_conn *made, int err);

/* Pushes nil, message, code of a refusal that nobody was told of, once. Returns 3; 0: there is none. */
int client_push_refusal(lua_State *lua, struct client *client);

/* The carrier is about to free its memory. */
void client_gone(struct outgoing_conn *made);

/* Pushes nil, message, code of an error of libuv's. Returns 3. */
int client_push_error(lua_State *lua, int err, const char *why);

/* ---- WebSockets: client_websocket.c ---- */

/*
 * The handshake has failed: who waits is given nil, the message, the name of libuv's error, and the status of the
 * answer unless it is 0.
 */
void client_fail(struct client *client, const char *message, int err, unsigned status);

/* What it had for its handshake, which is over, is given back. */
void client_unshake(struct client *client);

/* Its layers have opened: asks. */
void client_shake(struct client *client);

/* The answer's head has come, the first of the batch. */
void client_shaken(struct client *client, const struct batch *batch);

/* What follows that are messages, and nothing is being decoded any more. */
void client_switched(struct client *client);

/* The subprotocol that was chosen, of *n bytes, or NULL. */
const char *client_subprotocol(const struct client *client, size_t *n);

/* ---- endpoints ---- */

/* The one of the key at idx of lua's stack, or NULL. MAY RAISE. */
struct client_endpoint *client_endpoint_of(lua_State *lua, int key);

/*
 * Keeps it under the key at idx, from where it is found until it was not used for long. MAY RAISE, and then it is the
 * caller's still.
 */
void client_keep_endpoint(lua_State *lua, int key, struct client_endpoint *endpoint);

/* One that nobody finds, and nobody uses. MAY RAISE. */
void client_drop_endpoint(lua_State *lua, struct client_endpoint *endpoint);

/* Without what it has in Lua, which may be gone. */
void client_free_endpoint(struct client_endpoint *endpoint);
void client_free_endpoints(struct agents *agents);
