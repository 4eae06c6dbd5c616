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

/*
 * What a callback has returned at idx, with its action behind it: the response of proceed() or of failed(). False with
 * an error message pushed.
 */
bool http_answer(struct agents *agents, struct run *run, lua_State *lua, int idx);

/* Onto the tape: the request that is being handed up, as it could have come. */
void http_record_in(struct channel *channel, const struct batch *batch);

/* What the connections of these agents share. They have their host and their counters. */
void http_open_worker(struct agents *agents);

static inline bool http_is_spoken(const struct channel *channel)
{
	return messages_of(channel) == &MESSAGE_REQUESTS;
}
