#include "server/datagrams.h"

#include "base/log.h"
#include "net/address.h"
#include "net/datagrams.h"
#include "server/acceptor.h"
#include "worker/flows.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- sockets ---- */

static bool is_any_address(const struct sockaddr *address)
{
	struct sockaddr_in in;
	struct sockaddr_in6 in6;
	if (address->sa_family == AF_INET) {
		memcpy(&in, address, sizeof in);
		return in.sin_addr.s_addr == htonl(INADDR_ANY);
	}
	memcpy(&in6, address, sizeof in6);
	return IN6_IS_ADDR_UNSPECIFIED(&in6.sin6_addr);
}

/* Sockets share the address by SO_REUSEPORT. */
static int may_share(int fd)
{
	int one = 1;
	return setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof one) ? -errno : 0;
}

/* A descriptor, bound; or an error. */
static int bind_one_socket(const struct listener *listener, const struct sockaddr *address, socklen_t bytes,
			   bool shares)
{
	int one = 1, zero = 0;
	int fd = socket(address->sa_family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	if (address->sa_family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, *listener->config->host ? &one : &zero, sizeof one);
	datagrams_prepare(fd, address->sa_family == AF_INET6, is_any_address(address));
	int err = shares ? may_share(fd) : 0;
	if (!err && bind(fd, address, bytes))
		err = -errno;
	if (!err)
		return fd;
	close(fd);
	return err;
}

static bool have_sockets(struct listener *listener, unsigned most)
{
	if (!listener->sockets)
		listener->sockets = calloc(most, sizeof *listener->sockets);
	return listener->sockets;
}

/* Makes those that are missing, of the address that the first one has. 0 or an error. */
static int fill_up(struct listener *listener)
{
	struct sockaddr_storage address = { 0 };
	socklen_t bytes = sizeof address;
	if (getsockname(listener->sockets[0], (struct sockaddr *)&address, &bytes))
		return -errno;
	while (listener->socket_count < listener->config->sockets) {
		int fd = bind_one_socket(listener, (const struct sockaddr *)&address, bytes, true);
		if (fd < 0)
			return fd;
		listener->sockets[listener->socket_count++] = fd;
	}
	return 0;
}

/*
 * The only one of its address: once others are bound to that, by the next process or for a flow, the kernel would spread
 * peers over all of them. They are steered to this one from the beginning, which takes two sockets for a moment.
 */
static void steer_to_one(const struct listener *listener)
{
	struct sockaddr_storage address = { 0 };
	socklen_t bytes = sizeof address;
	if (getsockname(listener->fd, (struct sockaddr *)&address, &bytes))
		return;
	int fd = bind_one_socket(listener, (const struct sockaddr *)&address, bytes, true);
	if (fd < 0)
		return;
	(void)datagrams_steer(listener->fd,
			      1); /* else an upgrade may lead peers astray: no reason not to serve */
	close(fd);
}

/*
 * The first is bound alone, and shares its address only then: so it is noticed when somebody else has that address, and
 * a port that the system chooses is nobody else's.
 */
int datagrams_open(struct listener *listener, const struct sockaddr *address, socklen_t bytes)
{
	if (!have_sockets(listener, listener->config->sockets))
		return UV_ENOMEM;
	int fd = bind_one_socket(listener, address, bytes, listener->config->reuse_port);
	if (fd < 0)
		return fd;
	listener->fd = listener->sockets[0] = fd;
	listener->socket_count = 1;
	int err = may_share(fd);
	if (!err)
		err = fill_up(listener);
	if (err)
		datagrams_close(listener);
	else if (listener->socket_count == 1 && !listener->config->reuse_port)
		steer_to_one(listener);
	return err;
}

/* Of a socket that somebody else has made. */
static int adopt_options(int fd)
{
	struct sockaddr_storage address = { 0 };
	socklen_t bytes = sizeof address;
	if (getsockname(fd, (struct sockaddr *)&address, &bytes))
		return -errno;
	datagrams_prepare(fd, address.ss_family == AF_INET6, is_any_address((struct sockaddr *)&address));
	return may_share(fd);
}

/* One that was made by somebody else may be the only one of its address that the system allows. */
static int tell_fewer(const struct listener *listener, int err)
{
	log_write(LOG_WARN, "fewer sockets than workers: some workers get no datagrams",
		  F_TEXT("address", listener->address), F_TEXT("listener", listener->config->name),
		  F_INT("sockets", listener->socket_count), F_TEXT("error", strerror(-err)));
	return 0;
}

int datagrams_adopt(struct listener *listener, struct inheritance *inheritance, const struct inherited *first,
		    char *why, size_t size)
{
	const struct listener_config *config = listener->config;
	unsigned most = inheritance->count > config->sockets ? inheritance->count : config->sockets;
	if (!have_sockets(listener, most)) {
		snprintf(why, size, "%s: not enough memory", config->address);
		return -1;
	}
	listener->sockets[0] = listener->fd;
	listener->socket_count = 1;
	struct inherited *more;
	while ((more = inheritance_find_same(inheritance, first))) {
		listener->sockets[listener->socket_count++] = more->fd;
		more->fd = -1;
	}
	int err = 0;
	for (unsigned i = 0; !err && i < listener->socket_count; i++)
		err = adopt_options(listener->sockets[i]);
	if (!err)
		err = fill_up(listener);
	if (!err && listener->socket_count == 1 && !config->reuse_port)
		steer_to_one(listener);
	return err ? tell_fewer(listener, err) : 0;
}

void datagrams_close(struct listener *listener)
{
	for (unsigned i = 0; i < listener->socket_count; i++)
		close(listener->sockets[i]);
	free(listener->sockets);
	listener->sockets = NULL;
	listener->socket_count = 0;
	listener->fd = -1;
}

/* ---- workers ---- */

int datagrams_ready(struct listener *listener)
{
	listener->readers = calloc(listener->socket_count, sizeof *listener->readers);
	return listener->readers ? 0 : UV_ENOMEM;
}

/*
 * Those beyond the number of workers get nothing more. Who shares the address with other processes leaves it to the
 * system who gets what.
 */
static void steer(const struct listener *listener)
{
	unsigned count = listener->socket_count, wanted = listener->config->sockets;
	bool is_alone = count < 2;
	int err = is_alone || listener->config->reuse_port
		      ? 0
		      : datagrams_steer(listener->fd, count < wanted ? count : wanted);
	if (err)
		log_write(LOG_WARN, "datagrams of one peer may come to different workers",
			  F_TEXT("error", strerror(-err)), F_TEXT("listener", listener->config->name));
}

static void datagrams_give_socket(struct listener *listener, unsigned i, struct worker *worker)
{
	int fd = fcntl(listener->sockets[i], F_DUPFD_CLOEXEC, 0);
	if (fd < 0) {
		log_write(LOG_ERROR, "a worker cannot read its datagrams", F_TEXT("error", strerror(errno)),
			  F_INT("worker", worker->index));
		return;
	}
	atomic_fetch_add_explicit(&listener->reading, 1, memory_order_relaxed);
	worker_give_socket(worker, &listener->readers[i], fd, listener->slot);
}

static void datagrams_end_socket(struct listener *listener, unsigned i, atomic_uint *handing)
{
	if (!listener->readers[i].worker)
		return;
	atomic_fetch_add_explicit(&listener->reading, 1, memory_order_relaxed);
	if (handing)
		atomic_fetch_add_explicit(handing, 1, memory_order_relaxed);
	worker_end_socket(&listener->readers[i], handing);
}

/*
 * The process before had more workers. What came into their sockets before steer() is answered here, and then they are
 * closed.
 */
static void empty_surplus(struct listener *listener, struct worker *workers)
{
	unsigned wanted = listener->config->sockets;
	for (unsigned i = wanted; i < listener->socket_count; i++) {
		datagrams_give_socket(listener, i, &workers[i % wanted]);
		datagrams_end_socket(listener, i, NULL);
		close(listener->sockets[i]);
	}
	if (listener->socket_count > wanted)
		listener->socket_count = wanted;
}

void datagrams_start(struct listener *listener, struct worker *workers)
{
	steer(listener);
	listener->is_read = true;
	empty_surplus(listener, workers);
	for (unsigned i = 0; i < listener->socket_count; i++)
		datagrams_give_socket(listener, i, &workers[i]);
}

void datagrams_end(struct listener *listener, atomic_uint *handing)
{
	for (unsigned i = 0; listener->is_read && i < listener->socket_count; i++)
		datagrams_end_socket(listener, i, handing);
}

bool datagrams_are_over(const struct listener *listener)
{
	return !atomic_load_explicit(&listener->reading, memory_order_acquire);
}

void datagrams_free(struct listener *listener)
{
	free(listener->readers);
	listener->readers = NULL;
}

void datagrams_socket_closed(struct acceptor *acceptor, uint16_t slot)
{
	struct listener *listener = acceptor->listeners->slots[slot];
	/* The last look at it, as acceptor_left() has it. */
	atomic_fetch_sub_explicit(&listener->reading, 1, memory_order_release);
}

/* ---- admission ---- */

static const char *flow_limit(struct acceptor *acceptor, struct listener *listener,
			      const struct listener_config *config, const struct sockaddr_in6 *peer,
			      uint64_t now_ms)
{
	uint32_t open = atomic_load_explicit(&listener->open, memory_order_relaxed);
	struct peer_key key = peer_key_of((const struct sockaddr *)(const void *)peer);
	if (rate_wait_ms(&listener->rate, now_ms))
		return "accept_rate";
	const char *limit = admission_limit(open, config->connections, listener->peers, key, config->per_ip);
	if (limit)
		return limit;
	rate_take(&listener->rate, now_ms);
	atomic_fetch_add_explicit(&listener->open, 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&acceptor->open, 1, memory_order_relaxed);
	return NULL;
}

bool datagrams_begin_flow(struct acceptor *acceptor, uint16_t slot, const struct listener_config *config,
			  const struct sockaddr_in6 *peer, struct admission *admission)
{
	enum { NS_PER_MS = 1000 * 1000 };
	struct listener *listener = acceptor->listeners->slots[slot];
	uint64_t now_ms = uv_hrtime() / NS_PER_MS;
	pthread_mutex_lock(&listener->door);
	const char *limit = flow_limit(acceptor, listener, config, peer, now_ms);
	if (limit) {
		acceptor_log_refusal(listener, config->name, peer, limit, now_ms);
	} else {
		admission->id = acceptor_next_id(acceptor);
		admission->to_candidate = acceptor_is_candidates(listener);
	}
	pthread_mutex_unlock(&listener->door);
	return !limit;
}
