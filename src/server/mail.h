/* What the server, its workers and its loader tell each other. */
#pragma once

#include "base/mailbox.h"

#include <stdbool.h>
#include <stdint.h>

/* To the server. */
enum report_kind {
	REPORT_READY,
	REPORT_FAILED,
	REPORT_STOPPED,
	REPORT_LOADED,      /* from the loader: part of a struct loading */
	REPORT_ADOPTED,     /* part of a struct generation, which stays the worker's */
	REPORT_RETIRED,     /* part of a struct generation, which is the server's now */
	REPORT_BURIED,      /* from the loader: its last words */
	REPORT_HANDED_OVER, /* part of a struct handover_part, which is the server's again */
	REPORT_EVICTED,     /* part of a struct eviction */
	REPORT_TAPED,       /* part of a struct taping, which is the server's again */
};

struct report {
	struct mail mail; /* first */
	enum report_kind kind;
	unsigned worker;
	int err;         /* FAILED, LOADED: UV_EINVAL is the script's fault */
	char text[4096]; /* FAILED, LOADED: why */
};

/*
 * To a worker. An order knows what is to be done, so that the list of them (orders.h) need not. Most are parts of
 * something that outlives them; those with a drop() are the worker's own, which deliver() and drop() free.
 */
struct worker;

struct order {
	struct mail mail; /* first */
	void (*deliver)(struct worker *worker, struct order *order);
	void (*drop)(
	    struct order *order); /* the worker has ended before; NULL: there is nothing to be done */
	bool given;
};

/* Ends one connection, if the worker has it, and comes back. */
struct eviction {
	struct order order; /* first */
	struct report report;
	uint64_t conn;
	bool found; /* in the report */
	void *owner;
};

/* To the loader. */
enum job_kind { JOB_LOAD, JOB_BURY, JOB_STOP };

struct job {
	struct mail mail; /* first */
	enum job_kind kind;
};
