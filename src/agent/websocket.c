#include "agent/websocket.h"

#include "agent/http.h"
#include "agent/member.h"
#include "agent/record.h"
#include "agent/run.h"
#include "base/err.h"
#include "conn/outgoing.h"

#include <string.h>
#include <uv.h>

void websocket_open_worker(struct agents *agents, uint64_t windows_max)
{
	agents->websocket = (struct websocket_worker){ .pool = &agents->host->pool,
						       .counters = agents->counters,
						       .windows_max = windows_max };
}

/* ---- messages ---- */

#define META_TEXT "perilune.websocket.text" /* in the registry: what is handed up with each message */
#define META_BINARY "perilune.websocket.binary"

void websocket_open(lua_State *lua)
{
	lua_getfield(lua, LUA_REGISTRYINDEX, META_TEXT);
	bool is_open = !lua_isnil(lua, -1);
	lua_pop(lua, 1);
	if (is_open) {
		lua_pop(lua, 1);
		return;
	}
	lua_call(lua, 0, 2);
	lua_setfield(lua, LUA_REGISTRYINDEX, META_BINARY);
	lua_setfield(lua, LUA_REGISTRYINDEX, META_TEXT);
}

static void websocket_push(struct agents *agents, lua_State *lua, const struct batch *batch, unsigned count)
{
	const struct conn *conn = host_decoding(agents->host);
	(void)count;
	lua_pushlstring(lua, (const char *)batch->frames[0].data, batch->frames[0].len);
	lua_getfield(lua, LUA_REGISTRYINDEX, websocket_is_binary(&conn->session) ? META_BINARY : META_TEXT);
}

static int message_loop(const struct agent_endpoint *endpoint)
{
	return endpoint->loop_ref; /* they come one by one: nobody asks for it */
}

/* The code and the text of the peer's close frame. */
static int websocket_push_end(lua_State *lua, const struct channel *channel)
{
	const char *text;
	size_t n;
	unsigned code = websocket_peers_code(&channel->conn->session, &text, &n);
	if (!code)
		return 0;
	lua_pushinteger(lua, (lua_Integer)code);
	lua_pushlstring(lua, text, n);
	return 2;
}

const struct message_kind MESSAGE_WEBSOCKET = {
	.push = websocket_push,
	.loop = message_loop,
	.push_end = websocket_push_end,
	.more = 1,
};

static int append_binary(void *data, struct session *session, struct buf_pool *pool, struct buf **out)
{
	struct channel *channel = ((void **)data)[0];
	const struct reply *reply = ((void **)data)[1];
	const struct conn *conn = channel->conn;
	if (conn->next_protocol)
		session = NULL;
	return websocket_append(websocket_of(conn_speaks(conn)), session, true, reply, pool, out);
}

int websocket_send_binary(struct channel *channel, const void *data, size_t len, bool *below)
{
	struct reply reply = { data, len };
	int err = channel_send_by(channel, append_binary, (void *[]){ channel, &reply },
				  len + PROTOCOL_OVERHEAD_MAX);
	*below = !channel->conn->choked;
	if (__builtin_expect(channel->recorded, 0) && !err)
		websocket_record_out(channel, true, data, len);
	return err;
}

struct message_piece {
	struct channel *channel;
	struct reply reply;
	bool is_last;
};

static int append_piece(void *data, struct session *session, struct buf_pool *pool, struct buf **out)
{
	const struct message_piece *piece = data;
	size_t before = buf_len(*out);
	int err = websocket_append_piece(websocket_of(piece->channel->conn->protocol), session,
					 piece->is_last, &piece->reply, pool, out);
	if (!err)
		record_appended(piece->channel, *out, before);
	return err;
}

int websocket_send_piece(struct channel *channel, const void *data, size_t len, bool is_last, bool *below)
{
	struct message_piece piece = { channel, { data, len }, is_last };
	int err = channel_send_by(channel, append_piece, &piece, len + PROTOCOL_OVERHEAD_MAX);
	*below = !channel->conn->choked;
	return err;
}

/* ---- onto the tape ---- */

void websocket_record_out(struct channel *channel, bool is_binary, const void *data, size_t len)
{
	uint8_t head[WEBSOCKET_HEAD_MAX];
	struct record_part parts[] = { { head, websocket_head(head, is_binary, len) }, { data, len } };
	record_parts(channel, TRACE_OUT, parts, 2);
}

/* In one frame, with a mask that changes nothing. */
void websocket_record_in(struct channel *channel, const struct batch *batch)
{
	static const uint8_t MASK[4];
	const struct frame *frame = &batch->frames[0];
	uint8_t head[WEBSOCKET_HEAD_MAX];
	size_t n = websocket_head(head, websocket_is_binary(&channel->conn->session), frame->len);
	head[1] |= 0x80;
	struct record_part parts[] = { { head, n }, { MASK, sizeof MASK }, { frame->data, frame->len } };
	record_parts(channel, TRACE_IN, parts, 3);
}

void websocket_record_end(struct channel *channel)
{
	enum { NOTHING_SAID = 1005 };
	const char *text;
	size_t n;
	unsigned code = websocket_peers_code(&channel->conn->session, &text, &n);
	uint8_t bytes[8] = { 0x88, 0x80, 0, 0, 0, 0, (uint8_t)(code >> 8), (uint8_t)code };
	if (!code)
		return;
	bool is_empty = code == NOTHING_SAID;
	bytes[1] |= (uint8_t)(is_empty ? 0 : 2 + n);
	struct record_part parts[] = { { bytes, is_empty ? 6 : sizeof bytes }, { text, n } };
	record_parts(channel, TRACE_IN, parts, 2);
}

/* ---- from HTTP ---- */

struct accepted {
	struct channel *channel;
	const char *fields;
	size_t field_bytes;
};

static int append_switch(void *data, struct session *session, struct buf_pool *pool, struct buf **out)
{
	const struct accepted *accepted = data;
	size_t before = buf_len(*out);
	int err = http_switch(session, accepted->fields, accepted->field_bytes, pool, out);
	if (!err)
		record_appended(accepted->channel, *out, before);
	return err;
}

int websocket_follow(struct conn *conn, const struct agent_endpoint *websockets)
{
	struct websocket own = websockets->websocket;
	own.terms = websocket_of(conn->protocol)->terms;
	bool compresses = own.terms.window_bits;
	const struct protocol *protocol = compresses ? &own.protocol : websockets->endpoint.protocol;
	return conn_set_protocol(conn, protocol, compresses ? sizeof own : 0);
}

/* The connection speaks WebSocket from here on. 0 or UV_ENOMEM. */
static int switch_protocol(struct conn *conn, struct agent_endpoint *websockets,
			   const struct websocket_terms *terms)
{
	websockets->endpoint.slot = conn->endpoint->slot;
	struct websocket own = websockets->websocket;
	own.terms = *terms;
	bool compresses = terms->window_bits;
	const struct protocol *protocol = compresses ? &own.protocol : &websockets->websocket.protocol;
	return conn_change(conn, &websockets->endpoint, protocol, compresses ? sizeof own : 0);
}

/* As when a connection is opened: the agent at idx, or what makes it of the request behind it, in place of HTTP's. */
static void open_agent(struct agents *agents, struct channel *channel, lua_State *lua, int idx)
{
	struct run run;
	agent_release(agents, channel);
	if (channel->has_hub) /* the other agent's */
		member_end(channel);
	run_begin(agents, &run, channel, CALL_OPENED);
	lua_rawgeti(run.co.lua, LUA_REGISTRYINDEX, agent_endpoint_of(channel)->opener_ref);
	agent_push_conn(agents, run.co.lua, channel);
	lua_pushvalue(lua, idx);
	lua_pushvalue(lua, idx + 1);
	lua_xmove(lua, run.co.lua, 2);
	enum outcome outcome = run_enter(agents, &run, 3);
	if (outcome != RUN_SUSPENDED)
		callback_finish(agents, &run, outcome);
}

lua_Number websocket_pack_terms(const struct websocket_terms *terms)
{
	return terms->window_bits | terms->kept_out << 4 | terms->kept_in << 8;
}

static bool is_window(unsigned bits, unsigned most)
{
	return !bits || (bits >= WEBSOCKET_BITS_MIN && bits <= most);
}

/* False: it is no number of websocket_pack_terms(). */
static bool unpack_terms(lua_Number number, struct websocket_terms *terms)
{
	unsigned bits = number >= 0 && number < 1 << 12 ? (unsigned)number : 1;
	*terms = (struct websocket_terms){ bits & 15, bits >> 4 & 15, bits >> 8 & 15 };
	return number == bits && (!terms->window_bits ? !bits : terms->window_bits >= 8) &&
	       is_window(terms->kept_out, terms->window_bits) &&
	       is_window(terms->kept_in, WEBSOCKET_BITS_MAX);
}

#define IS_SPOILED "something was written into this response, which is of no use any more"

bool websocket_accept(struct agents *agents, struct channel *channel, lua_State *lua, int idx)
{
	struct agent_endpoint *websockets = agent_endpoint_of(channel)->websockets;
	struct accepted accepted = { .channel = channel };
	lua_rawgeti(lua, idx, 2);
	lua_rawgeti(lua, idx, 3);
	lua_rawgeti(lua, idx, 4);
	lua_rawgeti(lua, idx, 5);
	int agent = lua_gettop(lua) - 1;
	struct websocket_terms terms;
	bool is_right =
	    lua_type(lua, agent - 2) == LUA_TSTRING && unpack_terms(lua_tonumber(lua, agent - 1), &terms);
	if (!is_right || !websockets || lua_isnil(lua, agent)) {
		lua_pushliteral(lua, IS_SPOILED);
		return false;
	}
	accepted.fields = lua_tolstring(lua, agent - 2, &accepted.field_bytes);
	int err =
	    channel_send_by(channel, append_switch, &accepted, accepted.field_bytes + PROTOCOL_OVERHEAD_MAX);
	if (err == ERR_FRAME_REPLY) {
		lua_pushliteral(lua, "there is no request to answer");
		return false;
	}
	if (err)
		return true; /* the connection ends: there is nobody to tell */
	if (http_pending(
		&channel->conn->session)) { /* its client reads nothing, and what is sent is dropped */
		channel_close(channel, REASON_SLOW_CONSUMER, CLOSE_NOW);
		return true;
	}
	if (switch_protocol(channel->conn, websockets, &terms)) {
		channel_close(channel, REASON_MEMORY, CLOSE_NOW);
		return true;
	}
	if (channel_is_open(channel)) {
		count(&agents->counters->websockets);
		/* Where opened() fails, nothing of this call is on the stack any more. */
		open_agent(agents, channel, lua, agent);
	}
	return true;
}
