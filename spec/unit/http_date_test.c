#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "http/date.h"

#include <string.h>

static void a_date_is_written_and_read(void **state)
{
	static const struct {
		int64_t second;
		const char *text;
	} DATES[] = {
		{ 784111777, "Sun, 06 Nov 1994 08:49:37 GMT" },
		{ 0, "Thu, 01 Jan 1970 00:00:00 GMT" },
		{ 951782400, "Tue, 29 Feb 2000 00:00:00 GMT" },
		{ 4102444800, "Fri, 01 Jan 2100 00:00:00 GMT" },
		{ -1, "Wed, 31 Dec 1969 23:59:59 GMT" },
	};
	(void)state;
	for (size_t i = 0; i < sizeof DATES / sizeof *DATES; i++) {
		char text[HTTP_DATE_BYTES + 1];
		int64_t second = 0;
		http_date_print(text, DATES[i].second);
		assert_string_equal(text, DATES[i].text);
		assert_true(http_date_read(text, HTTP_DATE_BYTES, &second));
		assert_true(second == DATES[i].second);
	}
}

static void what_is_no_date_is_not_read(void **state)
{
	static const char *const NONE[] = {
		"",
		"Sun, 06 Nov 1994 08:49:37 UTC",
		"Sun, 06 Nov 1994 08:49:37 GMT ",
		"Sunday, 06-Nov-94 08:49:37 GMT",
		"Sun Nov  6 08:49:37 1994",
		"Xun, 06 Nov 1994 08:49:37 GMT",
		"Sun, 06 Nox 1994 08:49:37 GMT",
		"Sun, 00 Nov 1994 08:49:37 GMT",
		"Sun, 32 Nov 1994 08:49:37 GMT",
		"Sun, 06 Nov 1994 24:49:37 GMT",
		"Sun, 06 Nov 1994 08:60:37 GMT",
		"Sun, 06 Nov 1994 08:49:61 GMT",
		"Sun, 06 Nov 199x 08:49:37 GMT",
		"Sun, 06 Nov 1994 08-49-37 GMT",
	};
	(void)state;
	for (size_t i = 0; i < sizeof NONE / sizeof *NONE; i++) {
		int64_t second;
		if (http_date_read(NONE[i], strlen(NONE[i]), &second))
			fail_msg("%s", NONE[i]);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_date_is_written_and_read),
		cmocka_unit_test(what_is_no_date_is_not_read),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
