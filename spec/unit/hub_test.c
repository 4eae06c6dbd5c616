#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "hub/hub.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WORKERS = 3, MOST = 4 };

static struct hub *hub;
static atomic_uint rings[WORKERS];
static struct counters counters[WORKERS];
static const struct siphash_key KEY = { 1, 2 };

static void ring(void *owner)
{
	atomic_fetch_add((atomic_uint *)owner, 1);
}

static int begin(void **state)
{
	(void)state;
	hub = hub_new(WORKERS, ring, &KEY);
	for (unsigned i = 0; i < WORKERS; i++) {
		atomic_store(&rings[i], 0);
		hub_open_box(hub, i, &rings[i], &counters[i]);
	}
	return !hub;
}

static int end(void **state)
{
	(void)state;
	hub_free(hub);
	return 0;
}

/* ---- names ---- */

static enum topic_kind check(const char *text)
{
	const char *why;
	enum topic_kind kind = topic_check(text, strlen(text), &why);
	assert_int_equal(kind == TOPIC_MALFORMED, why != NULL);
	return kind;
}

static void names_have_parts(void **state)
{
	(void)state;
	static const char *const NAMES[] = {
		"a", "a.b", "room.7.chat", "-._.$", "\xc3\xa4.b", "1.2.3.4.5.6.7.8.9.10.11.12.13.14.15.16"
	};
	static const char *const PATTERNS[] = { "*", ">", "a.*", "*.a", "a.>", "*.*.>", "a.*.b" };
	static const char *const NONE[] = { "",
					    ".",
					    "a.",
					    ".a",
					    "a..b",
					    "a b",
					    "a\tb",
					    "a\x7f",
					    "a*",
					    "*a",
					    "a.b>",
					    ">.a",
					    "$a",
					    "**",
					    ">>",
					    "a.>.b",
					    "1.2.3.4.5.6.7.8.9.10.11.12.13.14.15.16.17" };
	for (size_t i = 0; i < sizeof NAMES / sizeof *NAMES; i++)
		assert_int_equal(check(NAMES[i]), TOPIC_NAME);
	for (size_t i = 0; i < sizeof PATTERNS / sizeof *PATTERNS; i++)
		assert_int_equal(check(PATTERNS[i]), TOPIC_PATTERN);
	for (size_t i = 0; i < sizeof NONE / sizeof *NONE; i++)
		assert_int_equal(check(NONE[i]), TOPIC_MALFORMED);
	char text[TOPIC_BYTES_MAX + 2];
	memset(text, 'x', sizeof text);
	text[TOPIC_BYTES_MAX] = '\0';
	assert_int_equal(check(text), TOPIC_NAME);
	text[TOPIC_BYTES_MAX] = 'x';
	text[TOPIC_BYTES_MAX + 1] = '\0';
	assert_int_equal(check(text), TOPIC_MALFORMED);
	const char *why;
	assert_int_equal(topic_check("a\0b", 3, &why), TOPIC_MALFORMED);
}

/* ---- tables ---- */

static uint64_t drawn = 1;

static unsigned draw(unsigned n)
{
	drawn = drawn * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return (unsigned)(drawn >> 33) % n;
}

/* Of one to four parts. */
static void draw_text(char *text, bool is_pattern)
{
	static const char *const WORDS[] = { "a", "b", "cc" };
	unsigned parts = 1 + draw(4), wild;
	*text = '\0';
	for (unsigned i = 0; i < parts; i++) {
		wild = is_pattern ? draw(4) : 3;
		const char *word = wild == 0 ? "*" : wild == 1 && i + 1 == parts ? ">" : WORDS[draw(3)];
		strcat(strcat(text, i ? "." : ""), word);
	}
}

/* As slow and plain as can be. */
static bool fits(const char *pattern, const char *name)
{
	if (!strcmp(pattern, ">"))
		return *name;
	size_t p = strcspn(pattern, "."), n = strcspn(name, ".");
	bool same = (p == 1 && *pattern == '*') || (p == n && !memcmp(pattern, name, n));
	if (!same)
		return false;
	if (!pattern[p] || !name[n])
		return !pattern[p] && !name[n];
	return fits(pattern + p + 1, name + n + 1);
}

enum { PATTERNS = 40 };

struct entry {
	struct topic topic; /* first */
	char text[32];
	bool is_in, is_met;
};

static void meet(struct topic *topic, void *data)
{
	struct entry *entry = (struct entry *)(void *)topic;
	(void)data;
	assert_true(entry->is_in && !entry->is_met);
	entry->is_met = true;
}

static void toggle(struct topic_trie *trie, struct entry *entries, struct entry *entry)
{
	const char *why;
	if (entry->is_in) {
		topic_trie_remove(trie, &entry->topic);
		entry->is_in = false;
		return;
	}
	draw_text(entry->text, true);
	size_t len = strlen(entry->text);
	bool is_there = false;
	for (unsigned i = 0; i < PATTERNS; i++)
		is_there = is_there || (entries[i].is_in && !strcmp(entries[i].text, entry->text));
	struct topic *found = topic_trie_find(trie, &KEY, entry->text, len);
	assert_int_equal(found != NULL, is_there);
	if (is_there || topic_check(entry->text, len, &why) == TOPIC_MALFORMED)
		return;
	entry->topic = (struct topic){ .name = entry->text, .len = (uint8_t)len, .is_pattern = true };
	assert_int_equal(topic_trie_add(trie, &KEY, &entry->topic), 0);
	assert_ptr_equal(topic_trie_find(trie, &KEY, entry->text, len), &entry->topic);
	entry->is_in = true;
}

static void patterns_are_found_as_a_slow_comparison_finds_them(void **state)
{
	(void)state;
	static struct entry entries[PATTERNS];
	struct topic_trie trie = { 0 };
	char name[32];
	unsigned met = 0;
	for (unsigned step = 0; step < 20000; step++) {
		toggle(&trie, entries, &entries[draw(PATTERNS)]);
		draw_text(name, false);
		for (unsigned i = 0; i < PATTERNS; i++)
			entries[i].is_met = false;
		topic_trie_match(&trie, &KEY, name, strlen(name), meet, NULL);
		for (unsigned i = 0; i < PATTERNS; i++) {
			assert_int_equal(entries[i].is_met, entries[i].is_in && fits(entries[i].text, name));
			met += entries[i].is_met;
		}
	}
	assert_true(met > 1000);
	for (unsigned i = 0; i < PATTERNS; i++)
		if (entries[i].is_in)
			topic_trie_remove(&trie, &entries[i].topic);
	assert_int_equal(trie.part_count, 0);
	topic_trie_free(&trie);
}

static void many_names_find_room_in_a_table(void **state)
{
	(void)state;
	enum { MANY = 5000 };
	static struct entry entries[MANY];
	struct topic_map map = { 0 };
	for (unsigned i = 0; i < MANY; i++) {
		int len = snprintf(entries[i].text, sizeof entries[i].text, "topic.%u", i);
		entries[i].topic = (struct topic){ .hash = siphash(&KEY, entries[i].text, (size_t)len),
						   .name = entries[i].text,
						   .len = (uint8_t)len };
		assert_int_equal(topic_map_add(&map, &entries[i].topic), 0);
	}
	for (unsigned i = 0; i < MANY; i += 2)
		topic_map_remove(&map, &entries[i].topic);
	for (unsigned i = 0; i < MANY; i++) {
		const struct topic *topic = &entries[i].topic;
		struct topic *found = topic_map_find(&map, topic->name, topic->len, topic->hash);
		assert_ptr_equal(found, i % 2 ? topic : NULL);
	}
	assert_int_equal(map.count, MANY / 2);
	topic_map_free(&map);
}

/* ---- the directory ---- */

static struct hub_part part_of(const char *text, unsigned worker)
{
	struct hub_part part = { .worker = worker };
	const char *why;
	size_t len = strlen(text);
	part.topic = (struct topic){ .hash = siphash(&KEY, text, len),
				     .name = text,
				     .len = (uint8_t)len,
				     .is_pattern = topic_check(text, len, &why) == TOPIC_PATTERN };
	return part;
}

static struct hub_reach reach_of(const char *name)
{
	struct hub_reach reach;
	hub_find(hub, name, strlen(name), &reach);
	return reach;
}

static void publishers_find_workers_that_have_members(void **state)
{
	(void)state;
	struct hub_part a = part_of("room.7", 0), b = part_of("room.7", 2), c = part_of("room.*", 1);
	assert_int_equal(reach_of("room.7").count, 0);
	assert_int_equal(hub_enter(hub, &a), 0);
	assert_int_equal(hub_enter(hub, &b), 0);
	assert_int_equal(hub_enter(hub, &c), 0);
	assert_int_equal(reach_of("room.7").bits[0], 7);
	assert_int_equal(reach_of("room.8").bits[0], 2);
	assert_int_equal(reach_of("other").count, 0);
	assert_int_equal(hub_topics(hub), 2);
	count_add(&a.members, 2);
	count_add(&b.members, 1);
	count_add(&c.members, 5);
	assert_int_equal(hub_count(hub, "room.7", 6), 8);
	assert_int_equal(hub_count(hub, "room.8", 6), 5);
	hub_leave(hub, &a);
	hub_leave(hub, &c);
	assert_int_equal(reach_of("room.7").bits[0], 4);
	hub_leave(hub, &b);
	assert_int_equal(hub_topics(hub), 0);
}

static void accounts_are_those_of_all_workers(void **state)
{
	(void)state;
	struct hub_part a = part_of("t", 0), b = part_of("t", 1);
	struct hub_account sum = { 0 };
	uint64_t members = 0;
	assert_false(hub_account_of(hub, &a.topic, &sum, &members));
	hub_enter(hub, &a);
	hub_enter(hub, &b);
	count_add(&a.members, 3);
	count_add(&b.members, 4);
	count_add(&a.account.addressed, 10);
	count_add(&b.account.fates[HUB_DELIVERED], 6);
	assert_true(hub_account_of(hub, &a.topic, &sum, &members));
	assert_int_equal(members, 7);
	assert_int_equal(count_read(&sum.addressed), 10);
	assert_int_equal(count_read(&sum.fates[HUB_DELIVERED]), 6);
	hub_leave(hub, &a);
	hub_leave(hub, &b);
}

/* ---- messages ---- */

static struct hub_message *message_of(const char *topic, const char *key, uint64_t sender, unsigned workers)
{
	const struct hub_draft draft = { .topic = topic,
					 .key = key,
					 .data = "data",
					 .topic_len = strlen(topic),
					 .key_len = strlen(key),
					 .len = 4,
					 .sender = sender };
	struct hub_message *message = hub_make_message(hub, &draft, workers);
	assert_non_null(message);
	assert_string_equal(message->topic, topic);
	assert_string_equal(message->key, key);
	assert_string_equal(message->data, "data");
	return message;
}

static void messages_are_counted_as_long_as_they_are_held(void **state)
{
	(void)state;
	struct hub_message *a = message_of("t", "", 1, 1), *b = message_of("t", "k", 1, 2);
	assert_int_equal(hub_message_memory(hub), hub_message_bytes(a) + hub_message_bytes(b));
	hub_message_hold(a);
	hub_message_drop(a);
	hub_message_drop(b);
	assert_int_equal(hub_message_memory(hub), hub_message_bytes(a));
	hub_message_drop(a);
	assert_int_equal(hub_message_memory(hub), 0);
}

static void keys_are_of_a_topic(void **state)
{
	(void)state;
	struct hub_message *a = message_of("t", "k", 1, 0), *b = message_of("t", "k", 2, 0),
			   *c = message_of("u", "k", 1, 0), *d = message_of("t", "", 1, 0);
	assert_true(hub_message_has_key_of(a, b));
	assert_false(hub_message_has_key_of(a, c));
	assert_false(hub_message_has_key_of(a, d));
	hub_message_drop(a);
	hub_message_drop(b);
	hub_message_drop(c);
	hub_message_drop(d);
}

static unsigned take_all_of(unsigned worker)
{
	unsigned n = 0;
	for (struct mail *next, *mail = hub_collect(hub, worker); mail; mail = next, n++) {
		next = mail->next;
		hub_done(hub, worker, ((struct hub_mail *)(void *)mail)->message);
	}
	return n;
}

static unsigned post(const struct hub_reach *reach, unsigned own)
{
	struct hub_message *message = message_of("t", "", 1, reach->count);
	unsigned missed = hub_post(hub, message, reach, own, MOST);
	hub_message_drop(message);
	return missed;
}

static void each_worker_has_its_own_bound(void **state)
{
	(void)state;
	const struct hub_reach reach = { .bits = { 7 }, .count = 3 };
	for (unsigned i = 0; i < MOST; i++)
		assert_int_equal(post(&reach, 0), 0);
	assert_int_equal(post(&reach, 0), 2); /* what is its own always finds room */
	assert_int_equal(take_all_of(1), MOST);
	assert_int_equal(post(&reach, 0), 1);
	assert_int_equal(hub_depth(hub, 0), MOST + 2);
	assert_int_equal(hub_depth(hub, 1), 1);
	assert_int_equal(hub_depth(hub, 2), MOST);
	/* Rung when the box was empty; its own worker is not. */
	assert_int_equal(atomic_load(&rings[0]), 0);
	assert_int_equal(atomic_load(&rings[1]), 2);
	assert_int_equal(atomic_load(&rings[2]), 1);
	hub_close_box(hub, 1);
	take_all_of(1);
	assert_int_equal(post(&reach, 0), 2);
	assert_int_equal(take_all_of(0) + take_all_of(2), 2 * MOST + 3);
	assert_int_equal(hub_depth(hub, 0), 0);
}

/* ---- threads ---- */

enum { PUBLISHERS = 4, EACH = 20000 };

static atomic_uint posted, got;
static atomic_bool is_over;

/* Publishes its numbers, in ascending order, to whoever has members just then. */
static void *publish_many(void *data)
{
	uintptr_t id = (uintptr_t)data;
	struct hub_reach reach;
	for (uint64_t n = 1; n <= EACH; n++) {
		hub_find(hub, "room.7", 6, &reach);
		struct hub_message *message = message_of("room.7", "", n * PUBLISHERS + id, reach.count);
		unsigned missed = hub_post(hub, message, &reach, 0, 1000);
		atomic_fetch_add(&posted, reach.count - missed);
		hub_message_drop(message);
	}
	return NULL;
}

/* A worker's: its members come and go, and it takes what has come. */
static void *take_and_join(void *data)
{
	unsigned worker = (unsigned)(uintptr_t)data;
	uint64_t last[PUBLISHERS] = { 0 };
	struct hub_part name = part_of("room.7", worker), pattern = part_of("room.*", worker);
	for (;;) {
		bool over = atomic_load(&is_over);
		assert_int_equal(hub_enter(hub, &name), 0);
		assert_int_equal(hub_enter(hub, &pattern), 0);
		struct mail *mail = hub_collect(hub, worker);
		for (struct mail *next; mail; mail = next) {
			struct hub_message *message = ((struct hub_mail *)(void *)mail)->message;
			next = mail->next;
			uint64_t n = message->sender / PUBLISHERS,
				 *before = &last[message->sender % PUBLISHERS];
			assert_true(n > *before);
			*before = n;
			hub_done(hub, worker, message);
			atomic_fetch_add(&got, 1);
		}
		hub_leave(hub, &pattern);
		hub_leave(hub, &name);
		if (over)
			return NULL;
	}
}

static void many_threads_lose_nothing(void **state)
{
	(void)state;
	pthread_t publishers[PUBLISHERS], takers[WORKERS];
	atomic_store(&posted, 0);
	atomic_store(&got, 0);
	atomic_store(&is_over, false);
	for (uintptr_t i = 0; i < WORKERS; i++)
		pthread_create(&takers[i], NULL, take_and_join, (void *)i);
	for (uintptr_t i = 0; i < PUBLISHERS; i++)
		pthread_create(&publishers[i], NULL, publish_many, (void *)i);
	for (unsigned i = 0; i < PUBLISHERS; i++)
		pthread_join(publishers[i], NULL);
	atomic_store(&is_over, true);
	for (unsigned i = 0; i < WORKERS; i++)
		pthread_join(takers[i], NULL);
	assert_int_equal(atomic_load(&posted), atomic_load(&got));
	assert_int_equal(hub_topics(hub), 0);
	for (unsigned i = 0; i < WORKERS; i++)
		assert_int_equal(hub_depth(hub, i), 0);
	assert_int_equal(hub_message_memory(hub), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(names_have_parts),
		cmocka_unit_test(patterns_are_found_as_a_slow_comparison_finds_them),
		cmocka_unit_test(many_names_find_room_in_a_table),
		cmocka_unit_test_setup_teardown(publishers_find_workers_that_have_members, begin, end),
		cmocka_unit_test_setup_teardown(accounts_are_those_of_all_workers, begin, end),
		cmocka_unit_test_setup_teardown(keys_are_of_a_topic, begin, end),
		cmocka_unit_test_setup_teardown(messages_are_counted_as_long_as_they_are_held, begin, end),
		cmocka_unit_test_setup_teardown(each_worker_has_its_own_bound, begin, end),
		cmocka_unit_test_setup_teardown(many_threads_lose_nothing, begin, end),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
