/*
 * Connect, one frame, its reply, close, over and over, `connections` at a time.
 *
 * The slots form a ring and the oldest is served first, without epoll: a cycle costs the client eight system calls, and
 * waiting for the oldest is waiting for the one the server reaches first. The client closes, so TIME_WAIT is on its
 * side; with several source addresses it does not run out of ports.
 *
 * With TLS a slot is served twice in a cycle: once for the end of its handshake and its frame, once for the reply. So
 * the server has always other slots to go on with.
 */
#define _GNU_SOURCE
#include "client.h"
#include "clock.h"
#include "dial.h"
#include "frame.h"
#include "hist.h"
#include "proc.h"
#include "tls.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_ERRORS = 100 };

struct slot {
	int fd; /* -1: the connection could not be started */
	SSL *tls;
	bool asked; /* its frame has left */
	uint64_t at_ns, serial;
};

struct churn {
	const struct options *o;
	struct slot *slots;
	uint8_t *request, *reply;
	size_t len;
	uint64_t serial, started, cycles, errors;
	struct hist latency;
};

static void fail(struct churn *ch, struct slot *s)
{
	if (ch->errors == 0)
		fprintf(stderr, "load: connect: %s\n", strerror(errno));
	ch->errors++;
	tls_end(s->tls);
	if (s->fd >= 0)
		close(s->fd);
	s->fd = -1;
}

static void ask(struct churn *ch, struct slot *s)
{
	frame_put_serial(ch->request, s->serial);
	s->asked = true;
	if ((s->tls && !tls_finish(s->tls)) || !dial_send(s->fd, s->tls, ch->request, ch->len))
		fail(ch, s);
}

/* On loopback TCP's handshake is over when connect() returns, so the frame, or TLS's handshake, begins at once. */
static void begin(struct churn *ch, struct slot *s)
{
	s->at_ns = now_ns();
	s->serial = ch->serial++;
	s->fd = dial_start(ch->o, ch->started++);
	s->tls = s->fd >= 0 && ch->o->tls ? tls_start(s->fd) : NULL;
	s->asked = false;
	if (s->fd < 0)
		fail(ch, s);
	else if (!s->tls)
		ask(ch, s);
}

static void finish(struct churn *ch, struct slot *s)
{
	if (s->fd < 0)
		return;
	if (dial_receive(s->fd, s->tls, ch->reply, ch->len) && frame_payload(ch->reply) == ch->o->size &&
	    frame_serial(ch->reply) == s->serial) {
		ch->cycles++;
		hist_add(&ch->latency, now_ns() - s->at_ns, 1);
	} else {
		ch->errors++;
	}
	tls_end(s->tls);
	close(s->fd);
	s->fd = -1;
}

static void serve(struct churn *ch, struct slot *s)
{
	if (s->fd >= 0 && !s->asked) {
		ask(ch, s);
		return;
	}
	finish(ch, s);
	begin(ch, s);
}

/* A session to resume is needed first. */
static void open_all(struct churn *ch)
{
	for (int i = 0; i < ch->o->connections; i++) {
		begin(ch, &ch->slots[i]);
		if (i == 0 && ch->o->resume)
			while (ch->cycles == 0 && ch->errors == 0)
				serve(ch, &ch->slots[i]);
	}
}

static void run_until(struct churn *ch, uint64_t until)
{
	const size_t slots = (size_t)ch->o->connections;

	for (size_t i = 0; now_ns() < until && ch->errors < MAX_ERRORS; i = (i + 1) % slots) {
		serve(ch, &ch->slots[i]);
	}
}

static void report(const struct churn *ch, double wall, struct proc_times server, struct proc_times backend,
		   struct proc_times client)
{
	double cycles = ch->cycles ? (double)ch->cycles : 1;

	printf("{\"mode\":\"churn\",\"slots\":%d,\"seconds\":%.3f,\"cycles\":%" PRIu64 ",\"errors\":%" PRIu64
	       ",",
	       ch->o->connections, wall / 1e9, ch->cycles, ch->errors);
	printf("\"cycles_per_s\":%.0f,\"p50_us\":%.2f,\"p99_us\":%.2f,\"max_us\":%.2f,",
	       (double)ch->cycles / wall * 1e9, (double)hist_quantile(&ch->latency, 0.50) / 1e3,
	       (double)hist_quantile(&ch->latency, 0.99) / 1e3, (double)ch->latency.max / 1e3);
	if (ch->o->server_pid)
		printf("\"server_ns_per_cycle\":%.0f,\"cycles_per_cpu_s\":%.0f,\"server_busy\":%.4f,"
		       "\"server_waited\":%.4f,",
		       (double)server.cpu_ns / cycles,
		       cycles / (server.cpu_ns ? (double)server.cpu_ns : 1) * 1e9,
		       (double)server.cpu_ns / wall, (double)server.wait_ns / wall);
	else
		printf("\"server_ns_per_cycle\":null,\"cycles_per_cpu_s\":null,\"server_busy\":null,\"server_"
		       "waited\":null,");
	if (ch->o->backend_pid)
		printf("\"backend_ns_per_cycle\":%.0f,", (double)backend.cpu_ns / cycles);
	printf("\"client_ns_per_cycle\":%.0f,\"client_busy\":%.4f,\"client_waited\":%.4f}\n",
	       (double)client.cpu_ns / cycles, (double)client.cpu_ns / wall, (double)client.wait_ns / wall);
}

static struct proc_times times_of(pid_t pid)
{
	return pid ? proc_times(pid) : (struct proc_times){ 0 };
}

static struct proc_times since(struct proc_times now, struct proc_times then)
{
	return (struct proc_times){ now.cpu_ns - then.cpu_ns, now.wait_ns - then.wait_ns };
}

int churn_run(const struct options *o)
{
	static struct churn churn;
	struct churn *ch = &churn;
	struct proc_times server, backend, client;
	uint64_t start, wall;

	ch->o = o;
	ch->len = FRAME_HEADER + o->size;
	ch->request = need_zeroed(1, ch->len);
	ch->reply = need_zeroed(1, ch->len);
	ch->slots = need_zeroed((size_t)o->connections, sizeof *ch->slots);
	ch->serial = frame_first_serial();
	frame_fill(ch->request, 1, o->size);
	open_all(ch);
	run_until(ch, now_ns() + seconds_ns(o->warmup_s));
	hist_reset(&ch->latency);
	ch->cycles = 0;
	server = times_of(o->server_pid);
	backend = times_of(o->backend_pid);
	client = times_of(getpid());
	start = now_ns();
	run_until(ch, start + seconds_ns(o->duration_s));
	wall = now_ns() - start;
	server = since(times_of(o->server_pid), server);
	backend = since(times_of(o->backend_pid), backend);
	client = since(times_of(getpid()), client);
	report(ch, (double)wall, server, backend, client);
	ch->cycles = 0;
	for (int i = 0; i < o->connections; i++) {
		if (ch->slots[i].fd >= 0 && !ch->slots[i].asked)
			ask(ch, &ch->slots[i]);
		finish(ch, &ch->slots[i]);
	}
	return ch->errors ? 1 : 0;
}
