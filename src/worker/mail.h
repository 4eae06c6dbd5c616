/* What the server, its workers and its loader tell each other. */
#pragma once

#include "base/mailbox.h"
#include "script/snapshot.h"

#include <stdbool.h>
#include <stdint.h>

/* To the server. Most are parts of something that comes back with them: a generation, an eviction, a taping. */
struct report {
	struct mail mail; /* first */
	void (*deliver)(void *server, struct report *report);
	unsigned worker;
	int err;         /* of what has failed; UV_EINVAL is the script's fault */
	char text[4096]; /* why */
};

/* What becomes of the reports of workers: deliver() of each. In the main thread. */
struct report_receivers {
	void (*ready)(void *server, struct report *report);
	void (*failed)(void *server, struct report *report);
	void (*stopped)(void *server, struct report *report);
	void (*adopted)(void *server,
			struct report *report); /* part of a generation, which stays the worker's */
	void (*retired)(void *server, struct report *report); /* part of a generation: the server's now */
	void (*handed_over)(void *server,
			    struct report *report); /* part of a handover_part: the server's again */
	void (*evicted)(void *server, struct report *report); /* part of an eviction */
	void (*taped)(void *server, struct report *report);   /* part of a taping: the server's again */
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

/* Takes the snapshot of what serves in a worker. */
struct snapshot_request {
	struct order order;   /* first; its drop() is the owner's */
	struct report report; /* of the failure: err and text, or 0 */
	size_t most;          /* bytes of it */
	struct snapshot snapshot;
	/* In the worker's thread: the request is the owner's again. */
	void (*answered)(struct snapshot_request *request);
	void *owner;
};

/* To the loader: part of what it is done to. */
struct loader;

struct chore {
	struct mail mail; /* first */
	void (*deliver)(struct loader *loader, struct chore *chore);
};
