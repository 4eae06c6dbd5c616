/*
 * The shared dictionaries of a process, or of an app in memory, by their names. One lives as long as anybody has it:
 * each generation of the script has those that it declares.
 *
 * Threads: any.
 */
#pragma once

#include "dict/dict.h"

struct dicts;

/* NULL: there is no memory. Without a key, it is drawn: nobody can know where a key will lie. */
struct dicts *dicts_new(const struct siphash_key *key);

/* Nobody has any of them any more. */
void dicts_free(struct dicts *dicts);

/*
 * The caller has it until dicts_close(). Makes it, if there is none of that name; as large as it was made first. NULL:
 * there is no memory.
 */
struct dict *dicts_open(struct dicts *dicts, const char *name, size_t bytes);
void dicts_close(struct dicts *dicts, struct dict *dict);

/* Of the one that is number `at`, from 0, in the order in which they were made. False: there are no more. */
bool dicts_count(struct dicts *dicts, unsigned at, char name[DICT_NAME_MAX + 1], struct dict_counts *counts);
