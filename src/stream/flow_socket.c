/* UDP sockets: which flow a datagram is of, and what many flows do together. */
#include "stream/flow.h"

#include "stream/flow_internal.h"

#include "base/ticks.h"
#include "net/address.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>
#include <uv.h>

enum {
	BUCKETS_MIN = 64,
	BATCHES_PER_TURN = 4,     /* then other sockets have their turn */
	TICKS_PER_TURN = 5000000, /* of base/ticks.h: some milliseconds; the same */
	TURNS_BEHIND = 64,        /* so many turns a flow may take to catch up */
	BATCHES_GATHERED = 64,    /* of a socket that is to be read empty: peers may go on sending */
};

/* ---- flows by their peers ---- */

/* Peers choose their addresses, and may not choose their buckets. The mixing is MurmurHash3's finaliser. */
static uint64_t flow_mix(uint64_t h, uint64_t more)
{
	h ^= more;
	h = (h ^ h >> 33) * UINT64_C(0xff51afd7ed558ccd);
	h = (h ^ h >> 33) * UINT64_C(0xc4ceb9fe1a85ec53);
	return h ^ h >> 33;
}

static struct flow **bucket_of(const struct flow_socket *socket, const struct sockaddr_in6 *peer)
{
	uint64_t halves[2];
	memcpy(halves, &peer->sin6_addr, sizeof halves);
	uint64_t h = flow_mix(socket->seed, halves[0]);
	h = flow_mix(h, halves[1]);
	h = flow_mix(h, (uint64_t)peer->sin6_scope_id << 16 | peer->sin6_port);
	return &socket->buckets[h & (socket->bucket_count - 1)];
}

static bool is_of(const struct flow *flow, const struct sockaddr_in6 *peer)
{
	return flow->peer.sin6_port == peer->sin6_port && flow->peer.sin6_scope_id == peer->sin6_scope_id &&
	       !memcmp(&flow->peer.sin6_addr, &peer->sin6_addr, sizeof peer->sin6_addr);
}

static struct flow *flow_find(const struct flow_socket *socket, const struct sockaddr_in6 *peer)
{
	if (socket->only)
		return is_of(socket->only, peer) ? socket->only : NULL;
	struct flow *flow = *bucket_of(socket, peer);
	while (flow && !is_of(flow, peer))
		flow = flow->next;
	return flow;
}

/* Without memory for more buckets, those that there are do. */
static void grow(struct flow_socket *socket)
{
	struct flow **old = socket->buckets;
	size_t n = socket->bucket_count;
	struct flow **more = calloc(n * 2, sizeof(struct flow *));
	if (!more)
		return;
	socket->buckets = more;
	socket->bucket_count = n * 2;
	for (size_t i = 0; i < n; i++) {
		for (struct flow *next, *flow = old[i]; flow; flow = next) {
			struct flow **bucket = bucket_of(socket, &flow->peer);
			next = flow->next;
			flow->next = *bucket;
			*bucket = flow;
		}
	}
	free(old);
}

void flow_socket_add(struct flow_socket *socket, struct flow *flow)
{
	if (socket->flow_count >= socket->bucket_count)
		grow(socket);
	struct flow **bucket = bucket_of(socket, &flow->peer);
	flow->next = *bucket;
	*bucket = flow;
	socket->flow_count++;
}

static void flow_remove(struct flow *flow)
{
	struct flow_socket *socket = flow->home;
	if (socket->only)
		return;
	struct flow **link = bucket_of(socket, &flow->peer);
	while (*link != flow)
		link = &(*link)->next;
	*link = flow->next;
	socket->flow_count--;
}

static void flow_socket_close(struct flow_socket *socket)
{
	/* What waits to be sent by it goes now, or never. */
	if (socket->host->out.fd == socket->polled.fd) {
		(void)datagrams_flush(&socket->host->out);
		datagrams_drop(&socket->host->out);
		flow_host_count_unsent(socket->host);
		socket->host->out.err = 0; /* nobody is there to be told */
	}
	poller_close(&socket->polled);
}

static void end_if_empty(struct flow_socket *socket)
{
	bool is_empty = !socket->flow_count && !socket->only;
	if (socket->is_ending && is_empty && socket->polled.fd >= 0)
		flow_socket_close(socket);
}

void flow_socket_forget(struct flow *flow)
{
	flow_remove(flow);
	if (flow->socket->only)
		flow_socket_close(flow->socket);
	end_if_empty(flow->home);
}

void flow_socket_each(struct flow_socket *socket, void (*visit)(void *data, struct flow *flow), void *data)
{
	for (size_t i = 0; i < socket->bucket_count; i++) {
		for (struct flow *next, *flow = socket->buckets[i]; flow; flow = next) {
			next = flow->next;
			visit(data, flow);
		}
	}
}

/* ---- what has come ---- */

/*
 * Its datagrams are too large, but for the last one, perhaps. False: that is so, too.
 */
static bool flow_cut(const struct flow *flow, struct datagrams_message *message)
{
	uint32_t n = datagrams_count(message), last = message->len - (n - 1) * message->segment;
	bool has_last = n > 1 && last <= flow->max_bytes && !message->is_cut;
	count_add(&flow->socket->host->counters->truncated_datagrams, has_last ? n - 1 : n);
	message->bytes += message->len - last;
	message->len = message->segment = last;
	return has_last;
}

/* Appends a message of the batch to those of its flow. What is larger than its script allows is dropped. */
static void flow_chain(struct flow_host *host, struct flow *flow, int16_t i)
{
	struct datagrams_message *message = &host->in->messages[i];
	flow->local = message->local;
	if ((message->is_cut || message->segment > flow->max_bytes) && !flow_cut(flow, message))
		return;
	host->next[i] = -1;
	if (flow->message < 0)
		flow->message = i;
	else
		host->next[flow->last] = i;
	flow->last = i;
	if (flow->is_touched)
		return;
	flow->is_touched = true;
	flow->next_touched = host->touched;
	host->touched = flow;
}

/* The peer has no flow. One that begins has the message (flow_begin()); else nobody has. */
static void flow_arrive(struct flow_socket *socket, int16_t i)
{
	struct flow_host *host = socket->host;
	const struct datagrams_message *message = &host->in->messages[i];
	host->arriving = i;
	if (!socket->is_ending)
		socket->ops->begin(socket, &message->peer);
	if (host->arriving >= 0)
		count_add(&host->counters->dropped_datagrams, datagrams_count(message));
	host->arriving = -1;
}

void flow_take_first(struct flow *flow)
{
	struct flow_host *host = flow->socket->host;
	flow_chain(host, flow, host->arriving);
	host->arriving = -1;
}

/* What came to a socket of one flow before that was connected is somebody else's, perhaps. */
static void flow_sort(struct flow_socket *socket, int n)
{
	struct flow_host *host = socket->host;
	struct flow_socket *home = socket->only ? socket->only->home : socket;
	for (int i = 0; i < n; i++) {
		struct flow *flow = flow_find(home, &host->in->messages[i].peer);
		if (flow)
			flow_chain(host, flow, (int16_t)i);
		else
			flow_arrive(home, (int16_t)i);
	}
	if (host->in->lost != socket->lost) {
		count_add(&host->counters->lost_datagrams, host->in->lost - socket->lost);
		socket->lost = host->in->lost;
	}
}

/* As long as it takes some, for a read is bounded. */
bool flow_serve(struct flow *flow)
{
	struct stream_user *user = flow->stream.user;
	for (bool has_read = false;; has_read = true) {
		int16_t message = flow->message;
		uint32_t at = flow->at;
		size_t waiting = buf_len(flow->waiting);
		if (!(flow->watched & STREAM_READ) || (message < 0 && !waiting))
			return has_read;
		user->events->ready(user, STREAM_READ);
		if (flow->message == message && flow->at == at && buf_len(flow->waiting) == waiting)
			return has_read;
	}
}

void flow_settle(struct flow *flow, bool has_read)
{
	struct flow_host *host = flow->socket->host;
	flow->is_touched = false;
	flow_keep(flow, has_read);
	if (!has_read || !flow->waiting || flow->is_closed)
		return; /* who reads nothing now will be watched anew before it does */
	if (buf_len(flow->waiting) > FLOW_WAITING_BYTES || flow->waiting_count > flow->waiting_max)
		host->behind_turn = host->turn;
	if (flow->watched & STREAM_READ)
		flow_want_again(flow);
}

/* Those that a batch has something for, in the order in which they came. `serves`: else it only waits with them. */
static void serve_touched(struct flow_host *host, bool serves)
{
	struct flow *flow, *first = NULL;
	while ((flow = host->touched)) {
		host->touched = flow->next_touched;
		flow->next_touched = first;
		first = flow;
	}
	for (struct flow *next; first; first = next) {
		next = first->next_touched;
		bool has_read = serves && flow_serve(first);
		flow_settle(first, has_read || (!serves && (first->watched & STREAM_READ)));
	}
}

/* What takes long comes in smaller batches: flows that begin, and handlers. */
static void fit_batches(struct flow_host *host, uint64_t ticks)
{
	if (ticks > TICKS_PER_TURN)
		host->batch_max = host->batch_max > 4 ? host->batch_max / 4 : 1;
	else if (ticks < TICKS_PER_TURN / 4)
		host->batch_max = host->batch_max < DATAGRAMS_MAX / 2 ? host->batch_max * 2 : DATAGRAMS_MAX;
}

/* One batch. False: that was all. */
static bool flow_socket_receive(struct flow_socket *socket, bool serves)
{
	struct flow_host *host = socket->host;
	int most = host->batch_max;
	host->in->lost = socket->lost;
	int n = datagrams_receive(host->in, socket->polled.fd, (unsigned)most);
	if (n < 0) { /* a pending error of a datagram that was sent earlier */
		flow_socket_refused(socket, n);
		n = datagrams_receive(host->in, socket->polled.fd, (unsigned)most);
	}
	if (n <= 0)
		return false;
	uint64_t began = ticks_now();
	flow_sort(socket, n);
	serve_touched(host, serves);
	fit_batches(host, ticks_now() - began);
	return n == most;
}

void flow_socket_refused(struct flow_socket *socket, int err)
{
	if (socket->only && socket->ops->refused)
		socket->ops->refused(socket, err);
}

static bool may_receive(const struct flow_socket *socket)
{
	return socket->polled.fd >= 0 && !socket->is_handed_over;
}

/* A flow has got more at once than may wait, and reads: its turns come first, or the next would be dropped. */
static bool is_behind(const struct flow_host *host)
{
	return host->behind_turn && host->turn - host->behind_turn < TURNS_BEHIND;
}

void flow_socket_gather(struct flow_socket *socket)
{
	for (int i = 0; i < BATCHES_GATHERED && may_receive(socket); i++)
		if (!flow_socket_receive(socket, false))
			return;
}

/* ---- events ---- */

void flow_socket_want_room(struct flow_socket *socket, bool wants)
{
	if (socket->waits_to_send == wants)
		return;
	socket->waits_to_send = wants;
	poller_watch(&socket->polled, EPOLLIN | (wants ? EPOLLOUT : 0u));
}

static void flow_socket_on_ready(struct polled *polled, uint32_t events)
{
	struct flow_socket *socket = (struct flow_socket *)(void *)polled;
	struct flow_host *host = socket->host;
	if (events & EPOLLOUT)
		flow_socket_want_room(socket, false); /* what waits goes out at the end of the turn */
	flow_host_serve_again(host);
	bool more = false;
	uint64_t began = ticks_now();
	for (int batches = 0; may_receive(socket); batches++) {
		more = is_behind(host) || batches == BATCHES_PER_TURN || ticks_now() - began > TICKS_PER_TURN;
		if (more || !flow_socket_receive(socket, true))
			break;
	}
	if (more)
		poller_again(polled);
}

static void flow_socket_on_closed(struct polled *polled)
{
	struct flow_socket *socket = (struct flow_socket *)(void *)polled;
	free(socket->buckets);
	socket->buckets = NULL;
	socket->ops->closed(socket);
}

static const struct polled_ops POLLED_OPS = { flow_socket_on_ready, flow_socket_on_closed };

/* ---- sockets ---- */

static int watch_socket(struct flow_socket *socket)
{
	struct sockaddr_storage own = { 0 };
	socklen_t bytes = sizeof own;
	if (getsockname(socket->polled.fd, (struct sockaddr *)&own, &bytes))
		return -errno;
	socket->is_ipv6 = own.ss_family == AF_INET6;
	if (!socket->only && getentropy(&socket->seed, sizeof socket->seed))
		return -errno;
	socket->lost = datagrams_lost(socket->polled.fd);
	return poller_watch(&socket->polled, EPOLLIN);
}

static bool make_buckets(struct flow_socket *socket)
{
	socket->bucket_count = BUCKETS_MIN;
	socket->buckets = calloc(BUCKETS_MIN, sizeof(struct flow *));
	return socket->buckets;
}

int flow_socket_open(struct flow_socket *socket, struct flow_host *host, int fd,
		     const struct flow_socket_ops *ops)
{
	socket->host = host;
	socket->ops = ops;
	socket->is_ending = socket->only;
	polled_init(&socket->polled, host->poller, fd, &POLLED_OPS);
	int err = socket->only || make_buckets(socket) ? watch_socket(socket) : UV_ENOMEM;
	if (err)
		free(socket->buckets);
	return err;
}

void flow_socket_end(struct flow_socket *socket)
{
	socket->is_ending = true;
	end_if_empty(socket);
}

void flow_socket_leave(struct flow_socket *socket)
{
	socket->is_handed_over = true;
	flow_socket_end(socket);
}

/* ---- a socket of one flow's own ---- */

static bool is_wildcard(const struct sockaddr_storage *name)
{
	struct sockaddr_in6 in6;
	address_map(name, &in6);
	return name->ss_family == AF_INET ? !((const struct sockaddr_in *)(const void *)name)->sin_addr.s_addr
					  : IN6_IS_ADDR_UNSPECIFIED(&in6.sin6_addr);
}

/*
 * What it is bound to, beside the shared sockets of the address. Until it is connected nothing may come to it, for that
 * would be another flow's, and perhaps another worker's. Where one of a group of sockets is connected, Linux gives what
 * is none's to the one that was bound last; but rather to a socket of a special address than to one of any, rather to
 * one of IPv4 than to one of IPv6, and of those of IPv6 to the one that was bound first.
 */
static int own_name(const struct flow *flow, const struct sockaddr_storage *local,
		    struct sockaddr_storage *name)
{
	socklen_t bytes = sizeof *name;
	if (getsockname(flow->socket->polled.fd, (struct sockaddr *)name, &bytes))
		return -errno;
	if (is_wildcard(name))
		return 0; /* to connect it makes the address special */
	struct sockaddr_in6 in6;
	address_map(local, &in6);
	memcpy(name, &in6, sizeof in6);
	return 0;
}

/* As the shared one has it; IPv4 within IPv6 is not only IPv6. */
static void set_only_ipv6(const struct flow *flow, int fd, bool is_ipv4)
{
	int only = 0;
	socklen_t bytes = sizeof only;
	if (!is_ipv4 && flow->socket->is_ipv6)
		getsockopt(flow->socket->polled.fd, IPPROTO_IPV6, IPV6_V6ONLY, &only, &bytes);
	setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &only, sizeof only);
}

static int bind_and_connect(const struct flow *flow, int fd, const struct sockaddr_storage *name)
{
	int one = 1;
	struct sockaddr_in6 peer6 = flow->peer;
	struct sockaddr_in peer4 = { .sin_family = AF_INET, .sin_port = peer6.sin6_port };
	memcpy(&peer4.sin_addr, &peer6.sin6_addr.s6_addr[12], sizeof peer4.sin_addr);
	bool is_ipv6 = name->ss_family == AF_INET6;
	const struct sockaddr *peer = is_ipv6 ? (struct sockaddr *)&peer6 : (struct sockaddr *)&peer4;
	socklen_t bytes = is_ipv6 ? sizeof peer6 : sizeof peer4;
	if (is_ipv6)
		set_only_ipv6(flow, fd, IN6_IS_ADDR_V4MAPPED(&peer6.sin6_addr));
	if (setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof one) ||
	    bind(fd, (const struct sockaddr *)name, bytes) || connect(fd, peer, bytes))
		return -errno;
	datagrams_prepare(fd, is_ipv6, false);
	return 0;
}

/* A descriptor, or an error. */
static int connect_own(const struct flow *flow, const struct sockaddr_storage *name)
{
	int fd = socket(name->ss_family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	int err = fd < 0 ? -errno : bind_and_connect(flow, fd, name);
	if (err && fd >= 0)
		close(fd);
	return err ? err : fd;
}

/* The system has chosen one of our addresses: is it the one that the peer knows? */
static bool has_address(int fd, const struct sockaddr_storage *local)
{
	struct sockaddr_storage own = { 0 };
	struct sockaddr_in6 own6, local6;
	socklen_t bytes = sizeof own;
	if (is_wildcard(local))
		return true; /* nobody knows */
	if (getsockname(fd, (struct sockaddr *)&own, &bytes))
		return false;
	address_map(&own, &own6);
	address_map(local, &local6);
	return !memcmp(&own6.sin6_addr, &local6.sin6_addr, sizeof own6.sin6_addr);
}

/* The same. Where the better way leads to another address, or there is no IPv6: as the shared one. */
static int open_own(const struct flow *flow)
{
	struct sockaddr_storage local = { 0 }, name = { 0 };
	int err = flow_local_address(flow, &local);
	err = err ? err : own_name(flow, &local, &name);
	if (err)
		return err;
	int fd = connect_own(flow, &name);
	if (fd >= 0 && has_address(fd, &local))
		return fd;
	if (fd >= 0)
		close(fd);
	return fd == -EMFILE || fd == -ENFILE ? fd : connect_own(flow, &local);
}

int flow_part(struct flow *flow, struct flow_socket *own)
{
	struct flow_socket *shared = flow->socket;
	int fd = open_own(flow);
	if (fd < 0)
		return fd;
	own->only = flow;
	int err = flow_socket_open(own, shared->host, fd, shared->ops);
	if (err) {
		close(fd);
		return err;
	}
	flow->socket = own;
	return 0;
}
