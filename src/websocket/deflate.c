/*
 * permessage-deflate, by zlib. Of connections that keep no window no message needs what was before it, so a worker has
 * one inflater for all of them, and one compressor for each size of window that a client has asked for. A window of a
 * connection's own is a stream of zlib's that is not reset. What is inflated is bounded while it is made.
 */
#include "base/counters.h"
#include "base/err.h"
#include "websocket/internal.h"

#include <stdlib.h>
#include <zlib.h>

enum {
	LEVEL = 4,
	MEMORY_LEVEL = 8,
	LEAST_BYTES = 64,         /* of a message that is worth it, */
	LEAST_KEPT_BYTES = 32,    /* ... where others like it were before */
	MOST_BYTES = 1024 * 1024, /* ... and that nobody else has to wait for too long */
	KEPT_BYTES = 256 * 1024,
	PIECE_BYTES = 4096, /* that a result grows by at first */
	TAIL_BYTES = 4,
	BETWEEN_BLOCKS = 128, /* zlib.h, of data_type */
	MORE_BYTES =
	    16 /* that a message in a window may have beyond its own: the next ones are smaller for it */
};

/* Each message ends in this, which is not sent. */
static const uint8_t TAIL[TAIL_BYTES] = { 0, 0, 0xff, 0xff };

struct websocket_deflate {
	z_stream inflater, compressors[WEBSOCKET_BITS_MAX - WEBSOCKET_BITS_MIN + 1];
	bool has_inflater, has_compressor[WEBSOCKET_BITS_MAX - WEBSOCKET_BITS_MIN + 1];
	uint8_t *bytes; /* what was compressed last */
	size_t size;
};

static struct websocket_deflate *deflate_of(struct websocket_worker *worker)
{
	if (!worker->deflate)
		worker->deflate = calloc(1, sizeof *worker->deflate);
	return worker->deflate;
}

void websocket_worker_deinit(struct websocket_worker *worker)
{
	struct websocket_deflate *deflate = worker->deflate;
	if (!deflate)
		return;
	if (deflate->has_inflater)
		inflateEnd(&deflate->inflater);
	for (unsigned i = 0; i <= WEBSOCKET_BITS_MAX - WEBSOCKET_BITS_MIN; i++)
		if (deflate->has_compressor[i])
			deflateEnd(&deflate->compressors[i]);
	free(deflate->bytes);
	free(deflate);
	worker->deflate = NULL;
}

/* zlib's own memory, so that tests can have it fail. */
static void *take_memory(void *unused, unsigned items, unsigned size)
{
	(void)unused;
	return malloc((size_t)items * size);
}

static void give_memory(void *unused, void *memory)
{
	(void)unused;
	free(memory);
}

/* ---- windows ---- */

/*
 * What zlib allocates: its state, the window twice beside its chains, and the heads of these beside the block at hand;
 * spec/unit/websocket_test.c looks. zlib makes a window of 9 bits of one of 8: nobody is promised that.
 */
enum { OUT_STATE_BYTES = 6144 + 128, IN_STATE_BYTES = 7168 + 128 };

/* A quarter of the memory that zlib would take makes messages of some hundred bytes no larger by more than a few. */
static unsigned memory_level(unsigned bits)
{
	return bits - 8;
}

size_t websocket_window_out_bytes(unsigned bits)
{
	return bits
		   ? OUT_STATE_BYTES + (UINT32_C(1) << (bits + 2)) + (UINT32_C(1) << (memory_level(bits) + 9))
		   : 0;
}

size_t websocket_window_in_bytes(unsigned bits)
{
	return bits ? IN_STATE_BYTES + (UINT32_C(1) << bits) : 0;
}

static bool has_memory(const struct websocket_worker *worker, size_t n)
{
	return count_read(&worker->counters->websocket_windows) + n <= worker->windows_max;
}

unsigned websocket_window_out(const struct websocket_worker *worker, unsigned most)
{
	unsigned bits = most < WEBSOCKET_BITS_KEPT ? most : WEBSOCKET_BITS_KEPT;
	while (bits >= WEBSOCKET_BITS_MIN && !has_memory(worker, websocket_window_out_bytes(bits)))
		bits--;
	return bits >= WEBSOCKET_BITS_MIN ? bits : 0;
}

unsigned websocket_window_in(const struct websocket_worker *worker, unsigned most, size_t beside)
{
	unsigned bits = most;
	while (bits >= WEBSOCKET_BITS_MIN && !has_memory(worker, beside + websocket_window_in_bytes(bits)))
		bits--;
	return bits >= WEBSOCKET_BITS_MIN ? bits : 0;
}

static size_t bytes_of(const struct websocket_terms *terms)
{
	return websocket_window_out_bytes(terms->kept_out) + websocket_window_in_bytes(terms->kept_in);
}

void websocket_reserve(struct websocket_worker *worker, const struct websocket_terms *terms)
{
	if (terms->kept_out || terms->kept_in)
		count_add(&worker->counters->websocket_windows, bytes_of(terms));
}

void websocket_unreserve(struct websocket_worker *worker, const struct websocket_terms *terms)
{
	if (terms->kept_out || terms->kept_in)
		count_add(&worker->counters->websocket_windows, 0 - (uint64_t)bytes_of(terms));
}

void websocket_drop_windows(struct websocket_session *s)
{
	struct websocket_windows *windows = websocket_windows_of(s);
	if (!windows)
		return;
	if (windows->out)
		deflateEnd(windows->out);
	if (windows->in)
		inflateEnd(windows->in);
	free(windows->out);
	free(windows->in);
}

/* ---- inflating ---- */

static bool begin_inflater(z_stream *stream, unsigned bits)
{
	stream->zalloc = take_memory;
	stream->zfree = give_memory;
	return inflateInit2(stream, -(int)bits) == Z_OK;
}

static z_stream *take_inflater(struct websocket_worker *worker)
{
	struct websocket_deflate *deflate = deflate_of(worker);
	if (!deflate)
		return NULL;
	if (deflate->has_inflater)
		return inflateReset(&deflate->inflater) == Z_OK ? &deflate->inflater : NULL;
	deflate->has_inflater = begin_inflater(&deflate->inflater, WEBSOCKET_BITS_MAX);
	return deflate->has_inflater ? &deflate->inflater : NULL;
}

static z_stream *own_inflater(struct websocket_windows *windows, unsigned bits)
{
	if (windows->in)
		return windows->in;
	z_stream *stream = calloc(1, sizeof *stream);
	if (stream && begin_inflater(stream, bits))
		return windows->in = stream;
	free(stream);
	return NULL;
}

struct inflating {
	z_stream *stream;
	struct buf_pool *pool;
	struct buf **to;
	size_t most;
	bool keeps;
	bool has_stopped; /* for want of memory: */
	size_t wanted;    /* ... so much room would do to go on; 0: none would */
};

/* What finds no room among a worker's buffers may find it yet, unless nobody's end would make enough. */
static size_t room_wanted(const struct buf_pool *pool, const struct buf *buf, size_t n)
{
	return buf_could_hold(pool, buf, n) ? BUF_MIN_BYTES : 0;
}

static enum breach stop_inflating(struct inflating *inflating, size_t wanted)
{
	inflating->has_stopped = true;
	inflating->wanted = wanted;
	return BREACH_NONE;
}

/* Room for more of the result, one byte past the limit at most: what there is, or else as much again. */
static bool make_space(struct inflating *inflating)
{
	size_t has = buf_len(*inflating->to), left = inflating->most + 1 - has,
	       room = buf_room(*inflating->to);
	size_t want = room ? room : has > PIECE_BYTES ? has : PIECE_BYTES;
	want = want < left ? want : left;
	uint8_t *at = buf_reserve(inflating->pool, inflating->to, want);
	inflating->stream->next_out = at;
	inflating->stream->avail_out = (unsigned)want;
	if (!at)
		stop_inflating(inflating, room_wanted(inflating->pool, *inflating->to, want));
	return at;
}

/* A last block has come, and another one may follow: in a window of its own that refers to what was before, too. */
static bool begin_block(const struct inflating *inflating)
{
	return (inflating->keeps ? inflateResetKeep(inflating->stream) : inflateReset(inflating->stream)) ==
	       Z_OK;
}

/*
 * Inflates what stream->next_in has, or stops. zlib says that a message is whole once: asked again, without more bytes,
 * it says so no more.
 */
static enum breach inflate_bytes(struct inflating *inflating)
{
	z_stream *stream = inflating->stream;
	int status = Z_OK;
	do {
		if (!make_space(inflating))
			return BREACH_NONE;
		unsigned room = stream->avail_out;
		status = inflate(stream, Z_SYNC_FLUSH);
		buf_commit(*inflating->to, room - stream->avail_out);
		if (buf_len(*inflating->to) > inflating->most)
			return BREACH_SIZE;
		if (status == Z_MEM_ERROR) /* and of no use any more */
			return stop_inflating(inflating, 0);
		if (status == Z_STREAM_END && !begin_block(inflating))
			return BREACH_DEFLATE;
		if (status != Z_OK && status != Z_STREAM_END && status != Z_BUF_ERROR)
			return BREACH_DEFLATE;
	} while (stream->avail_in || (!stream->avail_out && !(stream->data_type & BETWEEN_BLOCKS)));
	return stream->data_type & BETWEEN_BLOCKS ? BREACH_NONE : BREACH_DEFLATE;
}

/* A message that has stopped goes on where that was, by a window of its own; else it begins again. */
static enum breach inflate_whole(struct websocket_session *s, struct inflating *inflating)
{
	static const uint8_t NOTHING = 0;
	const struct buf *message = s->message;
	z_stream *stream = inflating->stream;
	stream->next_in = message ? s->message->data + message->start : (uint8_t *)(uintptr_t)&NOTHING;
	stream->avail_in = (unsigned)buf_len(message);
	enum breach breach = inflate_bytes(inflating);
	if (inflating->has_stopped && inflating->keeps)
		buf_consume(inflating->pool, &s->message, buf_len(s->message) - stream->avail_in);
	else if (inflating->has_stopped)
		buf_release(inflating->pool, inflating->to);
	return breach;
}

/* What is not sent at the end of each message. */
static int add_tail(struct buf_pool *pool, struct websocket_session *s)
{
	int err = s->has_tail ? 0 : buf_append(pool, &s->message, TAIL, sizeof TAIL);
	s->has_tail = !err;
	return err;
}

enum breach websocket_inflate(const struct websocket *websocket, struct websocket_session *s, int *error,
			      size_t *wanted)
{
	unsigned bits = websocket->terms.kept_in;
	struct websocket_windows *windows = bits ? websocket_windows_of(s) : NULL;
	struct buf_pool *pool = websocket->worker->pool;
	struct buf *whole = NULL;
	struct inflating inflating = {
		.stream = windows ? own_inflater(windows, bits) : take_inflater(websocket->worker),
		.pool = pool,
		.to = windows ? &windows->whole : &whole,
		.most = websocket->protocol.max_bytes,
		.keeps = windows,
	};
	enum breach breach = BREACH_NONE;
	if (!inflating.stream || add_tail(pool, s))
		stop_inflating(&inflating, room_wanted(pool, s->message, BUF_MIN_BYTES));
	else
		breach = inflate_whole(s, &inflating);
	*error = inflating.has_stopped ? ERR_BUFFER_LIMIT : 0;
	*wanted = inflating.wanted;
	if (*error)
		return BREACH_NONE;
	s->has_tail = false;
	buf_release(pool, &s->message);
	s->message = *inflating.to;
	*inflating.to = NULL;
	return breach;
}

/* ---- compressing ---- */

static bool begin_compressor(z_stream *stream, unsigned bits, unsigned memory)
{
	stream->zalloc = take_memory;
	stream->zfree = give_memory;
	return deflateInit2(stream, LEVEL, Z_DEFLATED, -(int)bits, (int)memory, Z_DEFAULT_STRATEGY) == Z_OK;
}

static z_stream *take_compressor(struct websocket_deflate *deflate, unsigned window_bits)
{
	unsigned i = window_bits - WEBSOCKET_BITS_MIN;
	z_stream *stream = &deflate->compressors[i];
	if (deflate->has_compressor[i])
		return deflateReset(stream) == Z_OK ? stream : NULL;
	deflate->has_compressor[i] = begin_compressor(stream, window_bits, MEMORY_LEVEL);
	return deflate->has_compressor[i] ? stream : NULL;
}

static z_stream *own_compressor(struct websocket_windows *windows, unsigned bits)
{
	if (windows->out)
		return windows->out;
	z_stream *stream = calloc(1, sizeof *stream);
	if (stream && begin_compressor(stream, bits, memory_level(bits)))
		return windows->out = stream;
	free(stream);
	return NULL;
}

void websocket_forget_sent(struct websocket_session *s)
{
	struct websocket_windows *windows = websocket_windows_of(s);
	if (!windows || !windows->out || deflateReset(windows->out) == Z_OK)
		return;
	deflateEnd(windows->out);
	free(windows->out);
	windows->out = NULL;
}

/*
 * By a connection's own, what is within its window. What is larger leaves nothing in there of what was before, and is
 * compressed by a larger one that all share: what follows cannot refer to it then.
 */
static z_stream *choose_compressor(const struct websocket *websocket, struct websocket_session *s, size_t n)
{
	const struct websocket_terms *terms = &websocket->terms;
	struct websocket_windows *windows = terms->kept_out ? websocket_windows_of(s) : NULL;
	bool is_within = windows && n <= (size_t)1 << terms->kept_out;
	z_stream *own = is_within ? own_compressor(windows, terms->kept_out) : NULL;
	if (own)
		return own;
	websocket_forget_sent(s);
	return take_compressor(websocket->worker->deflate, terms->window_bits);
}

/* Room for so many bytes; what was large is not kept for what is small. */
static bool make_bytes(struct websocket_deflate *deflate, size_t n)
{
	if (n <= deflate->size && (deflate->size <= KEPT_BYTES || n > KEPT_BYTES))
		return true;
	free(deflate->bytes);
	size_t size = n < PIECE_BYTES ? PIECE_BYTES : n;
	deflate->bytes = malloc(size);
	deflate->size = deflate->bytes ? size : 0;
	return deflate->bytes;
}

size_t websocket_compress(const struct websocket *websocket, struct websocket_session *s,
			  const struct reply *reply, const uint8_t **compressed)
{
	bool keeps = s && websocket->terms.kept_out;
	if (reply->len < (keeps ? LEAST_KEPT_BYTES : LEAST_BYTES) || reply->len > MOST_BYTES)
		return 0;
	struct websocket_deflate *shared = deflate_of(websocket->worker);
	size_t most = reply->len + MORE_BYTES;
	z_stream *stream =
	    shared && make_bytes(shared, most) ? choose_compressor(websocket, s, reply->len) : NULL;
	if (!stream)
		return 0;
	bool is_own = keeps && stream == websocket_windows_of(s)->out;
	most = is_own ? most : reply->len;
	stream->next_in = (uint8_t *)(uintptr_t)reply->data;
	stream->avail_in = (unsigned)reply->len;
	stream->next_out = shared->bytes;
	stream->avail_out = (unsigned)most;
	int status = deflate(stream, Z_SYNC_FLUSH);
	size_t n = most - stream->avail_out;
	if (status != Z_OK || stream->avail_in || !stream->avail_out || n <= TAIL_BYTES) {
		websocket_forget_sent(s);
		return 0;
	}
	*compressed = shared->bytes;
	return n - TAIL_BYTES;
}
