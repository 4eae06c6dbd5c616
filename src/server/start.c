/* The start: workers, and the moment from which we serve. */

#include "server/internal.h"

#include "base/limits.h"
#include "base/log.h"
#include "config/config.h"
#include "server/datagrams.h"
#include "vm/guard.h"

#include <unistd.h>

/* ---- workers ---- */

/* From any worker's thread. */
static void note_left(void *data, uint16_t slot, const struct sockaddr_in6 *peer)
{
	acceptor_left(&((struct server *)data)->acceptor, slot, peer);
}

/* From any worker's thread. */
static bool count_in(void *data, uint16_t slot, const struct sockaddr_in6 *peer, uint32_t per_ip)
{
	return acceptor_count_in(&((struct server *)data)->acceptor, slot, peer, per_ip);
}

/* From any worker's thread. */
static void count_out(void *data, uint16_t slot, const struct sockaddr_in6 *peer)
{
	acceptor_count_out(&((struct server *)data)->acceptor, slot, peer);
}

/* From any worker's thread. */
static bool begin_flow(void *data, uint16_t slot, const struct listener_config *config,
		       const struct sockaddr_in6 *peer, struct admission *admission)
{
	return datagrams_begin_flow(&((struct server *)data)->acceptor, slot, config, peer, admission);
}

/* From any worker's thread. */
static void socket_closed(void *data, uint16_t slot)
{
	datagrams_socket_closed(&((struct server *)data)->acceptor, slot);
}

/* From any worker's thread. */
static void handed_over(void *data)
{
	struct server *server = data;
	if (acceptor_handed_over(&server->acceptor))
		uv_async_send(&server->wake);
}

/* From any worker's thread. */
static void note_closes(void *data)
{
	acceptor_closes(&((struct server *)data)->acceptor);
}

/* From any worker's thread. */
static void note_gone(void *data)
{
	struct server *server = data;
	if (acceptor_gone(&server->acceptor) && atomic_load(&server->leaving))
		uv_async_send(&server->wake);
}

/* From any worker's thread. */
static void note_failed(void *data)
{
	uv_async_send(&((struct server *)data)->wake);
}

/* From any worker's thread. */
static bool has_clients(void *data)
{
	return atomic_load_explicit(&((struct server *)data)->acceptor.open, memory_order_relaxed);
}

int start_workers(struct server *server)
{
	struct worker_links links = { server,      server->dicts,     server->jobs, server->names,
				      server->hub, &server->counters, reports_post, &REPORT_RECEIVERS,
				      note_left,   note_closes,       note_gone,    note_failed,
				      count_in,    count_out,         begin_flow,   socket_closed,
				      handed_over, has_clients };
	for (unsigned i = 0; i < server->config->workers; i++) {
		server->sources[i] = kept_source(&server->kept, i);
		int err =
		    worker_start(&server->workers[i], server->config, i, links, &server->sources[i].source);
		if (err) {
			char why[LIMITS_TEXT_BYTES];
			server_cannot(server, "cannot start a worker", limits_explain(err, why, sizeof why));
			return err;
		}
		server->started++;
	}
	return 0;
}

/* ---- serving ---- */

/* We accept, and say so: nobody else has to, and nobody else owns the files. */
static void settle_in(struct server *server)
{
	for (unsigned i = 0; i < server->config->listener_count; i++)
		listener_own(server_listener(server, i));
	commands_begin(&server->commands);
	inheritance_close(&server->inheritance, true);
	notify_ready(&server->notify);
	pulse_start(&server->pulse, &server->notify, server->workers, server->config->workers);
}

static int take_gate(struct server *server)
{
	int gate = server->inheritance.gate;
	server->inheritance.gate = -1;
	return gate;
}

void start_serving(struct server *server)
{
	int err = recordings_start(server);
	if (!err && (err = acceptor_start(&server->acceptor, server->config, take_gate(server))))
		server_cannot(server, "cannot serve", uv_strerror(err));
	if (err) {
		server->failed = true;
		stop_drain(server);
		return;
	}
	kept_free(&server->kept); /* what no setup() wants */
	server->stage = SERVING;
	log_write(LOG_INFO, "serving", F_TEXT("script", server->config->script),
		  F_INT("workers", server->started), F_INT("generation", 1),
		  F_TEXT("interrupts", guard_start()), F_INT("pid", getpid()));
	if (server->options.watch)
		requests_watch_files(server);
	if (*server->config->unsafe)
		log_write(LOG_WARN, "the script may leave the VM: nothing contains what it does with these",
			  F_TEXT("unsafe", server->config->unsafe));
	if (server->config->jobs.more_unsafe)
		log_write(LOG_WARN, "jobs may leave the VM: nothing contains what they do with these",
			  F_TEXT("unsafe", server->config->jobs.more_unsafe));
	settle_in(server);
	requests_catch_up(server);
}
