#include "worker/generation.h"

#include "base/log.h"
#include "bind/open.h"
#include "config/config.h"
#include "jobs/jobs.h"

#include <stdio.h>
#include <stdlib.h>
#include <uv.h>

/* With what the generation before keeps, if it does. When it fails the agents are closed. */
static int generation_set_up(struct agents *agents, struct snapshot_source *kept, char *why, size_t size)
{
	struct snapshot snapshot = { 0 };
	int err = 0;
	if (kept && agents->instance.config->takes_snapshot)
		err = kept->take(kept, &snapshot, why, size);
	if (err) {
		agents_close(agents, 0);
		return err;
	}
	err = agents_set_up(agents, &snapshot, why, size);
	snapshot_free(&snapshot);
	return err;
}

/* False: no memory. */
static bool join_crew(struct generation *generation, const struct conn_host *host, struct config *config,
		      uint32_t number)
{
	if (!config->jobs.workers || !host->job_port)
		return true;
	generation->jobs = host->job_port->jobs;
	generation->agents.crew = jobs_join(generation->jobs, config, number);
	return generation->agents.crew;
}

struct generation *generation_open(struct conn_host *host, struct config *config, unsigned worker,
				   uint32_t number, struct counters *counters, struct snapshot_source *kept,
				   int *err, char *why, size_t size)
{
	struct generation *generation = calloc(1, sizeof *generation);
	if (!generation) {
		snprintf(why, size, "not enough memory");
		*err = UV_ENOMEM;
		return NULL;
	}
	*err = agents_open(&generation->agents, host, config, worker, number, counters, why, size);
	if (!*err)
		*err = generation_set_up(&generation->agents, kept, why, size);
	if (*err) {
		free(generation);
		return NULL;
	}
	if (!join_crew(generation, host, config, number)) {
		agents_close(&generation->agents, VM_TEARDOWN_MS);
		free(generation);
		snprintf(why, size, "not enough memory");
		*err = UV_ENOMEM;
		return NULL;
	}
	config_hold(config);
	generation->config = config;
	generation->worker = worker;
	generation->drain_from_ms = WHEEL_NEVER;
	generation->number = number;
	atomic_init(&generation->holders, 1);
	return generation;
}

size_t generation_least_buffers(const struct generation *generation, size_t buffer_bytes)
{
	size_t largest = 0;
	for (unsigned i = 0; i < generation->config->listener_count; i++) {
		size_t frame = agents_codec(&generation->agents, i)->protocol.max_bytes;
		largest = frame > largest ? frame : largest;
	}
	size_t least = 8 * (largest + CONN_SCRATCH_BYTES);
	return least < buffer_bytes ? least : buffer_bytes;
}

void generation_join(struct generation *generation)
{
	agents_attach(&generation->agents);
}

void generation_leave(struct generation *generation)
{
	agents_detach(&generation->agents);
}

void generation_hold(struct generation *generation)
{
	atomic_fetch_add_explicit(&generation->holders, 1, memory_order_relaxed);
}

void generation_drop(struct generation *generation)
{
	if (atomic_fetch_sub_explicit(&generation->holders, 1, memory_order_acq_rel) == 1)
		free(generation);
}

/* False: its teardown was left out. */
static bool close_within(struct generation *generation, uint32_t teardown_ms)
{
	bool done = agents_close(&generation->agents, teardown_ms);
	if (generation->agents.crew)
		jobs_leave(generation->jobs, generation->agents.crew);
	config_drop(generation->config);
	generation_drop(generation);
	return done;
}

void generation_close(struct generation *generation)
{
	close_within(generation, VM_TEARDOWN_MS);
}

/* ---- at a stop ---- */

enum { NS_PER_MS = 1000 * 1000 };

void burials_begin(struct burials *burials)
{
	*burials = (struct burials){ .until_ns = uv_hrtime() + (uint64_t)VM_TEARDOWN_MS * NS_PER_MS };
}

void burials_close(struct burials *burials, struct generation *generation)
{
	uint64_t now_ns = uv_hrtime();
	uint64_t left_ns = now_ns < burials->until_ns ? burials->until_ns - now_ns : 0;
	uint64_t left_ms = (left_ns + NS_PER_MS - 1) / NS_PER_MS;
	burials->skipped += !close_within(generation, (uint32_t)left_ms);
}

void burials_end(const struct burials *burials)
{
	if (burials->skipped)
		log_write(LOG_WARN, "teardown skipped: others have used up the time that it has at a stop",
			  F_INT("generations", burials->skipped));
}
