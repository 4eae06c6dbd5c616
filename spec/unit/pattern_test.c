/* What patterns mean is held against LuaJIT's own in strings_test.c; here is one case of each kind, and the bounds. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/pattern.h"

enum { STEPS = 100000, NOT_FOUND = 0 };

static volatile sig_atomic_t stop;

static int search(const char *subject, const char *pattern, struct pattern_match *match)
{
	struct pattern_budget budget;
	pattern_budget_init(&budget, STEPS, &stop);
	return pattern_search(subject, strlen(subject), 0, pattern, &budget, match);
}

/* "start-end capture capture", from 1, or "" for nothing found. */
static const char *found(const char *subject, const char *pattern)
{
	static char text[256];
	struct pattern_match match;
	int status = search(subject, pattern, &match);
	assert_true(status >= 0);
	text[0] = '\0';
	if (status != PATTERN_FOUND)
		return text;
	int n = sprintf(text, "%d-%d", (int)(match.start - subject) + 1, (int)(match.end - subject));
	for (unsigned i = 0; i < match.count; i++) {
		const struct pattern_capture *capture = &match.captures[i];
		if (capture->len == PATTERN_POSITION)
			n += sprintf(text + n, " @%d", (int)(capture->at - subject) + 1);
		else if (capture->len == PATTERN_OPEN)
			n += sprintf(text + n, " open");
		else
			n += sprintf(text + n, " %.*s", (int)capture->len, capture->at);
	}
	return text;
}

struct finding {
	const char *subject, *pattern, *found;
};

static void check(const struct finding *findings, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		const char *text = found(findings[i].subject, findings[i].pattern);
		if (strcmp(text, findings[i].found) != 0)
			fail_msg("'%s' in '%s': %s, not %s", findings[i].pattern, findings[i].subject, text,
				 findings[i].found);
	}
}

#define CHECK(findings) check(findings, sizeof(findings) / sizeof *(findings))

static void each_item_holds_for_its_bytes(void **state)
{
	(void)state;
	static const struct finding FINDINGS[] = {
		{ "abc", "b", "2-2" },    { "abc", "", "1-0" },    { "abc", "x", "" },
		{ "abc", "..", "1-2" },   { "12a", "%a", "3-3" },  { "a\1", "%c", "2-2" },
		{ "ab7", "%d", "3-3" },   { " a", "%g", "2-2" },   { "Ab", "%l", "2-2" },
		{ "a_", "%p", "2-2" },    { "a\tb", "%s", "2-2" }, { "aB", "%u", "2-2" },
		{ "-9", "%w", "2-2" },    { "xyf", "%x", "3-3" },  { "a1", "%A", "2-2" },
		{ "\200a", "%W", "1-1" }, { "a.b", "%.", "2-2" },  { "aq", "%q", "2-2" },
		{ "a^b", "a^", "1-2" },   { "a$b", "$b", "2-3" },  { "a", "%Z", "1-1" },
	};
	CHECK(FINDINGS);
}

static void sets_are_read_as_luajit_reads_them(void **state)
{
	(void)state;
	static const struct finding FINDINGS[] = {
		{ "xb", "[abc]", "2-2" },  { "abx", "[^abc]", "3-3" },   { "xm", "[l-n]", "2-2" },
		{ "a]", "[]]", "2-2" },    { "]a", "[^]]", "2-2" },      { "a]", "[%]]", "2-2" },
		{ "b-", "[a-]", "2-2" },   { "b-", "[-a]", "2-2" },      { "x-", "[%a-z]", "1-1" },
		{ "1-", "[%a-z]", "2-2" }, { "ab_1.", "[%w_]+", "1-4" }, { "b", "[c-a]", "" },
		{ "a^", "[a^]+", "1-2" },
	};
	CHECK(FINDINGS);
}

static void quantifiers_take_as_much_as_they_should(void **state)
{
	(void)state;
	static const struct finding FINDINGS[] = {
		{ "aaa", "a*", "1-3" },        { "baaa", "a*", "1-0" },
		{ "baaa", "a+", "2-4" },       { "aaa", "a-", "1-0" },
		{ "aaab", "a-b", "1-4" },      { "ab", "ab?c?", "1-2" },
		{ "aaab", "a*ab", "1-4" },     { "xay", "x.-y", "1-3" },
		{ "a,b,c", "(.-),", "1-2 a" }, { "a,b,c", "(.*),", "1-4 a,b" },
		{ "a**", "a**", "1-2" },       { "key  ", "(.-)%s*$", "1-5 key" },
		{ "ab12", "%a+%d+$", "1-4" },  { "ab12x", "%d*$", "6-5" },
	};
	CHECK(FINDINGS);
}

static void captures_are_told(void **state)
{
	(void)state;
	static const struct finding FINDINGS[] = {
		{ "key=value", "(%w+)=(%w+)", "1-9 key value" },
		{ "ab", "((a)(b))", "1-2 ab a b" },
		{ "abc", "a()b()", "1-2 @2 @3" },
		{ "abab", "(ab)%1", "1-4 ab" },
		{ "abcb", "(.)c%1", "2-4 b" },
		{ "abc", "()%1", "" },
		{ "abc", "a(b", "1-2 open" },
	};
	CHECK(FINDINGS);
}

static void balances_and_frontiers_are_found(void **state)
{
	(void)state;
	static const struct finding FINDINGS[] = {
		{ "f(a(b)c)d)", "%b()", "2-8" }, { "((", "%b()", "" },
		{ "xaya", "%baa", "2-4" },       { "THE (quick) fox", "%f[%a]%a+%f[%A]", "1-3" },
		{ " word", "%f[%w]", "2-1" },    { "word", "%f[%z]", "5-4" },
	};
	CHECK(FINDINGS);
}

static void a_match_may_be_bound_to_its_place(void **state)
{
	(void)state;
	struct pattern_budget budget;
	struct pattern_match match;
	pattern_budget_init(&budget, STEPS, &stop);
	assert_int_equal(pattern_match("xab", 3, 0, "ab", &budget, &match), PATTERN_NONE);
	assert_int_equal(pattern_match("xab", 3, 1, "ab", &budget, &match), PATTERN_FOUND);
	assert_int_equal(pattern_match("xab", 3, 3, "", &budget, &match), PATTERN_FOUND);
	assert_int_equal(pattern_search("aba", 3, 1, "a", &budget, &match), PATTERN_FOUND);
	assert_int_equal(match.start - "aba", 2);
}

static void subjects_may_hold_any_byte(void **state)
{
	(void)state;
	struct pattern_budget budget;
	struct pattern_match match;
	static const char SUBJECT[] = "a\0b\377";
	pattern_budget_init(&budget, STEPS, &stop);
	assert_int_equal(pattern_search(SUBJECT, 4, 0, "%z(.)[\376-\377]$", &budget, &match), PATTERN_FOUND);
	assert_ptr_equal(match.start, SUBJECT + 1);
	assert_ptr_equal(match.end, SUBJECT + 4);
	assert_int_equal(*match.captures[0].at, 'b');
}

static void what_is_malformed_is_named(void **state)
{
	(void)state;
	static const struct {
		const char *pattern;
		int status;
		const char *message;
	} CASES[] = {
		{ "a%", PATTERN_BAD_ESCAPE, "malformed pattern (ends with '%')" },
		{ "[a", PATTERN_BAD_SET, "malformed pattern (missing ']')" },
		{ "[]", PATTERN_BAD_SET, "malformed pattern (missing ']')" },
		{ "[^]", PATTERN_BAD_SET, "malformed pattern (missing ']')" },
		{ "[%", PATTERN_BAD_SET, "malformed pattern (missing ']')" },
		{ "[%]", PATTERN_BAD_SET, "malformed pattern (missing ']')" },
		{ "a)", PATTERN_BAD_CAPTURE, "invalid pattern capture" },
		{ "%1", PATTERN_BAD_INDEX, "invalid capture index" },
		{ "(%1", PATTERN_BAD_INDEX, "invalid capture index" },
		{ "%0", PATTERN_BAD_INDEX, "invalid capture index" },
		{ "%b", PATTERN_BAD_BALANCE, "unbalanced pattern" },
		{ "%ba", PATTERN_BAD_BALANCE, "unbalanced pattern" },
		{ "%f", PATTERN_BAD_FRONTIER, "missing '[' after '%f' in pattern" },
		{ "%fa", PATTERN_BAD_FRONTIER, "missing '[' after '%f' in pattern" },
		{ "%f[a", PATTERN_BAD_SET, "malformed pattern (missing ']')" },
		{ "()()()()()()()()()()()()()()()()()()()()()()()()()()()()()()()()()", PATTERN_MANY_CAPTURES,
		  "too many captures" },
	};
	for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
		struct pattern_match match;
		int status = search("aaa", CASES[i].pattern, &match);
		if (status != CASES[i].status)
			fail_msg("'%s': %d", CASES[i].pattern, status);
		assert_string_equal(pattern_message(status), CASES[i].message);
	}
	assert_string_equal(found("bbb", "a%"), "");
}

/* A thousand 'a's, and the pattern `item` so many times. */
static int search_deep(const char *item, int times, int64_t steps)
{
	static char subject[1001], pattern[20000];
	struct pattern_budget budget;
	struct pattern_match match;
	memset(subject, 'a', 1000);
	pattern[0] = '\0';
	for (int i = 0; i < times; i++)
		strcat(pattern, item);
	pattern_budget_init(&budget, steps, &stop);
	return pattern_search(subject, 1000, 0, pattern, &budget, &match);
}

static void recursion_is_bounded(void **state)
{
	(void)state;
	assert_int_equal(search_deep("a?", PATTERN_DEPTH_MAX - 1, STEPS), PATTERN_FOUND);
	assert_int_equal(search_deep("a?", PATTERN_DEPTH_MAX, STEPS), PATTERN_TOO_DEEP);
	assert_int_equal(search_deep("b*", PATTERN_DEPTH_MAX, STEPS), PATTERN_TOO_DEEP);
	assert_int_equal(search_deep("b-", 5000, STEPS), PATTERN_TOO_DEEP);
	assert_int_equal(search_deep("a", 900, STEPS), PATTERN_FOUND);
}

static void a_budget_ends_the_search(void **state)
{
	(void)state;
	assert_int_equal(search_deep("a-b", 1, STEPS), PATTERN_EXHAUSTED);
	assert_int_equal(search_deep("a*", 150, 10000000), PATTERN_FOUND);
	assert_int_equal(search_deep(".-.-b", 1, 1000000), PATTERN_EXHAUSTED);
	assert_int_equal(search_deep("%b()a*b", 1, 100), PATTERN_NONE + PATTERN_EXHAUSTED);
}

static void a_budget_is_shared_by_searches(void **state)
{
	(void)state;
	struct pattern_budget budget;
	struct pattern_match match;
	int searches = 0;
	pattern_budget_init(&budget, 10000, &stop);
	while (pattern_search("key: value", 10, 0, "(%w+):%s*(%w+)", &budget, &match) == PATTERN_FOUND)
		searches++;
	assert_in_range(searches, 200, 2000);
	assert_int_equal(pattern_search("key", 3, 0, "%w", &budget, &match), PATTERN_EXHAUSTED);
}

static void the_flag_ends_the_search(void **state)
{
	(void)state;
	stop = 1;
	int status = search_deep("a-b", 1, INT64_MAX);
	stop = 0;
	assert_int_equal(status, PATTERN_STOPPED);
	assert_string_equal(pattern_message(status), "interrupted");
}

static void text_is_told_from_patterns(void **state)
{
	(void)state;
	static const char SPECIALS[] = "^$*+?.([%-";
	for (const char *c = SPECIALS; *c; c++)
		assert_true(pattern_is_special((char[]){ 'a', *c }, 2));
	assert_false(pattern_is_special("a)]{}<>=_,:;!\"#&'/@`|~", 22));
	assert_false(pattern_is_special("a\0b", 3));
	assert_true(pattern_is_special("a\0.", 3));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_item_holds_for_its_bytes),
		cmocka_unit_test(sets_are_read_as_luajit_reads_them),
		cmocka_unit_test(quantifiers_take_as_much_as_they_should),
		cmocka_unit_test(captures_are_told),
		cmocka_unit_test(balances_and_frontiers_are_found),
		cmocka_unit_test(a_match_may_be_bound_to_its_place),
		cmocka_unit_test(subjects_may_hold_any_byte),
		cmocka_unit_test(what_is_malformed_is_named),
		cmocka_unit_test(recursion_is_bounded),
		cmocka_unit_test(a_budget_ends_the_search),
		cmocka_unit_test(a_budget_is_shared_by_searches),
		cmocka_unit_test(the_flag_ends_the_search),
		cmocka_unit_test(text_is_told_from_patterns),
	};
	return cmocka_run_group_tests_name("pattern", tests, NULL, NULL);
}
