#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "workbench/history.h"

#include <string.h>

static void it_keeps_the_last_lines_in_their_order(void **state)
{
	(void)state;
	struct history history = { 0 };
	assert_int_equal(history_kept(&history), 0);
	for (int i = 0; i < HISTORY_LINES + 3; i++)
		history_add(&history, (uint64_t)i, "event %d", i);
	assert_int_equal(history_kept(&history), HISTORY_LINES);
	assert_int_equal(history.count, HISTORY_LINES + 3);
	assert_string_equal(history_line(&history, 0), "       3ms  event 3");
	assert_string_equal(history_line(&history, HISTORY_LINES - 1), "    5002ms  event 5002");
	history_deinit(&history);
}

static void bytes_are_shown_escaped_and_shortened(void **state)
{
	(void)state;
	struct history_bytes shown;
	char many[HISTORY_SHOWN + 2];
	assert_string_equal(history_show(&shown, "a\n\x01", 3), "\"a\\n\\x01\"");
	assert_string_equal(history_show(&shown, "", 0), "\"\"");
	memset(many, 0xff, sizeof many);
	const char *text = history_show(&shown, many, sizeof many);
	assert_memory_equal(text, "\"\\xff\\xff", 9);
	assert_string_equal(text + 1 + 4 * HISTORY_SHOWN, "…\" (50 bytes)");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(it_keeps_the_last_lines_in_their_order),
		cmocka_unit_test(bytes_are_shown_escaped_and_shortened),
	};
	return cmocka_run_group_tests_name("history", tests, NULL, NULL);
}
