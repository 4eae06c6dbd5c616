#include "workbench/lan.h"

#include "net/datagram.h"
#include "workbench/entropy.h"
#include "workbench/peer.h"
#include "workbench/wire.h"
#include "workbench/world.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <uv.h>

static struct world *world_of_outgoing(struct outgoing *outgoing)
{
	return ((struct world_outgoing *)(void *)outgoing)->worker->world;
}

/* ---- the network ---- */

struct lan *lan_open(uint64_t seed)
{
	struct lan *lan = calloc(1, sizeof *lan);
	if (!lan)
		return NULL;
	lan->end = &lan->wires;
	lan->now_ms = WORLD_BEGIN_MS;
	lan->is_held = true;
	lan->drawn = seed;
	lan->chosen = seed ^ UINT64_C(0x5bd1e9955bd1e995);
	lan->secret = seed ^ UINT64_C(0xc2b2ae3d27d4eb4f);
	lan->turned = seed ^ UINT64_C(0x2545f4914f6cdd1d);
	return lan;
}

static void lan_free_unused(struct lan *lan)
{
	if (lan->first || lan->is_held)
		return;
	while (lan->wires)
		wire_free(lan->wires);
	links_free(lan);
	history_deinit(&lan->history);
	free(lan);
}

void lan_drop(struct lan *lan)
{
	lan->is_held = false;
	lan_free_unused(lan);
}

static void join(struct world *world, struct lan *lan)
{
	world->lan = lan;
	world->next_in_lan = lan->first;
	lan->first = world;
}

void lan_enter(struct world *world, struct lan *lan, struct lan_node *node)
{
	join(world, lan);
	world->node = node;
	for (unsigned i = 0; i < world->worker_count; i++)
		world->workers[i].host.now_ms = lan->now_ms;
	links_open_node(node, world);
	lan_note_node(lan, node, "is up");
}

/* One that is in no network reaches itself. False: no memory. */
static bool be_alone(struct world *world)
{
	struct lan *lan = lan_open(0);
	if (!lan)
		return false;
	lan->is_held = false;
	lan->now_ms = world_now_ms(world);
	join(world, lan);
	return true;
}

static void leave_wire(struct wire *wire, struct world *world)
{
	if (wire->far && wire->far->world == world) {
		wire_flush(wire, WAY_BACK);
		wire->far->wire = NULL;
		wire->far = NULL;
	}
	if (wire->from == world) {
		wire->from = NULL;
		wire->worker = NULL;
	}
	if (wire_is_over(wire))
		wire_free(wire);
}

void lan_leave(struct world *world)
{
	struct lan *lan = world->lan;
	if (!lan)
		return;
	for (struct wire *next, *wire = lan->wires; wire; wire = next) {
		next = wire->next;
		leave_wire(wire, world);
	}
	if (world->node && world->node->world == world) {
		links_close_node(world->node, false);
		lan_note_node(lan, world->node, "is closed");
	}
	struct world **link = &lan->first;
	while (*link != world)
		link = &(*link)->next_in_lan;
	*link = world->next_in_lan;
	world->lan = NULL;
	lan_free_unused(lan);
}

/* ---- faults ---- */

static void kill_end(struct wire *wire, enum way way, bool is_silent)
{
	if (!is_silent && !wire->place.is_datagram && !wire->lanes[way].is_reset)
		wire_say(wire, way, SEGMENT_RESET, NULL, 0);
	wire_cut(wire, way);
}

void lan_kill(struct world *world, bool is_silent)
{
	struct lan *lan = world->lan;
	lan_note_node(lan, world->node, is_silent ? "is killed, silently" : "is killed");
	links_close_node(world->node, is_silent);
	for (struct wire *wire = lan->wires; wire; wire = wire->next) {
		if (wire->from == world && wire->near)
			kill_end(wire, WAY_THERE, is_silent);
		bool waits = wire->is_queued && !wire->far && wire->far_node == world->node;
		if (waits || (wire->far && wire->far->world == world))
			kill_end(wire, WAY_BACK, is_silent);
	}
}

static bool is_between(const struct wire *wire, const struct lan_node *one, const struct lan_node *to)
{
	const struct lan_node *near = wire->near_node, *far = wire->far_node;
	if (!one)
		return true;
	return to ? (near == one && far == to) || (near == to && far == one) : near == one || far == one;
}

unsigned lan_reset(struct lan *lan, const struct lan_node *one, const struct lan_node *to, double share)
{
	unsigned count = 0;
	for (struct wire *wire = lan->wires; wire; wire = wire->next) {
		bool is_made = wire->near && !wire->lanes[WAY_THERE].is_reset && !wire->place.is_datagram;
		if (!is_made || !is_between(wire, one, to) || !links_is_drawn(&lan->drawn, share))
			continue;
		wire_break(wire);
		count++;
	}
	return count;
}

/* ---- the history ---- */

bool lan_notes(const struct lan *lan)
{
	return lan && lan->is_held;
}

uint64_t *lan_draw_secrets(struct lan *lan)
{
	return entropy_draw_from(lan_notes(lan) ? &lan->secret : NULL);
}

const char *lan_name(struct lan_name *name, const char *node, const struct world_worker *worker)
{
	if (!worker || worker->world->worker_count < 2)
		return node;
	snprintf(name->text, sizeof name->text, "%s[%u]", node, worker->index);
	return name->text;
}

void lan_note_node(struct lan *lan, const struct lan_node *node, const char *what)
{
	if (lan_notes(lan) && node)
		history_add(&lan->history, lan->now_ms - WORLD_BEGIN_MS, "%s  %s", node->name, what);
}

void lan_note_link(struct lan *lan, const struct lan_node *from, const struct lan_node *to, const char *what)
{
	if (lan_notes(lan))
		history_add(&lan->history, lan->now_ms - WORLD_BEGIN_MS, "%s → %s  %s", from->name, to->name,
			    what);
}

void lan_note_client(struct peer *peer, bool is_clients, const char *what)
{
	struct lan *lan = peer->world->lan;
	const struct lan_node *node = peer->world->node;
	if (peer->wire || !lan_notes(lan) || !node || node->world != peer->world)
		return;
	if (!peer->number)
		peer->number = ++lan->connections;
	struct lan_name name;
	history_add(&lan->history, lan->now_ms - WORLD_BEGIN_MS, "#%u  a client %s %s  %s", peer->number,
		    is_clients ? "→" : "←",
		    lan_name(&name, node->name, peer->is_placed ? peer->worker : NULL), what);
}

void lan_note_client_bytes(struct peer *peer, bool is_clients, const void *bytes, size_t n)
{
	struct history_bytes shown;
	if (peer->wire || !n || !lan_notes(peer->world->lan))
		return;
	const uint8_t *from = bytes;
	size_t head = peer->is_flow ? DATAGRAM_HEAD_BYTES : 0;
	for (size_t at = 0, part; at < n; at += part) {
		part = head && n - at >= head ? datagram_record_bytes(from + at) : n - at;
		if (part < head || part > n - at) /* a part of one: its client stalls */
			return;
		lan_note_client(peer, is_clients,
				peer->tls ? "TLS"
					  : history_show_way(&shown, &peer->is_websocket, !is_clients,
							     from + at + head, part - head));
	}
}

/* ---- dialling ---- */

/* What it has said last is on its way, however much that is. */
static void lan_on_gone(struct conn *conn)
{
	struct near_end *near = (struct near_end *)(void *)conn;
	struct wire *wire = near->wire;
	if (wire) {
		wire_flush(wire, WAY_THERE);
		wire->near = NULL;
		if (wire->far && wire->place.is_datagram)
			wire->far->left = true; /* it falls silent */
	}
	client_gone(&near->made);
	memory_stream_deinit(&near->memory);
	free(near);
}

static int lan_begin(struct outgoing *outgoing)
{
	struct world_outgoing *its = (struct world_outgoing *)(void *)outgoing;
	int err = conn_host_init(&its->host, &CLIENT_HANDLER, &its->counters, its->worker->buffer_bytes,
				 its->worker->host.now_ms);
	if (err)
		return err;
	its->host.gone = lan_on_gone;
	its->host.turn_ticks = WORLD_TURN_TICKS;
	its->host.outgoing = outgoing;
	outgoing->host = &its->host;
	return 0;
}

/* NULL: no memory. */
static struct wire *lan_new_wire(struct outgoing *outgoing, const char *host)
{
	struct world *world = world_of_outgoing(outgoing);
	if (!world->lan && !be_alone(world))
		return NULL;
	struct wire *wire = wire_new(world->lan, world, host);
	if (wire)
		wire->worker = ((struct world_outgoing *)(void *)outgoing)->worker;
	return wire;
}

static struct lan_node *find_node(const struct wire *wire);

static uint16_t source_port(size_t number)
{
	enum { FIRST = 40000, COUNT = 20000 };
	return (uint16_t)(FIRST + number % COUNT);
}

/* A killed app still runs its closed(), but reaches nobody. */
static bool is_dead(struct outgoing *outgoing)
{
	const struct world *world = world_of_outgoing(outgoing);
	return world->node && world->node->world != world;
}

static int lan_dial(struct attempt *attempt, const struct dial_target *target)
{
	if (is_dead(attempt->outgoing))
		return UV_ENETUNREACH;
	struct wire *wire = lan_new_wire(attempt->outgoing, target->is_local ? target->path : target->host);
	if (!wire)
		return UV_ENOMEM;
	wire->place.is_local = target->is_local;
	wire->place.is_datagram = target->is_datagram;
	wire->place.port = target->port;
	wire->attempt = attempt;
	wire->far_node = find_node(wire);
	wire->number = ++wire->lan->connections;
	attempt->carried = wire;
	if (target->is_datagram) {
		wire->source = source_port(wire->lan->sockets++);
		return 0;
	}
	wire_note(wire, WAY_THERE, "connects");
	wire_say(wire, WAY_THERE, SEGMENT_CONNECT, NULL, 0);
	return 0;
}

static void lan_cancel(struct attempt *attempt)
{
	struct wire *wire = attempt->carried;
	attempt->carried = NULL;
	if (wire)
		wire->attempt = NULL;
}

static int lan_resolve(struct inquiry *inquiry, const char *name)
{
	if (is_dead(inquiry->outgoing))
		return UV_EAI_AGAIN;
	struct wire *wire = lan_new_wire(inquiry->outgoing, name);
	if (!wire)
		return UV_ENOMEM;
	wire->inquiry = inquiry;
	inquiry->carried = wire;
	return 0;
}

static void lan_cancel_inquiry(struct inquiry *inquiry)
{
	struct wire *wire = inquiry->carried;
	inquiry->carried = NULL;
	if (wire)
		wire->inquiry = NULL;
}

/* ---- who answers ---- */

static bool is_any(const char *host)
{
	return !*host || !strcmp(host, "0.0.0.0") || !strcmp(host, "::");
}

static bool is_loopback(const char *host)
{
	return !strcasecmp(host, "localhost") || !strncmp(host, "127.", 4) || !strcmp(host, "::1");
}

static bool answers(const struct listener_config *listener, const struct place *place)
{
	if (place->is_local)
		return listener->kind == LISTENER_UNIX && !strcmp(listener->path, place->host);
	enum listener_kind kind = place->is_datagram ? LISTENER_UDP : LISTENER_TCP;
	if (listener->kind != kind || listener->port != place->port)
		return false;
	return is_any(listener->host) || !strcasecmp(listener->host, place->host) ||
	       (is_loopback(listener->host) && is_loopback(place->host));
}

/* The world that listens there, and at which of its listeners. */
static struct world *find_listener(const struct lan *lan, const struct place *place, unsigned *index)
{
	for (struct world *world = lan->first; world; world = world->next_in_lan)
		for (*index = 0; world->is_open && !world->workers[0].host.draining &&
				 *index < world->config->listener_count;
		     (*index)++)
			if (answers(&world->config->listeners[*index], place))
				return world;
	return NULL;
}

/* Who listens there, or did until it died; the latest. NULL: nobody ever did. */
static struct lan_node *find_node(const struct wire *wire)
{
	unsigned index;
	const struct world *world = find_listener(wire->lan, &wire->place, &index);
	struct lan_node *found = world ? world->node : NULL;
	for (struct lan_node *node = world ? NULL : wire->lan->nodes; node; node = node->next)
		for (unsigned i = 0; node->config && i < node->config->listener_count; i++)
			if (answers(&node->config->listeners[i], &wire->place))
				found = node;
	return found;
}

/* A name's is 127.0.0.1, as of answer(). */
static struct sockaddr_in6 address_of(const struct place *place)
{
	union address address;
	struct sockaddr_storage storage = { 0 };
	struct sockaddr_in6 mapped = { .sin6_family = AF_UNIX };
	if (place->is_local)
		return mapped;
	if (!address_read(place->host, &address))
		address_read("127.0.0.1", &address);
	address_set_port(&address, place->port);
	memcpy(&storage, &address, sizeof address);
	address_map(&storage, &mapped);
	return mapped;
}

/* NULL: no memory. */
static struct near_end *new_near_end(struct wire *wire)
{
	const struct endpoint *endpoint = wire->attempt->endpoint;
	struct near_end *near = calloc(1, sizeof *near + layers_bytes(endpoint->layers));
	if (!near)
		return NULL;
	memory_stream_init(&near->memory, &near->made.conn.io);
	layers_init(endpoint->layers, near + 1, &near->made.conn.io);
	if (wire->place.is_datagram) /* ... have no window: each is sent, or lost */
		near->memory.local = (struct sockaddr_in){ .sin_family = AF_INET,
							   .sin_port = htons(wire->source),
							   .sin_addr = { htonl(INADDR_LOOPBACK) } };
	else
		near->memory.window_bytes = WIRE_WINDOW_BYTES;
	near->wire = wire;
	near->made.conn.peer = address_of(&wire->place);
	return near;
}

static void refuse(struct wire *wire, int err)
{
	char why[256];
	const char *more = wire->far_node ? "" : " (nobody in this test serves it)";
	struct attempt *attempt = wire->attempt;
	if (wire->place.is_local)
		snprintf(why, sizeof why, "%s: %s%s", wire->place.host, uv_strerror(err), more);
	else
		snprintf(why, sizeof why, "%s:%u: %s%s", wire->place.host, wire->place.port, uv_strerror(err),
			 more);
	wire->attempt = NULL;
	attempt->carried = NULL;
	attempt->done(attempt, NULL, err, why);
}

/* Where its clients come from. */
static void make_source(const struct wire *wire, struct sockaddr_in6 *from, size_t number)
{
	if (wire->place.is_local)
		return;
	uint16_t port = wire->place.is_datagram ? wire->source : source_port(number);
	*from = (struct sockaddr_in6){ .sin6_family = AF_INET6, .sin6_port = htons(port) };
	const struct in_addr loopback = { htonl(INADDR_LOOPBACK) };
	address_map_ipv4(&loopback, &from->sin6_addr);
}

/* It was let in nowhere: it is told what a server says then, and there is no more to come. */
static void tell_refused(struct wire *wire)
{
	const struct peer *far = wire->far;
	if (far->received_bytes)
		wire_say(wire, WAY_BACK, SEGMENT_BYTES, far->received, far->received_bytes);
	wire_say(wire, WAY_BACK, SEGMENT_END, NULL, 0);
}

static void lan_turn_away(struct wire *wire)
{
	wire_say(wire, WAY_BACK, wire->is_queued ? SEGMENT_RESET : SEGMENT_REFUSE, NULL, 0);
}

/* Not all links let everybody through. */
static bool may_pass(const struct wire *wire, const struct lan_node *to)
{
	const struct link_conditions *link = links_find(wire->lan, wire->near_node, to);
	return wire->is_queued || !links_is_drawn(&wire->lan->drawn, link->refuse);
}

static void let_into(struct wire *wire, struct world *to, unsigned index)
{
	struct world_way way = { .wire = wire };
	make_source(wire, &way.from, to->peer_count);
	wire->far_node = to->node;
	wire->is_opaque = to->config->listeners[index].tls;
	struct peer *far = world_connect(to, index, &way);
	if (!far) {
		lan_turn_away(wire);
		return;
	}
	far->memory.window_bytes = WIRE_WINDOW_BYTES;
	wire->far = far;
	if (!wire->is_queued)
		wire_say(wire, WAY_BACK, SEGMENT_ACCEPT, NULL, 0);
	if (far->refused)
		tell_refused(wire);
}

void lan_accept(struct wire *wire)
{
	unsigned index;
	if (!wire->attempt && !wire->is_queued)
		return;
	struct world *to = find_listener(wire->lan, &wire->place, &index);
	const struct lan_node *node = to ? to->node : wire->far_node;
	if (!to && node && node->is_silent)
		return;
	if (to && may_pass(wire, node))
		let_into(wire, to, index);
	else
		lan_turn_away(wire);
}

void lan_refused(struct wire *wire)
{
	wire_note_refusal(wire, "");
	if (wire->attempt)
		refuse(wire, UV_ECONNREFUSED);
}

void lan_connected(struct wire *wire)
{
	struct attempt *attempt = wire->attempt;
	if (!attempt) {
		wire_reject(wire, WAY_BACK);
		return;
	}
	struct near_end *near = new_near_end(wire);
	if (!near) {
		wire_reject(wire, WAY_BACK);
		refuse(wire, UV_ENOMEM);
		return;
	}
	if (!wire->place.is_datagram)
		wire_note(wire, WAY_BACK, "accepts");
	wire->near = near;
	wire->attempt = NULL;
	attempt->carried = NULL;
	struct log_sink *before = log_divert(&wire->from->log.sink);
	attempt->done(attempt, &near->made, 0, NULL);
	log_divert(before);
}

bool lan_find_flow(struct wire *wire)
{
	unsigned index;
	if (wire->far && !wire->far->gone)
		return true;
	struct world *to = find_listener(wire->lan, &wire->place, &index);
	if (!to || (wire->far && wire->far->world == to))
		return to; /* it begins anew */
	struct world_way way = { .wire = wire };
	make_source(wire, &way.from, 0);
	struct peer *far = world_connect(to, index, &way);
	if (!far)
		return false;
	if (wire->far) /* of an app that has listened there before, and still runs */
		wire->far->wire = NULL;
	far->left = !wire->near;
	wire->far = far;
	wire->far_node = to->node;
	wire->lanes[WAY_BACK].is_cut = false;
	return true;
}

void lan_refuse_datagram(struct wire *wire)
{
	struct log_sink *before = log_divert(&wire->from->log.sink);
	client_refused(&wire->near->made, UV_ECONNREFUSED);
	log_divert(before);
}

/* Whoever listens in this network is at 127.0.0.1. */
static void answer(struct wire *wire)
{
	struct inquiry *inquiry = wire->inquiry;
	union address address;
	const struct world *world = wire->from->lan->first;
	bool found = address_read(wire->place.host, &address);
	for (; world && !found; world = world->next_in_lan)
		for (unsigned i = 0; i < world->config->listener_count && !found; i++)
			found = world->config->listeners[i].host &&
				!strcasecmp(world->config->listeners[i].host, wire->place.host) &&
				address_read("127.0.0.1", &address);
	wire->inquiry = NULL;
	inquiry->carried = NULL;
	inquiry->done(inquiry, found ? 0 : UV_EAI_NONAME, &address, found);
}

/* ---- its service ---- */

static bool serve_wire(struct wire *wire)
{
	bool is_stalled = (wire->inquiry || wire->attempt) && world_worker_is_stalled(wire->worker);
	bool asks = wire->inquiry && !is_stalled;
	bool connects = wire->attempt && wire->place.is_datagram && !is_stalled;
	if (asks)
		answer(wire);
	if (connects)
		lan_connected(wire); /* that is told nobody */
	return wire_carry(wire) || asks || connects;
}

bool lan_serve(struct world *world)
{
	struct lan *lan = world->lan;
	bool any = false;
	for (struct wire *next, *wire = lan ? lan->wires : NULL; wire; wire = next) {
		any = serve_wire(wire) || any;
		next = wire->next;
		if (wire_is_over(wire))
			wire_free(wire);
	}
	return any;
}

uint64_t lan_next_ms(const struct lan *lan)
{
	uint64_t next_ms = WHEEL_NEVER, its_ms;
	for (const struct wire *wire = lan ? lan->wires : NULL; wire; wire = wire->next)
		if ((its_ms = wire_next_ms(wire)) < next_ms)
			next_ms = its_ms;
	return next_ms;
}

bool lan_poll(struct world_worker *worker)
{
	const struct lan *lan = worker->world->lan;
	bool any = false;
	for (struct wire *next, *wire = lan ? lan->wires : NULL; wire; wire = next) {
		next = wire->next;
		if (wire->worker != worker || !wire->near)
			continue;
		bool closes = wire->near->memory.closing;
		any = memory_stream_report(&wire->near->memory) || closes || any;
	}
	if (worker->outgoing.outgoing.host)
		conn_host_settle(worker->outgoing.outgoing.host);
	return any;
}

/* ---- a worker's ---- */

static const struct outgoing_ops OPS = {
	.begin = lan_begin,
	.dial = lan_dial,
	.cancel = lan_cancel,
	.resolve = lan_resolve,
	.cancel_inquiry = lan_cancel_inquiry,
};

void world_outgoing_init(struct world_worker *worker)
{
	worker->outgoing = (struct world_outgoing){
		.outgoing = { .ops = &OPS, .number = worker->index, .max = worker->world->config->outgoing },
		.worker = worker
	};
	worker->host.outgoing = &worker->outgoing.outgoing;
}

void world_outgoing_deinit(struct world_worker *worker)
{
	if (worker->outgoing.outgoing.host)
		conn_host_deinit(&worker->outgoing.host);
	worker->outgoing.outgoing.host = NULL;
}
