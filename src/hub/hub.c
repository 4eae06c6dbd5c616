#include "hub/hub.h"

#include "base/inbox.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <uv.h>

enum {
	PARTS = 64, /* a power of two: several times as many as there are cores that ask at once */
	PART_SHIFT = 58,
};

/* A topic that has members on some worker. */
struct hub_topic {
	struct topic topic; /* first */
	struct hub_part *parts;
	char name[];
};

/* On a line of the cache of its own. */
struct hub_slot {
	_Alignas(64) pthread_mutex_t lock;
	struct topic_map map;
};

struct hub_box {
	struct inbox inbox;
	atomic_uint depth; /* messages in it, or collected and not done */
	const struct counters *_Atomic counters;
};

struct hub {
	struct hub_slot slots[PARTS];
	_Alignas(64) pthread_mutex_t trie_lock;
	struct topic_trie trie;
	atomic_size_t message_bytes; /* of all that are held */
	atomic_size_t patterns;      /* of the trie: who sees none does not take its lock */
	struct siphash_key key;
	void (*ring)(void *owner);
	unsigned workers;
	struct hub_box boxes[];
};

/* ---- all of it ---- */

struct hub *hub_new(unsigned workers, void (*ring)(void *owner), const struct siphash_key *key)
{
	size_t bytes = sizeof(struct hub) + workers * sizeof(struct hub_box);
	struct hub *hub = aligned_alloc(64, (bytes + 63) / 64 * 64);
	if (!hub)
		return NULL;
	memset(hub, 0, bytes);
	hub->workers = workers;
	hub->ring = ring;
	pthread_mutex_init(&hub->trie_lock, NULL);
	for (unsigned i = 0; i < PARTS; i++)
		pthread_mutex_init(&hub->slots[i].lock, NULL);
	for (unsigned i = 0; i < workers; i++)
		inbox_init(&hub->boxes[i].inbox);
	if (key)
		hub->key = *key;
	else if (getrandom(&hub->key, sizeof hub->key, 0) != sizeof hub->key)
		hub->key.low = (uint64_t)(uintptr_t)hub; /* so early after a start of the machine */
	return hub;
}

void hub_free(struct hub *hub)
{
	if (!hub)
		return;
	for (unsigned i = 0; i < PARTS; i++) {
		topic_map_free(&hub->slots[i].map);
		pthread_mutex_destroy(&hub->slots[i].lock);
	}
	topic_trie_free(&hub->trie);
	pthread_mutex_destroy(&hub->trie_lock);
	free(hub);
}

unsigned hub_workers(const struct hub *hub)
{
	return hub->workers;
}

const struct siphash_key *hub_key(const struct hub *hub)
{
	return &hub->key;
}

/* ---- members ---- */

static pthread_mutex_t *lock_for(struct hub *hub, const struct topic *topic)
{
	pthread_mutex_t *lock =
	    topic->is_pattern ? &hub->trie_lock : &hub->slots[topic->hash >> PART_SHIFT].lock;
	pthread_mutex_lock(lock);
	return lock;
}

/* The lock is held. NULL: nobody has joined it. */
static struct hub_topic *find_hub_topic(struct hub *hub, const struct topic *topic)
{
	struct topic *found = topic->is_pattern
				  ? topic_trie_find(&hub->trie, &hub->key, topic->name, topic->len)
				  : topic_map_find(&hub->slots[topic->hash >> PART_SHIFT].map, topic->name,
						   topic->len, topic->hash);
	return (struct hub_topic *)(void *)found;
}

static int list_topic(struct hub *hub, struct hub_topic *topic)
{
	if (!topic->topic.is_pattern)
		return topic_map_add(&hub->slots[topic->topic.hash >> PART_SHIFT].map, &topic->topic);
	int err = topic_trie_add(&hub->trie, &hub->key, &topic->topic);
	if (!err)
		atomic_fetch_add_explicit(&hub->patterns, 1, memory_order_seq_cst);
	return err;
}

static void unlist_topic(struct hub *hub, struct hub_topic *topic)
{
	if (!topic->topic.is_pattern) {
		topic_map_remove(&hub->slots[topic->topic.hash >> PART_SHIFT].map, &topic->topic);
		return;
	}
	topic_trie_remove(&hub->trie, &topic->topic);
	atomic_fetch_sub_explicit(&hub->patterns, 1, memory_order_seq_cst);
}

static struct hub_topic *new_hub_topic(const struct topic *like)
{
	struct hub_topic *topic = calloc(1, sizeof *topic + like->len + 1u);
	if (!topic)
		return NULL;
	memcpy(topic->name, like->name, like->len);
	topic->topic = (struct topic){
		.hash = like->hash, .name = topic->name, .len = like->len, .is_pattern = like->is_pattern
	};
	return topic;
}

int hub_enter(struct hub *hub, struct hub_part *part)
{
	struct hub_topic *made = new_hub_topic(&part->topic);
	if (!made)
		return UV_ENOMEM;
	pthread_mutex_t *lock = lock_for(hub, &part->topic);
	struct hub_topic *topic = find_hub_topic(hub, &part->topic);
	int err = topic ? 0 : list_topic(hub, made);
	if (!err && !topic) {
		topic = made;
		made = NULL;
	}
	if (!err) {
		part->of = topic;
		part->next = topic->parts;
		topic->parts = part;
	}
	pthread_mutex_unlock(lock);
	free(made);
	return err;
}

void hub_leave(struct hub *hub, struct hub_part *part)
{
	struct hub_topic *topic = part->of, *unused = NULL;
	pthread_mutex_t *lock = lock_for(hub, &part->topic);
	struct hub_part **link = &topic->parts;
	while (*link != part)
		link = &(*link)->next;
	*link = part->next;
	if (!topic->parts) {
		unlist_topic(hub, topic);
		unused = topic;
	}
	pthread_mutex_unlock(lock);
	free(unused);
}

/* Calls `visit` for each topic and pattern that the name fits, while the lock is held that it has. */
static void each_fitting(struct hub *hub, const char *name, size_t len,
			 void (*visit)(struct topic *topic, void *data), void *data)
{
	struct topic topic = { .hash = siphash(&hub->key, name, len), .name = name, .len = (uint8_t)len };
	pthread_mutex_t *lock = lock_for(hub, &topic);
	struct hub_topic *found = find_hub_topic(hub, &topic);
	if (found)
		visit(&found->topic, data);
	pthread_mutex_unlock(lock);
	if (!atomic_load_explicit(&hub->patterns, memory_order_seq_cst))
		return;
	pthread_mutex_lock(&hub->trie_lock);
	topic_trie_match(&hub->trie, &hub->key, name, len, visit, data);
	pthread_mutex_unlock(&hub->trie_lock);
}

static void add_members(struct topic *topic, void *data)
{
	const struct hub_topic *found = (const struct hub_topic *)(const void *)topic;
	uint64_t *sum = data;
	for (const struct hub_part *part = found->parts; part; part = part->next)
		*sum += count_read(&part->members);
}

uint64_t hub_count(struct hub *hub, const char *name, size_t len)
{
	uint64_t sum = 0;
	each_fitting(hub, name, len, add_members, &sum);
	return sum;
}

size_t hub_topics(struct hub *hub)
{
	size_t sum = atomic_load_explicit(&hub->patterns, memory_order_relaxed);
	for (unsigned i = 0; i < PARTS; i++) {
		pthread_mutex_lock(&hub->slots[i].lock);
		sum += hub->slots[i].map.count;
		pthread_mutex_unlock(&hub->slots[i].lock);
	}
	return sum;
}

bool hub_account_of(struct hub *hub, const struct topic *topic, struct hub_account *sum, uint64_t *members)
{
	pthread_mutex_t *lock = lock_for(hub, topic);
	const struct hub_topic *found = find_hub_topic(hub, topic);
	for (const struct hub_part *part = found ? found->parts : NULL; part; part = part->next) {
		*members += count_read(&part->members);
		count_add(&sum->addressed, count_read(&part->account.addressed));
		for (unsigned i = 0; i < HUB_FATES; i++)
			count_add(&sum->fates[i], count_read(&part->account.fates[i]));
	}
	pthread_mutex_unlock(lock);
	return found;
}

/* ---- messages ---- */

static void add_workers(struct topic *topic, void *data)
{
	const struct hub_topic *found = (const struct hub_topic *)(const void *)topic;
	struct hub_reach *reach = data;
	for (const struct hub_part *part = found->parts; part; part = part->next)
		reach->bits[part->worker / 64] |= UINT64_C(1) << part->worker % 64;
}

void hub_find(struct hub *hub, const char *name, size_t len, struct hub_reach *reach)
{
	*reach = (struct hub_reach){ 0 };
	each_fitting(hub, name, len, add_workers, reach);
	for (unsigned i = 0; i < HUB_WORKERS_MAX / 64; i++)
		reach->count += (unsigned)__builtin_popcountll(reach->bits[i]);
}

struct hub_message *hub_make_message(struct hub *hub, const struct hub_draft *draft, unsigned workers)
{
	return hub_message_new(draft, workers, &hub->message_bytes);
}

size_t hub_message_memory(const struct hub *hub)
{
	return atomic_load_explicit(&((struct hub *)hub)->message_bytes, memory_order_relaxed);
}

static void rings_no_owner(void *owner)
{
	(void)owner;
}

/* False: there is no room. */
static bool post_to(struct hub *hub, struct hub_message *message, unsigned worker, bool is_own, unsigned most)
{
	struct hub_box *box = &hub->boxes[worker];
	unsigned before = atomic_fetch_add_explicit(&box->depth, 1, memory_order_relaxed);
	if ((before >= most && !is_own) ||
	    !inbox_reserve(&box->inbox, hub_message_bytes(message), HUB_UNDERWAY_BYTES)) {
		atomic_fetch_sub_explicit(&box->depth, 1, memory_order_relaxed);
		return false;
	}
	struct hub_mail *mail = &message->mails[message->mail_count++];
	mail->message = message;
	hub_message_hold(message);
	inbox_post(&box->inbox, &mail->mail, is_own ? rings_no_owner : hub->ring);
	return true;
}

unsigned hub_post(struct hub *hub, struct hub_message *message, const struct hub_reach *reach, unsigned own,
		  unsigned most)
{
	unsigned missed = 0;
	for (unsigned i = 0; i < HUB_WORKERS_MAX / 64; i++)
		for (uint64_t bits = reach->bits[i]; bits; bits &= bits - 1) {
			unsigned worker = 64 * i + (unsigned)__builtin_ctzll(bits);
			missed += !post_to(hub, message, worker, worker == own, most);
		}
	return missed;
}

/* ---- boxes ---- */

void hub_open_box(struct hub *hub, unsigned worker, void *owner, const struct counters *counters)
{
	atomic_store_explicit(&hub->boxes[worker].counters, counters, memory_order_release);
	inbox_open(&hub->boxes[worker].inbox, owner);
}

void hub_close_box(struct hub *hub, unsigned worker)
{
	inbox_close(&hub->boxes[worker].inbox);
}

bool hub_has_mail(const struct hub *hub, unsigned worker)
{
	return inbox_has_mail(&hub->boxes[worker].inbox);
}

struct mail *hub_collect(struct hub *hub, unsigned worker)
{
	return inbox_collect(&hub->boxes[worker].inbox);
}

void hub_done(struct hub *hub, unsigned worker, struct hub_message *message)
{
	inbox_return(&hub->boxes[worker].inbox, hub_message_bytes(message));
	atomic_fetch_sub_explicit(&hub->boxes[worker].depth, 1, memory_order_relaxed);
	hub_message_drop(message);
}

unsigned hub_depth(const struct hub *hub, unsigned worker)
{
	return atomic_load_explicit(&((struct hub *)hub)->boxes[worker].depth, memory_order_relaxed);
}

void hub_sum(const struct hub *hub, struct counters *sum)
{
	for (unsigned i = 0; i < hub->workers; i++) {
		const struct counters *counters =
		    atomic_load_explicit(&((struct hub *)hub)->boxes[i].counters, memory_order_acquire);
		if (counters)
			counters_sum(sum, counters);
	}
}
