/*
 * Which worker a client goes to: the one with the fewest connections, of those that turn. One that is held up, as by a
 * handler that waits in the system, gets none while another turns; and clients that it was given, and has not taken
 * yet, go to the others.
 *
 * Threads: the main thread.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

struct worker;

struct balance {
	struct worker *workers;
	unsigned worker_count;
	unsigned next;   /* where the search for the least loaded begins */
	uv_timer_t look; /* while clients wait to be taken; keeps no loop going */
	void *owner;
	/* May a client of the listener with this slot go to another worker, whatever that one has been told by now? */
	bool (*may_move)(void *owner, uint16_t slot);
};

void balance_open(struct balance *balance, uv_loop_t *loop, struct worker *workers, unsigned worker_count,
		  void *owner, bool (*may_move)(void *owner, uint16_t slot));

/*
 * Which of `count` has the least load, the first one of these from `next` on; load_of() says false for who is to get
 * nothing. -1: it said so of all. Leaf: it knows no workers.
 */
int balance_find(unsigned count, unsigned next, bool (*load_of)(const void *data, unsigned i, unsigned *load),
		 const void *data);

/* The worker for one more client, which it is given now. */
struct worker *balance_choose(struct balance *balance);

/* The workers are about to be told to drain: from now on clients stay where they are. Idempotent. */
void balance_stop(struct balance *balance);
