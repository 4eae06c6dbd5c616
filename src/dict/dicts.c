#include "dict/dicts.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

struct named {
	struct named *next;
	struct dict *dict;
	unsigned users;
	char name[DICT_NAME_MAX + 1];
};

struct dicts {
	pthread_mutex_t lock;
	struct siphash_key key;
	struct named *first;
};

struct dicts *dicts_new(const struct siphash_key *key)
{
	struct dicts *dicts = calloc(1, sizeof *dicts);
	if (!dicts)
		return NULL;
	pthread_mutex_init(&dicts->lock, NULL);
	if (key)
		dicts->key = *key;
	else if (getrandom(&dicts->key, sizeof dicts->key, 0) != sizeof dicts->key)
		dicts->key.low = (uint64_t)(uintptr_t)dicts; /* so early after a start of the machine */
	return dicts;
}

static void free_named(struct named *named)
{
	dict_free(named->dict);
	free(named);
}

void dicts_free(struct dicts *dicts)
{
	if (!dicts)
		return;
	for (struct named *next, *each = dicts->first; each; each = next) {
		next = each->next;
		free_named(each);
	}
	pthread_mutex_destroy(&dicts->lock);
	free(dicts);
}

static struct named *make_named(const struct dicts *dicts, const char *name, size_t bytes)
{
	struct named *made = calloc(1, sizeof *made);
	if (!made)
		return NULL;
	made->dict = dict_new(bytes, &dicts->key);
	if (!made->dict) {
		free(made);
		return NULL;
	}
	strncpy(made->name, name, DICT_NAME_MAX);
	return made;
}

struct dict *dicts_open(struct dicts *dicts, const char *name, size_t bytes)
{
	pthread_mutex_lock(&dicts->lock);
	struct named **link = &dicts->first;
	while (*link && strncmp((*link)->name, name, DICT_NAME_MAX) != 0)
		link = &(*link)->next;
	if (!*link)
		*link = make_named(dicts, name, bytes);
	struct dict *dict = *link ? (*link)->dict : NULL;
	if (dict)
		(*link)->users++;
	pthread_mutex_unlock(&dicts->lock);
	return dict;
}

void dicts_close(struct dicts *dicts, struct dict *dict)
{
	struct named *gone = NULL;
	pthread_mutex_lock(&dicts->lock);
	struct named **link = &dicts->first;
	while (*link && (*link)->dict != dict)
		link = &(*link)->next;
	if (*link && !--(*link)->users) {
		gone = *link;
		*link = gone->next;
	}
	pthread_mutex_unlock(&dicts->lock);
	if (gone)
		free_named(gone);
}

bool dicts_count(struct dicts *dicts, unsigned at, char name[DICT_NAME_MAX + 1], struct dict_counts *counts)
{
	pthread_mutex_lock(&dicts->lock);
	struct named *each = dicts->first;
	for (; each && at; at--)
		each = each->next;
	if (each) {
		memcpy(name, each->name, sizeof each->name);
		dict_count(each->dict, counts);
	}
	pthread_mutex_unlock(&dicts->lock);
	return each;
}
