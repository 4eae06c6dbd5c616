/* Frame codecs as Lua describes them, and codecs written in Lua. */
#include "agent/ledger.h"
#include "agent/run.h"
#include "base/err.h"
#include "base/text.h"
#include "bind/bind.h"
#include "conn/outgoing.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <uv.h>

/* ---- codecs in Lua ---- */

/*
 * decode(bytes, position) → frame, next [, meta] | nil [, nil, need]: more bytes are needed | nil, next: skipped |
 * false, why.
 *
 * It is given a stretch of the bytes at hand, a larger one only when that is too little: what a frame costs must not
 * depend on how much waits behind it.
 */
struct decoding {
	struct agents *agents;
	const struct channel *channel; /* whose bytes they are; NULL: nobody's, in a test */
	const struct codec *codec;
	struct batch *out;
	const uint8_t *in;
	size_t n;
	size_t from, to;    /* the stretch */
	size_t need;        /* bytes from out->consumed on, without which it is not to be called again */
	bool said_its_need; /* or we say it: one more than it had */
	uint64_t began;     /* base/ticks.h, as the connection's ledger has them */
};

enum { STRETCH_BYTES = 16384, STRETCH_OF_ONE_BYTES = 4096 };

/*
 * A frame that is a string has max_bytes at most; what is around it, or what is skipped, no more than a framing of ours
 * has.
 */
static size_t most_bytes(const struct codec *codec)
{
	enum { HEADER_BYTES = 64 };
	return (size_t)codec->protocol.max_bytes + HEADER_BYTES;
}

/* `why` is escaped here: it may have any bytes, a peer's among them. */
static void malformed(struct decoding *d, const char *why, size_t n)
{
	static const char ANY[] = "malformed frame";
	d->out->error = ERR_FRAME_MALFORMED;
	d->out->announced = d->n - d->out->consumed;
	text_escape(TEXT_LINE, d->agents->codec_error, sizeof d->agents->codec_error, why ? why : ANY,
		    why ? n : sizeof ANY - 1);
}

/*
 * What decode() has raised is on top of the stack (popped), or what is wrong with its results: the script is at fault.
 */
static void failed(struct decoding *d, lua_State *lua)
{
	size_t n = 0;
	const char *why = lua_tolstring(lua, -1, &n);
	malformed(d, why, n);
	lua_replace(lua, AT_ERROR);
	d->agents->decode_failed = true;
}

static void failed_by(struct decoding *d, lua_State *lua, const char *why)
{
	lua_pushstring(lua, why);
	failed(d, lua);
}

/* What it returned is no place behind the byte `at`. */
static void misplaced(struct decoding *d, lua_State *lua, int idx, size_t at)
{
	char got[40], why[192];
	if (lua_type(lua, idx) == LUA_TNUMBER)
		snprintf(got, sizeof got, "%.14g", lua_tonumber(lua, idx));
	else
		snprintf(got, sizeof got, "%s", luaL_typename(lua, idx));
	snprintf(why, sizeof why,
		 "the codec's decode must return a frame and the position after it, a whole number"
		 " from %zu to %zu: it returned %s",
		 at + 2, d->to - d->from + 1, got);
	failed_by(d, lua, why);
}

/* It refuses the frame: of the value on the stack. */
static void malformed_by(struct decoding *d, lua_State *lua, int idx)
{
	size_t n = 0;
	const char *why = lua_tolstring(lua, idx, &n);
	malformed(d, why, n);
}

static void too_large(struct decoding *d, size_t bytes)
{
	d->out->error = ERR_FRAME_TOO_LARGE;
	d->out->announced = bytes;
}

/* It wants more than the stretch. */
static void take_need(struct decoding *d, lua_State *lua, int idx)
{
	size_t has = d->to - d->out->consumed;
	d->said_its_need = !lua_isnil(lua, idx);
	d->need = has + 1;
	if (!d->said_its_need)
		return;
	double need = lua_type(lua, idx) == LUA_TNUMBER ? lua_tonumber(lua, idx) : 0;
	if (!(need > (double)has))
		failed_by(d, lua,
			  "the codec's decode must say a need of more bytes than it has, from position on");
	else if (need > (double)most_bytes(d->codec))
		too_large(d, need < (double)SIZE_MAX / 2 ? (size_t)need : SIZE_MAX / 2);
	else
		d->need = (size_t)ceil(need);
}

static void take_frame(struct decoding *d, lua_State *lua, int results)
{
	struct batch *out = d->out;
	out->frames[out->count++] = (struct frame){ .end = (uint32_t)out->consumed };
	lua_pushvalue(lua, results);
	lua_rawseti(lua, AT_VALUES, (int)out->count);
	lua_pushvalue(lua, results + 2);
	lua_rawseti(lua, AT_METAS, (int)out->count);
}

/* decode() may have ended or paused its connection: the frame at hand is not handed up then, nor any behind it. */
static bool may_deliver(const struct decoding *d)
{
	return !d->channel || (channel_is_open(d->channel) && !d->channel->paused);
}

/* It may also have given it another framing, for what is behind the frame at hand. */
static bool goes_on(const struct decoding *d)
{
	const struct channel *channel = d->channel;
	return may_deliver(d) && (!channel || channel->reading || !channel->conn->next_protocol);
}

/* Takes one frame from what decode() returned at results … results + 2. False: stop. */
static bool take_decoded(struct decoding *d, lua_State *lua, int results)
{
	if (lua_isboolean(lua, results) && !lua_toboolean(lua, results)) {
		malformed_by(d, lua, results + 1);
		return false;
	}
	if (!may_deliver(d))
		return false;
	if (lua_isnil(lua, results) && lua_isnil(lua, results + 1)) {
		take_need(d, lua, results + 2);
		return false;
	}
	double next = lua_type(lua, results + 1) == LUA_TNUMBER ? lua_tonumber(lua, results + 1) : 0;
	size_t at = d->out->consumed - d->from;
	/* A fraction of a byte would be no progress, for ever. */
	if (!(next > (double)at + 1 && next <= (double)(d->to - d->from) + 1 && next == floor(next))) {
		misplaced(d, lua, results + 1, at);
		return false;
	}
	size_t bytes = (size_t)next - 1 - at;
	bool is_text = lua_type(lua, results) == LUA_TSTRING;
	if (is_text && lua_objlen(lua, results) > d->codec->protocol.max_bytes)
		too_large(d, lua_objlen(lua, results));
	else if (bytes > most_bytes(d->codec))
		too_large(d, bytes);
	if (d->out->error)
		return false;
	d->out->consumed += bytes;
	if (!lua_isnil(lua, results)) /* else bytes without a frame: a comment, padding */
		take_frame(d, lua, results);
	return true;
}

/* While its ledger is open. */
static uint64_t ticks_of(const struct channel *channel)
{
	return channel->handler_ticks + ticks_now();
}

/* What takes long leaves the rest for its connection's next turn. */
static bool has_time(struct decoding *d)
{
	if (!d->channel || ticks_of(d->channel) - d->began <= d->channel->conn->host->turn_ticks)
		return true;
	if (!d->out->error && d->out->consumed < d->n)
		d->out->error = ERR_FRAME_LATER;
	return false;
}

/* Asks decode() for one frame after the other of a stretch. Is there more to ask for? */
static bool decode_stretch(struct decoding *d, unsigned limit)
{
	lua_State *lua = d->agents->vm.lua;
	const struct vm_budget *budget = &d->agents->endpoints[d->codec->lua_listener].budget;
	bool more = true;
	if (!vm_push_bytes(&d->agents->vm, lua, d->in + d->from, d->to - d->from)) {
		d->agents->vm.is_full = true;
		d->agents->decode_verdict = GUARD_MEMORY;
		failed_by(d, lua, "not enough memory to call the codec's decode");
		return false;
	}
	int bytes = lua_gettop(lua);
	d->need = 0;
	while (more && d->out->count < limit && d->out->consumed < d->to) {
		lua_rawgeti(lua, LUA_REGISTRYINDEX, d->codec->lua_decode_ref);
		lua_pushvalue(lua, bytes);
		lua_pushnumber(lua, (lua_Number)(d->out->consumed - d->from) + 1);
		guard_name(&d->agents->vm.guard, callback_name(CALL_DECODE), d->channel ? d->channel->id : 0);
		if (vm_pcall(&d->agents->vm, lua, 2, 3, budget)) {
			d->agents->decode_verdict = d->agents->vm.verdict;
			failed(d, lua);
			break;
		}
		more = take_decoded(d, lua, bytes + 1) && goes_on(d) && has_time(d);
		lua_settop(lua, bytes);
	}
	lua_settop(lua, bytes - 1);
	return !d->out->error && d->out->count < limit && d->need <= d->n - d->out->consumed && goes_on(d);
}

/* `least` bytes are known to be needed. */
static void decode_all(struct decoding *d, unsigned limit, size_t least)
{
	const size_t usual = limit == 1 ? STRETCH_OF_ONE_BYTES : STRETCH_BYTES;
	size_t size = least > usual ? least : usual;
	do {
		d->from = d->out->consumed;
		d->to = d->n - d->from > size ? d->from + size : d->n;
		if (!decode_stretch(d, limit))
			return;
		size = d->out->consumed > d->from ? usual : 2 * size;
		size = d->need > size ? d->need : size;
	} while (d->out->consumed < d->n);
}

/* session->scanned is how many bytes decode() is known to need. */
static void lua_codec_decode(const struct protocol *protocol, const uint8_t *in, size_t n, unsigned limit,
			     struct session *session, struct batch *out)
{
	const struct codec *codec = codec_of(protocol);
	struct agents *agents = codec->lua_owner;
	struct conn *decoding = host_decoding(agents->host);
	struct channel *channel = decoding ? &decoding->first : NULL;
	struct decoding d = {
		.agents = agents, .channel = channel, .codec = codec, .out = out, .in = in, .n = n
	};
	out->count = 0;
	out->consumed = out->need = 0;
	out->error = 0;
	agents->decode_failed = false;
	agents->decode_verdict = GUARD_FINE;
	if (n < session->scanned) {
		out->need = session->scanned;
		return;
	}
	bool opened = channel && ledger_open(agents, channel);
	d.began = channel ? ticks_of(channel) : 0;
	agents->decoded = channel;
	decode_all(&d, limit, session->scanned);
	agents->decoded = NULL;
	if (opened)
		ledger_close(agents);
	if (agents->decode_failed && out->count && channel && !channel_is_open(channel)) {
		/* It has ended its connection, and is not asked for this frame again. */
		fault_decode(agents, channel);
		out->error = 0;
	}
	bool has_need = goes_on(&d) && !out->error;
	if (has_need && d.need > most_bytes(codec)) {
		too_large(&d, (size_t)codec->protocol.max_bytes + 1);
		has_need = false;
	}
	session->scanned = has_need ? (uint32_t)d.need : 0;
	out->need = has_need && d.said_its_need ? d.need : 0;
}

/* The user's encode() has run by now (reply.c): these bytes go out as they are. */
static unsigned lua_codec_encode(const struct protocol *protocol, struct session *session,
				 const struct reply *replies, unsigned n, struct buf_pool *pool,
				 struct buf **out, int *error)
{
	(void)protocol;
	(void)session;
	*error = 0;
	for (unsigned i = 0; i < n; i++) {
		*error = buf_append(pool, out, replies[i].data, replies[i].len);
		if (*error)
			return i;
	}
	return n;
}

/* What it said of the frame, or how large it is. */
static void lua_codec_explain(const struct protocol *protocol, const struct batch *batch, char *text,
			      size_t size)
{
	const struct agents *agents = codec_of(protocol)->lua_owner;
	if (batch->error == ERR_FRAME_MALFORMED)
		snprintf(text, size, "%s", agents->codec_error);
	else
		codec_error_text(codec_of(protocol), batch, text, size);
}

static const struct protocol_ops LUA_CODEC_OPS = {
	.name = "lua",
	.rewinds = true,
	.decode = lua_codec_decode,
	.encode = lua_codec_encode,
	.explain = lua_codec_explain,
};

static int ref_field(lua_State *lua, int idx, const char *key)
{
	lua_getfield(lua, idx, key);
	if (!lua_isnil(lua, -1))
		return luaL_ref(lua, LUA_REGISTRYINDEX);
	lua_pop(lua, 1);
	return LUA_NOREF;
}

/* ---- from the canonical table ---- */

static double bind_codec_number_field(lua_State *lua, int idx, const char *key)
{
	lua_getfield(lua, idx, key);
	double n = lua_tonumber(lua, -1);
	lua_pop(lua, 1);
	return n;
}

static bool flag_field(lua_State *lua, int idx, const char *key)
{
	lua_getfield(lua, idx, key);
	bool flag = lua_toboolean(lua, -1);
	lua_pop(lua, 1);
	return flag;
}

static bool has_function(lua_State *lua, int idx, const char *key)
{
	lua_getfield(lua, idx, key);
	bool found = lua_isfunction(lua, -1);
	lua_pop(lua, 1);
	return found;
}

static int bind_codec_choice_field(lua_State *lua, int idx, const char *key, const char *const *choices)
{
	lua_getfield(lua, idx, key);
	const char *text = lua_tostring(lua, -1);
	int found = 0;
	for (int i = 0; text && choices[i]; i++)
		if (!strcmp(choices[i], text))
			found = i;
	lua_pop(lua, 1);
	return found;
}

static void read_delimiter(lua_State *lua, int idx, struct codec *codec)
{
	size_t len;
	lua_getfield(lua, idx, "delimiter");
	const char *bytes = lua_tolstring(lua, -1, &len);
	if (bytes && len <= CODEC_DELIMITER_MAX) {
		memcpy(codec->delimiter, bytes, len);
		codec->delimiter_bytes = (uint8_t)len;
	}
	lua_pop(lua, 1);
}

/* How handlers get its frames. */
static const struct message_kind *messages_for(const struct codec *codec)
{
	if (codec->kind == CODEC_LUA)
		return codec->lua_encode_ref != LUA_NOREF ? &MESSAGE_VALUES_ENCODED : &MESSAGE_VALUES;
	if (codec->view)
		return &MESSAGE_VIEWS;
	return codec->offset ? &MESSAGE_PARTS : &MESSAGE_STRINGS;
}

const char *bind_codec(lua_State *lua, int idx, struct codec *codec)
{
	static const char *const KINDS[] = {
		[CODEC_LENGTH] = "length",
		[CODEC_DELIMITER] = "delimiter",
		[CODEC_LINE] = "line",
		[CODEC_FIXED] = "fixed",
		[CODEC_NETSTRING] = "netstring",
		[CODEC_RAW] = "raw",
		[CODEC_DATAGRAM] = "datagram",
		[CODEC_LUA] = "lua",
		[CODEC_KINDS] = NULL,
	};
	static const char *const EMPTY[] = { "error", "deliver", "ignore", NULL };
	static const char *const ENDIAN[] = { "big", "little", NULL };
	memset(codec, 0, sizeof *codec);
	codec->kind = (enum codec_kind)bind_codec_choice_field(lua, idx, "kind", KINDS);
	codec->protocol.max_bytes = (uint32_t)bind_codec_number_field(lua, idx, "max");
	codec->empty = (enum codec_empty)bind_codec_choice_field(lua, idx, "empty", EMPTY);
	codec->view = flag_field(lua, idx, "view");
	codec->length_bytes = (uint8_t)bind_codec_number_field(lua, idx, "bytes");
	codec->little_endian = bind_codec_choice_field(lua, idx, "endian", ENDIAN) == 1;
	codec->offset = (uint32_t)bind_codec_number_field(lua, idx, "offset");
	codec->adjust = (int64_t)bind_codec_number_field(lua, idx, "adjust");
	codec->fixed_bytes = (uint32_t)bind_codec_number_field(lua, idx, "fixed");
	codec->lua_decode_ref = codec->lua_encode_ref = LUA_NOREF;
	read_delimiter(lua, idx, codec);
	if (codec->kind != CODEC_LUA) {
		codec->protocol.messages = messages_for(codec);
		return codec_init(codec);
	}
	codec->protocol.ops = &LUA_CODEC_OPS;
	codec->lua_owner = agents_of(lua);
	codec->lua_decode_ref = ref_field(lua, idx, "decode");
	codec->lua_encode_ref = ref_field(lua, idx, "encode");
	codec->protocol.messages = messages_for(codec);
	return NULL;
}

/* ---- from what users write ---- */

void bind_codec_check(lua_State *lua, int idx, uint32_t max_bytes, struct codec *codec)
{
	memset(codec, 0, sizeof *codec);
	codec->lua_decode_ref = codec->lua_encode_ref = LUA_NOREF;
	if (lua_type(lua, idx) == LUA_TSTRING &&
	    !codec_init_named(codec, lua_tostring(lua, idx), max_bytes) && codec->kind != CODEC_DATAGRAM) {
		codec->protocol.messages = messages_for(codec);
		return;
	}
	vm_push_function(lua, "perilune.config", "frame");
	lua_pushvalue(lua, idx);
	lua_pushnumber(lua, max_bytes);
	lua_call(lua, 2, 2);
	if (lua_isnil(lua, -2))
		luaL_error(lua, "frame: %s", lua_tostring(lua, -1));
	/* Views and codecs in Lua belong to a listener: their loops are built when it is. */
	int canonical = lua_gettop(lua) - 1;
	if (has_function(lua, canonical, "decode") || flag_field(lua, canonical, "view"))
		luaL_error(lua, "frame: a view or a codec in Lua can only be a listener's own");
	const char *wrong = bind_codec(lua, canonical, codec);
	if (!wrong && codec->kind == CODEC_DATAGRAM)
		wrong = "only a udp:// listener has datagrams";
	if (wrong)
		luaL_error(lua, "frame: %s", wrong);
	lua_pop(lua, 2);
}

uint32_t bind_duration_of(lua_State *lua, int idx, const char *what)
{
	if (lua_type(lua, idx) == LUA_TNUMBER && lua_tonumber(lua, idx) >= 0 &&
	    lua_tonumber(lua, idx) < 1e6) {
		double seconds = lua_tonumber(lua, idx);
		return seconds > 0 && seconds < 0.001 ? 1 : (uint32_t)(seconds * 1000 + 0.5);
	}
	vm_push_function(lua, "perilune.units", "duration");
	lua_pushvalue(lua, idx);
	lua_call(lua, 1, 2);
	if (lua_isnil(lua, -2))
		bind_raise(lua, "%s%s%s", what ? what : "", what ? " " : "", lua_tostring(lua, -1));
	double ms = lua_tonumber(lua, -2);
	lua_pop(lua, 2);
	return ms < 0 ? 0 : ms > 0x7fffffff ? 0x7fffffff : (uint32_t)ms;
}

uint32_t bind_duration_check(lua_State *lua, int idx)
{
	return bind_duration_of(lua, idx, NULL);
}
