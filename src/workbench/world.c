#include "workbench/world.h"

#include "bind/open.h"
#include "conn/peer.h"
#include "server/admission.h"

#include <stdio.h>
#include <stdlib.h>

enum { TURNS_MAX = 100000 }; /* without the time going on */

static struct world *world_of_conn(const struct conn *conn)
{
	return (struct world *)(void *)conn->host;
}

/* ---- connections ---- */

static struct peer_key key_of(const struct peer *peer)
{
	return peer_key_of((const struct sockaddr *)(const void *)&peer->conn.peer);
}

static void world_on_left(struct conn *conn)
{
	struct peer *peer = (struct peer *)(void *)conn;
	if (peer->has_space)
		peer_table_leave(world_of_conn(conn)->addresses, key_of(peer));
	peer->has_space = false;
	world_of_conn(conn)->open[peer->listener]--;
}

static void world_on_gone(struct conn *conn)
{
	struct peer *peer = (struct peer *)(void *)conn;
	struct world *world = peer->world;
	peer_look(peer);
	peer->gone = true;
	*peer->live_link = peer->next_live;
	if (peer->next_live)
		peer->next_live->live_link = peer->live_link;
	else
		world->live_end = peer->live_link;
	agents_count(&world->agents, (size_t)-1);
}

static bool keep_peer(struct world *world, struct peer *peer)
{
	if (world->peer_count == world->peer_room) {
		size_t room = world->peer_room ? world->peer_room * 2 : 8;
		struct peer **grown = realloc(world->peers, room * sizeof(struct peer *));
		if (!grown)
			return false;
		world->peers = grown;
		world->peer_room = room;
	}
	world->peers[world->peer_count++] = peer;
	return true;
}

/* Why it may not come in, or NULL. Who stands behind a proxy is known later. */
static const char *world_admit(struct world *world, struct peer *peer)
{
	const struct listener_config *config = &world->config->listeners[peer->listener];
	bool is_proxy = config->proxy != PROXY_OFF && stream_is_layered(&peer->conn.io);
	struct peer_table *addresses = config->per_ip && !is_proxy ? world->addresses : NULL;
	const char *why = admission_limit(world->open[peer->listener], config->connections, addresses,
					  key_of(peer), config->per_ip);
	peer->has_space = !why && addresses;
	return why;
}

static void world_on_admit(struct conn *conn)
{
	struct peer *peer = (struct peer *)(void *)conn;
	const struct listener_config *config = &peer->world->config->listeners[peer->listener];
	if (peer->has_space || !config->per_ip)
		return;
	peer->has_space = peer_table_enter(peer->world->addresses, key_of(peer), config->per_ip);
	if (!peer->has_space)
		conn_refuse(conn, "per_ip", config->reject, config->reject_bytes);
}

static void world_refuse(struct world *world, struct peer *peer, const char *limit)
{
	const struct listener_config *config = &world->config->listeners[peer->listener];
	char text[PEER_TEXT_BYTES];
	count(&world->counters.closed[REASON_LIMIT]);
	log_write(LOG_WARN, "connection refused", F_TEXT("reason", "limit"), F_TEXT("limit", limit),
		  F_TEXT("peer", peer_text(&peer->conn, text, sizeof text)),
		  F_TEXT("listener", config->name));
	if (config->reject && !config->tls)
		peer_receive(peer, config->reject, config->reject_bytes);
	peer->refused = peer->gone = peer->ended = peer->end_seen = true;
	peer->ended_ms = peer->end_seen_ms = world->host.now_ms;
}

static void let_in(struct world *world, struct peer *peer)
{
	struct conn *conn = &peer->conn;
	conn->first.agents = &world->agents;
	peer->live_link = world->live_end;
	*world->live_end = peer;
	world->live_end = &peer->next_live;
	world->open[peer->listener]++;
	agents_count(&world->agents, 1);
	conn_open(conn, &world->host, agents_endpoint(&world->agents, peer->listener, peer->listener),
		  world->next_id++);
}

struct peer *world_add_codec(struct world *world, unsigned listener)
{
	struct peer *peer = peer_new(world, listener, true);
	if (peer && keep_peer(world, peer)) {
		peer->gone = true;
		return peer;
	}
	if (peer)
		peer_free(peer);
	return NULL;
}

struct peer *world_connect(struct world *world, unsigned listener, const struct world_way *way)
{
	struct peer *peer = peer_new(world, listener, way->is_bare);
	if (!peer || !keep_peer(world, peer)) {
		if (peer)
			peer_free(peer);
		return NULL;
	}
	if (way->from.sin6_family)
		peer->conn.peer = way->from;
	peer->memory.read_max = way->read_max;
	peer->memory.write_max = way->write_max;
	struct log_sink *before = log_divert(&world->log.sink);
	count(&world->counters.accepted);
	const char *limit = world_admit(world, peer);
	if (limit)
		world_refuse(world, peer, limit);
	else
		let_in(world, peer);
	log_divert(before);
	return peer;
}

/* ---- turns ---- */

/* One poll: every connection that has an event gets it, then all are settled. */
static bool poll_all(struct world *world)
{
	bool any = world_pass(world);
	struct peer *next;
	for (struct peer *peer = world->live; peer; peer = next) {
		next = peer->next_live; /* it may be gone by then, and no other */
		bool closes = peer->memory.closing;
		any = memory_stream_report(&peer->memory) || closes || any;
	}
	conn_host_settle(&world->host);
	for (struct peer *peer = world->live; peer; peer = peer->next_live)
		any = peer_look(peer) || any;
	return any;
}

static bool is_stopped(const struct world *world)
{
	return world->stop && *world->stop;
}

/* What is due by the clock, and what was put off. True: there is more to do at once. */
static bool world_turn(struct world *world)
{
	uint64_t now_ms = world->host.now_ms;
	agents_turn(&world->agents, now_ms);
	bool more = conn_host_turn(&world->host, now_ms);
	agents_report(&world->agents);
	return more || world_next_ms(world) <= now_ms;
}

static enum world_quiet settle_app(struct world *world)
{
	for (unsigned turns = 0; turns < TURNS_MAX; turns++) {
		if (is_stopped(world))
			return WORLD_STOPPED;
		bool more = poll_all(world);
		more = world_turn(world) || more;
		if (!more && !poll_all(world))
			return WORLD_QUIET;
	}
	return WORLD_RESTLESS;
}

enum world_quiet world_settle(struct world *world)
{
	struct log_sink *before = log_divert(&world->log.sink);
	enum world_quiet quiet = settle_app(world);
	log_divert(before);
	return quiet;
}

uint64_t world_next_ms(const struct world *world)
{
	uint64_t conns_ms = conn_host_next_ms(&world->host), agents_ms = agents_next_ms(&world->agents);
	return conns_ms < agents_ms ? conns_ms : agents_ms;
}

static enum world_quiet advance(struct world *world, uint64_t to_ms)
{
	for (;;) {
		enum world_quiet quiet = settle_app(world);
		uint64_t next_ms = world_next_ms(world);
		if (quiet != WORLD_QUIET || world->host.now_ms >= to_ms)
			return quiet;
		world->host.now_ms = next_ms < to_ms ? next_ms : to_ms;
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

enum world_quiet world_begin_drain(struct world *world)
{
	struct log_sink *before = log_divert(&world->log.sink);
	conn_host_drain(&world->host, world->config->drain_ms);
	enum world_quiet quiet = settle_app(world);
	log_divert(before);
	return quiet;
}

/* Where the drain has no deadline, what does nothing more is ended. */
static enum world_quiet drain(struct world *world)
{
	conn_host_drain(&world->host, world->config->drain_ms);
	enum world_quiet quiet = settle_app(world);
	uint64_t next_ms;
	while (quiet == WORLD_QUIET && world->live && (next_ms = world_next_ms(world)) != WHEEL_NEVER)
		quiet = advance(world, next_ms);
	if (quiet == WORLD_QUIET && world->live) {
		conn_host_end_drain(&world->host);
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

static bool open_limits(struct world *world)
{
	bool by_address = false;
	for (unsigned i = 0; i < world->config->listener_count; i++)
		by_address = by_address || world->config->listeners[i].per_ip;
	world->open = calloc((size_t)world->config->listener_count + 1, sizeof *world->open);
	world->addresses = by_address ? peer_table_new() : NULL;
	return world->open && (world->addresses || !by_address);
}

static void close_limits(struct world *world)
{
	free(world->open);
	peer_table_free(world->addresses);
}

/*
 * limits.proceed = 0 allows a call any time. Here somebody waits for it who has a limit of his own, and cannot end it.
 */
static void bound_calls(struct world *world)
{
	enum { MOST_MS = 60000 };
	for (unsigned i = 0; i < world->config->listener_count; i++)
		if (!world->agents.endpoints[i].budget.ms)
			world->agents.endpoints[i].budget.ms = MOST_MS;
}

bool world_open(struct world *world, struct config *config, const char *inside, char *why, size_t size)
{
	*world = (struct world){ .config = config, .next_id = 1 };
	world->live_end = &world->live;
	entries_init(&world->log, &world->host.now_ms);
	config->inside =
	    inside; /* it is looked at when agents are opened, and worlds of one script take turns at that */
	for (unsigned i = 0; i < config->listener_count; i++)
		config->listeners[i].slot = (uint16_t)i;
	if (conn_host_init(&world->host, &AGENT_HANDLER, &world->counters, config->buffer_bytes,
			   WORLD_BEGIN_MS)) {
		snprintf(why, size, "not enough memory");
		return false;
	}
	world->host.admit = world_on_admit;
	world->host.left = world_on_left;
	world->host.gone = world_on_gone;
	world->host.opening_max = config->handshakes;
	struct log_sink *before = log_divert(&world->log.sink);
	bool ok = open_limits(world);
	if (!ok)
		snprintf(why, size, "not enough memory");
	ok = ok && !agents_open(&world->agents, &world->host, config, 0, 1, &world->counters, why, size);
	if (ok && !world_open_clock(world)) {
		snprintf(why, size, "not enough memory");
		agents_close(&world->agents, VM_TEARDOWN_MS);
		ok = false;
	}
	log_divert(before);
	if (!ok) {
		close_limits(world);
		conn_host_deinit(&world->host);
		entries_deinit(&world->log);
		return false;
	}
	bound_calls(world);
	agents_attach(&world->agents);
	config_hold(config);
	world->is_open = true;
	return true;
}

void world_close(struct world *world)
{
	if (!world->is_open)
		return;
	world->is_open = false;
	world->stop = NULL; /* else connections might outlive their agents */
	struct log_sink *before = log_divert(&world->log.sink);
	conn_host_cut(&world->host);
	while (world->live) {
		settle_app(world);
		conn_host_cut(&world->host); /* closed() may do anything but this twice */
	}
	agents_close(&world->agents, VM_TEARDOWN_MS);
	log_divert(before);
	for (size_t i = 0; i < world->peer_count; i++)
		peer_free(world->peers[i]);
	free(world->peers);
	tape_deinit(&world->tape);
	close_limits(world);
	conn_host_deinit(&world->host);
	config_drop(world->config);
	world->peers = NULL;
	world->peer_count = 0;
}

void world_free_log(struct world *world)
{
	entries_deinit(&world->log);
}
