/*
 * Closed loop: each connection keeps `pipeline` requests in flight, and every reply releases one more.
 *
 * A connection's stream is a pure function of the position in it: request k of connection i carries the serial first +
 * k * connections + i. So nothing is kept per frame: requests are stamped into one shared image just before they
 * leave, all that one read released in one write, and after a partial write the rest is simply stamped again.
 */
#define _GNU_SOURCE
#include "client.h"
#include "clock.h"
#include "dial.h"
#include "loop.h"
#include "tls.h"
#include "wire.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
	EVENTS = 512,
	READ_BYTES = 256 << 10,
	TICK_MS = 100,
	DRAIN_NS = 2000000000,
	IMAGE_MAX = 256 << 20,
};

/* Requests released together, hence sent together. */
struct batch {
	uint64_t at_ns;
	uint64_t requests;
};

struct conn {
	int fd; /* -1 when lost */
	bool out_armed;
	SSL *tls;                    /* NULL: there is none */
	uint64_t released;           /* requests allowed to leave */
	uint64_t sent_bytes;         /* of the request stream */
	uint64_t received;           /* complete replies */
	size_t have;                 /* bytes of the reply in progress */
	uint8_t head[WIRE_HEAD_MAX]; /* its first bytes */
	/* A ring: batches not yet answered in full. There are never more than requests in flight. */
	struct batch *batches;
	uint64_t first_batch, next_batch;
};

struct load {
	struct loop loop;
	const struct options *o;
	struct wire wire;
	int epoll_fd;
	uint64_t first_serial;
	uint8_t *image, *in;
	size_t in_bytes;
	struct conn *conns;
	uint64_t batch_mask;
	bool draining;
};

static uint64_t serial_of(const struct load *l, const struct conn *c, uint64_t nth)
{
	return l->first_serial + nth * (uint64_t)l->o->connections + (uint64_t)(c - l->conns);
}

static void lose(struct load *l, struct conn *c)
{
	tls_end(c->tls);
	close(c->fd);
	c->fd = -1;
	l->loop.errors++;
}

static void watch(struct load *l, struct conn *c, int op, bool out)
{
	struct epoll_event ev = { .events = EPOLLIN | (out ? EPOLLOUT : 0u), .data.ptr = c };

	if (epoll_ctl(l->epoll_fd, op, c->fd, &ev) != 0)
		die("epoll_ctl");
	c->out_armed = out;
}

/* Sends the released requests in one write. Returns false when the connection is lost. */
static bool flush(struct load *l, struct conn *c)
{
	const size_t request_bytes = l->wire.request_bytes;
	uint64_t nth = c->sent_bytes / request_bytes;
	size_t begin = c->sent_bytes % request_bytes;
	size_t count = (size_t)(c->released - nth);
	uint64_t serial = serial_of(l, c, nth);
	size_t len = count * request_bytes - begin;
	ssize_t sent;

	for (size_t i = 0; i < count; i++, serial += (uint64_t)l->o->connections)
		wire_put_serial(&l->wire, l->image + i * request_bytes, serial);
	sent = c->tls ? tls_send(c->tls, l->image + begin, len)
		      : send(c->fd, l->image + begin, len, MSG_NOSIGNAL);
	if (sent < 0) {
		if (errno != EAGAIN && errno != EINTR)
			return false;
		sent = 0;
	}
	c->sent_bytes += (uint64_t)sent;
	if (c->out_armed != ((size_t)sent < len))
		watch(l, c, EPOLL_CTL_MOD, (size_t)sent < len);
	return true;
}

static void release(struct load *l, struct conn *c, uint64_t requests, uint64_t now)
{
	c->batches[c->next_batch++ & l->batch_mask] = (struct batch){ .at_ns = now, .requests = requests };
	c->released += requests;
}

static bool reply_is_right(const struct load *l, const struct conn *c, const uint8_t *head, uint64_t nth)
{
	return wire_is_reply(&l->wire, head, serial_of(l, c, nth), l->o->verify);
}

/* Takes what is missing of a reply that began in an earlier read. Returns the bytes used. */
static size_t take_piece(const struct load *l, struct conn *c, const uint8_t *bytes, size_t len, bool *right)
{
	const size_t head_bytes = l->wire.head_bytes;
	size_t want = l->wire.reply_bytes - c->have, used = len < want ? len : want;

	for (size_t i = 0; i < used && c->have + i < head_bytes; i++)
		c->head[c->have + i] = bytes[i];
	if (c->have < head_bytes && c->have + used >= head_bytes)
		*right = reply_is_right(l, c, c->head, c->received);
	c->have += used;
	if (c->have == l->wire.reply_bytes) {
		c->have = 0;
		c->received++;
	}
	return used;
}

/* Counts the replies that len more bytes complete. Returns false when one is not what it must be. */
static bool take(const struct load *l, struct conn *c, const uint8_t *bytes, size_t len)
{
	const size_t reply_bytes = l->wire.reply_bytes;
	bool right = true;

	if (c->have) {
		size_t used = take_piece(l, c, bytes, len, &right);
		bytes += used;
		len -= used;
	}
	for (; len >= reply_bytes && right; bytes += reply_bytes, len -= reply_bytes)
		right = reply_is_right(l, c, bytes, c->received++);
	if (len && right)
		take_piece(l, c, bytes, len, &right);
	return right && c->received <= c->released;
}

static void note_latency(struct load *l, struct conn *c, uint64_t replies, uint64_t now)
{
	while (replies) {
		struct batch *b = &c->batches[c->first_batch & l->batch_mask];
		uint64_t n = b->requests < replies ? b->requests : replies;

		hist_add(&l->loop.latency, now - b->at_ns, n);
		replies -= n;
		b->requests -= n;
		if (!b->requests)
			c->first_batch++;
	}
}

/* Returns false when the connection is lost. */
static bool on_readable(struct load *l, struct conn *c)
{
	uint64_t before = c->received, now, replies;
	ssize_t got = c->tls ? tls_recv(c->tls, l->in, l->in_bytes) : recv(c->fd, l->in, READ_BYTES, 0);

	if (got < 0 && (errno == EAGAIN || errno == EINTR))
		return true;
	now = now_ns();
	if (got <= 0 || !take(l, c, l->in, (size_t)got))
		return false;
	replies = c->received - before;
	if (!replies)
		return true;
	l->loop.replies += replies;
	note_latency(l, c, replies, now);
	if (l->draining)
		return true;
	release(l, c, replies, now);
	return flush(l, c);
}

static void turn(void *self)
{
	struct load *l = self;
	struct epoll_event events[EVENTS];
	int n = epoll_wait(l->epoll_fd, events, EVENTS, TICK_MS);

	for (int i = 0; i < n; i++) {
		struct conn *c = events[i].data.ptr;
		bool fine = true;

		if (events[i].events & EPOLLOUT)
			fine = flush(l, c);
		if (fine && events[i].events & ~(uint32_t)EPOLLOUT)
			fine = on_readable(l, c);
		if (!fine)
			lose(l, c);
	}
}

static uint64_t in_flight(const struct load *l)
{
	uint64_t requests = 0;

	for (int i = 0; i < l->o->connections; i++)
		if (l->conns[i].fd >= 0)
			requests += l->conns[i].released - l->conns[i].received;
	return requests;
}

/* Every request that left must be answered; those that are not are errors. */
static void drain(struct load *l)
{
	uint64_t deadline = now_ns() + DRAIN_NS;

	l->draining = true;
	while (in_flight(l) && now_ns() < deadline)
		turn(l);
	l->loop.errors += in_flight(l);
}

static void connect_all(struct load *l)
{
	for (int i = 0; i < l->o->connections; i++) {
		struct conn *c = &l->conns[i];

		c->fd = dial(l->o, (uint64_t)i);
		c->tls = l->o->tls ? tls_dial(c->fd) : NULL;
		wire_greet(&l->wire, c->fd, c->tls);
		if (!l->wire.reply_bytes && !wire_exchange(&l->wire, c->fd, c->tls, l->first_serial - 1))
			die("no response");
		watch(l, c, EPOLL_CTL_ADD, false);
	}
}

static void prepare(struct load *l)
{
	size_t pipeline = (size_t)l->o->pipeline, ring = 1;
	struct batch *batches;

	while (ring < pipeline)
		ring *= 2;
	l->batch_mask = ring - 1;
	l->first_serial = frame_first_serial();
	wire_init(&l->wire, l->o);
	if (pipeline * l->wire.request_bytes > IMAGE_MAX)
		die("--pipeline times the length of a request is too much");
	l->image = need_zeroed(pipeline, l->wire.request_bytes);
	wire_fill(&l->wire, l->image, pipeline);
	l->conns = need_zeroed((size_t)l->o->connections, sizeof *l->conns);
	batches = need_zeroed((size_t)l->o->connections * ring, sizeof *batches);
	for (int i = 0; i < l->o->connections; i++)
		l->conns[i].batches = batches + (size_t)i * ring;
	l->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (l->epoll_fd < 0)
		die("epoll_create1");
	connect_all(l);
	l->in_bytes = READ_BYTES;
	if (l->o->tls &&
	    pipeline * l->wire.reply_bytes > READ_BYTES) /* no event tells of what OpenSSL holds */
		l->in_bytes = pipeline * l->wire.reply_bytes;
	l->in = need_zeroed(1, l->in_bytes);
}

int load_run(const struct options *o)
{
	static struct load load;
	struct load *l = &load;

	if (o->udp)
		return udp_run(o);
	l->o = l->loop.o = o;
	prepare(l);
	for (int i = 0; i < o->connections; i++) {
		release(l, &l->conns[i], (uint64_t)o->pipeline, now_ns());
		if (!flush(l, &l->conns[i]))
			lose(l, &l->conns[i]);
	}
	loop_run(&l->loop, turn, l);
	drain(l);
	return loop_report(&l->loop, "");
}
