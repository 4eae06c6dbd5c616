/*
 * Gives frames to the WebSocket protocol in one piece, byte by byte, and cut somewhere, and aborts when that makes a
 * difference; and held back now and then, when that changes the messages, or which pings are answered.
 *
 * Input: limits, the side, and cuts (2 bytes), then the stream. Its masks are as they are: that of four zeroes shows
 * what is sent.
 */
#include "support/must.h"
#include "support/websocket_stream.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { HEAD_BYTES = 2, INPUT_MAX = 4096 };

static struct websocket_stream whole, cut;

static void begin(struct websocket_stream *stream, uint8_t how)
{
	static const uint32_t LIMITS[] = { 65536, 16, 1, 1000 };
	static const struct websocket_terms TERMS[] = { { 0 }, { 15, 0, 0 }, { 9, 0, 0 }, { 15, 12, 12 } };
	websocket_stream_init_terms(stream, LIMITS[how % 4], TERMS[how / 4 % 4]);
	stream->websocket.is_client = how / 16 % 2;
}

/* So many bytes at a time, every other time held back. */
static void run(struct websocket_stream *stream, uint8_t how, const uint8_t *data, size_t n, size_t step,
		bool holds)
{
	begin(stream, how);
	for (size_t at = 0, i = 0; at < n && !stream->is_over; at += step, i++) {
		websocket_stream_hold(stream, holds && i % 2);
		if (!stream->is_over)
			websocket_stream_put(stream, data + at, n - at < step ? n - at : step);
	}
	websocket_stream_hold(stream, false);
}

/* How often the text says so; where it was too long for all, nobody knows. */
static unsigned count_of(const struct websocket_stream *stream, const char *word)
{
	unsigned count = 0;
	for (const char *at = stream->text; (at = strstr(at, word)); at++)
		count++;
	return count;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size <= HEAD_BYTES || size > INPUT_MAX)
		return 0;
	size_t n = size - HEAD_BYTES, steps[] = { 1, data[1] % 16 + 2u, data[1] + 17u };
	run(&whole, data[0], data + HEAD_BYTES, n, n, false);
	for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
		run(&cut, data[0], data + HEAD_BYTES, n, steps[i], false);
		MUST(cut.text_bytes == whole.text_bytes && !memcmp(cut.text, whole.text, whole.text_bytes));
		MUST(cut.is_over == whole.is_over);
		websocket_stream_deinit(&cut);
		run(&cut, data[0], data + HEAD_BYTES, n, steps[i], true);
		MUST(cut.is_over == whole.is_over);
		bool is_all =
		    whole.text_bytes < sizeof whole.text - 1 && cut.text_bytes < sizeof cut.text - 1;
		/* One behind what is refused may have been answered before that came to light. */
		MUST(!is_all || cut.is_over ? true : cut.text_bytes == whole.text_bytes);
		MUST(!is_all || count_of(&cut, "pong ") >= count_of(&whole, "pong "));
		websocket_stream_deinit(&cut);
	}
	websocket_stream_deinit(&whole);
	return 0;
}
