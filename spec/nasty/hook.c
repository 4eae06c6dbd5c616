/*
 * Makes perilune_nasty of perilune: the whole program over nasty streams (support/nasty.h). The linker leads
 * agents_open() through here (cmake/nasty.cmake).
 *
 *   NASTY=2          two of them carry each connection, of a server or in memory; not set: none does
 *   NASTY=2,7        what they choose comes of this number; 1, if there is none
 *   NASTY=2,7,50     they must have opened within 50 ms; or within ten minutes
 *
 * Threads: whichever opens a generation, or an app in memory. The variable changes in none.
 */
#include "bind/open.h"

#include "support/nasty.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NASTY_LAYERS = 2 };

int __real_agents_open(struct agents *agents, struct conn_host *host, const struct config *config,
		       unsigned worker, uint32_t generation, struct counters *counters, char *why,
		       size_t size);
int __wrap_agents_open(struct agents *agents, struct conn_host *host, const struct config *config,
		       unsigned worker, uint32_t generation, struct counters *counters, char *why,
		       size_t size);

static unsigned layers, opening_ms;

static __attribute__((constructor)) void read_variable(void)
{
	enum { TEN_MINUTES_MS = 600000 };
	const char *text = getenv("NASTY");
	nasty_seed = 1;
	opening_ms = TEN_MINUTES_MS;
	if (text && *text && sscanf(text, "%u,%" SCNu64 ",%u", &layers, &nasty_seed, &opening_ms) < 1)
		abort();
	if (layers > NASTY_LAYERS)
		abort();
}

/* Below those that it has. */
static void put_below(struct agent_endpoint *endpoint)
{
	struct layer *list = endpoint->layers;
	assert(!list[STREAM_LAYERS_MAX - layers].ops);
	memmove(list + layers, list, (STREAM_LAYERS_MAX - layers) * sizeof *list);
	for (unsigned i = 0; i < layers; i++)
		list[i] = (struct layer){ &NASTY_STREAM, NULL };
	endpoint->endpoint.layers = list;
	endpoint->endpoint.rules.timeouts.opening = opening_ms;
}

int __wrap_agents_open(struct agents *agents, struct conn_host *host, const struct config *config,
		       unsigned worker, uint32_t generation, struct counters *counters, char *why,
		       size_t size)
{
	int err = __real_agents_open(agents, host, config, worker, generation, counters, why, size);
	for (unsigned i = 0; !err && layers && i < agents->endpoint_count; i++)
		put_below(&agents->endpoints[i]);
	return err;
}
