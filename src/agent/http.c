#include "agent/http.h"

#include "agent/ledger.h"
#include "agent/record.h"
#include "agent/run.h"
#include "agent/websocket.h"
#include "base/err.h"
#include "conn/outgoing.h"

#include <stdio.h>
#include <string.h>
#include <uv.h>

void http_open_worker(struct agents *agents)
{
	struct conn_host *host = agents->host;
	agents->http = (struct http_worker){ .pool = &host->pool,
					     .counters = agents->counters,
					     .now_ms = &host->now_ms,
					     .epoch_ms = &host->epoch_ms };
}

/* ---- requests ---- */

enum { REQUEST_VALUES = 6 };

static void push_part(lua_State *lua, bool is_there, const uint8_t *data, size_t n)
{
	if (is_there)
		lua_pushlstring(lua, (const char *)data, n);
	else
		lua_pushnil(lua);
}

/* What requests.single() takes: head, connection's id, method or nil for GET, path, query or nil, body or nil. */
static void push_request(struct agents *agents, lua_State *lua, const struct batch *batch, unsigned count)
{
	const struct conn *conn = host_decoding(agents->host);
	const struct http_request *request = http_pending(&conn->session);
	const uint8_t *data = batch->frames[0].data;
	size_t len = batch->frames[0].len;
	(void)count;
	push_part(lua, true, data, request->head_bytes);
	lua_pushnumber(lua, (lua_Number)conn->first.id);
	push_part(lua, request->method_bytes != 3 || memcmp(data, "GET", 3) != 0, data,
		  request->method_bytes);
	if (request->has_path)
		push_part(lua, true, data + request->path_at, request->path_bytes);
	else
		lua_pushliteral(lua, "/");
	push_part(lua, request->has_query, data + request->query_at, request->query_bytes);
	push_part(lua, len > request->head_bytes, data + request->head_bytes, len - request->head_bytes);
}

static int request_loop(const struct agent_endpoint *endpoint)
{
	return endpoint->loop_ref; /* they come one by one: nobody asks for it */
}

/* ---- onto the tape ---- */

/* A body that was chunked is one chunk. */
void http_record_in(struct channel *channel, const struct batch *batch)
{
	static const char END[] = "\r\n0\r\n\r\n";
	const struct http_request *request = http_pending(&channel->conn->session);
	const struct frame *frame = &batch->frames[0];
	size_t body_bytes = frame->len - request->head_bytes;
	char size[24];
	struct record_part parts[] = {
		{ frame->data, request->head_bytes },
		{ size, 0 },
		{ frame->data + request->head_bytes, body_bytes },
		{ END, request->is_chunked ? sizeof END - 1 : 0 },
	};
	if (request->is_chunked && body_bytes)
		parts[1].len = (size_t)snprintf(size, sizeof size, "%zx\r\n", body_bytes);
	else if (request->is_chunked)
		parts[3] = (struct record_part){ END + 2, sizeof END - 3 };
	record_parts(channel, TRACE_IN, parts, sizeof parts / sizeof *parts);
}

void http_record_head(struct channel *channel, const struct http_response *response, const char *bytes)
{
	size_t rest = response->date_at + response->date_bytes;
	const struct record_part parts[] = {
		{ bytes, response->date_at },
		{ bytes + rest, response->bytes - rest },
	};
	record_parts(channel, TRACE_OUT, parts, sizeof parts / sizeof *parts);
}

/* ---- responses ---- */

static const char TEXT_FIELD[] = "Content-Type: text/plain; charset=utf-8\r\n";

#define NO_REQUEST "there is no request to answer: an HTTP agent answers each once, by what proceed returns"

struct sending {
	struct channel *channel;
	struct http_response *response;
};

static int append_response(void *data, struct session *session, struct buf_pool *pool, struct buf **out)
{
	struct sending *sending = data;
	struct http_response *response = sending->response;
	struct channel *channel = sending->channel;
	int err = http_respond(http_of(channel->conn->protocol), session, response, pool, out);
	if (__builtin_expect(channel->recorded, 0) && !err)
		http_record_head(channel, response,
				 (const char *)(*out)->data + (*out)->end - response->bytes);
	return err;
}

void http_forget_frame(struct conn *conn)
{
	if (conn->host->decoding == conn)
		conn->host->batch.frames[0] = (struct frame){ 0 };
}

/* The call that has failed and is being answered, or NULL. */
static const struct run *failing_in(const struct channel *channel)
{
	const struct run *failing = agents_of_channel(channel)->failing;
	return failing && failing->channel == channel ? failing : NULL;
}

void http_answered(struct channel *channel, bool is_last, bool keeps)
{
	http_forget_frame(channel->conn);
	const struct run *failing = failing_in(channel);
	enum close_reason reason = failing                   ? fault_reason(failing)
				   : !keeps                  ? REASON_PEER
				   : channel->conn->draining ? REASON_DRAIN
							     : REASON_AGENT;
	if (is_last)
		channel_close(channel, reason, CLOSE_FLUSH);
}

static bool send_response(struct channel *channel, lua_State *lua, struct http_response *response)
{
	enum { INTERNAL_SERVER_ERROR = 500 };
	const struct http_request *request = http_pending(&channel->conn->session);
	bool is_asked_to_close = request && !request->keeps;
	response->closes |= channel->conn->draining;
	struct sending sending = { channel, response };
	int err = channel_send_by(channel, append_response, &sending,
				  response->field_bytes + response->body_bytes + PROTOCOL_OVERHEAD_MAX);
	if (err == ERR_FRAME_REPLY) {
		lua_pushliteral(lua, NO_REQUEST);
		return false;
	}
	if (err)
		return true; /* the connection ends: there is nobody to tell */
	if (response->status == INTERNAL_SERVER_ERROR && failing_in(channel))
		count(&channel->conn->host->counters->http_500);
	http_answered(channel, response->is_last, !is_asked_to_close);
	return true;
}

static bool send_text(struct channel *channel, lua_State *lua, int idx, bool closes)
{
	size_t n;
	const char *body = lua_tolstring(lua, idx, &n);
	struct http_response response = { .status = 200,
					  .fields = TEXT_FIELD,
					  .field_bytes = sizeof TEXT_FIELD - 1,
					  .body = body,
					  .body_bytes = n,
					  .closes = closes };
	return send_response(channel, lua, &response);
}

static const char *made_part(lua_State *lua, int idx, int i, size_t *n)
{
	*n = 0;
	lua_rawgeti(lua, idx, i);
	return lua_type(lua, -1) == LUA_TSTRING ? lua_tolstring(lua, -1, n) : NULL;
}

/* What requests.ready() makes: { status, fields, body, closes }. */
static bool send_made(struct channel *channel, lua_State *lua, int idx, bool closes)
{
	struct http_response response = { .closes = closes };
	lua_rawgeti(lua, idx, 1);
	double status = lua_type(lua, -1) == LUA_TNUMBER ? lua_tonumber(lua, -1) : 0;
	response.fields = made_part(lua, idx, 2, &response.field_bytes);
	response.body = made_part(lua, idx, 3, &response.body_bytes);
	lua_rawgeti(lua, idx, 4);
	response.closes |= lua_toboolean(lua, -1);
	if (!(status >= 200 && status <= 999) || !response.fields || !response.body) {
		lua_pushliteral(lua, "something was written into this response, which is of no use any more");
		return false;
	}
	response.status = (unsigned)status;
	return send_response(channel, lua, &response);
}

/*
 * MAY RAISE in a call of a handler's. In place of the value at idx, what requests.ready() makes of it. False with an
 * error message pushed.
 */
static bool make_ready(struct agents *agents, struct channel *channel, lua_State *lua, int idx)
{
	lua_getfield(lua, LUA_REGISTRYINDEX, "perilune.requests.ready");
	lua_pushvalue(lua, idx);
	if (agents->current) {
		lua_call(lua, 1, 1);
	} else {
		bool opened = ledger_open(agents, channel);
		int status = vm_pcall(&agents->vm, lua, 1, 1, &agent_endpoint_of(channel)->budget);
		if (opened)
			ledger_close(agents);
		if (status) {
			agents->reply_verdict = agents->vm.verdict;
			return false;
		}
	}
	lua_replace(lua, idx);
	return true;
}

static bool is_text(lua_State *lua, int idx)
{
	int type = lua_type(lua, idx);
	return type == LUA_TSTRING || type == LUA_TNUMBER;
}

/* Of conn:send(). */
static bool http_send(struct agents *agents, struct channel *channel, lua_State *lua, int idx, bool *below)
{
	*below = true;
	if (lua_isnoneornil(lua, idx))
		return true;
	bool ok = is_text(lua, idx)
		      ? send_text(channel, lua, idx, false)
		      : make_ready(agents, channel, lua, idx) && send_made(channel, lua, idx, false);
	*below = !channel->conn->choked;
	return ok;
}

static bool send_no_content(struct channel *channel, lua_State *lua, bool closes)
{
	struct http_response response = { .status = 204, .fields = "", .body = "", .closes = closes };
	return send_response(channel, lua, &response);
}

/* Does it end HTTP here, as websocket_accept() has it? */
static bool is_switch(lua_State *lua, int idx)
{
	enum { SWITCHING_PROTOCOLS = 101 };
	lua_rawgeti(lua, idx, 1);
	bool is = lua_type(lua, -1) == LUA_TNUMBER && lua_tonumber(lua, -1) == SWITCHING_PROTOCOLS;
	lua_pop(lua, 1);
	return is;
}

bool http_answer(struct agents *agents, struct run *run, lua_State *lua, int idx)
{
	struct channel *channel = run->channel;
	bool is_proceed = run->callback == CALL_PROCEED, is_failed = run->callback == CALL_FAILED;
	bool closes = is_failed || lua_toboolean(lua, idx + 1); /* a fault ends it, and so does an action */
	/* One that is under way cannot be answered otherwise, and ends with the connection. */
	if (http_framing_of(&channel->conn->session) && (is_failed || !lua_toboolean(lua, idx)))
		return true;
	if (!lua_toboolean(lua, idx))
		return !is_proceed || !http_pending(&channel->conn->session) ||
		       send_no_content(channel, lua, closes);
	if (!is_proceed && !is_failed) {
		lua_pushfstring(lua, "%s cannot answer: of an HTTP agent only proceed does",
				callback_name(run->callback));
		return false;
	}
	if (is_text(lua, idx))
		return send_text(channel, lua, idx, closes);
	if (is_failed && !make_ready(agents, channel, lua, idx))
		return false;
	if (is_proceed && is_switch(lua, idx))
		return websocket_accept(agents, channel, lua, idx);
	return send_made(channel, lua, idx, closes);
}

const struct message_kind MESSAGE_REQUESTS = {
	.push = push_request,
	.loop = request_loop,
	.send = http_send,
	.answer = http_answer,
	.more = REQUEST_VALUES - 1,
};
