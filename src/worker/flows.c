#include "worker/flows.h"

#include "base/descriptors.h"
#include "base/limits.h"
#include "base/log.h"
#include "config/config.h"
#include "worker/worker.h"

#include <stdlib.h>
#include <unistd.h>

/* The layers of its stream lie behind it. */
struct carried_flow {
	struct conn conn; /* first */
	struct flow flow;
};

static struct worker_socket *socket_of(struct flow_socket *flows)
{
	return (struct worker_socket *)(void *)flows;
}

/* ---- a socket for one flow ---- */

static const struct flow_socket_ops SOCKET_OPS;

static void link_socket(struct worker *worker, struct worker_socket *socket)
{
	socket->next = worker->sockets;
	worker->sockets = socket;
}

static void unlink_socket(struct worker_socket *socket)
{
	struct worker_socket **link = &socket->worker->sockets;
	while (*link != socket)
		link = &(*link)->next;
	*link = socket->next;
}

enum { SPARE_DESCRIPTORS = 16 }; /* for clients, files, the next upgrade */

struct parting {
	struct worker *worker;
	unsigned failed; /* so many flows */
};

static int make_own(struct worker *worker, struct flow *flow)
{
	struct worker_socket *own = descriptors_left(SPARE_DESCRIPTORS) ? calloc(1, sizeof *own) : NULL;
	if (!own)
		return UV_ENOMEM;
	own->is_parted = true;
	own->worker = worker;
	own->slot = socket_of(flow->socket)->slot;
	link_socket(worker, own);
	int err = flow_part(flow, &own->flows);
	if (err) {
		unlink_socket(own);
		free(own);
	}
	return err;
}

static void part(void *data, struct flow *flow)
{
	struct parting *parting = data;
	if (!flow->socket->only && make_own(parting->worker, flow))
		parting->failed++;
}

/* Those that cannot hear nothing more, and end when their time is over. */
static void part_all(struct worker_socket *socket)
{
	struct parting parting = { socket->worker, 0 };
	flow_socket_each(&socket->flows, part, &parting);
	if (parting.failed)
		log_write(LOG_WARN,
			  "flows hear nothing after the upgrade: there were no descriptors for them",
			  F_INT("flows", parting.failed), F_INT("worker", socket->worker->index));
}

/* ---- flows begin ---- */

static struct conn *carry_flow(struct worker_socket *socket, const struct sockaddr_in6 *peer,
			       const struct endpoint *endpoint)
{
	struct carried_flow *carried = calloc(1, sizeof *carried + layers_bytes(endpoint->layers));
	if (!carried)
		return NULL;
	flow_begin(&carried->flow, &carried->conn.io, &socket->flows, peer, endpoint->protocol->max_bytes,
		   endpoint->rules.inbox_frames);
	layers_init(endpoint->layers, carried + 1, &carried->conn.io);
	carried->conn.peer = *peer;
	carried->conn.counted = true;
	return &carried->conn;
}

static const struct endpoint *endpoint_of(struct generation *generation, uint16_t slot)
{
	int listener = config_find_slot(generation->config, slot, slot);
	return listener < 0 ? NULL : agents_endpoint(&generation->agents, (unsigned)listener, slot);
}

/* It was let in, and comes to nothing. */
static void flows_take_back(struct worker *worker, uint16_t slot, const struct sockaddr_in6 *peer)
{
	count(&worker->counters.closed[REASON_MEMORY]);
	worker->links.left(worker->links.server, slot, peer);
	worker->links.gone(worker->links.server);
}

static void open_flow(struct worker_socket *socket, const struct sockaddr_in6 *peer,
		      struct generation *generation, uint64_t id)
{
	struct worker *worker = socket->worker;
	const struct endpoint *endpoint = endpoint_of(generation, socket->slot);
	struct conn *conn = endpoint ? carry_flow(socket, peer, endpoint) : NULL;
	if (!conn) {
		flows_take_back(worker, socket->slot, peer);
		return;
	}
	atomic_fetch_add_explicit(&worker->load, 1, memory_order_relaxed);
	conn->first.agents = &generation->agents;
	agents_count(&generation->agents, 1);
	conn_open(conn, &worker->host, endpoint, id);
}

static void flows_begin(struct flow_socket *flows, const struct sockaddr_in6 *peer)
{
	struct worker_socket *socket = socket_of(flows);
	struct worker *worker = socket->worker;
	const struct endpoint *newest = endpoint_of(worker->generation, socket->slot);
	if (!newest)
		return;
	const struct listener_config *config = &worker->generation->config->listeners[newest->index];
	struct admission admission;
	if (!worker->links.begin_flow(worker->links.server, socket->slot, config, peer, &admission))
		return; /* and no connection was there: each datagram of a refused peer would be one more */
	count(&worker->counters.accepted);
	bool to_candidate = admission.to_candidate && worker->candidate;
	open_flow(socket, peer, to_candidate ? worker->candidate : worker->generation, admission.id);
}

static void flows_on_closed(struct flow_socket *flows)
{
	struct worker_socket *socket = socket_of(flows);
	struct worker *worker = socket->worker;
	unlink_socket(socket);
	if (socket->is_parted)
		free(socket);
	else
		worker->links.socket_closed(worker->links.server, socket->slot);
}

static const struct flow_socket_ops SOCKET_OPS = { .begin = flows_begin, .closed = flows_on_closed };

/* ---- what the main thread wants ---- */

struct flow_host *flows_host(struct worker *worker)
{
	if (!worker->flows)
		worker->flows = flow_host_new(&worker->poller, &worker->host.pool, &worker->counters);
	return worker->flows;
}

static int flows_open_socket(struct worker *worker, struct worker_socket *socket)
{
	struct flow_host *host = flows_host(worker);
	return host ? flow_socket_open(&socket->flows, host, socket->fd, &SOCKET_OPS) : UV_ENOMEM;
}

static void deliver_socket(struct worker *worker, struct order *order)
{
	struct worker_socket *socket =
	    (struct worker_socket *)(void *)((char *)order - offsetof(struct worker_socket, give));
	char why[LIMITS_TEXT_BYTES];
	int err = flows_open_socket(worker, socket);
	if (!err) {
		link_socket(worker, socket);
		return;
	}
	log_write(LOG_ERROR, "a worker cannot read its datagrams",
		  F_TEXT("error", limits_explain(err, why, sizeof why)), F_INT("worker", worker->index));
	close(socket->fd);
	socket->fd = -1;
	worker->links.socket_closed(worker->links.server, socket->slot);
}

static void drop_socket(struct order *order)
{
	struct worker_socket *socket =
	    (struct worker_socket *)(void *)((char *)order - offsetof(struct worker_socket, give));
	close(socket->fd);
	socket->fd = -1;
}

void worker_give_socket(struct worker *worker, struct worker_socket *socket, int fd, uint16_t slot)
{
	*socket = (struct worker_socket){ .worker = worker, .fd = fd, .slot = slot };
	socket->give = (struct order){ .deliver = deliver_socket, .drop = drop_socket };
	orders_push(&worker->orders, &socket->give.mail);
	worker_kick(worker);
}

/* Flows that begin with what has come by now get sockets of their own as well. */
static void leave_socket(struct worker_socket *socket)
{
	part_all(socket);
	flow_socket_gather(&socket->flows);
	part_all(socket);
	flow_socket_leave(&socket->flows);
}

static void end_socket(struct worker_socket *socket)
{
	if (socket->has_successor) {
		leave_socket(socket);
		return;
	}
	flow_socket_gather(&socket->flows);
	flow_socket_end(&socket->flows);
}

static bool has_socket(const struct worker *worker, const struct worker_socket *socket)
{
	const struct worker_socket *each = worker->sockets;
	while (each && each != socket)
		each = each->next;
	return each;
}

/* It may never have been opened, or a drain has ended it. */
static void deliver_end(struct worker *worker, struct order *order)
{
	struct worker_socket *socket =
	    (struct worker_socket *)(void *)((char *)order - offsetof(struct worker_socket, end));
	bool has_successor = socket->has_successor;
	uint16_t slot = socket->slot;
	if (has_socket(worker, socket))
		end_socket(socket);
	worker->links.socket_closed(worker->links.server, slot); /* the order itself, which is part of it */
	if (has_successor)
		worker->links.handed_over(worker->links.server);
}

void worker_end_socket(struct worker_socket *socket, bool has_successor)
{
	struct worker *worker = socket->worker;
	socket->has_successor = has_successor;
	socket->end = (struct order){ .deliver = deliver_end };
	orders_push(&worker->orders, &socket->end.mail);
	worker_kick(worker);
}

/* ---- turns ---- */

void flows_drain(struct worker *worker)
{
	for (struct worker_socket *next, *each = worker->sockets; each; each = next) {
		next = each->next;
		flow_socket_gather(&each->flows);
		flow_socket_end(&each->flows);
	}
}

void flows_close(struct worker *worker)
{
	for (struct worker_socket *each = worker->sockets; each; each = each->next)
		flow_socket_end(&each->flows);
	/* One that was to be asked again is closed when its turn has come. */
	poller_finish(&worker->poller);
	flow_host_free(worker->flows);
	worker->flows = NULL;
}
