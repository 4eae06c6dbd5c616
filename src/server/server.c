#include "server/server.h"

#include "base/log.h"
#include "config/config.h"
#include "server/acceptor.h"
#include "server/listener.h"
#include "server/reload.h"
#include "server/worker.h"
#include "vm/guard.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
	SIGNALS = 6,
	STUCK_MS = 2000, /* how long after its deadline a worker may take to stop */
};

enum stage { STARTING, SERVING, DRAINING };

struct server {
	struct config *config; /* of the newest generation; held */
	enum stage stage;
	uv_loop_t loop;
	uv_async_t wake;
	uv_timer_t last_resort; /* a worker that does not stop */
	uv_signal_t signals[SIGNALS];
	struct mailbox mailbox;
	struct listener *listeners;
	struct acceptor acceptor;
	struct worker *workers;
	struct reloads reloads;
	unsigned started, ready, stopped; /* workers */
	bool script_failed;               /* on a worker, though the main thread could load it */
	bool failed;                      /* to start */
	bool forced, stuck, closed;
	uint64_t drain_began_ms;
};

/* ---- the end ---- */

static void close_all(struct server *server)
{
	server->closed = true;
	uv_close((uv_handle_t *)&server->wake, NULL);
	uv_close((uv_handle_t *)&server->last_resort, NULL);
	for (int i = 0; i < SIGNALS; i++)
		uv_close((uv_handle_t *)&server->signals[i], NULL);
}

static void on_stuck(uv_timer_t *timer)
{
	struct server *server = timer->data;
	server->stuck = true;
	log_write(LOG_ERROR, "a worker does not stop: its handler never returns",
		  F_INT("stopped", server->stopped), F_INT("workers", server->started));
	uv_stop(&server->loop);
}

static void drain(struct server *server)
{
	uint32_t ms = server->config->drain_ms;
	server->stage = DRAINING;
	server->drain_began_ms = uv_now(&server->loop);
	acceptor_stop(&server->acceptor);
	for (unsigned i = 0; i < server->started; i++)
		worker_drain(&server->workers[i]);
	if (ms)
		uv_timer_start(&server->last_resort, on_stuck, (uint64_t)ms + STUCK_MS, 0);
}

static void force(struct server *server)
{
	if (server->forced)
		return;
	server->forced = true;
	for (unsigned i = 0; i < server->started; i++)
		worker_stop(&server->workers[i]);
	uv_timer_start(&server->last_resort, on_stuck, STUCK_MS, 0);
}

/* ---- signals ---- */

static void on_stop_signal(uv_signal_t *handle, int number)
{
	struct server *server = handle->data;
	if (server->stage == DRAINING) {
		log_write(LOG_WARN, "second signal: connections are cut",
			  F_TEXT("signal", strsignal(number)));
		force(server);
		return;
	}
	unsigned open = atomic_load_explicit(&server->acceptor.open, memory_order_relaxed);
	log_write(LOG_INFO, "draining", F_TEXT("signal", strsignal(number)), F_INT("open", open),
		  F_INT("deadline_ms", server->config->drain_ms));
	drain(server);
}

static void on_reload_signal(uv_signal_t *handle, int number)
{
	struct server *server = handle->data;
	(void)number;
	if (server->stage == SERVING)
		reloads_begin(&server->reloads, server->config);
	else
		log_write(LOG_WARN, "reload refused: the server is not serving");
}

/* Their default action would end the process; an operator who tries them should lose nothing. */
static void on_unused_signal(uv_signal_t *handle, int number)
{
	(void)handle;
	log_write(LOG_WARN,
		  "signal ignored: this version neither reopens logs nor restarts itself",
		  F_TEXT("signal", strsignal(number)));
}

static void watch_signals(struct server *server)
{
	static const struct {
		int number;
		uv_signal_cb callback;
	} WATCHED[SIGNALS] = { { SIGTERM, on_stop_signal },   { SIGINT, on_stop_signal },
			       { SIGQUIT, on_stop_signal },   { SIGHUP, on_reload_signal },
			       { SIGUSR1, on_unused_signal }, { SIGUSR2, on_unused_signal } };
	for (int i = 0; i < SIGNALS; i++) {
		uv_signal_init(&server->loop, &server->signals[i]);
		server->signals[i].data = server;
		uv_signal_start(&server->signals[i], WATCHED[i].callback, WATCHED[i].number);
	}
}

/* ---- workers ---- */

/* From any worker's thread. */
static void post_report(void *data, struct report *report)
{
	struct server *server = data;
	mailbox_push(&server->mailbox, &report->mail);
	uv_async_send(&server->wake);
}

/* From any worker's thread. */
static void note_left(void *data, const struct conn *conn)
{
	acceptor_left(&((struct server *)data)->acceptor, conn);
}

/* From any worker's thread. */
static void note_gone(void *data)
{
	acceptor_gone(&((struct server *)data)->acceptor);
}

static void serve(struct server *server)
{
	int err = acceptor_start(&server->acceptor);
	if (err) {
		log_write(LOG_ERROR, "cannot serve", F_TEXT("error", uv_strerror(err)));
		server->failed = true;
		drain(server);
		return;
	}
	server->stage = SERVING;
	for (unsigned i = 0; i < server->config->listener_count; i++)
		log_write(LOG_INFO, "listening", F_TEXT("address", server->listeners[i].address),
			  F_TEXT("listener", server->config->listeners[i].name));
	log_write(LOG_INFO, "serving", F_TEXT("script", server->config->script),
		  F_INT("workers", server->started), F_INT("generation", 1),
		  F_TEXT("interrupts", guard_start()));
	if (*server->config->unsafe)
		log_write(LOG_WARN, "the script may leave the VM: nothing contains what it does with these",
			  F_TEXT("unsafe", server->config->unsafe));
}

static void take_loading(struct server *server, struct report *report)
{
	struct config *next = reloads_finish(&server->reloads, report, server->stage == SERVING);
	if (!next)
		return;
	acceptor_configure(&server->acceptor, next);
	config_drop(server->config);
	server->config = next;
}

static void heed(struct server *server, struct report *report)
{
	switch (report->kind) {
	case REPORT_READY:
		if (++server->ready == server->config->workers && server->stage == STARTING)
			serve(server);
		break;
	case REPORT_FAILED:
		if (!server->failed)
			log_write(LOG_ERROR, "cannot start", F_INT("worker", report->worker),
				  F_TEXT("excerpt", report->text));
		server->script_failed =
		    server->script_failed || (!server->failed && report->err == UV_EINVAL);
		server->failed = true;
		server->stopped++;
		if (server->stage != DRAINING)
			drain(server);
		break;
	case REPORT_STOPPED:
		server->stopped++;
		break;
	case REPORT_LOADED:
		take_loading(server, report);
		break;
	case REPORT_RETIRED:
		reloads_bury(&server->reloads, report);
		break;
	}
}

static void on_wake(uv_async_t *wake)
{
	struct server *server = wake->data;
	struct mail *next, *mail = mailbox_take(&server->mailbox);
	for (; mail; mail = next) {
		next = mail->next;
		heed(server, (struct report *)(void *)mail);
	}
	if (server->stopped == server->started && !server->reloads.running && !server->closed)
		close_all(server);
}

static int start_workers(struct server *server)
{
	struct worker_links links = { server, post_report, note_left, note_gone };
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

/* ---- listeners ---- */

/* All of them, or none: every one that fails is named. */
static bool bind_all(struct server *server)
{
	bool ok = true;
	char why[512];
	unsigned n = server->config->listener_count;
	for (unsigned i = 0; i < n; i++) {
		if (!listener_bind(&server->listeners[i], &server->config->listeners[i], why, sizeof why))
			continue;
		log_write(LOG_ERROR, "cannot bind", F_TEXT("error", why));
		ok = false;
	}
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

/* ---- the summary ---- */

static void log_summary(struct server *server)
{
	struct counters sum = { 0 };
	counters_sum(&sum, &server->acceptor.counters);
	for (unsigned i = 0; i < server->started; i++)
		counters_sum(&sum, &server->workers[i].counters);
	char reasons[512] = "";
	for (int i = 0, at = 0; i < REASON_COUNT; i++)
		if (count_read(&sum.closed[i]))
			at += snprintf(reasons + at, sizeof reasons - (size_t)at, "%s%s=%llu", at ? " " : "",
				       reason_name((enum close_reason)i),
				       (unsigned long long)count_read(&sum.closed[i]));
	log_write(
	    LOG_INFO, "stopped", F_INT("accepted", count_read(&sum.accepted)),
	    F_INT("closed", counters_closed(&sum)),
	    F_INT("open", atomic_load_explicit(&server->acceptor.open, memory_order_relaxed)),
	    F_INT("cut", count_read(&sum.cut)), F_TEXT("reasons", reasons),
	    F_INT("frames_in", count_read(&sum.frames_in)), F_INT("frames_out", count_read(&sum.frames_out)),
	    F_INT("bytes_in", count_read(&sum.bytes_in)), F_INT("bytes_out", count_read(&sum.bytes_out)),
	    F_INT("faults", count_read(&sum.faults)), F_INT("suspensions", count_read(&sum.suspensions)),
	    F_INT("dropped_frames", count_read(&sum.dropped_frames)),
	    F_INT("discarded_bytes", count_read(&sum.discarded_bytes)),
	    F_INT("accept_errors", count_read(&sum.accept_errors)),
	    F_INT("accept_delays", count_read(&sum.accept_delays)), F_INT("log_dropped", log_dropped()),
	    F_INT("drained_ms", server->drain_began_ms ? uv_now(&server->loop) - server->drain_began_ms : 0));
}

static int exit_code(struct server *server)
{
	uint64_t cut = 0;
	for (unsigned i = 0; i < server->started; i++)
		cut += count_read(&server->workers[i].counters.cut);
	if (server->failed)
		return server->script_failed ? EXIT_BAD_CONFIG : EXIT_FAILED;
	if (cut)
		log_write(LOG_WARN,
			  server->forced ? "connections were cut by the second signal"
					 : "connections were cut at the deadline of the drain",
			  F_INT("cut", cut));
	return cut || server->stuck ? EXIT_FAILED : EXIT_OK;
}

/* ---- life ---- */

/* libuv aborts where it cannot have the pipe for its signals, so it is tried beforehand. */
static bool have_pipes(void)
{
	int fds[2];
	if (pipe2(fds, O_CLOEXEC))
		return false;
	close(fds[0]);
	close(fds[1]);
	return true;
}

static bool open_server(struct server *server, struct config *config)
{
	memset(server, 0, sizeof *server);
	server->config = config;
	config_hold(config);
	mailbox_init(&server->mailbox);
	server->listeners = calloc(config->listener_count, sizeof *server->listeners);
	server->workers = calloc(config->workers, sizeof *server->workers);
	if (!server->listeners || !server->workers || !have_pipes() || uv_loop_init(&server->loop))
		return false;
	if (uv_async_init(&server->loop, &server->wake, on_wake))
		return false;
	uv_timer_init(&server->loop, &server->last_resort);
	server->wake.data = server->last_resort.data = server;
	return true;
}

static void close_server(struct server *server)
{
	for (unsigned i = 0; i < server->config->listener_count; i++) {
		listener_close(&server->listeners[i]);
		peer_table_free(server->listeners[i].peers);
	}
	config_drop(server->config);
	free(server->listeners);
	free(server->workers);
}

static struct server server; /* workers outlive server_run() when one is stuck */

bool server_is_stuck(void)
{
	return server.stuck;
}

int server_run(struct config *config)
{
	if (!open_server(&server, config)) {
		log_write(LOG_ERROR, "cannot start", F_TEXT("error", "not enough memory or descriptors"));
		return EXIT_FAILED;
	}
	acceptor_raise_descriptor_limit();
	watch_signals(&server);
	acceptor_init(&server.acceptor, &server.loop, server.listeners, config->listener_count,
		      server.workers, config->workers);
	bool bound = bind_all(&server);
	bool can_reload = bound && !reloads_open(&server.reloads, server.workers, config->workers, &server, post_report);
	if (!can_reload || start_workers(&server)) {
		server.failed = true;
		if (server.started)
			drain(&server);
		else
			close_all(&server);
	}
	uv_run(&server.loop, UV_RUN_DEFAULT);
	int code = exit_code(&server);
	if (server.stuck)
		return code; /* threads still run: leave their memory alone */
	for (unsigned i = 0; i < server.started; i++)
		worker_join(&server.workers[i]);
	if (can_reload)
		reloads_close(&server.reloads);
	if (bound)
		log_summary(&server);
	uv_loop_close(&server.loop);
	close_server(&server);
	return code;
}
