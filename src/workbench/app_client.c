/* Clients of apps in memory: what they do and get. */
#include "base/err.h"
#include "bind/bind.h"
#include "tls/client.h"
#include "workbench/app.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- clients ---- */

static size_t opt_bytes(lua_State *lua, int idx, size_t otherwise)
{
	if (lua_isnoneornil(lua, idx))
		return otherwise;
	lua_Number n = luaL_checknumber(lua, idx);
	luaL_argcheck(lua, n >= 0 && n < 1e15, idx, "bytes expected");
	return (size_t)n;
}

/* libuv knows names only, and takes others for none. */
static bool read_zone(const char *zone, struct sockaddr_in6 *address)
{
	if (!address->sin6_scope_id)
		address->sin6_scope_id = (uint32_t)strtoul(zone, NULL, 10);
	return address->sin6_scope_id;
}

/* "10.0.0.7:5060", "[2001:db8::1]:5060", "[fe80::1%lo]:5060" as peers are kept. */
static void app_client_read_address(lua_State *lua, int idx, struct sockaddr_in6 *address)
{
	struct sockaddr_in in;
	const char *text = luaL_checkstring(lua, idx), *colon = strrchr(text, ':');
	char host[64];
	int port = colon ? atoi(colon + 1) : 0;
	if (!colon || port < 0 || port > 65535 || (size_t)(colon - text) >= sizeof host) {
		luaL_argerror(lua, idx, "an address such as 10.0.0.7:5060 expected");
		return; /* not reached: that raises */
	}
	bool bracketed = text[0] == '[' && colon[-1] == ']';
	snprintf(host, sizeof host, "%.*s", (int)(colon - text) - 2 * bracketed, text + bracketed);
	*address = (struct sockaddr_in6){ .sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port) };
	if (!uv_ip4_addr(host, port, &in)) {
		address->sin6_addr.s6_addr[10] = address->sin6_addr.s6_addr[11] = 0xff;
		memcpy(&address->sin6_addr.s6_addr[12], &in.sin_addr, 4);
	} else if (uv_ip6_addr(host, port, address)) {
		luaL_argerror(lua, idx, "an address such as 10.0.0.7:5060 expected");
	} else if (strchr(host, '%') && !read_zone(strchr(host, '%') + 1, address)) {
		luaL_argerror(lua, idx, "an address of a network interface that there is expected");
	}
}

/* Where clients of a TCP listener come from, unless they say so. */
static void make_address(struct sockaddr_in6 *address, size_t number)
{
	struct sockaddr_in in;
	uv_ip4_addr("127.0.0.1", 0, &in);
	*address = (struct sockaddr_in6){ .sin6_family = AF_INET6,
					  .sin6_port = htons((uint16_t)(40000 + number % 20000)) };
	address->sin6_addr.s6_addr[10] = address->sin6_addr.s6_addr[11] = 0xff;
	memcpy(&address->sin6_addr.s6_addr[12], &in.sin_addr, 4);
}

static const char *text_at(lua_State *lua, int idx, const char *key)
{
	lua_getfield(lua, idx, key);
	const char *text = lua_tostring(lua, -1); /* the table keeps it alive */
	lua_pop(lua, 1);
	return text;
}

/*
 * MAY RAISE. The TLS of a client, by the table at idx: { server_name, alpn (as on the wire), version, certificate, key,
 * authority (PEM) }.
 */
static struct tls_client *new_tls(lua_State *lua, int idx)
{
	char why[128];
	struct tls_client_settings settings = { 0 };
	if (lua_istable(lua, idx)) {
		const char *version = text_at(lua, idx, "version");
		settings.server_name = text_at(lua, idx, "server_name");
		settings.certificate = text_at(lua, idx, "certificate");
		settings.key = text_at(lua, idx, "key");
		settings.authority = text_at(lua, idx, "authority");
		settings.version = !version ? 0 : !strcmp(version, "1.2") ? TLS1_2_VERSION : TLS1_3_VERSION;
		lua_getfield(lua, idx, "alpn");
		settings.alpn = (const unsigned char *)lua_tolstring(lua, -1, &settings.alpn_bytes);
		lua_pop(lua, 1);
	}
	struct tls_client *tls = tls_client_new(&settings, why, sizeof why);
	if (!tls)
		luaL_error(lua, "connect: tls: %s", why);
	return tls;
}

/* A proxy of a listener's, if there is one that it trusts. */
static void make_trusted(const struct listener_config *listener, struct sockaddr_in6 *address)
{
	if (listener->proxy != PROXY_OFF && listener->trust.count)
		address->sin6_addr = listener->trust.list[0].address;
}

/*
 * MAY RAISE. connect(app, listener, address | nil, read_max, write_max, header | false | nil, tls | false | nil [,
 * worker]) → number, id of its connection | nil: refused. header: sent first, in clear; without an address, the client
 * has one that the listener trusts. false: what it sends is what layers would have made of it. tls, false: it speaks
 * plainly, though the listener has TLS.
 */
static int l_app_client_connect(lua_State *lua)
{
	struct world *world = app_check_world(lua);
	lua_Number number = luaL_checknumber(lua, 2);
	size_t header_bytes = 0;
	const char *header = lua_tolstring(lua, 6, &header_bytes);
	struct world_way way = { .read_max = opt_bytes(lua, 4, 0),
				 .write_max = opt_bytes(lua, 5, 0),
				 .is_bare = lua_isboolean(lua, 6),
				 .to = lua_isnoneornil(lua, 8) ? NULL : app_check_worker(lua, 8) };
	luaL_argcheck(lua, number >= 1 && number <= world->config->listener_count, 2,
		      "there is no such listener");
	const struct listener_config *listener = &world->config->listeners[(unsigned)number - 1];
	if (!lua_isnoneornil(lua, 3)) {
		app_client_read_address(lua, 3, &way.from);
	} else if (listener->kind != LISTENER_UNIX) {
		make_address(&way.from, world->peer_count);
		if (header)
			make_trusted(listener, &way.from);
	}
	if (lua_istable(lua, 7) && !listener->tls)
		return luaL_error(lua, "connect: tls: the listener is not tls://");
	bool has_tls = listener->tls && !way.is_bare && (lua_isnoneornil(lua, 7) || lua_toboolean(lua, 7));
	struct tls_client *tls = has_tls ? new_tls(lua, 7) : NULL;
	struct peer *peer = world_connect(world, (unsigned)number - 1, &way);
	if (!peer) {
		tls_client_free(tls);
		return luaL_error(lua, "not enough memory");
	}
	if (header)
		memory_stream_put(&peer->memory, header, header_bytes);
	if (tls)
		peer_begin_tls(peer, tls);
	lua_pushnumber(lua, (lua_Number)world->peer_count);
	if (peer->refused || peer->is_flow)
		return 1;
	lua_pushnumber(lua, (lua_Number)peer->id);
	return 2;
}

/* MAY RAISE. codec(app, listener) → the number of a client that has no connection: for frame(), encode() … */
static int l_codec(lua_State *lua)
{
	struct world *world = app_check_world(lua);
	lua_Number listener = luaL_checknumber(lua, 2);
	luaL_argcheck(lua, listener >= 1 && listener <= world->config->listener_count, 2,
		      "there is no such listener");
	if (!world_add_codec(world, (unsigned)listener - 1))
		return luaL_error(lua, "not enough memory");
	lua_pushnumber(lua, (lua_Number)world->peer_count);
	return 1;
}

/* MAY RAISE. receive(app, client, bytes): they have come by another way */
static int l_receive(lua_State *lua)
{
	size_t n;
	struct peer *peer = app_check_peer(lua);
	const char *bytes = luaL_checklstring(lua, 3, &n);
	if (!peer_receive(peer, bytes, n))
		return luaL_error(lua, "not enough memory");
	return 0;
}

/* put(app, client, bytes): they are on their way */
static int l_put(lua_State *lua)
{
	struct peer *peer = app_check_peer(lua);
	size_t n;
	const char *bytes = luaL_checklstring(lua, 3, &n);
	if ((!peer->gone || peer->is_flow) && !peer_send(peer, bytes, n))
		return luaL_error(lua, "TLS failed: %s",
				  peer->tls && tls_client_why(peer->tls) ? tls_client_why(peer->tls)
									 : "not enough memory");
	return 0;
}

/* half_close(app, client) */
static int l_app_client_half_close(lua_State *lua)
{
	peer_half_close(app_check_peer(lua));
	return 0;
}

/* tls(app, client) → what its handshake has settled, as conn.tls | nil, why it has failed | nil: there is none yet */
static int l_tls(lua_State *lua)
{
	const struct peer *peer = app_check_peer(lua);
	SSL *ssl = peer->tls ? tls_client_ssl(peer->tls) : NULL;
	const char *why = peer->tls ? tls_client_why(peer->tls) : NULL;
	if (ssl && !why) {
		bind_push_tls(lua, ssl);
		return 1;
	}
	lua_pushnil(lua);
	lua_pushstring(lua, why);
	return 2;
}

/* worker(app, client) → whose client it is, from 0 on | nil: nobody's, since it was refused */
static int l_worker(lua_State *lua)
{
	const struct peer *peer = app_check_peer(lua);
	if (peer->is_placed)
		lua_pushnumber(lua, (lua_Number)peer->worker->index);
	else
		lua_pushnil(lua);
	return 1;
}

/* reset(app, client) */
static int l_reset(lua_State *lua)
{
	struct peer *peer = app_check_peer(lua);
	peer->left = true;
	lan_note_client(peer, true, "reset");
	memory_stream_reset(&peer->memory);
	return 0;
}

/* hang_up(app, client) */
static int l_hang_up(lua_State *lua)
{
	peer_hang_up(app_check_peer(lua));
	return 0;
}

/* stall(app, client, bytes | nil): reads so many bytes more, or all again */
static int l_app_client_stall(lua_State *lua)
{
	struct peer *peer = app_check_peer(lua);
	peer_stall(peer, opt_bytes(lua, 3, SIZE_MAX));
	return 0;
}

/* bounds(app, client, read_max, write_max): 0: none */
static int l_bounds(lua_State *lua)
{
	struct peer *peer = app_check_peer(lua);
	peer->memory.read_max = opt_bytes(lua, 3, 0);
	peer->memory.write_max = opt_bytes(lua, 4, 0);
	return 0;
}

/* ---- what clients get ---- */

/* What a codec in Lua has made: a string, or "packed" bytes of another value. How many results. */
static int push_value(struct agents *agents, lua_State *lua)
{
	lua_State *inside = agents->vm.lua;
	int top = lua_gettop(inside);
	lua_rawgeti(inside, AT_VALUES, 1);
	if (lua_type(inside, -1) == LUA_TSTRING) {
		app_take_string(agents, lua, top);
		lua_pushboolean(lua, 0);
		return 2;
	}
	app_push_inside(agents, "pack");
	lua_insert(inside, -2);
	bool ok = app_call_inside(agents, 1);
	app_take_string(agents, lua, top);
	if (!ok)
		return luaL_error(lua, "a frame that cannot leave the app: %s", lua_tostring(lua, -1));
	lua_pushboolean(lua, 1);
	return 2;
}

static void app_client_push_frame(lua_State *lua, struct peer *peer, const struct batch *batch)
{
	const struct frame *frame = &batch->frames[0];
	if (!peer->codec.offset) {
		lua_pushlstring(lua, frame->len ? (const char *)frame->data : "", frame->len);
		return;
	}
	uint8_t *bytes = lua_newuserdata(lua, (size_t)frame->len + peer->codec.offset);
	size_t n = codec_flatten(&peer->codec, frame, bytes);
	lua_pushlstring(lua, (const char *)bytes, n);
	lua_remove(lua, -2);
}

/* MAY RAISE. frame(app, client) → frame, is it packed?, when it came | nil: none yet | nil, what is wrong with it */
static int l_frame(lua_State *lua)
{
	struct peer *peer = app_check_peer(lua);
	struct batch batch;
	int found = peer_next_frame(peer, &batch);
	if (found < 1) {
		char text[128];
		lua_pushnil(lua);
		if (!found)
			return 1;
		bool is_lua = peer->codec.kind == CODEC_LUA && found == ERR_FRAME_MALFORMED;
		lua_pushstring(lua, is_lua ? peer->agents->codec_error
					   : codec_error_text(&peer->codec, &batch, text, sizeof text));
		return 2;
	}
	if (peer->codec.kind == CODEC_LUA) {
		push_value(peer->agents, lua);
	} else {
		app_client_push_frame(lua, peer, &batch);
		lua_pushboolean(lua, 0);
	}
	app_push_time(lua, peer_time_of(peer, peer->taken_bytes - 1));
	return 3;
}

/*
 * bytes(app, client[, n]) → up to n bytes that came and are no frame yet, when the first came. They are taken; n = 0:
 * only shown
 */
static int l_bytes(lua_State *lua)
{
	struct peer *peer = app_check_peer(lua);
	size_t n = peer->received_bytes - peer->taken_bytes, most = opt_bytes(lua, 3, 0);
	size_t shown = most && most < n ? most : n;
	lua_pushlstring(lua, n ? (const char *)peer->received + peer->taken_bytes : "", shown);
	app_push_time(lua, peer_time_of(peer, peer->taken_bytes));
	if (most)
		peer->taken_bytes += shown;
	return 2;
}

static int encode_in_lua(lua_State *lua, struct agents *agents, const struct codec *codec)
{
	size_t n;
	const char *packed = luaL_checklstring(lua, 3, &n);
	lua_State *inside = agents->vm.lua;
	int top = lua_gettop(inside);
	app_push_inside(agents, "encode");
	lua_rawgeti(inside, LUA_REGISTRYINDEX, codec->lua_encode_ref);
	if (!vm_push_bytes(&agents->vm, inside, packed, n)) {
		lua_settop(inside, top);
		return luaL_error(lua, "not enough memory");
	}
	bool ok = app_call_inside(agents, 2);
	app_take_string(agents, lua, top);
	return ok ? 1 : luaL_error(lua, "%s", lua_tostring(lua, -1));
}

/* needs_packing(app, client): are its frames to be given to encode() packed? */
static int l_needs_packing(lua_State *lua)
{
	const struct codec *codec = &app_check_peer(lua)->codec;
	lua_pushboolean(lua, codec->kind == CODEC_LUA && codec->lua_encode_ref != LUA_NOREF);
	return 1;
}

/* MAY RAISE. encode(app, client, frame) → bytes */
static int l_encode(lua_State *lua)
{
	struct peer *peer = app_check_peer(lua);
	struct bench_app *app = app_check(lua);
	const struct codec *codec = &peer->codec;
	size_t n;
	const char *frame = luaL_checklstring(lua, 3, &n);
	if (codec->kind == CODEC_LUA && codec->lua_encode_ref != LUA_NOREF)
		return encode_in_lua(lua, peer->agents, codec);
	buf_release(&app->pool, &app->encoded);
	int err = codec_encode(codec, (const uint8_t *)frame, n, &app->pool, &app->encoded);
	if (err)
		return luaL_error(lua, "%d bytes do not fit a %s frame", (int)n, codec_name(codec));
	const struct buf *out = app->encoded;
	lua_pushlstring(lua, out ? (const char *)out->data + out->start : "", buf_len(out));
	return 1;
}

/* framing(app, client) → "line", "u32be" … */
static int l_framing(lua_State *lua)
{
	lua_pushstring(lua, codec_name(&app_check_peer(lua)->codec));
	return 1;
}

/* MAY RAISE. set_frame(app, client, framing): of what is sent and received from now on */
static int l_set_frame(lua_State *lua)
{
	struct peer *peer = app_check_peer(lua);
	struct codec codec;
	bind_codec_check(lua, 3, CODEC_FRAME_LIMIT, &codec);
	/* A piece of a stream is as long as the server takes it. */
	if (codec.kind == CODEC_RAW && codec.protocol.max_bytes == CODEC_FRAME_LIMIT)
		codec.protocol.max_bytes =
		    agents_codec(peer->worker->agents, peer->listener)->protocol.max_bytes;
	peer->codec = codec;
	peer->session = (struct session){ 0 };
	return 0;
}

/* ---- the end ---- */

/* ended(app, client) → reason | nil, when; when the client saw it | nil, by a reset? */
static int l_app_client_ended(lua_State *lua)
{
	struct peer *peer = app_check_peer(lua);
	enum close_reason reason = peer_reason(peer);
	if (reason == REASON_NONE) {
		lua_pushnil(lua);
		lua_pushnil(lua);
	} else {
		lua_pushstring(lua, reason_name(reason));
		app_push_time(lua, peer->ended_ms);
	}
	if (peer->end_seen)
		app_push_time(lua, peer->end_seen_ms);
	else
		lua_pushnil(lua);
	lua_pushboolean(lua, peer->memory.was_reset);
	return 4;
}

const luaL_Reg APP_CLIENT_FUNCTIONS[] = {
	{ "connect", l_app_client_connect },
	{ "codec", l_codec },
	{ "receive", l_receive },
	{ "put", l_put },
	{ "half_close", l_app_client_half_close },
	{ "tls", l_tls },
	{ "worker", l_worker },
	{ "reset", l_reset },
	{ "hang_up", l_hang_up },
	{ "stall", l_app_client_stall },
	{ "bounds", l_bounds },
	{ "frame", l_frame },
	{ "bytes", l_bytes },
	{ "needs_packing", l_needs_packing },
	{ "encode", l_encode },
	{ "framing", l_framing },
	{ "set_frame", l_set_frame },
	{ "ended", l_app_client_ended },
	{ NULL, NULL },
};
