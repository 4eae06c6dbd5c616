/*
 * How Lua sees HTTP: requests as values, and what handlers return as responses. The Lua side is
 * lua/perilune/requests.lua, which has a handler's value checked and ready before it comes here.
 *
 * Threads: the worker's.
 */
#pragma once

#include "agent/message.h"
#include "http/http.h"

struct run;

extern const struct message_kind MESSAGE_REQUESTS;

/* What is read of a request's body while it is served: struct http's `rest`. */
extern const struct message_kind MESSAGE_REST;

/*
 * What a callback has returned at idx, with its action behind it: the response of proceed() or of failed(). False with
 * an error message pushed.
 */
bool http_answer(struct agents *agents, struct run *run, lua_State *lua, int idx);

/*
 * Responses in pieces, by calls of the handler that has the request. The codes are those of http/http.h; and UV_EPIPE:
 * the connection ends.
 */
int pieces_begin(struct channel *channel, struct http_response *response, const uint64_t *length);
int pieces_add(struct channel *channel, const void *data, size_t n);
int pieces_add_from_file(struct channel *channel, size_t n, size_t *added);

/* The same without a copy, as far as the system takes them so; *added is 0 where it does not. 0 or UV_EPIPE. */
int pieces_pass_file(struct channel *channel, size_t n, size_t *added);
int pieces_end(struct channel *channel, const char *trailers, size_t n);

/* Nobody writes the rest of the event that is amid. Has a part of it gone? Then nothing can follow, and all ends. */
void pieces_forsake(struct channel *channel, bool is_torn);

/* How many bytes a piece has at most; and has the connection room for one, so that nobody has to wait for it? */
size_t pieces_size(const struct channel *channel);
bool pieces_has_room(const struct channel *channel);

/* Onto the tape: a response's head, without its date: a replay has another one. */
void http_record_head(struct channel *channel, const struct http_response *response, const char *bytes);

/* The bytes of the request that is being answered are gone: a fault has none of them to show. */
void http_forget_frame(struct conn *conn);

/* A response is whole: the connection goes on, or ends if it is the last. `keeps`: the client would have it go on. */
void http_answered(struct channel *channel, bool is_last, bool keeps);

/* Onto the tape: the request that is being handed up, as it could have come; and a piece of its body. */
void http_record_in(struct channel *channel, const struct batch *batch);
void http_record_rest(struct channel *channel, const struct batch *batch);

/* Sends 100 Continue, if the client waits for that. */
void http_let_body_come(struct channel *channel);

/* Does the call that is suspended wait for all of a body? What is wrong with that concerns the client alone. */
bool http_waits_for_all(const struct channel *channel);

/* What the connections of these agents share. They have their host and their counters. */
void http_open_worker(struct agents *agents);

static inline bool http_is_spoken(const struct channel *channel)
{
	return messages_of(channel) == &MESSAGE_REQUESTS;
}
