/*
 * Messages of WebSockets that are sent in pieces: conn:begin(), message:write(), message:finish().
 *
 * A message is a userdata with the id of its connection: there are few at a time, one for each connection. What has
 * come of it is in the connection's session (websocket/websocket.h).
 */
#include "agent/websocket.h"
#include "base/err.h"
#include "bind/bind.h"

#define MESSAGE "perilune.message" /* the metatable's name */

struct message {
	uint64_t conn;
	bool is_over;
};

/* MAY RAISE. Sends what is at 2, if there is something. */
static int send_piece(lua_State *lua, const char *what, bool is_last)
{
	struct agents *agents = agents_of(lua);
	struct message *message = luaL_checkudata(lua, 1, MESSAGE);
	size_t len = 0;
	const char *data = lua_isnoneornil(lua, 2) ? "" : luaL_checklstring(lua, 2, &len);
	struct channel *channel = bind_find_conn(agents, message->conn);
	BIND_AT_MOST(lua, 2, what);
	if (message->is_over)
		return luaL_error(lua, "%s: the message is finished", what);
	if (!channel || !channel_is_open(channel))
		return bind_push_closed(lua);
	bool below;
	int err = websocket_send_piece(channel, data, len, is_last, &below);
	if (err == ERR_FRAME_REPLY)
		return luaL_error(lua, "%s: a text is no UTF-8; bytes are sent by conn:begin \"binary\"",
				  what);
	struct run *run = bind_own_run(agents, channel);
	if (run && !channel_is_open(channel))
		batch_cut(agents, run); /* sending has ended it: nothing more is for this agent */
	if (err)
		return bind_push_closed(lua);
	message->is_over = is_last;
	lua_pushboolean(lua, below);
	return 1;
}

/* MAY RAISE. message:write(data) → true | false past the high-water mark | nil, "closed" */
static int l_message_write(lua_State *lua)
{
	luaL_checkstring(lua, 2);
	return send_piece(lua, "message:write", false);
}

/* MAY RAISE. message:finish([data]) → the same */
static int l_message_finish(lua_State *lua)
{
	return send_piece(lua, "message:finish", true);
}

static int l_message_tostring(lua_State *lua)
{
	const struct message *message = luaL_checkudata(lua, 1, MESSAGE);
	lua_pushfstring(lua, "message (%s)", message->is_over ? "finished" : "begun");
	return 1;
}

/* MAY RAISE, always. */
static int l_message_unknown(lua_State *lua)
{
	return luaL_error(lua, "a message has no %s: it has write(data) and finish([data])",
			  lua_type(lua, 2) == LUA_TSTRING ? lua_tostring(lua, 2) : luaL_typename(lua, 2));
}

/* MAY RAISE. Pushes the metatable; of most VMs it is never made. */
static void push_meta(lua_State *lua)
{
	static const luaL_Reg METHODS[] = { { "write", l_message_write },
					    { "finish", l_message_finish },
					    { NULL, NULL } };
	luaL_getmetatable(lua, MESSAGE);
	if (!lua_isnil(lua, -1))
		return;
	lua_pop(lua, 1);
	lua_newtable(lua);
	lua_newtable(lua);
	luaL_register(lua, NULL, METHODS);
	lua_createtable(lua, 0, 1);
	lua_pushcfunction(lua, l_message_unknown);
	lua_setfield(lua, -2, "__index");
	lua_setmetatable(lua, -2);
	lua_setfield(lua, -2, "__index");
	lua_pushcfunction(lua, l_message_tostring);
	lua_setfield(lua, -2, "__tostring");
	lua_pushliteral(lua, "message");
	lua_setfield(lua, -2, "__metatable");
	lua_pushvalue(lua, -1);
	lua_setfield(lua, LUA_REGISTRYINDEX, MESSAGE); /* once it is whole */
}

/* MAY RAISE. What a generation has begun to send, and another one ends, or takes back, nobody would understand. */
static void check_begin(lua_State *lua, const struct channel *channel, const struct run *run)
{
	if (run && (run->callback == CALL_SNAPSHOT || run->callback == CALL_UPGRADE))
		luaL_error(lua, "conn:begin: %s() must not begin anything", callback_name(run->callback));
	if (!websocket_is_spoken(channel))
		luaL_error(lua, "conn:begin: only a WebSocket has messages that are sent in pieces");
	if (channel->conn->endpoint->rules.slow == SLOW_DROP)
		luaL_error(lua,
			   "conn:begin: with limits.slow_consumer = \"drop\" a message could lose pieces");
}

/* MAY RAISE. conn:begin(["text" | "binary"]) → message | nil, "closed" */
int bind_conn_begin(lua_State *lua)
{
	struct agents *agents = agents_of(lua);
	struct channel *channel = bind_check_conn(lua);
	BIND_AT_MOST(lua, 2, "conn:begin");
	bool is_binary = !lua_isnoneornil(lua, 2) && bind_is_binary_check(lua, 2);
	if (!channel || !channel_is_open(channel))
		return bind_push_closed(lua);
	struct run *run = bind_own_run(agents, channel);
	check_begin(lua, channel, run);
	bind_take_replies(lua, agents, run);
	if (!channel_is_open(channel))
		return bind_push_closed(lua);
	struct message *message = lua_newuserdata(lua, sizeof *message);
	*message = (struct message){ .conn = channel->id };
	push_meta(lua);
	lua_setmetatable(lua, -2);
	if (!websocket_begin_message(&channel->conn->session, is_binary))
		return luaL_error(lua,
				  "conn:begin: a message is being sent in pieces already: finish it first");
	return 1;
}
