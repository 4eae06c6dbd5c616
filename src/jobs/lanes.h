/*
 * Lanes: jobs that wait, in the order in which they are to run.
 *
 * A lane is a queue; the earlier ones come first. So that the others are not left for ever, each LANES_FAIR_EVERY-th
 * job is the one that has waited longest. A lane may have a bound of jobs that run at once: those behind it wait, and other
 * lanes go on.
 *
 * Threads: whoever has the pool's lock.
 */
#pragma once

#include "base/wheel.h"
#include "config/config.h"

#include <stdbool.h>

struct job;

enum { LANES_FAIR_EVERY = 16 };

struct lane {
	struct wheel_node first; /* a list of struct job */
	unsigned waiting, running;
	unsigned most_running; /* 0: any */
};

struct lanes {
	struct lane lane[JOB_LANES_MAX];
	uint64_t taken;
};

void lanes_init(struct lanes *lanes);

/* The bounds are those of this configuration from now on. */
void lanes_set(struct lanes *lanes, const struct job_config *config);

/* It waits in job->lane. */
void lanes_put(struct lanes *lanes, struct job *job);

/* The one that is to run now; NULL: there is none. lanes_over() when it is over. */
struct job *lanes_take(struct lanes *lanes);

/* One that waits does not. */
void lanes_remove(struct lanes *lanes, struct job *job);

/* One that lanes_take() has returned runs no more. */
void lanes_over(struct lanes *lanes, const struct job *job);
