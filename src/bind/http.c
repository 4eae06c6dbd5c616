/* What requests know of their connection: the C side of lua/perilune/requests.lua. */
#include "agent/http.h"
#include "agent/run.h"
#include "base/err.h"
#include "bind/bind.h"
#include "conn/outgoing.h"
#include "conn/peer.h"
#include "tls/stream.h"

#include <uv.h>

/* MAY RAISE. The connection whose id is at 1; NULL: it has ended, or is another generation's. */
static struct channel *check_channel(lua_State *lua)
{
	static const lua_Number IDS_END = 9007199254740992.0; /* 2^53 */
	struct agents *agents = agents_of(lua);
	lua_Number id = luaL_checknumber(lua, 1);
	if (!agents->attached || !(id >= 1 && id < IDS_END))
		return NULL;
	struct conn_host *host = host_of_id(agents->host, (uint64_t)id);
	struct channel *channel = host ? idmap_get(&host->ids, (uint64_t)id) : NULL;
	return channel && channel->agents == agents ? channel : NULL;
}

/* MAY RAISE. peer(id) → "203.0.113.7:5060" | nil: it has ended */
static int l_http_peer(lua_State *lua)
{
	char text[PEER_TEXT_BYTES];
	const struct channel *channel = check_channel(lua);
	if (!channel)
		return 0;
	lua_pushstring(lua, peer_text(channel->conn, text, sizeof text));
	return 1;
}

/* MAY RAISE. tls(id) → what conn.tls is | nil */
static int l_http_tls(lua_State *lua)
{
	struct channel *channel = check_channel(lua);
	SSL *ssl = channel ? tls_stream_of(&channel->conn->io) : NULL;
	if (!ssl)
		return 0;
	bind_push_tls(lua, ssl);
	return 1;
}

/* phrase(status) → "Not Found", or "" */
static int l_http_phrase(lua_State *lua)
{
	lua_pushstring(lua, http_phrase((unsigned)luaL_checkinteger(lua, 1)));
	return 1;
}

/* ---- responses in pieces: the callers of these are in lua/perilune/http/ ---- */

/* MAY RAISE. The connection whose id is at 1, which the running call is on behalf of; NULL: it has ended. */
static struct channel *check_answering(lua_State *lua)
{
	struct channel *channel = check_channel(lua);
	const struct run *run = agents_of(lua)->current;
	if (channel && (!run || run->channel != channel))
		bind_raise(
		    lua,
		    "this response is another connection's: only the handler that has begun it writes it");
	return channel && channel_is_open(channel) ? channel : NULL;
}

static int push_ended(lua_State *lua)
{
	lua_pushnil(lua);
	lua_pushliteral(lua, "closed");
	return 2;
}

/* MAY RAISE. What an error says of a response that goes wrong; UV_EPIPE is none: nil, "closed". */
static int explain_piece(lua_State *lua, const struct channel *channel, int err)
{
	if (err == ERR_FRAME_REPLY)
		bind_raise(lua, "this response is over, or another one is under way");
	if (err == ERR_FRAME_TOO_LARGE)
		bind_raise(lua, "more is written than `length` says: there is room for %.0f bytes more",
			   (double)http_left_of(&channel->conn->session));
	if (err == ERR_FRAME_MALFORMED)
		bind_raise(lua, "less is written than `length` says: %.0f bytes are missing",
			   (double)http_left_of(&channel->conn->session));
	if (err == UV_EOF)
		bind_raise(lua, "the file has become shorter while it was sent: %.0f bytes are missing",
			   (double)http_left_of(&channel->conn->session));
	if (err && err != UV_EPIPE)
		bind_raise(lua, "the file cannot be read: %s", uv_strerror(err));
	return push_ended(lua);
}

/* MAY RAISE. begin(id, status, fields, closes[, length]) → true | nil, "closed" */
static int l_http_begin(lua_State *lua)
{
	struct http_response response = { .status = (unsigned)luaL_checkinteger(lua, 2),
					  .closes = lua_toboolean(lua, 4) };
	bool has_length = !lua_isnoneornil(lua, 5);
	uint64_t length = has_length ? (uint64_t)luaL_checknumber(lua, 5) : 0;
	response.fields = luaL_checklstring(lua, 3, &response.field_bytes);
	struct channel *channel = check_answering(lua);
	int err = channel ? pieces_begin(channel, &response, has_length ? &length : NULL) : UV_EPIPE;
	if (err)
		return explain_piece(lua, channel, err);
	lua_pushboolean(lua, 1);
	return 1;
}

/*
 * MAY RAISE. write(id, data, at) → how far of data is on its way now, from `at` on, which is less than all of it where
 * the rest has to wait | nil, "closed"
 */
static int l_http_write(lua_State *lua)
{
	size_t n;
	const char *data = luaL_checklstring(lua, 2, &n);
	size_t at = (size_t)luaL_checknumber(lua, 3);
	struct channel *channel = check_answering(lua);
	while (channel && at < n && pieces_has_room(channel)) {
		size_t most = pieces_size(channel), piece = n - at < most ? n - at : most;
		int err = pieces_add(channel, data + at, piece);
		if (err)
			return explain_piece(lua, channel, err);
		at += piece;
	}
	if (!channel)
		return push_ended(lua);
	lua_pushnumber(lua, (lua_Number)at);
	return 1;
}

/* MAY RAISE, MAY YIELD. flush(id): waits until all is handed to the system → true | nil, "closed" */
static int l_http_flush(lua_State *lua)
{
	struct channel *channel = check_answering(lua);
	if (!channel)
		return push_ended(lua);
	struct run *run = bind_check_may_wait(lua, "a response in pieces");
	run->at = channel;
	return bind_wait(lua, run, WAIT_FLUSH, WHEEL_NEVER);
}

/* MAY RAISE. finish(id, trailers) → true | nil, "closed" */
static int l_http_finish(lua_State *lua)
{
	size_t n;
	const char *trailers = luaL_checklstring(lua, 2, &n);
	struct channel *channel = check_answering(lua);
	int err = channel ? pieces_end(channel, trailers, n) : UV_EPIPE;
	if (err)
		return explain_piece(lua, channel, err);
	lua_pushboolean(lua, 1);
	return 1;
}

static const luaL_Reg FUNCTIONS[] = {
	{ "peer", l_http_peer },     { "tls", l_http_tls },
	{ "phrase", l_http_phrase }, { "begin", l_http_begin },
	{ "write", l_http_write },   { "flush", l_http_flush },
	{ "finish", l_http_finish }, { NULL, NULL },
};

void bind_http(lua_State *lua)
{
	lua_newtable(lua);
	luaL_register(lua, NULL, FUNCTIONS);
}
