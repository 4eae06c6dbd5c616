/*
 * The `conn` object: conn.id, conn.peer, conn:send(…) ….
 *
 * It is a small table that holds nothing but the connection's id (agent/handle.h). It is
 * no userdata: the collector walks all userdata in one atomic phase, and 100,000 of them
 * make a visible pause. An object that has outlived its connection finds nothing.
 */
#include "agent/client.h"
#include "agent/forward.h"
#include "agent/handle.h"
#include "agent/http.h"
#include "agent/link.h"
#include "agent/member.h"
#include "agent/run.h"
#include "agent/websocket.h"
#include "base/err.h"
#include "base/suggest.h"
#include "base/text.h"
#include "bind/bind.h"
#include "conn/peer.h"
#include "net/datagram.h"
#include "tls/stream.h"

#include <string.h>
#include <uv.h>

#define CONN_META \
	"perilune.conn" /* in the registry: the metatable of conn objects, for lua/perilune/sandbox.lua */

/* MAY RAISE, always. */
static void refuse_object(lua_State *lua)
{
	lua_getfield(lua, LUA_REGISTRYINDEX, CONN_META);
	if (lua_getmetatable(lua, 1) && lua_rawequal(lua, -1, -2))
		luaL_error(
		    lua,
		    "something was written into this conn, which is the server's: it is of no use any more");
	luaL_error(lua, "a conn is expected before ':' (conn.send(…) must be conn:send(…))");
}

/* MAY RAISE. The id of the conn object at 1. */
static uint64_t check_id(lua_State *lua)
{
	uint64_t id = 0;
	if (lua_type(lua, 1) == LUA_TTABLE) {
		lua_rawgeti(lua, 1, HANDLE_AT);
		if (lua_type(lua, -1) == LUA_TNUMBER)
			id = handle_open(lua_topointer(lua, 1), lua_tonumber(lua, -1));
		lua_pop(lua, 1);
	}
	if (!id)
		refuse_object(lua);
	return id;
}

/*
 * The connection of that id, or NULL when it has ended. A VM that is off the host's thread (its script is being
 * loaded, or its teardown() runs) has no way to it: what the host has is another thread's.
 */
struct channel *bind_find_conn(struct agents *agents, uint64_t id)
{
	const struct conn_host *host = agents->attached ? host_of_id(agents->host, id) : NULL;
	struct channel *channel = host ? idmap_get(&host->ids, id) : NULL;
	/* To this generation it is closed once it has migrated. */
	return channel && channel->agents == agents ? channel : NULL;
}

/* MAY RAISE. The same of the conn object at 1. */
static struct channel *check_conn(lua_State *lua, struct agents *agents)
{
	return bind_find_conn(agents, check_id(lua));
}

struct channel *bind_check_conn(lua_State *lua)
{
	return check_conn(lua, agents_of(lua));
}

void bind_set_number(lua_State *lua, const char *name, double value)
{
	lua_pushnumber(lua, value);
	lua_setfield(lua, -2, name);
}

int bind_push_closed(lua_State *lua)
{
	lua_pushnil(lua);
	lua_pushliteral(lua, "closed");
	return 2;
}

/* A call may wait for its own connection, and for one out that its agent has made. */
static bool may_wait_for(const struct run *run, const struct channel *channel)
{
	const struct client *client = client_of(channel);
	return client ? client->work && client->work->channel == run->channel : run->channel == channel;
}

/* MAY RAISE. Bytes of HTTP are requests and responses, those of WebSockets messages, and nothing else. */
static void refuse_requests(lua_State *lua, const struct channel *channel, const char *method)
{
	if (http_is_spoken(channel))
		luaL_error(lua, "%s: an HTTP connection has requests, which proceed gets, and no frames",
			   method);
}

/* MAY RAISE. */
static void refuse_frameless(lua_State *lua, const struct channel *channel, const char *method)
{
	refuse_requests(lua, channel, method);
	if (websocket_is_spoken(channel))
		luaL_error(lua, "%s: a WebSocket has messages, which proceed gets, and no frames", method);
}

/* The running call, if it is on behalf of conn. */
struct run *bind_own_run(const struct agents *agents, const struct channel *channel)
{
	struct run *run = agents->current;
	return run && run->channel == channel ? run : NULL;
}

/* MAY RAISE: replies that go before what is asked for now, and that cannot be sent. */
void bind_take_replies(lua_State *lua, struct agents *agents, struct run *run)
{
	if (!run || batch_take_replies(agents, run, lua))
		return;
	reply_forget(agents); /* it is the caller's error now */
	lua_error(lua);
}

/* MAY RAISE. What is owed to frames before was to go out first, and as the connection is now. */
static void check_owed(lua_State *lua, const struct channel *channel, const struct run *run, const char *what)
{
	if (channel->owed || (run && run->forwards && run->forwards->first))
		bind_raise(lua, "%s: replies of pool:forward are still owed to earlier frames", what);
}

/* The batch at hand must end here: what follows is not for it. */
static void cut_batch(struct agents *agents, const struct channel *channel)
{
	struct run *run = bind_own_run(agents, channel);
	if (run)
		batch_cut(agents, run);
}

/*
 * MAY RAISE. Why a datagram cannot be sent over a connection out: pushes nil, message, code and returns 3. 0: it can,
 * or whatever is wrong is raised.
 */
static int refuse_datagram(lua_State *lua, const struct channel *channel)
{
	struct client *client = client_of(channel);
	int refused = client ? client_push_refusal(lua, client) : 0;
	size_t len = client && lua_isstring(lua, 2) ? lua_objlen(lua, 2) : 0;
	if (refused || len <= DATAGRAM_BYTES_MAX)
		return refused;
	lua_pushfstring(lua, "a datagram has at most %d bytes, this one has %f", DATAGRAM_BYTES_MAX,
			(lua_Number)len);
	return client_push_error(lua, UV_EMSGSIZE, lua_tostring(lua, -1));
}

bool bind_is_binary_check(lua_State *lua, int idx)
{
	static const char *const KINDS[] = { "text", "binary", NULL };
	return bind_choice_check(lua, idx, KINDS) == 1;
}

/* MAY RAISE. Is conn:send() to send a binary message? Of WebSockets alone it is told that, at 3. */
static bool is_binary_asked(lua_State *lua, const struct channel *channel)
{
	if (channel && channel_is_open(channel) && !websocket_is_spoken(channel))
		BIND_AT_MOST(lua, 2, "conn:send");
	BIND_AT_MOST(lua, 3, "conn:send");
	return !lua_isnil(lua, 3) && bind_is_binary_check(lua, 3);
}

/* MAY RAISE. The data at 2 as a binary message. */
static void send_binary(lua_State *lua, struct channel *channel, bool *below)
{
	size_t len;
	const char *data = luaL_checklstring(lua, 2, &len);
	if (websocket_send_binary(channel, data, len, below) == ERR_FRAME_BETWEEN)
		luaL_error(lua, "conn:send: %s", REPLY_BETWEEN);
}

/*
 * MAY RAISE. conn:send(data[, "text" | "binary" of a WebSocket]) → true | false past the high-water mark |
 * nil, "closed" | nil, message, code: of a datagram that is too large, or since one that was sent before was refused
 */
static int l_conn_send(lua_State *lua)
{
	struct agents *agents = agents_of(lua);
	struct channel *channel = check_conn(lua, agents);
	bool is_binary = lua_gettop(lua) > 2 && is_binary_asked(lua, channel);
	bool is_open = channel && channel_is_open(channel);
	bool takes_any = !is_open || messages_of(channel)->are_values;
	if (lua_isnoneornil(lua, 2) || (!takes_any && !lua_toboolean(lua, 2)))
		return luaL_argerror(
		    lua, 2, lua_isboolean(lua, 2) ? "data expected, got false" : "data expected, got nil");
	if (!is_open || channel->conn->shut_asked)
		return bind_push_closed(lua);
	struct run *run = bind_own_run(agents, channel);
	bind_take_replies(lua, agents, run);
	bool below;
	lua_settop(lua, 2);
	if (__builtin_expect(channel->conn->endpoint->has_datagrams, 0) && refuse_datagram(lua, channel))
		return 3;
	if (__builtin_expect(is_binary, 0)) {
		send_binary(lua, channel, &below);
	} else if (!reply_send(agents, channel, lua, 2, &below)) {
		bool is_encodes = agents->encode_failed; /* any value */
		reply_forget(agents);
		return is_encodes ? lua_error(lua) : luaL_error(lua, "conn:send: %s", lua_tostring(lua, -1));
	}
	if (run && !channel_is_open(channel))
		batch_cut(agents, run); /* sending has ended it: nothing more is for this agent */
	lua_pushboolean(lua, below);
	return 1;
}

int bind_wait(lua_State *lua, struct run *run, enum wait wait, uint64_t until_ms)
{
	/* Else lua_yield() raises, and the handler may catch that. */
	if (lua_isyieldable(lua)) {
		run->wait = (uint8_t)wait;
		run->until_ms = until_ms;
	}
	return lua_yield(lua, 0);
}

struct run *bind_check_may_wait(lua_State *lua, const char *what)
{
	struct run *run = agents_of(lua)->current;
	if (!run)
		bind_raise(lua, "%s: only a running handler can wait", what);
	if (run->co.lua != lua)
		bind_raise(lua, "%s: cannot wait inside a coroutine of the handler's own", what);
	if (!callback_may_wait(run->callback))
		bind_raise(lua, "%s: %s() must not wait", what, callback_name(run->callback));
	return run;
}

/* MAY RAISE, MAY YIELD. conn:flush() → true: everything was handed to the system | nil, "closed" */
static int l_conn_flush(lua_State *lua)
{
	struct agents *agents = agents_of(lua);
	struct channel *channel = check_conn(lua, agents);
	BIND_AT_MOST(lua, 1, "conn:flush");
	if (!channel || !channel_is_open(channel))
		return bind_push_closed(lua);
	struct run *run = bind_own_run(agents, channel);
	bind_take_replies(lua, agents, run);
	if (conn_flush_now(channel->conn)) {
		lua_pushboolean(lua, 1);
		return 1;
	}
	run = bind_check_may_wait(lua, "conn:flush");
	if (!may_wait_for(run, channel))
		return luaL_error(lua, "conn:flush: a handler can wait for its own connection only");
	run->at = channel;
	return bind_wait(lua, run, WAIT_FLUSH, WHEEL_NEVER);
}

/* MAY RAISE. The framing at 2, of a connection whose bytes may have another than its listener's. */
static void check_framing(lua_State *lua, const struct channel *channel, const char *method,
			  struct codec *codec)
{
	if (channel->conn->endpoint->has_datagrams)
		luaL_error(lua, "%s: a udp:// address has datagrams, and no other frames", method);
	bind_codec_check(lua, 2, channel->conn->endpoint->protocol->max_bytes, codec);
}

static const char *why_not_read(const struct channel *channel)
{
	if (!conn_is_outgoing(channel->conn))
		return "a handler can read from its own connection only";
	if (client_of(channel))
		return "a handler can read from its own connection only, and another agent or the app has "
		       "made this "
		       "one (what several use is a perilune.pool)";
	return "it has an agent of its own, whose proceed() gets its frames";
}

/* MAY RAISE. By what it reads: the run's own only when nothing can raise any more. */
static void take_reading(lua_State *lua, struct run *run, struct channel *channel)
{
	struct codec codec;
	bool is_framed = !lua_isnoneornil(lua, 2), is_messages = websocket_is_spoken(channel);
	if (is_messages && is_framed)
		luaL_error(lua, "conn:read: a WebSocket has messages, and no framing; a time-out is "
				"conn:read(nil, \"2s\")");
	run->reads_messages = is_messages;
	if (is_messages)
		return;
	if (is_framed)
		check_framing(lua, channel, "conn:read", &codec);
	else
		codec = *codec_of(conn_speaks(channel->conn));
	if (codec.view)
		codec.protocol.messages = &MESSAGE_STRINGS;
	run->read_codec = codec;
}

/* MAY RAISE, MAY YIELD. conn:read([frame], [timeout]) → frame | nil, message, code */
static int l_conn_read(lua_State *lua)
{
	struct agents *agents = agents_of(lua);
	struct channel *channel = check_conn(lua, agents);
	BIND_AT_MOST(lua, 3, "conn:read");
	if (!channel || !channel_is_open(channel)) {
		bind_push_closed(lua);
		lua_pushliteral(lua, "ECANCELED");
		return 3;
	}
	struct run *run = bind_check_may_wait(lua, "conn:read");
	if (!may_wait_for(run, channel))
		return luaL_error(lua, "conn:read: %s", why_not_read(channel));
	if (channel->reading)
		return luaL_error(lua, "conn:read: another call of this agent reads already");
	if (channel->is_piped)
		return luaL_error(lua, "conn:read: it is piped: its bytes go to the other connection");
	refuse_requests(lua, channel, "conn:read");
	struct client *client = client_of(channel);
	uint32_t ms = client ? client_endpoint(client)->read_ms : 0;
	if (client && client->refusal)
		return client_push_refusal(lua, client);
	if (!lua_isnoneornil(lua, 3))
		ms = bind_duration_check(lua, 3);
	uint64_t until_ms = ms ? conn_host_after(agents->host, ms) : WHEEL_NEVER;
	take_reading(lua, run, channel);
	run->at = channel;
	return bind_wait(lua, run, WAIT_READ, until_ms);
}

/* MAY RAISE. The code at 2 and the text at 3 are for the close frame of a WebSocket. */
static void say_at_close(lua_State *lua, struct channel *channel)
{
	size_t n = 0;
	lua_Number code = lua_tonumber(lua, 2);
	bool is_code = code >= 0 && code <= UINT16_MAX && code == (unsigned)code;
	const char *text = luaL_optlstring(lua, 3, "", &n);
	if (!is_code || !websocket_code_is_scripts((unsigned)code))
		luaL_argerror(lua, 2, "the code is 1000, or one from 3000 to 4999");
	if (n > WEBSOCKET_CLOSE_TEXT_MAX)
		luaL_argerror(lua, 3, "the text has at most 123 bytes");
	if (!text_is_utf8(text, n))
		luaL_argerror(lua, 3, "the text is no UTF-8");
	if (!channel || !channel_is_open(channel))
		return;
	if (!websocket_is_spoken(channel))
		luaL_error(lua, "conn:close: only a WebSocket has codes");
	if (!websocket_say_at_close(&channel->conn->session, (unsigned)code, text, n))
		luaL_error(lua, "conn:close: not enough memory");
}

/* MAY RAISE. conn:close([reason]), conn:close(code[, text]) */
static int l_conn_close(lua_State *lua)
{
	struct agents *agents = agents_of(lua);
	struct channel *channel = check_conn(lua, agents);
	bool has_code = lua_type(lua, 2) == LUA_TNUMBER;
	BIND_AT_MOST(lua, has_code ? 3 : 2, "conn:close");
	const char *kick = has_code ? "agent" : luaL_optstring(lua, 2, "agent");
	bool kicked = !strcmp(kick, "kick");
	if (!kicked && strcmp(kick, "agent") != 0)
		return luaL_argerror(lua, 2, "the reason is \"agent\" (the default) or \"kick\"");
	if (has_code)
		say_at_close(lua, channel);
	if (!channel)
		return bind_push_closed(lua);
	cut_batch(agents, channel);
	channel_close(channel, kicked ? REASON_KICK : REASON_AGENT, CLOSE_FLUSH);
	lua_pushboolean(lua, 1);
	return 1;
}

/* MAY RAISE. conn:abort(): pending output is dropped, the peer sees a reset. */
static int l_conn_abort(lua_State *lua)
{
	struct agents *agents = agents_of(lua);
	struct channel *channel = check_conn(lua, agents);
	BIND_AT_MOST(lua, 1, "conn:abort");
	if (!channel)
		return bind_push_closed(lua);
	cut_batch(agents, channel);
	channel_close(channel, REASON_AGENT, CLOSE_RESET);
	lua_pushboolean(lua, 1);
	return 1;
}

/* MAY RAISE. conn:shutdown(): half-close, once what is pending has gone. */
static int l_conn_shutdown(lua_State *lua)
{
	struct agents *agents = agents_of(lua);
	struct channel *channel = check_conn(lua, agents);
	BIND_AT_MOST(lua, 1, "conn:shutdown");
	if (!channel || !channel_is_open(channel))
		return bind_push_closed(lua);
	refuse_frameless(lua, channel, "conn:shutdown");
	struct run *run = bind_own_run(agents, channel);
	bind_take_replies(lua, agents, run);
	check_owed(lua, channel, run, "conn:shutdown");
	channel_shutdown(channel);
	if (channel->has_hub)
		member_end_sent(channel);
	lua_pushboolean(lua, 1);
	return 1;
}

/* MAY RAISE. conn:pause(): no more frames until conn:resume(). */
static int l_conn_pause(lua_State *lua)
{
	struct agents *agents = agents_of(lua);
	struct channel *channel = check_conn(lua, agents);
	BIND_AT_MOST(lua, 1, "conn:pause");
	if (!channel || !channel_is_open(channel))
		return bind_push_closed(lua);
	cut_batch(agents, channel);
	channel_pause(channel);
	lua_pushboolean(lua, 1);
	return 1;
}

/* MAY RAISE. conn:resume() */
static int l_conn_resume(lua_State *lua)
{
	struct agents *agents = agents_of(lua);
	struct channel *channel = check_conn(lua, agents);
	BIND_AT_MOST(lua, 1, "conn:resume");
	if (!channel || !channel_is_open(channel))
		return bind_push_closed(lua);
	channel_resume(channel);
	lua_pushboolean(lua, 1);
	return 1;
}

/*
 * MAY RAISE. conn:set_frame([spec]): from the next frame on, the bytes already received included; the listener's own.
 */
static int l_conn_set_frame(lua_State *lua)
{
	struct agents *agents = agents_of(lua);
	struct channel *channel = check_conn(lua, agents);
	BIND_AT_MOST(lua, 2, "conn:set_frame");
	bool own = lua_gettop(lua) > 1;
	struct codec codec;
	if (!channel || !channel_is_open(channel))
		return bind_push_closed(lua);
	if (channel->is_piped)
		return luaL_error(lua, "conn:set_frame: it is piped: its bytes go to the other connection");
	refuse_frameless(lua, channel, "conn:set_frame");
	const struct protocol *listeners = channel->conn->endpoint->protocol;
	if (own)
		check_framing(lua, channel, "conn:set_frame", &codec);
	struct run *run = bind_own_run(agents, channel);
	bind_take_replies(lua, agents, run); /* they were made under the old framing */
	check_owed(lua, channel, run, "conn:set_frame");
	cut_batch(agents, channel);
	if (conn_set_protocol(channel->conn, own ? &codec.protocol : listeners, own ? sizeof codec : 0))
		return luaL_error(lua, "conn:set_frame: not enough memory");
	lua_pushboolean(lua, 1);
	return 1;
}

/* MAY RAISE. conn:set_timeout(kind, duration): for this connection. */
static int l_conn_set_timeout(lua_State *lua)
{
	static const char *const KINDS[] = { "read", "write", "idle", "first_frame", NULL };
	struct agents *agents = agents_of(lua);
	struct channel *channel = check_conn(lua, agents);
	BIND_AT_MOST(lua, 3, "conn:set_timeout");
	unsigned kind = bind_choice_check(lua, 2, KINDS);
	luaL_checkany(lua, 3);
	uint32_t ms = bind_duration_check(lua, 3);
	if (!channel || !channel_is_open(channel))
		return bind_push_closed(lua);
	if (conn_set_timeout(channel->conn, (enum timeout_kind)kind, ms))
		return luaL_error(lua, "conn:set_timeout: not enough memory");
	lua_pushboolean(lua, 1);
	return 1;
}

/* MAY RAISE. conn:defer(fn): fn runs when the connection has ended, the latest first. */
static int l_conn_defer(lua_State *lua)
{
	struct agents *agents = agents_of(lua);
	struct channel *channel = check_conn(lua, agents);
	BIND_AT_MOST(lua, 2, "conn:defer");
	luaL_checktype(lua, 2, LUA_TFUNCTION);
	if (!channel || !channel->opened || channel->told_closed)
		return bind_push_closed(lua);
	lua_getfield(lua, LUA_REGISTRYINDEX, "perilune.runtime.defer");
	lua_pushnumber(lua, (lua_Number)channel->id);
	lua_pushvalue(lua, 2);
	lua_call(lua, 2, 0);
	channel->has_defers = true;
	lua_pushboolean(lua, 1);
	return 1;
}

/* ---- with another connection ---- */

/* Is there a conn object at 1, as far as one can see? */
static bool has_handle(lua_State *lua)
{
	if (!lua_istable(lua, 1))
		return false;
	lua_rawgeti(lua, 1, HANDLE_AT);
	bool has = lua_type(lua, -1) == LUA_TNUMBER;
	lua_pop(lua, 1);
	return has;
}

/* MAY RAISE. The other connection at 2, which is open; NULL: it is not. */
static struct channel *check_other(lua_State *lua, struct agents *agents, const char *method)
{
	lua_pushvalue(lua, 1);
	lua_pushvalue(lua, 2);
	lua_replace(lua, 1);
	if (!has_handle(lua))
		luaL_error(lua, "%s: another connection expected, got %s", method,
			   lua_istable(lua, 1) ? "something else" : luaL_typename(lua, 1));
	struct channel *other = check_conn(lua, agents);
	lua_replace(lua, 1);
	return other && channel_is_open(other) ? other : NULL;
}

/* MAY RAISE. conn:link(other[, how]): when one of them ends the other does. true | nil, "closed" */
static int l_conn_link(lua_State *lua)
{
	static const char *const HOW[] = { "close", "abort", NULL };
	struct agents *agents = agents_of(lua);
	struct channel *channel = check_conn(lua, agents);
	BIND_AT_MOST(lua, 3, "conn:link");
	unsigned how = lua_isnoneornil(lua, 3) ? 0 : bind_choice_check(lua, 3, HOW);
	struct channel *other = check_other(lua, agents, "conn:link");
	if (!channel || !channel_is_open(channel) || !other)
		return bind_push_closed(lua);
	if (channel == other)
		return luaL_error(lua, "conn:link: another connection expected, got this one");
	if (link_join(agents, channel, other, how ? CLOSE_RESET : CLOSE_FLUSH))
		return luaL_error(lua, "conn:link: not enough memory");
	lua_pushboolean(lua, 1);
	return 1;
}

/* MAY RAISE. What is to be piped, and cannot be. */
static void check_pipeable(lua_State *lua, const struct channel *channel)
{
	const struct endpoint *endpoint = channel->conn->endpoint;
	refuse_frameless(lua, channel, "conn:pipe");
	if (endpoint->has_datagrams)
		luaL_error(lua, "conn:pipe: udp:// has datagrams, and no stream of bytes");
	if (endpoint->rules.slow != SLOW_PAUSE)
		luaL_error(lua,
			   "conn:pipe: bytes that are dropped would be missing: it needs "
			   "limits.slow_consumer = \"pause\" (at %s)",
			   endpoint->name);
	if (channel->reading)
		luaL_error(lua, "conn:pipe: a call reads from it");
	/* What decode() has made of its bytes would be lost. */
	if (agents_of(lua)->decoded == channel)
		luaL_error(lua, "conn:pipe: not while its bytes are decoded");
}

/* MAY RAISE. conn:pipe(other): the bytes of each go to the other, without Lua. true | nil, "closed" */
static int l_conn_pipe(lua_State *lua)
{
	struct agents *agents = agents_of(lua);
	struct channel *channel = check_conn(lua, agents);
	BIND_AT_MOST(lua, 2, "conn:pipe");
	struct channel *other = check_other(lua, agents, "conn:pipe");
	if (!channel || !channel_is_open(channel) || !other)
		return bind_push_closed(lua);
	if (channel == other)
		return luaL_error(lua, "conn:pipe: another connection expected, got this one");
	check_pipeable(lua, channel);
	check_pipeable(lua, other);
	bind_take_replies(lua, agents, bind_own_run(agents, channel));
	bind_take_replies(lua, agents, bind_own_run(agents, other));
	check_owed(lua, channel, bind_own_run(agents, channel), "conn:pipe");
	check_owed(lua, other, bind_own_run(agents, other), "conn:pipe");
	cut_batch(agents, channel);
	cut_batch(agents, other);
	int err = link_pipe(agents, channel, other);
	if (err == UV_EBUSY)
		return luaL_error(lua, "conn:pipe: it is piped already");
	if (err)
		return luaL_error(lua, "conn:pipe: not enough memory");
	lua_pushboolean(lua, 1);
	return 1;
}

/* ---- properties ---- */

static int get_id(lua_State *lua, struct channel *channel)
{
	(void)channel;
	lua_pushnumber(lua, (lua_Number)check_id(lua));
	return 1;
}

static int get_peer(lua_State *lua, struct channel *channel)
{
	char text[PEER_TEXT_BYTES];
	lua_pushstring(lua, peer_text(channel->conn, text, sizeof text));
	return 1;
}

static int get_local_addr(lua_State *lua, struct channel *channel)
{
	char text[LOCAL_TEXT_BYTES];
	lua_pushstring(lua, local_text(channel->conn, text, sizeof text));
	return 1;
}

static int get_listener(lua_State *lua, struct channel *channel)
{
	lua_pushstring(lua, channel->conn->endpoint->name);
	return 1;
}

/* Of a WebSocket that was opened from here. */
static int get_subprotocol(lua_State *lua, struct channel *channel)
{
	size_t n = 0;
	const char *name =
	    conn_is_outgoing(channel->conn) ? client_subprotocol(client_behind(channel), &n) : NULL;
	if (!name)
		return 0;
	lua_pushlstring(lua, name, n);
	return 1;
}

/* What its handler and codec have used so far: { frames = …, seconds = …, bytes = … }. */
static int get_usage(lua_State *lua, struct channel *channel)
{
	struct agents *agents = agents_of(lua);
	bool running = agents->accounted == channel;
	uint64_t ticks = channel->handler_ticks + (running ? ticks_now() : 0),
		 bytes = channel->handler_bytes + (running ? vm_allocated(&agents->vm) : 0);
	lua_createtable(lua, 0, 3);
	lua_pushnumber(lua, (lua_Number)channel->frames_in);
	lua_setfield(lua, -2, "frames");
	lua_pushnumber(lua, ticks_seconds(&agents->ticks, ticks));
	lua_setfield(lua, -2, "seconds");
	lua_pushnumber(lua, (lua_Number)bytes);
	lua_setfield(lua, -2, "bytes");
	return 1;
}

/* nil where there is no TLS. */
static int get_tls(lua_State *lua, struct channel *channel)
{
	SSL *ssl = tls_stream_of(&channel->conn->io);
	if (!ssl)
		return 0;
	bind_push_tls(lua, ssl);
	return 1;
}

static const struct {
	const char *name;
	int (*get)(lua_State *lua, struct channel *channel);
} PROPERTIES[] = {
	{ "id", get_id },
	{ "peer", get_peer },
	{ "local_addr", get_local_addr },
	{ "listener", get_listener },
	{ "usage", get_usage },
	{ "tls", get_tls },
	{ "subprotocol", get_subprotocol },
};

static const luaL_Reg METHODS[] = {
	{ "send", l_conn_send },
	{ "flush", l_conn_flush },
	{ "close", l_conn_close },
	{ "abort", l_conn_abort },
	{ "shutdown", l_conn_shutdown },
	{ "pause", l_conn_pause },
	{ "resume", l_conn_resume },
	{ "read", l_conn_read },
	{ "set_frame", l_conn_set_frame },
	{ "set_timeout", l_conn_set_timeout },
	{ "defer", l_conn_defer },
	{ "link", l_conn_link },
	{ "pipe", l_conn_pipe },
	{ "begin", bind_conn_begin },
	{ "join", bind_conn_join },
	{ "leave", bind_conn_leave },
	{ "publish", bind_conn_publish },
	{ "topics", bind_conn_topics },
	{ NULL, NULL },
};

enum { KEY_BYTES = SUGGEST_WORD_MAX };

/* The key at 2, for a message: a zero byte does not end it. */
static const char *show_key(lua_State *lua, char shown[KEY_BYTES])
{
	size_t len = 1;
	const char *key = lua_type(lua, 2) == LUA_TSTRING ? lua_tolstring(lua, 2, &len) : "?";
	text_escape(TEXT_LINE, shown, KEY_BYTES, key, len);
	return shown;
}

/* What other programs call it: edit distance does not know. NULL: nothing is known of that name. */
static const char *meant_by(const char *name)
{
	static const char *const NAMES[][2] = {
		{ "write", "send" },
		{ "send_line", "send" },
		{ "puts", "send" },
		{ "print", "send" },
		{ "emit", "send" },
		{ "push", "send" },
		{ "receive", "read" },
		{ "recv", "read" },
		{ "read_line", "read" },
		{ "readline", "read" },
		{ "destroy", "abort" },
		{ "reset", "abort" },
		{ "terminate", "abort" },
		{ "kill", "abort" },
		{ "disconnect", "close" },
		{ "finish", "close" },
		{ "half_close", "shutdown" },
		{ "drain", "flush" },
		{ "address", "peer" },
		{ "remote_addr", "peer" },
		{ "remote_address", "peer" },
		{ "ip", "peer" },
		{ "getpeername", "peer" },
		{ "getsockname", "local_addr" },
		{ "settimeout", "set_timeout" },
		{ "subscribe", "join" },
		{ "unsubscribe", "leave" },
		{ "broadcast", "publish" },
		{ "subscriptions", "topics" },
	};
	for (size_t i = 0; i < sizeof NAMES / sizeof *NAMES; i++)
		if (!strcmp(NAMES[i][0], name))
			return NAMES[i][1];
	return NULL;
}

/* MAY RAISE. */
static int refuse_property(lua_State *lua)
{
	enum {
		METHOD_COUNT = sizeof METHODS / sizeof *METHODS - 1, /* without the end of the list */
		PROPERTY_COUNT = sizeof PROPERTIES / sizeof *PROPERTIES
	};
	const char *names[METHOD_COUNT + PROPERTY_COUNT];
	for (size_t i = 0; i < METHOD_COUNT; i++)
		names[i] = METHODS[i].name;
	for (size_t i = 0; i < PROPERTY_COUNT; i++)
		names[METHOD_COUNT + i] = PROPERTIES[i].name;
	char shown[KEY_BYTES];
	const char *near = meant_by(show_key(lua, shown));
	if (!near)
		near = suggest_nearest(shown, names, METHOD_COUNT + PROPERTY_COUNT);
	if (!strcmp(shown, "on") || !strcmp(shown, "once"))
		return luaL_error(
		    lua,
		    "conn has no field or method '%s': what happens to it is told by calling methods "
		    "of the agent: proceed, closed, timeout …",
		    shown);
	return luaL_error(lua, "conn has no field or method '%s'%s%s%s", shown,
			  near ? " (did you mean '" : "", near ? near : "", near ? "'?)" : "");
}

/* MAY RAISE. (conn, key): what is no method. Called by the __index in lua/perilune/runtime.lua, which
 * is Lua so that conn:send() stays one compiled look-up. */
static int l_conn_property(lua_State *lua)
{
	size_t len = 0;
	const char *key = lua_type(lua, 2) == LUA_TSTRING ? lua_tolstring(lua, 2, &len) : "";
	struct channel *channel = check_conn(lua, agents_of(lua));
	for (size_t i = 0; i < sizeof PROPERTIES / sizeof *PROPERTIES; i++) {
		if (strlen(PROPERTIES[i].name) != len || memcmp(PROPERTIES[i].name, key, len) != 0)
			continue;
		if (!channel && PROPERTIES[i].get != get_id)
			return 0;
		return PROPERTIES[i].get(lua, channel);
	}
	return refuse_property(lua);
}

static int l_conn_newindex(lua_State *lua)
{
	char shown[KEY_BYTES];
	return luaL_error(lua, "conn is read-only: keep '%s' in the agent (self)", show_key(lua, shown));
}

static int l_conn_tostring(lua_State *lua)
{
	struct channel *channel = check_conn(lua, agents_of(lua));
	char peer[PEER_TEXT_BYTES];
	lua_pushfstring(lua, "conn %f (%s)", (lua_Number)check_id(lua),
			channel ? peer_text(channel->conn, peer, sizeof peer) : "closed");
	return 1;
}

void bind_conn(lua_State *lua)
{
	lua_newtable(lua); /* metatable */
	lua_getfield(lua, LUA_REGISTRYINDEX, "perilune.runtime.conn_index");
	lua_newtable(lua); /* metatable, conn_index, methods */
	luaL_register(lua, NULL, METHODS);
	lua_pushcfunction(lua, l_conn_property);
	lua_call(lua, 2, 1); /* metatable, __index */
	lua_setfield(lua, -2, "__index");
	lua_pushcfunction(lua, l_conn_newindex);
	lua_setfield(lua, -2, "__newindex");
	lua_pushcfunction(lua, l_conn_tostring);
	lua_setfield(lua, -2, "__tostring");
	lua_pushliteral(lua, "conn");
	lua_setfield(lua, -2, "__metatable");
	lua_pushvalue(lua, -1);
	lua_setfield(lua, LUA_REGISTRYINDEX, CONN_META);
}
