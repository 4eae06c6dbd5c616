#include "dict/dict.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum {
	PARTS = 16, /* a power of two: several times as many as there are cores that ask at once */
	BYTES_PER_SLOT = 256,
	ALLOCATOR_BYTES = 16, /* of what it keeps for itself, and of its grain */
	RESERVE_TRIES = 1000, /* for who has reserved room, and not used it yet */
	PUT_TRIES = 100,      /* for who is replaced by others before we have come to it */
	STALE_LOOKS = 2,      /* of the oldest: each that comes may find as many that have expired */
};

struct dict_entry {
	struct dict_entry *chain;         /* of its slot */
	struct dict_entry *newer, *older; /* of its part, by use */
	uint64_t hash, version, expires_ms;
	double number;
	size_t charged;   /* that it counts for; changes with the part's lock, while it is in its place */
	atomic_uint refs; /* the dictionary, and who holds it */
	uint32_t len;
	uint16_t key_len;
	uint8_t kind;
	char bytes[]; /* the key, then the value */
};

/* On a line of the cache of its own: who asks for one part does not disturb who asks for the next. */
struct part {
	_Alignas(64) pthread_mutex_t lock;
	struct dict_entry **slots;
	struct dict_entry *newest, *oldest;
	uint64_t entries, hits, misses, evicted, expired;
	uint64_t versions; /* given so far; none twice */
};

struct dict {
	struct part parts[PARTS];
	struct siphash_key key;
	size_t limit, index_bytes, slot_mask;
	struct {
		_Alignas(64) atomic_size_t bytes; /* what is written is not beside what all read */
	} used;
};

/* ---- entries ---- */

static size_t bytes_for(size_t key_len, size_t len)
{
	size_t bytes = sizeof(struct dict_entry) + key_len + len + ALLOCATOR_BYTES;
	return bytes + (-bytes & (ALLOCATOR_BYTES - 1));
}

static bool is_scalar(enum dict_kind kind)
{
	return kind == DICT_NUMBER || kind == DICT_BOOLEAN;
}

/* Not yet anybody's; NULL: there is no memory. What it counts for is reserved. */
static struct dict_entry *new_dict_entry(struct dict_key key, uint64_t hash, const struct dict_value *value,
					 size_t charged)
{
	size_t len = is_scalar(value->kind) ? 0 : value->len;
	struct dict_entry *entry = malloc(sizeof *entry + key.len + len);
	if (!entry)
		return NULL;
	entry->hash = hash;
	entry->number = value->number;
	entry->charged = charged;
	atomic_init(&entry->refs, 1);
	entry->len = (uint32_t)len;
	entry->key_len = (uint16_t)key.len;
	entry->kind = (uint8_t)value->kind;
	memcpy(entry->bytes, key.data, key.len);
	if (len)
		memcpy(entry->bytes + key.len, value->data, len);
	return entry;
}

static void refund(struct dict *dict, size_t bytes)
{
	atomic_fetch_sub_explicit(&dict->used.bytes, bytes, memory_order_relaxed);
}

/* What is held counts until it is let go: so the bound is one of memory. */
static void drop(struct dict *dict, struct dict_entry *entry)
{
	if (!entry || atomic_fetch_sub_explicit(&entry->refs, 1, memory_order_acq_rel) != 1)
		return;
	refund(dict, entry->charged);
	free(entry);
}

/* ---- parts: their lock is held ---- */

static struct part *part_of(struct dict *dict, uint64_t hash)
{
	return &dict->parts[hash >> 60];
}

static struct dict_entry **dict_slot(const struct dict *dict, struct part *part, uint64_t hash)
{
	return &part->slots[hash & dict->slot_mask];
}

/* Where it hangs, or would. */
static struct dict_entry **find_dict_link(const struct dict *dict, struct part *part, struct dict_key key,
					  uint64_t hash)
{
	struct dict_entry **link = dict_slot(dict, part, hash);
	for (; *link; link = &(*link)->chain)
		if ((*link)->hash == hash && (*link)->key_len == key.len &&
		    !memcmp((*link)->bytes, key.data, key.len))
			break;
	return link;
}

static void unuse(struct part *part, struct dict_entry *entry)
{
	*(entry->newer ? &entry->newer->older : &part->newest) = entry->older;
	*(entry->older ? &entry->older->newer : &part->oldest) = entry->newer;
}

static void put_newest(struct part *part, struct dict_entry *entry)
{
	entry->newer = NULL;
	entry->older = part->newest;
	*(part->newest ? &part->newest->newer : &part->oldest) = entry;
	part->newest = entry;
}

static void use_entry(struct part *part, struct dict_entry *entry)
{
	if (part->newest == entry)
		return;
	unuse(part, entry);
	put_newest(part, entry);
}

/* The part's hold of it is the caller's. */
static struct dict_entry *take_out(struct part *part, struct dict_entry **link)
{
	struct dict_entry *entry = *link;
	*link = entry->chain;
	unuse(part, entry);
	part->entries--;
	return entry;
}

static struct dict_entry *take_out_entry(const struct dict *dict, struct part *part, struct dict_entry *entry)
{
	struct dict_entry **link = dict_slot(dict, part, entry->hash);
	while (*link != entry)
		link = &(*link)->chain;
	return take_out(part, link);
}

static void put_in(const struct dict *dict, struct part *part, struct dict_entry *entry)
{
	struct dict_entry **slot = dict_slot(dict, part, entry->hash);
	entry->chain = *slot;
	*slot = entry;
	put_newest(part, entry);
	part->entries++;
}

static bool has_expired(const struct dict_entry *entry, uint64_t now_ms)
{
	return entry->expires_ms <= now_ms;
}

/* The link of the one that is there now; NULL: there is none. One that has expired is the caller's, to be dropped. */
static struct dict_entry **find_live(const struct dict *dict, struct part *part, struct dict_key key,
				     uint64_t hash, uint64_t now_ms, struct dict_entry **stale)
{
	struct dict_entry **link = find_dict_link(dict, part, key, hash);
	*stale = NULL;
	if (!*link)
		return NULL;
	if (!has_expired(*link, now_ms))
		return link;
	part->expired++;
	*stale = take_out(part, link);
	return NULL;
}

/* ---- room ---- */

/* False: there was nothing but what is to stay. */
static bool evict_from(struct dict *dict, struct part *part, uint64_t now_ms, const struct dict_entry *stays)
{
	pthread_mutex_lock(&part->lock);
	struct dict_entry *entry = part->oldest;
	if (entry && entry == stays)
		entry = entry->newer;
	if (entry) {
		(*(has_expired(entry, now_ms) ? &part->expired : &part->evicted))++;
		take_out_entry(dict, part, entry);
	}
	pthread_mutex_unlock(&part->lock);
	drop(dict, entry);
	return entry;
}

static bool make_way(struct dict *dict, uint64_t hash, uint64_t now_ms, const struct dict_entry *stays)
{
	for (uint64_t i = 0; i < PARTS; i++)
		if (evict_from(dict, part_of(dict, hash + (i << 60)), now_ms, stays))
			return true;
	return false;
}

/* So many bytes are the caller's, if there is room for them. */
static bool reserve_now(struct dict *dict, size_t bytes)
{
	size_t used = atomic_load_explicit(&dict->used.bytes, memory_order_relaxed);
	while (bytes <= dict->limit && used <= dict->limit - bytes)
		if (atomic_compare_exchange_weak_explicit(&dict->used.bytes, &used, used + bytes,
							  memory_order_relaxed, memory_order_relaxed))
			return true;
	return false;
}

/* The same, and others have to go for it, but for the one that stays. */
static bool reserve(struct dict *dict, size_t bytes, uint64_t hash, uint64_t now_ms,
		    const struct dict_entry *stays)
{
	for (unsigned tries = 0; tries < RESERVE_TRIES;) {
		if (reserve_now(dict, bytes))
			return true;
		/*
		 * What is there is held by others, who read, or have reserved it, and are about to put: they are soon
		 * done.
		 */
		if (!make_way(dict, hash, now_ms, stays) && ++tries)
			sched_yield();
	}
	return false;
}

/* ---- calls ---- */

static uint64_t dict_hash(const struct dict *dict, struct dict_key key)
{
	return siphash(&dict->key, key.data, key.len);
}

static void read_entry(struct dict_entry *entry, struct dict_value *value)
{
	value->kind = (enum dict_kind)entry->kind;
	value->number = entry->number;
	value->version = entry->version;
	value->data = entry->bytes + entry->key_len;
	value->len = entry->len;
	value->held = is_scalar(value->kind) ? NULL : entry;
	if (value->held)
		atomic_fetch_add_explicit(&entry->refs, 1, memory_order_relaxed);
}

bool dict_get(struct dict *dict, struct dict_key key, uint64_t now_ms, struct dict_value *value)
{
	uint64_t hash = dict_hash(dict, key);
	struct part *part = part_of(dict, hash);
	struct dict_entry *stale;
	pthread_mutex_lock(&part->lock);
	struct dict_entry **link = find_live(dict, part, key, hash, now_ms, &stale);
	if (link) {
		part->hits++;
		use_entry(part, *link);
		read_entry(*link, value);
	} else {
		part->misses++;
	}
	pthread_mutex_unlock(&part->lock);
	drop(dict, stale);
	return link;
}

void dict_release(struct dict *dict, const struct dict_value *value)
{
	drop(dict, value->held);
}

static enum dict_error check(const struct dict_entry *there, enum dict_condition condition, uint64_t version)
{
	switch (condition) {
	case DICT_IF_ABSENT:
		return there ? DICT_EXISTS : DICT_OK;
	case DICT_IF_PRESENT:
		return there ? DICT_OK : DICT_ABSENT;
	case DICT_IF_VERSION:
		return (there ? there->version : 0) == version ? DICT_OK : DICT_CHANGED;
	case DICT_ALWAYS:
		break;
	}
	return DICT_OK;
}

static void change(struct part *part, struct dict_entry *entry, uint64_t expires_ms)
{
	entry->version = ++part->versions;
	entry->expires_ms = expires_ms;
}

/*
 * With `fresh` it is put in its place, if the condition holds. Without, only a number in place of a number is: else it
 * is said by wants_entry that one is needed. What is to be dropped afterwards is in gone[].
 *
 * Where room is short, the one that it takes the place of gives its own: `replaced`, which is held, has been charged
 * for `credit` bytes of `fresh`. If it is another by then, it is all for nothing: is_outdated.
 */
struct putting {
	struct dict_key key;
	const struct dict_value *value;
	enum dict_condition condition;
	uint64_t hash, expires_ms, now_ms;
	struct dict_entry *fresh, *gone[2 + STALE_LOOKS];
	struct dict_entry *replaced;
	size_t credit;
	bool wants_entry, is_outdated;
};

/* Some of those that have expired, that nobody asks for any more. */
static void take_stale(const struct dict *dict, struct part *part, struct putting *putting)
{
	for (unsigned i = 2; i < 2 + STALE_LOOKS; i++) {
		if (!part->oldest || !has_expired(part->oldest, putting->now_ms))
			return;
		part->expired++;
		putting->gone[i] = take_out_entry(dict, part, part->oldest);
	}
}

static enum dict_error put_locked(const struct dict *dict, struct part *part, struct putting *putting)
{
	const struct dict_value *value = putting->value;
	struct dict_entry **link =
	    find_live(dict, part, putting->key, putting->hash, putting->now_ms, &putting->gone[0]);
	enum dict_error error = check(link ? *link : NULL, putting->condition, value->version);
	if (error)
		return error;
	if (link && is_scalar(value->kind) && is_scalar((enum dict_kind)(*link)->kind)) {
		(*link)->number = value->number;
		(*link)->kind = (uint8_t)value->kind;
		change(part, *link, putting->expires_ms);
		use_entry(part, *link);
		return DICT_OK;
	}
	putting->wants_entry = !putting->fresh;
	putting->is_outdated = putting->credit && (!link || *link != putting->replaced);
	if (!putting->fresh || putting->is_outdated)
		return DICT_OK;
	if (putting->credit) {
		(*link)->charged -= putting->credit;
		putting->fresh->charged += putting->credit;
	}
	if (link)
		putting->gone[1] = take_out(part, link);
	change(part, putting->fresh, putting->expires_ms);
	put_in(dict, part, putting->fresh);
	putting->fresh = NULL;
	take_stale(dict, part, putting);
	return DICT_OK;
}

static enum dict_error put_once(struct dict *dict, struct putting *putting)
{
	struct part *part = part_of(dict, putting->hash);
	pthread_mutex_lock(&part->lock);
	enum dict_error error = put_locked(dict, part, putting);
	pthread_mutex_unlock(&part->lock);
	for (size_t i = 0; i < sizeof putting->gone / sizeof *putting->gone; i++) {
		drop(dict, putting->gone[i]);
		putting->gone[i] = NULL;
	}
	return error;
}

/* What is there now, held, and how much it counts for; NULL: nothing. */
static struct dict_entry *hold_there(struct dict *dict, const struct putting *putting, size_t *charged)
{
	struct part *part = part_of(dict, putting->hash);
	struct dict_entry *there = NULL, *stale;
	pthread_mutex_lock(&part->lock);
	struct dict_entry **link =
	    find_live(dict, part, putting->key, putting->hash, putting->now_ms, &stale);
	if (link) {
		there = *link;
		*charged = there->charged;
		atomic_fetch_add_explicit(&there->refs, 1, memory_order_relaxed);
	}
	pthread_mutex_unlock(&part->lock);
	drop(dict, stale);
	return there;
}

/* Bytes for the new one. *charged of them are reserved, and putting->credit are those of the one that is replaced. */
static bool find_room(struct dict *dict, struct putting *putting, size_t bytes, size_t *charged)
{
	*charged = bytes;
	if (reserve_now(dict, bytes))
		return true;
	size_t credit = 0;
	putting->replaced = hold_there(dict, putting, &credit);
	putting->credit = credit < bytes ? credit : bytes;
	*charged = bytes - putting->credit;
	return reserve(dict, *charged, putting->hash, putting->now_ms, putting->replaced);
}

static enum dict_error put_fresh(struct dict *dict, struct putting *putting, size_t bytes)
{
	size_t charged;
	putting->credit = 0;
	putting->is_outdated = false;
	if (!find_room(dict, putting, bytes, &charged))
		return DICT_BUSY;
	putting->fresh = new_dict_entry(putting->key, putting->hash, putting->value, charged);
	if (!putting->fresh) {
		refund(dict, charged);
		return DICT_NO_MEMORY;
	}
	return put_once(dict, putting);
}

enum dict_error dict_put(struct dict *dict, struct dict_key key, const struct dict_value *value,
			 enum dict_condition condition, uint64_t expires_ms, uint64_t now_ms)
{
	struct putting putting = { .key = key,
				   .value = value,
				   .condition = condition,
				   .hash = dict_hash(dict, key),
				   .expires_ms = expires_ms,
				   .now_ms = now_ms };
	if (key.len > DICT_KEY_MAX || value->len > UINT32_MAX)
		return DICT_TOO_LARGE;
	/* What is not to be put evicts nobody: so it is asked first, unless it is clear. */
	enum dict_error error = DICT_OK;
	if (condition != DICT_ALWAYS || is_scalar(value->kind)) {
		error = put_once(dict, &putting);
		if (error || !putting.wants_entry)
			return error;
	}
	size_t bytes = bytes_for(key.len, is_scalar(value->kind) ? 0 : value->len);
	if (bytes > dict->limit - dict->index_bytes)
		return DICT_TOO_LARGE;
	unsigned tries = 0;
	do {
		error = put_fresh(dict, &putting, bytes);
		drop(dict, putting.fresh); /* it has not found its place, if it still is here */
		drop(dict, putting.replaced);
		putting.fresh = putting.replaced = NULL;
	} while (!error && putting.is_outdated && ++tries < PUT_TRIES);
	return !error && putting.is_outdated ? DICT_BUSY : error;
}

static enum dict_error incr_there(struct dict *dict, struct dict_key key, uint64_t hash, double by,
				  uint64_t now_ms, double *sum)
{
	struct part *part = part_of(dict, hash);
	struct dict_entry *stale;
	enum dict_error error = DICT_OK;
	pthread_mutex_lock(&part->lock);
	struct dict_entry **link = find_live(dict, part, key, hash, now_ms, &stale);
	if (!link) {
		error = DICT_ABSENT;
	} else if ((*link)->kind != DICT_NUMBER) {
		error = DICT_NO_NUMBER;
	} else {
		*sum = (*link)->number += by;
		change(part, *link, (*link)->expires_ms);
		use_entry(part, *link);
	}
	pthread_mutex_unlock(&part->lock);
	drop(dict, stale);
	return error;
}

enum dict_error dict_incr(struct dict *dict, struct dict_key key, double by, const double *begin,
			  uint64_t expires_ms, uint64_t now_ms, double *sum)
{
	uint64_t hash = dict_hash(dict, key);
	for (;;) {
		enum dict_error error = incr_there(dict, key, hash, by, now_ms, sum);
		if (error != DICT_ABSENT || !begin)
			return error;
		struct dict_value value = { .kind = DICT_NUMBER, .number = *begin + by };
		error = dict_put(dict, key, &value, DICT_IF_ABSENT, expires_ms, now_ms);
		*sum = value.number;
		if (error != DICT_EXISTS) /* else another was quicker */
			return error;
	}
}

bool dict_delete(struct dict *dict, struct dict_key key, uint64_t version, uint64_t now_ms)
{
	uint64_t hash = dict_hash(dict, key);
	struct part *part = part_of(dict, hash);
	struct dict_entry *stale, *gone = NULL;
	pthread_mutex_lock(&part->lock);
	struct dict_entry **link = find_live(dict, part, key, hash, now_ms, &stale);
	if (link && (!version || (*link)->version == version))
		gone = take_out(part, link);
	pthread_mutex_unlock(&part->lock);
	drop(dict, stale);
	drop(dict, gone);
	return gone;
}

/* One of both is wanted. */
static bool with_expiry(struct dict *dict, struct dict_key key, uint64_t now_ms, const uint64_t *set,
			uint64_t *got)
{
	uint64_t hash = dict_hash(dict, key);
	struct part *part = part_of(dict, hash);
	struct dict_entry *stale;
	pthread_mutex_lock(&part->lock);
	struct dict_entry **link = find_live(dict, part, key, hash, now_ms, &stale);
	if (link && set)
		change(part, *link, *set);
	if (link && got)
		*got = (*link)->expires_ms;
	pthread_mutex_unlock(&part->lock);
	drop(dict, stale);
	return link;
}

bool dict_expire(struct dict *dict, struct dict_key key, uint64_t expires_ms, uint64_t now_ms)
{
	return with_expiry(dict, key, now_ms, &expires_ms, NULL);
}

bool dict_expiry(struct dict *dict, struct dict_key key, uint64_t now_ms, uint64_t *expires_ms)
{
	return with_expiry(dict, key, now_ms, NULL, expires_ms);
}

/* ---- all of it ---- */

static size_t chain_length(const struct dict_entry *entry)
{
	size_t n = 0;
	for (; entry; entry = entry->chain)
		n++;
	return n;
}

size_t dict_walk(struct dict *dict, struct dict_place *place, uint64_t now_ms, struct dict_entry **entries,
		 size_t max)
{
	enum { SLOTS = 256 };
	struct part *part = &dict->parts[place->part];
	size_t n = 0, last = place->slot + SLOTS;
	pthread_mutex_lock(&part->lock);
	for (; place->slot <= dict->slot_mask && place->slot < last; place->slot++) {
		struct dict_entry *each = part->slots[place->slot];
		if (n && n + chain_length(each) > max)
			break;
		for (; each && n < max; each = each->chain) {
			if (has_expired(each, now_ms))
				continue;
			atomic_fetch_add_explicit(&each->refs, 1, memory_order_relaxed);
			entries[n++] = each;
		}
	}
	pthread_mutex_unlock(&part->lock);
	if (place->slot > dict->slot_mask)
		*place = (struct dict_place){ place->part + 1, 0 };
	return n;
}

bool dict_is_walked(const struct dict_place *place)
{
	return place->part == PARTS;
}

struct dict_key dict_entry_key(const struct dict_entry *entry)
{
	return (struct dict_key){ entry->bytes, entry->key_len };
}

void dict_leave(struct dict *dict, struct dict_entry *entry)
{
	drop(dict, entry);
}

/* Few at a time: others are let in between. */
static bool clear_some(struct dict *dict, struct part *part)
{
	enum { AT_ONCE = 64 };
	struct dict_entry *gone[AT_ONCE];
	unsigned n = 0;
	pthread_mutex_lock(&part->lock);
	while (n < AT_ONCE && part->oldest)
		gone[n++] = take_out_entry(dict, part, part->oldest);
	pthread_mutex_unlock(&part->lock);
	for (unsigned i = 0; i < n; i++)
		drop(dict, gone[i]);
	return n;
}

bool dict_clear_some(struct dict *dict)
{
	for (unsigned i = 0; i < PARTS; i++)
		if (clear_some(dict, &dict->parts[i]))
			return true;
	return false;
}

void dict_count(struct dict *dict, struct dict_counts *counts)
{
	*counts =
	    (struct dict_counts){ .bytes = atomic_load_explicit(&dict->used.bytes, memory_order_relaxed),
				  .limit = dict->limit };
	for (unsigned i = 0; i < PARTS; i++) {
		struct part *part = &dict->parts[i];
		pthread_mutex_lock(&part->lock);
		counts->entries += part->entries;
		counts->hits += part->hits;
		counts->misses += part->misses;
		counts->evicted += part->evicted;
		counts->expired += part->expired;
		pthread_mutex_unlock(&part->lock);
	}
}

size_t dict_limit(const struct dict *dict)
{
	return dict->limit;
}

/* ---- from beginning to end ---- */

/* Two that ask for one key at once spin for a moment: nobody holds it for longer. */
static void init_lock(pthread_mutex_t *lock)
{
	pthread_mutexattr_t attributes;
	pthread_mutexattr_init(&attributes);
	pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_ADAPTIVE_NP);
	pthread_mutex_init(lock, &attributes);
	pthread_mutexattr_destroy(&attributes);
}

static size_t slots_for(size_t bytes)
{
	size_t slots = 1;
	while (slots * 2 * BYTES_PER_SLOT <= bytes / PARTS)
		slots *= 2;
	return slots;
}

struct dict *dict_new(size_t bytes, const struct siphash_key *key)
{
	struct dict *dict = aligned_alloc(64, sizeof *dict);
	if (!dict)
		return NULL;
	if (bytes < DICT_BYTES_MIN)
		bytes = DICT_BYTES_MIN;
	size_t slots = slots_for(bytes);
	memset(dict, 0, sizeof *dict);
	dict->limit = bytes;
	dict->slot_mask = slots - 1;
	dict->index_bytes = PARTS * slots * sizeof(struct dict_entry *);
	dict->key = *key;
	atomic_init(&dict->used.bytes, dict->index_bytes);
	bool ok = true;
	for (unsigned i = 0; i < PARTS; i++) {
		init_lock(&dict->parts[i].lock);
		dict->parts[i].slots = calloc(slots, sizeof *dict->parts[i].slots);
		ok = ok && dict->parts[i].slots;
	}
	if (ok)
		return dict;
	dict_free(dict);
	return NULL;
}

static void free_part(struct dict *dict, struct part *part)
{
	if (part->slots)
		while (clear_some(dict, part))
			;
	free(part->slots);
	pthread_mutex_destroy(&part->lock);
}

void dict_free(struct dict *dict)
{
	if (!dict)
		return;
	for (unsigned i = 0; i < PARTS; i++)
		free_part(dict, &dict->parts[i]);
	free(dict);
}
