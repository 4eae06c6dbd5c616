#include "base/fold.h"

#include <stddef.h>
#include <string.h>

/* FNV-1a. A collision folds two kinds into one, which a log can bear. */
static uint64_t hash_of(const char *key)
{
	uint64_t hash = UINT64_C(0xcbf29ce484222325);
	for (; *key; key++)
		hash = (hash ^ (uint8_t)*key) * UINT64_C(0x100000001b3);
	return hash ? hash : 1;
}

/* Cuts between UTF-8 characters, so that the report stays printable. */
static void copy_text(char text[FOLD_TEXT_BYTES], const char *key)
{
	size_t n = strnlen(key, FOLD_TEXT_BYTES);
	if (n == FOLD_TEXT_BYTES) {
		n--;
		while (n > 0 && ((uint8_t)key[n] & 0xc0) == 0x80)
			n--;
	}
	memcpy(text, key, n);
	text[n] = '\0';
}

/* A clock that went back ends no window. */
static uint64_t age_ms(const struct fold_entry *entry, uint64_t now_ms)
{
	return now_ms > entry->started_ms ? now_ms - entry->started_ms : 0;
}

static void forget(const struct fold *fold, struct fold_entry *entry, uint64_t now_ms, fold_report_fn *report,
		   void *data)
{
	uint64_t lasted_ms = age_ms(entry, now_ms);
	/* Nothing is counted after the window, however late its end is noticed. */
	if (lasted_ms > fold->window_ms)
		lasted_ms = fold->window_ms;
	entry->hash = 0;
	if (entry->repeats > 0)
		report(data, entry->text, entry->repeats, lasted_ms);
}

/* The entry of hash, else an unused one, else the one started longest ago. */
static struct fold_entry *choose(struct fold *fold, uint64_t hash)
{
	struct fold_entry *best = &fold->entries[0];
	for (size_t i = 0; i < FOLD_KINDS; i++) {
		struct fold_entry *entry = &fold->entries[i];
		if (entry->hash == hash)
			return entry;
		if (best->hash && (!entry->hash || entry->started_ms < best->started_ms))
			best = entry;
	}
	return best;
}

void fold_init(struct fold *fold, uint64_t window_ms)
{
	*fold = (struct fold){ .window_ms = window_ms };
}

bool fold_note(struct fold *fold, const char *key, uint64_t now_ms, fold_report_fn *report, void *data)
{
	uint64_t hash = hash_of(key);
	struct fold_entry *entry = choose(fold, hash);
	if (entry->hash == hash && age_ms(entry, now_ms) < fold->window_ms) {
		if (entry->repeats < UINT32_MAX)
			entry->repeats++;
		return false;
	}
	if (entry->hash)
		forget(fold, entry, now_ms, report, data);
	entry->hash = hash;
	entry->started_ms = now_ms;
	entry->repeats = 0;
	copy_text(entry->text, key);
	return true;
}

void fold_sweep(struct fold *fold, uint64_t now_ms, fold_report_fn *report, void *data)
{
	for (size_t i = 0; i < FOLD_KINDS; i++) {
		struct fold_entry *entry = &fold->entries[i];
		if (!entry->hash)
			continue;
		if (now_ms == UINT64_MAX || age_ms(entry, now_ms) >= fold->window_ms)
			forget(fold, entry, now_ms, report, data);
	}
}

uint64_t fold_next_ms(const struct fold *fold)
{
	uint64_t next_ms = UINT64_MAX;
	for (size_t i = 0; i < FOLD_KINDS; i++) {
		const struct fold_entry *entry = &fold->entries[i];
		if (!entry->hash || entry->repeats == 0)
			continue;
		uint64_t ends_ms = entry->started_ms + fold->window_ms;
		if (ends_ms >= entry->started_ms && ends_ms < next_ms)
			next_ms = ends_ms;
	}
	return next_ms;
}
