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

static void masked_frames_are_shown_without_their_masks(void **state)
{
	(void)state;
	struct history_bytes shown;
	bool is_websocket = false;
	const char frame[] = "\x81\x82\x01\x02\x03\x04\x60\x60"; /* "ab" */
	assert_string_equal(history_show_way(&shown, &is_websocket, false, frame, 8),
			    "\"\\x81\\x82\\x01\\x02\\x03\\x04``\"");
	history_show_way(&shown, &is_websocket, true, "HTTP/1.1 101 Switching", 22);
	assert_true(is_websocket);
	assert_string_equal(history_show_way(&shown, &is_websocket, false, frame, 8), "\"\\x81\\x02ab\"");
	char two[16], large[4 + 4 + 300] = "\x82\xfe\x01\x2c\x01\x01\x01\x01";
	memcpy(two, frame, 8);
	memcpy(two + 8, frame, 8);
	assert_string_equal(history_show_way(&shown, &is_websocket, false, two, 16),
			    "\"\\x81\\x02ab\\x81\\x02ab\"");
	assert_string_equal(history_show_way(&shown, &is_websocket, false, two, 15) + 1 + 4 * 6,
			    "``\\x81\\x82\\x01\\x02\\x03\\x04`\"");
	assert_string_equal(history_show_way(&shown, &is_websocket, true, "\x81\x02hi", 4),
			    "\"\\x81\\x02hi\"");
	memset(large + 8, 'y', 300);
	const char *text = history_show_way(&shown, &is_websocket, false, large, sizeof large);
	assert_memory_equal(text, "\"\\x82~\\x01,xxxx", 15);
	assert_string_equal(text + strlen(text) - strlen("xx…\" (304 bytes)"), "xx…\" (304 bytes)");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(it_keeps_the_last_lines_in_their_order),
		cmocka_unit_test(bytes_are_shown_escaped_and_shortened),
		cmocka_unit_test(masked_frames_are_shown_without_their_masks),
	};
	return cmocka_run_group_tests_name("history", tests, NULL, NULL);
}
