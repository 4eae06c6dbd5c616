#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "dict/dict.h"
#include "dict/dicts.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct dict *dict;
static const struct siphash_key KEY = { 1, 2 };

static int begin(void **state)
{
	(void)state;
	dict = dict_new(DICT_BYTES_MIN, &KEY);
	return !dict;
}

static int end(void **state)
{
	(void)state;
	dict_free(dict);
	return 0;
}

static struct dict_key key_of(const char *text)
{
	return (struct dict_key){ text, strlen(text) };
}

static struct dict_value string_of(const char *text)
{
	return (struct dict_value){ .kind = DICT_STRING, .data = text, .len = strlen(text) };
}

static struct dict_value number_of(double number)
{
	return (struct dict_value){ .kind = DICT_NUMBER, .number = number };
}

static enum dict_error put_string(const char *key, const char *text, enum dict_condition condition)
{
	struct dict_value value = string_of(text);
	return dict_put(dict, key_of(key), &value, condition, DICT_NEVER, 1);
}

/* NULL: nothing. */
static const char *get_string(const char *key, uint64_t now_ms)
{
	static char text[4096];
	struct dict_value value;
	if (!dict_get(dict, key_of(key), now_ms, &value))
		return NULL;
	assert_true(value.len < sizeof text);
	memcpy(text, value.data, value.len);
	text[value.len] = '\0';
	dict_release(dict, &value);
	return text;
}

static struct dict_counts counts(void)
{
	struct dict_counts all;
	dict_count(dict, &all);
	assert_true(all.bytes <= all.limit);
	return all;
}

/* ---- one at a time ---- */

static void the_hash_is_siphash_1_3(void **state)
{
	(void)state;
	/* Of the authors' key 00 01 … 0f and input 00 01 …; little-endian. */
	static const uint64_t WANTED[] = { 0xabac0158050fc4dc, 0xc9f49bf37d57ca93, 0x82cb9b024dc7d44d };
	const struct siphash_key key = { 0x0706050403020100, 0x0f0e0d0c0b0a0908 };
	const uint8_t input[] = { 0, 1 };
	for (size_t len = 0; len < 3; len++)
		assert_true(siphash(&key, input, len) == WANTED[len]);
}

static void what_is_put_is_there(void **state)
{
	(void)state;
	struct dict_value value = number_of(0.5), got;
	assert_null(get_string("a", 1));
	assert_int_equal(put_string("a", "text", DICT_ALWAYS), DICT_OK);
	assert_string_equal(get_string("a", 1), "text");
	assert_int_equal(put_string("a", "", DICT_ALWAYS), DICT_OK);
	assert_string_equal(get_string("a", 1), "");
	assert_int_equal(dict_put(dict, key_of("a"), &value, DICT_ALWAYS, DICT_NEVER, 1), DICT_OK);
	assert_true(dict_get(dict, key_of("a"), 1, &got));
	assert_int_equal(got.kind, DICT_NUMBER);
	assert_true(got.number == 0.5);
	assert_null(got.held);
	assert_true(dict_delete(dict, key_of("a"), 0, 1));
	assert_false(dict_delete(dict, key_of("a"), 0, 1));
	assert_int_equal(counts().entries, 0);
}

static void keys_are_bytes(void **state)
{
	(void)state;
	struct dict_value one = number_of(1), two = number_of(2), got;
	dict_put(dict, (struct dict_key){ "a\0b", 3 }, &one, DICT_ALWAYS, DICT_NEVER, 1);
	dict_put(dict, (struct dict_key){ "a\0c", 3 }, &two, DICT_ALWAYS, DICT_NEVER, 1);
	dict_put(dict, (struct dict_key){ "", 0 }, &two, DICT_ALWAYS, DICT_NEVER, 1);
	assert_int_equal(counts().entries, 3);
	assert_true(dict_get(dict, (struct dict_key){ "a\0b", 3 }, 1, &got) && got.number == 1);
	assert_false(dict_get(dict, (struct dict_key){ "a", 1 }, 1, &got));
}

static void conditions_hold(void **state)
{
	(void)state;
	struct dict_value value, got;
	assert_int_equal(put_string("a", "1", DICT_IF_PRESENT), DICT_ABSENT);
	assert_int_equal(put_string("a", "1", DICT_IF_ABSENT), DICT_OK);
	assert_int_equal(put_string("a", "2", DICT_IF_ABSENT), DICT_EXISTS);
	assert_string_equal(get_string("a", 1), "1");
	assert_int_equal(put_string("a", "2", DICT_IF_PRESENT), DICT_OK);
	assert_true(dict_get(dict, key_of("a"), 1, &got));
	dict_release(dict, &got);
	value = string_of("3");
	value.version = got.version;
	assert_int_equal(dict_put(dict, key_of("a"), &value, DICT_IF_VERSION, DICT_NEVER, 1), DICT_OK);
	assert_int_equal(dict_put(dict, key_of("a"), &value, DICT_IF_VERSION, DICT_NEVER, 1), DICT_CHANGED);
	assert_false(dict_delete(dict, key_of("a"), value.version, 1));
	value.version = 0; /* there must be none */
	assert_int_equal(dict_put(dict, key_of("a"), &value, DICT_IF_VERSION, DICT_NEVER, 1), DICT_CHANGED);
	assert_int_equal(dict_put(dict, key_of("b"), &value, DICT_IF_VERSION, DICT_NEVER, 1), DICT_OK);
}

/* One that was deleted and made again is another. */
static void a_version_is_given_once(void **state)
{
	(void)state;
	struct dict_value value = number_of(1), got;
	dict_put(dict, key_of("a"), &value, DICT_ALWAYS, DICT_NEVER, 1);
	assert_true(dict_get(dict, key_of("a"), 1, &got));
	dict_delete(dict, key_of("a"), 0, 1);
	dict_put(dict, key_of("a"), &value, DICT_ALWAYS, DICT_NEVER, 1);
	value.version = got.version;
	assert_int_equal(dict_put(dict, key_of("a"), &value, DICT_IF_VERSION, DICT_NEVER, 1), DICT_CHANGED);
}

static void numbers_are_added_to(void **state)
{
	(void)state;
	const double begin_at = 10;
	double sum = 0;
	assert_int_equal(dict_incr(dict, key_of("n"), 1, NULL, DICT_NEVER, 1, &sum), DICT_ABSENT);
	assert_int_equal(dict_incr(dict, key_of("n"), 1, &begin_at, 100, 1, &sum), DICT_OK);
	assert_true(sum == 11);
	assert_int_equal(dict_incr(dict, key_of("n"), -2.5, &begin_at, 200, 99, &sum), DICT_OK);
	assert_true(sum == 8.5);
	/* It ends when it was said at its beginning. */
	assert_int_equal(dict_incr(dict, key_of("n"), 1, &begin_at, 200, 100, &sum), DICT_OK);
	assert_true(sum == 11);
	put_string("text", "1", DICT_ALWAYS);
	assert_int_equal(dict_incr(dict, key_of("text"), 1, &begin_at, 200, 1, &sum), DICT_NO_NUMBER);
}

static void what_has_expired_is_gone(void **state)
{
	(void)state;
	struct dict_value value = string_of("x");
	uint64_t expires_ms;
	dict_put(dict, key_of("a"), &value, DICT_ALWAYS, 100, 1);
	assert_string_equal(get_string("a", 99), "x");
	assert_true(dict_expiry(dict, key_of("a"), 99, &expires_ms));
	assert_int_equal(expires_ms, 100);
	assert_null(get_string("a", 100));
	assert_int_equal(counts().expired, 1);
	assert_int_equal(counts().entries, 0);
	dict_put(dict, key_of("a"), &value, DICT_ALWAYS, 100, 1);
	assert_true(dict_expire(dict, key_of("a"), DICT_NEVER, 99));
	assert_string_equal(get_string("a", 1000), "x");
	assert_false(dict_expire(dict, key_of("b"), DICT_NEVER, 99));
	dict_put(dict, key_of("b"), &value, DICT_IF_ABSENT, 100, 1);
	assert_int_equal(dict_put(dict, key_of("b"), &value, DICT_IF_ABSENT, 300, 200), DICT_OK);
}

static void what_is_held_stays(void **state)
{
	(void)state;
	struct dict_value got;
	size_t empty = counts().bytes;
	put_string("a", "held", DICT_ALWAYS);
	assert_true(dict_get(dict, key_of("a"), 1, &got));
	dict_delete(dict, key_of("a"), 0, 1);
	assert_memory_equal(got.data, "held", 4);
	assert_true(counts().bytes > empty); /* it still has its memory */
	dict_release(dict, &got);
	assert_int_equal(counts().bytes, empty);
}

/* ---- room ---- */

static void dict_clear_all(void)
{
	while (dict_clear_some(dict))
		;
}

static uint64_t seed = 20261130;

static uint32_t below(uint32_t bound)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return (uint32_t)(seed >> 16) % bound;
}

static const char *numbered(unsigned i)
{
	static char name[32];
	snprintf(name, sizeof name, "key %u", i);
	return name;
}

static void the_bound_holds(void **state)
{
	(void)state;
	enum { MANY = 20000 };
	char text[200];
	memset(text, 'x', sizeof text);
	for (unsigned i = 0; i < MANY; i++) {
		text[i % (sizeof text - 1)] = '\0'; /* of all lengths */
		assert_int_equal(put_string(numbered(i), text, DICT_ALWAYS), DICT_OK);
		text[i % (sizeof text - 1)] = 'x';
		counts();
		assert_non_null(get_string(numbered(i), 1));
	}
	assert_true(counts().bytes > counts().limit / 2);
	assert_int_equal(counts().evicted + counts().entries, MANY);
}

static void what_is_used_stays(void **state)
{
	(void)state;
	put_string("mine", "x", DICT_ALWAYS);
	for (unsigned i = 0; i < 20000; i++) {
		put_string(numbered(i), "a value of some length, as they are", DICT_ALWAYS);
		if (i % 16 == 0)
			assert_non_null(get_string("mine", 1));
	}
	assert_true(counts().evicted > 0);
}

static void a_large_one_makes_room(void **state)
{
	(void)state;
	char *large = malloc(DICT_BYTES_MIN);
	assert_non_null(large);
	memset(large, 'x', DICT_BYTES_MIN);
	for (unsigned i = 0; i < 1000; i++)
		put_string(numbered(i), "small", DICT_ALWAYS);
	struct dict_value value = { .kind = DICT_STRING, .data = large, .len = DICT_BYTES_MIN / 2 };
	assert_int_equal(dict_put(dict, key_of("large"), &value, DICT_ALWAYS, DICT_NEVER, 1), DICT_OK);
	assert_true(counts().entries > 100);
	uint64_t entries = counts().entries;
	for (value.len = DICT_BYTES_MIN; value.len > DICT_BYTES_MIN - 2000; value.len -= 10) {
		assert_int_equal(dict_put(dict, key_of("huge"), &value, DICT_ALWAYS, DICT_NEVER, 1),
				 DICT_TOO_LARGE);
		assert_int_equal(counts().entries, entries); /* nobody had to go for that */
	}
	free(large);
}

static void what_is_refused_evicts_nobody(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 5000; i++)
		put_string(numbered(i), "a value of some length, as they are", DICT_ALWAYS);
	uint64_t evicted = counts().evicted;
	for (unsigned i = 0; i < 100; i++) {
		assert_int_equal(put_string(numbered(4999), "other", DICT_IF_ABSENT), DICT_EXISTS);
		assert_int_equal(put_string("none", "other", DICT_IF_PRESENT), DICT_ABSENT);
	}
	assert_int_equal(counts().evicted, evicted);
}

/* It gives its room to what takes its place, however large both are: nobody goes, and it is never missing. */
static void what_is_replaced_makes_way_itself(void **state)
{
	(void)state;
	char *large = malloc(DICT_BYTES_MIN);
	struct dict_value value = { .kind = DICT_STRING, .data = large }, got;
	assert_non_null(large);
	memset(large, 'x', DICT_BYTES_MIN);
	put_string("other", "small", DICT_ALWAYS);
	for (unsigned i = 0; i < 100; i++) {
		value.len = 30000 + below(30000);
		enum dict_condition condition = i ? DICT_IF_PRESENT : DICT_IF_ABSENT;
		assert_int_equal(dict_put(dict, key_of("large"), &value, condition, DICT_NEVER, 1), DICT_OK);
		assert_true(dict_get(dict, key_of("large"), 1, &got) && got.len == value.len);
		value.version = got.version;
		dict_release(dict, &got);
		assert_int_equal(dict_put(dict, key_of("large"), &value, DICT_IF_VERSION, DICT_NEVER, 1),
				 DICT_OK);
		counts();
	}
	assert_int_equal(counts().evicted, 0);
	assert_non_null(get_string("other", 1));
	dict_clear_all();
	for (unsigned i = 0; i < 2000; i++) /* full, and of the oldest */
		put_string(numbered(i), "a value of some length, as they are", DICT_ALWAYS);
	for (unsigned i = 0; i < 2000; i++)
		if (get_string(numbered(i), 1))
			assert_int_equal(
			    put_string(numbered(i), "a value of some length, as others", DICT_IF_PRESENT),
			    DICT_OK);
	free(large);
}

/* Nobody asks for them any more. */
static void those_that_have_expired_make_way_first(void **state)
{
	(void)state;
	struct dict_value value = string_of("a value of some length, as they are");
	for (unsigned i = 0; i < 200; i++)
		dict_put(dict, key_of(numbered(i)), &value, DICT_ALWAYS, 100, 1);
	for (unsigned i = 0; i < 2000; i++)
		dict_put(dict, key_of(numbered(i % 150 + 1000)), &value, DICT_ALWAYS, 1000, 200);
	assert_int_equal(counts().evicted, 0);
	assert_int_equal(counts().expired, 200);
	assert_int_equal(counts().entries, 150);
}

static void all_keys_are_walked(void **state)
{
	(void)state;
	enum { MANY = 200 };
	struct dict_entry *entries[MANY + 1];
	bool seen[MANY] = { false };
	size_t n = 0;
	struct dict_value value = number_of(1);
	for (unsigned i = 0; i < MANY; i++)
		dict_put(dict, key_of(numbered(i)), &value, DICT_ALWAYS, i % 2 ? DICT_NEVER : 100, 1);
	for (struct dict_place place = { 0, 0 }; !dict_is_walked(&place);)
		n += dict_walk(dict, &place, 100, entries + n, MANY + 1 - n < 7 ? MANY + 1 - n : 7);
	assert_int_equal(n, MANY / 2);
	dict_clear_all();
	assert_int_equal(counts().entries, 0);
	for (size_t i = 0; i < n; i++) {
		struct dict_key key = dict_entry_key(entries[i]);
		unsigned number;
		char name[32];
		memcpy(name, key.data, key.len);
		name[key.len] = '\0';
		assert_int_equal(sscanf(name, "key %u", &number), 1);
		assert_false(seen[number]);
		seen[number] = true;
		dict_leave(dict, entries[i]);
	}
	for (unsigned i = 0; i < MANY; i++)
		assert_int_equal(seen[i], i % 2);
}

/* ---- against a model ---- */

/* Room for all: what is there, and until when, is known. */
static void it_does_what_a_simple_one_does(void **state)
{
	(void)state;
	enum { KEYS = 40, STEPS = 200000 };
	struct {
		bool is_there;
		double number;
		uint64_t expires_ms;
	} model[KEYS] = { { .is_there = false } };
	uint64_t now_ms = 1;
	for (unsigned step = 0; step < STEPS; step++) {
		unsigned i = below(KEYS);
		struct dict_key key = key_of(numbered(i));
		struct dict_value value = number_of(below(1000)), got;
		uint64_t expires_ms = below(3) ? DICT_NEVER : now_ms + below(20);
		double sum;
		now_ms += below(4) == 0;
		bool is_there = model[i].is_there && model[i].expires_ms > now_ms;
		bool is_put = false;
		switch (below(6)) {
		case 0:
			assert_int_equal(dict_put(dict, key, &value, DICT_ALWAYS, expires_ms, now_ms),
					 DICT_OK);
			is_put = true;
			break;
		case 1:
			is_put = !dict_put(dict, key, &value, DICT_IF_ABSENT, expires_ms, now_ms);
			assert_int_equal(is_put, !is_there);
			break;
		case 2:
			is_put = !dict_put(dict, key, &value, DICT_IF_PRESENT, expires_ms, now_ms);
			assert_int_equal(is_put, is_there);
			break;
		case 3:
			assert_int_equal(dict_delete(dict, key, 0, now_ms), is_there);
			model[i].is_there = false;
			break;
		case 4:
			assert_int_equal(dict_incr(dict, key, 1, NULL, 0, now_ms, &sum),
					 is_there ? DICT_OK : DICT_ABSENT);
			if (is_there)
				assert_true(sum == ++model[i].number);
			break;
		default:
			assert_int_equal(dict_get(dict, key, now_ms, &got), is_there);
			if (is_there)
				assert_true(got.number == model[i].number);
		}
		if (is_put) {
			model[i].is_there = true;
			model[i].number = value.number;
			model[i].expires_ms = expires_ms;
		}
	}
	assert_int_equal(counts().evicted, 0);
}

/* ---- several at once ---- */

enum { THREADS = 4, ROUNDS = 20000 };

/* What is counted is alone here: in the one that is full it may have to go, if two make room at once. */
static struct dict *sums;

static void *add_and_fill(void *data)
{
	unsigned number = *(unsigned *)data;
	const double begin_at = 0;
	char name[32], text[64];
	double sum;
	for (unsigned i = 0; i < ROUNDS; i++) {
		struct dict_value value = string_of("a value of some length, as they are"), got;
		if (dict_incr(sums, key_of("sum"), 1, &begin_at, DICT_NEVER, 1, &sum) ||
		    dict_incr(dict, key_of("sum"), 1, &begin_at, DICT_NEVER, 1, &sum))
			abort();
		snprintf(name, sizeof name, "%u", (i * 7 + number) % 3000);
		dict_put(dict, key_of(name), &value, DICT_ALWAYS, DICT_NEVER, 1);
		snprintf(name, sizeof name, "%u", i % 3000);
		if (!dict_get(dict, key_of(name), 1, &got))
			continue;
		memcpy(text, got.data, got.len);
		dict_release(dict, &got);
		if (got.len != value.len || memcmp(text, value.data, value.len) != 0)
			abort();
		if (i % 100 == 0)
			dict_delete(dict, key_of(name), 0, 1);
	}
	return NULL;
}

static void run_all(void *(*function)(void *))
{
	pthread_t threads[THREADS];
	unsigned numbers[THREADS];
	for (unsigned i = 0; i < THREADS; i++) {
		numbers[i] = i;
		assert_int_equal(pthread_create(&threads[i], NULL, function, &numbers[i]), 0);
	}
	for (unsigned i = 0; i < THREADS; i++) {
		counts();
		pthread_join(threads[i], NULL);
	}
}

static void nothing_is_lost_among_threads(void **state)
{
	(void)state;
	struct dict_value got;
	sums = dict_new(DICT_BYTES_MIN, &KEY);
	assert_non_null(sums);
	run_all(add_and_fill);
	assert_true(dict_get(sums, key_of("sum"), 1, &got));
	assert_true(got.number == THREADS * ROUNDS);
	dict_free(sums);
	dict_clear_all();
	assert_int_equal(counts().entries, 0);
	struct dict *other = dict_new(DICT_BYTES_MIN, &KEY);
	struct dict_counts empty;
	assert_non_null(other);
	dict_count(other, &empty);
	assert_int_equal(counts().bytes, empty.bytes);
	dict_free(other);
}

/* Each has room, and all of them together have not: who has reserved some is waited for. */
static void *put_large(void *data)
{
	static char large[30000];
	struct dict_value value = { .kind = DICT_STRING, .data = large, .len = sizeof large };
	char name[32];
	snprintf(name, sizeof name, "%u", *(unsigned *)data);
	for (unsigned i = 0; i < 2000; i++) {
		enum dict_error error = dict_put(dict, key_of(name), &value, DICT_ALWAYS, DICT_NEVER, 1);
		if (error != DICT_OK && error != DICT_BUSY)
			abort();
	}
	return NULL;
}

static void none_is_too_large_because_of_others(void **state)
{
	(void)state;
	run_all(put_large);
	assert_true(counts().entries >= 1);
}

static atomic_uint firsts;

static void *add_each_once(void *data)
{
	(void)data;
	char name[32];
	for (unsigned i = 0; i < 200; i++) {
		struct dict_value value = number_of(1), got;
		snprintf(name, sizeof name, "%u", i);
		if (!dict_put(dict, key_of(name), &value, DICT_IF_ABSENT, DICT_NEVER, 1))
			atomic_fetch_add(&firsts, 1);
		do { /* as update() does */
			if (!dict_get(dict, key_of("updated"), 1, &got))
				got = (struct dict_value){ .version = 0 };
			value = number_of(got.version ? got.number + 1 : 1);
			value.version = got.version;
		} while (dict_put(dict, key_of("updated"), &value, DICT_IF_VERSION, DICT_NEVER, 1));
	}
	return NULL;
}

static void one_of_several_is_the_first(void **state)
{
	(void)state;
	struct dict_value got;
	atomic_store(&firsts, 0);
	run_all(add_each_once);
	assert_int_equal(atomic_load(&firsts), 200);
	assert_true(dict_get(dict, key_of("updated"), 1, &got));
	assert_true(got.number == 200 * THREADS);
}

/* ---- by name ---- */

static void names_lead_to_the_same(void **state)
{
	(void)state;
	char name[DICT_NAME_MAX + 1];
	struct dict_counts all;
	struct dicts *dicts = dicts_new(NULL);
	assert_non_null(dicts);
	struct dict *a = dicts_open(dicts, "a", 1 << 20), *b = dicts_open(dicts, "b", 1 << 17);
	assert_ptr_not_equal(a, b);
	assert_ptr_equal(dicts_open(dicts, "a", 1 << 18), a);
	assert_int_equal(dict_limit(a), 1 << 20);
	assert_true(dicts_count(dicts, 0, name, &all));
	assert_string_equal(name, "a");
	dicts_close(dicts, a);
	assert_true(dicts_count(dicts, 1, name, &all)); /* it was opened twice */
	dicts_close(dicts, a);
	assert_true(dicts_count(dicts, 0, name, &all));
	assert_string_equal(name, "b");
	assert_false(dicts_count(dicts, 1, name, &all));
	dicts_close(dicts, b);
	dicts_free(dicts);
}

int main(void)
{
#define WITH_ONE(test) cmocka_unit_test_setup_teardown(test, begin, end)
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_hash_is_siphash_1_3),
		WITH_ONE(what_is_put_is_there),
		WITH_ONE(keys_are_bytes),
		WITH_ONE(conditions_hold),
		WITH_ONE(a_version_is_given_once),
		WITH_ONE(numbers_are_added_to),
		WITH_ONE(what_has_expired_is_gone),
		WITH_ONE(what_is_held_stays),
		WITH_ONE(the_bound_holds),
		WITH_ONE(what_is_used_stays),
		WITH_ONE(a_large_one_makes_room),
		WITH_ONE(what_is_refused_evicts_nobody),
		WITH_ONE(what_is_replaced_makes_way_itself),
		WITH_ONE(those_that_have_expired_make_way_first),
		WITH_ONE(all_keys_are_walked),
		WITH_ONE(it_does_what_a_simple_one_does),
		WITH_ONE(nothing_is_lost_among_threads),
		WITH_ONE(none_is_too_large_because_of_others),
		WITH_ONE(one_of_several_is_the_first),
		cmocka_unit_test(names_lead_to_the_same),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
