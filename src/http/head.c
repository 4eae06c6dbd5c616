/* The grammar of a request's head: docs/http.md has it as a table, of which spec/unit/http_vectors.h has each row. */
#include "http/internal.h"

enum { IN_TOKEN = 1, IN_VALUE = 2, IN_TARGET = 4, IN_HOST = 8, IN_DIGITS = 16 };

#define TOKEN_ALPHA (IN_TOKEN | IN_VALUE | IN_TARGET | IN_HOST)
#define TEXT (IN_VALUE | IN_TARGET)

/*
 * RFC 9110: tchar; field-vchar, blank and tab. Of targets all that is seen, but "#". Of hosts what RFC 3986 has in
 * reg-name, IP-literal and port.
 */
static const uint8_t CLASS[256] = {
	['\t'] = IN_VALUE,
	[' '] = IN_VALUE,
	['!'] = TOKEN_ALPHA,
	['"'] = TEXT,
	['#'] = IN_TOKEN | IN_VALUE,
	['$'] = TOKEN_ALPHA,
	['%'] = TOKEN_ALPHA,
	['&'] = TOKEN_ALPHA,
	['\''] = TOKEN_ALPHA,
	['('] = TEXT | IN_HOST,
	[')'] = TEXT | IN_HOST,
	['*'] = TOKEN_ALPHA,
	['+'] = TOKEN_ALPHA,
	[','] = TEXT | IN_HOST,
	['-'] = TOKEN_ALPHA,
	['.'] = TOKEN_ALPHA,
	['/'] = TEXT,
	['0' ... '9'] = TOKEN_ALPHA | IN_DIGITS,
	[':'] = TEXT | IN_HOST,
	[';'] = TEXT | IN_HOST,
	['<'] = TEXT,
	['='] = TEXT | IN_HOST,
	['>' ... '@'] = TEXT,
	['A' ... 'Z'] = TOKEN_ALPHA,
	['['] = TEXT | IN_HOST,
	['\\'] = TEXT,
	[']'] = TEXT | IN_HOST,
	['^'] = IN_TOKEN | TEXT,
	['_'] = TOKEN_ALPHA,
	['`'] = IN_TOKEN | TEXT,
	['a' ... 'z'] = TOKEN_ALPHA,
	['{'] = TEXT,
	['|'] = IN_TOKEN | TEXT,
	['}'] = TEXT,
	['~'] = TOKEN_ALPHA,
	[0x80 ... 0xff] = IN_VALUE,
};

/* How many bytes from the first on are of the class. A CR, which is in none, ends each line. */
static inline size_t span(const uint8_t *text, uint8_t class)
{
	const uint8_t *at = text;
	while (CLASS[*at] & class)
		at++;
	return (size_t)(at - text);
}

/* The same of IN_VALUE and n bytes, eight at a time: only a tab is looked at by itself. */
static inline bool is_value(const uint8_t *text, size_t n)
{
	const uint64_t ones = 0x0101010101010101, tops = 0x8080808080808080;
	for (; n >= 8; text += 8, n -= 8) {
		uint64_t bytes, deletes;
		memcpy(&bytes, text, 8);
		deletes = bytes ^ ones * 0x7f;
		uint64_t found = ((bytes - ones * 0x20) & ~bytes) | ((deletes - ones) & ~deletes);
		for (int i = 0; (found & tops) && i < 8; i++)
			if (!(CLASS[text[i]] & IN_VALUE))
				return false;
	}
	for (; n; text++, n--)
		if (!(CLASS[*text] & IN_VALUE))
			return false;
	return true;
}

bool http_is_value(const uint8_t *text, size_t n)
{
	return is_value(text, n);
}

bool http_line(struct http_session *s, const uint8_t *in, size_t n, size_t most, enum http_refusal too_long,
	       size_t *len)
{
	const uint8_t *lf = n > s->scanned ? memchr(in + s->scanned, '\n', n - s->scanned) : NULL;
	size_t bytes = lf ? (size_t)(lf - in) + 1 : n;
	if (bytes > most)
		return http_fail(s, too_long);
	if (!lf) {
		s->scanned = (uint32_t)n;
		return false;
	}
	if (bytes < 2 || lf[-1] != '\r')
		return http_fail(s, REFUSE_LINE_END);
	s->scanned = 0;
	*len = bytes - 2;
	return true;
}

bool http_field_line(const struct http *http, struct http_session *s, const uint8_t *in, size_t n,
		     size_t *len)
{
	size_t left = (size_t)http->limits.headers - s->block_bytes;
	if (!http_line(s, in, n, left + 2, REFUSE_HEADERS, len)) /* an empty line is always taken */
		return false;
	if (*len && *len + 2 > left)
		return http_fail(s, REFUSE_HEADERS);
	s->block_bytes += *len ? (uint32_t)*len + 2 : 0;
	return true;
}

/* ---- the request line ---- */

/* A host with or without a port, behind which a line goes on or ends. Which there are is a resolver's business. */
static bool is_authority(const uint8_t *text, size_t n)
{
	return n && span(text, IN_HOST) == n;
}

static void take_path(struct http_request *request, const uint8_t *in, uint32_t at, uint32_t end)
{
	const uint8_t *mark = memchr(in + at, '?', end - at);
	uint32_t path_end = mark ? (uint32_t)(mark - in) : end;
	request->path_at = at;
	request->path_bytes = path_end - at;
	request->has_path = path_end > at;
	request->has_query = mark;
	request->query_at = mark ? path_end + 1 : end;
	request->query_bytes = end - request->query_at;
}

/* What is before the path in http://host:port/path; 0: it is none. */
static uint32_t origin_bytes(const uint8_t *target, uint32_t n)
{
	uint32_t scheme = n > 7 && http_is_word(target, 7, "http://")    ? 7
			  : n > 8 && http_is_word(target, 8, "https://") ? 8
									 : 0;
	if (!scheme)
		return 0;
	uint32_t end = scheme;
	while (end < n && target[end] != '/' && target[end] != '?')
		end++;
	return is_authority(target + scheme, end - scheme) ? end : 0;
}

static bool read_target(struct http_session *s, const uint8_t *in)
{
	struct http_request *request = &s->request;
	uint32_t at = request->target_at, end = at + request->target_bytes;
	bool is_star = request->target_bytes == 1 && in[at] == '*';
	if (is_star && request->method_bytes == 7 && !memcmp(in, "OPTIONS", 7)) {
		take_path(request, in, at, end);
		return true;
	}
	uint32_t origin = in[at] == '/' ? 0 : origin_bytes(in + at, request->target_bytes);
	if (in[at] != '/' && !origin)
		return http_fail(s, REFUSE_TARGET);
	take_path(request, in, at + origin, end);
	return true;
}

static bool read_version(struct http_session *s, const uint8_t *text, size_t n)
{
	if (n != 8 || memcmp(text, "HTTP/", 5) != 0 || !(CLASS[text[5]] & IN_DIGITS) || text[6] != '.' ||
	    !(CLASS[text[7]] & IN_DIGITS))
		return http_fail(s, REFUSE_REQUEST_LINE);
	if (text[5] != '1' || (text[7] != '1' && text[7] != '0'))
		return http_fail(s, REFUSE_VERSION);
	s->request.is_1_0 = text[7] == '0';
	return true;
}

/* The line is in[0 .. len). */
static bool read_request_line(const struct http *http, struct http_session *s, const uint8_t *in, size_t len)
{
	struct http_request *request = &s->request;
	size_t method = span(in, IN_TOKEN), at = method + 1;
	if (method > HTTP_METHOD_MAX || !method || (method < len && in[method] != ' '))
		return http_fail(s, REFUSE_METHOD);
	if (method == len)
		return http_fail(s, REFUSE_REQUEST_LINE);
	size_t target = span(in + at, IN_TARGET), end = at + target;
	if (end < len && in[end] != ' ')
		return http_fail(s, REFUSE_TARGET_CHARACTER);
	if (!target || end == len)
		return http_fail(s, REFUSE_REQUEST_LINE);
	if (target > http->limits.uri)
		return http_fail(s, REFUSE_URI);
	request->method_bytes = (uint32_t)method;
	request->target_at = (uint32_t)at;
	request->target_bytes = (uint32_t)target;
	if (!read_version(s, in + end + 1, len - end - 1))
		return false;
	if (method == 7 && !memcmp(in, "CONNECT", 7))
		return http_fail(s, REFUSE_CONNECT);
	request->is_head = method == 4 && !memcmp(in, "HEAD", 4);
	return read_target(s, in);
}

/* ---- fields ---- */

struct field {
	const uint8_t *name, *value;
	size_t name_bytes, value_bytes;
};

static bool split_field(struct http_session *s, const uint8_t *line, size_t len, struct field *field)
{
	size_t name = span(line, IN_TOKEN);
	if (http_is_blank(line[0]))
		return http_fail(s, REFUSE_FOLDED);
	if (name == len)
		return http_fail(s, REFUSE_FIELD_LINE);
	if (!name || line[name] != ':')
		return http_fail(s, REFUSE_FIELD_NAME);
	field->name = line;
	field->name_bytes = name;
	field->value = line + name + 1;
	field->value_bytes = len - name - 1;
	if (!is_value(field->value, field->value_bytes))
		return http_fail(s, REFUSE_FIELD_VALUE);
	http_trim(&field->value, &field->value_bytes);
	return true;
}

static bool read_host(struct http_session *s, const struct field *field)
{
	if (s->has_host)
		return http_fail(s, REFUSE_HOST_TWICE);
	s->has_host = true;
	if (field->value_bytes && !is_authority(field->value, field->value_bytes))
		return http_fail(s, REFUSE_HOST);
	return true;
}

static bool read_length(struct http_session *s, const struct field *field)
{
	enum { DIGITS_MAX = 19 }; /* that a uint64_t holds, whatever they are */
	if (s->has_length)
		return http_fail(s, REFUSE_LENGTH_TWICE);
	s->has_length = true;
	if (!field->value_bytes || field->value_bytes > DIGITS_MAX ||
	    span(field->value, IN_DIGITS) != field->value_bytes)
		return http_fail(s, REFUSE_LENGTH);
	s->left = 0;
	for (size_t i = 0; i < field->value_bytes; i++)
		s->left = s->left * 10 + (uint64_t)(field->value[i] - '0');
	return true;
}

static bool read_coding(struct http_session *s, const struct field *field)
{
	if (s->has_coding)
		return http_fail(s, REFUSE_CODING_TWICE);
	s->has_coding = true;
	return http_is_word(field->value, field->value_bytes, "chunked") || http_fail(s, REFUSE_CODING);
}

/* "close, Upgrade" */
static void read_connection(struct http_session *s, const struct field *field)
{
	const uint8_t *text = field->value, *end = text + field->value_bytes;
	while (text < end) {
		const uint8_t *comma = memchr(text, ',', (size_t)(end - text)), *next = comma ? comma : end;
		size_t n = (size_t)(next - text);
		http_trim(&text, &n);
		s->has_close |= http_is_word(text, n, "close");
		s->has_keep_alive |= http_is_word(text, n, "keep-alive");
		text = next + 1;
	}
}

static void read_expectation(struct http_session *s, const struct field *field)
{
	if (http_is_word(field->value, field->value_bytes, "100-continue"))
		s->expects = true;
	else
		s->bad_expectation = true;
}

/* Those that say how the request is read. Their lengths tell all others from them, nearly always. */
static bool read_known(struct http_session *s, const struct field *field)
{
	const uint8_t *name = field->name;
	switch (field->name_bytes) {
	case 4:
		return !http_is_word(name, 4, "host") || read_host(s, field);
	case 6:
		if (http_is_word(name, 6, "expect"))
			read_expectation(s, field);
		return true;
	case 10:
		if (http_is_word(name, 10, "connection"))
			read_connection(s, field);
		return true;
	case 14:
		return !http_is_word(name, 14, "content-length") || read_length(s, field);
	case 17:
		return !http_is_word(name, 17, "transfer-encoding") || read_coding(s, field);
	default:
		return true;
	}
}

static bool count_field(const struct http *http, struct http_session *s)
{
	return ++s->fields <= http->limits.fields || http_fail(s, REFUSE_FIELDS);
}

static bool read_field(const struct http *http, struct http_session *s, const uint8_t *line, size_t len)
{
	struct field field;
	return count_field(http, s) && split_field(s, line, len, &field) && read_known(s, &field);
}

/* Of a response, those that say how it is read. */
bool http_read_response_field(const struct http *http, struct http_session *s, const uint8_t *line,
			      size_t len)
{
	struct field field;
	if (!count_field(http, s) || !split_field(s, line, len, &field))
		return false;
	if (http_is_word(field.name, field.name_bytes, "content-length"))
		return read_length(s, &field);
	if (http_is_word(field.name, field.name_bytes, "transfer-encoding"))
		return read_coding(s, &field);
	if (http_is_word(field.name, field.name_bytes, "connection"))
		read_connection(s, &field);
	return true;
}

bool http_read_trailer(const struct http *http, struct http_session *s, const uint8_t *line, size_t len)
{
	struct field field;
	if (!count_field(http, s) || !split_field(s, line, len, &field))
		return false;
	bool says = http_is_word(field.name, field.name_bytes, "host") ||
		    http_is_word(field.name, field.name_bytes, "content-length") ||
		    http_is_word(field.name, field.name_bytes, "transfer-encoding");
	return !says || http_fail(s, REFUSE_TRAILER);
}

bool http_read_request_trailer(const struct http *http, struct http_session *s, const uint8_t *line,
			       size_t len)
{
	static const char *const EARLIER[] = { "authorization",    "connection",   "content-encoding",
					       "content-range",    "content-type", "cookie",
					       "expect",           "keep-alive",   "max-forwards",
					       "proxy-connection", "range",        "te",
					       "trailer",          "upgrade",      "proxy-authorization",
					       "cache-control" };
	const uint8_t *colon = memchr(line, ':', len);
	for (size_t i = 0; colon && i < sizeof EARLIER / sizeof *EARLIER; i++)
		if (http_is_word(line, (size_t)(colon - line), EARLIER[i]))
			return http_fail(s, REFUSE_TRAILER);
	return http_read_trailer(http, s, line, len);
}

/* ---- fields that are whole ---- */

/* Past all bytes that a value may have, a tab or DEL apart, eight at a time. */
static const uint8_t *skip_plain(const uint8_t *at, const uint8_t *end)
{
	const uint64_t ones = 0x0101010101010101, tops = 0x8080808080808080;
	for (; end - at >= 8; at += 8) {
		uint64_t bytes, deletes;
		memcpy(&bytes, at, 8);
		deletes = bytes ^ ones * 0x7f;
		if ((((bytes - ones * 0x20) & ~bytes) | ((deletes - ones) & ~deletes)) & tops)
			break;
	}
	return at;
}

/*
 * A field line that is right, and there with its end, in one go: its bytes. 0: it is to be looked at step by step,
 * which says whether it is incomplete, or wrong.
 */
static size_t quick_field(const uint8_t *line, const uint8_t *end, struct field *field)
{
	const uint8_t *at = line;
	while (at < end && (CLASS[*at] & IN_TOKEN))
		at++;
	if (at == line || at == end || *at != ':')
		return 0;
	field->name = line;
	field->name_bytes = (size_t)(at - line);
	for (at++; at < end && http_is_blank(*at);)
		at++;
	field->value = at;
	at = skip_plain(at, end);
	while (at < end && (CLASS[*at] & IN_VALUE))
		at++;
	if (end - at < 2 || at[0] != '\r' || at[1] != '\n')
		return 0;
	const uint8_t *behind = at;
	while (behind > field->value && http_is_blank(behind[-1]))
		behind--;
	field->value_bytes = (size_t)(behind - field->value);
	return (size_t)(at + 2 - line);
}

/* All such fields that come next. False: one of them is refused. */
static bool read_quick_fields(const struct http *http, struct http_session *s, const uint8_t *in, size_t n)
{
	struct field field;
	size_t bytes;
	while (!s->scanned && (bytes = quick_field(in + s->at, in + n, &field)) &&
	       bytes <= http->limits.headers - s->block_bytes) {
		s->at += (uint32_t)bytes;
		s->block_bytes += (uint32_t)bytes;
		if (!count_field(http, s) || !read_known(s, &field))
			return false;
	}
	return true;
}

/* ---- all of it ---- */

/* The empty line has come. */
static bool end_head(const struct http *http, struct http_session *s)
{
	struct http_request *request = &s->request;
	if (!request->is_1_0 && !s->has_host)
		return http_fail(s, REFUSE_NO_HOST);
	if (s->has_length && s->has_coding)
		return http_fail(s, REFUSE_LENGTH_AND_CODING);
	if (s->has_coding && request->is_1_0)
		return http_fail(s, REFUSE_CODING_1_0);
	if (s->bad_expectation && !request->is_1_0)
		return http_fail(s, REFUSE_EXPECTATION);
	if (s->has_length && s->left > (http->limits.upload ? http->limits.upload : http->limits.body))
		return http_fail(s, REFUSE_BODY);
	request->is_chunked = s->has_coding;
	request->keeps = !s->has_close && (!request->is_1_0 || s->has_keep_alive);
	request->head_bytes = s->at;
	return true;
}

bool http_read_head(const struct http *http, struct http_session *s, const uint8_t *in, size_t n)
{
	size_t len;
	if (s->stage == STAGE_LINE) {
		/* A client that speaks something else is told so with its first byte. */
		if (n && !(CLASS[in[0]] & IN_TOKEN))
			return http_fail(s, REFUSE_METHOD);
		if (!http_line(s, in, n, (size_t)http->limits.uri + HTTP_LINE_REST + 1, REFUSE_URI, &len) ||
		    !read_request_line(http, s, in, len))
			return false;
		s->at = (uint32_t)len + 2;
		s->stage = STAGE_FIELDS;
	}
	for (;;) {
		if (!read_quick_fields(http, s, in, n))
			return false;
		const uint8_t *line = in + s->at;
		if (!http_field_line(http, s, line, n - s->at, &len))
			return false;
		s->at += (uint32_t)len + 2;
		if (!len)
			return end_head(http, s);
		if (!read_field(http, s, line, len))
			return false;
	}
}
