#include "http/reader.h"

#include "base/err.h"
#include "http/internal.h"

enum { INTERIM_MAX = 16, STATUS_LINE_MAX = 1024 };

enum reader_stage { READS_STATUS, READS_FIELDS, READS_BODY, READS_NOTHING };

struct http_reader {
	struct http http; /* its limits */
	struct http_session session;
	struct http_answer answer;
	uint64_t body_left; /* so much of a body may still come */
	const char *why;    /* where the session has no refusal */
	unsigned interim;   /* responses 1xx that were skipped */
	uint8_t stage;      /* enum reader_stage */
	bool is_head;
	bool is_too_large;
	bool is_begun;   /* something of the response has come */
	bool may_switch; /* 101 was asked for */
};

size_t http_reader_bytes(void)
{
	return sizeof(struct http_reader);
}

struct http_reader *http_reader_init(void *bytes, const struct http_reader_limits *limits)
{
	struct http_reader *reader = bytes;
	*reader =
	    (struct http_reader){ .http.limits = { .headers = limits->headers, .fields = limits->fields } };
	return reader;
}

static void begin_head(struct http_reader *reader)
{
	reader->session = (struct http_session){ 0 };
	reader->answer = (struct http_answer){ 0 };
	reader->stage = READS_STATUS;
}

void http_reader_begin(struct http_reader *reader, bool is_head, uint64_t body_max)
{
	begin_head(reader);
	reader->why = NULL;
	reader->interim = 0;
	reader->is_too_large = reader->is_begun = false;
	reader->is_head = is_head;
	reader->body_left = body_max;
}

/* ---- what is wrong ---- */

static bool reader_refuse(struct http_reader *reader, const char *why)
{
	reader->why = why;
	return false;
}

static bool reader_refuse_large(struct http_reader *reader, const char *why)
{
	reader->is_too_large = true;
	return reader_refuse(reader, why);
}

static bool is_refused(const struct http_reader *reader)
{
	return reader->why || reader->session.refusal;
}

const char *http_reader_why(const struct http_reader *reader)
{
	return reader->why ? reader->why : http_refusal_text((enum http_refusal)reader->session.refusal);
}

bool http_reader_is_too_large(const struct http_reader *reader)
{
	if (reader->why)
		return reader->is_too_large;
	return http_refusal_error((enum http_refusal)reader->session.refusal) == ERR_FRAME_TOO_LARGE;
}

static struct http_step stop(struct http_reader *reader, size_t consumed)
{
	enum http_event event = is_refused(reader) ? HTTP_BROKEN : HTTP_MORE;
	if (event == HTTP_BROKEN)
		reader->stage = READS_NOTHING;
	return (struct http_step){ .event = event, .consumed = consumed };
}

static struct http_step end(struct http_reader *reader, size_t consumed)
{
	reader->stage = READS_NOTHING;
	return (struct http_step){ .event = HTTP_END, .consumed = consumed };
}

/* ---- the head ---- */

static const char STATUS_LINE[] = "a status line must be a version, a status of three digits and a reason";

static bool is_reader_digit(uint8_t c)
{
	return c >= '0' && c <= '9';
}

/* The line is text[0 .. n). */
static bool read_status(struct http_reader *reader, const uint8_t *text, size_t n)
{
	enum { LEAST = 12, AT_STATUS = 9 }; /* "HTTP/1.1 200" */
	if (n < LEAST || !is_reader_digit(text[5]) || text[6] != '.' || !is_reader_digit(text[7]) ||
	    text[8] != ' ')
		return reader_refuse(reader, STATUS_LINE);
	if (text[5] != '1' || (text[7] != '1' && text[7] != '0'))
		return http_fail(&reader->session, REFUSE_VERSION);
	unsigned status = 0;
	for (size_t i = AT_STATUS; i < LEAST; i++) {
		if (!is_reader_digit(text[i]))
			return reader_refuse(reader, STATUS_LINE);
		status = status * 10 + (unsigned)(text[i] - '0');
	}
	if (n > LEAST && text[LEAST] != ' ')
		return reader_refuse(reader, STATUS_LINE);
	if (!http_is_value(text + LEAST, n - LEAST))
		return reader_refuse(reader, "the status line has a control character");
	if (status < 100 || status > 599)
		return reader_refuse(reader, "the status is none: there are 100 to 599");
	reader->answer.status = status;
	reader->answer.is_1_0 = reader->session.request.is_1_0 = text[7] == '0';
	return true;
}

/* What speaks something else is known by its first bytes. */
static bool is_http(const uint8_t *in, size_t n)
{
	static const char NAME[] = "HTTP/";
	size_t known = n < sizeof NAME - 1 ? n : sizeof NAME - 1;
	return !memcmp(in, NAME, known);
}

/* False: it is not whole, or is refused. */
static bool read_status_line(struct http_reader *reader, const uint8_t *in, size_t n)
{
	struct http_session *s = &reader->session;
	size_t len;
	if (!is_http(in, n))
		return reader_refuse(reader, "this is no HTTP response");
	if (!http_line(s, in, n, STATUS_LINE_MAX, REFUSE_HEADERS, &len)) {
		if (s->refusal == REFUSE_HEADERS)
			reader_refuse_large(reader, "the status line is too long");
		return false;
	}
	if (!read_status(reader, in, len))
		return false;
	s->at = (uint32_t)len + 2;
	reader->stage = READS_FIELDS;
	return true;
}

/* All of them, up to the empty line. */
static bool read_fields(struct http_reader *reader, const uint8_t *in, size_t n)
{
	struct http_session *s = &reader->session;
	for (;;) {
		const uint8_t *line = in + s->at;
		size_t len;
		if (!http_field_line(&reader->http, s, line, n - s->at, &len))
			return false;
		s->at += (uint32_t)len + 2;
		if (!len)
			return true;
		if (!http_read_response_field(&reader->http, s, line, len))
			return false;
	}
}

/* Responses that never have a body, whatever they say. */
static bool has_no_body(const struct http_reader *reader)
{
	unsigned status = reader->answer.status;
	return reader->is_head || status == 304 || status == 204 || status < 200;
}

static bool check_lengths(struct http_reader *reader)
{
	const struct http_session *s = &reader->session;
	unsigned status = reader->answer.status;
	if (s->has_length && s->has_coding)
		return http_fail(&reader->session, REFUSE_LENGTH_AND_CODING);
	if (s->has_coding && reader->answer.is_1_0)
		return http_fail(&reader->session, REFUSE_CODING_1_0);
	if ((status == 204 || status < 200) && (s->has_coding || (s->has_length && s->left)))
		return reader_refuse(reader, "a response of this status has no body");
	if (status == 101 && !reader->may_switch)
		return reader_refuse(reader, "it switches protocols (101), which nobody has asked for");
	return true;
}

static bool note_answer(struct http_reader *reader)
{
	const struct http_session *s = &reader->session;
	struct http_answer *answer = &reader->answer;
	if (!check_lengths(reader))
		return false;
	answer->extent = has_no_body(reader) ? HTTP_NO_BODY
			 : s->has_coding     ? HTTP_CHUNKED
			 : s->has_length     ? HTTP_OF_LENGTH
					     : HTTP_TO_THE_END;
	answer->length = answer->extent == HTTP_OF_LENGTH ? s->left : 0;
	answer->keeps =
	    !s->has_close && (!answer->is_1_0 || s->has_keep_alive) && answer->extent != HTTP_TO_THE_END;
	if (answer->length > reader->body_left)
		return http_fail(&reader->session, REFUSE_BODY);
	return true;
}

static struct http_step skip_interim(struct http_reader *reader)
{
	size_t consumed = reader->session.at;
	if (++reader->interim > INTERIM_MAX) {
		reader_refuse(reader, "too many responses 1xx");
		return stop(reader, 0);
	}
	begin_head(reader);
	return (struct http_step){ .event = HTTP_INTERIM, .consumed = consumed };
}

static struct http_step reader_head(struct http_reader *reader, const uint8_t *in, size_t n)
{
	if (reader->stage == READS_STATUS && !read_status_line(reader, in, n))
		return stop(reader, 0);
	if (!read_fields(reader, in, n) || !note_answer(reader))
		return stop(reader, 0);
	if (reader->answer.status < 200 && reader->answer.status != 101)
		return skip_interim(reader);
	struct http_session *s = &reader->session;
	s->stage = reader->answer.extent == HTTP_CHUNKED ? STAGE_CHUNK : STAGE_BODY;
	reader->stage = READS_BODY;
	return (struct http_step){ HTTP_HEAD, in, s->at, s->at };
}

/* ---- the body ---- */

static struct http_step reader_give(struct http_reader *reader, const uint8_t *in, size_t skipped, size_t n)
{
	reader->body_left -= n;
	return (struct http_step){ HTTP_DATA, in + skipped, n, skipped + n };
}

static struct http_step reader_length(struct http_reader *reader, const uint8_t *in, size_t n)
{
	struct http_session *s = &reader->session;
	if (!s->left)
		return end(reader, 0);
	size_t take = n < s->left ? n : (size_t)s->left;
	if (!take)
		return stop(reader, 0);
	s->left -= take;
	return reader_give(reader, in, 0, take);
}

static struct http_step reader_to_the_end(struct http_reader *reader, const uint8_t *in, size_t n)
{
	if (n > reader->body_left)
		http_fail(&reader->session, REFUSE_BODY);
	if (!n || is_refused(reader))
		return stop(reader, 0);
	return reader_give(reader, in, 0, n);
}

/* The line with a chunk's size: its bytes. 0: it has not ended, or is refused. */
static size_t reader_chunk_size(struct http_reader *reader, const uint8_t *in, size_t n)
{
	struct http_session *s = &reader->session;
	uint64_t size;
	size_t used = http_read_chunk_line(s, in, n, &size);
	if (!used)
		return 0;
	if (size > reader->body_left) {
		http_fail(s, REFUSE_BODY);
		return 0;
	}
	s->left = size;
	s->stage = size ? STAGE_DATA : STAGE_TRAILERS;
	return used;
}

static struct http_step reader_trailer(struct http_reader *reader, const uint8_t *in, size_t used, size_t n)
{
	struct http_session *s = &reader->session;
	const uint8_t *line = in + used;
	size_t len;
	if (!http_field_line(&reader->http, s, line, n - used, &len))
		return stop(reader, used);
	if (!len)
		return end(reader, used + 2);
	if (!http_read_trailer(&reader->http, s, line, len))
		return stop(reader, used);
	return (struct http_step){ HTTP_TRAILER, line, len, used + len + 2 };
}

static struct http_step reader_chunked(struct http_reader *reader, const uint8_t *in, size_t n)
{
	struct http_session *s = &reader->session;
	size_t used = 0;
	while (used < n) {
		size_t more = 0;
		if (s->stage == STAGE_TRAILERS)
			return reader_trailer(reader, in, used, n);
		if (s->stage == STAGE_DATA) {
			size_t take = n - used < s->left ? n - used : (size_t)s->left;
			s->left -= take;
			if (!s->left)
				s->stage = STAGE_DATA_END;
			return reader_give(reader, in, used, take);
		}
		if (s->stage == STAGE_DATA_END)
			more = http_read_chunk_end(s, in + used, n - used);
		else
			more = reader_chunk_size(reader, in + used, n - used);
		if (!more)
			break;
		used += more;
	}
	return stop(reader, used);
}

struct http_step http_reader_step(struct http_reader *reader, const uint8_t *in, size_t n)
{
	if (reader->stage == READS_NOTHING)
		return stop(reader, 0);
	reader->is_begun |= n > 0;
	if (reader->stage != READS_BODY)
		return n ? reader_head(reader, in, n) : stop(reader, 0);
	switch (reader->answer.extent) {
	case HTTP_OF_LENGTH:
		return reader_length(reader, in, n);
	case HTTP_CHUNKED:
		return reader_chunked(reader, in, n);
	case HTTP_TO_THE_END:
		return reader_to_the_end(reader, in, n);
	case HTTP_NO_BODY:
		break;
	}
	return end(reader, 0);
}

enum http_event http_read_answer(const struct http_reader_limits *limits, const uint8_t *in, size_t n,
				 struct http_answer *answer, const char **why)
{
	struct http_reader reader;
	http_reader_init(&reader, limits);
	http_reader_begin(&reader, false, UINT64_MAX);
	reader.may_switch = true;
	struct http_step step = http_reader_step(&reader, in, n);
	*answer = reader.answer;
	*why = step.event == HTTP_BROKEN ? http_reader_why(&reader) : "";
	return step.event;
}

const struct http_answer *http_reader_answer(const struct http_reader *reader)
{
	return &reader->answer;
}

bool http_reader_finish(struct http_reader *reader)
{
	bool is_body = reader->stage == READS_BODY;
	if (is_body && reader->answer.extent == HTTP_TO_THE_END) {
		reader->stage = READS_NOTHING;
		return true;
	}
	if (is_refused(reader))
		return false;
	return reader_refuse(reader, is_body ? "the connection has ended in the middle of the body"
				     : reader->is_begun
					 ? "the connection has ended in the middle of the head"
					 : "the connection has ended before there was a response");
}
