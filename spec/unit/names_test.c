#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "names/names.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WORKERS = 3, MOST = 5 };

static struct names *names;
static atomic_uint rings[WORKERS];
static const struct siphash_key KEY = { 1, 2 };

static void ring(void *owner)
{
	atomic_fetch_add((atomic_uint *)owner, 1);
}

static int begin(void **state)
{
	(void)state;
	names = names_new(WORKERS, ring, &KEY);
	for (unsigned i = 0; i < WORKERS; i++)
		atomic_store(&rings[i], 0);
	return !names;
}

static int end(void **state)
{
	(void)state;
	names_free(names);
	return 0;
}

static struct names_key key_of(const char *text)
{
	return (struct names_key){ text, strlen(text) };
}

static struct names_claim claim_of(const char *text, unsigned worker, uint64_t channel)
{
	return (
	    struct names_claim){ .key = key_of(text), .most = MOST, .worker = worker, .channel = channel };
}

/* Whoever had it may be told by `before`, which is left then. */
static struct name *claim(const char *text, unsigned worker, uint64_t channel)
{
	struct names_claim wanted = claim_of(text, worker, channel);
	struct name *name, *before;
	assert_int_equal(names_claim(names, &wanted, &name, &before), NAMES_OK);
	assert_null(before);
	return name;
}

static void give_up(struct name *name)
{
	names_release(names, name);
	names_leave(name);
}

/* ---- one at a time ---- */

static void a_name_is_found_until_it_is_released(void **state)
{
	(void)state;
	struct name *found, *name = claim("a", 1, 7);
	assert_int_equal(names_count(names), 1);
	assert_int_equal(names_find(names, key_of("b"), NULL, &found), NAMES_ABSENT);
	assert_int_equal(names_find(names, key_of("a"), NULL, &found), NAMES_OK);
	assert_ptr_equal(found, name);
	assert_int_equal(found->worker, 1);
	assert_int_equal(found->channel, 7);
	assert_string_equal(found->key, "a");
	names_taken(found);
	names_leave(found);
	assert_true(names_release(names, name));
	assert_false(names_release(names, name));
	names_leave(name);
	assert_int_equal(names_find(names, key_of("a"), NULL, &found), NAMES_ABSENT);
	assert_int_equal(names_count(names), 0);
}

static void keys_are_bytes(void **state)
{
	(void)state;
	char longest[NAMES_KEY_MAX];
	struct name *name, *before, *found;
	memset(longest, 'x', sizeof longest);
	struct names_claim claims[] = { claim_of("", 0, 1), claim_of("", 0, 2), claim_of("", 0, 3) };
	claims[0].key = (struct names_key){ "a\0b", 3 };
	claims[1].key = (struct names_key){ "a\0c", 3 };
	claims[2].key = (struct names_key){ longest, sizeof longest };
	for (int i = 0; i < 3; i++) {
		assert_int_equal(names_claim(names, &claims[i], &name, &before), NAMES_OK);
		names_leave(name); /* the directory has it still */
	}
	for (int i = 0; i < 3; i++) {
		assert_int_equal(names_find(names, claims[i].key, NULL, &found), NAMES_OK);
		assert_int_equal(found->channel, i + 1);
		names_leave(found);
	}
	assert_int_equal(names_find(names, key_of("a"), NULL, &found), NAMES_ABSENT);
}

static void a_second_claim_is_refused_or_replaces(void **state)
{
	(void)state;
	struct name *one = claim("a", 0, 1), *two, *before, *found;
	struct names_claim wanted = claim_of("a", 2, 9);
	assert_int_equal(names_claim(names, &wanted, &two, &before), NAMES_EXISTS);
	assert_null(before);
	wanted.replaces = true;
	assert_int_equal(names_claim(names, &wanted, &two, &before), NAMES_OK);
	assert_ptr_equal(before, one);
	assert_false(names_is_listed(one));
	assert_true(names_is_listed(two));
	names_leave(before);
	assert_int_equal(names_find(names, key_of("a"), NULL, &found), NAMES_OK);
	assert_ptr_equal(found, two);
	names_leave(found);
	assert_false(names_release(names, one)); /* it is not one's any more */
	assert_int_equal(names_count(names), 1);
	names_leave(one);
	give_up(two);
}

static void a_message_under_way_keeps_its_name(void **state)
{
	(void)state;
	struct name *found, *name = claim("a", 1, 7), *again;
	assert_int_equal(names_find(names, key_of("a"), NULL, &found), NAMES_OK);
	give_up(name);
	again = claim("a", 2, 8);
	assert_int_equal(found->worker, 1);
	assert_int_equal(found->channel, 7);
	names_leave(found);
	give_up(again);
}

static void so_many_messages_wait_and_no_more(void **state)
{
	(void)state;
	struct name *found, *name = claim("a", 0, 1);
	for (int i = 0; i < MOST; i++)
		assert_int_equal(names_find(names, key_of("a"), NULL, &found), NAMES_OK);
	assert_int_equal(names_find(names, key_of("a"), NULL, &found), NAMES_BUSY);
	names_taken(name);
	assert_int_equal(names_find(names, key_of("a"), NULL, &found), NAMES_OK);
	assert_int_equal(names_find(names, key_of("a"), NULL, &found), NAMES_BUSY);
	assert_int_equal(atomic_load(&name->waiting), MOST);
	assert_int_equal(atomic_load(&name->refs), 2 + MOST + 1);
	for (int i = 0; i <= MOST; i++)
		names_leave(name);
	give_up(name);
}

static void a_birth_makes_the_name_once_on_a_worker_of_its_own(void **state)
{
	(void)state;
	struct names_kind *kind = names_open_kind(names, "user");
	const struct names_birth birth = { .kind = kind, .at_once = 100, .most = MOST };
	struct name *one, *two;
	bool seen[WORKERS] = { false };
	assert_int_equal(names_find(names, key_of("user:42"), &birth, &one), NAMES_OK);
	assert_int_equal(names_find(names, key_of("user:42"), &birth, &two), NAMES_OK);
	assert_ptr_equal(one, two);
	assert_ptr_equal(one->kind, kind);
	assert_int_equal(one->channel, 0);
	assert_int_equal(atomic_load(&one->waiting), 2);
	names_leave(one);
	names_leave(two);
	for (int i = 0; i < 100; i++) {
		char text[16];
		snprintf(text, sizeof text, "user:%d", i);
		assert_int_equal(names_find(names, key_of(text), &birth, &one), NAMES_OK);
		assert_true(one->worker < WORKERS);
		seen[one->worker] = true;
		names_leave(one);
	}
	assert_true(seen[0] && seen[1] && seen[2]);
	assert_int_equal(names_count(names), 100);
}

static void so_many_of_a_kind_are_on_a_worker_and_no_more(void **state)
{
	(void)state;
	enum { EACH = 5 };
	const struct names_birth birth = { .kind = names_open_kind(names, "user"),
					   .at_once = EACH,
					   .most = 1 };
	struct name *found, *first = NULL;
	unsigned made = 0, refused = 0;
	for (int i = 0; i < 200; i++) {
		char text[16];
		snprintf(text, sizeof text, "user:%d", i);
		enum names_error error = names_find(names, key_of(text), &birth, &found);
		assert_true(error == NAMES_OK || error == NAMES_CROWDED);
		made += error == NAMES_OK;
		refused += error == NAMES_CROWDED;
		if (error)
			continue;
		if (first)
			names_leave(found);
		else
			first = found;
	}
	assert_int_equal(made, EACH * WORKERS);
	assert_int_equal(made + refused, 200);
	assert_ptr_equal(names_open_kind(names, "user"), birth.kind);
	names_leave(first);
}

static void a_name_goes_that_has_no_agent_and_no_message(void **state)
{
	(void)state;
	const struct names_birth birth = { .kind = names_open_kind(names, "user"), .at_once = 1, .most = 2 };
	struct name *one, *two;
	assert_int_equal(names_find(names, key_of("user:1"), &birth, &one), NAMES_OK);
	assert_false(names_release_unused(names, one)); /* a message is under way */
	names_taken(one);
	names_lead(names, one, 7);
	assert_false(names_release_unused(names, one)); /* it has an agent */
	assert_int_equal(names_find(names, key_of("user:1"), &birth, &two), NAMES_OK);
	assert_ptr_equal(one, two);
	names_lead(names, one, 0);
	assert_false(names_release_unused(names, one));
	names_taken(two);
	names_leave(two);
	assert_true(names_release_unused(names, one));
	assert_false(names_release_unused(names, one));
	assert_int_equal(names_count(names), 0);
	assert_int_equal(names_find(names, key_of("user:1"), &birth, &two), NAMES_OK); /* its place is free */
	assert_ptr_not_equal(one, two);
	names_leave(one);
	names_leave(two);
}

static void many_names_find_room(void **state)
{
	(void)state;
	enum { MANY = 20000 };
	struct name **all = malloc(MANY * sizeof *all), *found;
	char text[16];
	for (unsigned i = 0; i < MANY; i++) {
		snprintf(text, sizeof text, "%u", i);
		all[i] = claim(text, 0, i + 1);
	}
	assert_int_equal(names_count(names), MANY);
	for (unsigned i = 0; i < MANY; i++) {
		snprintf(text, sizeof text, "%u", i);
		assert_int_equal(names_find(names, key_of(text), NULL, &found), NAMES_OK);
		assert_int_equal(found->channel, i + 1);
		names_leave(found);
	}
	for (unsigned i = 0; i < MANY; i++)
		give_up(all[i]);
	assert_int_equal(names_count(names), 0);
	free(all);
}

/* ---- boxes ---- */

static void a_box_rings_when_it_was_empty_and_is_owned(void **state)
{
	(void)state;
	struct mail mail[3];
	names_post(names, 1, &mail[0]); /* nobody waits yet */
	assert_true(names_has_mail(names, 1));
	assert_false(names_has_mail(names, 0));
	names_open_box(names, 1, &rings[1]);
	names_post(names, 1, &mail[1]);
	assert_int_equal(atomic_load(&rings[1]), 0);
	struct mail *first = names_collect(names, 1);
	assert_ptr_equal(first, &mail[0]);
	assert_ptr_equal(first->next, &mail[1]);
	assert_null(first->next->next);
	assert_null(names_collect(names, 1));
	names_post(names, 1, &mail[2]);
	assert_int_equal(atomic_load(&rings[1]), 1);
	assert_ptr_equal(names_collect(names, 1), &mail[2]);
}

static void a_worker_has_room_for_so_many_bytes(void **state)
{
	(void)state;
	assert_true(names_reserve(names, 0, NAMES_UNDERWAY_BYTES - 10));
	assert_false(names_reserve(names, 0, 11));
	assert_true(names_reserve(names, 0, 10));
	assert_true(names_reserve(names, 1, 11));
	names_return(names, 0, 10);
	assert_true(names_reserve(names, 0, 9));
	names_close_box(names, 1);
	assert_false(names_reserve(names, 1, 1));
}

/* ---- against a model ---- */

enum { KEYS = 12, AGENTS = 6, STEPS = 200000, HELD_MAX = 64 };

struct model {
	struct name *has[KEYS];         /* who has the key */
	unsigned owner[KEYS];           /* which agent; only where it has one */
	struct name *own[AGENTS][KEYS]; /* what each holds, lost or not */
	struct name *held[HELD_MAX];    /* of messages under way */
	unsigned held_count;
};

static uint64_t random_state = 88172645463325252;

static unsigned draw(unsigned n)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return (unsigned)(random_state >> 33) % n;
}

static const char *text_of_key(unsigned key)
{
	static char text[8];
	snprintf(text, sizeof text, "k%u", key);
	return text;
}

static void model_claim(struct model *model, unsigned agent, unsigned key, bool replaces)
{
	struct names_claim wanted = claim_of(text_of_key(key), agent % WORKERS, agent + 1);
	struct name *name = NULL, *before;
	if (model->own[agent][key])
		return;
	wanted.replaces = replaces;
	enum names_error error = names_claim(names, &wanted, &name, &before);
	assert_int_equal(error, model->has[key] && !replaces ? NAMES_EXISTS : NAMES_OK);
	if (error)
		return;
	assert_ptr_equal(before, model->has[key]);
	names_leave(before);
	model->own[agent][key] = model->has[key] = name;
	model->owner[key] = agent;
}

static void model_release(struct model *model, unsigned agent, unsigned key)
{
	struct name *name = model->own[agent][key];
	if (!name)
		return;
	bool has = model->has[key] == name;
	assert_int_equal(names_release(names, name), has);
	names_leave(name);
	model->own[agent][key] = NULL;
	if (has)
		model->has[key] = NULL;
}

static unsigned waiting_for(const struct model *model, const struct name *name)
{
	unsigned n = 0;
	for (unsigned i = 0; i < model->held_count; i++)
		n += model->held[i] == name;
	return n;
}

static void model_send(struct model *model, unsigned key)
{
	struct name *found;
	if (model->held_count == HELD_MAX)
		return;
	enum names_error error = names_find(names, key_of(text_of_key(key)), NULL, &found);
	struct name *has = model->has[key];
	assert_int_equal(error, !has                              ? NAMES_ABSENT
				: waiting_for(model, has) == MOST ? NAMES_BUSY
								  : NAMES_OK);
	if (error)
		return;
	assert_ptr_equal(found, has);
	assert_int_equal(found->channel, model->owner[key] + 1);
	model->held[model->held_count++] = found;
}

static void model_take(struct model *model)
{
	if (!model->held_count)
		return;
	unsigned at = draw(model->held_count);
	struct name *name = model->held[at];
	assert_int_equal(atomic_load(&name->waiting), waiting_for(model, name));
	model->held[at] = model->held[--model->held_count];
	names_taken(name);
	names_leave(name);
}

static size_t model_count(const struct model *model)
{
	size_t n = 0;
	for (unsigned key = 0; key < KEYS; key++)
		n += model->has[key] != NULL;
	return n;
}

static void it_does_as_a_simple_model_does(void **state)
{
	(void)state;
	struct model model = { .held_count = 0 };
	for (unsigned step = 0; step < STEPS; step++) {
		unsigned agent = draw(AGENTS), key = draw(KEYS);
		switch (draw(8)) {
		case 0:
			model_claim(&model, agent, key, draw(3) == 0);
			break;
		case 1:
			model_release(&model, agent, key);
			break;
		case 2:
		case 3:
		case 4:
			model_send(&model, key);
			break;
		default:
			model_take(&model);
		}
		if (step % 1000 == 0)
			assert_int_equal(names_count(names), model_count(&model));
	}
	while (model.held_count)
		model_take(&model);
	for (unsigned agent = 0; agent < AGENTS; agent++)
		for (unsigned key = 0; key < KEYS; key++)
			model_release(&model, agent, key);
	assert_int_equal(names_count(names), 0);
}

/* ---- many at once ---- */

enum { THREADS = 4, ROUNDS = 20000 };

struct parcel {
	struct mail mail; /* first */
	struct name *to;
	unsigned sender, number;
};

static atomic_uint sent, got, busy;
static atomic_bool is_over;

static void post_one(unsigned sender, unsigned number, const char *key)
{
	struct name *to;
	enum names_error error = names_find(names, key_of(key), NULL, &to);
	if (error) {
		assert_true(error == NAMES_ABSENT || error == NAMES_BUSY);
		atomic_fetch_add(&busy, 1);
		return;
	}
	struct parcel *parcel = malloc(sizeof *parcel);
	*parcel = (struct parcel){ .to = to, .sender = sender, .number = number };
	atomic_fetch_add(&sent, 1);
	names_post(names, to->worker, &parcel->mail);
}

/* Claims, gives up, sends. */
static void *send_many(void *data)
{
	unsigned me = (unsigned)(uintptr_t)data, worker = me % WORKERS;
	char own[16];
	snprintf(own, sizeof own, "own%u", me);
	struct name *mine = claim(own, worker, me + 1);
	for (unsigned i = 1; i <= ROUNDS; i++) {
		struct names_claim wanted = claim_of("all", worker, me + 1);
		struct name *name, *before;
		char key[16];
		wanted.replaces = i % 3 == 0;
		if (names_claim(names, &wanted, &name, &before) == NAMES_OK) {
			names_leave(before);
			post_one(me, i, "all");
			give_up(name);
		}
		snprintf(key, sizeof key, "own%u", i % THREADS);
		post_one(me, i, key);
	}
	give_up(mine);
	return NULL;
}

/* What comes from one sender, comes in its order. */
static void *take_all(void *data)
{
	unsigned worker = (unsigned)(uintptr_t)data, last[THREADS] = { 0 };
	for (;;) {
		bool over = atomic_load(&is_over);
		struct mail *next, *mail = names_collect(names, worker);
		if (!mail && over)
			return NULL;
		for (; mail; mail = next) {
			struct parcel *parcel = (struct parcel *)(void *)mail;
			next = mail->next;
			assert_true(parcel->number >= last[parcel->sender]);
			assert_int_equal(parcel->to->worker, worker);
			last[parcel->sender] = parcel->number;
			names_taken(parcel->to);
			names_leave(parcel->to);
			free(parcel);
			atomic_fetch_add(&got, 1);
		}
	}
}

static void many_threads_lose_nothing(void **state)
{
	(void)state;
	pthread_t senders[THREADS], takers[WORKERS];
	atomic_store(&sent, 0);
	atomic_store(&got, 0);
	atomic_store(&is_over, false);
	for (uintptr_t i = 0; i < WORKERS; i++) {
		names_open_box(names, (unsigned)i, &rings[i]);
		pthread_create(&takers[i], NULL, take_all, (void *)i);
	}
	for (uintptr_t i = 0; i < THREADS; i++)
		pthread_create(&senders[i], NULL, send_many, (void *)i);
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(senders[i], NULL);
	atomic_store(&is_over, true);
	for (unsigned i = 0; i < WORKERS; i++)
		pthread_join(takers[i], NULL);
	assert_int_equal(atomic_load(&sent), atomic_load(&got));
	assert_int_equal(names_count(names), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_name_is_found_until_it_is_released, begin, end),
		cmocka_unit_test_setup_teardown(keys_are_bytes, begin, end),
		cmocka_unit_test_setup_teardown(a_second_claim_is_refused_or_replaces, begin, end),
		cmocka_unit_test_setup_teardown(a_message_under_way_keeps_its_name, begin, end),
		cmocka_unit_test_setup_teardown(so_many_messages_wait_and_no_more, begin, end),
		cmocka_unit_test_setup_teardown(a_birth_makes_the_name_once_on_a_worker_of_its_own, begin,
						end),
		cmocka_unit_test_setup_teardown(so_many_of_a_kind_are_on_a_worker_and_no_more, begin, end),
		cmocka_unit_test_setup_teardown(a_name_goes_that_has_no_agent_and_no_message, begin, end),
		cmocka_unit_test_setup_teardown(many_names_find_room, begin, end),
		cmocka_unit_test_setup_teardown(a_box_rings_when_it_was_empty_and_is_owned, begin, end),
		cmocka_unit_test_setup_teardown(a_worker_has_room_for_so_many_bytes, begin, end),
		cmocka_unit_test_setup_teardown(it_does_as_a_simple_model_does, begin, end),
		cmocka_unit_test_setup_teardown(many_threads_lose_nothing, begin, end),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
