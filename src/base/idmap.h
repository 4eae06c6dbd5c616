/*
 * Connection ids to pointers: open addressing over multiplicatively hashed keys.
 *
 * Ids are handed out in ascending order and never reused: a stale id finds
 * nothing instead of somebody else.
 *
 * Threads: one owner.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct idmap_slot {
	uint64_t id; /* 0: empty */
	void *value;
};

struct idmap {
	struct idmap_slot *slots;
	size_t capacity; /* a power of two, or 0 */
	size_t count;
};

void idmap_init(struct idmap *map);
void idmap_deinit(struct idmap *map);

/* id must not be 0 nor present. 0, or UV_ENOMEM with the map unchanged. */
int idmap_put(struct idmap *map, uint64_t id, void *value);

/* NULL when absent. */
void *idmap_get(const struct idmap *map, uint64_t id);

void idmap_remove(struct idmap *map, uint64_t id);

/*
 * One step of a walk that may take its time: calls `visit` for the few ids that have their place in common, and moves
 * *cursor on to the next place. Begin with a cursor of 0; the walk is over when it is 0 again. Whatever comes and goes
 * between two steps, and though the map is resized: an id that stays all the while is visited, some of them twice.
 * `visit` must not change the map. Returns how many it was called for.
 */
unsigned idmap_walk(const struct idmap *map, uint64_t *cursor, void (*visit)(void *value, void *data),
		    void *data);
