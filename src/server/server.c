#include "server/server.h"

#include "base/log.h"
#include "config/config.h"
#include "restart/inherit.h"
#include "restart/notify.h"
#include "restart/upgrade.h"
#include "server/acceptor.h"
#include "server/commands.h"
#include "server/listener.h"
#include "server/pulse.h"
#include "server/reload.h"
#include "server/watch.h"
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

/* LEAVING: another process accepts; connections are served as before, for so long as a drain may take. */
enum stage { STARTING, SERVING, LEAVING, DRAINING };

struct server {
	struct config *config; /* of the newest generation; held */
	enum stage stage;
	uv_loop_t loop;
	uv_async_t wake;
	uv_timer_t last_resort; /* a worker that does not stop; before, the time to leave */
	uv_signal_t signals[SIGNALS];
	struct mailbox mailbox;
	struct listener *listeners;
	struct acceptor acceptor;
	struct worker *workers;
	struct reloads reloads;
	struct notify notify;
	struct pulse pulse;
	struct inheritance inheritance;
	struct upgrade upgrade;
	atomic_bool leaving; /* the same as the stage, for workers */
	struct commands commands;
	uint64_t began_ms;
	struct watch watch;
	bool watches;                     /* --watch */
	unsigned started, ready, stopped; /* workers */
	bool script_failed;               /* on a worker, though the main thread could load it */
	bool failed;                      /* to start */
	bool forced, stuck, closed;
	const char *cut_by; /* who asked for it */
	uint64_t drain_began_ms;
};

/* ---- the end ---- */

static uint64_t connections_cut(const struct server *server)
{
	uint64_t cut = 0;
	for (unsigned i = 0; i < server->started; i++)
		cut += count_read(&server->workers[i].counters.cut);
	return cut;
}

static void close_all(struct server *server)
{
	server->closed = true;
	commands_close(&server->commands, connections_cut(server));
	watch_close(&server->watch);
	uv_close((uv_handle_t *)&server->wake, NULL);
	uv_close((uv_handle_t *)&server->last_resort, NULL);
	pulse_close(&server->pulse);
	upgrade_close(&server->upgrade);
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
	upgrade_cancel(&server->upgrade);
	notify_tell(&server->notify, "STOPPING=1");
	pulse_ask_nobody(&server->pulse);
	acceptor_stop(&server->acceptor);
	for (unsigned i = 0; i < server->started; i++)
		worker_drain(&server->workers[i]);
	if (ms)
		uv_timer_start(&server->last_resort, on_stuck, (uint64_t)ms + STUCK_MS, 0);
}

/* `by`: whom it is asked for by. */
static void force(struct server *server, const char *by)
{
	if (server->forced)
		return;
	server->forced = true;
	server->cut_by = by;
	for (unsigned i = 0; i < server->started; i++)
		worker_stop(&server->workers[i]);
	uv_timer_start(&server->last_resort, on_stuck, STUCK_MS, 0);
}

/* ---- another process takes over ---- */

static unsigned count_open(struct server *server)
{
	return atomic_load(&server->acceptor.open);
}

static void on_time_to_leave(uv_timer_t *timer)
{
	struct server *server = timer->data;
	log_write(LOG_INFO, "draining", F_INT("open", count_open(server)),
		  F_INT("deadline_ms", server->config->drain_ms));
	drain(server);
}

/*
 * The sockets live on in the other process, so our copies are closed without ado. To drain at once, as for TERM, would
 * break the promise that nobody notices: a client whose connection was accepted in the last moment and who is about to
 * ask would find it closed.
 */
static void on_taken_over(void *data, pid_t pid)
{
	struct server *server = data;
	uint32_t ms = server->config->drain_ms;
	for (unsigned i = 0; i < server->config->listener_count; i++)
		listener_share(&server->listeners[i]);
	acceptor_stop(&server->acceptor);
	pulse_ask_nobody(&server->pulse);
	server->stage = LEAVING;
	atomic_store(&server->leaving, true);
	log_write(LOG_INFO, "upgraded: the new process has taken over", F_INT("pid", pid),
		  F_INT("open", count_open(server)), F_INT("deadline_ms", ms));
	if (!count_open(server))
		drain(server);
	else if (ms)
		uv_timer_start(&server->last_resort, on_time_to_leave, ms, 0);
}

/* Why not now, or NULL. */
static const char *upgrade_objection(const struct server *server)
{
	if (server->stage != SERVING)
		return "upgrade refused: the server is not serving";
	if (server->reloads.running)
		return "upgrade refused: a reload is under way";
	if (getpid() == 1)
		return "upgrade refused: the end of process 1 is the end of its container";
	return NULL;
}

/* The sockets in the order of the configuration, which is how listeners without a port find theirs again. */
static void upgrade(struct server *server)
{
	unsigned n = server->config->listener_count;
	const char *objection = upgrade_objection(server);
	int *fds = calloc(n, sizeof *fds);
	const char **names = calloc(n, sizeof *names);
	if (!fds || !names)
		objection = "upgrade refused: not enough memory";
	if (objection)
		log_write(LOG_WARN, objection);
	for (unsigned i = 0; !objection && i < n; i++) {
		fds[i] = server->listeners[i].fd;
		names[i] = server->listeners[i].origin;
	}
	if (!objection)
		upgrade_begin(&server->upgrade, fds, names, n, server->config->upgrade_ms);
	free(fds);
	free(names);
}

/* ---- signals ---- */

static void begin_drain(struct server *server, struct log_field cause)
{
	unsigned open = atomic_load_explicit(&server->acceptor.open, memory_order_relaxed);
	log_write(LOG_INFO, "draining", cause, F_INT("open", open),
		  F_INT("deadline_ms", server->config->drain_ms));
	drain(server);
}

static void on_stop_signal(uv_signal_t *handle, int number)
{
	struct server *server = handle->data;
	if (server->stage == DRAINING) {
		log_write(LOG_WARN, "second signal: connections are cut",
			  F_TEXT("signal", strsignal(number)));
		force(server, "by the second signal");
		return;
	}
	begin_drain(server, F_TEXT("signal", strsignal(number)));
}

static void on_files_changed(void *data)
{
	struct server *server = data;
	if (server->stage == SERVING)
		reloads_begin(&server->reloads, server->config, RELOAD_AS_CONFIGURED);
}

static void on_reload_signal(uv_signal_t *handle, int number)
{
	struct server *server = handle->data;
	(void)number;
	if (server->stage != SERVING) {
		log_write(LOG_WARN, "reload refused: the server is not serving");
		return;
	}
	if (server->upgrade.stage != UPGRADE_IDLE) {
		log_write(LOG_WARN, "reload refused: an upgrade is under way");
		return;
	}
	reloads_begin(&server->reloads, server->config, RELOAD_AS_CONFIGURED);
	if (server->reloads.running)
		notify_tell(&server->notify, "RELOADING=1");
}

static void on_upgrade_signal(uv_signal_t *handle, int number)
{
	(void)number;
	upgrade(handle->data);
}

/* Its default action would end the process; an operator who tries it should lose nothing. */
static void on_unused_signal(uv_signal_t *handle, int number)
{
	(void)handle;
	log_write(LOG_WARN, "signal ignored: this version does not reopen logs",
		  F_TEXT("signal", strsignal(number)));
}

/* ---- commands ---- */

static void obey_stop(void *data, bool now)
{
	struct server *server = data;
	if (server->stage != DRAINING)
		begin_drain(server, F_TEXT("by", "the control socket"));
	if (now && !server->forced) {
		log_write(LOG_WARN, "stop at once: connections are cut", F_TEXT("by", "the control socket"));
		force(server, "by the control socket");
	}
}

static uint64_t obey_reload(void *data, enum reload_policy policy)
{
	struct server *server = data;
	return server->stage == SERVING ? reloads_begin(&server->reloads, server->config, policy) : 0;
}

static struct server_view view_of(void *data)
{
	static const char *const STAGES[] = {
		[STARTING] = "starting", [SERVING] = "serving", [DRAINING] = "draining"
	};
	const struct server *server = data;
	return (struct server_view){ .stage = STAGES[server->stage],
				     .config = server->config,
				     .acceptor = &server->acceptor,
				     .workers = server->workers,
				     .worker_count = server->started,
				     .reloads = &server->reloads,
				     .uptime_ms = uv_now(&server->loop) - server->began_ms };
}

static void on_outcome(void *data, const struct reload_outcome *outcome)
{
	struct server *server = data;
	commands_reloaded(&server->commands, outcome);
}

static bool open_commands(struct server *server)
{
	server->commands.server = server;
	server->commands.view = view_of;
	server->commands.stop = obey_stop;
	server->commands.reload = obey_reload;
	return commands_open(&server->commands, &server->loop, server->config);
}

static void watch_signals(struct server *server)
{
	static const struct {
		int number;
		uv_signal_cb callback;
	} WATCHED[SIGNALS] = { { SIGTERM, on_stop_signal },   { SIGINT, on_stop_signal },
			       { SIGQUIT, on_stop_signal },   { SIGHUP, on_reload_signal },
			       { SIGUSR1, on_unused_signal }, { SIGUSR2, on_upgrade_signal } };
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
	struct server *server = data;
	if (acceptor_gone(&server->acceptor) && atomic_load(&server->leaving))
		uv_async_send(&server->wake);
}

/* We accept, and say so: nobody else has to, and nobody else owns the files. */
static void settle_in(struct server *server)
{
	for (unsigned i = 0; i < server->config->listener_count; i++)
		listener_own(&server->listeners[i]);
	inheritance_close(&server->inheritance, true);
	notify_ready(&server->notify);
	pulse_start(&server->pulse, &server->notify, server->workers, server->config->workers);
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
		  F_TEXT("interrupts", guard_start()), F_INT("pid", getpid()));
	if (server->watches) /* the first configuration outlives the server */
		watch_open(&server->watch, &server->loop, server->config->script, on_files_changed, server);
	if (*server->config->unsafe)
		log_write(LOG_WARN, "the script may leave the VM: nothing contains what it does with these",
			  F_TEXT("unsafe", server->config->unsafe));
	settle_in(server);
}

static void take_loading(struct server *server, struct report *report)
{
	struct config *next = reloads_finish(&server->reloads, report, server->stage == SERVING);
	if (!server->reloads.running && server->stage == SERVING)
		notify_tell(&server->notify, "READY=1");
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
		reloads_know(&server->reloads, server->workers[report->worker].generation);
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
	case REPORT_EVICTED:
		commands_evicted(&server->commands, report);
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
	if (server->stage == LEAVING && !count_open(server))
		drain(server);
	if (server->stopped == server->started && !server->reloads.running && !server->closed)
		close_all(server);
}

static bool open_reloads(struct server *server)
{
	int err =
	    reloads_open(&server->reloads, server->workers, server->config->workers, server, post_report);
	if (err)
		log_write(LOG_ERROR, "cannot start the loader", F_TEXT("error", uv_strerror(err)));
	return !err;
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
		ok = false;
	}
	return ok;
}

/* All of them, or none. Who takes any port chooses from what the others leave. */
static bool bind_all(struct server *server)
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
	    LOG_INFO, "stopped", F_INT("pid", getpid()), F_INT("accepted", count_read(&sum.accepted)),
	    F_INT("closed", counters_closed(&sum)),
	    F_INT("open", atomic_load_explicit(&server->acceptor.open, memory_order_relaxed)),
	    F_INT("cut", count_read(&sum.cut)), F_TEXT("reasons", reasons),
	    F_INT("frames_in", count_read(&sum.frames_in)), F_INT("frames_out", count_read(&sum.frames_out)),
	    F_INT("bytes_in", count_read(&sum.bytes_in)), F_INT("bytes_out", count_read(&sum.bytes_out)),
	    F_INT("faults", count_read(&sum.faults)), F_INT("suspensions", count_read(&sum.suspensions)),
	    F_INT("dropped_frames", count_read(&sum.dropped_frames)),
	    F_INT("discarded_bytes", count_read(&sum.discarded_bytes)),
	    F_INT("accept_errors", count_read(&sum.accept_errors)),
	    F_INT("accept_delays", count_read(&sum.accept_delays)),
	    F_INT("migrated", count_read(&sum.migrated)),
	    F_INT("not_migrated", count_read(&sum.not_migrated)), F_INT("log_dropped", log_dropped()),
	    F_INT("drained_ms", server->drain_began_ms ? uv_now(&server->loop) - server->drain_began_ms : 0));
}

static int exit_code(struct server *server)
{
	uint64_t cut = connections_cut(server);
	if (server->failed)
		return server->script_failed ? EXIT_BAD_CONFIG : EXIT_FAILED;
	if (cut) {
		char what[80];
		snprintf(what, sizeof what, "connections were cut %s",
			 server->forced ? server->cut_by : "at the deadline of the drain");
		log_write(LOG_WARN, what, F_INT("cut", cut));
	}
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
	notify_open(&server->notify);
	if (inheritance_open(&server->inheritance))
		return false;
	mailbox_init(&server->mailbox);
	server->listeners = calloc(config->listener_count, sizeof *server->listeners);
	server->workers = calloc(config->workers, sizeof *server->workers);
	if (!server->listeners || !server->workers || !have_pipes() || uv_loop_init(&server->loop))
		return false;
	if (uv_async_init(&server->loop, &server->wake, on_wake))
		return false;
	uv_timer_init(&server->loop, &server->last_resort);
	pulse_open(&server->pulse, &server->loop);
	upgrade_open(&server->upgrade, &server->loop, &server->notify, server, on_taken_over);
	server->wake.data = server->last_resort.data = server;
	server->began_ms = uv_now(&server->loop);
	return true;
}

static void close_server(struct server *server)
{
	for (unsigned i = 0; i < server->config->listener_count; i++) {
		listener_close(&server->listeners[i]);
		peer_table_free(server->listeners[i].peers);
	}
	inheritance_close(&server->inheritance, false);
	notify_close(&server->notify);
	config_drop(server->config);
	free(server->listeners);
	free(server->workers);
}

static struct server server; /* workers outlive server_run() when one is stuck */

bool server_is_stuck(void)
{
	return server.stuck;
}

int server_run(struct config *config, bool watch)
{
	if (!open_server(&server, config)) {
		log_write(LOG_ERROR, "cannot start", F_TEXT("error", "not enough memory or descriptors"));
		return EXIT_FAILED;
	}
	server.watches = watch;
	acceptor_raise_descriptor_limit();
	watch_signals(&server);
	acceptor_init(&server.acceptor, &server.loop, server.listeners, config->listener_count,
		      server.workers, config->workers);
	bool bound = bind_all(&server) && open_commands(&server);
	bool can_reload = bound && open_reloads(&server);
	server.reloads.listener = &server;
	server.reloads.on_outcome = on_outcome;
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
	commands_deinit(&server.commands);
	if (can_reload)
		reloads_close(&server.reloads);
	if (bound)
		log_summary(&server);
	uv_loop_close(&server.loop);
	close_server(&server);
	return code;
}
