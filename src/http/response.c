/* Responses: those of handlers, and those that refuse. */
#include "base/counters.h"
#include "base/err.h"
#include "http/internal.h"

#include <stdio.h>
#include <time.h>

static const struct {
	unsigned status;
	const char *phrase;
} PHRASES[] = {
	{ 200, "OK" },
	{ 201, "Created" },
	{ 202, "Accepted" },
	{ 203, "Non-Authoritative Information" },
	{ 204, "No Content" },
	{ 205, "Reset Content" },
	{ 206, "Partial Content" },
	{ 300, "Multiple Choices" },
	{ 301, "Moved Permanently" },
	{ 302, "Found" },
	{ 303, "See Other" },
	{ 304, "Not Modified" },
	{ 307, "Temporary Redirect" },
	{ 308, "Permanent Redirect" },
	{ 400, "Bad Request" },
	{ 401, "Unauthorized" },
	{ 402, "Payment Required" },
	{ 403, "Forbidden" },
	{ 404, "Not Found" },
	{ 405, "Method Not Allowed" },
	{ 406, "Not Acceptable" },
	{ 408, "Request Timeout" },
	{ 409, "Conflict" },
	{ 410, "Gone" },
	{ 411, "Length Required" },
	{ 412, "Precondition Failed" },
	{ 413, "Content Too Large" },
	{ 414, "URI Too Long" },
	{ 415, "Unsupported Media Type" },
	{ 416, "Range Not Satisfiable" },
	{ 417, "Expectation Failed" },
	{ 421, "Misdirected Request" },
	{ 422, "Unprocessable Content" },
	{ 426, "Upgrade Required" },
	{ 428, "Precondition Required" },
	{ 429, "Too Many Requests" },
	{ 431, "Request Header Fields Too Large" },
	{ 451, "Unavailable For Legal Reasons" },
	{ 500, "Internal Server Error" },
	{ 501, "Not Implemented" },
	{ 502, "Bad Gateway" },
	{ 503, "Service Unavailable" },
	{ 504, "Gateway Timeout" },
	{ 505, "HTTP Version Not Supported" },
};

const char *http_phrase(unsigned status)
{
	for (size_t i = 0; i < sizeof PHRASES / sizeof *PHRASES; i++)
		if (PHRASES[i].status == status)
			return PHRASES[i].phrase;
	return "";
}

/* ---- Date ---- */

/* Made once a second. */
static const char *date_now(struct http_worker *worker)
{
	uint64_t epoch_ms = *worker->epoch_ms;
	int64_t second = epoch_ms ? (int64_t)((epoch_ms + *worker->now_ms) / 1000) : (int64_t)time(NULL);
	if (second != worker->date_s || !*worker->date) {
		http_date_print(worker->date, second);
		worker->date_s = second;
	}
	return worker->date;
}

/* ---- heads ---- */

static char *put_bytes(char *to, const void *bytes, size_t n)
{
	memcpy(to, bytes, n);
	return to + n;
}

#define PUT(to, literal) put_bytes(to, literal, sizeof(literal) - 1)

static char *put_words(char *to, const char *text)
{
	return put_bytes(to, text, strlen(text));
}

static char *put_number(char *to, uint64_t n)
{
	char digits[20];
	size_t i = sizeof digits;
	do
		digits[--i] = (char)('0' + n % 10);
	while (n /= 10);
	return put_bytes(to, digits + i, sizeof digits - i);
}

static char *put_status(char *to, unsigned status)
{
	if (status == 200)
		return PUT(to, "HTTP/1.1 200 OK\r\n");
	to = put_number(PUT(to, "HTTP/1.1 "), status);
	*to++ = ' ';
	return PUT(put_words(to, http_phrase(status)), "\r\n");
}

static char *put_date(char *to, const struct http *http)
{
	return PUT(put_bytes(PUT(to, "Date: "), date_now(http->worker), HTTP_DATE_BYTES), "\r\n");
}

static char *put_length(char *to, uint64_t n)
{
	return PUT(put_number(PUT(to, "Content-Length: "), n), "\r\n");
}

bool http_is_bodiless(unsigned status)
{
	return status == 204 || status == 304;
}

char *http_put_head(char *to, const struct http *http, const struct http_request *request,
		    struct http_response *response, struct http_framed framed)
{
	char *begin = to, *date = put_status(begin, response->status);
	to = put_date(date, http);
	response->is_last = response->closes || !request->keeps;
	response->date_at = (size_t)(date - begin);
	response->date_bytes = (size_t)(to - date);
	if (response->is_last)
		to = PUT(to, "Connection: close\r\n");
	else if (request->is_1_0)
		to = PUT(to, "Connection: keep-alive\r\n");
	if (response->field_bytes)
		to = put_bytes(to, response->fields, response->field_bytes);
	if (framed.by == FRAMING_LENGTH)
		to = put_length(to, framed.length);
	else if (framed.by == FRAMING_CHUNKS)
		to = PUT(to, "Transfer-Encoding: chunked\r\n");
	return PUT(to, "\r\n");
}

int http_respond(const struct http *http, struct session *session, struct http_response *response,
		 struct buf_pool *pool, struct buf **out)
{
	struct http_session *s = http_session_of(session);
	if (!s || !s->pending || s->framing)
		return ERR_FRAME_REPLY;
	const struct http_request *request = &s->request;
	bool has_body = !http_is_bodiless(response->status);
	response->closes |= http_is_last_request(http, s) || http_abandons_rest(s);
	size_t body_bytes = has_body && !request->is_head ? response->body_bytes : 0;
	char *begin = (char *)buf_reserve(pool, out, HTTP_HEAD_MAX + response->field_bytes + body_bytes);
	if (!begin)
		return ERR_BUFFER_LIMIT;
	struct http_framed framed = { has_body ? FRAMING_LENGTH : FRAMING_BODILESS, response->body_bytes };
	char *to = http_put_head(begin, http, request, response, framed);
	if (body_bytes)
		to = put_bytes(to, response->body, body_bytes);
	response->bytes = (size_t)(to - begin);
	buf_commit(*out, response->bytes);
	http_count_class(http, response->status);
	buf_release(http->worker->pool, &s->body);
	s->pending = false;
	s->last = response->is_last;
	s->given = 0;
	if (s->rest)
		s->rest = REST_DROPPED;
	return 0;
}

int http_switch(struct session *session, const char *fields, size_t n, struct buf_pool *pool,
		struct buf **out)
{
	struct http_session *s = http_session_of(session);
	if (!s || !s->pending || s->framing || s->rest)
		return ERR_FRAME_REPLY;
	char *begin = (char *)buf_reserve(pool, out, HTTP_HEAD_MAX + n);
	if (!begin)
		return ERR_BUFFER_LIMIT;
	char *to = PUT(begin, "HTTP/1.1 101 Switching Protocols\r\n");
	to = PUT(put_bytes(to, fields, n), "\r\n");
	buf_commit(*out, (size_t)(to - begin));
	s->pending = false;
	s->last = true;
	return 0;
}

int http_refuse(const struct http *http, struct http_session *s, enum http_refusal refusal,
		struct buf_pool *pool, struct buf **out)
{
	unsigned status = http_refusal_status(refusal);
	char text[256];
	size_t n = (size_t)snprintf(text, sizeof text, "%u %s: %s\n", status, http_phrase(status),
				    http_refusal_text(refusal));
	char *begin = (char *)buf_reserve(pool, out, HTTP_HEAD_MAX + n);
	if (!begin)
		return ERR_BUFFER_LIMIT;
	char *to = put_date(put_status(begin, status), http);
	to = PUT(to, "Connection: close\r\nContent-Type: text/plain; charset=utf-8\r\n");
	to = PUT(put_length(to, n), "\r\n");
	if (!(s->pending && s->request.is_head))
		to = put_bytes(to, text, n);
	buf_commit(*out, (size_t)(to - begin));
	http_count_class(http, status);
	http_refusal_count(http->worker->counters, refusal);
	s->pending = false;
	s->last = true;
	return 0;
}
