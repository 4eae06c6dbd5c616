#include "names/names.h"

#include "base/inbox.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

enum {
	PARTS = 64, /* a power of two: several times as many as there are cores that ask at once */
	PART_SHIFT = 58,
	SLOTS_FIRST = 16,
};

/* On a line of the cache of its own: who asks for one part does not disturb who asks for the next. */
struct names_part {
	_Alignas(64) pthread_mutex_t lock;
	struct name **slots; /* NULL: it has had none */
	size_t slot_count;   /* a power of two */
	size_t count;
};

struct names_kind {
	struct names_kind *next;
	char *name;
	atomic_uint open[]; /* names that are listed, of each worker */
};

struct names {
	struct names_part parts[PARTS];
	pthread_mutex_t kinds_lock;
	struct names_kind *kinds;
	struct siphash_key key;
	void (*ring)(void *owner);
	unsigned workers;
	struct inbox boxes[];
};

/* ---- kinds ---- */

static struct names_kind *new_kind(const struct names *names, const char *name)
{
	struct names_kind *kind = calloc(1, sizeof *kind + names->workers * sizeof kind->open[0]);
	char *copy = kind ? strdup(name) : NULL;
	if (!copy) {
		free(kind);
		return NULL;
	}
	kind->name = copy;
	return kind;
}

static void free_kinds(struct names *names)
{
	for (struct names_kind *next, *kind = names->kinds; kind; kind = next) {
		next = kind->next;
		free(kind->name);
		free(kind);
	}
	pthread_mutex_destroy(&names->kinds_lock);
}

/* Whoever loads a generation asks, and waits: the lock is no part's. */
struct names_kind *names_open_kind(struct names *names, const char *name)
{
	pthread_mutex_lock(&names->kinds_lock);
	struct names_kind *kind = names->kinds;
	while (kind && strcmp(kind->name, name) != 0)
		kind = kind->next;
	if (!kind && (kind = new_kind(names, name))) {
		kind->next = names->kinds;
		names->kinds = kind;
	}
	pthread_mutex_unlock(&names->kinds_lock);
	return kind;
}

bool names_have_kinds(struct names *names)
{
	unsigned open = 0;
	pthread_mutex_lock(&names->kinds_lock);
	for (const struct names_kind *kind = names->kinds; kind; kind = kind->next)
		for (unsigned i = 0; i < names->workers; i++)
			open +=
			    atomic_load_explicit(&((struct names_kind *)kind)->open[i], memory_order_relaxed);
	pthread_mutex_unlock(&names->kinds_lock);
	return open;
}

/* One more of the kind, if there may be. */
static bool kind_take_place(struct names_kind *kind, unsigned worker, uint32_t at_once)
{
	bool has = atomic_fetch_add_explicit(&kind->open[worker], 1, memory_order_relaxed) < at_once;
	if (!has)
		atomic_fetch_sub_explicit(&kind->open[worker], 1, memory_order_relaxed);
	return has;
}

static void kind_leave_place(struct names_kind *kind, unsigned worker)
{
	atomic_fetch_sub_explicit(&kind->open[worker], 1, memory_order_relaxed);
}

/* ---- all of it ---- */

struct names *names_new(unsigned workers, void (*ring)(void *owner), const struct siphash_key *key)
{
	size_t bytes = sizeof(struct names) + workers * sizeof(struct inbox);
	struct names *names = aligned_alloc(64, bytes);
	if (!names)
		return NULL;
	memset(names, 0, bytes);
	names->workers = workers;
	names->ring = ring;
	pthread_mutex_init(&names->kinds_lock, NULL);
	for (unsigned i = 0; i < PARTS; i++)
		pthread_mutex_init(&names->parts[i].lock, NULL);
	for (unsigned i = 0; i < workers; i++)
		inbox_init(&names->boxes[i]);
	if (key)
		names->key = *key;
	else if (getrandom(&names->key, sizeof names->key, 0) != sizeof names->key)
		names->key.low = (uint64_t)(uintptr_t)names; /* so early after a start of the machine */
	return names;
}

static void free_names_part(struct names_part *part)
{
	for (size_t i = 0; i < part->slot_count; i++)
		for (struct name *next, *each = part->slots[i]; each; each = next) {
			next = each->chain;
			names_leave(each);
		}
	free(part->slots);
	pthread_mutex_destroy(&part->lock);
}

void names_free(struct names *names)
{
	if (!names)
		return;
	for (unsigned i = 0; i < PARTS; i++)
		free_names_part(&names->parts[i]);
	free_kinds(names);
	free(names);
}

unsigned names_workers(const struct names *names)
{
	return names->workers;
}

/* ---- names ---- */

/* The caller's, and listed nowhere. NULL: there is no memory. */
static struct name *new_name(const struct names_claim *claim, uint64_t hash)
{
	struct name *name = calloc(1, offsetof(struct name, key) + claim->key.len + 1);
	if (!name)
		return NULL;
	atomic_init(&name->refs, 1);
	name->most = claim->most;
	name->worker = claim->worker;
	name->channel = claim->channel;
	name->kind = claim->kind;
	name->hash = hash;
	name->len = (uint8_t)claim->key.len;
	memcpy(name->key, claim->key.data, claim->key.len);
	return name;
}

void names_hold(struct name *name)
{
	atomic_fetch_add_explicit(&name->refs, 1, memory_order_relaxed);
}

void names_leave(struct name *name)
{
	if (name && atomic_fetch_sub_explicit(&name->refs, 1, memory_order_acq_rel) == 1)
		free(name);
}

/* ---- parts: their lock is held ---- */

static struct names_part *lock_part(struct names *names, uint64_t hash)
{
	struct names_part *part = &names->parts[hash >> PART_SHIFT];
	pthread_mutex_lock(&part->lock);
	return part;
}

/* NULL: nobody has it. */
static struct name *find_name(const struct names_part *part, struct names_key key, uint64_t hash)
{
	struct name *each = part->slot_count ? part->slots[hash & (part->slot_count - 1)] : NULL;
	for (; each; each = each->chain)
		if (each->hash == hash && each->len == key.len && !memcmp(each->key, key.data, key.len))
			break;
	return each;
}

static void hang(struct name **slots, size_t slot_count, struct name *name)
{
	struct name **slot = &slots[name->hash & (slot_count - 1)];
	name->chain = *slot;
	*slot = name;
}

/* The directory holds it from now on. There are slots. */
static void list_name(struct names_part *part, struct name *name)
{
	names_hold(name);
	hang(part->slots, part->slot_count, name);
	atomic_store_explicit(&name->is_listed, true, memory_order_relaxed);
	part->count++;
}

/* What the directory held is the caller's. */
static void unlist_name(struct names_part *part, struct name *name)
{
	struct name **link = &part->slots[name->hash & (part->slot_count - 1)];
	while (*link != name)
		link = &(*link)->chain;
	*link = name->chain;
	if (name->kind)
		kind_leave_place(name->kind, name->worker);
	atomic_store_explicit(&name->is_listed, false, memory_order_relaxed);
	part->count--;
}

/* Returns the slots that are of no use any more. */
static struct name **use_slots(struct names_part *part, struct name **slots, size_t slot_count)
{
	struct name **old = part->slots;
	for (size_t i = 0; i < part->slot_count; i++)
		for (struct name *next, *each = old[i]; each; each = next) {
			next = each->chain;
			hang(slots, slot_count, each);
		}
	part->slots = slots;
	part->slot_count = slot_count;
	return old;
}

/* ---- slots: their memory is taken, and given back, while no lock is held ---- */

/* So that one name more has its place; where there is no memory for more slots, in those that there are. */
static bool make_slots(struct names *names, uint64_t hash)
{
	struct names_part *part = lock_part(names, hash);
	size_t had = part->slot_count, wanted = !had ? SLOTS_FIRST : part->count >= had ? 2 * had : had;
	pthread_mutex_unlock(&part->lock);
	if (wanted == had)
		return true;
	struct name **slots = calloc(wanted, sizeof *slots);
	if (!slots)
		return had;
	lock_part(names, hash);
	if (part->slot_count == had)
		slots = use_slots(part, slots, wanted);
	pthread_mutex_unlock(&part->lock);
	free(slots);
	return true;
}

static struct name *make_name(struct names *names, const struct names_claim *claim, uint64_t hash)
{
	return make_slots(names, hash) ? new_name(claim, hash) : NULL;
}

/* ---- who has what ---- */

enum names_error names_claim(struct names *names, const struct names_claim *claim, struct name **name,
			     struct name **before)
{
	uint64_t hash = siphash(&names->key, claim->key.data, claim->key.len);
	struct name *made = make_name(names, claim, hash);
	*before = NULL;
	if (!made)
		return NAMES_NO_MEMORY;
	struct names_part *part = lock_part(names, hash);
	struct name *other = find_name(part, claim->key, hash);
	bool is_refused = other && !claim->replaces;
	if (!is_refused) {
		if (other)
			unlist_name(part, other);
		list_name(part, made);
	}
	pthread_mutex_unlock(&part->lock);
	if (is_refused) {
		names_leave(made);
		return NAMES_EXISTS;
	}
	*before = other;
	*name = made;
	return NAMES_OK;
}

bool names_release(struct names *names, struct name *name)
{
	struct names_part *part = lock_part(names, name->hash);
	bool was_listed = names_is_listed(name);
	if (was_listed)
		unlist_name(part, name);
	pthread_mutex_unlock(&part->lock);
	if (was_listed)
		names_leave(name);
	return was_listed;
}

/* One message more to it, if it takes that. */
static enum names_error hold_for_message(struct name *name)
{
	unsigned waiting = atomic_fetch_add_explicit(&name->waiting, 1, memory_order_relaxed);
	if (waiting >= name->most) {
		names_taken(name);
		return NAMES_BUSY;
	}
	names_hold(name);
	return NAMES_OK;
}

/* NAMES_ABSENT, or what became of it. */
static enum names_error find_listed(struct names *names, struct names_key key, uint64_t hash,
				    struct name **name)
{
	struct names_part *part = lock_part(names, hash);
	*name = find_name(part, key, hash);
	enum names_error error = *name ? hold_for_message(*name) : NAMES_ABSENT;
	pthread_mutex_unlock(&part->lock);
	return error;
}

enum names_error names_find(struct names *names, struct names_key key, const struct names_birth *birth,
			    struct name **name)
{
	uint64_t hash = siphash(&names->key, key.data, key.len);
	enum names_error error = find_listed(names, key, hash, name);
	if (error != NAMES_ABSENT || !birth)
		return error;
	struct names_claim claim = { .key = key,
				     .most = birth->most,
				     .worker = (unsigned)((hash >> 16) % names->workers),
				     .kind = birth->kind };
	struct name *made = make_name(names, &claim, hash);
	if (!made)
		return NAMES_NO_MEMORY;
	struct names_part *part = lock_part(names, hash);
	*name = find_name(part, key, hash); /* another may have been quicker */
	if (!*name && kind_take_place(birth->kind, made->worker, birth->at_once))
		list_name(part, *name = made);
	error = *name ? hold_for_message(*name) : NAMES_CROWDED;
	pthread_mutex_unlock(&part->lock);
	names_leave(made);
	return error;
}

void names_lead(struct names *names, struct name *name, uint64_t channel)
{
	struct names_part *part = lock_part(names, name->hash);
	name->channel = channel;
	pthread_mutex_unlock(&part->lock);
}

bool names_release_unused(struct names *names, struct name *name)
{
	struct names_part *part = lock_part(names, name->hash);
	bool is_unused = names_is_listed(name) && !name->channel &&
			 !atomic_load_explicit(&name->waiting, memory_order_relaxed);
	if (is_unused)
		unlist_name(part, name);
	pthread_mutex_unlock(&part->lock);
	if (is_unused)
		names_leave(name);
	return is_unused;
}

size_t names_count(struct names *names)
{
	size_t sum = 0;
	for (unsigned i = 0; i < PARTS; i++) {
		struct names_part *part = &names->parts[i];
		pthread_mutex_lock(&part->lock);
		sum += part->count;
		pthread_mutex_unlock(&part->lock);
	}
	return sum;
}

/* ---- boxes ---- */

void names_open_box(struct names *names, unsigned worker, void *owner)
{
	inbox_open(&names->boxes[worker], owner);
}

void names_close_box(struct names *names, unsigned worker)
{
	inbox_close(&names->boxes[worker]);
}

bool names_reserve(struct names *names, unsigned worker, size_t bytes)
{
	return inbox_reserve(&names->boxes[worker], bytes, NAMES_UNDERWAY_BYTES);
}

void names_return(struct names *names, unsigned worker, size_t bytes)
{
	inbox_return(&names->boxes[worker], bytes);
}

void names_ring_all(struct names *names)
{
	for (unsigned i = 0; i < names->workers; i++)
		inbox_ring(&names->boxes[i], names->ring);
}

void names_post(struct names *names, unsigned worker, struct mail *mail)
{
	inbox_post(&names->boxes[worker], mail, names->ring);
}

bool names_has_mail(const struct names *names, unsigned worker)
{
	return inbox_has_mail(&names->boxes[worker]);
}

struct mail *names_collect(struct names *names, unsigned worker)
{
	return inbox_collect(&names->boxes[worker]);
}
