/*
 * A canary: a new generation that takes a share of the new connections for a while, before it takes all of them. What
 * watches it is here; what follows from it is reload.c's: more than the allowed share of its connections ended by a
 * fault, or the time over.
 *
 * Threads: the main thread.
 */
#pragma once

#include "config/config.h"

#include <uv.h>

struct acceptor;
struct generation;

struct canary {
	struct acceptor *acceptor; /* NULL: was not opened */
	uv_timer_t window;
	struct generation
	    *first; /* the generation in one of the workers, those in the others behind it; NULL: none runs */
	unsigned worker_count;
	struct config *config;     /* its own, held */
	uint64_t reload;           /* the number of the reload that it is, */
	enum reload_policy policy; /* ... and what that was asked for with */
	bool is_over;              /* its time is */
	void *owner;
	void (*over)(void *owner);
};

struct canary_figures {
	uint32_t generation;
	uint64_t conns, failed; /* connections it was given, and how many of them a fault has ended */
	uint64_t left_ms;
	char fault[256]; /* one of those, or "" */
};

/* `over` is called when the time of one is over. */
void canary_open(struct canary *canary, uv_loop_t *loop, struct acceptor *acceptor, unsigned worker_count,
		 void *owner, void (*over)(void *owner));

/* Idempotent; none may run. */
void canary_close(struct canary *canary);

static inline bool canary_runs(const struct canary *canary)
{
	return canary->first;
}

/* From now on it takes its share. All workers have adopted it. Holds `config`; none may run. */
void canary_begin(struct canary *canary, struct generation *first, struct config *config, uint64_t reload,
		  enum reload_policy policy);

/* As they are at this moment; one runs. */
struct canary_figures canary_look(const struct canary *canary);

/* More have failed than reload.max_errors allows? */
bool canary_is_bad(const struct canary *canary, const struct canary_figures *figures);

/* It takes no more connections. Drops the configuration; the generation is the caller's business. */
void canary_end(struct canary *canary);
