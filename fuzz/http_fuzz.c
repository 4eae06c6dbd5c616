/*
 * Gives bytes to the HTTP protocol in one piece, byte by byte, and cut somewhere, and aborts when that makes a
 * difference, or when a response that is made for what it accepts is not one.
 *
 * Input: limits, a way of reading bodies and cuts (2 bytes), then the stream.
 */
#include "support/http_stream.h"
#include "support/must.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { HEAD_BYTES = 2 };

static const struct http_limits LIMITS[] = {
	{ .uri = 8192, .headers = 16384, .fields = 100, .body = 1024 },
	{ .uri = 16, .headers = 64, .fields = 4, .body = 8 },
	{ .uri = 64, .headers = 128, .fields = 2, .body = 0 },
	{ .uri = 1024, .headers = 1024, .fields = 1, .body = 65536 },
};

static struct http_stream whole, cut;

/* So many bytes at a time. */
static void run(struct http_stream *stream, const struct http_limits *limits, bool in_pieces,
		const uint8_t *data, size_t n, size_t step)
{
	http_stream_init(stream, limits);
	stream->in_pieces = in_pieces;
	for (size_t at = 0; at < n && !stream->is_over; at += step)
		http_stream_put(stream, data + at, n - at < step ? n - at : step);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size <= HEAD_BYTES)
		return 0;
	enum { WAYS = 3 };
	struct http_limits limits = LIMITS[data[0] % (sizeof LIMITS / sizeof *LIMITS)];
	unsigned way = data[0] / 4u % WAYS; /* requests whole; their bodies behind them as one; in pieces */
	limits.upload = way ? limits.body : 0;
	size_t n = size - HEAD_BYTES, steps[] = { 1, data[1] % 16 + 2u, data[1] + 17u };
	run(&whole, &limits, way == 2, data + HEAD_BYTES, n, n);
	for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
		run(&cut, &limits, way == 2, data + HEAD_BYTES, n, steps[i]);
		MUST(cut.text_bytes == whole.text_bytes && !memcmp(cut.text, whole.text, whole.text_bytes));
		MUST(cut.is_over == whole.is_over);
		MUST(http_is_at_rest(&cut.session) == http_is_at_rest(&whole.session));
		http_stream_deinit(&cut);
	}
	http_stream_deinit(&whole);
	return 0;
}
