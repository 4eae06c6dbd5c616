/*
 * What has happened on the connections of one worker, in order, until it is written down.
 *
 * Whoever has a connection puts entries on the tape, which copies and no more: no lock, no Lua, no file. Later,
 * between handlers, the worker takes them off (agent/record.h). A tape is bounded: an entry that does not fit is
 * refused, and its connection is given up as a whole.
 *
 * Leaf. Threads: the worker's; `held_bytes` is shared with whoever writes what was taken off.
 */
#pragma once

#include "record/event.h"

#include <stdatomic.h>

/* The head of an entry; `len` bytes follow it. */
struct tape_entry {
	uint64_t at_us, conn;
	void *agents; /* whose it was: for its redaction. Taken off before they can go */
	uint32_t generation, len;
	uint16_t listener; /* its place in the configuration of that generation */
	uint8_t kind;      /* enum trace_kind */
	bool wire;
};

struct tape {
	uint8_t *entries;
	size_t used, room;
	unsigned worker;
	uint64_t began_us;      /* of the monotonic clock */
	const uint64_t *now_ms; /* the clock, where time is virtual; then began_us is of that one. Or NULL */
	const bool *wanted;     /* by slot of the listener; NULL: all */
	unsigned wanted_count;
	size_t limit_bytes;        /* of what is on the tapes and on its way to the file; 0: none */
	atomic_size_t *held_bytes; /* ... of all workers; NULL: nobody counts */
	uint64_t redact_max_us;    /* of computing, for all redactions each time it is taken off; 0: any */
	bool is_broken;            /* no memory: nothing more goes on it */
	bool redact_overran;       /* a redaction was ended by the guard: nothing is shown any more */
	bool complained;           /* of one that failed */
	uint64_t conns, frames, bytes; /* that went on it */
	uint64_t lost;                 /* connections given up, or never begun, for want of room */
	uint64_t redaction_failures;
};

/* `began_us`: when the recording began, by tape_clock_us(). */
void tape_init(struct tape *tape, unsigned worker, uint64_t began_us);
void tape_deinit(struct tape *tape);

/* The monotonic clock. */
uint64_t tape_clock_us(void);

/* Is a connection that comes by the listener of this slot to be recorded? */
static inline bool tape_wants(const struct tape *tape, unsigned slot)
{
	return !tape->is_broken && (!tape->wanted || (slot < tape->wanted_count && tape->wanted[slot]));
}

/*
 * Puts an entry on the tape, whose time is set here. Returns where its bytes go; NULL: there is no room. TRACE_LOST
 * always finds some; where the system has none for it either, the tape is broken, and whole up to there.
 */
uint8_t *tape_put(struct tape *tape, const struct tape_entry *entry);

/* Takes the entries off, and visits them. What a visit puts on the tape stays there. */
void tape_take(struct tape *tape,
	       void (*visit)(void *data, const struct tape_entry *entry, const uint8_t *bytes), void *data);

/* When the oldest entry was put on; 0: there is none. */
uint64_t tape_oldest_us(const struct tape *tape);
