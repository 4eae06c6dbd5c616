/*
 * How Lua sees WebSockets: messages as strings, with a table that says whether they are binary. And how a
 * connection of an http:// listener becomes one. The Lua side of that is lua/perilune/http/websocket.lua, which
 * has looked at the handshake before anything comes here.
 *
 * A ws:// listener is one for HTTP whose agent accepts WebSockets at one path, and refuses all else.
 *
 * Threads: the worker's.
 */
#pragma once

#include "agent/message.h"
#include "websocket/websocket.h"

struct run;

extern const struct message_kind MESSAGE_WEBSOCKET;

/* What the connections of these agents share. They have their host and their counters. windows_max: limits.deflate. */
void websocket_open_worker(struct agents *agents, uint64_t windows_max);

/* MAY RAISE. Keeps what push() needs: the two values that the function on top of the stack returns. Pops that. */
void websocket_open(lua_State *lua);

/* What a handshake has come to, on its way through Lua: it takes effect in the same call, and no other one between. */
lua_Number websocket_pack_terms(const struct websocket_terms *terms);

/*
 * What requests.ready() has made of an accepted handshake, { 101, fields, terms, agent, request }, is at
 * idx: the pending request is answered, and the connection is a WebSocket with an agent of its own. False with
 * an error message pushed.
 */
bool websocket_accept(struct agents *agents, struct channel *channel, lua_State *lua, int idx);

/* It goes on in another generation: what is of its listener is that one's. 0 or UV_ENOMEM. */
int websocket_follow(struct conn *conn, const struct agent_endpoint *websockets);

static inline bool websocket_has(const struct channel *channel)
{
	return !channel->lone && agent_endpoint_of(channel)->websocket.worker;
}

/* Sends a binary message. As channel_send(); ERR_FRAME_BETWEEN: another one is being sent in pieces. */
int websocket_send_binary(struct channel *channel, const void *data, size_t len, bool *below);

/* Sends a piece of the message that was begun. As channel_send(); ERR_FRAME_REPLY: the text is no UTF-8. */
int websocket_send_piece(struct channel *channel, const void *data, size_t len, bool is_last, bool *below);

/*
 * Onto the tape: a message that was sent, and one that is being handed up, as they could have gone over the
 * wire.
 */
void websocket_record_out(struct channel *channel, bool is_binary, const void *data, size_t len);
void websocket_record_in(struct channel *channel, const struct batch *batch);

/* ... and the peer's close frame, if there was one. */
void websocket_record_end(struct channel *channel);

static inline bool websocket_is_spoken(const struct channel *channel)
{
	return messages_of(channel) == &MESSAGE_WEBSOCKET;
}
