/*
 * Decodes the input in one piece and cut up, and aborts when the two differ or
 * when a decoded frame, encoded again, is not the bytes that it came from.
 *
 * Input: kind, options, limit, cut pattern, max (2 bytes), then the stream.
 */
#include "base/buf.h"
#include "base/err.h"
#include "frame/codec.h"
#include "support/must.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { HEAD_BYTES = 6 };

/* What became of a stream. */
struct result {
	struct buf *log; /* each frame: its length as u32, its bytes; raw: the bytes alone */
	size_t consumed, need;
	int error;
	uint64_t announced;
};

static struct buf_pool pool;

/* Fills in a codec from the first bytes. False when they make none that is valid. */
static bool choose(struct codec *codec, const uint8_t *head)
{
	static const uint8_t widths[] = { 0, 1, 2, 3, 4, 8, 4, 4 };
	static const char *const delimiters[] = { "\n", "\r\n", "aab", "aaaa" };
	static const int adjusts[] = { 0, 0, 0, -1, -4, 2, -12, 300 };
	const uint8_t options = head[1];

	*codec = (struct codec){
		.kind = (enum codec_kind)(head[0] % CODEC_LUA),
		.empty = (enum codec_empty)(head[0] / CODEC_LUA % 3),
		.protocol.max_bytes = 1u + head[4] + 256u * (head[5] & 15u),
	};
	switch (codec->kind) {
	case CODEC_LENGTH:
		codec->length_bytes = widths[options & 7];
		codec->little_endian = options & 8;
		codec->offset = options & 16 ? 2 : 0;
		codec->adjust = adjusts[options >> 5];
		break;
	case CODEC_DELIMITER:
		codec->delimiter_bytes = (uint8_t)strlen(delimiters[options & 3]);
		memcpy(codec->delimiter, delimiters[options & 3], codec->delimiter_bytes);
		break;
	case CODEC_FIXED:
		codec->fixed_bytes = 1u + options % 64;
		break;
	default:
		break;
	}
	return !codec_init(codec);
}

/* The bytes up to `end` must be what encoding the frame gives. */
static void check_reencoded(const struct codec *codec, const uint8_t *flat, size_t len, const uint8_t *end)
{
	struct buf *b = NULL;

	/* The one ambiguity: whether a line ended with "\r\n". */
	if (codec->kind == CODEC_LINE &&
	    (end[-1 - (ptrdiff_t)(len > 0)] == '\r' || (len && flat[len - 1] == '\r')))
		return;
	if (codec->kind == CODEC_LINE && len == 0)
		return;
	MUST(codec_encode(codec, flat, len, &pool, &b) == 0);
	MUST(memcmp(b->data + b->start, end - buf_len(b), buf_len(b)) == 0);
	buf_release(&pool, &b);
}

static void take(const struct codec *codec, const uint8_t *in, size_t n, unsigned limit,
		 const struct batch *batch, struct result *result)
{
	size_t end = 0;

	MUST(batch->count <= limit && batch->consumed <= n);
	MUST(batch->need == 0 || (!batch->error && batch->need > n - batch->consumed));
	MUST((batch->error == 0) <= (batch->announced == 0));
	for (unsigned i = 0; i < batch->count; i++) {
		const struct frame *frame = &batch->frames[i];
		uint32_t len = frame->len + codec->offset;
		uint8_t *flat = malloc(len + 1u);

		MUST(frame->end > end && frame->end <= batch->consumed);
		MUST(frame->data >= in + end && frame->data + frame->len <= in + frame->end);
		MUST(len <= codec->protocol.max_bytes);
		MUST(len > 0 || codec->empty == CODEC_EMPTY_DELIVER);
		end = frame->end;
		MUST(codec_flatten(codec, frame, flat) == len);
		check_reencoded(codec, flat, len, in + end);
		if (codec->kind != CODEC_RAW)
			MUST(buf_append(&pool, &result->log, &len, sizeof len) == 0);
		MUST(buf_append(&pool, &result->log, flat, len) == 0);
		free(flat);
	}
	result->consumed += batch->consumed;
	result->need = batch->need;
	result->error = batch->error;
	result->announced = batch->announced;
}

/* Feeds the stream in pieces of 1 + seed % 16, then seed-derived further sizes; seed 0: in one. */
static struct result run(const struct codec *codec, const uint8_t *bytes, size_t n, unsigned limit,
			 uint32_t seed)
{
	struct result result = { 0 };
	static struct batch batch;
	struct session session = { 0 };

	for (size_t got = 0; got < n && !result.error;) {
		size_t piece = seed ? 1 + (seed >> 16) % 16 : n;
		seed = seed ? seed * 1103515245u + 12345u : 0;
		seed = seed || piece == n ? seed : 1;
		got = piece < n - got ? got + piece : n;
		do {
			/* A copy without slack, so that the sanitizer sees a byte read too many. */
			size_t left = got - result.consumed;
			uint8_t *in = malloc(left ? left : 1);

			memcpy(in, bytes + result.consumed, left);
			memset(&batch, 0xa5, sizeof batch);
			codec_decode(codec, in, left, limit, &session, &batch);
			take(codec, in, left, limit, &batch, &result);
			free(in);
		} while (!result.error && batch.count == limit);
	}
	return result;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct codec codec;
	char text[80];

	if (size < HEAD_BYTES || !choose(&codec, data))
		return 0;
	buf_pool_init(&pool, 0, 4);

	const uint8_t *bytes = data + HEAD_BYTES;
	size_t n = size - HEAD_BYTES;
	struct result whole = run(&codec, bytes, n, BATCH_MAX, 0);
	struct result cut = run(&codec, bytes, n, 1u + data[2], (uint32_t)data[3] << 16 | 1u);

	MUST(whole.error == cut.error && whole.announced == cut.announced);
	MUST(whole.consumed == cut.consumed && whole.need == cut.need);
	MUST(buf_len(whole.log) == buf_len(cut.log));
	if (whole.log)
		MUST(memcmp(whole.log->data, cut.log->data, buf_len(whole.log)) == 0);

	struct batch batch = { .error = whole.error, .announced = whole.announced };
	MUST(codec_error_text(&codec, &batch, text, sizeof text) == text && *text);

	buf_release(&pool, &whole.log);
	buf_release(&pool, &cut.log);
	MUST(pool.lent_bytes == 0);
	buf_pool_deinit(&pool);
	return 0;
}
