/*
 * Readers of responses, as lua/perilune/http/exchange.lua has them: src/http/reader.h. A reader is a userdata and has no
 * other memory, so whatever raises leaves nothing behind.
 */
#include "bind/bind.h"
#include "http/reader.h"

#include <string.h>

#define READER "perilune.http_reader" /* the metatable's name */

/* The reader itself is behind it. */
struct box {
	bool has_kept;         /* a step that was made, and not told yet */
	struct http_step kept; /* ... whose data is behind the end of what was told, by kept_at */
	size_t kept_at;
	struct http_reader *reader;
	uint64_t bytes[];
};

/* MAY RAISE. */
static struct box *check_reader(lua_State *lua)
{
	return luaL_checkudata(lua, 1, READER);
}

/* MAY RAISE. reader(headers, fields) → a reader, for heads with so many bytes of fields, and so many of them */
static int l_reader_new(lua_State *lua)
{
	struct http_reader_limits limits = { .headers = (uint32_t)luaL_checkinteger(lua, 1),
					     .fields = (uint32_t)luaL_checkinteger(lua, 2) };
	struct box *box = lua_newuserdata(lua, sizeof *box + http_reader_bytes());
	box->has_kept = false;
	box->reader = http_reader_init(box->bytes, &limits);
	http_reader_begin(box->reader, false, 0);
	luaL_getmetatable(lua, READER);
	lua_setmetatable(lua, -2);
	return 1;
}

/* MAY RAISE. reader_begin(reader, is_head, body_max): another response begins; body_max may be math.huge */
static int l_reader_begin(lua_State *lua)
{
	static const lua_Number MOST = 9007199254740992.0; /* 2^53 */
	struct box *box = check_reader(lua);
	lua_Number body_max = luaL_checknumber(lua, 3);
	box->has_kept = false;
	http_reader_begin(box->reader, lua_toboolean(lua, 2),
			  body_max >= MOST ? UINT64_MAX
			  : body_max > 0   ? (uint64_t)body_max
					   : 0);
	return 0;
}

static int push_reader_refusal(lua_State *lua, const struct http_reader *reader)
{
	lua_pushstring(lua, http_reader_why(reader));
	lua_pushstring(lua, http_reader_is_too_large(reader) ? "EMSGSIZE" : "EPROTO");
	return 2;
}

static int push_head(lua_State *lua, const struct http_reader *reader, const struct http_step *step)
{
	static const char *const EXTENTS[] = { [HTTP_NO_BODY] = "none",
					       [HTTP_OF_LENGTH] = "length",
					       [HTTP_CHUNKED] = "chunked",
					       [HTTP_TO_THE_END] = "end" };
	const struct http_answer *answer = http_reader_answer(reader);
	lua_pushlstring(lua, (const char *)step->data, step->len);
	lua_pushinteger(lua, (lua_Integer)answer->status);
	lua_pushstring(lua, EXTENTS[answer->extent]);
	lua_pushboolean(lua, answer->keeps);
	return 4;
}

/*
 * Data that comes in many small chunks becomes one string. What comes behind it is kept for the next call, which is
 * about the same bytes. *at is where they go on.
 */
static void push_data(lua_State *lua, struct box *box, struct http_step step, const uint8_t *in, size_t n,
		      size_t *at)
{
	bool is_chunked = http_reader_answer(box->reader)->extent == HTTP_CHUNKED;
	if (!is_chunked && step.len == n && !*at) { /* all of it, as it is */
		*at = n;
		lua_pushvalue(lua, 2);
		return;
	}
	luaL_Buffer buffer;
	luaL_buffinit(lua, &buffer);
	while (step.event == HTTP_DATA) {
		luaL_addlstring(&buffer, (const char *)step.data, step.len);
		*at += step.consumed;
		if (!is_chunked)
			break;
		step = http_reader_step(box->reader, in + *at, n - *at);
	}
	luaL_pushresult(&buffer);
	if (step.event == HTTP_MORE) {
		*at += step.consumed;
	} else if (step.event != HTTP_DATA) {
		box->has_kept = true;
		box->kept = step;
		box->kept_at = step.data ? (size_t)(step.data - in) - *at : 0;
	}
}

static struct http_step next_step(struct box *box, const uint8_t *in, size_t n)
{
	if (!box->has_kept)
		return http_reader_step(box->reader, in, n);
	box->has_kept = false;
	box->kept.data = in + box->kept_at;
	return box->kept;
}

/*
 * MAY RAISE. step(reader, data, at) → what has come of data:sub(at), where the rest begins, and
 *   "head": the head as text, the status, how far its body goes, does the connection go on?
 *   "data": bytes of the body; "trailer": the line of a field; "broken": message, code
 *   "more", "interim", "end": nothing
 */
static int l_reader_step(lua_State *lua)
{
	static const char *const EVENTS[] = {
		[HTTP_MORE] = "more",    [HTTP_INTERIM] = "interim", [HTTP_HEAD] = "head",
		[HTTP_DATA] = "data",    [HTTP_TRAILER] = "trailer", [HTTP_END] = "end",
		[HTTP_BROKEN] = "broken"
	};
	struct box *box = check_reader(lua);
	size_t n;
	const uint8_t *in = (const uint8_t *)luaL_checklstring(lua, 2, &n);
	size_t at = (size_t)luaL_checkinteger(lua, 3) - 1;
	luaL_argcheck(lua, at <= n, 3, "it is behind the end");
	lua_settop(lua, 3);
	struct http_step step = next_step(box, in + at, n - at);
	lua_pushstring(lua, EVENTS[step.event]);
	lua_pushnil(lua); /* where the rest begins */
	int values = 0;
	if (step.event == HTTP_DATA) {
		push_data(lua, box, step, in, n, &at);
		values = 1;
	} else {
		at += step.consumed;
	}
	if (step.event == HTTP_HEAD)
		values = push_head(lua, box->reader, &step);
	else if (step.event == HTTP_BROKEN)
		values = push_reader_refusal(lua, box->reader);
	else if (step.event == HTTP_TRAILER)
		lua_pushlstring(lua, (const char *)step.data, step.len), values = 1;
	lua_pushinteger(lua, (lua_Integer)at + 1);
	lua_replace(lua, 5);
	return 2 + values;
}

/* MAY RAISE. reader_finish(reader) → true: the stream has ended, and so the response is whole | false, message, code */
static int l_reader_finish(lua_State *lua)
{
	const struct box *box = check_reader(lua);
	bool is_whole = http_reader_finish(box->reader);
	lua_pushboolean(lua, is_whole);
	return is_whole ? 1 : 1 + push_reader_refusal(lua, box->reader);
}

void bind_http_reader(lua_State *lua)
{
	static const luaL_Reg FUNCTIONS[] = {
		{ "reader", l_reader_new },
		{ "reader_begin", l_reader_begin },
		{ "reader_step", l_reader_step },
		{ "reader_finish", l_reader_finish },
		{ NULL, NULL },
	};
	luaL_newmetatable(lua, READER);
	lua_pushliteral(lua, "reader");
	lua_setfield(lua, -2, "__metatable");
	lua_pop(lua, 1);
	luaL_register(lua, NULL, FUNCTIONS);
}
