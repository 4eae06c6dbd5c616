/*
 * Bodies that are read while their request is served, where limits.upload lets them be: piece by piece, or all at once.
 *
 * The request is handed up with its head. From then on the layer above says what it would have of the rest, and gives
 * the connection http->rest to decode it with. What nobody has read when the request is answered is dropped, or ends
 * the connection.
 */
#include "base/counters.h"
#include "base/err.h"
#include "http/internal.h"

#include <stdio.h>
#include <uv.h>

enum {
	DROPPED_MAX = 65536, /* so much that nobody reads is let come, and the connection goes on */
	AHEAD_BYTES = 65536, /* so much comes in before it is read */
	PART_BYTES = 65536   /* of a body of a known length */
};

bool http_comes_apart(const struct http *http, const struct http_session *s, size_t n)
{
	if (!http->limits.upload)
		return false;
	return s->request.is_chunked ||
	       (s->left && (s->left > http->limits.body || n - s->request.head_bytes < s->left));
}

void http_give_head(const struct http *http, struct http_session *s, const uint8_t *in, struct batch *out)
{
	uint32_t n = s->request.head_bytes;
	out->frames[0] = (struct frame){ in, n, n };
	out->count = 1;
	out->consumed = n;
	out->begun = BATCH_BODY_BEGUN;
	s->stage = s->request.is_chunked ? STAGE_CHUNK : STAGE_BODY;
	s->rest = REST_UNREAD;
	s->pending = true;
	s->begun = s->skipped = false;
	s->came = 0;
	s->requests++;
	count(&http->worker->counters->http_requests);
}

/* ---- decoding ---- */

static void http_end_rest(struct http_session *s, struct batch *out)
{
	s->rest = REST_NONE;
	out->begun = BATCH_NOTHING_BEGUN;
}

static void give_bytes(const uint8_t *data, size_t n, struct batch *out)
{
	out->frames[0] = (struct frame){ data, (uint32_t)n, (uint32_t)out->consumed };
	out->count = 1;
}

/* Of a body of a known length. */
static void decode_part(struct http_session *s, const uint8_t *in, size_t n, struct batch *out)
{
	size_t take = n < PART_BYTES ? n : PART_BYTES;
	if (take > s->left)
		take = (size_t)s->left;
	out->has_come_on = true;
	out->consumed = take;
	give_bytes(in, take, out);
	s->left -= take;
	if (!s->left)
		http_end_rest(s, out);
}

/* ... or all of it, which is no more than limits.body. */
static void decode_whole(const struct http *http, struct http_session *s, const uint8_t *in, size_t n,
			 struct batch *out)
{
	if (s->left > http->limits.body) {
		http_fail(s, REFUSE_BODY);
		http_fail_batch(s, out);
		return;
	}
	out->has_come_on = n > s->came;
	s->came = n;
	if (n < s->left) {
		out->need = (size_t)s->left;
		return;
	}
	out->consumed = (size_t)s->left;
	give_bytes(in, out->consumed, out);
	s->left = 0;
	http_end_rest(s, out);
}

/* What was given before is used by now. */
static void forget_given(const struct http *http, struct http_session *s)
{
	if (s->given)
		buf_consume(http->worker->pool, &s->body, s->given);
	s->given = 0;
}

static size_t decoded_bytes(const struct http_session *s)
{
	return buf_len(s->body) - s->request.trailer_bytes;
}

/* Of a chunked body, as much as there is, or all of it. Where the last chunk comes alone, it is a piece of nothing. */
static void decode_chunks(const struct http *http, struct http_session *s, const uint8_t *in, size_t n,
			  struct batch *out)
{
	bool is_whole, is_all = s->rest == REST_ALL;
	forget_given(http, s);
	out->consumed = http_read_chunks(http, s, in, n, &is_whole, &out->error);
	size_t rest = n - out->consumed, has = decoded_bytes(s);
	out->has_come_on = out->consumed || rest > s->came;
	s->came = rest;
	if (s->refusal) {
		http_fail_batch(s, out);
		return;
	}
	if (out->error && (is_all || !has)) {
		out->announced = http_room_wanted(http, s, rest);
		return;
	}
	out->error = 0;
	if (!is_whole && (is_all || !has))
		return;
	s->given = has;
	give_bytes(has ? s->body->data + s->body->start : in, has, out);
	if (is_whole)
		http_end_rest(s, out);
}

static void http_decode_rest(const struct protocol *protocol, const uint8_t *in, size_t n, unsigned limit,
			     struct session *session, struct batch *out)
{
	struct http_session *s = http_session_of(session);
	(void)protocol, (void)limit;
	out->count = 0;
	out->consumed = out->need = 0;
	out->error = 0;
	out->announced = 0;
	out->begun = BATCH_BODY_BEGUN;
	if (!n || (s->rest != REST_PIECES && s->rest != REST_ALL))
		return;
	if (s->request.is_chunked)
		decode_chunks(s->http, s, in, n, out);
	else if (s->rest == REST_ALL)
		decode_whole(s->http, s, in, n, out);
	else
		decode_part(s, in, n, out);
}

void http_drop_rest(struct http_session *s, size_t n, struct batch *out)
{
	size_t take = n < s->left ? n : (size_t)s->left;
	s->left -= take;
	out->consumed = take;
	out->begun = BATCH_BODY_BEGUN;
	out->has_come_on = true;
	if (!s->left)
		http_end_rest(s, out);
}

/* Who reads it is told what is wrong, and chooses the status. */
static void explain_rest(const struct protocol *protocol, const struct batch *batch, char *text, size_t size)
{
	enum http_refusal refusal = (enum http_refusal)(batch->announced % REFUSAL_COUNT);
	(void)protocol;
	snprintf(text, size, "%s", http_refusal_text(refusal));
}

static const struct protocol_ops REST_OPS = {
	.name = "http",
	.decode = http_decode_rest,
	.explain = explain_rest,
};

void http_init_rest(struct http *http)
{
	http->rest.ops = &REST_OPS;
	http->rest.max_bytes = http->protocol.max_bytes;
	if (http->limits.upload && http->limits.upload < http->limits.body)
		http->limits.upload = http->limits.body;
}

/* ---- of the layer above ---- */

uint32_t http_number_of(const struct session *session)
{
	return http_session_of(session)->requests;
}

bool http_has_rest(const struct session *session)
{
	const struct http_session *s = http_session_of(session);
	return s && s->pending && s->rest != REST_NONE;
}

int http_want_rest(const struct http *http, struct session *session, bool all)
{
	struct http_session *s = http_session_of(session);
	if (!http_has_rest(session) || (all && s->rest == REST_PIECES))
		return ERR_FRAME_REPLY;
	s->http = http;
	s->rest = all ? REST_ALL : REST_PIECES;
	return 0;
}

size_t http_dropped_bytes(const struct session *session)
{
	const struct http_session *s = http_session_of(session);
	return s && s->rest == REST_DROPPED && !s->last ? (size_t)s->left : 0;
}

bool http_wants_all(const struct session *session)
{
	const struct http_session *s = http_session_of(session);
	return s && s->rest == REST_ALL;
}

bool http_owes_continue(const struct session *session)
{
	const struct http_session *s = http_session_of(session);
	return s->expects && !s->request.is_1_0 && !s->framing;
}

int http_continue(struct session *session, struct buf_pool *pool, struct buf **out)
{
	static const char CONTINUE[] = "HTTP/1.1 100 Continue\r\n\r\n";
	http_session_of(session)->expects = false;
	return buf_append(pool, out, CONTINUE, sizeof CONTINUE - 1);
}

const char *http_trailers(const struct session *session, size_t *n)
{
	const struct http_session *s = http_session_of(session);
	*n = s && s->body && s->rest == REST_NONE ? s->request.trailer_bytes : 0;
	return *n ? (const char *)s->body->data + s->body->end - *n : NULL;
}

size_t http_ahead(const struct protocol *protocol, const struct session *session)
{
	const struct http_session *s = http_session_of(session);
	(void)protocol;
	return s && s->rest != REST_NONE ? AHEAD_BYTES : SIZE_MAX;
}

/* ---- what nobody reads ---- */

/* Who waits for 100 Continue may send the body all the same, or not: nobody knows what would come next. */
bool http_abandons_rest(const struct http_session *s)
{
	return s->rest != REST_NONE &&
	       (s->expects || s->refusal || s->request.is_chunked || s->left > DROPPED_MAX);
}

bool http_is_last_request(const struct http *http, const struct http_session *s)
{
	return http->limits.requests && s->requests >= http->limits.requests;
}
