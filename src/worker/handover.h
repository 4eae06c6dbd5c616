/*
 * What becomes of connections that a reload lets migrate: each worker asks all of them, a few at a time, and says how
 * that came out once it has asked the last one. What they say is added up here.
 *
 * Threads: the main thread; a worker has its part from handover_begin() to the report.
 */
#pragma once

#include "agent/agent.h"
#include "config/config.h"
#include "worker/mail.h"

struct worker;

/* One worker's part. */
struct handover_part {
	struct order order;   /* first: worker_hand_over() */
	struct report report; /* that it is handed over */
	struct handover *whole;
	struct takeovers takeovers; /* of this reload, in the report */
	unsigned waiting;           /* agents that wait: they follow when they are done */
};

struct handover {
	struct handover *next;
	uint64_t reload; /* its number, */
	enum reload_policy policy;
	const char *text;    /* ... its outcome's text; a literal */
	uint32_t generation; /* ... and what serves with it */
	bool asks_anew;      /* nothing else has made the workers ask their connections */
	unsigned missing;    /* parts that are not back */
	struct takeovers takeovers;
	unsigned waiting;
	unsigned part_count;
	struct handover_part parts[];
};

/* NULL: no memory. */
struct handover *handover_new(unsigned worker_count);

/* Asks all workers, after they were told of the generation and its policies. */
void handover_begin(struct handover *handover, struct worker *workers);

/* A part is back. The whole, once all its parts are back: the caller's to free. Else NULL. */
struct handover *handover_take(struct report *report);

/* Did any connection have anything to do with it? */
bool handover_concerned_any(const struct handover *handover);

/* Those that were to migrate and stay. */
unsigned handover_count_staying(const struct takeovers *takeovers);
