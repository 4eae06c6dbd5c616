#include "server/server.h"

#include "base/descriptors.h"
#include "base/log.h"
#include "config/config.h"
#include "dict/dicts.h"
#include "hub/hub.h"
#include "loop/loop.h"
#include "names/names.h"
#include "restart/variables.h"
#include "server/internal.h"
#include "vm/stall.h"

#include <stdlib.h>
#include <string.h>

unsigned server_count_open(const struct server *server)
{
	return atomic_load(&server->acceptor.open);
}

void server_cannot(struct server *server, const char *message, const char *why)
{
	log_write(LOG_ERROR, message, F_TEXT("error", why));
	notify_failed(&server->notify, why);
}

void server_look_at_stalls(struct server *server)
{
	stalls_look(server->workers, server->started, &server->acceptor.counters, uv_now(&server->loop));
}

/* From the watchdog. */
static void note_stall(void *wake)
{
	uv_async_send(wake);
}

struct listener *server_listener(struct server *server, unsigned i)
{
	return server->listeners.slots[server->config->listeners[i].slot];
}

/*
 * Without descriptors a worker fails in many ways, with a module that is "not found" among them; this says why.
 * 6 for its loops, one for what it loads; and one for a client.
 */
static bool have_descriptors(struct server *server)
{
	enum { PER_WORKER = 7 };
	char why[128];
	if (descriptors_left(server->config->workers * PER_WORKER + 1))
		return true;
	log_write(LOG_ERROR, "cannot start", F_TEXT("error", descriptors_explain(why, sizeof why)),
		  F_INT("workers", server->config->workers));
	notify_failed(&server->notify, why);
	return false;
}

static bool open_server(struct server *server, struct config *config)
{
	memset(server, 0, sizeof *server);
	server->gate = server->inheritance.gate = server->inheritance.snapshots = -1;
	server->config = config;
	config_hold(config);
	variables_complain();
	notify_open(&server->notify);
	if (inheritance_open(&server->inheritance))
		return false;
	mailbox_init(&server->mailbox);
	server->workers = calloc(config->workers, sizeof *server->workers);
	server->sources = calloc(config->workers, sizeof *server->sources);
	server->dicts = dicts_new(NULL);
	server->surroundings = (struct job_surroundings){ server->dicts, NULL };
	server->jobs = jobs_new(&JOB_OPS, &server->surroundings, true);
	server->names = names_new(config->workers, worker_ring, NULL);
	server->hub = hub_new(config->workers, worker_ring, NULL);
	if (!server->workers || !server->sources || !server->dicts || !server->jobs || !server->names ||
	    !server->hub || loop_open(&server->loop) || reactor_open(&server->reactor, &server->loop))
		return false;
	if (uv_async_init(&server->loop, &server->wake, reports_on_wake))
		return false;
	uv_timer_init(&server->loop, &server->last_resort);
	pulse_open(&server->pulse, &server->loop);
	recorder_open(&server->recorder, &server->loop, server->workers, config->workers, &server->wake);
	upgrade_open(&server->upgrade, &server->reactor, &server->notify, server, takeover_on_done,
		     takeover_on_failure);
	server->wake.data = server->last_resort.data = server;
	server->counters = (struct counters_all){ .first = &server->workers->counters,
						  .stride = sizeof *server->workers,
						  .count = config->workers,
						  .more = &server->acceptor.counters };
	server->began_ms = uv_now(&server->loop);
	stall_listen(note_stall, &server->wake);
	return true;
}

static void close_server(struct server *server)
{
	listeners_free(&server->listeners);
	inheritance_close(&server->inheritance, false);
	notify_close(&server->notify);
	jobs_free(server->jobs); /* before the loop: the last of their threads may be about to wake it yet */
	reactor_close(&server->reactor);
	config_drop(server->config);
	free(server->workers);
	free(server->sources);
	kept_free(&server->kept);
	dicts_free(server->dicts);
	names_free(server->names);
	hub_free(server->hub);
}

static bool bind_all(struct server *server)
{
	char why[512];
	if (!listeners_add(&server->listeners, server->config, &server->inheritance, why, sizeof why))
		return true;
	notify_failed(&server->notify, why);
	return false;
}

static struct server server; /* workers outlive server_run() when one is stuck */

bool server_is_stuck(void)
{
	return server.stuck;
}

/* From the first socket to the last entry of the log. Returns the exit code. */
static int server_serve(struct config *config, const struct server_options *options)
{
	acceptor_raise_descriptor_limit();
	if (!open_server(&server, config)) {
		char why[128];
		server_cannot(&server, "cannot start",
			      descriptors_left(8) ? "not enough memory or descriptors"
						  : descriptors_explain(why, sizeof why));
		return EXIT_FAILED;
	}
	server.options = *options;
	requests_watch_signals(&server);
	acceptor_init(&server.acceptor, &server.reactor, &server.listeners, server.workers, config->workers);
	bool bound = takeover_take_kept(&server) && bind_all(&server) && requests_open_commands(&server);
	server.can_reload = bound && requests_open_reloads(&server);
	if (!server.can_reload || !have_descriptors(&server) || start_workers(&server)) {
		server.failed = true;
		if (server.started)
			stop_drain(&server);
		else
			stop_finish(&server);
	}
	reactor_run(&server.reactor);
	int code = stop_exit_code(&server);
	if (server.stuck && !server.finishing) { /* threads still run: leave their memory alone */
		stop_log_summary(&server);
		return code;
	}
	for (unsigned i = 0; i < server.started; i++)
		worker_join(&server.workers[i]);
	if (server.stuck) { /* the loader's does */
		stop_log_summary(&server);
		return code;
	}
	commands_deinit(&server.commands);
	recorder_deinit(&server.recorder);
	if (server.can_reload)
		reloads_close(&server.reloads);
	if (bound)
		stop_log_summary(&server);
	close_server(&server);
	return code;
}

int server_run(struct config *config, const struct server_options *options)
{
	int code = server_serve(config, options);
	commands_tell_end(&server.commands);
	return code;
}
