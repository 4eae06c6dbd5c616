/*
 * What is made of responses: each row of the tables in docs/http-client.md is a test, and no way of cutting the bytes
 * changes what comes of them.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "support/http_answers.h"
#include "support/http_table.h"

#include <string.h>

enum { TWO_CUTS_MAX = 200, BODY_MAX = 64 };

static const struct http_reader_limits LIMITS = { .headers = 1024, .fields = 10 };

static struct http_table table;

static int read_rows(void **state)
{
	(void)state;
	http_table_read(&table, "docs/http-client.md", true);
	return 0;
}

static int free_rows(void **state)
{
	(void)state;
	http_table_free(&table);
	return 0;
}

/* ---- running them ---- */

static void begin(struct http_answers *answers, const struct http_row *row)
{
	http_answers_init(answers, &LIMITS, !strncmp(row->what, "to HEAD", 7), BODY_MAX);
}

static void expect(struct http_answers *answers, const struct http_row *row, size_t a, size_t b)
{
	http_answers_end(answers);
	if (strcmp(answers->text, row->answer) != 0)
		fail_msg("%s, cut at %zu and %zu of %zu: expected %s, got %.200s", row->what, a, a + b,
			 row->n, row->answer, answers->text);
	http_answers_deinit(answers);
}

/* Cut behind the first a bytes, and the next b. */
static void check_cut(const struct http_row *row, size_t a, size_t b)
{
	struct http_answers answers;
	begin(&answers, row);
	http_answers_put(&answers, row->bytes, a);
	http_answers_put(&answers, row->bytes + a, b);
	http_answers_put(&answers, row->bytes + a + b, row->n - a - b);
	expect(&answers, row, a, b);
}

static void each_row_is_so(void **state)
{
	(void)state;
	assert_true(table.count > 80);
	for (unsigned i = 0; i < table.count; i++)
		check_cut(&table.rows[i], 0, 0);
}

static void it_is_so_at_every_cut(void **state)
{
	(void)state;
	for (unsigned i = 0; i < table.count; i++)
		for (size_t at = 1; at < table.rows[i].n; at++)
			check_cut(&table.rows[i], at, 0);
}

static void it_is_so_at_every_two_cuts(void **state)
{
	(void)state;
	for (unsigned i = 0; i < table.count; i++)
		for (size_t a = 1; table.rows[i].n <= TWO_CUTS_MAX && a < table.rows[i].n; a++)
			for (size_t b = 1; a + b < table.rows[i].n; b++)
				check_cut(&table.rows[i], a, b);
}

static void it_is_so_byte_by_byte(void **state)
{
	(void)state;
	for (unsigned i = 0; i < table.count; i++) {
		struct http_answers answers;
		begin(&answers, &table.rows[i]);
		for (size_t at = 0; at < table.rows[i].n; at++)
			http_answers_put(&answers, table.rows[i].bytes + at, 1);
		expect(&answers, &table.rows[i], 1, 1);
	}
}

/* ---- what no row can say ---- */

static void limits_are_told_from_faults(void **state)
{
	(void)state;
	static const struct {
		const char *bytes;
		bool is_too_large;
	} CASES[] = {
		{ "HTTP/1.1 200 OK\r\nContent-Length: 65\r\n\r\n", true },
		{ "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n41\r\n", true },
		{ "HTTP/1.1 200 OK\r\nA: 1\r\nA: 2\r\nA: 3\r\nA: 4\r\nA: 5\r\nA: 6\r\nA: 7\r\nA: 8\r\nA: "
		  "9\r\nA: 10\r\n"
		  "A: 11\r\n",
		  true },
		{ "HTTP/1.1 200 OK\r\nContent-Length: x\r\n", false },
		{ "SSH-2.0", false },
	};
	for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
		struct http_answers answers;
		http_answers_init(&answers, &LIMITS, false, BODY_MAX);
		http_answers_put(&answers, (const uint8_t *)CASES[i].bytes, strlen(CASES[i].bytes));
		assert_true(answers.is_refused);
		assert_int_equal(http_reader_is_too_large(answers.reader), CASES[i].is_too_large);
		http_answers_deinit(&answers);
	}
}

/* A reader is used again and again. */
static void the_next_response_begins_anew(void **state)
{
	(void)state;
	static const char CLOSES[] = "HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\na",
			  KEEPS[] = "HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno";
	struct http_answers answers;
	http_answers_init(&answers, &LIMITS, false, BODY_MAX);
	http_answers_put(&answers, (const uint8_t *)CLOSES, sizeof CLOSES - 1);
	assert_string_equal(answers.text, "200 a, ends");
	http_reader_begin(answers.reader, false, BODY_MAX);
	answers.is_over = false;
	answers.text_bytes = 0;
	http_answers_put(&answers, (const uint8_t *)KEEPS, sizeof KEEPS - 1);
	assert_string_equal(answers.text, "404 no, kept");
	http_answers_deinit(&answers);
}

/* Each byte is looked at once, and nothing is kept for a length that was announced. */
static void a_drip_costs_a_step_for_each_byte(void **state)
{
	(void)state;
	static const char HEAD[] = "HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n";
	struct http_answers answers;
	http_answers_init(&answers, &LIMITS, false, UINT64_MAX);
	http_answers_put(&answers, (const uint8_t *)HEAD, sizeof HEAD - 1);
	unsigned before = answers.steps;
	for (int i = 0; i < 1000; i++)
		http_answers_put(&answers, (const uint8_t *)"y", 1);
	assert_int_equal(answers.steps - before, 2000); /* the byte, and that there is no more */
	assert_int_equal(answers.kept_bytes, 0);
	http_answers_deinit(&answers);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_row_is_so),
		cmocka_unit_test(it_is_so_at_every_cut),
		cmocka_unit_test(it_is_so_at_every_two_cuts),
		cmocka_unit_test(it_is_so_byte_by_byte),
		cmocka_unit_test(limits_are_told_from_faults),
		cmocka_unit_test(the_next_response_begins_anew),
		cmocka_unit_test(a_drip_costs_a_step_for_each_byte),
	};
	return cmocka_run_group_tests(tests, read_rows, free_rows);
}
