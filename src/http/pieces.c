/* Responses whose bodies are sent in pieces: how each piece and the end are framed, and the file they may come from. */
#include "base/err.h"
#include "http/internal.h"

#include <errno.h>
#include <stdio.h>
#include <unistd.h>
#include <uv.h>

void http_drop_file(struct http_session *s)
{
	if (s->has_file)
		close(s->file);
	s->has_file = false;
}

static enum http_framing pieces_framing(const struct http_request *request, unsigned status,
					const uint64_t *length)
{
	if (http_is_bodiless(status))
		return FRAMING_BODILESS;
	if (length)
		return FRAMING_LENGTH;
	return request->is_1_0 ? FRAMING_END : FRAMING_CHUNKS;
}

static char *pieces_put(char *to, const void *bytes, size_t n)
{
	if (n)
		memcpy(to, bytes, n);
	return to + n;
}

int http_begin_pieces(const struct http *http, struct session *session, struct http_response *response,
		      const uint64_t *length, struct buf_pool *pool, struct buf **out)
{
	struct http_session *s = http_session_of(session);
	if (!s || !s->pending || s->framing)
		return ERR_FRAME_REPLY;
	struct http_framed framed = { pieces_framing(&s->request, response->status, length),
				      length ? *length : 0 };
	char *begin = (char *)buf_reserve(pool, out, HTTP_HEAD_MAX + response->field_bytes);
	if (!begin)
		return ERR_BUFFER_LIMIT;
	response->closes |=
	    framed.by == FRAMING_END || (s->rest && s->expects) || http_is_last_request(http, s);
	response->bytes = (size_t)(http_put_head(begin, http, &s->request, response, framed) - begin);
	buf_commit(*out, response->bytes);
	http_count_class(http, response->status);
	if (!s->rest && !s->request.trailer_bytes) /* else it may still be read */
		buf_release(http->worker->pool, &s->body);
	s->framing = (uint8_t)framed.by;
	s->out_left = framed.length;
	s->is_silent = framed.by == FRAMING_BODILESS || s->request.is_head;
	s->is_standing = response->stands;
	s->is_amid = false;
	s->is_ending = response->is_last;
	return 0;
}

int http_frame_piece(enum http_framing framing, const void *data, size_t n, struct buf_pool *pool,
		     struct buf **out)
{
	bool is_chunk = framing == FRAMING_CHUNKS;
	char *to = (char *)buf_reserve(pool, out, n + HTTP_PIECE_OVERHEAD);
	if (!to)
		return ERR_BUFFER_LIMIT;
	char *at = is_chunk ? to + snprintf(to, HTTP_PIECE_OVERHEAD, "%zx\r\n", n) : to;
	at = pieces_put(at, data, n);
	at = pieces_put(at, "\r\n", is_chunk ? 2 : 0);
	buf_commit(*out, (size_t)(at - to));
	return 0;
}

int http_add_piece(struct session *session, const void *data, size_t n, struct buf_pool *pool,
		   struct buf **out)
{
	struct http_session *s = http_session_of(session);
	if (!s || !s->framing)
		return ERR_FRAME_REPLY;
	if (s->framing == FRAMING_LENGTH && n > s->out_left)
		return ERR_FRAME_TOO_LARGE;
	int err = 0;
	if (n && !s->is_silent) /* a chunk of nothing would be the end */
		err = http_frame_piece((enum http_framing)s->framing, data, n, pool, out);
	if (err)
		return err;
	if (s->framing == FRAMING_LENGTH)
		s->out_left -= n;
	return 0;
}

void http_give_file(struct session *session, int file, uint64_t offset)
{
	struct http_session *s = http_session_of(session);
	http_drop_file(s);
	s->file = file;
	s->file_at = offset;
	s->has_file = true;
}

size_t http_part_of_file(const struct session *session, size_t n, int *file, uint64_t *at)
{
	const struct http_session *s = http_session_of(session);
	if (!s || !s->has_file || s->framing != FRAMING_LENGTH || s->is_silent)
		return 0;
	*file = s->file;
	*at = s->file_at;
	return n < s->out_left ? n : (size_t)s->out_left;
}

void http_sent_of_file(struct session *session, size_t n)
{
	struct http_session *s = http_session_of(session);
	s->file_at += n;
	s->out_left -= n;
}

int http_add_from_file(struct session *session, size_t n, size_t *added, struct buf_pool *pool,
		       struct buf **out)
{
	struct http_session *s = http_session_of(session);
	*added = 0;
	if (!s || !s->has_file || s->framing != FRAMING_LENGTH)
		return ERR_FRAME_REPLY;
	if (n > s->out_left)
		n = (size_t)s->out_left;
	if (!n || s->is_silent)
		return 0;
	bool was_empty = !*out;
	uint8_t *to = buf_reserve(pool, out, n);
	if (!to)
		return ERR_BUFFER_LIMIT;
	ssize_t got;
	do
		got = pread(s->file, to, n, (off_t)s->file_at);
	while (got < 0 && errno == EINTR);
	if (got <= 0) {
		int err = got ? -errno : UV_EOF;
		if (was_empty) /* an empty block would pass for pending output */
			buf_release(pool, out);
		return err;
	}
	buf_commit(*out, (size_t)got);
	s->file_at += (uint64_t)got;
	s->out_left -= (uint64_t)got;
	*added = (size_t)got;
	return 0;
}

static int append_last_chunk(const struct http_session *s, const char *trailers, size_t n,
			     struct buf_pool *pool, struct buf **out)
{
	if (s->framing != FRAMING_CHUNKS || s->is_silent)
		return 0;
	char *to = (char *)buf_reserve(pool, out, 3 + n + 2);
	if (!to)
		return ERR_BUFFER_LIMIT;
	pieces_put(pieces_put(pieces_put(to, "0\r\n", 3), trailers, n), "\r\n", 2);
	buf_commit(*out, 3 + n + 2);
	return 0;
}

int http_stand_down(struct http_session *s, struct buf_pool *pool, struct buf **out)
{
	int err = s->is_standing ? append_last_chunk(s, NULL, 0, pool, out) : 0;
	s->is_standing = s->is_standing && err; /* where there is no room, it is asked again */
	return err;
}

int http_end_pieces(const struct http *http, struct session *session, const char *trailers, size_t n,
		    struct buf_pool *pool, struct buf **out)
{
	struct http_session *s = http_session_of(session);
	if (!s || !s->framing)
		return ERR_FRAME_REPLY;
	if (s->framing == FRAMING_LENGTH && s->out_left && !s->is_silent)
		return ERR_FRAME_MALFORMED;
	int err = append_last_chunk(s, trailers, n, pool, out);
	if (err)
		return err;
	http_drop_file(s);
	buf_release(http->worker->pool, &s->body); /* an idle connection keeps nothing */
	s->given = 0;
	s->framing = FRAMING_NONE;
	s->pending = false;
	s->last = s->is_ending || http_abandons_rest(s);
	if (s->rest)
		s->rest = REST_DROPPED;
	return 0;
}

bool http_is_last(const struct session *session)
{
	return http_session_of(session)->last;
}

enum http_framing http_framing_of(const struct session *session)
{
	const struct http_session *s = http_session_of(session);
	return s ? (enum http_framing)s->framing : FRAMING_NONE;
}

bool http_is_standing(const struct session *session)
{
	const struct http_session *s = http_session_of(session);
	return s && s->framing && s->is_standing && !s->is_silent;
}

void http_set_amid(struct session *session, bool is_amid)
{
	struct http_session *s = http_session_of(session);
	s->is_amid = is_amid && s->is_standing;
}

bool http_is_amid(const struct session *session)
{
	const struct http_session *s = http_session_of(session);
	return !s || s->is_amid;
}

uint64_t http_left_of(const struct session *session)
{
	return http_session_of(session)->out_left;
}
