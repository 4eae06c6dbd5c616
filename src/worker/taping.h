/*
 * A worker's part in a recording: the tape that its connections are on (record/tape.h), and how what is on it gets to
 * the recorder (recorder.h), in chunks of whole lines.
 *
 * Threads: the worker's. A taping belongs to it from worker_record() until it is reported (taped).
 */
#pragma once

#include "record/tape.h"
#include "worker/mail.h"

struct worker;

/* Lines; free() frees them. */
struct chunk {
	struct mail mail; /* first */
	size_t used, room;
	uint64_t conns, frames, frame_bytes; /* that are told of here */
	char lines[];
};

struct taping {
	struct order begin; /* first */
	struct order end;
	struct report report;
	struct tape tape;
	void *owner;
	void (*give)(void *owner, struct chunk *chunk); /* from the worker's thread */
};

/* Of worker_record(): `order` is the taping's. */
void taping_begin(struct worker *worker, struct order *order);

/* Gives all that there is, and reports that nothing more follows. Without a taping: nothing. */
void taping_end(struct worker *worker);

/* Once a turn, before generations retire. */
void taping_turn(struct worker *worker);

/* After taping_turn(): a redaction has done something to connections, so no generation may retire in this turn. */
bool taping_needs_agents(const struct worker *worker);

/* When taping_turn() has something to do. */
uint64_t taping_next_ms(const struct worker *worker);
