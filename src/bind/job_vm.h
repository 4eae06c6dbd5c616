/*
 * The VM of a job: the app's modules in the sandbox that its script has, and nothing of connections. The script's own
 * top level, its setup() and its teardown() do not run; a module's top level does, when a job first needs it. Its Lua
 * side is lua/perilune/job.lua.
 *
 * Threads: the one that has opened it.
 */
#pragma once

#include "jobs/jobs.h"

struct conn_host;
struct dicts;

/* What jobs_new() is given as the owner, for JOB_OPS. */
struct job_surroundings {
	struct dicts *dicts;
	const struct conn_host *host; /* whose time it is in an app in memory; NULL: the system's */
};

extern const struct job_ops JOB_OPS;
