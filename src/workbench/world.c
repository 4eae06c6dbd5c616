#include "workbench/world.h"

#include "agent/job.h"
#include "dict/dicts.h"
#include "names/names.h"
#include "server/admission.h"
#include "workbench/entropy.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

enum { TURNS_MAX = 100000 }; /* without the time going on */

/* ---- turns ---- */

/* The worlds that go together with this one, which comes first; `each` NULL: the first. */
static struct world *next_world(struct world *world, struct world *each)
{
	struct world *next = !each           ? world
			     : each == world ? world->lan ? world->lan->first : NULL
					     : each->next_in_lan;
	return next == world && each ? next->next_in_lan : next;
}

static void set_workers_time(struct world_worker *worker, uint64_t now_ms)
{
	struct world_outgoing *out = &worker->outgoing;
	if (worker->host.now_ms < now_ms)
		worker->host.now_ms = now_ms;
	if (out->outgoing.host && out->host.now_ms < now_ms)
		out->host.now_ms = now_ms;
}

static void world_set_time(struct world *world, uint64_t now_ms)
{
	if (world->lan && world->lan->now_ms < now_ms)
		world->lan->now_ms = now_ms;
	for (struct world *each = next_world(world, NULL); each; each = next_world(world, each))
		for (unsigned i = 0; i < each->worker_count; i++)
			set_workers_time(&each->workers[i], now_ms);
}

/* What handlers have spent is spent everywhere. True: it had not yet been, for one of the app's workers. */
static bool pass_time(struct world_worker *worker)
{
	struct world *world = worker->world;
	bool any = world_pass(worker);
	for (unsigned i = 0; i < world->worker_count; i++)
		any = any || world->workers[i].host.now_ms < worker->host.now_ms;
	world_set_time(world, worker->host.now_ms);
	return any;
}

/* What a poll has for a client. True: something. */
static bool report(struct peer *peer)
{
	bool closes = peer->memory.closing;
	if (!peer->waits)
		return memory_stream_report(&peer->memory) || closes;
	world_begin_conn(peer);
	return true;
}

/* One poll: every connection that has an event gets it, then all are settled. */
static bool poll_all(struct world_worker *worker)
{
	bool any = pass_time(worker);
	struct peer *next;
	for (struct peer *peer = worker->live; peer; peer = next) {
		next = peer->next_live; /* it may be gone by then, and no other */
		any = report(peer) || any;
	}
	any = post_has_mail(&worker->post) || any;
	while (post_collect(&worker->post))
		;
	any = audience_has_mail(&worker->audience) || any;
	while (audience_turn(&worker->audience))
		;
	any = lan_poll(worker) || any;
	conn_host_settle(&worker->host);
	for (struct peer *peer = worker->live; peer; peer = peer->next_live)
		any = peer_look(peer) || any;
	return any;
}

static bool is_stopped(const struct world *world)
{
	return world->stop && *world->stop;
}

static uint64_t own_next_ms(const struct world_worker *worker)
{
	const struct conn_host *out = worker->outgoing.outgoing.host;
	uint64_t conns_ms = conn_host_next_ms(&worker->host), agents_ms = world_generations_next_ms(worker);
	uint64_t out_ms = out ? conn_host_next_ms(out) : WHEEL_NEVER;
	conns_ms = out_ms < conns_ms ? out_ms : conns_ms;
	return conns_ms < agents_ms ? conns_ms : agents_ms;
}

/* What is due by the clock, and what was put off. True: there is more to do at once. */
static bool world_turn(struct world_worker *worker)
{
	uint64_t now_ms = worker->host.now_ms;
	struct conn_host *out = worker->outgoing.outgoing.host;
	agent_jobs_over(worker->host.job_port);
	bool more = world_turn_generations(worker);
	more = (out && conn_host_turn(out, now_ms)) || more;
	more = conn_host_turn(&worker->host, now_ms) || more;
	return more || own_next_ms(worker) <= now_ms;
}

bool world_worker_is_stalled(const struct world_worker *worker)
{
	const struct lan_node *node = worker->world->node;
	return worker->is_stalled || (node && node->is_stalled);
}

/*
 * Threads run in any order. In a net each step draws one, so that a seed is a history and other seeds are others; an
 * app that is alone always has the same.
 */
static void shuffle(struct world *world)
{
	if (world->worker_count < 2 || !lan_notes(world->lan))
		return;
	for (unsigned i = world->worker_count - 1; i; i--) {
		unsigned other = (unsigned)links_draw(&world->lan->turned, i + 1);
		uint16_t moved = world->order[i];
		world->order[i] = world->order[other];
		world->order[other] = moved;
	}
}

static bool step_world(struct world *world, bool (*step)(struct world_worker *worker))
{
	struct log_sink *before = log_divert(&world->log.sink);
	bool any = false;
	shuffle(world);
	for (unsigned i = 0; i < world->worker_count; i++) {
		struct world_worker *worker = &world->workers[world->order[i]];
		if (world_worker_is_stalled(worker))
			continue;
		world->log.now_ms = &worker->host.now_ms;
		any = step(worker) || any;
	}
	world->log.now_ms = &world->workers[0].host.now_ms;
	log_divert(before);
	return any;
}

/* A poll, or a turn, of all worlds that go together. */
static bool step_all(struct world *world, bool (*step)(struct world_worker *worker))
{
	bool any = false;
	for (struct world *each = next_world(world, NULL); each; each = next_world(world, each))
		any = step_world(each, step) || any;
	return any;
}

/* A poll of all of them, and then what they have said to each other. */
static bool poll_lan(struct world *world)
{
	bool any = step_all(world, poll_all);
	return lan_serve(world) || any;
}

/* How many. */
static unsigned run_some(struct world *world, unsigned most)
{
	unsigned ran = 0;
	struct log_sink *before = log_divert(&world->log.sink);
	while (ran < most && jobs_run_one(world->jobs))
		ran++;
	log_divert(before);
	return ran;
}

/* Those that were given in the turns so far; what they give is for the next ones. True: there were some. */
static bool run_all_jobs(struct world *world)
{
	bool any = false;
	for (struct world *each = next_world(world, NULL); each; each = next_world(world, each)) {
		bool is_stalled = each->node && each->node->is_stalled;
		if (!each->holds_jobs && !is_stalled)
			any = run_some(each, UINT_MAX) || any;
	}
	return any;
}

static enum world_quiet settle_turns(struct world *world)
{
	for (unsigned turns = 0; turns < TURNS_MAX; turns++) {
		if (is_stopped(world))
			return WORLD_STOPPED;
		bool more = poll_lan(world);
		more = step_all(world, world_turn) || more;
		more = run_all_jobs(world) || more;
		if (!more && !poll_lan(world))
			return WORLD_QUIET;
	}
	return WORLD_RESTLESS;
}

static enum world_quiet settle_app(struct world *world)
{
	uint64_t *before = lan_draw_secrets(world->lan);
	enum world_quiet quiet = settle_turns(world);
	entropy_draw_from(before);
	return quiet;
}

enum world_quiet world_settle(struct world *world)
{
	struct log_sink *before = log_divert(&world->log.sink);
	enum world_quiet quiet = settle_app(world);
	log_divert(before);
	return quiet;
}

enum world_quiet world_run_jobs(struct world *world, unsigned most, unsigned *ran)
{
	uint64_t *before = lan_draw_secrets(world->lan);
	*ran = run_some(world, most);
	entropy_draw_from(before);
	return world_settle(world);
}

uint64_t world_next_ms(struct world *world)
{
	uint64_t next_ms = lan_next_ms(world->lan), its_ms;
	for (struct world *each = next_world(world, NULL); each; each = next_world(world, each))
		for (unsigned i = 0; i < each->worker_count; i++)
			if (!world_worker_is_stalled(&each->workers[i]) &&
			    (its_ms = own_next_ms(&each->workers[i])) < next_ms)
				next_ms = its_ms;
	return next_ms;
}

static enum world_quiet advance(struct world *world, uint64_t to_ms)
{
	for (;;) {
		enum world_quiet quiet = settle_app(world);
		uint64_t next_ms = world_next_ms(world);
		if (quiet != WORLD_QUIET || world_now_ms(world) >= to_ms)
			return quiet;
		world_set_time(world, next_ms < to_ms ? next_ms : to_ms);
	}
}

enum world_quiet world_advance(struct world *world, uint64_t to_ms)
{
	struct log_sink *before = log_divert(&world->log.sink);
	enum world_quiet quiet = advance(world, to_ms);
	log_divert(before);
	return quiet;
}

/* ---- the end ---- */

static void drain_workers(struct world *world)
{
	for (unsigned i = 0; i < world->worker_count; i++)
		conn_host_drain(&world->workers[i].host, world->config->drain_ms);
}

static bool has_live(const struct world *world)
{
	for (unsigned i = 0; i < world->worker_count; i++)
		if (world->workers[i].live || world->workers[i].host.lone)
			return true;
	return false;
}

enum world_quiet world_begin_drain(struct world *world)
{
	struct log_sink *before = log_divert(&world->log.sink);
	drain_workers(world);
	enum world_quiet quiet = settle_app(world);
	log_divert(before);
	return quiet;
}

/* Where the drain has no deadline, what does nothing more is ended. */
static enum world_quiet drain(struct world *world)
{
	drain_workers(world);
	enum world_quiet quiet = settle_app(world);
	uint64_t next_ms;
	while (quiet == WORLD_QUIET && has_live(world) && (next_ms = world_next_ms(world)) != WHEEL_NEVER)
		quiet = advance(world, next_ms);
	if (quiet == WORLD_QUIET && has_live(world)) {
		for (unsigned i = 0; i < world->worker_count; i++)
			conn_host_end_drain(&world->workers[i].host);
		quiet = settle_app(world);
	}
	return quiet;
}

enum world_quiet world_drain(struct world *world)
{
	struct log_sink *before = log_divert(&world->log.sink);
	enum world_quiet quiet = drain(world);
	log_divert(before);
	return quiet;
}

/* What agents have begun has ended with them; what the app has begun does so now. */
static void world_end_outgoing(struct world_worker *worker)
{
	for (struct generation *each = worker->generation; each; each = each->older)
		agents_end_app(&each->agents);
	struct conn_host *out = worker->outgoing.outgoing.host;
	while (out && out->open) {
		conn_host_cut(out);
		settle_app(worker->world);
	}
}

static void cut_workers(struct world *world)
{
	for (unsigned i = 0; i < world->worker_count; i++)
		conn_host_cut(&world->workers[i].host);
}

static void close_connections(struct world *world)
{
	for (unsigned i = 0; i < world->worker_count; i++)
		world->workers[i].is_stalled = false; /* else they would not end */
	cut_workers(world);
	while (has_live(world)) {
		settle_app(world);
		cut_workers(world); /* closed() may do anything but this twice */
	}
	for (unsigned i = 0; i < world->worker_count; i++)
		world_end_outgoing(&world->workers[i]);
}

static void free_peers(struct world *world)
{
	for (size_t i = 0; i < world->peer_count; i++)
		peer_free(world->peers[i]);
	free(world->peers);
	world->peers = NULL;
	world->peer_count = 0;
}

static void close_mail(struct world_worker *worker)
{
	post_close(&worker->post);
	audience_close(&worker->audience);
}

/* Of the first so many workers, which have no generations any more. */
static void free_workers(struct world *world, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		close_mail(&world->workers[i]);
	for (unsigned i = 0; i < count; i++) {
		post_drop_rest(&world->workers[i].post);
		audience_drop_rest(&world->workers[i].audience);
		tape_deinit(&world->workers[i].tape);
		conn_host_deinit(&world->workers[i].host);
	}
	free(world->workers);
	free(world->order);
	free(world->open);
	peer_table_free(world->addresses);
	jobs_free(world->jobs);
	dicts_free(world->dicts);
	names_free(world->names);
	hub_free(world->hub);
	world->workers = NULL;
	world->worker_count = 0;
}

void world_close(struct world *world)
{
	if (!world->is_open)
		return;
	world->is_open = false;
	world->stop = NULL; /* else connections might outlive their agents, */
	if (world->node)
		world->node->is_stalled = false; /* ... or never end */
	struct log_sink *before = log_divert(&world->log.sink);
	close_connections(world);
	for (unsigned i = 0; i < world->worker_count; i++)
		job_port_close(&world->workers[i].job_port);
	for (unsigned i = 0; i < world->worker_count; i++)
		world_close_generations(&world->workers[i]);
	world->config = NULL;
	log_divert(before);
	lan_leave(world);
	for (unsigned i = 0; i < world->worker_count; i++)
		world_outgoing_deinit(&world->workers[i]);
	free_peers(world);
	free_workers(world, world->worker_count);
}

void world_free_log(struct world *world)
{
	entries_deinit(&world->log);
}

/* ---- the beginning ---- */

/* The world runs its jobs in turns. */
static void wake_nobody(struct job_port *port)
{
	(void)port;
}

/* False: no memory. */
static bool open_worker(struct world *world, unsigned index)
{
	struct world_worker *worker = &world->workers[index];
	worker->world = world;
	worker->index = index;
	worker->live_end = &worker->live;
	worker->buffer_bytes = world->config->buffer_bytes / world->worker_count;
	if (job_port_open(&worker->job_port, world->jobs, wake_nobody))
		return false;
	if (conn_host_init(&worker->host, &AGENT_HANDLER, &worker->counters, worker->buffer_bytes,
			   WORLD_BEGIN_MS))
		return false;
	worker->host.epoch_ms = WORLD_EPOCH_MS;
	worker->host.dicts = world->dicts;
	worker->host.all_counters = &world->all_counters;
	worker->host.job_port = &worker->job_port;
	post_open(&worker->post, world->names, &worker->host, index);
	audience_open(&worker->audience, world->hub, &worker->host, index);
	hub_open_box(world->hub, index, NULL, &worker->counters);
	worker->host.opening_max = world->config->handshakes;
	worker->host.last_further_id = CONN_FURTHER_IDS_OF(index);
	world_open_door(worker);
	world_outgoing_init(worker);
	world->order[index] = (uint16_t)index;
	return true;
}

/* What lies where in a dictionary is the same each time, as all else is. */
static const struct siphash_key DICTS_KEY = { 1, 2 };

/* Each looks whether something has come when it has its turn. */
static void rings_nobody(void *data)
{
	(void)data;
}

/* False: no memory, and there is nothing of them. */
static bool open_workers(struct world *world)
{
	unsigned count = 0;
	world->workers = calloc(world->worker_count, sizeof *world->workers);
	world->order = calloc(world->worker_count, sizeof *world->order);
	world->open = calloc((size_t)world->config->listener_count + 1, sizeof *world->open);
	world->dicts = dicts_new(&DICTS_KEY);
	if (world->workers)
		world->surroundings = (struct job_surroundings){ world->dicts, &world->workers[0].host };
	world->jobs = jobs_new(&JOB_OPS, &world->surroundings, false);
	world->names = names_new(world->worker_count, rings_nobody, &DICTS_KEY);
	world->hub = hub_new(world->worker_count, rings_nobody, &DICTS_KEY);
	bool ok = world->workers && world->order && world->open && world->dicts && world->jobs &&
		  world->names && world->hub;
	world->all_counters = (struct counters_all){ .first = &world->workers->counters,
						     .stride = sizeof *world->workers,
						     .count = world->worker_count,
						     .more = &world->counters };
	while (ok && count < world->worker_count) {
		ok = open_worker(world, count);
		count += ok;
	}
	if (!ok)
		free_workers(world, count);
	return ok;
}

bool world_open(struct world *world, struct config *config, const char *inside, char *why, size_t size)
{
	*world = (struct world){ .config = config, .next_id = 1, .worker_count = config->workers };
	if (!open_workers(world)) {
		snprintf(why, size, "not enough memory");
		return false;
	}
	entries_init(&world->log, &world->workers[0].host.now_ms);
	struct log_sink *before = log_divert(&world->log.sink);
	bool ok = world_add_generation(world, config, inside, why, size);
	log_divert(before);
	if (!ok) {
		free_workers(world, world->worker_count);
		entries_deinit(&world->log);
		return false;
	}
	world->is_open = true;
	return true;
}
