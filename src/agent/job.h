/*
 * Jobs, as agents have them: perilune.job(). A call waits for each as for any errand; when the job is over it is told,
 * and a job whose call has gone is abandoned with it.
 *
 * Threads: the one that has the agents.
 */
#pragma once

#include "agent/run.h"
#include "jobs/jobs.h"

struct agent_job {
	struct job job; /* first */
	struct errand errand;
	struct agents *agents;
	char bytes[]; /* the names of module and function, and the arguments */
};

extern const struct errand_ops JOB_ERRAND;

/* Those that are over: their callers are told, and go on in agents_turn(). From the loop. True: there were some. */
bool agent_jobs_over(struct job_port *port);
