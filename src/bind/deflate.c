/*
 * perilune.deflate and perilune.inflate, by zlib; and what HTTP compresses in pieces.
 *
 * zlib's own memory is a piece of a userdata, and so is what is made: the agent's as all that it allocates, and gone
 * with whatever raises. Both go on in steps of limited input and output, between which the call may be ended. Nothing
 * is allocated for what a bomb would become: the result grows as it comes, up to `max`.
 */
#include "bind/bind.h"

#include <stdio.h>
#include <string.h>
#include <zlib.h>

enum {
	MAX_DEFAULT = 16 << 20,
	FIRST_BYTES = 4096,
	WINDOW_BITS = 15,
	GZIP = 16, /* added to them */
	MEMORY_LEVEL = 8,
	/* What zlib asks for: deflate.c and inflate.h of it have the sums, which have been the same for decades. */
	DEFLATE_BYTES = 300 * 1024,
	INFLATE_BYTES = 64 * 1024,
	/* On the stack: */
	AT_ARENA = 3,
	AT_RESULT = 4
};

/* What zlib allocates is taken from here, and given back as a whole. */
struct arena {
	size_t used, size;
	uint64_t bytes[];
};

struct pack_options {
	int window_bits, level;
	size_t max;
};

/* A result that grows. */
struct grown {
	lua_State *lua;
	uint8_t *bytes;
	size_t len, size;
	const char *what;
};

/* ---- memory ---- */

static void *arena_alloc(void *data, unsigned items, unsigned bytes)
{
	struct arena *arena = data;
	size_t n = ((size_t)items * bytes + sizeof(uint64_t) - 1) / sizeof(uint64_t) * sizeof(uint64_t);
	if (n > arena->size - arena->used)
		return NULL;
	void *block = (uint8_t *)arena->bytes + arena->used;
	arena->used += n;
	return block;
}

static void arena_free(void *data, void *block)
{
	(void)data, (void)block;
}

/*
 * MAY RAISE. Pushes it. The first upvalue keeps it from one call to the next; while it is in use it is not there, so
 * that whoever comes in between, as a finaliser may, has another one.
 */
static struct arena *take_arena(lua_State *lua, size_t bytes)
{
	struct arena *arena = lua_touserdata(lua, lua_upvalueindex(1));
	if (arena) {
		lua_pushvalue(lua, lua_upvalueindex(1));
		lua_pushnil(lua);
		lua_replace(lua, lua_upvalueindex(1));
	} else {
		arena = lua_newuserdata(lua, sizeof *arena + bytes);
	}
	arena->used = 0;
	arena->size = bytes;
	return arena;
}

/* What take_arena() has pushed at idx. */
static void give_arena(lua_State *lua, int idx)
{
	lua_pushvalue(lua, idx);
	lua_replace(lua, lua_upvalueindex(1));
}

/* MAY RAISE. Pushes what is then replaced. */
static struct grown push_grown(lua_State *lua, size_t size, const char *what)
{
	struct grown grown = { .lua = lua, .size = size, .what = what };
	grown.bytes = lua_newuserdata(lua, size);
	return grown;
}

/* MAY RAISE. Room for more, up to `most` bytes in all. */
static void grow_result(struct grown *grown, size_t most)
{
	size_t size = grown->size < most / 2 ? 2 * grown->size : most;
	uint8_t *bytes = lua_newuserdata(grown->lua, size);
	memcpy(bytes, grown->bytes, grown->len);
	lua_replace(grown->lua, AT_RESULT);
	grown->bytes = bytes;
	grown->size = size;
}

/* Points zlib at the next piece of the input, where the last one is used up; *at is how much it has been given. */
static void feed_piece(z_stream *stream, const char *data, size_t n, size_t *at)
{
	if (stream->avail_in)
		return;
	size_t piece = n - *at < BIND_PIECE_BYTES ? n - *at : BIND_PIECE_BYTES;
	stream->next_in = (uint8_t *)data + *at;
	stream->avail_in = (unsigned)piece;
	*at += piece;
}

/* MAY RAISE. Points zlib at the next piece of the output. */
static void offer(struct grown *grown, z_stream *stream, size_t most)
{
	if (grown->len == grown->size)
		grow_result(grown, most);
	size_t n = grown->size - grown->len;
	stream->next_out = grown->bytes + grown->len;
	stream->avail_out = (unsigned)(n < BIND_PIECE_BYTES ? n : BIND_PIECE_BYTES);
	bind_go_on(grown->lua, grown->what);
}

/* ---- options ---- */

static const char *const FORMATS[] = { "zlib", "gzip", "raw", NULL };
static const int FORMAT_BITS[] = { WINDOW_BITS, WINDOW_BITS + GZIP, -WINDOW_BITS };

/* MAY RAISE. The format on top of the stack. */
static int check_format(lua_State *lua, const char *what)
{
	const char *name = lua_type(lua, -1) == LUA_TSTRING ? lua_tostring(lua, -1) : "";
	for (int i = 0; FORMATS[i]; i++)
		if (!strcmp(FORMATS[i], name))
			return FORMAT_BITS[i];
	RAISE(lua, "%s: format expects \"zlib\", \"gzip\" or \"raw\"", what);
}

/* MAY RAISE. */
static int check_level(lua_State *lua, const char *what)
{
	lua_Number level = lua_type(lua, -1) == LUA_TNUMBER ? lua_tonumber(lua, -1) : -1;
	if (!(level >= 0 && level <= 9 && level == (int)level))
		RAISE(lua, "%s: level expects 0 to 9", what);
	return (int)level;
}

/* MAY RAISE. The options at 2, if there are any. */
static struct pack_options check_pack_options(lua_State *lua, const char *const *names, const char *what)
{
	struct pack_options options = { WINDOW_BITS, Z_DEFAULT_COMPRESSION, MAX_DEFAULT };
	if (lua_isnoneornil(lua, 2))
		return options;
	bind_type_of(lua, 2, LUA_TTABLE, what, "the options");
	for (lua_pushnil(lua); lua_next(lua, 2); lua_pop(lua, 1)) {
		const char *name = bind_option_check(lua, names, what);
		if (!strcmp(name, "format"))
			options.window_bits = check_format(lua, what);
		else if (!strcmp(name, "level"))
			options.level = check_level(lua, what);
		else
			options.max = bind_size_option_check(lua, name, what);
	}
	return options;
}

/* ---- deflate ---- */

/* MAY RAISE. */
static void deflate_all(struct grown *grown, z_stream *stream, const char *data, size_t n)
{
	int status = Z_OK;
	for (size_t at = 0; status != Z_STREAM_END;) {
		feed_piece(stream, data, n, &at);
		offer(grown, stream, SIZE_MAX / 2);
		unsigned room = stream->avail_out;
		status = deflate(stream, at < n ? Z_NO_FLUSH : Z_FINISH);
		grown->len += room - stream->avail_out;
	}
}

/* MAY RAISE. deflate(data[, options]) → bytes */
static int l_deflate(lua_State *lua)
{
	static const char *const NAMES[] = { "format", "level", NULL };
	size_t n;
	BIND_AT_MOST(lua, 2, "perilune.deflate");
	const char *data = bind_string_of(lua, 1, &n, "perilune.deflate", "the data");
	struct pack_options options = check_pack_options(lua, NAMES, "perilune.deflate");
	lua_settop(lua, AT_ARENA - 1);
	z_stream stream = { .zalloc = arena_alloc,
			    .zfree = arena_free,
			    .opaque = take_arena(lua, DEFLATE_BYTES) };
	if (deflateInit2(&stream, options.level, Z_DEFLATED, options.window_bits, MEMORY_LEVEL,
			 Z_DEFAULT_STRATEGY) != Z_OK)
		RAISE(lua, "perilune.deflate: this zlib needs more memory");
	struct grown grown = push_grown(lua, n < FIRST_BYTES ? n / 2 + 64 : FIRST_BYTES, "perilune.deflate");
	deflate_all(&grown, &stream, data, n);
	lua_pushlstring(lua, (char *)grown.bytes, grown.len);
	give_arena(lua, AT_ARENA);
	return 1;
}

/* ---- deflate, in pieces ---- */

#define DEFLATER "perilune.deflater" /* the metatable's name */

/*
 * What a response in pieces needs while it lasts, so there may be many: a window of 8 KiB in place of 32 makes it a
 * quarter as large, and the result a few per cent longer.
 */
enum { PIECES_WINDOW_BITS = 13 + GZIP, PIECES_MEMORY_LEVEL = 6, PIECES_BYTES = 96 * 1024 };

struct deflater {
	z_stream stream;
	bool is_broken; /* a call was ended in its midst, or has said its last */
	struct arena arena;
};

/* MAY RAISE. deflater(level) → what makes gzip of pieces */
static int l_deflater(lua_State *lua)
{
	int level = (int)luaL_checkinteger(lua, 1);
	struct deflater *deflater = lua_newuserdata(lua, sizeof *deflater + PIECES_BYTES);
	deflater->arena = (struct arena){ .size = PIECES_BYTES };
	deflater->is_broken = false;
	deflater->stream =
	    (z_stream){ .zalloc = arena_alloc, .zfree = arena_free, .opaque = &deflater->arena };
	if (deflateInit2(&deflater->stream, level, Z_DEFLATED, PIECES_WINDOW_BITS, PIECES_MEMORY_LEVEL,
			 Z_DEFAULT_STRATEGY) != Z_OK)
		RAISE(lua, "perilune.http: this zlib needs more memory");
	luaL_newmetatable(lua, DEFLATER);
	lua_setmetatable(lua, -2);
	return 1;
}

/* MAY RAISE. All of the data, and what zlib has kept of it: the client can read as far as that. */
static void deflate_piece(struct grown *grown, z_stream *stream, const char *data, size_t n, int flush)
{
	size_t at = 0;
	do {
		feed_piece(stream, data, n, &at);
		offer(grown, stream, SIZE_MAX / 2);
		unsigned room = stream->avail_out;
		deflate(stream, at < n ? Z_NO_FLUSH : flush);
		grown->len += room - stream->avail_out;
	} while (at < n || stream->avail_in || !stream->avail_out);
}

/* MAY RAISE. deflater_add(deflater, data, is_last) → what is to be sent of it now */
static int l_deflater_add(lua_State *lua)
{
	struct deflater *deflater = luaL_checkudata(lua, 1, DEFLATER);
	size_t n;
	const char *data = luaL_checklstring(lua, 2, &n);
	bool is_last = lua_toboolean(lua, 3);
	if (deflater->is_broken)
		RAISE(lua, "a compressed response cannot go on behind an error");
	lua_settop(lua, AT_RESULT - 1);
	deflater->is_broken = true;
	struct grown grown = push_grown(lua, n < FIRST_BYTES ? n / 2 + 64 : FIRST_BYTES, "http.compress");
	deflate_piece(&grown, &deflater->stream, data, n, is_last ? Z_FINISH : Z_SYNC_FLUSH);
	lua_pushlstring(lua, (char *)grown.bytes, grown.len);
	deflater->is_broken = is_last;
	return 1;
}

/* ---- inflate ---- */

/* MAY RAISE. Returns what zlib has said at last; there are `most` bytes at most then. */
static int inflate_all(struct grown *grown, z_stream *stream, const char *data, size_t n, size_t most)
{
	int status = Z_OK;
	for (size_t at = 0; status == Z_OK && grown->len < most;) {
		feed_piece(stream, data, n, &at);
		offer(grown, stream, most);
		unsigned room = stream->avail_out;
		status = inflate(stream, Z_NO_FLUSH);
		grown->len += room - stream->avail_out;
	}
	return status;
}

/* MAY RAISE. What has come of n bytes, of which zlib has said `status`. */
static int push_inflated(lua_State *lua, const struct grown *grown, const z_stream *stream, int status,
			 size_t n, size_t max)
{
	char text[96];
	if (grown->len > max) {
		lua_pushnil(lua);
		lua_pushfstring(lua, "the data becomes more than %f bytes", (lua_Number)max);
		return 2;
	}
	switch (status) {
	case Z_STREAM_END:
		if (stream->total_in < n)
			return bind_refuse_byte(lua, stream->total_in, "there is something behind the end");
		lua_pushlstring(lua, (char *)grown->bytes, grown->len);
		return 1;
	case Z_DATA_ERROR:
	case Z_NEED_DICT:
		snprintf(text, sizeof text, "the data is broken (%s)",
			 stream->msg ? stream->msg : "it needs a dictionary");
		return bind_refuse_byte(lua, stream->total_in, text);
	case Z_MEM_ERROR:
		RAISE(lua, "perilune.inflate: this zlib needs more memory");
	default:
		return bind_refuse_byte(lua, n, "the data is cut short");
	}
}

/* MAY RAISE. inflate(data[, options]) → bytes | nil, message */
static int l_inflate(lua_State *lua)
{
	static const char *const NAMES[] = { "format", "max", NULL };
	size_t n;
	BIND_AT_MOST(lua, 2, "perilune.inflate");
	const char *data = bind_string_of(lua, 1, &n, "perilune.inflate", "the data");
	struct pack_options options = check_pack_options(lua, NAMES, "perilune.inflate");
	/* One byte more than there may be tells what is too large. */
	size_t most = options.max + 1, first = n < FIRST_BYTES / 4 ? 4 * n + 64 : FIRST_BYTES;
	lua_settop(lua, AT_ARENA - 1);
	z_stream stream = { .zalloc = arena_alloc,
			    .zfree = arena_free,
			    .opaque = take_arena(lua, INFLATE_BYTES) };
	if (inflateInit2(&stream, options.window_bits) != Z_OK)
		RAISE(lua, "perilune.inflate: this zlib needs more memory");
	struct grown grown = push_grown(lua, first < most ? first : most, "perilune.inflate");
	int status = inflate_all(&grown, &stream, data, n, most);
	give_arena(lua, AT_ARENA);
	return push_inflated(lua, &grown, &stream, status, n, options.max);
}

static const luaL_Reg FUNCTIONS[] = {
	{ "deflate", l_deflate },           { "inflate", l_inflate }, { "deflater", l_deflater },
	{ "deflater_add", l_deflater_add }, { NULL, NULL },
};

void bind_deflate(lua_State *lua)
{
	lua_newtable(lua);
	for (const luaL_Reg *function = FUNCTIONS; function->name; function++) {
		lua_pushnil(lua);
		lua_pushcclosure(lua, function->func, 1);
		lua_setfield(lua, -2, function->name);
	}
}
