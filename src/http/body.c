/* Chunked bodies. Extensions are refused: nobody needs them, and programs disagree about where they end. */
#include "base/err.h"
#include "http/internal.h"

enum { SIZE_DIGITS_MAX = 16 };

/* 0xff: it is no digit. */
static uint8_t chunk_digit(uint8_t c)
{
	if (c >= '0' && c <= '9')
		return (uint8_t)(c - '0');
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? (uint8_t)(c - 'a' + 10) : 0xff;
}

static bool parse_chunk_size(struct http_session *s, const uint8_t *line, size_t len, uint64_t *size)
{
	size_t i = 0;
	*size = 0;
	for (; i < len && chunk_digit(line[i]) != 0xff; i++) {
		if (i == SIZE_DIGITS_MAX)
			return http_fail(s, REFUSE_CHUNK_SIZE);
		*size = *size << 4 | chunk_digit(line[i]);
	}
	if (i < len && i && line[i] == ';')
		return http_fail(s, REFUSE_CHUNK_EXTENSION);
	return (i && i == len) || http_fail(s, REFUSE_CHUNK_SIZE);
}

/* What is wrong with a line whose end has not come is told when it is too long for a size, and not before. */
size_t http_read_chunk_line(struct http_session *s, const uint8_t *in, size_t n, uint64_t *size)
{
	size_t len, most = SIZE_DIGITS_MAX + 2;
	const uint8_t *semicolon = memchr(in, ';', n < most ? n : most);
	enum http_refusal too_long = semicolon ? REFUSE_CHUNK_EXTENSION : REFUSE_CHUNK_SIZE;
	if (!http_line(s, in, n, most, too_long, &len) || !parse_chunk_size(s, in, len, size))
		return 0;
	return len + 2;
}

static size_t read_chunk_line(const struct http *http, struct http_session *s, const uint8_t *in, size_t n)
{
	uint64_t size, most = s->rest == REST_PIECES ? http->limits.upload : http->limits.body;
	size_t used = http_read_chunk_line(s, in, n, &size);
	if (!used)
		return 0;
	if (size > most - s->taken) {
		http_fail(s, REFUSE_BODY);
		return 0;
	}
	s->left = size;
	s->stage = size ? STAGE_DATA : STAGE_TRAILERS;
	return used;
}

static size_t read_data(const struct http *http, struct http_session *s, const uint8_t *in, size_t n,
			int *error)
{
	size_t take = n < s->left ? n : (size_t)s->left;
	*error = buf_append(http->worker->pool, &s->body, in, take);
	if (*error)
		return 0;
	s->left -= take;
	s->taken += take;
	if (!s->left)
		s->stage = STAGE_DATA_END;
	return take;
}

size_t http_read_chunk_end(struct http_session *s, const uint8_t *in, size_t n)
{
	if (in[0] != '\r' || (n > 1 && in[1] != '\n')) {
		http_fail(s, REFUSE_CHUNK_END);
		return 0;
	}
	if (n < 2)
		return 0;
	s->stage = STAGE_CHUNK;
	return 2;
}

/* A line of the trailers, which is kept behind the body, or the empty one. */
static size_t read_trailers(const struct http *http, struct http_session *s, const uint8_t *in, size_t n,
			    bool *is_whole, int *error)
{
	size_t len;
	uint32_t before = s->block_bytes;
	if (!http_field_line(http, s, in, n, &len))
		return 0;
	*is_whole = !len;
	if (!len)
		return 2;
	if (!http_read_request_trailer(http, s, in, len))
		return 0;
	*error = buf_append(http->worker->pool, &s->body, in, len + 2);
	if (*error) { /* it is read again */
		s->block_bytes = before;
		s->fields--;
		return 0;
	}
	s->request.trailer_bytes += (uint32_t)len + 2;
	return len + 2;
}

size_t http_read_chunks(const struct http *http, struct http_session *s, const uint8_t *in, size_t n,
			bool *is_whole, int *error)
{
	size_t used = 0, more = 1;
	*is_whole = false;
	while (more && used < n && !*is_whole && !s->refusal && !*error) {
		const uint8_t *at = in + used;
		if (s->stage == STAGE_CHUNK)
			more = read_chunk_line(http, s, at, n - used);
		else if (s->stage == STAGE_DATA)
			more = read_data(http, s, at, n - used, error);
		else if (s->stage == STAGE_DATA_END)
			more = http_read_chunk_end(s, at, n - used);
		else
			more = read_trailers(http, s, at, n - used, is_whole, error);
		used += more;
	}
	return used;
}
