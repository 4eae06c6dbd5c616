#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/suggest.h"

static const char *const WORDS[] = { "run", "check", "status", "limits.connections", "LISTEN" };

static const char *nearest(const char *word)
{
	return suggest_nearest(word, WORDS, sizeof WORDS / sizeof *WORDS);
}

static void each_kind_of_slip_costs_one(void **state)
{
	(void)state;
	assert_int_equal(suggest_distance("check", "check"), 0);
	assert_int_equal(suggest_distance("chck", "check"), 1);
	assert_int_equal(suggest_distance("cheeck", "check"), 1);
	assert_int_equal(suggest_distance("chwck", "check"), 1);
	assert_int_equal(suggest_distance("chekc", "check"), 1);
	assert_int_equal(suggest_distance("CHECK", "check"), 0);
	assert_int_equal(suggest_distance("kitten", "sitting"), 3);
}

static void an_empty_word_is_as_far_as_the_other_is_long(void **state)
{
	(void)state;
	assert_int_equal(suggest_distance("", ""), 0);
	assert_int_equal(suggest_distance("", "abc"), 3);
	assert_int_equal(suggest_distance("abc", ""), 3);
}

static void distance_is_symmetric(void **state)
{
	(void)state;
	static const char *const SAMPLES[] = { "",    "a",   "ab",   "ba",   "abc",
					       "acb", "cab", "aabb", "abab", "bbaa" };
	enum { N = sizeof SAMPLES / sizeof *SAMPLES };
	for (size_t i = 0; i < N; i++)
		for (size_t j = 0; j < N; j++)
			assert_int_equal(suggest_distance(SAMPLES[i], SAMPLES[j]),
					 suggest_distance(SAMPLES[j], SAMPLES[i]));
}

static void the_nearest_is_found(void **state)
{
	(void)state;
	assert_string_equal(nearest("chekc"), "check");
	assert_string_equal(nearest("rnu"), "run");
	assert_string_equal(nearest("limits.conections"), "limits.connections");
	assert_string_equal(nearest("listne"), "LISTEN");
}

static void nothing_is_suggested_for_what_is_far(void **state)
{
	(void)state;
	assert_null(nearest("serve"));
	assert_null(nearest("r"));
	assert_null(nearest(""));
	assert_null(suggest_nearest("run", NULL, 0));
}

static void the_first_of_equals_wins(void **state)
{
	(void)state;
	static const char *const EQUALS[] = { "cat", "bat" };
	assert_string_equal(suggest_nearest("hat", EQUALS, 2), "cat");
}

static void words_beyond_the_bound_suggest_nothing(void **state)
{
	(void)state;
	char longest[SUGGEST_WORD_MAX + 1], longer[SUGGEST_WORD_MAX + 2];
	memset(longest, 'x', sizeof longest);
	longest[SUGGEST_WORD_MAX] = '\0';
	memset(longer, 'x', sizeof longer);
	longer[SUGGEST_WORD_MAX + 1] = '\0';
	const char *candidate = longest;
	assert_ptr_equal(suggest_nearest(longest, &candidate, 1), longest);
	assert_null(suggest_nearest(longer, &candidate, 1));
	candidate = longer;
	assert_null(suggest_nearest(longest, &candidate, 1));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_kind_of_slip_costs_one),
		cmocka_unit_test(an_empty_word_is_as_far_as_the_other_is_long),
		cmocka_unit_test(distance_is_symmetric),
		cmocka_unit_test(the_nearest_is_found),
		cmocka_unit_test(nothing_is_suggested_for_what_is_far),
		cmocka_unit_test(the_first_of_equals_wins),
		cmocka_unit_test(words_beyond_the_bound_suggest_nothing),
	};
	return cmocka_run_group_tests_name("suggest", tests, NULL, NULL);
}
