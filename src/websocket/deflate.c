/*
 * permessage-deflate, by zlib. No message needs what was before it, so a worker has one inflater, and one
 * compressor for each size of window that a client has asked for; connections have none. What is inflated is
 * bounded while it is made.
 */
#include "base/err.h"
#include "websocket/internal.h"

#include <stdlib.h>
#include <zlib.h>

enum {
	LEVEL = 4,
	MEMORY_LEVEL = 8,
	LEAST_BYTES = 64,         /* of a message that is worth it */
	MOST_BYTES = 1024 * 1024, /* ... and that nobody else has to wait for too long */
	KEPT_BYTES = 256 * 1024,
	PIECE_BYTES = 4096, /* that a result grows by at first */
	TAIL_BYTES = 4
};

/* Each message ends in this, which is not sent. */
static const uint8_t TAIL[TAIL_BYTES] = { 0, 0, 0xff, 0xff };

struct websocket_deflate {
	z_stream inflater, compressors[WINDOW_BITS_MAX - WINDOW_BITS_MIN + 1];
	bool has_inflater, has_compressor[WINDOW_BITS_MAX - WINDOW_BITS_MIN + 1];
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
	for (unsigned i = 0; i <= WINDOW_BITS_MAX - WINDOW_BITS_MIN; i++)
		if (deflate->has_compressor[i])
			deflateEnd(&deflate->compressors[i]);
	free(deflate->bytes);
	free(deflate);
	worker->deflate = NULL;
}

/* ---- inflating ---- */

static z_stream *take_inflater(struct websocket_worker *worker)
{
	struct websocket_deflate *deflate = deflate_of(worker);
	if (!deflate)
		return NULL;
	if (deflate->has_inflater)
		return inflateReset(&deflate->inflater) == Z_OK ? &deflate->inflater : NULL;
	deflate->has_inflater = inflateInit2(&deflate->inflater, -WINDOW_BITS_MAX) == Z_OK;
	return deflate->has_inflater ? &deflate->inflater : NULL;
}

struct inflating {
	z_stream *stream;
	struct buf_pool *pool;
	struct buf **to;
	size_t most;
	int error;
};

/* Room for more of the result, one byte past the limit at most. */
static bool make_space(struct inflating *inflating)
{
	size_t has = buf_len(*inflating->to), left = inflating->most + 1 - has;
	size_t want = has > PIECE_BYTES ? has : PIECE_BYTES;
	want = want < left ? want : left;
	uint8_t *at = buf_reserve(inflating->pool, inflating->to, want);
	inflating->error = at ? 0 : ERR_BUFFER_LIMIT;
	inflating->stream->next_out = at;
	inflating->stream->avail_out = (unsigned)want;
	return at;
}

/* Inflates all of bytes[0 .. n). */
static enum breach inflate_bytes(struct inflating *inflating, const uint8_t *bytes, size_t n)
{
	z_stream *stream = inflating->stream;
	int status = Z_OK;
	stream->next_in = (uint8_t *)(uintptr_t)bytes;
	stream->avail_in = (unsigned)n;
	do {
		if (!make_space(inflating))
			return BREACH_NONE;
		unsigned room = stream->avail_out;
		status = inflate(stream, Z_SYNC_FLUSH);
		buf_commit(*inflating->to, room - stream->avail_out);
		if (buf_len(*inflating->to) > inflating->most)
			return BREACH_SIZE;
		if (status == Z_STREAM_END &&
		    inflateReset(stream) != Z_OK) /* a last block: another may follow */
			return BREACH_DEFLATE;
		if (status != Z_OK && status != Z_STREAM_END && status != Z_BUF_ERROR)
			return BREACH_DEFLATE;
	} while (stream->avail_in || !stream->avail_out);
	return BREACH_NONE;
}

enum breach websocket_inflate(struct websocket_worker *worker, const struct buf *message, size_t most,
			      struct buf **to, int *error)
{
	enum { BETWEEN_BLOCKS = 128 }; /* zlib.h, of data_type */
	struct inflating inflating = {
		.stream = take_inflater(worker), .pool = worker->pool, .to = to, .most = most
	};
	*error = inflating.stream ? 0 : ERR_BUFFER_LIMIT;
	if (*error)
		return BREACH_NONE;
	enum breach breach = BREACH_NONE;
	if (message)
		breach = inflate_bytes(&inflating, message->data + message->start, buf_len(message));
	if (!breach && !inflating.error)
		breach = inflate_bytes(&inflating, TAIL, sizeof TAIL);
	if (!breach && !inflating.error && !(inflating.stream->data_type & BETWEEN_BLOCKS))
		breach = BREACH_DEFLATE;
	*error = inflating.error;
	return breach;
}

/* ---- compressing ---- */

static z_stream *take_compressor(struct websocket_deflate *deflate, unsigned window_bits)
{
	unsigned i = window_bits - WINDOW_BITS_MIN;
	z_stream *stream = &deflate->compressors[i];
	if (deflate->has_compressor[i])
		return deflateReset(stream) == Z_OK ? stream : NULL;
	deflate->has_compressor[i] = deflateInit2(stream, LEVEL, Z_DEFLATED, -(int)window_bits, MEMORY_LEVEL,
						  Z_DEFAULT_STRATEGY) == Z_OK;
	return deflate->has_compressor[i] ? stream : NULL;
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

size_t websocket_compress(struct websocket_worker *worker, unsigned window_bits, const struct reply *reply,
			  const uint8_t **compressed)
{
	if (reply->len < LEAST_BYTES || reply->len > MOST_BYTES)
		return 0;
	struct websocket_deflate *shared = deflate_of(worker);
	z_stream *stream =
	    shared && make_bytes(shared, reply->len) ? take_compressor(shared, window_bits) : NULL;
	if (!stream)
		return 0;
	stream->next_in = (uint8_t *)(uintptr_t)reply->data;
	stream->avail_in = (unsigned)reply->len;
	stream->next_out = shared->bytes;
	stream->avail_out = (unsigned)reply->len;
	int status = deflate(stream, Z_SYNC_FLUSH);
	size_t n = reply->len - stream->avail_out;
	if (status != Z_OK || stream->avail_in || !stream->avail_out || n <= TAIL_BYTES)
		return 0;
	*compressed = shared->bytes;
	return n - TAIL_BYTES;
}
