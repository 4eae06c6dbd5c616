/*
 * Log entries that are kept instead of written: what an app in memory has logged.
 *
 * Threads: one owner.
 */
#pragma once

#include "base/log.h"

struct entry_field {
	struct entry_field *next;
	struct log_field field; /* its texts are its own */
};

struct entry {
	struct entry *next;
	uint64_t at_ms; /* by the app's clock */
	enum log_level level;
	char *message;
	size_t message_bytes;
	struct entry_field *fields; /* the last one first */
};

struct entries {
	struct log_sink sink; /* first: what log_divert() is given */
	const uint64_t *now_ms;
	struct entry *first, **end;
	unsigned count, faults; /* in all; those that say "handler failed" */
	unsigned lost;          /* for want of memory, or since there were too many */
};

void entries_init(struct entries *entries, const uint64_t *now_ms);
void entries_deinit(struct entries *entries);
