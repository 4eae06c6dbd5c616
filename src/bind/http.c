/* What requests know of their connection: the C side of lua/perilune/requests.lua. */
#include "agent/http.h"
#include "agent/run.h"
#include "agent/websocket.h"
#include "base/beneath.h"
#include "base/err.h"
#include "base/regular.h"
#include "bind/bind.h"
#include "bind/json.h"
#include "conn/outgoing.h"
#include "conn/peer.h"
#include "http/handshake.h"
#include "tls/stream.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>
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

/* ---- bodies that are read while their request is served: for lua/perilune/requests.lua ---- */

/*
 * MAY RAISE. The connection whose id is at 1, whose request, of the number at 2, the running call is for; NULL: it has
 * ended.
 */
static struct channel *check_serving(lua_State *lua)
{
	struct channel *channel = check_channel(lua);
	const struct run *run = agents_of(lua)->current;
	if (channel && (!run || run->channel != channel))
		bind_raise(lua, "this request is another connection's: only its own handler reads its body");
	if (channel && !http_is_spoken(channel))
		bind_raise(lua, "this connection is a WebSocket by now, and the body of its request is gone");
	if (channel && channel_is_open(channel) &&
	    (!http_pending(&channel->conn->session) ||
	     (lua_Number)http_number_of(&channel->conn->session) != luaL_checknumber(lua, 2)))
		bind_raise(lua, "this request is answered, and its body is gone");
	return channel && channel_is_open(channel) ? channel : NULL;
}

/* MAY RAISE. Of a reader that is about to wait. */
static void check_reading(lua_State *lua, const struct channel *channel, bool all)
{
	if (channel->reading)
		bind_raise(lua, "another task of this handler reads the body already");
	if (http_want_rest(http_of(channel->conn->protocol), &channel->conn->session, all))
		bind_raise(lua, "request.body: this body is being read in pieces, by request:read()");
}

/* MAY RAISE, MAY YIELD. read(id, number, all) → a piece; "": that was all of it | all of it | nil, message, code */
static int l_http_read(lua_State *lua)
{
	bool all = lua_toboolean(lua, 3);
	struct channel *channel = check_serving(lua);
	if (!channel) {
		bind_push_closed(lua);
		lua_pushliteral(lua, "ECANCELED");
		return 3;
	}
	if (!http_has_rest(&channel->conn->session)) {
		lua_pushliteral(lua, "");
		return 1;
	}
	struct run *run = bind_check_may_wait(lua, all ? "request.body" : "request:read");
	check_reading(lua, channel, all);
	http_let_body_come(channel);
	run->read_codec = (struct codec){ .protocol = http_of(channel->conn->protocol)->rest };
	run->reads_messages = false;
	run->at = channel;
	return bind_wait(lua, run, WAIT_READ, WHEEL_NEVER);
}

/* MAY RAISE. trailers(id, number) → the lines of those behind the body that was read | nil */
static int l_http_trailers(lua_State *lua)
{
	size_t n;
	struct channel *channel = check_serving(lua);
	const char *lines = channel ? http_trailers(&channel->conn->session, &n) : NULL;
	if (lines)
		lua_pushlstring(lua, lines, n);
	else
		lua_pushnil(lua);
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
	if (channel && !http_is_spoken(channel))
		bind_raise(lua, "this connection is a WebSocket by now, and has no responses");
	return channel && channel_is_open(channel) ? channel : NULL;
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
	return bind_push_closed(lua);
}

/* MAY RAISE. begin(id, status, fields, closes[, length[, stands]]) → true | nil, "closed" */
static int l_http_begin(lua_State *lua)
{
	struct http_response response = { .status = (unsigned)luaL_checkinteger(lua, 2),
					  .closes = lua_toboolean(lua, 4),
					  .stands = lua_toboolean(lua, 6) };
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
	if (channel)
		agents_of(lua)->current->is_amid = false;
	while (channel && at < n && pieces_has_room(channel)) {
		size_t most = pieces_size(channel), piece = n - at < most ? n - at : most;
		int err = pieces_add(channel, data + at, piece);
		if (err)
			return explain_piece(lua, channel, err);
		at += piece;
	}
	if (!channel)
		return bind_push_closed(lua);
	if (http_is_standing(&channel->conn->session)) /* nothing may come in between, whoever joins */
		http_set_amid(&channel->conn->session, at < n);
	lua_pushnumber(lua, (lua_Number)at);
	return 1;
}

/*
 * MAY RAISE, MAY YIELD. flush(id[, at]): waits until all is handed to the system → true | nil, "closed". `at`: for
 * write(), which has got that far.
 */
static int l_http_flush(lua_State *lua)
{
	struct channel *channel = check_answering(lua);
	if (!channel)
		return bind_push_closed(lua);
	struct run *run = bind_check_may_wait(lua, "a response in pieces");
	run->at = channel;
	run->is_amid = http_is_amid(&channel->conn->session) && !lua_isnoneornil(lua, 2);
	run->has_torn = run->is_amid && lua_tonumber(lua, 2) > 0;
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

/* ---- files ---- */

#define FILE_META "perilune.http.file"

/* A file that is open, until a response has it: http_give_file(). */
struct opened {
	int file; /* -1: it has it, or is closed */
};

static void close_opened(struct opened *opened)
{
	if (opened->file >= 0)
		close(opened->file);
	opened->file = -1;
}

/* MAY RAISE. */
static struct opened *check_opened(lua_State *lua, int idx)
{
	struct opened *opened = luaL_checkudata(lua, idx, FILE_META);
	if (opened->file < 0)
		RAISE(lua, "this file was sent already: a response of http.files is for one request");
	return opened;
}

static int l_opened_gc(lua_State *lua)
{
	close_opened(luaL_checkudata(lua, 1, FILE_META));
	return 0;
}

/* MAY RAISE. close(file) */
static int l_http_close(lua_State *lua)
{
	close_opened(luaL_checkudata(lua, 1, FILE_META));
	return 0;
}

/* nil, what stands in the way: "folder", "none", or "busy" where it may be there the next time. */
static int push_no_file(lua_State *lua, int err)
{
	bool is_busy = err == -EMFILE || err == -ENFILE || err == -ENOMEM || err == -EIO;
	lua_pushnil(lua);
	lua_pushstring(lua, err == -EISDIR ? "folder" : is_busy ? "busy" : "none");
	return 2;
}

/* MAY RAISE. Pushes an empty one: once the file is open there is nothing left that could raise. */
static struct opened *new_opened(lua_State *lua)
{
	struct opened *opened = lua_newuserdata(lua, sizeof *opened);
	opened->file = -1;
	luaL_getmetatable(lua, FILE_META);
	lua_setmetatable(lua, -2);
	return opened;
}

/*
 * MAY RAISE. open(folder, path[, is_known]) → file, its bytes, seconds and nanoseconds of its last change | nil,
 * "folder" | "none" | "busy". Nothing but a regular file beneath the folder; a folder that is nil: path leads there by
 * itself. is_known: as of beneath_open().
 */
static int l_http_open(lua_State *lua)
{
	const char *folder = luaL_optstring(lua, 1, NULL), *instead;
	size_t n;
	const char *path = luaL_checklstring(lua, 2, &n);
	struct stat st;
	if (strlen(path) != n)
		return push_no_file(lua, -ENOENT);
	struct opened *opened = new_opened(lua);
	int fd = folder ? beneath_open(folder, path, lua_toboolean(lua, 3), &st)
			: regular_open(path, O_RDONLY, 0, &instead);
	guard_note_return(&vm_of(lua)->guard, lua);
	if (fd < 0)
		return push_no_file(lua, fd);
	opened->file = fd;
	if (!folder && fstat(fd, &st))
		return push_no_file(lua, -EIO);
	lua_pushnumber(lua, (lua_Number)st.st_size);
	lua_pushnumber(lua, (lua_Number)st.st_mtim.tv_sec);
	lua_pushnumber(lua, (lua_Number)st.st_mtim.tv_nsec);
	return 4;
}

/* MAY RAISE. is_folder(path) */
static int l_http_is_folder(lua_State *lua)
{
	struct stat st;
	lua_pushboolean(lua, !stat(luaL_checkstring(lua, 1), &st) && S_ISDIR(st.st_mode));
	return 1;
}

/* MAY RAISE. give(id, file, offset): the response that is to begin is sent from that file, which it closes. */
static int l_http_give(lua_State *lua)
{
	struct opened *opened = check_opened(lua, 2);
	double offset = luaL_checknumber(lua, 3);
	struct channel *channel = check_answering(lua);
	if (!channel || !http_pending(&channel->conn->session))
		return 0; /* the file is closed by the collector */
	http_give_file(&channel->conn->session, opened->file, (uint64_t)offset);
	opened->file = -1;
	return 0;
}

/*
 * So many pieces of the file, or as much as the system takes for now: *added bytes. They go straight from the file
 * where nothing is in front of them; the head of the response and what does not fit now is written from one block of
 * memory.
 */
static int send_some(struct channel *channel, unsigned pieces, size_t *added)
{
	size_t size = pieces_size(channel), read = 0;
	int err = pieces_pass_file(channel, pieces * size, added);
	if (err || *added == pieces * size)
		return err;
	err = pieces_add_from_file(channel, size, &read);
	if (!err && read)
		conn_flush_now(channel->conn);
	*added += read;
	return err;
}

/*
 * MAY RAISE. send_file(id) → true: all of it is on its way | false: the rest has to wait for that | nil, "closed".
 * Others have their turn meanwhile.
 */
static int l_http_send_file(lua_State *lua)
{
	enum { PIECES_AT_ONCE = 8 };
	struct channel *channel = check_answering(lua);
	size_t added = 1;
	for (unsigned i = 0; channel && added && i < PIECES_AT_ONCE && pieces_has_room(channel);) {
		int err = send_some(channel, PIECES_AT_ONCE - i, &added);
		if (err)
			return explain_piece(lua, channel, err);
		i += 1 + (unsigned)(added / pieces_size(channel));
		if (!channel_is_open(channel))
			channel = NULL;
	}
	guard_note_return(&vm_of(lua)->guard, lua);
	if (!channel)
		return bind_push_closed(lua);
	lua_pushboolean(lua, !added || !http_left_of(&channel->conn->session));
	return 1;
}

/* MAY RAISE. date(second) → "Sun, 06 Nov 1994 08:49:37 GMT" */
static int l_http_date(lua_State *lua)
{
	char text[HTTP_DATE_BYTES + 1];
	http_date_print(text, (int64_t)luaL_checknumber(lua, 1));
	lua_pushlstring(lua, text, HTTP_DATE_BYTES);
	return 1;
}

/* MAY RAISE. second(date) → since 1970; nil: it is no date */
static int l_http_second(lua_State *lua)
{
	size_t n;
	int64_t second;
	const char *text = luaL_checklstring(lua, 1, &n);
	if (!http_date_read(text, n, &second))
		return 0;
	lua_pushnumber(lua, (lua_Number)second);
	return 1;
}

/* ---- WebSockets ---- */

/* MAY RAISE. websocket_accept(key) → what RFC 6455 has the server make of it */
static int l_http_websocket_accept(lua_State *lua)
{
	size_t n;
	const char *key = luaL_checklstring(lua, 1, &n);
	char accept[HANDSHAKE_ACCEPT_BYTES];
	luaL_argcheck(lua, n == HANDSHAKE_KEY_BYTES, 1, "a key of 24 characters is expected");
	handshake_accept(key, accept);
	lua_pushlstring(lua, accept, sizeof accept);
	return 1;
}

/* MAY RAISE. websocket_deflate(offers, keeps) → the field that answers them, and the terms as a number; nil: none */
static int l_http_websocket_deflate(lua_State *lua)
{
	size_t n;
	const char *offers = luaL_checklstring(lua, 1, &n);
	struct websocket_terms terms;
	char field[HANDSHAKE_DEFLATE_BYTES];
	if (!handshake_agree(offers, n, &agents_of(lua)->websocket, lua_toboolean(lua, 2), &terms, field))
		return 0;
	lua_pushstring(lua, field);
	lua_pushnumber(lua, websocket_pack_terms(&terms));
	return 2;
}

static const luaL_Reg FUNCTIONS[] = {
	{ "websocket_deflate", l_http_websocket_deflate },
	{ "websocket_accept", l_http_websocket_accept },
	{ "peer", l_http_peer },
	{ "tls", l_http_tls },
	{ "phrase", l_http_phrase },
	{ "read", l_http_read },
	{ "trailers", l_http_trailers },
	{ "begin", l_http_begin },
	{ "write", l_http_write },
	{ "flush", l_http_flush },
	{ "finish", l_http_finish },
	{ "join", bind_events_join },
	{ "leave", bind_events_leave },
	{ "open", l_http_open },
	{ "close", l_http_close },
	{ "give", l_http_give },
	{ "send_file", l_http_send_file },
	{ "is_folder", l_http_is_folder },
	{ "date", l_http_date },
	{ "second", l_http_second },
	{ NULL, NULL },
};

static void make_file_meta(lua_State *lua)
{
	luaL_newmetatable(lua, FILE_META);
	lua_pushcfunction(lua, l_opened_gc);
	lua_setfield(lua, -2, "__gc");
	lua_pushliteral(lua, FILE_META);
	lua_setfield(lua, -2, "__metatable");
	lua_pop(lua, 1);
}

void bind_http(lua_State *lua)
{
	make_file_meta(lua);
	lua_newtable(lua);
	luaL_register(lua, NULL, FUNCTIONS);
	bind_http_reader(lua);
	bind_http_fields(lua);
	bind_json_reply(lua);
}
