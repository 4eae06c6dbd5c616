/*
 * The generations of an app in memory, as a worker has them (worker/generations.h): the newest takes new connections,
 * older ones keep theirs, hand them over or end them. A server spreads that over some time; here it is done at once.
 */
#include "agent/resident.h"
#include "conn/outgoing.h"
#include "server/admission.h"
#include "workbench/world.h"

#include <stdio.h>
#include <string.h>

/*
 * limits.proceed = 0 allows a call any time. Here somebody waits for it who has a limit of his own, and cannot end it.
 */
static void bound_calls(struct agents *agents)
{
	enum { MOST_MS = 60000 };
	for (unsigned i = 0; i < agents->endpoint_count; i++)
		if (!agents->endpoints[i].budget.ms)
			agents->endpoints[i].budget.ms = MOST_MS;
	for (unsigned i = 0; i < agents->instance.config->kind_count; i++)
		if (!residents_endpoint(agents, i)->budget.ms)
			residents_endpoint(agents, i)->budget.ms = MOST_MS;
}

/* Clients are counted by address from the first generation on that wants it. */
static bool open_addresses(struct world *world, const struct config *config)
{
	bool by_address = false;
	for (unsigned i = 0; i < config->listener_count; i++)
		by_address = by_address || config->listeners[i].per_ip;
	if (by_address && !world->addresses)
		world->addresses = peer_table_new();
	return world->addresses || !by_address;
}

/* Where the data for a worker's setup() comes from. */
struct own_source {
	struct snapshot_source source; /* first */
	struct agents *agents;         /* that serve */
	size_t most;
};

static int take_from_agents(struct snapshot_source *source, struct snapshot *snapshot, char *why, size_t size)
{
	struct own_source *from = (struct own_source *)(void *)source;
	return snapshot_take(&from->agents->instance, from->most, snapshot, why, size);
}

/* That is to be this worker's newest. False: why not, in `why`. */
static bool load_generation(struct world_worker *worker, struct config *config, uint32_t number, char *why,
			    size_t size)
{
	int err;
	struct own_source kept = { { take_from_agents }, worker->agents, config->snapshot_bytes };
	struct generation *generation =
	    generation_open(&worker->host, config, worker->index, number, &worker->counters,
			    worker->agents ? &kept.source : NULL, &err, why, size);
	if (!generation)
		return false;
	if (!world_open_clock(worker, &generation->agents) || !world_open_faults(&generation->agents)) {
		snprintf(why, size, "not enough memory");
		generation_close(generation);
		return false;
	}
	bound_calls(&generation->agents);
	worker->loaded = generation;
	return true;
}

static void drop_loaded(struct world *world)
{
	for (unsigned i = 0; i < world->worker_count; i++) {
		if (world->workers[i].loaded)
			generation_close(world->workers[i].loaded);
		world->workers[i].loaded = NULL;
	}
}

static void raise_buffers(struct world_worker *worker, const struct generation *generation)
{
	size_t least = generation_least_buffers(generation, generation->config->buffer_bytes);
	if (!worker->buffer_bytes || worker->buffer_bytes >= least)
		return;
	if (worker->host.pool.limit_bytes == worker->buffer_bytes) /* else it has none, on purpose */
		worker->host.pool.limit_bytes = least;
	worker->buffer_bytes = least;
}

static void adopt_loaded(struct world_worker *worker)
{
	struct generation *generation = worker->loaded;
	worker->loaded = NULL;
	generation_join(generation);
	raise_buffers(worker, generation);
	generation->older = worker->generation;
	worker->generation = generation;
	worker->post.newest = worker->agents = &generation->agents;
	worker->world->config = generation->config;
}

bool world_add_generation(struct world *world, struct config *config, const char *inside, char *why,
			  size_t size)
{
	const struct generation *now = world->workers[0].generation;
	bool ok = true;
	/* It is looked at when agents are opened, and worlds of one script take turns at that. */
	config->inside = inside;
	for (unsigned i = 0; i < config->listener_count; i++)
		config->listeners[i].slot = (uint16_t)i;
	for (unsigned i = 0; ok && i < world->worker_count; i++)
		ok = load_generation(&world->workers[i], config, now ? now->number + 1 : 1, why, size);
	if (ok && !open_addresses(world, config)) {
		snprintf(why, size, "not enough memory");
		ok = false;
	}
	if (!ok)
		drop_loaded(world);
	for (unsigned i = 0; ok && i < world->worker_count; i++)
		adopt_loaded(&world->workers[i]);
	return ok;
}

/* ---- a reload ---- */

/* Where its clients connect to stays. */
static bool has_same_listeners(const struct world *world, const struct config *next)
{
	const struct config *now = world->config;
	bool same = now->listener_count == next->listener_count;
	for (unsigned i = 0; same && i < now->listener_count; i++) {
		const struct listener_config *a = &now->listeners[i], *b = &next->listeners[i];
		same = !strcmp(a->address, b->address) && !strcmp(a->name, b->name);
		same = same &&
		       !a->amplification == !b->amplification; /* a flow has the layers that it began with */
	}
	return same;
}

/* A connection, or an agent without a socket. */
static bool has_a_generation(const struct channel *channel)
{
	return channel && (channel->lone || channel == &channel->conn->first);
}

static bool is_drained(const struct world_worker *worker, const struct channel *channel)
{
	return channel->agents != worker->agents && agents_policy(channel->agents, channel) == RELOAD_DRAIN;
}

static void each_to_drain(struct world_worker *worker, void (*drain)(struct channel *channel))
{
	for (size_t i = 0; i < worker->host.ids.capacity; i++) {
		struct channel *channel = worker->host.ids.slots[i].value;
		if (has_a_generation(channel) && is_drained(worker, channel))
			drain(channel);
	}
}

static void drain_one(struct channel *channel)
{
	if (channel->lone)
		resident_drain(channel);
	else
		conn_drain(channel->conn);
}

static void end_late(struct channel *channel)
{
	if (channel->lone)
		resident_end_drain(channel);
	else
		conn_end_drain(channel->conn, CLOSE_FLUSH);
}

static void begin_drain_of_older(struct world_worker *worker)
{
	uint32_t ms = worker->world->config->drain_ms;
	worker->drain_until_ms = ms ? worker->host.now_ms + ms : WHEEL_NEVER;
	if (!worker->host.draining)
		worker->host.drain_deadline_ms = worker->drain_until_ms;
	each_to_drain(worker, drain_one);
}

static void succeed(struct world_worker *worker)
{
	const struct config *config = worker->world->config;
	for (struct generation *each = worker->generation->older; each; each = each->older) {
		agents_ask_anew(&each->agents);
		agents_succeed(&each->agents, worker->agents, worker->agents);
	}
	worker->host.opening_max = config->handshakes;
	worker->outgoing.outgoing.max = config->outgoing;
	begin_drain_of_older(worker);
}

bool world_reload(struct world *world, struct config *config, const char *inside, char *why, size_t size)
{
	if (!has_same_listeners(world, config)) {
		snprintf(why, size,
			 "in memory a reload keeps the listeners: their addresses, names and order");
		return false;
	}
	if (config->workers != world->worker_count) {
		snprintf(why, size,
			 "workers: a reload keeps their number, which is %u: another takes a restart",
			 world->worker_count);
		return false;
	}
	struct log_sink *before = log_divert(&world->log.sink);
	bool ok = world_add_generation(world, config, inside, why, size);
	for (unsigned i = 0; ok && i < world->worker_count; i++)
		succeed(&world->workers[i]);
	log_divert(before);
	return ok;
}

/* ---- turns ---- */

/* Who is occupied is asked again in the next turn. */
static bool migrate_idle(struct world_worker *worker)
{
	bool any = false;
	for (size_t i = 0; i < worker->host.ids.capacity; i++) {
		struct channel *channel = worker->host.ids.slots[i].value;
		if (has_a_generation(channel) && channel->agents != worker->agents)
			any = agents_migrate(channel) || any;
	}
	return any;
}

/* What its connections' clients have got is taken apart by the newest from now on. */
static void leave_peers(struct world_worker *worker, const struct generation *generation)
{
	const struct world *world = worker->world;
	for (size_t i = 0; i < world->peer_count; i++) {
		struct peer *peer = world->peers[i];
		if (peer->agents != &generation->agents)
			continue;
		if (peer->codec.kind == CODEC_LUA)
			peer_speak(peer, worker->agents);
		peer->agents = worker->agents;
	}
}

static bool retire(struct world_worker *worker)
{
	bool any = false;
	struct generation **link = &worker->generation->older;
	while (*link) {
		struct generation *generation = *link;
		if (!agents_have_ended(&generation->agents)) {
			link = &generation->older;
			continue;
		}
		*link = generation->older;
		leave_peers(worker, generation);
		generation_leave(generation);
		generation_close(generation);
		any = true;
	}
	return any;
}

bool world_turn_generations(struct world_worker *worker)
{
	bool any = false;
	for (struct generation *each = worker->generation; each; each = each->older) {
		agents_turn(&each->agents, worker->host.now_ms);
		agents_report(&each->agents);
	}
	if (!worker->generation || !worker->generation->older)
		return false;
	if (worker->drain_until_ms <= worker->host.now_ms) {
		worker->drain_until_ms = WHEEL_NEVER;
		each_to_drain(worker, end_late);
		any = true;
	}
	any = migrate_idle(worker) || any;
	return retire(worker) || any;
}

uint64_t world_generations_next_ms(const struct world_worker *worker)
{
	uint64_t next_ms = worker->generation->older ? worker->drain_until_ms : WHEEL_NEVER;
	for (const struct generation *each = worker->generation; each; each = each->older) {
		uint64_t its_ms = agents_next_ms(&each->agents);
		next_ms = its_ms < next_ms ? its_ms : next_ms;
	}
	return next_ms;
}

void world_close_generations(struct world_worker *worker)
{
	for (struct generation *generation; (generation = worker->generation);) {
		worker->generation = generation->older;
		generation_close(generation);
	}
	worker->agents = NULL;
}
