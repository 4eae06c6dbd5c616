#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "control/message.h"

#include <stdlib.h>
#include <string.h>

static const struct message_field FIELDS[] = { { "conn", MESSAGE_NUMBER, true },
					       { "wait", MESSAGE_BOOLEAN, false },
					       { "reason", MESSAGE_TEXT, false },
					       { 0 } };

static char why[128];

static json_t *parse(const char *line)
{
	why[0] = '\0';
	return message_parse(line, strlen(line), why, sizeof why);
}

static bool check(const char *line)
{
	json_t *request = parse(line);
	assert_non_null(request);
	bool ok = message_check(request, FIELDS, why, sizeof why);
	json_decref(request);
	return ok;
}

static void a_request_is_one_object_with_a_command(void **state)
{
	(void)state;
	static const char *const BAD[] = { "",
					   " ",
					   "x",
					   "1",
					   "\"status\"",
					   "[]",
					   "{}",
					   "{\"command\":1}",
					   "{\"command\":null}",
					   "{\"command\":\"a\"",
					   "{\"command\":\"a\"}x",
					   "{\"command\":\"a\"}{}",
					   "{\"command\":\"a\",\"command\":\"b\"}",
					   "{'command':'a'}",
					   "{\"command\":\"\xff\"}",
					   "{\"command\":\"a\\u0000b\"}" };
	for (size_t i = 0; i < sizeof BAD / sizeof *BAD; i++) {
		assert_null(parse(BAD[i]));
		assert_true(strlen(why) > 0);
	}
	json_t *request = parse(" { \"command\" : \"status\" } ");
	assert_non_null(request);
	json_decref(request);
}

static void fields_are_known_and_typed(void **state)
{
	(void)state;
	assert_true(check("{\"command\":\"x\",\"conn\":1}"));
	assert_true(check("{\"command\":\"x\",\"conn\":0,\"wait\":false,\"reason\":\"\"}"));
	assert_false(check("{\"command\":\"x\"}"));
	assert_string_equal(why, "\"conn\" is missing");
	assert_false(check("{\"command\":\"x\",\"conn\":-1}"));
	assert_false(check("{\"command\":\"x\",\"conn\":1.0}"));
	assert_string_equal(why, "\"conn\" is to be a whole number");
	assert_false(check("{\"command\":\"x\",\"conn\":[1]}"));
	assert_false(check("{\"command\":\"x\",\"conn\":1,\"wait\":1}"));
	assert_false(check("{\"command\":\"x\",\"conn\":1,\"reason\":null}"));
	assert_false(check("{\"command\":\"x\",\"conn\":1,\"no\":1}"));
	assert_string_equal(why, "unknown field \"no\"");
}

static void a_flag_that_is_not_there_is_false(void **state)
{
	(void)state;
	json_t *request = parse("{\"command\":\"x\",\"a\":true,\"b\":false}");
	assert_true(message_flag(request, "a"));
	assert_false(message_flag(request, "b"));
	assert_false(message_flag(request, "c"));
	json_decref(request);
}

static void a_line_ends_and_is_one(void **state)
{
	(void)state;
	json_t *reply = message_error("code", "two\nlines");
	char *line = message_line(reply);
	assert_string_equal(line, "{\"ok\":false,\"code\":\"code\",\"error\":\"two\\nlines\"}\n");
	free(line);
	json_decref(reply);
	assert_null(message_line(NULL));
}

static void a_line_is_fit_for_a_terminal(void **state)
{
	(void)state;
	json_t *reply = message_error("code", "\x1b[2J \x7f \xc2\x9b"
					      "31m \xe2\x80\xae \xf3\xa0\x81\x81 \xc3\xa9");
	char *line = message_line(reply);
	assert_string_equal(line, "{\"ok\":false,\"code\":\"code\",\"error\":\"\\u001B[2J \\u007f \\u009b31m "
				  "\\u202e \\udb40\\udc41 \xc3\xa9\"}\n");
	json_t *read = json_loads(line, 0, NULL);
	assert_true(json_equal(read, reply));
	json_decref(read);
	free(line);
	json_decref(reply);
}

static void texts_need_not_be_utf8(void **state)
{
	(void)state;
	json_t *reply = message_ok();
	message_set_text(reply, "good", "\xc3\xa9");
	message_set_text(reply, "bad", "a\xff\xc3z");
	message_set_text(reply, "none", NULL);
	char *line = message_line(reply);
	assert_string_equal(
	    line, "{\"ok\":true,\"good\":\"\xc3\xa9\",\"bad\":\"a\\\\xff\\\\xc3z\",\"none\":null}\n");
	free(line);
	json_decref(reply);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_request_is_one_object_with_a_command),
		cmocka_unit_test(fields_are_known_and_typed),
		cmocka_unit_test(a_flag_that_is_not_there_is_false),
		cmocka_unit_test(a_line_ends_and_is_one),
		cmocka_unit_test(a_line_is_fit_for_a_terminal),
		cmocka_unit_test(texts_need_not_be_utf8),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
