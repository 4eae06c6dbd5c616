/* The start: sockets, workers, and the moment from which we serve. */

#include "server/internal.h"

#include "base/log.h"
#include "config/config.h"
#include "vm/guard.h"

#include <unistd.h>

/* ---- listeners ---- */

/* Inherited, or made. 0 or an error, explained. */
static int bind_one(struct server *server, unsigned i, char *why, size_t size)
{
	const struct listener_config *config = &server->config->listeners[i];
	struct inherited *inherited = inheritance_find(&server->inheritance, config);
	if (inherited)
		return listener_adopt(&server->listeners[i], config, inherited, why, size);
	return listener_bind(&server->listeners[i], config, why, size);
}

static bool takes_any_port(const struct listener_config *config)
{
	return config->kind == LISTENER_TCP && !config->port;
}

/* False: not all. Every one that fails is named. */
static bool bind_those(struct server *server, bool any_port)
{
	bool ok = true;
	char why[512];
	for (unsigned i = 0; i < server->config->listener_count; i++) {
		if (takes_any_port(&server->config->listeners[i]) != any_port ||
		    !bind_one(server, i, why, sizeof why))
			continue;
		log_write(LOG_ERROR, "cannot bind", F_TEXT("error", why));
		notify_failed(&server->notify, why);
		ok = false;
	}
	return ok;
}

/* All of them, or none. Who takes any port chooses from what the others leave. */
bool start_listeners(struct server *server)
{
	char why[512];
	unsigned n = server->config->listener_count;
	bool ok = bind_those(server, false);
	ok = bind_those(server, true) && ok;
	for (unsigned i = 0; ok && i < n; i++) {
		if (!listener_listen(&server->listeners[i], why, sizeof why))
			continue;
		log_write(LOG_ERROR, "cannot listen", F_TEXT("error", why));
		ok = false;
	}
	for (unsigned i = 0; !ok && i < n; i++)
		listener_close(&server->listeners[i]);
	return ok;
}

/* ---- workers ---- */

/* From any worker's thread. */
static void note_left(void *data, const struct conn *conn)
{
	acceptor_left(&((struct server *)data)->acceptor, conn);
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

int start_workers(struct server *server)
{
	struct worker_links links = { server, reports_post, note_left, note_gone, note_failed };
	for (unsigned i = 0; i < server->config->workers; i++) {
		int err = worker_start(&server->workers[i], server->config, i, links);
		if (err) {
			log_write(LOG_ERROR, "cannot start a worker", F_TEXT("error", uv_strerror(err)));
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
		listener_own(&server->listeners[i]);
	commands_begin(&server->commands);
	inheritance_close(&server->inheritance, true);
	notify_ready(&server->notify);
	pulse_start(&server->pulse, &server->notify, server->workers, server->config->workers);
}

void start_serving(struct server *server)
{
	int err = acceptor_start(&server->acceptor);
	if (err) {
		log_write(LOG_ERROR, "cannot serve", F_TEXT("error", uv_strerror(err)));
		server->failed = true;
		stop_drain(server);
		return;
	}
	server->stage = SERVING;
	for (unsigned i = 0; i < server->config->listener_count; i++)
		log_write(LOG_INFO, "listening", F_TEXT("address", server->listeners[i].address),
			  F_TEXT("listener", server->config->listeners[i].name));
	log_write(LOG_INFO, "serving", F_TEXT("script", server->config->script),
		  F_INT("workers", server->started), F_INT("generation", 1),
		  F_TEXT("interrupts", guard_start()), F_INT("pid", getpid()));
	if (server->watches)
		requests_watch_files(server);
	if (*server->config->unsafe)
		log_write(LOG_WARN, "the script may leave the VM: nothing contains what it does with these",
			  F_TEXT("unsafe", server->config->unsafe));
	settle_in(server);
}
