/*
 * What happens in an app in memory, as a recording has it; and traces, line by line: for lua/perilune/test/replay.lua.
 */
#include "agent/handle.h"
#include "agent/record.h"
#include "base/err.h"
#include "workbench/app.h"

#include <jansson.h>
#include <string.h>

/* ---- what happens ---- */

/* record(app): from now on */
static int l_record(lua_State *lua)
{
	struct world *world = app_check_world(lua);
	for (unsigned i = 0; i < world->worker_count; i++) {
		struct world_worker *worker = &world->workers[i];
		tape_init(&worker->tape, i, (uint64_t)WORLD_BEGIN_MS * 1000);
		worker->tape.now_ms = &worker->host.now_ms;
		worker->host.tape = &worker->tape;
	}
	return 0;
}

struct listing {
	lua_State *lua; /* the list is on top */
	int n;
};

/* MAY RAISE. */
static void add_event(void *data, const struct trace_event *event)
{
	struct listing *listing = data;
	lua_State *lua = listing->lua;
	uint64_t at_ms = event->at_us / 1000;
	lua_createtable(lua, 0, 6);
	lua_pushnumber(lua, (lua_Number)event->conn);
	lua_setfield(lua, -2, "conn");
	lua_pushnumber(lua, (lua_Number)at_ms);
	lua_setfield(lua, -2, "at_ms");
	lua_pushstring(lua, trace_kind_name(event->kind));
	lua_setfield(lua, -2, "event");
	if (event->redacted)
		lua_pushnumber(lua, (lua_Number)event->len);
	else
		lua_pushlstring(lua, event->len ? (const char *)event->data : "", event->len);
	lua_setfield(lua, -2, event->redacted ? "redacted" : event->kind == TRACE_CLOSE ? "reason" : "frame");
	lua_rawseti(lua, -2, ++listing->n);
}

/*
 * MAY RAISE. taped(app) → what has happened since the last time: { { conn, at_ms, event, frame | redacted | reason }, …
 * }
 */
static int l_taped(lua_State *lua)
{
	struct world *world = app_check_world(lua);
	struct listing listing = { lua, 0 };
	struct log_sink *before = log_divert(&world->log.sink);
	lua_newtable(lua);
	for (unsigned i = 0; i < world->worker_count; i++)
		record_take(&world->workers[i].tape, add_event, &listing);
	log_divert(before);
	return 1;
}

/* next_conn(app, id): the next connection gets it, unless it is too late for that */
static int l_next_conn(lua_State *lua)
{
	struct world *world = app_check_world(lua);
	lua_Number id = luaL_checknumber(lua, 2);
	if (id > (lua_Number)world->next_id && id <= (lua_Number)HANDLE_ID_MAX)
		world->next_id = (uint64_t)id;
	return 0;
}

static int app_tape_refuse(lua_State *lua, const char *why)
{
	lua_pushboolean(lua, 0);
	lua_pushstring(lua, why);
	return 2;
}

/*
 * put_frame(app, client, frame, is it framed already?) → true | false, why not: in the framing that its connection
 * expects just now
 */
static int l_put_frame(lua_State *lua)
{
	struct bench_app *app = app_check(lua);
	struct peer *peer = app_check_peer(lua);
	const struct conn *conn = &peer->conn;
	size_t n;
	const char *frame = luaL_checklstring(lua, 3, &n);
	if (peer->gone || !conn_is_open(conn))
		return app_tape_refuse(lua, "the connection has ended");
	const struct agent_endpoint *endpoint = agent_endpoint_of(&conn->first);
	/* What is no frame is taken down as it came. */
	bool is_as_it_came = endpoint->is_http || endpoint->websocket.worker;
	const struct codec *codec =
	    is_as_it_came ? &endpoint->codec
			  : codec_of(conn->first.reading ? conn->first.reading : conn_speaks(conn));
	bool is_framed = lua_toboolean(lua, 4);
	if (codec->kind == CODEC_LUA && !is_framed)
		return app_tape_refuse(
		    lua, "it was recorded in a framing that is not a codec in Lua, as the script's is");
	if (is_framed) {
		peer_send(peer, frame, n);
	} else {
		buf_release(&app->pool, &app->encoded);
		if (codec_encode(codec, (const uint8_t *)frame, n, &app->pool, &app->encoded)) {
			lua_pushboolean(lua, 0);
			lua_pushfstring(lua, "%d bytes do not fit a %s frame", (int)n, codec_name(codec));
			return 2;
		}
		const struct buf *out = app->encoded;
		if (out)
			peer_send(peer, out->data + out->start, buf_len(out));
	}
	lua_pushboolean(lua, 1);
	return 1;
}

/* ---- traces ---- */

/* MAY RAISE. */
static void push_json(lua_State *lua, const json_t *value)
{
	const char *key;
	json_t *item;
	size_t i;
	luaL_checkstack(lua, 4, "JSON");
	switch (json_typeof(value)) {
	case JSON_OBJECT:
		lua_createtable(lua, 0, (int)json_object_size(value));
		json_object_foreach((json_t *)value, key, item)
		{
			push_json(lua, item);
			lua_setfield(lua, -2, key);
		}
		break;
	case JSON_ARRAY:
		lua_createtable(lua, (int)json_array_size(value), 0);
		json_array_foreach(value, i, item)
		{
			push_json(lua, item);
			lua_rawseti(lua, -2, (int)i + 1);
		}
		break;
	case JSON_STRING:
		lua_pushlstring(lua, json_string_value(value), json_string_length(value));
		break;
	case JSON_INTEGER:
	case JSON_REAL:
		lua_pushnumber(lua, json_number_value(value));
		break;
	case JSON_NULL:
		lua_pushnil(lua);
		break;
	default:
		lua_pushboolean(lua, json_is_true(value));
	}
}

static int push_parsed(lua_State *lua)
{
	push_json(lua, lua_touserdata(lua, 1));
	return 1;
}

/* parse(line) → what the JSON says | nil, what is wrong with it */
static int l_parse(lua_State *lua)
{
	size_t n;
	json_error_t error;
	const char *line = luaL_checklstring(lua, 1, &n);
	json_t *value = json_loadb(line, n, JSON_ALLOW_NUL | JSON_REJECT_DUPLICATES, &error);
	if (!value) {
		lua_pushnil(lua);
		lua_pushstring(lua, error.text);
		return 2;
	}
	lua_pushcfunction(lua, push_parsed);
	lua_pushlightuserdata(lua, value);
	int failed = lua_pcall(lua, 1, 1, 0);
	json_decref(value);
	return failed ? lua_error(lua) : 1;
}

static int digit_of(char c)
{
	static const char DIGITS[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	const char *at = c ? strchr(DIGITS, c) : NULL;
	return at ? (int)(at - DIGITS) : -1;
}

/* base64(text) → its bytes | nil: it is none */
static int l_base64(lua_State *lua)
{
	size_t n, padding = 0;
	const char *text = luaL_checklstring(lua, 1, &n);
	while (padding < 2 && padding < n && text[n - 1 - padding] == '=')
		padding++;
	if (n % 4)
		return 0;
	luaL_Buffer bytes;
	luaL_buffinit(lua, &bytes);
	for (size_t i = 0; i < n; i += 4) {
		unsigned four = 0;
		for (size_t k = i; k < i + 4; k++) {
			int digit = k >= n - padding ? 0 : digit_of(text[k]);
			if (digit < 0)
				return 0;
			four = four << 6 | (unsigned)digit;
		}
		size_t is = i + 4 == n ? 3 - padding : 3;
		for (size_t k = 0; k < is; k++)
			luaL_addchar(&bytes, (char)(four >> (16 - 8 * k) & 255));
	}
	luaL_pushresult(&bytes);
	return 1;
}

const luaL_Reg APP_TAPE_FUNCTIONS[] = {
	{ "record", l_record },
	{ "taped", l_taped },
	{ "next_conn", l_next_conn },
	{ "put_frame", l_put_frame },
	{ "parse", l_parse },
	{ "base64", l_base64 },
	{ NULL, NULL },
};
