/*
 * Folds repeated events: the first of a kind is let through at once (or the
 * first few, where they differ), its repeats within a window are counted, and
 * the count is reported when the window ends ("×318 in 10 s"). Remembers a
 * bounded number of kinds; the one longest ago makes room for a new one.
 *
 * Leaf; time is an argument. One thread.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum { FOLD_KINDS = 64, FOLD_TEXT_BYTES = 240 };

/* Events of the same key and `about` are of one kind. */
struct fold_event {
	const char *key;
	unsigned about; /* the caller's */
	unsigned more;  /* how many are let through in a window after the first */
};

struct fold_entry {
	uint64_t hash;              /* of the whole key; 0: unused */
	uint64_t started_ms;        /* when this window was opened */
	uint32_t shown;             /* let through */
	uint32_t repeats;           /* beyond these */
	unsigned about;             /* the event's */
	char text[FOLD_TEXT_BYTES]; /* the key, cut, for the report */
};

struct fold {
	uint64_t window_ms;
	struct fold_entry entries[FOLD_KINDS];
};

/* Called for each kind whose window ended with repeats, and for one with repeats that had to make
 * room. It must not call back into the fold. lasted_ms is never more than the window. */
typedef void fold_report_fn(void *data, const struct fold_entry *entry, uint64_t lasted_ms);

void fold_init(struct fold *fold, uint64_t window_ms);

/* Counts an event that is a repeat. False: it is none, and nothing was noted. */
bool fold_repeat(struct fold *fold, const struct fold_event *event, uint64_t now_ms);

/* Notes an event. True: show it. False: it is a repeat, and counted. */
bool fold_note(struct fold *fold, const struct fold_event *event, uint64_t now_ms, fold_report_fn *report,
	       void *data);

/* Reports and forgets the kinds whose window has ended. */
void fold_sweep(struct fold *fold, uint64_t now_ms, fold_report_fn *report, void *data);

/* The same for all of them, their window over or not. */
void fold_flush(struct fold *fold, uint64_t now_ms, fold_report_fn *report, void *data);

/* When fold_sweep() next has something to report; UINT64_MAX: never. */
uint64_t fold_next_ms(const struct fold *fold);
