/*
 * A generation of the script in one worker: its VM, its agents, the configuration they live by.
 *
 * It is made and buried by the loader's thread, and belongs to the worker's in between: from generation_join()
 * to generation_leave(). Connections keep the generation they began with; the newest takes those that come. A
 * generation holds its configuration, which holds its script set (config/sources.h); it goes when the last of its
 * connections has gone.
 */
#pragma once

#include "agent/agent.h"
#include "worker/mail.h"

#include <stdatomic.h>

struct config;
struct snapshot_source;

struct generation {
	struct agents agents; /* first: channel->agents leads here */
	struct config *config;
	struct jobs *jobs; /* that its crew is of; NULL: it has none */
	struct generation *older;
	unsigned worker;
	uint64_t
	    drain_from_ms; /* when its connections began to be drained (succession.c); WHEEL_NEVER: they are not */
	unsigned drained_shares; /* of them */
	bool drains_all;         /* whatever the policy of their listener */
	uint32_t number;
	bool is_candidate; /* it is to be tried on some connections before it serves all: the main thread's */
	atomic_uint failed; /* connections that a fault has ended; the worker's, anyone may read it */

	/* Mail about it: embedded, so that sending it cannot fail. */
	struct order adopt;    /* main thread to worker: take it */
	struct report adopted; /* worker to main thread: it is taken, or promoted */
	struct order verdict;  /* main thread to worker: promote or withdraw the candidate */
	struct report retired; /* worker to main thread: its last connection has gone */
	struct chore burial;   /* main thread to loader: close it */

	atomic_uint holders; /* the thread that has it, and the main thread; its memory goes with the last */
	/* The main thread's, while it is listed there (reload.h). */
	struct generation *next_known;
	int64_t known_since_ms; /* by the wall clock */
	bool is_withdrawn;
};

/*
 * Loads the script for a worker, whose `host` is only pointed to. Holds `config`. `kept`: where the data for its
 * setup() comes from, which is asked in the last moment; NULL: there is none. NULL: why not, in `why`, and *err:
 * UV_EINVAL is the script's fault.
 */
struct generation *generation_open(struct conn_host *host, struct config *config, unsigned worker,
				   uint32_t number, struct counters *counters, struct snapshot_source *kept,
				   int *err, char *why, size_t size);

/*
 * However many workers share so many bytes for buffers, each must be able to take a few of its largest frames (a block
 * that grows is held twice): the least that one with this generation is to have of them.
 */
size_t generation_least_buffers(const struct generation *generation, size_t buffer_bytes);

/* In the thread that it goes to, or that it comes from. */
void generation_join(struct generation *generation);
void generation_leave(struct generation *generation);

/* Its memory stays for whoever holds it. Any thread. */
void generation_hold(struct generation *generation);
void generation_drop(struct generation *generation);

/* teardown(app), the end of the VM, and a drop: may take its time. It has no connections. */
void generation_close(struct generation *generation);

/* Of generations that a stop waits for: their teardowns share VM_TEARDOWN_MS from the beginning on. */
struct burials {
	uint64_t until_ns;
	unsigned skipped; /* those without a teardown, for want of time */
};

void burials_begin(struct burials *burials);
/* As generation_close(). */
void burials_close(struct burials *burials, struct generation *generation);
/* Logs what was skipped. */
void burials_end(const struct burials *burials);
