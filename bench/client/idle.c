/* Many connections that have said one thing and are silent now: what does each cost the server in memory? */
#define _GNU_SOURCE
#include "client.h"
#include "clock.h"
#include "dial.h"
#include "proc.h"
#include "tls.h"
#include "wire.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static void pause_s(double seconds)
{
	struct timespec left = { .tv_sec = (time_t)seconds,
				 .tv_nsec = (long)((seconds - (double)(time_t)seconds) * 1e9) };

	while (nanosleep(&left, &left) != 0 && errno == EINTR)
		;
}

static bool is_silent(int fd)
{
	uint8_t byte;

	return recv(fd, &byte, 1, MSG_PEEK) < 0 && errno == EAGAIN;
}

int idle_run(const struct options *o)
{
	struct wire wire;
	int *fds = need_zeroed((size_t)o->connections, sizeof *fds);
	SSL **tls = need_zeroed((size_t)o->connections, sizeof *tls);
	uint64_t serial = frame_first_serial(), errors = 0, opened_ns;
	int64_t before, held, after, backend = 0;

	if (!o->server_pid)
		die("idle needs --pid");
	wire_init(&wire, o);
	before = proc_rss_bytes(o->server_pid);
	if (o->backend_pid)
		backend = -proc_rss_bytes(o->backend_pid);
	opened_ns = now_ns();
	/* One after the other: a burst would make the server's shared buffers and queues grow, and count them in. */
	for (int i = 0; i < o->connections; i++) {
		fds[i] = dial(o, (uint64_t)i);
		tls[i] = o->tls ? tls_dial(fds[i]) : NULL;
		wire_greet(&wire, fds[i], tls[i]);
		errors += !wire_exchange(&wire, fds[i], tls[i], serial + (uint64_t)i);
	}
	opened_ns = now_ns() - opened_ns;
	pause_s(o->hold_s);
	held = proc_rss_bytes(o->server_pid);
	if (o->backend_pid)
		backend += proc_rss_bytes(o->backend_pid);
	for (int i = 0; i < o->connections; i++) {
		errors += !is_silent(fds[i]);
		tls_end(tls[i]);
		close(fds[i]);
	}
	pause_s(o->hold_s);
	after = proc_rss_bytes(o->server_pid);
	printf("{\"mode\":\"idle\",\"connections\":%d,\"errors\":%" PRIu64 ",\"open_seconds\":%.3f,"
	       "\"rss_before\":%" PRId64 ",\"rss_held\":%" PRId64 ",\"rss_closed\":%" PRId64
	       ",\"bytes_per_connection\":%.1f",
	       o->connections, errors, (double)opened_ns / 1e9, before, held, after,
	       (double)(held - before) / (double)o->connections);
	if (o->backend_pid)
		printf(",\"backend_bytes_per_connection\":%.1f", (double)backend / (double)o->connections);
	printf("}\n");
	free(fds);
	free(tls);
	return errors ? 1 : 0;
}

int rss_run(const struct options *o)
{
	if (!o->server_pid)
		die("rss needs --pid");
	printf("{\"mode\":\"rss\",\"errors\":0,\"rss\":%" PRId64 "}\n", proc_rss_bytes(o->server_pid));
	return 0;
}
