#include "worker/succession.h"

#include "agent/resident.h"
#include "config/config.h"
#include "worker/handover.h"
#include "worker/worker.h"

enum {
	MIGRATIONS_PER_TURN = 16, /* of some 20 us each */
	LOOKS_PER_TURN = 4096,
	SHARES = 256,      /* a drain takes connections in so many portions */
	WINDOW_MS = 10000, /* ... over so long, where timeout.drain sets no end */
};

/* ---- telling ---- */

/* The part is the server's from then on. */
void succession_end(struct worker *worker)
{
	struct handover_part *part = worker->handover;
	if (!part)
		return;
	struct takeovers *takeovers = &worker->generation->agents.takeovers;
	part->takeovers = *takeovers;
	part->waiting = worker->waiting_to_migrate;
	*takeovers = (struct takeovers){ 0 };
	worker->handover = NULL;
	worker_report(worker, &part->report, worker->links.receivers->handed_over);
}

static void begin_walk(struct worker *worker)
{
	worker->migrate_at = 0;
	worker->waiting_to_migrate = 0;
	if (!worker->handover)
		worker->generation->agents.takeovers = (struct takeovers){ 0 };
	worker->migrating = true;
}

void succession_tell(struct worker *worker, struct handover_part *part)
{
	succession_end(worker);
	if (part->whole->asks_anew)
		begin_walk(worker);
	worker->handover = part;
	if (!worker->migrating)
		succession_end(worker);
}

/* ---- migrating ---- */

struct migrating {
	unsigned migrated, waiting;
	uint64_t taken; /* by snapshot() and upgrade(), in base/ticks.h */
};

static bool waits_to_migrate(const struct channel *channel)
{
	const struct agents *agents = channel->agents, *to = agents->successor;
	return to && agents_is_occupied(channel) && channel->declined_by != to->instance.generation &&
	       agents_policy(agents, channel) == RELOAD_MIGRATE;
}

static void migrate_one(void *value, void *data)
{
	struct migrating *migrating = data;
	struct channel *channel = value;
	migrating->taken -= channel->handler_ticks;
	if (agents_migrate(channel))
		migrating->migrated++;
	else
		agents_count_staying(channel);
	migrating->taken += channel->handler_ticks;
	migrating->waiting += waits_to_migrate(channel);
}

/*
 * Connections come and go between two turns, so the walk is one that misses nobody. Who is suspended follows when its
 * agent is free.
 */
static void migrate_some(struct worker *worker)
{
	struct migrating some = { 0 };
	unsigned looks = 0;
	while (worker->migrating && some.migrated < MIGRATIONS_PER_TURN && looks++ < LOOKS_PER_TURN &&
	       some.taken <= CONN_TICKS_PER_STAGE) {
		idmap_walk(&worker->host.ids, &worker->migrate_at, migrate_one, &some);
		worker->migrating = worker->migrate_at;
	}
	worker->waiting_to_migrate += some.waiting;
	if (!worker->migrating)
		succession_end(worker);
}

/* ---- draining ---- */

/* What it has its place in the map for drains by itself: a connection, or an agent without a socket. */
static bool is_to_drain(const struct generation *generation, const struct channel *channel)
{
	if (!channel || (!channel->lone && channel != &channel->conn->first))
		return false;
	return channel->agents == &generation->agents &&
	       (generation->drains_all || agents_policy(&generation->agents, channel) == RELOAD_DRAIN);
}

/* The same for one each time, and as good as random among them. */
static unsigned share_of(const struct channel *channel)
{
	return (unsigned)(channel->id * UINT64_C(0x9e3779b97f4a7c15) >> 56);
}

static uint64_t window_ms(const struct worker *worker)
{
	return worker->config->drain_ms ? worker->config->drain_ms : WINDOW_MS;
}

static void drain_shares(struct worker *worker, const struct generation *generation, unsigned first,
			 unsigned end)
{
	/* What drain() is told: each has as long as a stop of the server would give it. */
	if (!worker->host.draining)
		worker->host.drain_deadline_ms =
		    worker->config->drain_ms ? worker->host.now_ms + worker->config->drain_ms : WHEEL_NEVER;
	for (size_t i = 0; i < worker->host.ids.capacity; i++) {
		struct channel *channel = worker->host.ids.slots[i].value;
		if (!is_to_drain(generation, channel) || share_of(channel) < first ||
		    share_of(channel) >= end)
			continue;
		if (channel->lone)
			resident_drain(channel);
		else
			conn_drain(channel->conn);
	}
}

static void end_rest(struct worker *worker, const struct generation *generation)
{
	for (size_t i = 0; i < worker->host.ids.capacity; i++) {
		struct channel *channel = worker->host.ids.slots[i].value;
		if (!is_to_drain(generation, channel))
			continue;
		if (channel->lone)
			resident_end_drain(channel);
		else
			conn_end_drain(channel->conn, CLOSE_FLUSH);
	}
}

static void drain_some(struct worker *worker, struct generation *generation)
{
	uint64_t passed_ms = worker->host.now_ms - generation->drain_from_ms, window = window_ms(worker);
	unsigned due = passed_ms >= window ? SHARES : (unsigned)(passed_ms * SHARES / window) + 1;
	if (due > generation->drained_shares)
		drain_shares(worker, generation, generation->drained_shares, due);
	generation->drained_shares = due;
	if (due < SHARES || (worker->config->drain_ms && passed_ms < 2 * window))
		return;
	if (worker->config->drain_ms)
		end_rest(worker, generation);
	generation->drain_from_ms = WHEEL_NEVER;
}

static uint64_t next_share_ms(const struct worker *worker, const struct generation *generation)
{
	uint64_t window = window_ms(worker);
	if (generation->drain_from_ms == WHEEL_NEVER)
		return WHEEL_NEVER;
	if (generation->drained_shares == SHARES)
		return generation->drain_from_ms + 2 * window;
	return generation->drain_from_ms + generation->drained_shares * window / SHARES + 1;
}

static void begin_drain(struct worker *worker, struct generation *generation)
{
	generation->drain_from_ms = worker->host.now_ms;
	generation->drained_shares = 0;
}

static void drain_all(struct worker *worker, struct generation *generation)
{
	if (!generation->drains_all)
		begin_drain(worker, generation);
	generation->drains_all = true;
}

/* If one listener more is to be drained, the drain begins anew with all connections that are left. */
static void drain_by_policy(struct worker *worker, struct generation *generation)
{
	enum drains drains = agents_note_drains(&generation->agents);
	if (generation->drains_all)
		return;
	if (drains == DRAINS_MORE)
		begin_drain(worker, generation);
	else if (drains == DRAINS_NONE)
		generation->drain_from_ms = WHEEL_NEVER;
}

/* ---- all of it ---- */

void succession_begin(struct worker *worker)
{
	unsigned old = 0;
	begin_walk(worker);
	for (struct generation *each = worker->generation->older; each; each = each->older) {
		if (each == worker->candidate)
			continue;
		if (++old > worker->config->reload_keep && worker->config->reload_drains_old)
			drain_all(worker, each);
		drain_by_policy(worker, each);
	}
}

bool succession_turn(struct worker *worker)
{
	for (struct generation *each = worker->generation->older; each; each = each->older)
		if (each->drain_from_ms != WHEEL_NEVER)
			drain_some(worker, each);
	migrate_some(worker);
	return worker->migrating;
}

uint64_t succession_next_ms(const struct worker *worker)
{
	uint64_t next = WHEEL_NEVER;
	for (const struct generation *each = worker->generation->older; each; each = each->older) {
		uint64_t at = next_share_ms(worker, each);
		next = at < next ? at : next;
	}
	return next;
}
