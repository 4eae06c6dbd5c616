/*
 * Names of topics, patterns of such names, and tables of either: "room.7.chat" is a name; in a pattern "*" stands for
 * any one part, and ">", which comes last, for one part or more.
 *
 * A table holds what its user embeds a struct topic in. Names are in a hash, patterns in a trie by their parts, whose
 * edges are in a hash as well: so a name finds its patterns in as many steps as it has parts, however many there are
 * beside them; each "*" on the way doubles that at most.
 *
 * Threads: one at a time has a table.
 */
#pragma once

#include "dict/siphash.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	TOPIC_BYTES_MAX = 255,
	TOPIC_PARTS_MAX = 16,
	TOPIC_STARS_MAX =
	    4, /* so a name of 16 parts has some thousand ways at most to patterns that it fits */
};

enum topic_kind { TOPIC_MALFORMED, TOPIC_NAME, TOPIC_PATTERN };

/* What it is; of what is malformed, *why says that in words (static text). */
enum topic_kind topic_check(const char *text, size_t len, const char **why);

struct topic {
	struct topic *chain; /* of its slot: the table's, as are the next two */
	struct topic_part *part;
	uint64_t hash;
	const char *name; /* `len` bytes; the user's, as long as it is in a table */
	uint8_t len;
	bool is_pattern;
};

struct topic_map {
	struct topic **slots; /* NULL: it has had none */
	size_t slot_count;    /* a power of two */
	size_t count;
};

struct topic_trie {
	struct topic_part *root; /* NULL: it has had none */
	struct topic_part **slots;
	size_t slot_count, part_count;
	uint64_t last_number;
	size_t count; /* patterns */
};

/* ---- names, by the hash of their bytes ---- */

struct topic *topic_map_find(const struct topic_map *map, const char *name, size_t len, uint64_t hash);

/* It is not there; its hash is set. 0 or UV_ENOMEM. */
int topic_map_add(struct topic_map *map, struct topic *topic);
void topic_map_remove(struct topic_map *map, struct topic *topic);
void topic_map_free(struct topic_map *map);

/* ---- patterns ---- */

struct topic *topic_trie_find(const struct topic_trie *trie, const struct siphash_key *key,
			      const char *pattern, size_t len);

/* It is not there. 0 or UV_ENOMEM. */
int topic_trie_add(struct topic_trie *trie, const struct siphash_key *key, struct topic *topic);
void topic_trie_remove(struct topic_trie *trie, struct topic *topic);
void topic_trie_free(struct topic_trie *trie);

/* Calls `visit` for each pattern that the name fits; it must not change the trie. */
void topic_trie_match(const struct topic_trie *trie, const struct siphash_key *key, const char *name,
		      size_t len, void (*visit)(struct topic *topic, void *data), void *data);
