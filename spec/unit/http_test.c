/*
 * The HTTP parser: each row of the tables in docs/http.md is a test, and no way of cutting the bytes changes what comes
 * of them.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/err.h"
#include "http/refusal.h"
#include "support/http_stream.h"
#include "support/http_table.h"

#include <string.h>

enum { TWO_CUTS_MAX = 260 };

static const struct http_limits LIMITS = { .uri = 8192, .headers = 16384, .fields = 100, .body = 1024 };

/* Requests whole, with their bodies read behind them as one, and in pieces. */
enum { WAYS = 3 };

static struct http_table table;

static int read_rows(void **state)
{
	(void)state;
	http_table_read(&table, "docs/http.md", false);
	return 0;
}

static int free_rows(void **state)
{
	(void)state;
	http_table_free(&table);
	return 0;
}

/* ---- running them ---- */

/* "200" alone stands for any request. */
static bool agrees(const struct http_row *row, const struct http_stream *stream)
{
	bool is_any = !strcmp(row->answer, "200");
	return is_any ? !strncmp(stream->text, "200 ", 4) && !strchr(stream->text, ',')
		      : !strcmp(stream->text, row->answer);
}

static void stream_init(struct http_stream *stream, int way)
{
	struct http_limits limits = LIMITS;
	limits.upload = way ? limits.body : 0;
	http_stream_init(stream, &limits);
	stream->in_pieces = way == WAYS - 1;
}

/* Cut behind the first a bytes, and the next b. */
static void check_cut(const struct http_row *row, int way, size_t a, size_t b)
{
	struct http_stream stream;
	stream_init(&stream, way);
	if (a)
		http_stream_put(&stream, row->bytes, a);
	if (b)
		http_stream_put(&stream, row->bytes + a, b);
	if (row->n > a + b)
		http_stream_put(&stream, row->bytes + a + b, row->n - a - b);
	if (!agrees(row, &stream))
		fail_msg("%s, way %d, cut at %zu and %zu of %zu: expected %s, got %.200s", row->what, way, a,
			 a + b, row->n, row->answer, stream.text);
	http_stream_deinit(&stream);
}

static void each_row_is_so(void **state)
{
	(void)state;
	assert_true(table.count > 150);
	for (unsigned i = 0; i < table.count; i++)
		for (int way = 0; way < WAYS; way++)
			check_cut(&table.rows[i], way, 0, 0);
}

/* Of long ones each of so many places. */
static void it_is_so_at_every_cut(void **state)
{
	(void)state;
	for (unsigned i = 0; i < table.count; i++) {
		size_t step = table.rows[i].n / 500 + 1;
		for (size_t at = 1; at < table.rows[i].n; at += step)
			for (int way = 0; way < WAYS; way++)
				check_cut(&table.rows[i], way, at, 0);
	}
}

static void it_is_so_at_every_two_cuts(void **state)
{
	(void)state;
	for (unsigned i = 0; i < table.count; i++)
		for (size_t a = 1; table.rows[i].n <= TWO_CUTS_MAX && a < table.rows[i].n; a++)
			for (size_t b = 1; a + b < table.rows[i].n; b++)
				check_cut(&table.rows[i], (int)(a + 2 * b) % WAYS, a, b);
}

static void it_is_so_byte_by_byte(void **state)
{
	(void)state;
	for (unsigned i = 0; i < table.count * WAYS; i++) {
		struct http_stream stream;
		const struct http_row *row = &table.rows[i / WAYS];
		stream_init(&stream, (int)(i % WAYS));
		for (size_t at = 0; at < row->n && !stream.is_over; at++)
			http_stream_put(&stream, row->bytes + at, 1);
		assert_true(agrees(row, &stream));
		http_stream_deinit(&stream);
	}
}

/* What has not come to its end is neither answered nor refused; whatever it says, it may still become right. */
static void what_is_not_whole_waits(void **state)
{
	(void)state;
	static const char HEAD[] = "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhell";
	struct http_stream stream;
	http_stream_init(&stream, &LIMITS);
	http_stream_put(&stream, (const uint8_t *)HEAD, sizeof HEAD - 1);
	assert_string_equal(stream.text, "");
	assert_false(http_is_at_rest(&stream.session));
	http_stream_put(&stream, (const uint8_t *)"o", 1);
	assert_string_equal(stream.text, "200 POST /a hello");
	assert_true(http_is_at_rest(&stream.session));
	http_stream_deinit(&stream);
}

/* ---- responses ---- */

static void put_text(struct http_stream *stream, const char *text)
{
	assert_false(buf_append(&stream->pool, &stream->in, text, strlen(text)));
	static struct batch batch;
	const struct protocol *protocol = &stream->http.protocol;
	batch = (struct batch){ .pool = &stream->pool, .answers = &stream->out };
	protocol->ops->decode(protocol, stream->in->data + stream->in->start, buf_len(stream->in), 1,
			      &stream->session, &batch);
	assert_int_equal(batch.count, 1);
	buf_release(&stream->pool, &stream->in);
}

static void expect_response(struct http_stream *stream, const char *request, struct http_response response,
			    const char *expected)
{
	put_text(stream, request);
	assert_int_equal(
	    http_respond(&stream->http, &stream->session, &response, &stream->pool, &stream->out), 0);
	assert_false(buf_append(&stream->pool, &stream->out, "", 1));
	assert_string_equal((char *)stream->out->data + stream->out->start, expected);
	buf_release(&stream->pool, &stream->out);
	assert_int_equal(
	    http_respond(&stream->http, &stream->session, &response, &stream->pool, &stream->out),
	    ERR_FRAME_REPLY);
}

static void responses_fit_their_requests(void **state)
{
	(void)state;
	static const char GET[] = "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
			  HEAD[] = "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n",
			  OLD[] = "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n";
	struct http_response hi = {
		.status = 200, .fields = "A: b\r\n", .field_bytes = 6, .body = "hi", .body_bytes = 2
	};
	struct http_response none = { .status = 204, .fields = "", .body = "" }, closes = hi;
	struct http_stream stream;
	closes.closes = true;
	closes.status = 499;
	http_stream_init(&stream, &LIMITS);
#define DATE "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n"
	expect_response(&stream, GET, hi, "HTTP/1.1 200 OK\r\n" DATE "A: b\r\nContent-Length: 2\r\n\r\nhi");
	expect_response(&stream, HEAD, hi, "HTTP/1.1 200 OK\r\n" DATE "A: b\r\nContent-Length: 2\r\n\r\n");
	expect_response(&stream, GET, none, "HTTP/1.1 204 No Content\r\n" DATE "\r\n");
	expect_response(&stream, OLD, hi,
			"HTTP/1.1 200 OK\r\n" DATE
			"Connection: keep-alive\r\nA: b\r\nContent-Length: 2\r\n\r\nhi");
	stream.now_ms = 1000;
	expect_response(&stream, GET, none,
			"HTTP/1.1 204 No Content\r\nDate: Sun, 06 Nov 1994 08:49:38 GMT\r\n\r\n");
	expect_response(&stream, GET, closes,
			"HTTP/1.1 499 \r\nDate: Sun, 06 Nov 1994 08:49:38 GMT\r\n"
			"Connection: close\r\nA: b\r\nContent-Length: 2\r\n\r\nhi");
	http_stream_deinit(&stream);
}

/* What an end says to who is owed something, and to nobody else. */
static void expect_last_word(const char *input, bool is_pending, enum close_reason reason, const char *status)
{
	struct http_stream stream;
	http_stream_init(&stream, &LIMITS);
	const struct protocol *protocol = &stream.http.protocol;
	if (is_pending)
		put_text(&stream, input);
	else if (*input)
		http_stream_put(&stream, (const uint8_t *)input, strlen(input));
	assert_int_equal(
	    protocol->ops->finish(protocol, &stream.session, 0, reason, &stream.pool, &stream.out), 0);
	if (status)
		assert_memory_equal(stream.out->data + stream.out->start + 9, status, 3);
	else
		assert_null(stream.out);
	http_stream_deinit(&stream);
}

static void an_end_tells_whom_it_owes(void **state)
{
	(void)state;
	static const char WHOLE[] = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
	expect_last_word("", false, REASON_IDLE_TIMEOUT, NULL);
	expect_last_word("", false, REASON_DRAIN, NULL);
	expect_last_word(WHOLE, false, REASON_IDLE_TIMEOUT, NULL);
	expect_last_word("GET /", false, REASON_READ_TIMEOUT, "408");
	expect_last_word("GET /", false, REASON_DRAIN, "503");
	expect_last_word("GET /", false, REASON_PEER, NULL);
	expect_last_word(WHOLE, true, REASON_ERROR, "500");
	expect_last_word(WHOLE, true, REASON_PROCEED_TIMEOUT, "500");
	expect_last_word(WHOLE, true, REASON_MEMORY, "503");
	expect_last_word(WHOLE, true, REASON_AGENT, NULL);
}

/* Each byte is looked at once: a drip costs a call for each byte, and each call about the same. */
static void a_drip_is_not_read_again_and_again(void **state)
{
	(void)state;
	struct http_stream stream;
	struct http_limits limits = { .uri = 8192, .headers = 1 << 20, .fields = 100, .body = 1024 };
	static const char HEAD[] = "GET / HTTP/1.1\r\nHost: a\r\nX: ";
	http_stream_init(&stream, &limits);
	http_stream_put(&stream, (const uint8_t *)HEAD, sizeof HEAD - 1);
	unsigned before = stream.decodes;
	for (int i = 0; i < 1000; i++)
		http_stream_put(&stream, (const uint8_t *)"y", 1);
	assert_int_equal(stream.decodes - before, 1000);
	http_stream_put(&stream, (const uint8_t *)"\r\n\r\n", 4);
	assert_string_equal(stream.text, "200 GET /");
	http_stream_deinit(&stream);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_row_is_so),
		cmocka_unit_test(it_is_so_at_every_cut),
		cmocka_unit_test(it_is_so_at_every_two_cuts),
		cmocka_unit_test(it_is_so_byte_by_byte),
		cmocka_unit_test(what_is_not_whole_waits),
		cmocka_unit_test(responses_fit_their_requests),
		cmocka_unit_test(an_end_tells_whom_it_owes),
		cmocka_unit_test(a_drip_is_not_read_again_and_again),
	};
	return cmocka_run_group_tests(tests, read_rows, free_rows);
}
