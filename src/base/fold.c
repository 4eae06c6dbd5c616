#include "base/fold.h"

#include <stddef.h>
#include <string.h>

/* FNV-1a. A collision folds two kinds into one, which a log can bear. */
static uint64_t hash_of(const struct fold_event *event)
{
	uint64_t hash = (UINT64_C(0xcbf29ce484222325) ^ event->about) * UINT64_C(0x100000001b3);
	for (const char *key = event->key; *key; key++)
		hash = (hash ^ (uint8_t)*key) * UINT64_C(0x100000001b3);
	return hash ? hash : 1;
}

/* Cuts between UTF-8 characters, so that the report stays printable. */
static void fold_copy_text(char text[FOLD_TEXT_BYTES], const char *key)
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

static void fold_forget(const struct fold *fold, struct fold_entry *entry, uint64_t now_ms,
			fold_report_fn *report, void *data)
{
	uint64_t lasted_ms = age_ms(entry, now_ms);
	/* Nothing is counted after the window, however late its end is noticed. */
	if (lasted_ms > fold->window_ms)
		lasted_ms = fold->window_ms;
	entry->hash = 0;
	if (entry->repeats > 0)
		report(data, entry, lasted_ms);
}

/* The entry of hash, else an unused one, else the one started longest ago. */
static struct fold_entry *fold_choose(struct fold *fold, uint64_t hash)
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

/* The entry is that of hash, and its window is open. */
static bool is_current(const struct fold *fold, const struct fold_entry *entry, uint64_t hash,
		       uint64_t now_ms)
{
	return entry->hash == hash && age_ms(entry, now_ms) < fold->window_ms;
}

bool fold_repeat(struct fold *fold, const struct fold_event *event, uint64_t now_ms)
{
	uint64_t hash = hash_of(event);
	struct fold_entry *entry = fold_choose(fold, hash);
	if (!is_current(fold, entry, hash, now_ms) || entry->shown <= event->more)
		return false;
	if (entry->repeats < UINT32_MAX - entry->shown)
		entry->repeats++;
	return true;
}

bool fold_note(struct fold *fold, const struct fold_event *event, uint64_t now_ms, fold_report_fn *report,
	       void *data)
{
	if (fold_repeat(fold, event, now_ms))
		return false;
	uint64_t hash = hash_of(event);
	struct fold_entry *entry = fold_choose(fold, hash);
	if (is_current(fold, entry, hash, now_ms)) {
		entry->shown++;
		return true;
	}
	if (entry->hash)
		fold_forget(fold, entry, now_ms, report, data);
	*entry = (struct fold_entry){ .hash = hash, .started_ms = now_ms, .shown = 1, .about = event->about };
	fold_copy_text(entry->text, event->key);
	return true;
}

static void sweep(struct fold *fold, uint64_t now_ms, bool all, fold_report_fn *report, void *data)
{
	for (size_t i = 0; i < FOLD_KINDS; i++) {
		struct fold_entry *entry = &fold->entries[i];
		if (entry->hash && (all || age_ms(entry, now_ms) >= fold->window_ms))
			fold_forget(fold, entry, now_ms, report, data);
	}
}

void fold_sweep(struct fold *fold, uint64_t now_ms, fold_report_fn *report, void *data)
{
	sweep(fold, now_ms, false, report, data);
}

void fold_flush(struct fold *fold, uint64_t now_ms, fold_report_fn *report, void *data)
{
	sweep(fold, now_ms, true, report, data);
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
