#define _GNU_SOURCE
#include "loop.h"

#include "clock.h"

#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

enum { STALL_NS = 2000000000 }; /* between progress and giving up, on top of a turn */

static struct loop_sample sample(const struct loop *l)
{
	struct loop_sample s = { .replies = l->replies, .client = proc_times(getpid()) };

	if (l->o->server_pid)
		s.server = proc_times(l->o->server_pid);
	if (l->o->backend_pid)
		s.backend = proc_times(l->o->backend_pid);
	s.at_ns = now_ns();
	return s;
}

static void loop_until(struct loop *l, uint64_t until, void (*turn)(void *self), void *self)
{
	uint64_t seen = l->replies, seen_at = now_ns(), now = seen_at;

	while (now < until) {
		turn(self);
		now = now_ns();
		if (l->replies != seen) {
			seen = l->replies;
			seen_at = now;
		} else if (now - seen_at > STALL_NS) {
			l->errors++;
			return;
		}
	}
}

void loop_run(struct loop *l, void (*turn)(void *self), void *self)
{
	loop_until(l, now_ns() + seconds_ns(l->o->warmup_s), turn, self);
	hist_reset(&l->latency);
	l->start = sample(l);
	loop_until(l, now_ns() + seconds_ns(l->o->duration_s), turn, self);
	l->end = sample(l);
}

int loop_report(const struct loop *l, const char *more)
{
	const struct options *o = l->o;
	const struct loop_sample *a = &l->start, *b = &l->end;
	uint64_t replies = b->replies - a->replies;
	double wall = (double)(b->at_ns - a->at_ns);
	double frames = replies ? (double)replies : 1;
	double cpu = (double)(b->server.cpu_ns - a->server.cpu_ns);

	printf("{\"mode\":\"load\",\"connections\":%d,\"pipeline\":%d,\"size\":%zu,\"verify\":%s,",
	       o->connections, o->pipeline, o->size, o->verify ? "true" : "false");
	printf("\"seconds\":%.3f,\"frames\":%" PRIu64 ",\"frames_per_s\":%.0f,\"errors\":%" PRIu64 ",%s",
	       wall / 1e9, replies, (double)replies / wall * 1e9, l->errors, more);
	printf("\"p50_us\":%.2f,\"p99_us\":%.2f,\"p999_us\":%.2f,\"max_us\":%.2f,",
	       (double)hist_quantile(&l->latency, 0.50) / 1e3, (double)hist_quantile(&l->latency, 0.99) / 1e3,
	       (double)hist_quantile(&l->latency, 0.999) / 1e3, (double)l->latency.max / 1e3);
	if (o->server_pid)
		printf("\"server_ns_per_frame\":%.2f,\"server_busy\":%.4f,\"server_waited\":%.4f,",
		       cpu / frames, cpu / wall, (double)(b->server.wait_ns - a->server.wait_ns) / wall);
	else
		printf("\"server_ns_per_frame\":null,\"server_busy\":null,\"server_waited\":null,");
	if (o->backend_pid)
		printf("\"backend_ns_per_frame\":%.2f,",
		       (double)(b->backend.cpu_ns - a->backend.cpu_ns) / frames);
	printf("\"client_ns_per_frame\":%.2f,\"client_busy\":%.4f,\"client_waited\":%.4f}\n",
	       (double)(b->client.cpu_ns - a->client.cpu_ns) / frames,
	       (double)(b->client.cpu_ns - a->client.cpu_ns) / wall,
	       (double)(b->client.wait_ns - a->client.wait_ns) / wall);
	return l->errors ? 1 : 0;
}
