#include "server/generation.h"

#include "config/config.h"

#include <stdio.h>
#include <stdlib.h>
#include <uv.h>

struct generation *generation_open(struct conn_host *host, struct config *config, unsigned worker,
				   uint32_t number, struct counters *counters, int *err, char *why,
				   size_t size)
{
	struct generation *generation = calloc(1, sizeof *generation);
	if (!generation) {
		snprintf(why, size, "not enough memory");
		*err = UV_ENOMEM;
		return NULL;
	}
	*err = agents_open(&generation->agents, host, config, worker, number, counters, why, size);
	if (*err) {
		free(generation);
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

void generation_close(struct generation *generation)
{
	agents_close(&generation->agents);
	config_drop(generation->config);
	generation_drop(generation);
}
