/*
 * perilune.workbench.app: apps in memory, as lua/perilune/test.lua sees them. An app is a box with a pointer, a client a
 * number of that app's.
 */
#include "base/err.h"
#include "bind/bind.h"
#include "workbench/bench.h"
#include "workbench/script.h"
#include "workbench/world.h"

#include <stdio.h>
#include <string.h>

struct bench_app {
	struct world world;   /* first */
	struct buf_pool pool; /* of `encoded` */
	struct buf *encoded;  /* bytes that are about to be pushed */
	struct bench_app *next;
};

static const char METATABLE[] = "perilune.workbench.app";

/* ---- arguments; all of these may raise ---- */

static struct bench_app *check_app(lua_State *lua)
{
	struct bench_app **box = luaL_checkudata(lua, 1, METATABLE);
	if (!*box)
		luaL_error(lua, "the app is closed");
	return *box;
}

static struct world *check_world(lua_State *lua)
{
	return &check_app(lua)->world;
}

static struct peer *check_peer(lua_State *lua)
{
	struct world *world = check_world(lua);
	lua_Number number = luaL_checknumber(lua, 2);
	if (!(number >= 1 && number <= (lua_Number)world->peer_count))
		luaL_argerror(lua, 2, "there is no such client");
	return world->peers[(size_t)number - 1];
}

static void *allocate(lua_State *lua, size_t n, size_t bytes)
{
	return lua_newuserdata(lua, n ? n * bytes : 1);
}

/* list[i][key], which stays alive in the list. */
static char *text_of(lua_State *lua, const char *key)
{
	lua_getfield(lua, -1, key);
	const char *text = luaL_checkstring(lua, -1);
	lua_pop(lua, 1);
	return (char *)text;
}

/* The list of { path, value, origin } at idx. Pushes what holds the result. */
static void read_overrides(lua_State *lua, int idx, struct script *script)
{
	luaL_checktype(lua, idx, LUA_TTABLE);
	script->override_count = lua_objlen(lua, idx);
	struct override *overrides = allocate(lua, script->override_count, sizeof *overrides);
	for (size_t i = 0; i < script->override_count; i++) {
		lua_rawgeti(lua, idx, (int)i + 1);
		luaL_checktype(lua, -1, LUA_TTABLE);
		overrides[i] =
		    (struct override){ text_of(lua, "path"), text_of(lua, "value"), text_of(lua, "origin") };
		lua_pop(lua, 1);
	}
	script->overrides = overrides;
}

/* ---- the app ---- */

static void close_app(struct bench *bench, struct bench_app *app)
{
	struct bench_app **link = &bench->apps;
	while (*link != app)
		link = &(*link)->next;
	*link = app->next;
	world_close(&app->world);
	world_free_log(&app->world);
	buf_release(&app->pool, &app->encoded);
	buf_pool_deinit(&app->pool);
	free(app);
}

void bench_close_apps(struct bench *bench)
{
	while (bench->apps)
		close_app(bench, bench->apps);
}

/* Pushes text that malloc() made, and frees it. */
static int refuse(lua_State *lua, char *text)
{
	char why[4096];
	snprintf(why, sizeof why, "%s", text ? text : "not enough memory");
	free(text);
	lua_pushnil(lua);
	lua_pushstring(lua, why);
	return 2;
}

static struct bench_app *new_app(struct bench *bench, struct config *config, const char *inside, char *why,
				 size_t size)
{
	struct bench_app *app = calloc(1, sizeof *app);
	if (!app) {
		snprintf(why, size, "not enough memory");
		return NULL;
	}
	if (!world_open(&app->world, config, inside, why, size)) {
		free(app);
		return NULL;
	}
	app->world.stop = &bench->vm.guard.verdict;
	buf_pool_init(&app->pool, 0, 1);
	app->next = bench->apps;
	bench->apps = app;
	return app;
}

/* MAY RAISE. open(path, image | nil, overrides[, inside]) → app | nil, message */
static int l_open(lua_State *lua)
{
	struct script script = { .path = luaL_checkstring(lua, 1) };
	script.image = luaL_optlstring(lua, 2, NULL, &script.image_bytes);
	const char *inside = luaL_optstring(lua, 4, "perilune.test.inside");
	read_overrides(lua, 3, &script);
	struct bench_app **box = lua_newuserdata(lua, sizeof(struct bench_app *));
	*box = NULL;
	luaL_getmetatable(lua, METATABLE);
	lua_setmetatable(lua, -2);
	char *text, why[4096];
	struct config *config = script_load(&script, &text);
	if (!config)
		return refuse(lua, text);
	*box = new_app(bench_of(lua), config, inside, why, sizeof why);
	config_drop(config);
	if (*box)
		return 1;
	lua_pushnil(lua);
	lua_pushstring(lua, why);
	return 2;
}

/* close(app): cuts what is left. Again: nothing. */
static int l_close(lua_State *lua)
{
	struct bench_app **box = luaL_checkudata(lua, 1, METATABLE);
	struct bench_app *app = *box;
	*box = NULL;
	if (app)
		close_app(bench_of(lua), app);
	return 0;
}

/* Is it closed? */
static int l_is_closed(lua_State *lua)
{
	struct bench_app **box = luaL_checkudata(lua, 1, METATABLE);
	lua_pushboolean(lua, !*box);
	return 1;
}

/* ---- time ---- */

static int push_quiet(lua_State *lua, enum world_quiet quiet)
{
	lua_pushboolean(lua, quiet == WORLD_QUIET);
	if (quiet == WORLD_QUIET)
		return 1;
	lua_pushstring(lua, quiet == WORLD_RESTLESS ? "restless" : "stopped");
	return 2;
}

/* settle(app) → true | false, "restless" | "stopped" */
static int l_settle(lua_State *lua)
{
	return push_quiet(lua, world_settle(check_world(lua)));
}

/* advance(app, ms): the same, so much later */
static int l_advance(lua_State *lua)
{
	struct world *world = check_world(lua);
	lua_Number ms = luaL_checknumber(lua, 2);
	luaL_argcheck(lua, ms >= 0 && ms <= 1e13, 2, "milliseconds expected");
	return push_quiet(lua, world_advance(world, world->host.now_ms + (uint64_t)ms));
}

/* drain(app): the same; all connections end */
static int l_drain(lua_State *lua)
{
	return push_quiet(lua, world_drain(check_world(lua)));
}

static void push_time(lua_State *lua, uint64_t at_ms)
{
	lua_pushnumber(lua, (lua_Number)(at_ms > WORLD_BEGIN_MS ? at_ms - WORLD_BEGIN_MS : 0));
}

/* now(app) → milliseconds since it began */
static int l_now(lua_State *lua)
{
	push_time(lua, check_world(lua)->host.now_ms);
	return 1;
}

/* next(app) → when something is due, or nil */
static int l_next(lua_State *lua)
{
	uint64_t next_ms = world_next_ms(check_world(lua));
	if (next_ms == WHEEL_NEVER)
		lua_pushnil(lua);
	else
		push_time(lua, next_ms);
	return 1;
}

/* ---- clients ---- */

static size_t opt_bytes(lua_State *lua, int idx, size_t otherwise)
{
	if (lua_isnoneornil(lua, idx))
		return otherwise;
	lua_Number n = luaL_checknumber(lua, idx);
	luaL_argcheck(lua, n >= 0 && n < 1e15, idx, "bytes expected");
	return (size_t)n;
}

/* "10.0.0.7:5060" as peers are kept. */
static void read_address(lua_State *lua, int idx, struct sockaddr_in6 *address)
{
	struct sockaddr_in in;
	const char *text = luaL_checkstring(lua, idx), *colon = strrchr(text, ':');
	char host[64];
	int port = colon ? atoi(colon + 1) : 0;
	if (!colon || port < 0 || port > 65535 || (size_t)(colon - text) >= sizeof host)
		luaL_argerror(lua, idx, "an address such as 10.0.0.7:5060 expected");
	snprintf(host, sizeof host, "%.*s", (int)(colon - text), text);
	*address = (struct sockaddr_in6){ .sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port) };
	if (!uv_ip4_addr(host, port, &in)) {
		address->sin6_addr.s6_addr[10] = address->sin6_addr.s6_addr[11] = 0xff;
		memcpy(&address->sin6_addr.s6_addr[12], &in.sin_addr, 4);
	} else if (uv_ip6_addr(host, port, address)) {
		luaL_argerror(lua, idx, "an address such as 10.0.0.7:5060 expected");
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

/* MAY RAISE. connect(app, listener, address | nil, read_max, write_max) → number, id of its connection | nil: refused */
static int l_connect(lua_State *lua)
{
	struct world *world = check_world(lua);
	lua_Number listener = luaL_checknumber(lua, 2);
	struct sockaddr_in6 address;
	bool has_address = !lua_isnoneornil(lua, 3);
	luaL_argcheck(lua, listener >= 1 && listener <= world->config->listener_count, 2,
		      "there is no such listener");
	if (has_address) {
		read_address(lua, 3, &address);
	} else if (world->config->listeners[(unsigned)listener - 1].kind == LISTENER_TCP) {
		make_address(&address, world->peer_count);
		has_address = true;
	}
	size_t read_max = opt_bytes(lua, 4, 0), write_max = opt_bytes(lua, 5, 0);
	struct peer *peer =
	    world_connect(world, (unsigned)listener - 1, has_address ? &address : NULL, read_max, write_max);
	if (!peer)
		return luaL_error(lua, "not enough memory");
	lua_pushnumber(lua, (lua_Number)world->peer_count);
	if (peer->refused)
		return 1;
	lua_pushnumber(lua, (lua_Number)peer->memory.conn.id);
	return 2;
}

/* MAY RAISE. codec(app, listener) → the number of a client that has no connection: for frame(), encode() … */
static int l_codec(lua_State *lua)
{
	struct world *world = check_world(lua);
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
	struct peer *peer = check_peer(lua);
	const char *bytes = luaL_checklstring(lua, 3, &n);
	if (!peer_receive(peer, bytes, n))
		return luaL_error(lua, "not enough memory");
	return 0;
}

/* put(app, client, bytes): they are on their way */
static int l_put(lua_State *lua)
{
	struct peer *peer = check_peer(lua);
	size_t n;
	const char *bytes = luaL_checklstring(lua, 3, &n);
	if (!peer->gone)
		memory_conn_put(&peer->memory, bytes, n);
	return 0;
}

/* half_close(app, client) */
static int l_half_close(lua_State *lua)
{
	memory_conn_half_close(&check_peer(lua)->memory);
	return 0;
}

/* reset(app, client) */
static int l_reset(lua_State *lua)
{
	struct peer *peer = check_peer(lua);
	peer->left = true;
	memory_conn_reset(&peer->memory);
	return 0;
}

/* hang_up(app, client) */
static int l_hang_up(lua_State *lua)
{
	peer_hang_up(check_peer(lua));
	return 0;
}

/* stall(app, client, bytes | nil): reads so many bytes more, or all again */
static int l_stall(lua_State *lua)
{
	struct peer *peer = check_peer(lua);
	peer_stall(peer, opt_bytes(lua, 3, SIZE_MAX));
	return 0;
}

/* bounds(app, client, read_max, write_max): 0: none */
static int l_bounds(lua_State *lua)
{
	struct peer *peer = check_peer(lua);
	peer->memory.read_max = opt_bytes(lua, 3, 0);
	peer->memory.write_max = opt_bytes(lua, 4, 0);
	return 0;
}

/* ---- what clients get ---- */

/* Calls the function of `inside` on top of the app's stack; it leaves what it returns, or the error. */
static bool call_inside(struct world *world, int nargs)
{
	struct vm *vm = &world->agents.vm;
	return !vm_pcall(vm, vm->lua, nargs, 1, &VM_LOAD_BUDGET);
}

static void push_inside(struct world *world, const char *name)
{
	lua_State *inside = world->agents.vm.lua;
	lua_getfield(inside, LUA_REGISTRYINDEX, "perilune.inside");
	lua_getfield(inside, -1, name);
	lua_remove(inside, -2);
}

/* The string on top of the app's stack, which is taken down to `top`. */
static void take_string(struct world *world, lua_State *lua, int top)
{
	lua_State *inside = world->agents.vm.lua;
	size_t n;
	const char *bytes = lua_tolstring(inside, -1, &n);
	lua_pushlstring(lua, bytes ? bytes : "", bytes ? n : 0);
	lua_settop(inside, top);
}

/* What a codec in Lua has made: a string, or "packed" bytes of another value. How many results. */
static int push_value(struct world *world, lua_State *lua)
{
	lua_State *inside = world->agents.vm.lua;
	int top = lua_gettop(inside);
	lua_rawgeti(inside, AT_VALUES, 1);
	if (lua_type(inside, -1) == LUA_TSTRING) {
		take_string(world, lua, top);
		lua_pushboolean(lua, 0);
		return 2;
	}
	push_inside(world, "pack");
	lua_insert(inside, -2);
	bool ok = call_inside(world, 1);
	take_string(world, lua, top);
	if (!ok)
		return luaL_error(lua, "a frame that cannot leave the app: %s", lua_tostring(lua, -1));
	lua_pushboolean(lua, 1);
	return 2;
}

static void push_frame(lua_State *lua, struct peer *peer, const struct frame_batch *batch)
{
	const struct frame *frame = &batch->frames[0];
	if (!peer->codec.offset) {
		lua_pushlstring(lua, frame->len ? (const char *)frame->data : "", frame->len);
		return;
	}
	uint8_t *bytes = allocate(lua, (size_t)frame->len + peer->codec.offset, 1);
	size_t n = codec_flatten(&peer->codec, frame, bytes);
	lua_pushlstring(lua, (const char *)bytes, n);
	lua_remove(lua, -2);
}

/* MAY RAISE. frame(app, client) → frame, is it packed?, when it came | nil: none yet | nil, what is wrong with it */
static int l_frame(lua_State *lua)
{
	struct peer *peer = check_peer(lua);
	struct world *world = check_world(lua);
	struct frame_batch batch;
	int found = peer_next_frame(peer, &batch);
	if (found < 1) {
		char text[128];
		lua_pushnil(lua);
		if (!found)
			return 1;
		bool is_lua = peer->codec.kind == CODEC_LUA && found == ERR_FRAME_MALFORMED;
		lua_pushstring(lua, is_lua ? world->agents.codec_error
					   : codec_error_text(&peer->codec, &batch, text, sizeof text));
		return 2;
	}
	if (peer->codec.kind == CODEC_LUA) {
		push_value(world, lua);
	} else {
		push_frame(lua, peer, &batch);
		lua_pushboolean(lua, 0);
	}
	push_time(lua, peer_time_of(peer, peer->taken_bytes - 1));
	return 3;
}

/* bytes(app, client[, n]) → up to n bytes that came and are no frame yet, when the first came. They are taken; n = 0: only shown */
static int l_bytes(lua_State *lua)
{
	struct peer *peer = check_peer(lua);
	size_t n = peer->received_bytes - peer->taken_bytes, most = opt_bytes(lua, 3, 0);
	size_t shown = most && most < n ? most : n;
	lua_pushlstring(lua, n ? (const char *)peer->received + peer->taken_bytes : "", shown);
	push_time(lua, peer_time_of(peer, peer->taken_bytes));
	if (most)
		peer->taken_bytes += shown;
	return 2;
}

static int encode_in_lua(lua_State *lua, struct world *world, const struct codec *codec)
{
	size_t n;
	const char *packed = luaL_checklstring(lua, 3, &n);
	lua_State *inside = world->agents.vm.lua;
	int top = lua_gettop(inside);
	push_inside(world, "encode");
	lua_rawgeti(inside, LUA_REGISTRYINDEX, codec->lua_encode_ref);
	lua_pushlstring(inside, packed, n);
	bool ok = call_inside(world, 2);
	take_string(world, lua, top);
	return ok ? 1 : luaL_error(lua, "%s", lua_tostring(lua, -1));
}

/* needs_packing(app, client): are its frames to be given to encode() packed? */
static int l_needs_packing(lua_State *lua)
{
	const struct codec *codec = &check_peer(lua)->codec;
	lua_pushboolean(lua, codec->kind == CODEC_LUA && codec->lua_encode_ref != LUA_NOREF);
	return 1;
}

/* MAY RAISE. encode(app, client, frame) → bytes */
static int l_encode(lua_State *lua)
{
	struct peer *peer = check_peer(lua);
	struct bench_app *app = check_app(lua);
	const struct codec *codec = &peer->codec;
	size_t n;
	const char *frame = luaL_checklstring(lua, 3, &n);
	if (codec->kind == CODEC_LUA && codec->lua_encode_ref != LUA_NOREF)
		return encode_in_lua(lua, &app->world, codec);
	buf_release(&app->pool, &app->encoded);
	int err = codec->ops->encode(codec, (const uint8_t *)frame, n, &app->pool, &app->encoded);
	if (err)
		return luaL_error(lua, "%d bytes do not fit a %s frame", (int)n, codec_name(codec));
	const struct buf *out = app->encoded;
	lua_pushlstring(lua, out ? (const char *)out->data + out->start : "", buf_len(out));
	return 1;
}

/* framing(app, client) → "line", "u32be" … */
static int l_framing(lua_State *lua)
{
	lua_pushstring(lua, codec_name(&check_peer(lua)->codec));
	return 1;
}

/* MAY RAISE. set_frame(app, client, framing): of what is sent and received from now on */
static int l_set_frame(lua_State *lua)
{
	struct peer *peer = check_peer(lua);
	struct codec codec;
	bind_codec_check(lua, 3, agents_codec(&peer->world->agents, peer->listener)->max_bytes, &codec);
	peer->codec = codec;
	peer->scanned = 0;
	return 0;
}

/* ---- what there is ---- */

/* ended(app, client) → reason | nil, when; when the client saw it | nil, by a reset? */
static int l_ended(lua_State *lua)
{
	struct peer *peer = check_peer(lua);
	enum close_reason reason = peer_reason(peer);
	if (reason == REASON_NONE) {
		lua_pushnil(lua);
		lua_pushnil(lua);
	} else {
		lua_pushstring(lua, reason_name(reason));
		push_time(lua, peer->ended_ms);
	}
	if (peer->end_seen)
		push_time(lua, peer->end_seen_ms);
	else
		lua_pushnil(lua);
	lua_pushboolean(lua, peer->memory.was_reset);
	return 4;
}

static const char *wait_name(enum wait wait)
{
	return wait == WAIT_SLEEP ? "perilune.sleep" : wait == WAIT_READ ? "conn:read" : "conn:flush";
}

static void set_text(lua_State *lua, const char *key, const char *text)
{
	lua_pushstring(lua, text);
	lua_setfield(lua, -2, key);
}

static const char *phase_text(const struct conn *conn)
{
	static const char *const STATES[] = { "open", "closing", "waits for the client to close", "closed" };
	if (conn->state == CONN_OPEN && conn->paused)
		return "paused";
	return STATES[conn->state];
}

static void push_live(lua_State *lua, const struct peer *peer, size_t number)
{
	const struct conn *conn = &peer->memory.conn;
	const struct run *run = conn->suspended;
	lua_createtable(lua, 0, 6);
	lua_pushnumber(lua, (lua_Number)number);
	lua_setfield(lua, -2, "client");
	lua_pushnumber(lua, (lua_Number)conn->id);
	lua_setfield(lua, -2, "conn");
	set_text(lua, "state", phase_text(conn));
	if (!run)
		return;
	set_text(lua, "callback", callback_name(run->callback));
	set_text(lua, "waits", wait_name(run->wait));
	if (run->until_ms == WHEEL_NEVER)
		return;
	push_time(lua, run->until_ms);
	lua_setfield(lua, -2, "until_ms");
}

/* live(app) → a list of the connections that there are: { client, conn, state, callback, waits, until_ms } */
static int l_live(lua_State *lua)
{
	struct world *world = check_world(lua);
	int n = 0;
	lua_newtable(lua);
	for (size_t i = 0; i < world->peer_count; i++) {
		if (world->peers[i]->gone)
			continue;
		push_live(lua, world->peers[i], i + 1);
		lua_rawseti(lua, -2, ++n);
	}
	return 1;
}

static void push_entry(lua_State *lua, const struct entry *entry)
{
	static const char *const LEVELS[] = { "debug", "info", "warn", "error" };
	lua_createtable(lua, 0, 10);
	for (const struct entry_field *field = entry->fields; field; field = field->next) {
		if (field->text)
			lua_pushstring(lua, field->text);
		else
			lua_pushnumber(lua, (lua_Number)field->number);
		lua_setfield(lua, -2, field->key);
	}
	set_text(lua, "level", LEVELS[entry->level]);
	set_text(lua, "message", entry->message);
	push_time(lua, entry->at_ms);
	lua_setfield(lua, -2, "at_ms");
}

/* log(app) → the entries so far, how many there were no room for */
static int l_log(lua_State *lua)
{
	const struct entries *log = &check_world(lua)->log;
	int n = 0;
	lua_createtable(lua, (int)log->count, 0);
	for (const struct entry *entry = log->first; entry; entry = entry->next) {
		push_entry(lua, entry);
		lua_rawseti(lua, -2, ++n);
	}
	lua_pushinteger(lua, (lua_Integer)log->lost);
	return 2;
}

static void push_count(lua_State *lua, const char *key, const counter *c)
{
	lua_pushnumber(lua, (lua_Number)count_read(c));
	lua_setfield(lua, -2, key);
}

/* counters(app) → those of the server */
static int l_counters(lua_State *lua)
{
	const struct counters *c = &check_world(lua)->counters;
	lua_createtable(lua, 0, 12);
	push_count(lua, "accepted", &c->accepted);
	push_count(lua, "frames_in", &c->frames_in);
	push_count(lua, "frames_out", &c->frames_out);
	push_count(lua, "bytes_in", &c->bytes_in);
	push_count(lua, "bytes_out", &c->bytes_out);
	push_count(lua, "faults", &c->faults);
	push_count(lua, "suspensions", &c->suspensions);
	push_count(lua, "dropped_frames", &c->dropped_frames);
	push_count(lua, "discarded_bytes", &c->discarded_bytes);
	push_count(lua, "cut", &c->cut);
	lua_pushnumber(lua, (lua_Number)counters_closed(c));
	lua_setfield(lua, -2, "closed");
	return 1;
}

/* listeners(app) → their names */
static int l_listeners(lua_State *lua)
{
	const struct config *config = check_world(lua)->config;
	lua_createtable(lua, (int)config->listener_count, 0);
	for (unsigned i = 0; i < config->listener_count; i++) {
		lua_pushstring(lua, config->listeners[i].name);
		lua_rawseti(lua, -2, (int)i + 1);
	}
	return 1;
}

/* ---- faults ---- */

/* MAY RAISE. fail(app, callback, n): its n-th call raises */
static int l_fail(lua_State *lua)
{
	struct world *world = check_world(lua);
	const char *callback = luaL_checkstring(lua, 2);
	lua_Number n = luaL_checknumber(lua, 3);
	lua_State *inside = world->agents.vm.lua;
	int top = lua_gettop(inside);
	push_inside(world, "fail");
	lua_pushstring(inside, callback);
	lua_pushnumber(inside, n);
	bool ok = call_inside(world, 2);
	take_string(world, lua, top);
	return ok ? 0 : luaL_error(lua, "%s", lua_tostring(lua, -1));
}

/* MAY RAISE. coverage(app) → what perilune.test.covered has counted, encoded */
static int l_coverage(lua_State *lua)
{
	struct world *world = check_world(lua);
	int top = lua_gettop(world->agents.vm.lua);
	push_inside(world, "coverage");
	bool ok = call_inside(world, 0);
	take_string(world, lua, top);
	return ok ? 1 : luaL_error(lua, "%s", lua_tostring(lua, -1));
}

/* starve(app, on): no connection gets memory for bytes that have to wait */
static int l_starve(lua_State *lua)
{
	struct world *world = check_world(lua);
	world->host.pool.limit_bytes = lua_toboolean(lua, 2) ? 1 : world->config->buffer_bytes;
	return 0;
}

static const luaL_Reg FUNCTIONS[] = {
	{ "open", l_open },
	{ "close", l_close },
	{ "is_closed", l_is_closed },
	{ "settle", l_settle },
	{ "advance", l_advance },
	{ "drain", l_drain },
	{ "now", l_now },
	{ "next", l_next },
	{ "connect", l_connect },
	{ "codec", l_codec },
	{ "receive", l_receive },
	{ "put", l_put },
	{ "half_close", l_half_close },
	{ "reset", l_reset },
	{ "hang_up", l_hang_up },
	{ "stall", l_stall },
	{ "bounds", l_bounds },
	{ "frame", l_frame },
	{ "bytes", l_bytes },
	{ "needs_packing", l_needs_packing },
	{ "encode", l_encode },
	{ "framing", l_framing },
	{ "set_frame", l_set_frame },
	{ "ended", l_ended },
	{ "live", l_live },
	{ "log", l_log },
	{ "counters", l_counters },
	{ "listeners", l_listeners },
	{ "fail", l_fail },
	{ "starve", l_starve },
	{ "coverage", l_coverage },
	{ NULL, NULL },
};

void bench_push_app(lua_State *lua)
{
	luaL_newmetatable(lua, METATABLE);
	lua_pop(lua, 1);
	lua_newtable(lua);
	luaL_register(lua, NULL, FUNCTIONS);
}
