/*
 * Which faults, bad frames and the like get a log entry of their own. What peers send decides how many there are and what
 * they say, so each kind has few in a window, and the others are counted and reported together.
 *
 * Threads: the one that has the agents.
 */
#pragma once

#include "base/fold.h"

struct agents;

struct repeats {
	struct fold same;       /* the same error at the same place */
	struct fold places;     /* whatever the error says */
	struct fold listeners;  /* whatever the place: an error may name any */
	struct fold bad_frames; /* by listener and kind; refusals and failures of TLS, too */
	uint64_t next_ms;       /* when some are to be reported; WHEEL_NEVER */
};

void repeats_init(struct repeats *repeats);

/* Has this error of a handler its own entry? `kind`: what errors of one cause have in common. */
bool repeats_show_fault(struct agents *agents, unsigned listener, const char *kind, const char *place,
			const char *message);

/* Has this bad frame? err is of the frame codec's. */
bool repeats_show_bad_frame(struct agents *agents, unsigned listener, int err);

/* Has this connection that is refused? `why` is one of few. */
bool repeats_show_refusal(struct agents *agents, unsigned listener, const char *why);

/* Has this failure of TLS? Clients choose its words: all of a listener's are of one kind. */
bool repeats_show_tls_failure(struct agents *agents, unsigned listener);

/* Reports what was counted in windows that have ended. */
void repeats_sweep(struct agents *agents, uint64_t now_ms);

/* Reports everything. */
void repeats_flush(struct agents *agents, uint64_t now_ms);
