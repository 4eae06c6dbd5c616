#include "worker/outgoing.h"

#include "agent/client.h"
#include "net/dial.h"
#include "stream/socket.h"
#include "worker/flows.h"
#include "worker/worker.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <unistd.h>
#include <uv.h>

enum { LAST_WORDS_MS = 1000 }; /* how long connections out may keep a worker that stops */

struct worker_outgoing {
	struct outgoing outgoing; /* first */
	struct worker *worker;
	struct dialer dialer;
	struct conn_host host; /* outgoing.host leads to it once it is open */
	bool ends;
};

/* The layers of its stream lie behind it. */
struct dialled {
	struct outgoing_conn made; /* first */
	struct socket_stream socket;
};

/* The same over UDP. The socket has memory of its own: it closes when it likes. */
struct dialled_flow {
	struct outgoing_conn made; /* first */
	struct flow flow;
};

static struct worker_outgoing *worker_outgoing_of(const struct worker *worker)
{
	return (struct worker_outgoing *)(void *)worker->host.outgoing;
}

static struct worker_outgoing *outgoing_of_host(struct conn_host *host)
{
	return (struct worker_outgoing *)(void *)((char *)host - offsetof(struct worker_outgoing, host));
}

static struct conn_host *workers_host(struct outgoing *outgoing)
{
	return &((struct worker_outgoing *)(void *)outgoing)->worker->host;
}

/* ---- the host ---- */

static uint64_t read_outgoing_clock(struct conn_host *host)
{
	struct conn_host *workers = workers_host(&outgoing_of_host(host)->outgoing);
	host->now_ms = workers->clock_ms(workers);
	host->clock_ticks = workers->clock_ticks;
	return host->now_ms;
}

static uint64_t outgoing_after(struct conn_host *host, uint32_t ms)
{
	struct conn_host *workers = workers_host(&outgoing_of_host(host)->outgoing);
	return workers->after_ms(workers, ms);
}

static void on_outgoing_gone(struct conn *conn)
{
	struct outgoing_conn *made = (struct outgoing_conn *)(void *)conn;
	client_gone(made);
	free(made);
}

static int begin_outgoing_host(struct outgoing *outgoing)
{
	struct worker_outgoing *its = (struct worker_outgoing *)(void *)outgoing;
	const struct worker *worker = its->worker;
	int err = conn_host_init(&its->host, &CLIENT_HANDLER, &its->worker->outgoing_counters,
				 worker->host.pool.limit_bytes, worker->host.now_ms);
	if (err)
		return err;
	its->host.clock_ms = read_outgoing_clock;
	its->host.after_ms = outgoing_after;
	its->host.clock_ticks = worker->host.clock_ticks;
	its->host.gone = on_outgoing_gone;
	outgoing->host = its->worker->out = &its->host;
	return 0;
}

/* ---- dialling ---- */

/* As of listeners: a peer that has vanished is noticed, though nobody waits for it. */
static void set_keepalive(int fd, uint32_t keepalive_ms)
{
	int on = keepalive_ms != 0, seconds = (int)((keepalive_ms + 999) / 1000);
	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
	if (!on)
		return;
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &seconds, sizeof seconds);
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &seconds, sizeof seconds);
}

static struct outgoing_conn *carry_dialled(struct worker *worker, const struct endpoint *endpoint, int fd)
{
	struct dialled *dialled = calloc(1, sizeof *dialled + layers_bytes(endpoint->layers));
	if (!dialled)
		return NULL;
	struct conn *conn = &dialled->made.conn;
	struct sockaddr_storage peer = { 0 };
	socklen_t bytes = sizeof peer;
	if (!getpeername(fd, (struct sockaddr *)&peer, &bytes))
		address_map(&peer, &conn->peer);
	if (conn->peer.sin6_family != AF_UNIX)
		set_keepalive(fd, ((const struct client_endpoint *)(const void *)endpoint)->keepalive_ms);
	socket_stream_start(&dialled->socket, &conn->io, &worker->poller, fd,
			    conn->peer.sin6_family == AF_UNIX);
	layers_init(endpoint->layers, dialled + 1, &conn->io);
	return &dialled->made;
}

static void on_datagram_refused(struct flow_socket *socket, int err)
{
	struct dialled_flow *dialled =
	    (struct dialled_flow *)(void *)((char *)socket->only - offsetof(struct dialled_flow, flow));
	client_refused(&dialled->made, err);
}

static void on_flow_socket_closed(struct flow_socket *socket)
{
	free(socket);
}

static const struct flow_socket_ops FLOW_SOCKET_OPS = { .closed = on_flow_socket_closed,
							.refused = on_datagram_refused };

/* 0 or an error, and then the descriptor is the caller's. */
static int begin_dialled_flow(struct flow_host *host, struct dialled_flow *dialled,
			      const struct endpoint *endpoint, int fd)
{
	struct conn *conn = &dialled->made.conn;
	struct sockaddr_storage peer = { 0 };
	socklen_t bytes = sizeof peer;
	if (getpeername(fd, (struct sockaddr *)&peer, &bytes))
		return -errno;
	address_map(&peer, &conn->peer);
	struct flow_socket *socket = calloc(1, sizeof *socket);
	if (!socket)
		return UV_ENOMEM;
	socket->only = &dialled->flow;
	datagrams_prepare(fd, peer.ss_family == AF_INET6, false);
	int err = flow_socket_open(socket, host, fd, &FLOW_SOCKET_OPS);
	if (err) {
		free(socket);
		return err;
	}
	flow_begin(&dialled->flow, &conn->io, socket, &conn->peer, endpoint->protocol->max_bytes,
		   endpoint->rules.inbox_frames);
	return 0;
}

/* NULL: *err. */
static struct outgoing_conn *carry_dialled_flow(struct worker *worker, const struct endpoint *endpoint,
						int fd, int *err)
{
	struct flow_host *host = flows_host(worker);
	struct dialled_flow *dialled = host ? calloc(1, sizeof *dialled) : NULL;
	*err = dialled ? begin_dialled_flow(host, dialled, endpoint, fd) : UV_ENOMEM;
	if (!*err)
		return &dialled->made;
	free(dialled);
	return NULL;
}

static void on_dial_done(void *data, int fd, int err, const char *why)
{
	struct attempt *attempt = data;
	struct outgoing_conn *made = NULL;
	attempt->carried = NULL;
	if (fd >= 0) {
		struct worker_outgoing *its = (struct worker_outgoing *)(void *)attempt->outgoing;
		err = UV_ENOMEM;
		made = attempt->endpoint->has_datagrams
			   ? carry_dialled_flow(its->worker, attempt->endpoint, fd, &err)
			   : carry_dialled(its->worker, attempt->endpoint, fd);
		if (!made)
			close(fd);
		why = NULL;
	}
	attempt->done(attempt, made, err, why);
}

static int worker_dial(struct attempt *attempt, const struct dial_target *target)
{
	struct worker_outgoing *its = (struct worker_outgoing *)(void *)attempt->outgoing;
	attempt->carried = dial_begin(&its->dialer, target, on_dial_done, attempt);
	return attempt->carried ? 0 : UV_ENOMEM;
}

static void worker_cancel_dial(struct attempt *attempt)
{
	if (attempt->carried)
		dial_cancel(attempt->carried);
	attempt->carried = NULL;
}

static void on_resolved(void *data, int err, const union address *list, unsigned count)
{
	struct inquiry *inquiry = data;
	inquiry->carried = NULL;
	inquiry->done(inquiry, err, list, count);
}

static int worker_resolve(struct inquiry *inquiry, const char *name)
{
	struct worker_outgoing *its = (struct worker_outgoing *)(void *)inquiry->outgoing;
	inquiry->carried = dialer_resolve(&its->dialer, name, AF_UNSPEC, on_resolved, inquiry);
	return inquiry->carried ? 0 : UV_ENOMEM;
}

static void worker_cancel_inquiry(struct inquiry *inquiry)
{
	if (inquiry->carried)
		dialer_resolve_cancel(inquiry->carried);
	inquiry->carried = NULL;
}

static const struct outgoing_ops OPS = {
	.begin = begin_outgoing_host,
	.dial = worker_dial,
	.cancel = worker_cancel_dial,
	.resolve = worker_resolve,
	.cancel_inquiry = worker_cancel_inquiry,
};

/* ---- its life ---- */

struct outgoing *worker_outgoing_new(struct worker *worker)
{
	struct worker_outgoing *its = calloc(1, sizeof *its);
	if (!its)
		return NULL;
	its->worker = worker;
	its->outgoing =
	    (struct outgoing){ .ops = &OPS, .number = worker->index, .max = worker->config->outgoing };
	dialer_init(&its->dialer, &worker->poller, NULL);
	return &its->outgoing;
}

void worker_outgoing_free(struct worker *worker)
{
	struct worker_outgoing *its = worker_outgoing_of(worker);
	if (!its)
		return;
	dialer_deinit(&its->dialer);
	poller_forget(&worker->poller);
	if (its->outgoing.host)
		conn_host_deinit(&its->host);
	worker->host.outgoing = NULL;
	worker->out = NULL;
	free(its);
}

void worker_outgoing_waited(struct worker *worker, uint64_t wanted_ms)
{
	struct conn_host *host = worker->out;
	host->clock_ticks = worker->host.clock_ticks;
	host->polled_ms = host->now_ms = worker->host.now_ms;
	conn_host_waited(host, wanted_ms);
}

bool worker_outgoing_end(struct worker *worker)
{
	struct worker_outgoing *its = worker_outgoing_of(worker);
	if (!its || !its->outgoing.host || !its->host.open)
		return true;
	if (!its->ends)
		conn_host_drain(&its->host, LAST_WORDS_MS);
	its->ends = true;
	return false;
}
