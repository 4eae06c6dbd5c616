#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "record/event.h"
#include "record/tape.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

/* ---- lines ---- */

static char *line_of(const struct trace_event *event)
{
	size_t room = trace_bytes(event);
	char *line = malloc(room + 1);
	size_t n = trace_write(event, line);
	assert_true(n <= room);
	assert_int_equal(line[n - 1], '\n');
	line[n] = '\0';
	return line;
}

static void expect_line(const char *wanted, struct trace_event event)
{
	char *line = line_of(&event);
	assert_string_equal(line, wanted);
	free(line);
}

static void an_event_is_a_line(void **state)
{
	(void)state;
	expect_line("{\"t\":0.000000,\"conn\":7,\"event\":\"open\",\"worker\":3,\"listener\":\"front\","
		    "\"peer\":\"10.0.0.7:1\"}\n",
		    (struct trace_event){ .kind = TRACE_OPEN,
					  .conn = 7,
					  .generation = 1,
					  .worker = 3,
					  .listener = "front",
					  .data = (const uint8_t *)"10.0.0.7:1",
					  .len = 10 });
	expect_line("{\"t\":12.000345,\"conn\":7,\"event\":\"in\",\"generation\":2,\"frame\":"
		    "\"a\\\"\\\\\\n\\u0000\\u007f\"}\n",
		    (struct trace_event){ .kind = TRACE_IN,
					  .conn = 7,
					  .generation = 2,
					  .at_us = 12000345,
					  .data = (const uint8_t *)"a\"\\\n\0\x7f",
					  .len = 6 });
	expect_line("{\"t\":1.500000,\"conn\":7,\"event\":\"out\",\"wire\":true,\"base64\":\"/wA=\"}\n",
		    (struct trace_event){ .kind = TRACE_OUT,
					  .conn = 7,
					  .generation = 1,
					  .wire = true,
					  .at_us = 1500000,
					  .data = (const uint8_t *)"\xff\0",
					  .len = 2 });
	expect_line("{\"t\":1.500000,\"conn\":7,\"event\":\"out\",\"redacted\":2}\n",
		    (struct trace_event){ .kind = TRACE_OUT,
					  .conn = 7,
					  .generation = 1,
					  .redacted = true,
					  .at_us = 1500000,
					  .data = (const uint8_t *)"\xff\0",
					  .len = 2 });
	expect_line("{\"t\":2.000000,\"conn\":7,\"event\":\"close\",\"reason\":\"peer\"}\n",
		    (struct trace_event){ .kind = TRACE_CLOSE,
					  .conn = 7,
					  .generation = 1,
					  .at_us = 2000000,
					  .data = (const uint8_t *)"peer",
					  .len = 4 });
	expect_line("{\"t\":2.000000,\"conn\":7,\"event\":\"lost\"}\n",
		    (struct trace_event){ .kind = TRACE_LOST, .conn = 7, .generation = 1, .at_us = 2000000 });
}

static void only_valid_utf8_is_text(void **state)
{
	(void)state;
	static const struct {
		const char *bytes;
		bool is_text;
	} CASES[] = {
		{ "", true },
		{ "plain", true },
		{ "\xc3\xa9 \xe2\x82\xac \xf0\x9f\x8c\x99", true },
		{ "\xed\x9f\xbf\xee\x80\x80\xf4\x8f\xbf\xbf", true },
		{ "\x80", false },
		{ "\xc0\xaf", false },         /* overlong */
		{ "\xe0\x80\xaf", false },     /* overlong */
		{ "\xf0\x80\x80\xaf", false }, /* overlong */
		{ "\xed\xa0\x80", false },     /* a surrogate */
		{ "\xf4\x90\x80\x80", false }, /* past the last one */
		{ "\xc3", false },
		{ "a\xe2\x82", false },
		{ "\xff", false },
	};
	for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
		struct trace_event event = { .kind = TRACE_IN,
					     .generation = 1,
					     .data = (const uint8_t *)CASES[i].bytes,
					     .len = strlen(CASES[i].bytes) };
		char *line = line_of(&event);
		json_t *read = json_loads(line, 0, NULL);
		assert_non_null(read);
		const char *frame = json_string_value(json_object_get(read, "frame"));
		assert_int_equal(CASES[i].is_text, frame != NULL);
		assert_int_equal(!CASES[i].is_text, json_object_get(read, "base64") != NULL);
		if (frame)
			assert_string_equal(frame, CASES[i].bytes);
		json_decref(read);
		free(line);
	}
}

static void any_bytes_are_valid_json(void **state)
{
	(void)state;
	uint8_t bytes[300];
	for (unsigned n = 0; n < sizeof bytes; n++) {
		for (unsigned i = 0; i < n; i++)
			bytes[i] = (uint8_t)(i * 7 + n);
		for (int kind = 0; kind < TRACE_KINDS; kind++) {
			struct trace_event event = { .kind = (enum trace_kind)kind,
						     .generation = UINT32_MAX,
						     .worker = 255,
						     .at_us = UINT64_C(1) << 52,
						     .conn = UINT64_C(1) << 62,
						     .listener = "\xff\n",
						     .data = bytes,
						     .len = n };
			char *line = line_of(&event);
			json_t *read = json_loads(line, JSON_ALLOW_NUL, NULL);
			assert_non_null(read);
			json_decref(read);
			free(line);
		}
	}
}

static void control_characters_take_no_more_room_than_other_bytes(void **state)
{
	(void)state;
	enum { BYTES = 30000 };
	uint8_t bytes[BYTES];
	struct trace_event event = { .kind = TRACE_IN, .data = bytes, .len = BYTES };
	memset(bytes, 1, sizeof bytes);
	char *line = line_of(&event);
	assert_non_null(strstr(line, "\"base64\":\"AQEB"));
	free(line);
	assert_true(trace_bytes(&event) < 2 * BYTES);
	memset(bytes, '"', sizeof bytes);
	line = line_of(&event);
	assert_non_null(strstr(line, "\"frame\":\"\\\""));
	free(line);
}

/* ---- the tape ---- */

static unsigned seen;

static void visit(void *data, const struct tape_entry *entry, const uint8_t *bytes)
{
	const char *wanted = data;
	assert_int_equal(entry->conn, ++seen);
	assert_int_equal(entry->len, strlen(wanted));
	assert_memory_equal(bytes, wanted, entry->len);
}

static uint8_t *put(struct tape *tape, uint64_t conn, enum trace_kind kind, const char *text)
{
	struct tape_entry entry = { .conn = conn, .kind = (uint8_t)kind, .len = (uint32_t)strlen(text) };
	uint8_t *to = tape_put(tape, &entry);
	if (to)
		memcpy(to, text, entry.len);
	return to;
}

static void a_tape_gives_back_what_was_put_on_it(void **state)
{
	(void)state;
	struct tape tape;
	tape_init(&tape, 0, tape_clock_us());
	assert_int_equal(tape_oldest_us(&tape), 0);
	for (unsigned i = 1; i <= 10000; i++)
		assert_non_null(put(&tape, i, TRACE_IN, "frame"));
	assert_true(tape_oldest_us(&tape) >= tape.began_us);
	assert_int_equal(tape.frames, 10000);
	assert_int_equal(tape.bytes, 50000);
	seen = 0;
	tape_take(&tape, visit, "frame");
	assert_int_equal(seen, 10000);
	assert_int_equal(tape.used, 0);
	tape_take(&tape, visit, "frame");
	assert_int_equal(seen, 10000);
	tape_deinit(&tape);
}

static struct tape *visited;

static void visit_and_put(void *data, const struct tape_entry *entry, const uint8_t *bytes)
{
	visit(data, entry, bytes);
	assert_non_null(put(visited, entry->conn, TRACE_IN, data));
}

static void what_a_visit_puts_on_a_tape_stays_there(void **state)
{
	(void)state;
	struct tape tape;
	tape_init(&tape, 0, 0);
	visited = &tape;
	for (unsigned i = 1; i <= 1000; i++)
		put(&tape, i, TRACE_IN, "frame");
	for (int times = 0; times < 3; times++) {
		seen = 0;
		tape_take(&tape, visit_and_put, "frame");
		assert_int_equal(seen, 1000);
	}
	seen = 0;
	tape_take(&tape, visit, "frame");
	assert_int_equal(seen, 1000);
	assert_int_equal(tape.used, 0);
	tape_deinit(&tape);
}

static void a_full_tape_takes_only_that_something_is_lost(void **state)
{
	(void)state;
	struct tape tape;
	atomic_size_t held = 900;
	tape_init(&tape, 0, 0);
	tape.limit_bytes = 1000;
	tape.held_bytes = &held;
	assert_non_null(put(&tape, 1, TRACE_IN, "a"));
	assert_null(put(&tape, 1, TRACE_IN,
			"0123456789012345678901234567890123456789012345678901234567890123456789"));
	assert_non_null(put(&tape, 1, TRACE_LOST, ""));
	assert_false(tape.is_broken);
	atomic_store(&held, 0);
	assert_non_null(put(&tape, 1, TRACE_IN, "there is room again"));
	tape_deinit(&tape);
}

static void a_tape_is_of_some_listeners(void **state)
{
	(void)state;
	bool wanted[] = { false, true };
	struct tape tape;
	tape_init(&tape, 0, 0);
	assert_true(tape_wants(&tape, 0) && tape_wants(&tape, 1000));
	tape.wanted = wanted;
	tape.wanted_count = 2;
	assert_true(tape_wants(&tape, 1));
	assert_false(tape_wants(&tape, 0) || tape_wants(&tape, 2));
	tape.is_broken = true;
	assert_false(tape_wants(&tape, 1));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_event_is_a_line),
		cmocka_unit_test(only_valid_utf8_is_text),
		cmocka_unit_test(any_bytes_are_valid_json),
		cmocka_unit_test(control_characters_take_no_more_room_than_other_bytes),
		cmocka_unit_test(a_tape_gives_back_what_was_put_on_it),
		cmocka_unit_test(what_a_visit_puts_on_a_tape_stays_there),
		cmocka_unit_test(a_full_tape_takes_only_that_something_is_lost),
		cmocka_unit_test(a_tape_is_of_some_listeners),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
