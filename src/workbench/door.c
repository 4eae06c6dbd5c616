/*
 * The door of an app in memory: who is let in, by the limits of the listeners, and whose client of the workers he is
 * then. In a server that is the acceptor's (server/acceptor.h) and the kernel's.
 */
#include "conn/peer.h"
#include "net/datagrams.h"
#include "server/admission.h"
#include "server/balance.h"
#include "workbench/world.h"

#include <stdio.h>
#include <stdlib.h>

static struct peer_key key_of(const struct peer *peer)
{
	return peer_key_of((const struct sockaddr *)(const void *)&peer->conn.peer);
}

static void world_on_left(struct conn *conn)
{
	struct peer *peer = (struct peer *)(void *)conn;
	if (peer->has_space)
		peer_table_leave(peer->world->addresses, key_of(peer));
	peer->has_space = false;
	peer->world->open[peer->listener]--;
}

static void world_on_gone(struct conn *conn)
{
	struct peer *peer = (struct peer *)(void *)conn;
	struct world_worker *worker = peer->worker;
	peer_look(peer);
	peer->gone = true;
	*peer->live_link = peer->next_live;
	if (peer->next_live)
		peer->next_live->live_link = peer->live_link;
	else
		worker->live_end = peer->live_link;
	worker->load--;
	agents_count(conn->first.agents, (size_t)-1);
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
	char text[PEER_TEXT_BYTES], what[256];
	if (!peer->is_flow) { /* a flow that is refused never was a connection */
		count(&world->counters.accepted);
		count(&world->counters.closed[REASON_LIMIT]);
	}
	log_write(LOG_WARN, "connection refused", F_TEXT("reason", "limit"), F_TEXT("limit", limit),
		  F_TEXT("peer", peer_text(&peer->conn, text, sizeof text)),
		  F_TEXT("listener", config->name));
	if (config->reject && !config->tls)
		peer_receive(peer, config->reject, config->reject_bytes);
	snprintf(what, sizeof what, "refuses %s: limits.%s", config->name, limit);
	lan_note_client(peer, false, what);
	peer->is_placed = peer->is_flow;
	peer->refused = peer->gone = peer->ended = peer->end_seen = true;
	peer->ended_ms = peer->end_seen_ms = world_now_ms(world);
}

/* ---- whose client it is ---- */

static void give_to(struct peer *peer, struct world_worker *worker)
{
	peer->is_placed = true;
	if (worker == peer->worker)
		return;
	peer->worker = worker;
	peer_speak(peer, worker->agents);
}

static bool load_of_any(const void *data, unsigned i, unsigned *load)
{
	*load = ((const struct world *)data)->workers[i].load;
	return true;
}

static bool load_of_running(const void *data, unsigned i, unsigned *load)
{
	return !((const struct world *)data)->workers[i].is_stalled && load_of_any(data, i, load);
}

/* As a server deals them out (server/balance.h). One that is stalled is known to be so at once. */
static struct world_worker *choose_worker(struct world *world)
{
	int found = balance_find(world->worker_count, world->next_worker, load_of_running, world);
	if (found < 0)
		found = balance_find(world->worker_count, world->next_worker, load_of_any, world);
	world->next_worker++;
	return &world->workers[found];
}

/* By its address, as the kernel leads a peer to one of the workers' sockets. */
static void place_flow(struct world *world, struct peer *peer)
{
	give_to(peer, &world->workers[datagrams_place(&peer->conn.peer, world->worker_count)]);
}

void world_begin_conn(struct peer *peer)
{
	struct world_worker *worker = peer->worker;
	struct conn *conn = &peer->conn;
	peer->waits = false;
	conn->first.agents = worker->agents;
	agents_count(worker->agents, 1);
	conn_open(conn, &worker->host, agents_endpoint(worker->agents, peer->listener, peer->listener),
		  peer->id);
}

static void let_in(struct world *world, struct peer *peer)
{
	if (!peer->is_placed)
		give_to(peer, choose_worker(world));
	struct world_worker *worker = peer->worker;
	peer->next_live = NULL; /* a flow that begins anew has had a place in the list before */
	peer->live_link = worker->live_end;
	*worker->live_end = peer;
	worker->live_end = &peer->next_live;
	world->open[peer->listener]++;
	worker->load++;
	count(&worker->counters.accepted);
	peer->id = world->next_id++;
	if (world_worker_is_stalled(worker))
		peer->waits = true;
	else
		world_begin_conn(peer);
}

/* ---- clients ---- */

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

bool world_receive(struct world *world, struct peer *peer)
{
	struct log_sink *before = log_divert(&world->log.sink);
	const char *limit = world_admit(world, peer);
	if (limit)
		world_refuse(world, peer, limit);
	else
		let_in(world, peer);
	log_divert(before);
	return !limit;
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
	peer->wire = way->wire;
	peer->memory.read_max = way->read_max;
	peer->memory.write_max = way->write_max;
	if (way->to)
		give_to(peer, way->to);
	else if (peer->is_flow)
		place_flow(world, peer);
	lan_note_client(peer, true, "connects");
	if (peer->is_flow)
		peer->gone = true; /* nobody knows of it yet */
	else
		world_receive(world, peer);
	return peer;
}

void world_open_door(struct world_worker *worker)
{
	worker->host.admit = world_on_admit;
	worker->host.left = world_on_left;
	worker->host.gone = world_on_gone;
}
