#include "server/admission.h"

#include <assert.h>
#include <math.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* ---- who is who ---- */

static uint64_t big_endian(const uint8_t *bytes, size_t n)
{
	uint64_t value = 0;
	for (size_t i = 0; i < n; i++)
		value = value << 8 | bytes[i];
	return value;
}

enum { FAMILY_V4 = 4, FAMILY_V6 = 6, FAMILY_LINK = 7 };

static struct peer_key key_of_v4(const uint8_t address[4])
{
	return (struct peer_key){ .bits = big_endian(address, 4), .family = FAMILY_V4, .counted = true };
}

/* All hosts of all links share fe80::/64: it is the rest that tells them apart, and the link. */
static struct peer_key key_of_link(const struct sockaddr_in6 *in6)
{
	uint64_t link = in6->sin6_scope_id * UINT64_C(0x9e3779b97f4a7c15);
	return (struct peer_key){ .bits = big_endian(in6->sin6_addr.s6_addr + 8, 8) ^ link,
				  .family = FAMILY_LINK,
				  .counted = true };
}

struct peer_key peer_key_of(const struct sockaddr *addr)
{
	if (addr && addr->sa_family == AF_INET) {
		struct sockaddr_in in;
		memcpy(&in, addr, sizeof in); /* struct sockaddr promises less alignment */
		return key_of_v4((const uint8_t *)&in.sin_addr);
	}
	if (addr && addr->sa_family == AF_INET6) {
		struct sockaddr_in6 in6;
		memcpy(&in6, addr, sizeof in6);
		const uint8_t *address = in6.sin6_addr.s6_addr;
		if (IN6_IS_ADDR_V4MAPPED(&in6.sin6_addr))
			return key_of_v4(address + 12);
		if (IN6_IS_ADDR_LINKLOCAL(&in6.sin6_addr))
			return key_of_link(&in6);
		return (
		    struct peer_key){ .bits = big_endian(address, 8), .family = FAMILY_V6, .counted = true };
	}
	return (struct peer_key){ .counted = false };
}

/* ---- connections per peer ---- */

enum { MIN_SLOTS = 16 };

struct slot {
	uint64_t bits;
	uint32_t count; /* 0: the slot is empty */
	uint8_t family;
};

/* Linear probing in a power of two of slots, at most three quarters of them in use. */
struct peer_table {
	pthread_mutex_t lock;
	struct slot *slots;
	size_t mask, used;
	uint64_t seed; /* peers choose their addresses; they must not choose their slots */
};

static uint64_t random_seed(const struct peer_table *table)
{
	uint64_t seed;
	if (getentropy(&seed, sizeof seed) != 0)
		seed = (uint64_t)time(NULL) ^ (uintptr_t)table;
	return seed;
}

struct peer_table *peer_table_new(void)
{
	struct peer_table *table = calloc(1, sizeof *table);
	if (!table)
		return NULL;
	table->slots = calloc(MIN_SLOTS, sizeof *table->slots);
	if (!table->slots)
		goto no_slots;
	if (pthread_mutex_init(&table->lock, NULL) != 0)
		goto no_lock;
	table->mask = MIN_SLOTS - 1;
	table->seed = random_seed(table);
	return table;
no_lock:
	free(table->slots);
no_slots:
	free(table);
	return NULL;
}

void peer_table_free(struct peer_table *table)
{
	if (!table)
		return;
	pthread_mutex_destroy(&table->lock);
	free(table->slots);
	free(table);
}

/* Where the search for a key begins. The mixing is MurmurHash3's finaliser. */
static size_t home(const struct peer_table *table, uint64_t bits, uint8_t family)
{
	uint64_t h = (bits ^ table->seed) + family;
	h = (h ^ h >> 33) * UINT64_C(0xff51afd7ed558ccd);
	h = (h ^ h >> 33) * UINT64_C(0xc4ceb9fe1a85ec53);
	return (size_t)(h ^ h >> 33) & table->mask;
}

/* The key's slot, or the empty one where it would go. */
static struct slot *admission_find(const struct peer_table *table, struct peer_key key)
{
	size_t i = home(table, key.bits, key.family);
	for (;; i = (i + 1) & table->mask) {
		struct slot *slot = &table->slots[i];
		if (slot->count == 0 || (slot->bits == key.bits && slot->family == key.family))
			return slot;
	}
}

/* False: no memory, and nothing changed. */
static bool admission_resize(struct peer_table *table, size_t slots)
{
	struct slot *old = table->slots;
	size_t old_slots = table->mask + 1;
	struct slot *fresh = calloc(slots, sizeof *fresh);
	if (!fresh)
		return false;
	table->slots = fresh;
	table->mask = slots - 1;
	for (size_t i = 0; i < old_slots; i++) {
		if (old[i].count == 0)
			continue;
		struct peer_key key = { .bits = old[i].bits, .family = old[i].family };
		*admission_find(table, key) = old[i];
	}
	free(old);
	return true;
}

/*
 * Empties slots[hole] and closes the gap: each later slot of the run moves into the hole unless it
 * would then lie before its home, where no search would find it. Tombstones would be simpler, but
 * with peers coming and going all day they would fill the table.
 */
static void remove_at(struct peer_table *table, size_t hole)
{
	struct slot *slots = table->slots;
	size_t mask = table->mask;
	for (size_t i = (hole + 1) & mask; slots[i].count > 0; i = (i + 1) & mask) {
		size_t from_home = (i - home(table, slots[i].bits, slots[i].family)) & mask;
		if (from_home < ((i - hole) & mask))
			continue;
		slots[hole] = slots[i];
		hole = i;
	}
	slots[hole] = (struct slot){ 0 };
	table->used--;
}

static bool insert(struct peer_table *table, struct peer_key key)
{
	size_t slots = table->mask + 1;
	if ((table->used + 1) * 4 > slots * 3 && !admission_resize(table, slots * 2))
		return false;
	*admission_find(table, key) = (struct slot){ .bits = key.bits, .family = key.family, .count = 1 };
	table->used++;
	return true;
}

bool peer_table_enter(struct peer_table *table, struct peer_key key, uint32_t limit)
{
	if (!key.counted)
		return true;
	pthread_mutex_lock(&table->lock);
	struct slot *slot = admission_find(table, key);
	bool admitted = slot->count < limit;
	if (admitted && slot->count > 0)
		slot->count++;
	else if (admitted)
		admitted = insert(table, key);
	pthread_mutex_unlock(&table->lock);
	return admitted;
}

void peer_table_leave(struct peer_table *table, struct peer_key key)
{
	if (!key.counted)
		return;
	pthread_mutex_lock(&table->lock);
	struct slot *slot = admission_find(table, key);
	assert(slot->count > 0);
	if (--slot->count == 0) {
		remove_at(table, (size_t)(slot - table->slots));
		size_t slots = table->mask + 1;
		/* An eighth, well below the half a resize leaves: no thrashing at the border.
		 * Without memory for the smaller table the larger one does as well. */
		if (slots > MIN_SLOTS && table->used * 8 < slots)
			(void)admission_resize(table, slots / 2);
	}
	pthread_mutex_unlock(&table->lock);
}

uint32_t peer_table_count(struct peer_table *table, struct peer_key key)
{
	if (!key.counted)
		return 0;
	pthread_mutex_lock(&table->lock);
	uint32_t count = admission_find(table, key)->count;
	pthread_mutex_unlock(&table->lock);
	return count;
}

size_t peer_table_size(struct peer_table *table)
{
	pthread_mutex_lock(&table->lock);
	size_t used = table->used;
	pthread_mutex_unlock(&table->lock);
	return used;
}

const char *admission_limit(uint32_t open, uint32_t connections, struct peer_table *peers,
			    struct peer_key key, uint32_t per_ip)
{
	if (open >= connections)
		return "connections";
	if (peers && !peer_table_enter(peers, key, per_ip ? per_ip : UINT32_MAX))
		return "per_ip";
	return NULL;
}

/* ---- accepts a second ---- */

/* 2^53: up to here a double counts every millisecond. */
static const double MAX_WAIT_MS = 9007199254740992.0;

static double burst_of(const struct rate *rate)
{
	return rate->per_second > 1 ? rate->per_second : 1;
}

static double tokens_at(const struct rate *rate, uint64_t now_ms)
{
	uint64_t elapsed_ms = now_ms > rate->filled_ms ? now_ms - rate->filled_ms : 0;
	double tokens = rate->tokens + (double)elapsed_ms * rate->per_second / 1000;
	return tokens < burst_of(rate) ? tokens : burst_of(rate);
}

void rate_init(struct rate *rate, double per_second, uint64_t now_ms)
{
	bool limited = isfinite(per_second) && per_second > 0;
	*rate = (struct rate){ .per_second = limited ? per_second : 0, .filled_ms = now_ms };
	rate->tokens = burst_of(rate);
}

bool rate_take(struct rate *rate, uint64_t now_ms)
{
	if (rate->per_second <= 0)
		return true;
	double tokens = tokens_at(rate, now_ms);
	/* A refused attempt stores nothing: rounding cannot add up, and the wait that was announced
	 * stays exact however often one asks in between. */
	if (tokens < 1)
		return false;
	rate->tokens = tokens - 1;
	if (now_ms > rate->filled_ms)
		rate->filled_ms = now_ms;
	return true;
}

uint64_t rate_wait_ms(const struct rate *rate, uint64_t now_ms)
{
	if (rate->per_second <= 0 || tokens_at(rate, now_ms) >= 1)
		return 0;
	double fill_ms = (1 - rate->tokens) * 1000 / rate->per_second;
	if (fill_ms > MAX_WAIT_MS)
		fill_ms = MAX_WAIT_MS;
	uint64_t ready_ms = rate->filled_ms + (uint64_t)fill_ms;
	if (ready_ms < now_ms)
		ready_ms = now_ms;
	/* Rounding, by a step or two: the bucket itself has the last word. */
	while (tokens_at(rate, ready_ms) < 1 && fill_ms < MAX_WAIT_MS)
		ready_ms++;
	return ready_ms - now_ms;
}
