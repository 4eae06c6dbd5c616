/*
 * A dictionary that all workers share: keys to values, within a bound of bytes.
 *
 * It is divided into parts by the hash of the key, each with a lock. While a lock is held nothing is allocated, no Lua
 * runs, and what is done takes a few steps: nobody is held up by how large a value is, or by who asks for it. A value
 * that is read is therefore held, not copied: dict_release(). What has no room makes some: first what was used longest
 * ago in its part goes, then in the next ones. What is replaced gives its own room to what comes.
 *
 * Threads: any. Times are milliseconds of one clock that all callers have in common.
 */
#pragma once

#include "dict/siphash.h"

#include <stdbool.h>

enum { DICT_KEY_MAX = 65535, DICT_BYTES_MIN = 65536, DICT_NAME_MAX = 64 };

#define DICT_NEVER UINT64_MAX /* it does not expire */

enum dict_kind {
	DICT_NUMBER,
	DICT_BOOLEAN,
	DICT_STRING,
	DICT_PACKED, /* bytes that the caller has made of something else */
};

struct dict;
struct dict_entry;

struct dict_key {
	const char *data;
	size_t len;
};

struct dict_value {
	enum dict_kind kind;
	double number;    /* DICT_NUMBER; DICT_BOOLEAN: 0 or 1 */
	const char *data; /* DICT_STRING, DICT_PACKED */
	size_t len;
	uint64_t version;        /* of what was read: dict_put() with DICT_IF_VERSION; 0: there was nothing */
	struct dict_entry *held; /* of what was read */
};

enum dict_error {
	DICT_OK,
	DICT_EXISTS,    /* DICT_IF_ABSENT: there is a value */
	DICT_ABSENT,    /* DICT_IF_PRESENT, and dict_incr() without a beginning: there is none */
	DICT_CHANGED,   /* DICT_IF_VERSION: it is another */
	DICT_NO_NUMBER, /* dict_incr(): it is something else */
	DICT_TOO_LARGE, /* the value: it has no room even in an empty one */
	DICT_BUSY,      /* others have all of the room just now, and use it */
	DICT_NO_MEMORY,
};

enum dict_condition { DICT_ALWAYS, DICT_IF_ABSENT, DICT_IF_PRESENT, DICT_IF_VERSION };

struct dict_counts {
	uint64_t entries, hits, misses;
	uint64_t evicted; /* for want of room, before their time */
	uint64_t expired;
	size_t bytes, limit;
};

/*
 * Of at most so many bytes, its own index included; DICT_BYTES_MIN at least. The key is secret where keys come from
 * others. NULL: there is no memory.
 */
struct dict *dict_new(size_t bytes, const struct siphash_key *key);

/* Nobody uses it any more, or holds a value of it. */
void dict_free(struct dict *dict);

size_t dict_limit(const struct dict *dict);

/* True: *value is held, until dict_release(). */
bool dict_get(struct dict *dict, struct dict_key key, uint64_t now_ms, struct dict_value *value);
void dict_release(struct dict *dict, const struct dict_value *value);

/* What the value refers to is copied. value->version counts with DICT_IF_VERSION. */
enum dict_error dict_put(struct dict *dict, struct dict_key key, const struct dict_value *value,
			 enum dict_condition condition, uint64_t expires_ms, uint64_t now_ms);

/*
 * Adds to a number, at once for all. One that is not there begins with `*begin`, and expires then; NULL: DICT_ABSENT.
 * *sum: what it is now.
 */
enum dict_error dict_incr(struct dict *dict, struct dict_key key, double by, const double *begin,
			  uint64_t expires_ms, uint64_t now_ms, double *sum);

/* True: there was one. `version`: that one only; 0: any. */
bool dict_delete(struct dict *dict, struct dict_key key, uint64_t version, uint64_t now_ms);

/* False: there is none. */
bool dict_expire(struct dict *dict, struct dict_key key, uint64_t expires_ms, uint64_t now_ms);

/* The same; *expires_ms may be DICT_NEVER. Neither counts as a use. */
bool dict_expiry(struct dict *dict, struct dict_key key, uint64_t now_ms, uint64_t *expires_ms);

/* How far a walk has come; all zero: it begins. */
struct dict_place {
	unsigned part;
	size_t slot;
};

/*
 * Holds up to `max` entries that have not expired, and goes on; returns how many, which may be none before the end. To
 * be given back, each: dict_leave(). What comes and goes meanwhile may be seen or not.
 */
size_t dict_walk(struct dict *dict, struct dict_place *place, uint64_t now_ms, struct dict_entry **entries,
		 size_t max);
bool dict_is_walked(const struct dict_place *place);
struct dict_key dict_entry_key(const struct dict_entry *entry);
void dict_leave(struct dict *dict, struct dict_entry *entry);

/* Removes some. False: there were none. */
bool dict_clear_some(struct dict *dict);

void dict_count(struct dict *dict, struct dict_counts *counts);
