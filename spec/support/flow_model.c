#include "support/flow_model.h"

#include "stream/flow.h"
#include "support/must.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>

enum {
	PEERS = 6,
	FLOWS_MAX = 256,
	HEAD_BYTES = 8,
	MAX_BYTES = 20000,
	WAITING_MAX = 200,
	LARGEST = 24000,
	OWN_MAX = 64,
	NUMBERS_MAX = 1 << 20,
	PENDING_MAX = 100,
	PENDING_BYTES_MAX = 60000
};

/* Who sends. Each of its datagrams is: the peer, its number, bytes that follow from those. */
struct model_peer {
	int fd;
	struct sockaddr_in6 address;
	uint32_t sent;
	uint8_t taken[NUMBERS_MAX / 8]; /* by users, a bit for each number */
};

/* Who has a flow. Its memory is used again once the flow was closed. */
struct model_user {
	struct stream_user io; /* first */
	struct flow flow;
	struct model_peer *peer;
	uint32_t last; /* the number of the last datagram that it has taken */
	bool is_used, is_closed, echoes, reads, has_parted;
	uint8_t unsent[65536]; /* what could not be written */
	size_t unsent_bytes;
};

static struct {
	uint32_t (*choose)(uint32_t bound);
	uv_loop_t loop;
	struct poller poller;
	struct buf_pool pool;
	struct counters counters;
	struct flow_host *host;
	struct flow_socket socket;
	struct sockaddr_in address;
	struct model_peer peers[PEERS];
	struct model_user users[FLOWS_MAX];
	struct flow_socket own[OWN_MAX];
	unsigned own_count, open_sockets;
	struct flow_model_counts counts;
	uint64_t closed_waiting;         /* datagrams that went with their flows */
	uint32_t pending, pending_bytes; /* that nobody has read yet, at most */
	bool refuses;
} model;

/* ---- datagrams ---- */

static void write_number(uint8_t *to, uint32_t n)
{
	memcpy(to, &n, sizeof n);
}

static uint32_t read_number(const uint8_t *from)
{
	uint32_t n;
	memcpy(&n, from, sizeof n);
	return n;
}

static uint8_t filling(uint32_t peer, uint32_t number, size_t i)
{
	return (uint8_t)(peer * 31 + number * 7 + i);
}

static size_t make_datagram(uint8_t *to, uint32_t peer, uint32_t number, size_t len)
{
	write_number(to, peer);
	write_number(to + 4, number);
	for (size_t i = HEAD_BYTES; i < len; i++)
		to[i] = filling(peer, number, i);
	return len < HEAD_BYTES ? HEAD_BYTES : len;
}

static void check_datagram(const uint8_t *bytes, size_t len, uint32_t peer)
{
	MUST(len >= HEAD_BYTES);
	MUST(read_number(bytes) == peer);
	for (size_t i = HEAD_BYTES; i < len; i++)
		MUST(bytes[i] == filling(peer, read_number(bytes + 4), i));
}

/* ---- users ---- */

static uint32_t index_of(const struct model_peer *peer)
{
	return (uint32_t)(peer - model.peers);
}

static void write_back(struct model_user *user)
{
	while (user->unsent_bytes) {
		ssize_t n = stream_write(&user->io, user->unsent, user->unsent_bytes);
		MUST(n > 0 || n == UV_EAGAIN);
		if (n <= 0)
			break;
		memmove(user->unsent, user->unsent + n, user->unsent_bytes - (size_t)n);
		user->unsent_bytes -= (size_t)n;
	}
	stream_watch(&user->io, (user->reads ? STREAM_READ : 0u) | (user->unsent_bytes ? STREAM_WRITE : 0u));
}

static void take_record(struct model_user *user, const uint8_t *record, size_t total)
{
	size_t len = total - DATAGRAM_HEAD_BYTES;
	check_datagram(record + DATAGRAM_HEAD_BYTES, len, index_of(user->peer));
	uint32_t number = read_number(record + DATAGRAM_HEAD_BYTES + 4);
	MUST(number <= user->peer->sent && len <= MAX_BYTES);
	MUST(!(user->peer->taken[number / 8] & 1 << number % 8));
	MUST(number > user->last || user->has_parted); /* what the old socket still has may come later */
	user->peer->taken[number / 8] |= (uint8_t)(1 << number % 8);
	user->last = number;
	model.counts.taken++;
	if (user->echoes && user->unsent_bytes + total <= sizeof user->unsent) {
		memcpy(user->unsent + user->unsent_bytes, record, total);
		user->unsent_bytes += total;
	}
}

/* What is left waiting goes with its flow. */
static uint64_t count_waiting(struct model_user *user)
{
	uint64_t n = 0;
	const struct buf *waiting = user->flow.waiting;
	for (uint32_t at = waiting ? waiting->start : 0; waiting && at < waiting->end; n++)
		at += (uint32_t)datagram_record_bytes(waiting->data + at);
	return n;
}

static void close_user(struct model_user *user)
{
	uint8_t bytes[1];
	int fd = user->flow.socket->polled.fd;
	model.closed_waiting += count_waiting(user);
	while (user->flow.socket->only && recv(fd, bytes, sizeof bytes, MSG_DONTWAIT) >= 0)
		model.closed_waiting++; /* its own socket closes with it */
	user->is_closed = true;
	stream_close(&user->io, false);
}

static void model_on_ready(struct stream_user *io, unsigned events)
{
	static uint8_t bytes[65536];
	struct model_user *user = (struct model_user *)(void *)io;
	MUST(user->is_used && !user->is_closed);
	if (events & STREAM_WRITE)
		write_back(user);
	if (!(events & STREAM_READ) || !user->reads)
		return;
	ssize_t n = stream_read(&user->io, bytes, sizeof bytes);
	MUST(n > 0 || n == UV_EAGAIN);
	for (size_t at = 0; n > 0 && at < (size_t)n;) {
		size_t total = datagram_record_bytes(bytes + at);
		MUST(total >= DATAGRAM_HEAD_BYTES && at + total <= (size_t)n);
		take_record(user, bytes + at, total);
		at += total;
	}
	if (!model.choose(64))
		close_user(user);
	else
		write_back(user);
}

static void model_on_closed(struct stream_user *io)
{
	struct model_user *user = (struct model_user *)(void *)io;
	MUST(user->is_used && user->is_closed);
	user->is_used = false;
}

static const struct stream_events MODEL_EVENTS = { model_on_ready, model_on_closed };

static struct model_user *any_user(void)
{
	uint32_t from = model.choose(FLOWS_MAX);
	for (uint32_t i = 0; i < FLOWS_MAX; i++) {
		struct model_user *user = &model.users[(from + i) % FLOWS_MAX];
		if (user->is_used && !user->is_closed)
			return user;
	}
	return NULL;
}

static struct model_peer *peer_at(const struct sockaddr_in6 *address)
{
	for (int i = 0; i < PEERS; i++)
		if (model.peers[i].address.sin6_port == address->sin6_port)
			return &model.peers[i];
	return NULL;
}

static void model_begin(struct flow_socket *socket, const struct sockaddr_in6 *peer)
{
	struct model_user *user = model.users;
	while (user < model.users + FLOWS_MAX && user->is_used)
		user++;
	if (model.refuses || user == model.users + FLOWS_MAX)
		return;
	*user = (struct model_user){
		.io.events = &MODEL_EVENTS, .peer = peer_at(peer), .is_used = true, .reads = true
	};
	MUST(user->peer);
	user->echoes = model.choose(2);
	flow_begin(&user->flow, &user->io, socket, peer, MAX_BYTES, WAITING_MAX);
	model.counts.flows++;
	stream_watch(&user->io, STREAM_READ);
}

static void model_socket_closed(struct flow_socket *socket)
{
	(void)socket;
	model.open_sockets--;
}

static const struct flow_socket_ops MODEL_SOCKETS = { .begin = model_begin, .closed = model_socket_closed };

/* ---- what happens ---- */

/* The worker's turn. */
static void model_turn(void)
{
	model.pending = model.pending_bytes = 0;
	poller_wait(&model.poller, 0);
	poller_serve(&model.poller);
	flow_host_flush(model.host);
	flow_host_forget(model.host);
	poller_forget(&model.poller);
}

static void send_some(void)
{
	static uint8_t bytes[LARGEST];
	struct model_peer *peer = &model.peers[model.choose(PEERS)];
	bool is_large = !model.choose(8);
	for (uint32_t n = 1 + model.choose(is_large ? 4 : 80); n; n--) {
		if (peer->sent == NUMBERS_MAX - 1)
			return;
		size_t len = make_datagram(bytes, index_of(peer), ++peer->sent,
					   HEAD_BYTES + model.choose(is_large ? LARGEST - HEAD_BYTES : 40));
		/* The system's room for what nobody has read is small on some machines, and all is to come. */
		if (++model.pending > PENDING_MAX ||
		    (model.pending_bytes += (uint32_t)len) > PENDING_BYTES_MAX)
			model_turn();
		MUST(send(peer->fd, bytes, len, 0) == (ssize_t)len);
		model.counts.sent++;
	}
}

static void hear_replies(struct model_peer *peer)
{
	static uint8_t bytes[65536];
	ssize_t n;
	while ((n = recv(peer->fd, bytes, sizeof bytes, MSG_DONTWAIT)) >= 0) {
		check_datagram(bytes, (size_t)n, index_of(peer));
		model.counts.replies++;
	}
}

static void toggle(struct model_user *user)
{
	user->reads = !user->reads;
	write_back(user);
}

static void part_one(struct model_user *user)
{
	if (model.own_count == OWN_MAX || user->flow.socket != &model.socket)
		return;
	struct flow_socket *own = &model.own[model.own_count];
	memset(own, 0, sizeof *own);
	if (flow_part(&user->flow, own))
		return;
	user->has_parted = true;
	model.own_count++;
	model.open_sockets++;
	model.counts.parted++;
}

void flow_model_round(void)
{
	struct model_user *user;
	switch (model.choose(12)) {
	case 0:
	case 1:
	case 2:
	case 3:
		send_some();
		break;
	case 4:
		if ((user = any_user()))
			toggle(user);
		break;
	case 5:
		if ((user = any_user()))
			close_user(user);
		break;
	case 6:
		if ((user = any_user()))
			part_one(user);
		break;
	case 7:
		model.refuses = !model.choose(4);
		break;
	case 8:
		flow_socket_gather(&model.socket);
		break;
	case 9:
		hear_replies(&model.peers[model.choose(PEERS)]);
		break;
	default:
		model_turn();
	}
}

/* ---- life ---- */

static int open_peer(struct sockaddr_in *address)
{
	int queue = 4 << 20;
	socklen_t bytes = sizeof *address;
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	*address = (struct sockaddr_in){ .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	MUST(fd >= 0 && !bind(fd, (struct sockaddr *)address, sizeof *address));
	MUST(!getsockname(fd, (struct sockaddr *)address, &bytes));
	setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &queue, sizeof queue);
	return fd;
}

static void open_server(void)
{
	int one = 1;
	int fd = open_peer(&model.address);
	MUST(!setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof one));
	datagrams_prepare(fd, false, false);
	MUST(!flow_socket_open(&model.socket, model.host, fd, &MODEL_SOCKETS));
	model.open_sockets = 1;
}

void flow_model_start(uint32_t (*choose)(uint32_t bound))
{
	memset(&model, 0, sizeof model);
	model.choose = choose;
	MUST(!uv_loop_init(&model.loop) && !poller_init(&model.poller, &model.loop));
	buf_pool_init(&model.pool, 0, 4);
	model.host = flow_host_new(&model.poller, &model.pool, &model.counters);
	MUST(model.host);
	open_server();
	for (int i = 0; i < PEERS; i++) {
		struct sockaddr_in address;
		struct model_peer *peer = &model.peers[i];
		peer->fd = open_peer(&address);
		peer->address.sin6_port = address.sin_port;
		MUST(!connect(peer->fd, (struct sockaddr *)&model.address, sizeof model.address));
	}
}

const struct flow_model_counts *flow_model_counts(void)
{
	model.counts.dropped = count_read(&model.counters.dropped_datagrams);
	model.counts.truncated = count_read(&model.counters.truncated_datagrams);
	return &model.counts;
}

static void close_all(void)
{
	for (int i = 0; i < FLOWS_MAX; i++)
		if (model.users[i].is_used && !model.users[i].is_closed)
			close_user(&model.users[i]);
}

void flow_model_end(void)
{
	model.refuses = true;
	/* All that was sent has come: the loopback loses nothing, and the queues are long enough. */
	for (int i = 0; i < 200; i++)
		model_turn();
	close_all();
	flow_socket_end(&model.socket);
	for (int i = 0; i < 3; i++)
		model_turn();
	const struct flow_model_counts *counts = flow_model_counts();
	uint64_t lost = count_read(&model.counters.lost_datagrams);
	MUST(counts->sent ==
	     counts->taken + counts->dropped + counts->truncated + lost + model.closed_waiting);
	MUST(!model.open_sockets && !model.pool.lent_bytes);
	for (int i = 0; i < FLOWS_MAX; i++)
		MUST(!model.users[i].is_used);
	for (int i = 0; i < PEERS; i++) {
		hear_replies(&model.peers[i]);
		close(model.peers[i].fd);
	}
	flow_host_free(model.host);
	buf_pool_deinit(&model.pool);
	poller_deinit(&model.poller);
	uv_run(&model.loop, UV_RUN_DEFAULT);
	MUST(!uv_loop_close(&model.loop));
}
