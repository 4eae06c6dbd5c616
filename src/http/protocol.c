/* The session: which request is being read, and what is owed for it. */
#include "base/buf.h"
#include "base/counters.h"
#include "base/err.h"
#include "http/internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <uv.h>

static int http_begin(const struct protocol *protocol, struct session *session)
{
	(void)protocol;
	session->own = calloc(1, sizeof(struct http_session));
	return session->own ? 0 : UV_ENOMEM;
}

static void http_end(const struct protocol *protocol, struct session *session)
{
	struct http_session *s = http_session_of(session);
	if (s) {
		buf_release(http_of(protocol)->worker->pool, &s->body);
		http_drop_file(s);
	}
	free(s);
	session->own = NULL;
}

static size_t http_held(const struct session *session)
{
	const struct http_session *s = http_session_of(session);
	return s && s->body ? s->body->cap : 0;
}

static void http_shed(const struct protocol *protocol, struct session *session)
{
	struct http_session *s = http_session_of(session);
	if (s)
		buf_release(http_of(protocol)->worker->pool, &s->body);
}

/* ---- decoding ---- */

/* Between requests: what is known of the last one goes, all but how many there were. */
static void begin_request(const struct http *http, struct http_session *s)
{
	bool skipped = s->skipped;
	uint32_t requests = s->requests;
	buf_release(http->worker->pool, &s->body);
	http_drop_file(s);
	*s = (struct http_session){ .skipped = skipped, .requests = requests };
}

/* It is whole: data[0 .. len). */
static void give_request(const struct http *http, struct http_session *s, const uint8_t *data, size_t len,
			 struct batch *out)
{
	out->frames[0] = (struct frame){ data, (uint32_t)len, (uint32_t)out->consumed };
	out->count = 1;
	out->begun = BATCH_NOTHING_BEGUN;
	s->pending = true;
	s->begun = s->skipped = false;
	s->requests++;
	count(&http->worker->counters->http_requests);
}

void http_fail_batch(struct http_session *s, struct batch *out)
{
	out->error = http_refusal_error((enum http_refusal)s->refusal);
	out->announced = s->refusal;
	out->begun = BATCH_NOTHING_BEGUN;
}

/* The client waits for this before it sends the body. Of HTTP/1.0 nobody does. */
static bool send_continue(struct session *session, struct batch *out)
{
	const struct http_session *s = http_session_of(session);
	if (!s->expects || s->request.is_1_0 || (!s->left && !s->request.is_chunked))
		return true;
	if (!http_continue(session, out->pool, out->answers))
		return true;
	out->error = ERR_BUFFER_LIMIT; /* for good: the head has been read, and nobody reads it again */
	return false;
}

/* The head is whole: what follows it is read as it says. */
static bool begin_body(const struct http *http, struct http_session *s, const uint8_t *in, struct batch *out)
{
	s->came = 0;
	s->stage = s->request.is_chunked ? STAGE_CHUNK : STAGE_BODY;
	if (!s->request.is_chunked)
		return true;
	out->error = buf_append(http->worker->pool, &s->body, in, s->request.head_bytes);
	if (out->error)
		return false;
	out->consumed = s->request.head_bytes;
	return true;
}

static void read_body(const struct http *http, struct http_session *s, const uint8_t *in, size_t n,
		      struct batch *out)
{
	size_t came = n - s->request.head_bytes;
	out->begun = BATCH_BODY_BEGUN;
	out->has_come_on = came > s->came;
	s->came = came;
	if (came < s->left) {
		out->need = (size_t)(s->request.head_bytes + s->left);
		return;
	}
	out->consumed = (size_t)(s->request.head_bytes + s->left);
	give_request(http, s, in, out->consumed, out);
}

size_t http_room_wanted(const struct http *http, const struct http_session *s, size_t has)
{
	bool is_data = s->stage == STAGE_DATA;
	size_t n = is_data && s->left < has ? (size_t)s->left : has;
	return buf_could_hold(http->worker->pool, s->body, n) ? n : 0;
}

static void read_chunked(const struct http *http, struct http_session *s, const uint8_t *in, size_t n,
			 struct batch *out)
{
	bool is_whole;
	out->begun = BATCH_BODY_BEGUN;
	size_t used =
	    http_read_chunks(http, s, in + out->consumed, n - out->consumed, &is_whole, &out->error);
	if (out->error)
		out->announced = http_room_wanted(http, s, n - out->consumed - used);
	out->consumed += used;
	out->has_come_on = used || n - out->consumed > s->came;
	s->came = n - out->consumed; /* of a line that has not ended */
	if (is_whole)
		give_request(http, s, s->body->data + s->body->start, buf_len(s->body), out);
	else if (s->refusal)
		http_fail_batch(s, out);
}

/* One empty line before a request is taken, as RFC 9112 has it. False: there is nothing more, or it is refused. */
static bool skip_line(struct http_session *s, const uint8_t *in, size_t n, struct batch *out)
{
	if (n > 1 && in[1] != '\n')
		s->refusal = REFUSE_LINE_END;
	else if (s->skipped)
		s->refusal = REFUSE_LEADING_LINE;
	if (s->refusal)
		http_fail_batch(s, out);
	else if (n > 1) {
		s->skipped = true;
		out->consumed = 2;
		out->begun = BATCH_NOTHING_BEGUN;
		s->begun = false;
	}
	return false;
}

/* False: it is not whole, or is refused. */
static bool read_head(const struct http *http, struct session *session, const uint8_t *in, size_t n,
		      struct batch *out)
{
	struct http_session *s = http_session_of(session);
	if (s->stage == STAGE_LINE && n && in[0] == '\r')
		return skip_line(s, in, n, out);
	if (!http_read_head(http, s, in, n)) {
		if (s->refusal)
			http_fail_batch(s, out);
		return false;
	}
	if (http_comes_apart(http, s, n)) {
		http_give_head(http, s, in, out);
		return false;
	}
	return send_continue(session, out) && begin_body(http, s, in, out);
}

static void http_decode(const struct protocol *protocol, const uint8_t *in, size_t n, unsigned limit,
			struct session *session, struct batch *out)
{
	const struct http *http = http_of(protocol);
	struct http_session *s = http_session_of(session);
	(void)limit;
	out->count = 0;
	out->consumed = out->need = 0;
	out->error = 0;
	out->announced = 0;
	if (!n || s->last || s->pending)
		return;
	if (s->rest) {
		http_drop_rest(s, n, out);
		return;
	}
	if (!s->begun)
		begin_request(http, s);
	s->begun = true;
	out->begun = BATCH_BEGUN;
	if (s->stage <= STAGE_FIELDS && !read_head(http, session, in, n, out))
		return;
	if (s->stage == STAGE_BODY)
		read_body(http, s, in, n, out);
	else
		read_chunked(http, s, in, n, out);
}

const struct http_request *http_pending(const struct session *session)
{
	const struct http_session *s = http_session_of(session);
	return s && s->pending ? &s->request : NULL;
}

bool http_is_at_rest(const struct session *session)
{
	const struct http_session *s = http_session_of(session);
	return s && !s->pending && !s->begun && !s->last && !s->refusal && !s->rest;
}

static bool is_at_rest(const struct protocol *protocol, const struct session *session)
{
	(void)protocol;
	return http_is_at_rest(session);
}

/* ---- encoding ---- */

static const char TEXT_FIELD[] = "Content-Type: text/plain; charset=utf-8\r\n";

/* A string is the body of a 200. */
static unsigned http_encode(const struct protocol *protocol, struct session *session,
			    const struct reply *replies, unsigned n, struct buf_pool *pool, struct buf **out,
			    int *error)
{
	*error = session ? 0 : ERR_FRAME_REPLY;
	for (unsigned i = 0; !*error && i < n; i++) {
		struct http_response response = { .status = 200,
						  .fields = TEXT_FIELD,
						  .field_bytes = sizeof TEXT_FIELD - 1,
						  .body = (const char *)replies[i].data,
						  .body_bytes = replies[i].len };
		*error = http_respond(http_of(protocol), session, &response, pool, out);
		if (*error)
			return i;
	}
	return *error ? 0 : n;
}

/* What a request that is not answered is told. */
static enum http_refusal refusal_of(enum close_reason reason)
{
	switch (reason) {
	case REASON_ERROR:
	case REASON_PROCEED_TIMEOUT:
		return REFUSE_ERROR;
	case REASON_MEMORY:
		return REFUSE_MEMORY;
	case REASON_DRAIN:
		return REFUSE_GOING;
	default:
		return REFUSE_NOTHING;
	}
}

/* ... and one that has not come to its end. */
static enum http_refusal refusal_of_begun(enum close_reason reason)
{
	bool is_late = reason == REASON_READ_TIMEOUT || reason == REASON_IDLE_TIMEOUT;
	return is_late ? REFUSE_TIME_OUT : refusal_of(reason);
}

static int http_finish(const struct protocol *protocol, struct session *session, uint32_t channel,
		       enum close_reason reason, struct buf_pool *pool, struct buf **out)
{
	struct http_session *s = http_session_of(session);
	(void)channel;
	if (!s || s->last)
		return 0;
	if (s->framing) { /* that it is not whole is what it says now */
		int err = reason == REASON_DRAIN ? http_stand_down(s, pool, out) : 0;
		s->last = !err;
		return err;
	}
	enum http_refusal refusal = s->refusal               ? (enum http_refusal)s->refusal
				    : s->pending && !s->rest ? refusal_of(reason)
				    : s->begun || s->pending ? refusal_of_begun(reason)
							     : REFUSE_NOTHING;
	return refusal ? http_refuse(http_of(protocol), s, refusal, pool, out) : 0;
}

static void http_explain(const struct protocol *protocol, const struct batch *batch, char *text, size_t size)
{
	enum http_refusal refusal = (enum http_refusal)(batch->announced % REFUSAL_COUNT);
	(void)protocol;
	snprintf(text, size, "HTTP %u: %s", http_refusal_status(refusal), http_refusal_text(refusal));
}

static const struct protocol_ops HTTP_OPS = {
	.name = "http",
	.begin = http_begin,
	.end = http_end,
	.held = http_held,
	.shed = http_shed,
	.decode = http_decode,
	.encode = http_encode,
	.finish = http_finish,
	.is_at_rest = is_at_rest,
	.ahead = http_ahead,
	.explain = http_explain,
};

void http_init(struct http *http)
{
	http->protocol.ops = &HTTP_OPS;
	http->protocol.max_bytes =
	    http->limits.uri + HTTP_LINE_REST + 1 + http->limits.headers + 2 + http->limits.body;
	http_init_rest(http);
}
