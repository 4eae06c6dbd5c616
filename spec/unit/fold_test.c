#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/fold.h"

#include <stdio.h>
#include <string.h>

enum { WINDOW_MS = 10000 };

/* What was reported last, and how many reports there were. */
struct reports {
	unsigned n, repeats_total;
	char text[FOLD_TEXT_BYTES];
	uint32_t repeats;
	uint64_t lasted_ms;
};

static struct fold fold;
static struct reports got;

static void on_report(void *data, const struct fold_entry *entry, uint64_t lasted_ms)
{
	struct reports *reports = data;
	reports->n++;
	reports->repeats_total += entry->repeats;
	reports->repeats = entry->repeats;
	reports->lasted_ms = lasted_ms;
	memcpy(reports->text, entry->text, strlen(entry->text) + 1);
}

static int start(void **state)
{
	(void)state;
	fold_init(&fold, WINDOW_MS);
	got = (struct reports){ 0 };
	return 0;
}

static bool note(const char *key, uint64_t now_ms)
{
	const struct fold_event event = { key, 0, 0 };
	return fold_note(&fold, &event, now_ms, on_report, &got);
}

static void sweep(uint64_t now_ms)
{
	fold_sweep(&fold, now_ms, on_report, &got);
}

static void flush(uint64_t now_ms)
{
	fold_flush(&fold, now_ms, on_report, &got);
}

static void the_first_is_shown_and_its_repeats_counted(void **state)
{
	(void)state;
	assert_true(note("a", 0));
	for (unsigned i = 0; i < 318; i++)
		assert_false(note("a", i));
	assert_true(note("b", 5));
	sweep(WINDOW_MS - 1);
	assert_int_equal(got.n, 0);
	sweep(WINDOW_MS);
	assert_int_equal(got.n, 1);
	assert_string_equal(got.text, "a");
	assert_int_equal(got.repeats, 318);
	assert_int_equal(got.lasted_ms, WINDOW_MS);
	flush(UINT64_MAX);
	assert_int_equal(got.n, 1);
}

static void a_storm_shows_one_event_per_window(void **state)
{
	(void)state;
	unsigned shown = 0;
	for (uint64_t now = 0; now < 5 * WINDOW_MS; now += 10)
		shown += note("storm", now);
	assert_int_equal(shown, 5);
	assert_int_equal(got.n, 4);
	flush(UINT64_MAX);
	assert_int_equal(got.n, 5);
	assert_int_equal(got.repeats_total + shown, 5 * WINDOW_MS / 10);
}

static void a_late_report_still_tells_of_one_window(void **state)
{
	(void)state;
	note("a", 0);
	note("a", 1);
	assert_true(note("a", 100 * WINDOW_MS));
	assert_int_equal(got.repeats, 1);
	assert_int_equal(got.lasted_ms, WINDOW_MS);
}

static void next_is_the_end_of_the_first_window_with_repeats(void **state)
{
	(void)state;
	assert_true(fold_next_ms(&fold) == UINT64_MAX);
	note("alone", 0);
	assert_true(fold_next_ms(&fold) == UINT64_MAX);
	note("late", 300);
	note("late", 301);
	note("early", 200);
	note("early", 400);
	assert_true(fold_next_ms(&fold) == 200 + WINDOW_MS);
	sweep(200 + WINDOW_MS);
	assert_int_equal(got.n, 1);
	assert_string_equal(got.text, "early");
	assert_true(fold_next_ms(&fold) == 300 + WINDOW_MS);
	sweep(300 + WINDOW_MS);
	assert_true(fold_next_ms(&fold) == UINT64_MAX);
}

static void note_kinds(unsigned first, unsigned n, uint64_t now_ms)
{
	for (unsigned i = first; i < first + n; i++) {
		char key[32];
		snprintf(key, sizeof key, "kind %u", i);
		assert_true(note(key, now_ms + i));
	}
}

static void the_kind_longest_ago_makes_room(void **state)
{
	(void)state;
	note_kinds(0, FOLD_KINDS, 0);
	assert_false(note("kind 0", 100));
	assert_false(note("kind 0", 100));
	assert_true(note("new", 200));
	assert_int_equal(got.n, 1);
	assert_string_equal(got.text, "kind 0");
	assert_int_equal(got.repeats, 2);
	assert_int_equal(got.lasted_ms, 200);
	assert_true(note("newer", 200)); /* instead of kind 1, which had no repeats */
	assert_int_equal(got.n, 1);
	assert_false(note("kind 2", 200));
	assert_false(note("new", 200));
}

static void a_forgotten_kind_leaves_room(void **state)
{
	(void)state;
	note_kinds(0, FOLD_KINDS, 0);
	sweep(WINDOW_MS); /* forgets kind 0 only */
	assert_true(note("new", WINDOW_MS));
	assert_false(note("kind 1", WINDOW_MS));
}

static void long_keys_differ_by_their_tails_and_are_cut(void **state)
{
	(void)state;
	char key[600];
	memset(key, 'x', sizeof key);
	key[sizeof key - 1] = '\0';
	assert_true(note(key, 0));
	assert_false(note(key, 0));
	flush(UINT64_MAX);
	assert_int_equal(strlen(got.text), FOLD_TEXT_BYTES - 1);
	assert_true(note(key, 0));
	key[sizeof key - 2] = 'y';
	assert_true(note(key, 0));
}

static void a_cut_leaves_utf8_whole(void **state)
{
	(void)state;
	for (size_t lead = FOLD_TEXT_BYTES - 5; lead < FOLD_TEXT_BYTES; lead++) {
		char key[FOLD_TEXT_BYTES + 10];
		memset(key, 'x', lead);
		memcpy(key + lead, "€", sizeof "€"); /* three bytes */
		start(NULL);
		note(key, 0);
		note(key, 0);
		flush(UINT64_MAX);
		assert_int_equal(strlen(got.text), lead + 3 < FOLD_TEXT_BYTES ? lead + 3 : lead);
	}
}

static void an_empty_key_is_a_kind_too(void **state)
{
	(void)state;
	assert_true(note("", 0));
	assert_false(note("", 1));
}

static void a_clock_that_goes_back_ends_no_window(void **state)
{
	(void)state;
	assert_true(note("a", 50000));
	assert_false(note("a", 10));
	sweep(10);
	assert_int_equal(got.n, 0);
}

static void without_a_window_nothing_is_folded(void **state)
{
	(void)state;
	fold_init(&fold, 0);
	assert_true(note("a", 7));
	assert_true(note("a", 7));
	flush(UINT64_MAX);
	assert_int_equal(got.n, 0);
}

static void an_endless_window_ends_only_when_told(void **state)
{
	(void)state;
	fold_init(&fold, UINT64_MAX);
	assert_true(note("a", 7));
	assert_false(note("a", UINT64_MAX - 1));
	assert_true(fold_next_ms(&fold) == UINT64_MAX);
	sweep(UINT64_MAX - 1);
	assert_int_equal(got.n, 0);
	flush(UINT64_MAX);
	assert_int_equal(got.n, 1);
}

static void a_flush_tells_how_long_it_really_was(void **state)
{
	(void)state;
	note("a", 1000);
	note("a", 1001);
	flush(1004);
	assert_int_equal(got.repeats, 1);
	assert_int_equal(got.lasted_ms, 4);
	flush(1005);
	assert_int_equal(got.n, 1);
}

static void more_than_the_first_may_be_shown(void **state)
{
	(void)state;
	const struct fold_event event = { "place", 0, 2 };
	unsigned shown = 0;
	for (unsigned i = 0; i < 10; i++)
		shown += fold_note(&fold, &event, i, on_report, &got);
	assert_int_equal(shown, 3);
	flush(10);
	assert_int_equal(got.repeats, 7);
}

static void what_it_is_about_tells_kinds_apart(void **state)
{
	(void)state;
	const struct fold_event one = { "key", 1, 0 }, two = { "key", 2, 0 };
	assert_true(fold_note(&fold, &one, 0, on_report, &got));
	assert_true(fold_note(&fold, &two, 0, on_report, &got));
	assert_false(fold_note(&fold, &one, 0, on_report, &got));
}

static void asking_for_a_repeat_notes_no_first(void **state)
{
	(void)state;
	const struct fold_event event = { "key", 0, 0 };
	assert_false(fold_repeat(&fold, &event, 0));
	assert_true(fold_note(&fold, &event, 0, on_report, &got));
	assert_true(fold_repeat(&fold, &event, 0));
	flush(1);
	assert_int_equal(got.repeats, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(the_first_is_shown_and_its_repeats_counted, start),
		cmocka_unit_test_setup(a_storm_shows_one_event_per_window, start),
		cmocka_unit_test_setup(a_late_report_still_tells_of_one_window, start),
		cmocka_unit_test_setup(next_is_the_end_of_the_first_window_with_repeats, start),
		cmocka_unit_test_setup(the_kind_longest_ago_makes_room, start),
		cmocka_unit_test_setup(a_forgotten_kind_leaves_room, start),
		cmocka_unit_test_setup(long_keys_differ_by_their_tails_and_are_cut, start),
		cmocka_unit_test_setup(a_cut_leaves_utf8_whole, start),
		cmocka_unit_test_setup(an_empty_key_is_a_kind_too, start),
		cmocka_unit_test_setup(a_clock_that_goes_back_ends_no_window, start),
		cmocka_unit_test_setup(without_a_window_nothing_is_folded, start),
		cmocka_unit_test_setup(an_endless_window_ends_only_when_told, start),
		cmocka_unit_test_setup(a_flush_tells_how_long_it_really_was, start),
		cmocka_unit_test_setup(more_than_the_first_may_be_shown, start),
		cmocka_unit_test_setup(what_it_is_about_tells_kinds_apart, start),
		cmocka_unit_test_setup(asking_for_a_repeat_notes_no_first, start),
	};
	return cmocka_run_group_tests_name("fold", tests, NULL, NULL);
}
