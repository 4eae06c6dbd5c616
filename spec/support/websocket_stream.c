#include "support/websocket_stream.h"

#include "base/err.h"
#include "support/must.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void websocket_stream_init(struct websocket_stream *stream, uint32_t message_bytes, unsigned window_bits)
{
	websocket_stream_init_terms(stream, message_bytes,
				    (struct websocket_terms){ .window_bits = (uint8_t)window_bits });
}

void websocket_stream_init_terms(struct websocket_stream *stream, uint32_t message_bytes,
				 struct websocket_terms terms)
{
	*stream = (struct websocket_stream){ .websocket.protocol.max_bytes = message_bytes,
					     .websocket.terms = terms };
	buf_pool_init(&stream->pool, 0, 8);
	stream->worker = (struct websocket_worker){ .pool = &stream->pool, .counters = &stream->counters };
	stream->websocket.worker = &stream->worker;
	websocket_init(&stream->websocket);
	const struct protocol *protocol = &stream->websocket.protocol;
	MUST(!protocol->ops->begin(protocol, &stream->session));
}

void websocket_stream_deinit(struct websocket_stream *stream)
{
	const struct protocol *protocol = &stream->websocket.protocol;
	protocol->ops->end(protocol, &stream->session);
	websocket_worker_deinit(&stream->worker);
	buf_release(&stream->pool, &stream->in);
	buf_release(&stream->pool, &stream->out);
	MUST(!stream->pool.lent_bytes && !count_read(&stream->counters.websocket_windows));
	buf_pool_deinit(&stream->pool);
}

static void note(struct websocket_stream *stream, const void *bytes, size_t n)
{
	size_t room = sizeof stream->text - 1 - stream->text_bytes;
	n = n < room ? n : room;
	memcpy(stream->text + stream->text_bytes, bytes, n);
	stream->text_bytes += n;
	stream->text[stream->text_bytes] = '\0';
}

static void note_word(struct websocket_stream *stream, const char *word)
{
	if (stream->text_bytes)
		note(stream, ", ", 2);
	note(stream, word, strlen(word));
}

static void note_message(struct websocket_stream *stream, const struct frame *frame)
{
	enum { SHOWN = 8 };
	char text[64];
	if (!websocket_is_binary(&stream->session)) {
		note_word(stream, "text ");
		note(stream, frame->data, frame->len);
		return;
	}
	snprintf(text, sizeof text, "binary %u:", frame->len);
	note_word(stream, text);
	for (unsigned i = 0; i < frame->len && i < SHOWN; i++) {
		snprintf(text, sizeof text, "%02x", frame->data[i]);
		note(stream, text, 2);
	}
}

/* Of a client's frame the mask is taken off. */
static void take_payload(const struct websocket_stream *stream, const uint8_t *frame, size_t n,
			 uint8_t *payload)
{
	bool is_client = stream->websocket.is_client;
	MUST((frame[1] & 0x80) == (is_client ? 0x80 : 0));
	for (size_t i = 0; i < n; i++)
		payload[i] = is_client ? frame[6 + i] ^ frame[2 + i % 4] : frame[2 + i];
}

/* Frames of this side: pongs, and one that closes. */
static void take_answers(struct websocket_stream *stream)
{
	size_t head = stream->websocket.is_client ? 6 : 2;
	while (stream->out) {
		const uint8_t *frame = stream->out->data + stream->out->start;
		uint8_t payload[127];
		char text[32];
		size_t n = frame[1] & 0x7f;
		MUST(buf_len(stream->out) >= head + n && n <= 125 && (frame[0] == 0x8a || frame[0] == 0x88));
		take_payload(stream, frame, n, payload);
		if (frame[0] == 0x8a) {
			note_word(stream, "pong ");
			note(stream, payload, n);
		} else {
			snprintf(text, sizeof text, n ? "close %u" : "close",
				 n ? payload[0] << 8 | payload[1] : 0);
			note_word(stream, text);
		}
		buf_consume(&stream->pool, &stream->out, head + n);
	}
}

static void end(struct websocket_stream *stream, enum close_reason reason)
{
	const struct protocol *protocol = &stream->websocket.protocol;
	stream->is_over = true;
	MUST(!protocol->ops->finish(protocol, &stream->session, 0, reason, &stream->pool, &stream->out));
	take_answers(stream);
}

static void end_by_peer(struct websocket_stream *stream)
{
	const char *why;
	size_t n;
	char text[32];
	snprintf(text, sizeof text, "closed %u ", websocket_peers_code(&stream->session, &why, &n));
	note_word(stream, text);
	note(stream, why, n);
	end(stream, REASON_PEER);
}

/* One call of decode(). False: it needs more. */
static bool step(struct websocket_stream *stream)
{
	static struct batch batch;
	const struct protocol *protocol = &stream->websocket.protocol;
	size_t n = buf_len(stream->in);
	if (!n || stream->is_over)
		return false;
	uint8_t *copy = malloc(n); /* so that a sanitizer sees where it ends */
	memcpy(copy, stream->in->data + stream->in->start, n);
	batch = (struct batch){ .pool = &stream->pool, .answers = &stream->out };
	protocol->ops->decode(protocol, copy, n, 1, &stream->session, &batch);
	MUST(batch.consumed <= n && batch.count <= 1 && !(batch.count && batch.error));
	take_answers(stream);
	if (batch.count) {
		MUST(batch.frames[0].len <= protocol->max_bytes);
		note_message(stream, &batch.frames[0]);
		protocol->ops->taken(protocol, &stream->session);
	} else if (batch.error) {
		MUST(batch.error == ERR_FRAME_TOO_LARGE || batch.error == ERR_FRAME_MALFORMED);
		note_word(stream, "refused");
		end(stream, batch.error == ERR_FRAME_TOO_LARGE ? REASON_OVERSIZE : REASON_FRAME_ERROR);
	} else if (batch.ends) {
		end_by_peer(stream);
	}
	MUST(batch.count || batch.error || batch.begun || batch.consumed);
	free(copy);
	buf_consume(&stream->pool, &stream->in, batch.consumed);
	return batch.consumed;
}

static void look_ahead(struct websocket_stream *stream)
{
	const struct protocol *protocol = &stream->websocket.protocol;
	const struct buf *in = stream->in;
	if (!in)
		return;
	MUST(!protocol->ops->look_ahead(protocol, &stream->session, in->data + in->start, buf_len(in),
					&stream->pool, &stream->out));
	take_answers(stream);
}

void websocket_stream_put(struct websocket_stream *stream, const uint8_t *bytes, size_t n)
{
	MUST(!buf_append(&stream->pool, &stream->in, bytes, n));
	if (stream->is_held)
		look_ahead(stream);
	else
		while (step(stream))
			;
}

void websocket_stream_hold(struct websocket_stream *stream, bool is_held)
{
	stream->is_held = is_held;
	while (!is_held && step(stream))
		;
}
