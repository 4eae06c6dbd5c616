/*
 * Closed loop over UDP: each flow, a connected socket, keeps `pipeline` datagrams in flight, and every echo releases
 * one more.
 *
 * Datagrams get lost, so each is known by itself and not by its place in a stream: a flow has `pipeline` slots, and the
 * low bits of a serial number are the slot. When an echo is overdue, its slot goes to a new datagram. An echo that
 * comes after that is counted as late, one that never comes as lost.
 */
#define _GNU_SOURCE
#include "client.h"
#include "clock.h"
#include "dial.h"
#include "frame.h"
#include "loop.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
	EVENTS = 512,
	BATCH = 64, /* of a system call, and the most that a flow has in flight */
	DATAGRAM_BYTES_MAX = 65507,
	TICK_MS = 50,
	TICK_NS = TICK_MS * 1000000,
	OVERDUE_NS = 200000000,
};

struct slot {
	uint64_t serial; /* zero: nothing is in flight */
	uint64_t at_ns;
};

struct flow {
	int fd;          /* -1 when lost */
	uint64_t newest; /* the highest serial that came back */
	struct slot *slots;
};

/* Slots that are free. */
struct released {
	unsigned count;
	uint8_t slots[BATCH];
};

struct udp {
	struct loop loop;
	struct options o;
	int epoll_fd;
	struct flow *flows;
	uint64_t first_serial, next_serial, serial_step;
	uint64_t in_flight;
	uint64_t overdue, late, reordered;
	uint64_t overdue_ns; /* for which slots have waited in vain */
	uint64_t swept_ns;
	bool draining;
	/* A message is the payload of a frame: over UDP there is no header. */
	uint8_t *frames_in, *frames_out;
	struct mmsghdr in[BATCH], out[BATCH];
	struct iovec in_bytes[BATCH], out_bytes[BATCH];
};

static uint8_t *frame_in(const struct udp *u, size_t nth)
{
	return u->frames_in + nth * (FRAME_HEADER + u->o.size);
}

static uint8_t *frame_out(const struct udp *u, size_t nth)
{
	return u->frames_out + nth * (FRAME_HEADER + u->o.size);
}

static void lose_flow(struct udp *u, struct flow *f)
{
	for (int i = 0; i < u->o.pipeline; i++)
		u->in_flight -= f->slots[i].serial != 0;
	close(f->fd);
	f->fd = -1;
	u->loop.errors++;
}

/* Sends a new datagram for each slot. One that the socket does not take will be overdue. Returns false when the flow is
 * lost, as it is when nobody listens. */
static bool flow_send(struct udp *u, struct flow *f, const struct released *r, uint64_t now)
{
	for (unsigned i = 0; i < r->count; i++) {
		uint64_t serial = u->next_serial + r->slots[i];

		f->slots[r->slots[i]] = (struct slot){ .serial = serial, .at_ns = now };
		frame_put_serial(frame_out(u, i), serial);
		u->next_serial += u->serial_step;
	}
	u->in_flight += r->count;
	/* A call that stops half-way does not say why: the next one does. */
	for (unsigned done = 0; done < r->count;) {
		int sent = sendmmsg(f->fd, u->out + done, r->count - done, 0);

		if (sent < 0)
			return errno == EAGAIN || errno == EINTR;
		done += (unsigned)sent;
	}
	return true;
}

/* Counts an echo. Returns false when no such datagram was sent. */
static bool take_echo(struct udp *u, struct flow *f, uint64_t serial, uint64_t now, struct released *r)
{
	uint64_t nth = serial & (u->serial_step - 1);
	struct slot *s;

	if (serial < u->first_serial || serial >= u->next_serial || nth >= (uint64_t)u->o.pipeline)
		return false;
	s = &f->slots[nth];
	if (s->serial != serial) {
		u->late++;
		return true;
	}
	u->loop.replies++;
	hist_add(&u->loop.latency, now - s->at_ns, 1);
	if (serial > f->newest)
		f->newest = serial;
	else
		u->reordered++;
	s->serial = 0;
	u->in_flight--;
	r->slots[r->count++] = (uint8_t)nth;
	return true;
}

/* Returns false when the flow is lost. */
static bool on_echoes(struct udp *u, struct flow *f)
{
	/* MSG_TRUNC: a message tells its length, even if there is no room for it. */
	int got = recvmmsg(f->fd, u->in, (unsigned)u->o.pipeline, MSG_TRUNC, NULL);
	struct released released = { 0 };
	uint64_t now;

	if (got < 0)
		return errno == EAGAIN || errno == EINTR;
	now = now_ns();
	for (int i = 0; i < got; i++)
		if (u->in[i].msg_len != u->o.size ||
		    !take_echo(u, f, frame_serial(frame_in(u, (size_t)i)), now, &released))
			return false;
	return !released.count || u->draining || flow_send(u, f, &released, now);
}

/* Gives up what is overdue, and sends something else in its place. Returns false when the flow is lost. */
static bool flow_sweep(struct udp *u, struct flow *f, uint64_t now)
{
	struct released released = { 0 };

	for (int i = 0; i < u->o.pipeline; i++) {
		struct slot *s = &f->slots[i];

		if (!s->serial || now < s->at_ns + OVERDUE_NS)
			continue;
		u->overdue_ns += now - s->at_ns;
		s->serial = 0;
		released.slots[released.count++] = (uint8_t)i;
	}
	u->overdue += released.count;
	u->in_flight -= released.count;
	return !released.count || u->draining || flow_send(u, f, &released, now);
}

static void udp_sweep(struct udp *u)
{
	u->swept_ns = now_ns();
	for (int i = 0; i < u->o.connections; i++)
		if (u->flows[i].fd >= 0 && !flow_sweep(u, &u->flows[i], u->swept_ns))
			lose_flow(u, &u->flows[i]);
}

static void udp_turn(void *self)
{
	struct udp *u = self;
	struct epoll_event events[EVENTS];
	int n = epoll_wait(u->epoll_fd, events, EVENTS, TICK_MS);

	for (int i = 0; i < n; i++)
		if (!on_echoes(u, events[i].data.ptr))
			lose_flow(u, events[i].data.ptr);
	if (now_ns() - u->swept_ns > TICK_NS)
		udp_sweep(u);
}

static void prepare_messages(struct udp *u)
{
	u->frames_in = need_zeroed(BATCH, FRAME_HEADER + u->o.size);
	u->frames_out = need_zeroed(BATCH, FRAME_HEADER + u->o.size);
	frame_fill(u->frames_out, BATCH, u->o.size);
	for (size_t i = 0; i < BATCH; i++) {
		u->in_bytes[i] = (struct iovec){ frame_in(u, i) + FRAME_HEADER, u->o.size };
		u->in[i].msg_hdr = (struct msghdr){ .msg_iov = &u->in_bytes[i], .msg_iovlen = 1 };
		u->out_bytes[i] = (struct iovec){ frame_out(u, i) + FRAME_HEADER, u->o.size };
		u->out[i].msg_hdr = (struct msghdr){ .msg_iov = &u->out_bytes[i], .msg_iovlen = 1 };
	}
}

static void prepare_flows(struct udp *u)
{
	size_t pipeline = (size_t)u->o.pipeline;
	struct slot *slots = need_zeroed((size_t)u->o.connections * pipeline, sizeof *slots);

	u->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (u->epoll_fd < 0)
		die("epoll_create1");
	u->flows = need_zeroed((size_t)u->o.connections, sizeof *u->flows);
	for (int i = 0; i < u->o.connections; i++) {
		struct flow *f = &u->flows[i];
		struct epoll_event ev = { .events = EPOLLIN, .data.ptr = f };

		f->slots = slots + (size_t)i * pipeline;
		f->fd = dial_datagrams(&u->o, (uint64_t)i);
		if (epoll_ctl(u->epoll_fd, EPOLL_CTL_ADD, f->fd, &ev) != 0)
			die("epoll_ctl");
	}
}

static void udp_prepare(struct udp *u, const struct options *o)
{
	if (o->pipeline > BATCH)
		die("--pipeline is up to 64 with --udp");
	if (o->size > DATAGRAM_BYTES_MAX)
		die("--size is up to 65507 with --udp");
	u->o = *o;
	u->o.verify = true; /* there is no other way to know a datagram */
	u->loop.o = &u->o;
	u->serial_step = 1;
	while (u->serial_step < (uint64_t)o->pipeline)
		u->serial_step *= 2;
	u->first_serial = u->next_serial = frame_first_serial() & ~(u->serial_step - 1);
	prepare_messages(u);
	prepare_flows(u);
}

static void udp_start(struct udp *u)
{
	struct released all = { .count = (unsigned)u->o.pipeline };

	for (unsigned i = 0; i < all.count; i++)
		all.slots[i] = (uint8_t)i;
	for (int i = 0; i < u->o.connections; i++)
		if (!flow_send(u, &u->flows[i], &all, now_ns()))
			lose_flow(u, &u->flows[i]);
}

static int udp_report(struct udp *u, uint64_t ran_ns)
{
	double slots = (double)u->o.connections * (double)u->o.pipeline;
	uint64_t lost = 0;
	char more[160];

	if (!u->loop.replies)
		u->loop.errors++;
	if (u->overdue >= u->late)
		lost = u->overdue - u->late;
	else
		u->loop.errors += u->late - u->overdue; /* that many came twice */
	snprintf(more, sizeof more,
		 "\"lost\":%" PRIu64 ",\"late\":%" PRIu64 ",\"reordered\":%" PRIu64 ",\"starved\":%.5f,",
		 lost, u->late, u->reordered, (double)u->overdue_ns / slots / (double)ran_ns);
	return loop_report(&u->loop, more);
}

int udp_run(const struct options *o)
{
	static struct udp udp;
	struct udp *u = &udp;
	uint64_t began;

	udp_prepare(u, o);
	began = now_ns();
	udp_start(u);
	loop_run(&u->loop, udp_turn, u);
	u->draining = true;
	while (u->in_flight)
		udp_turn(u);
	return udp_report(u, now_ns() - began);
}
