#include "base/idmap.h"

#include <errno.h>
#include <stdlib.h>

enum { IDMAP_MIN = 64 };

void idmap_init(struct idmap *map)
{
	*map = (struct idmap){ 0 };
}

void idmap_deinit(struct idmap *map)
{
	free(map->slots);
	idmap_init(map);
}

/*
 * Where id would like to be (Knuth's multiplicative hash). Ids are consecutive, and their low bits alone
 * would do for look-ups; but then the live ones form one unbroken run, which every removal walks to
 * its end.
 */
static size_t home_of(const struct idmap *map, uint64_t id)
{
	return (size_t)((id * UINT64_C(0x9E3779B97F4A7C15)) >> 32) & (map->capacity - 1);
}

/* The slot that holds id, or the empty one where it would go. */
static size_t probe(const struct idmap *map, uint64_t id)
{
	size_t mask = map->capacity - 1, at = home_of(map, id);
	while (map->slots[at].id && map->slots[at].id != id)
		at = (at + 1) & mask;
	return at;
}

static int idmap_resize(struct idmap *map, size_t capacity)
{
	struct idmap old = *map;
	struct idmap_slot *slots = calloc(capacity, sizeof *slots);
	if (!slots)
		return -ENOMEM;
	map->slots = slots;
	map->capacity = capacity;
	for (size_t i = 0; i < old.capacity; i++)
		if (old.slots[i].id)
			slots[probe(map, old.slots[i].id)] = old.slots[i];
	free(old.slots);
	return 0;
}

int idmap_put(struct idmap *map, uint64_t id, void *value)
{
	if ((map->count + 1) * 4 > map->capacity * 3) {
		int err = idmap_resize(map, map->capacity ? map->capacity * 2 : IDMAP_MIN);
		if (err)
			return err;
	}
	map->slots[probe(map, id)] = (struct idmap_slot){ id, value };
	map->count++;
	return 0;
}

void *idmap_get(const struct idmap *map, uint64_t id)
{
	if (!map->capacity || !id)
		return NULL;
	return map->slots[probe(map, id)].value;
}

/* Moves later entries of the run back, so that no tombstone is ever needed. */
static void close_gap(struct idmap *map, size_t hole)
{
	size_t mask = map->capacity - 1, at = hole;
	for (;;) {
		at = (at + 1) & mask;
		if (!map->slots[at].id)
			break;
		size_t home = home_of(map, map->slots[at].id);
		if (((at - home) & mask) < ((at - hole) & mask))
			continue;
		map->slots[hole] = map->slots[at];
		hole = at;
	}
	map->slots[hole] = (struct idmap_slot){ 0 };
}

void idmap_remove(struct idmap *map, uint64_t id)
{
	if (!idmap_get(map, id))
		return;
	close_gap(map, probe(map, id));
	map->count--;
	/* Shrinking far below the growth point keeps this from see-sawing; a failure is harmless. */
	if (map->capacity > IDMAP_MIN && map->count * 8 < map->capacity)
		(void)idmap_resize(map, map->capacity / 2);
}

/*
 * The home after this one, where the highest bit of a home is counted as the lowest. A home of a smaller map is
 * followed, in a larger one, by all those that its ids may have moved to; and of those the smaller map makes one. So
 * homes that were visited stay visited when the map is resized. (Redis walks its tables like that.) 0: there is none.
 */
static uint64_t next_home(uint64_t home, uint64_t capacity)
{
	uint64_t bit = capacity >> 1;
	while (bit && home & bit) {
		home &= ~bit;
		bit >>= 1;
	}
	return home | bit;
}

/* By homes and not by slots: a removal moves others to earlier slots, past whoever walks. */
unsigned idmap_walk(const struct idmap *map, uint64_t *cursor, void (*visit)(void *value, void *data),
		    void *data)
{
	if (!map->capacity)
		return (unsigned)(*cursor = 0);
	size_t mask = map->capacity - 1, home = *cursor & mask;
	unsigned visited = 0;
	for (size_t at = home; map->slots[at].id; at = (at + 1) & mask) {
		if (home_of(map, map->slots[at].id) != home)
			continue;
		visit(map->slots[at].value, data);
		visited++;
	}
	*cursor = next_home(home, map->capacity);
	return visited;
}
