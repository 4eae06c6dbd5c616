#include "support/http_stream.h"

#include "base/err.h"
#include "http/refusal.h"
#include "support/must.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void http_stream_init(struct http_stream *stream, const struct http_limits *limits)
{
	*stream = (struct http_stream){ .http.limits = *limits, .epoch_ms = 784111777000 };
	buf_pool_init(&stream->pool, 0, 8);
	stream->worker = (struct http_worker){ .pool = &stream->pool,
					       .counters = &stream->counters,
					       .now_ms = &stream->now_ms,
					       .epoch_ms = &stream->epoch_ms };
	stream->http.worker = &stream->worker;
	http_init(&stream->http);
	const struct protocol *protocol = &stream->http.protocol;
	MUST(!protocol->ops->begin(protocol, &stream->session));
}

void http_stream_deinit(struct http_stream *stream)
{
	const struct protocol *protocol = &stream->http.protocol;
	protocol->ops->end(protocol, &stream->session);
	buf_release(&stream->pool, &stream->in);
	buf_release(&stream->pool, &stream->out);
	buf_release(&stream->pool, &stream->request);
	MUST(!stream->pool.lent_bytes);
	buf_pool_deinit(&stream->pool);
}

static void note(struct http_stream *stream, const void *bytes, size_t n)
{
	if (n > sizeof stream->text - 1 - stream->text_bytes)
		n = sizeof stream->text - 1 - stream->text_bytes;
	memcpy(stream->text + stream->text_bytes, bytes, n);
	stream->text_bytes += n;
	stream->text[stream->text_bytes] = '\0';
}

static void note_text(struct http_stream *stream, const char *text)
{
	if (stream->text_bytes)
		note(stream, ", ", 2);
	note(stream, text, strlen(text));
}

static void note_request(struct http_stream *stream, const struct http_request *request,
			 const struct frame *frame)
{
	MUST(request->head_bytes <= frame->len && request->path_at + request->path_bytes <= frame->len);
	MUST(request->query_at + request->query_bytes <= request->head_bytes);
	note_text(stream, "200 ");
	note(stream, frame->data, request->method_bytes);
	note(stream, " ", 1);
	note(stream, request->has_path ? (const char *)frame->data + request->path_at : "/",
	     request->has_path ? request->path_bytes : 1);
	if (request->has_query) {
		note(stream, "?", 1);
		note(stream, frame->data + request->query_at, request->query_bytes);
	}
	size_t behind = frame->len - request->trailer_bytes;
	if (behind == request->head_bytes)
		return;
	note(stream, " ", 1);
	note(stream, frame->data + request->head_bytes, behind - request->head_bytes);
}

static void answer(struct http_stream *stream)
{
	const struct protocol *protocol = &stream->http.protocol;
	struct reply reply = { (const uint8_t *)"ok", 2 };
	int error;
	bool keeps = http_pending(&stream->session)->keeps;
	MUST(protocol->ops->encode(protocol, &stream->session, &reply, 1, &stream->pool, &stream->out,
				   &error) == 1 &&
	     !error && !http_pending(&stream->session));
	buf_release(&stream->pool, &stream->out);
	stream->is_over = !keeps;
}

static void refuse(struct http_stream *stream, const struct batch *batch)
{
	char status[16];
	const struct protocol *protocol = &stream->http.protocol;
	snprintf(status, sizeof status, "%u", http_refusal_status((enum http_refusal)batch->announced));
	note_text(stream, status);
	stream->is_over = true;
	MUST(!protocol->ops->finish(protocol, &stream->session, 0, REASON_FRAME_ERROR, &stream->pool,
				    &stream->out));
	MUST(stream->out && !memcmp(stream->out->data + stream->out->start + 9, status, 3));
	buf_release(&stream->pool, &stream->out);
}

/* What is asked for next is the body. */
static void begin_rest(struct http_stream *stream)
{
	if (http_owes_continue(&stream->session)) {
		note_text(stream, "100");
		MUST(!http_continue(&stream->session, &stream->pool, &stream->out));
		buf_release(&stream->pool, &stream->out);
	}
	MUST(!http_want_rest(&stream->http, &stream->session, !stream->in_pieces));
	stream->is_reading = true;
}

/* It was handed up without its body, or that has come on: it is put together, and answered once it is whole. */
static void take_apart(struct http_stream *stream, const struct frame *frame)
{
	MUST(!frame->len || !buf_append(&stream->pool, &stream->request, frame->data, frame->len));
	if (!stream->is_reading)
		begin_rest(stream);
	if (http_has_rest(&stream->session))
		return;
	size_t n;
	const struct http_request *request = http_pending(&stream->session);
	const char *trailers = http_trailers(&stream->session, &n);
	MUST(n == request->trailer_bytes && (!n || !memcmp(trailers + n - 2, "\r\n", 2)));
	MUST(!n || !buf_append(&stream->pool, &stream->request, trailers, n));
	const struct buf *whole = stream->request;
	note_request(stream, request,
		     &(struct frame){ .data = whole->data + whole->start, .len = (uint32_t)buf_len(whole) });
	stream->is_reading = false;
	buf_release(&stream->pool, &stream->request);
	answer(stream);
}

/* One call of decode(). False: it needs more. */
static bool step(struct http_stream *stream)
{
	static struct batch batch;
	const struct protocol *protocol = stream->is_reading ? &stream->http.rest : &stream->http.protocol;
	size_t n = buf_len(stream->in);
	if (!n || stream->is_over)
		return false;
	uint8_t *copy = malloc(n);
	memcpy(copy, stream->in->data + stream->in->start, n);
	batch.begun = BATCH_NOTHING_BEGUN;
	batch.pool = &stream->pool;
	batch.answers = &stream->out;
	stream->decodes++;
	protocol->ops->decode(protocol, copy, n, 1, &stream->session, &batch);
	MUST(batch.consumed <= n && batch.count <= 1 && !(batch.count && batch.error));
	if (stream->out) {
		note_text(stream, "100");
		buf_release(&stream->pool, &stream->out);
	}
	if (batch.count && (stream->is_reading || http_has_rest(&stream->session))) {
		take_apart(stream, &batch.frames[0]);
	} else if (batch.count) {
		note_request(stream, http_pending(&stream->session), &batch.frames[0]);
		answer(stream);
	} else if (batch.error) {
		refuse(stream, &batch);
	}
	MUST(batch.count || batch.error || batch.begun || batch.consumed);
	free(copy);
	buf_consume(&stream->pool, &stream->in, batch.consumed);
	return batch.consumed;
}

void http_stream_put(struct http_stream *stream, const uint8_t *bytes, size_t n)
{
	MUST(!buf_append(&stream->pool, &stream->in, bytes, n));
	while (step(stream))
		;
}
