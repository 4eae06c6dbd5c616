#include "hub/topic.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

enum { SLOTS_FIRST = 16 };

/* ---- names ---- */

static bool is_plain(char c)
{
	return (unsigned char)c > ' ' && c != 0x7f;
}

/* What is wrong with a part, or NULL. */
static const char *check_part(const char *part, size_t len, bool is_last, bool *is_wild)
{
	if (!len)
		return "a part of it is empty";
	for (size_t i = 0; i < len; i++) {
		bool wild = part[i] == '*' || part[i] == '>';
		if (!is_plain(part[i]))
			return "it has a blank or a control character";
		if (wild && len > 1)
			return "\"*\" and \">\" are whole parts";
		*is_wild = *is_wild || wild;
	}
	return *part == '>' && !is_last ? "\">\" comes last" : NULL;
}

enum topic_kind topic_check(const char *text, size_t len, const char **why)
{
	size_t parts = 0, stars = 0;
	bool is_wild = false;
	*why = !len                    ? "it is empty"
	       : len > TOPIC_BYTES_MAX ? "it has more than 255 bytes"
	       : *text == '$'          ? "topics that begin with \"$\" are the core's own"
				       : NULL;
	for (size_t at = 0; !*why && at <= len;) {
		const char *end = memchr(text + at, '.', len - at);
		size_t n = end ? (size_t)(end - (text + at)) : len - at;
		stars += n == 1 && text[at] == '*';
		*why = ++parts > TOPIC_PARTS_MAX ? "it has more than 16 parts"
		       : stars > TOPIC_STARS_MAX ? "it has more than 4 times \"*\""
						 : check_part(text + at, n, !end, &is_wild);
		at += n + 1;
	}
	return *why ? TOPIC_MALFORMED : is_wild ? TOPIC_PATTERN : TOPIC_NAME;
}

/* ---- the hash of names ---- */

struct topic *topic_map_find(const struct topic_map *map, const char *name, size_t len, uint64_t hash)
{
	struct topic *each = map->slot_count ? map->slots[hash & (map->slot_count - 1)] : NULL;
	while (each && (each->hash != hash || each->len != len || memcmp(each->name, name, len) != 0))
		each = each->chain;
	return each;
}

static void hang_topic(struct topic **slots, size_t slot_count, struct topic *topic)
{
	struct topic **slot = &slots[topic->hash & (slot_count - 1)];
	topic->chain = *slot;
	*slot = topic;
}

/* False: there is no memory, and no slot. Where there are slots, names have their places in those. */
static bool grow_map(struct topic_map *map)
{
	size_t wanted = map->slot_count ? 2 * map->slot_count : SLOTS_FIRST;
	struct topic **slots = calloc(wanted, sizeof *slots);
	if (!slots)
		return map->slot_count;
	for (size_t i = 0; i < map->slot_count; i++)
		for (struct topic *next, *each = map->slots[i]; each; each = next) {
			next = each->chain;
			hang_topic(slots, wanted, each);
		}
	free(map->slots);
	map->slots = slots;
	map->slot_count = wanted;
	return true;
}

int topic_map_add(struct topic_map *map, struct topic *topic)
{
	if (map->count >= map->slot_count && !grow_map(map))
		return UV_ENOMEM;
	hang_topic(map->slots, map->slot_count, topic);
	map->count++;
	return 0;
}

void topic_map_remove(struct topic_map *map, struct topic *topic)
{
	struct topic **link = &map->slots[topic->hash & (map->slot_count - 1)];
	while (*link != topic)
		link = &(*link)->chain;
	*link = topic->chain;
	map->count--;
}

void topic_map_free(struct topic_map *map)
{
	free(map->slots);
	*map = (struct topic_map){ 0 };
}

/* ---- the trie of patterns ---- */

/* What patterns have in common up to some part. An edge is found by the number of where it begins, and its text. */
struct topic_part {
	struct topic_part *chain, *parent;
	struct topic *ends, *rest; /* the pattern that ends here; or goes on with ">" */
	uint64_t hash, number;
	size_t children;
	uint8_t len;
	char text[];
};

static uint64_t hash_edge(const struct siphash_key *key, const struct topic_part *parent, const char *text,
			  size_t len)
{
	char edge[sizeof parent->number + TOPIC_BYTES_MAX];
	memcpy(edge, &parent->number, sizeof parent->number);
	memcpy(edge + sizeof parent->number, text, len);
	return siphash(key, edge, sizeof parent->number + len);
}

static struct topic_part *find_part(const struct topic_trie *trie, const struct siphash_key *key,
				    const struct topic_part *parent, const char *text, size_t len)
{
	if (!parent->children)
		return NULL;
	uint64_t hash = hash_edge(key, parent, text, len);
	struct topic_part *each = trie->slots[hash & (trie->slot_count - 1)];
	while (each && (each->hash != hash || each->parent != parent || each->len != len ||
			memcmp(each->text, text, len) != 0))
		each = each->chain;
	return each;
}

static void hang_part(struct topic_part **slots, size_t slot_count, struct topic_part *part)
{
	struct topic_part **slot = &slots[part->hash & (slot_count - 1)];
	part->chain = *slot;
	*slot = part;
}

static bool grow_trie(struct topic_trie *trie)
{
	size_t wanted = trie->slot_count ? 2 * trie->slot_count : SLOTS_FIRST;
	struct topic_part **slots = calloc(wanted, sizeof(struct topic_part *));
	if (!slots)
		return trie->slot_count;
	for (size_t i = 0; i < trie->slot_count; i++)
		for (struct topic_part *next, *each = trie->slots[i]; each; each = next) {
			next = each->chain;
			hang_part(slots, wanted, each);
		}
	free(trie->slots);
	trie->slots = slots;
	trie->slot_count = wanted;
	return true;
}

/* NULL: there is no memory. */
static struct topic_part *add_part(struct topic_trie *trie, const struct siphash_key *key,
				   struct topic_part *parent, const char *text, size_t len)
{
	if (trie->part_count >= trie->slot_count && !grow_trie(trie))
		return NULL;
	struct topic_part *part = calloc(1, sizeof *part + len);
	if (!part)
		return NULL;
	part->parent = parent;
	part->hash = hash_edge(key, parent, text, len);
	part->number = ++trie->last_number;
	part->len = (uint8_t)len;
	memcpy(part->text, text, len);
	hang_part(trie->slots, trie->slot_count, part);
	trie->part_count++;
	parent->children++;
	return part;
}

static bool is_used(const struct topic_part *part)
{
	return part->ends || part->rest || part->children;
}

/* Parts that no pattern has any more, from the last one on; the root stays. */
static void drop_parts(struct topic_trie *trie, struct topic_part *part)
{
	while (part->parent && !is_used(part)) {
		struct topic_part *parent = part->parent,
				  **link = &trie->slots[part->hash & (trie->slot_count - 1)];
		while (*link != part)
			link = &(*link)->chain;
		*link = part->chain;
		free(part);
		trie->part_count--;
		parent->children--;
		part = parent;
	}
}

/* The part of `text` at *at, which is moved behind it; false: there are no more. */
static bool next_topic_part(const char *text, size_t len, size_t *at, const char **part, size_t *n)
{
	if (*at > len)
		return false;
	const char *end = memchr(text + *at, '.', len - *at);
	*part = text + *at;
	*n = end ? (size_t)(end - *part) : len - *at;
	*at += *n + 1;
	return true;
}

static bool is_rest(const char *part, size_t n)
{
	return n == 1 && *part == '>';
}

struct topic *topic_trie_find(const struct topic_trie *trie, const struct siphash_key *key,
			      const char *pattern, size_t len)
{
	const struct topic_part *at = trie->root;
	const char *part;
	size_t n, place = 0;
	while (at && next_topic_part(pattern, len, &place, &part, &n)) {
		if (is_rest(part, n))
			return at->rest;
		at = find_part(trie, key, at, part, n);
	}
	return at ? at->ends : NULL;
}

/* Where a pattern ends: *is_rest_of says that ">" follows. NULL: there is no memory. */
static struct topic_part *make_parts(struct topic_trie *trie, const struct siphash_key *key,
				     const struct topic *topic, bool *is_rest_of)
{
	struct topic_part *at = trie->root, *next;
	const char *part;
	size_t n, place = 0;
	*is_rest_of = false;
	while (next_topic_part(topic->name, topic->len, &place, &part, &n)) {
		*is_rest_of = is_rest(part, n);
		if (*is_rest_of)
			break;
		next = find_part(trie, key, at, part, n);
		if (!next)
			next = add_part(trie, key, at, part, n);
		if (!next) {
			drop_parts(trie, at);
			return NULL;
		}
		at = next;
	}
	return at;
}

int topic_trie_add(struct topic_trie *trie, const struct siphash_key *key, struct topic *topic)
{
	bool is_rest_of;
	if (!trie->root)
		trie->root = calloc(1, sizeof *trie->root);
	struct topic_part *at = trie->root ? make_parts(trie, key, topic, &is_rest_of) : NULL;
	if (!at)
		return UV_ENOMEM;
	*(is_rest_of ? &at->rest : &at->ends) = topic;
	topic->part = at;
	trie->count++;
	return 0;
}

void topic_trie_remove(struct topic_trie *trie, struct topic *topic)
{
	struct topic_part *part = topic->part;
	*(part->rest == topic ? &part->rest : &part->ends) = NULL;
	trie->count--;
	drop_parts(trie, part);
}

void topic_trie_free(struct topic_trie *trie)
{
	assert(!trie->part_count);
	free(trie->root);
	free(trie->slots);
	*trie = (struct topic_trie){ 0 };
}

struct matching {
	const struct topic_trie *trie;
	const struct siphash_key *key;
	const char *name;
	size_t len;
	void (*visit)(struct topic *topic, void *data);
	void *data;
};

/* From the part of the name at `place` on. As deep as a name has parts, which are few. */
static void match_from(const struct matching *m, const struct topic_part *at, size_t place)
{
	const char *part;
	size_t n;
	if (!next_topic_part(m->name, m->len, &place, &part, &n)) {
		if (at->ends)
			m->visit(at->ends, m->data);
		return;
	}
	if (at->rest)
		m->visit(at->rest, m->data);
	const struct topic_part *same = find_part(m->trie, m->key, at, part, n),
				*any = find_part(m->trie, m->key, at, "*", 1);
	if (same)
		match_from(m, same, place);
	if (any)
		match_from(m, any, place);
}

void topic_trie_match(const struct topic_trie *trie, const struct siphash_key *key, const char *name,
		      size_t len, void (*visit)(struct topic *topic, void *data), void *data)
{
	const struct matching matching = { trie, key, name, len, visit, data };
	if (trie->count)
		match_from(&matching, trie->root, 0);
}
