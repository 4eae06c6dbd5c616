/*
 * The end: a drain, its deadline, the summary.
 *
 * stop_drain() takes the clients that wait in the backlogs, closes the listeners and mails every worker. A connection
 * reads what had arrived, finishes what is in flight, asks drain(deadline), and closes (conn/end.c). At the deadline
 * what had arrived is served once more; then, or at the second signal, what is left is cut and counted. A worker that
 * does not come back after that is left behind, and the exit code says so: not after a time by the clock, which a busy
 * machine uses up, but after a time that its thread computed or slept (overtime.h). A script that is still being loaded
 * is called off: its guard ends its calls whatever their budgets.
 */

#include "server/internal.h"

#include "base/log.h"
#include "config/config.h"
#include "server/server.h"
#include "vm/stall.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* ---- draining ---- */

static uint64_t connections_cut(const struct server *server)
{
	uint64_t cut = 0;
	for (unsigned i = 0; i < server->started; i++)
		cut += count_read(&server->workers[i].counters.cut);
	return cut;
}

/* Whoever does not return. */
static const char *stuck_text(const struct server *server)
{
	if (server->finishing && server->loader_has_ended)
		return "a job does not return: it is left behind";
	if (server->finishing && server->reloads.called_off)
		return "a script that is being loaded does not return: it is left behind";
	if (server->finishing)
		return "teardown() of an old generation does not return: it is left behind";
	if (server->ready < server->started)
		return "a worker does not stop: the script that it loads does not return";
	return "a worker does not stop: its handler never returns";
}

static void stop_give_up(struct server *server)
{
	server->stuck = true;
	log_write(LOG_ERROR, stuck_text(server), F_INT("stopped", server->stopped),
		  F_INT("workers", server->started));
	commands_close(&server->commands, connections_cut(server));
	uv_timer_stop(&server->last_resort);
	reactor_stop(&server->reactor);
}

static bool is_loader_stuck(struct server *server, uint64_t now_ms)
{
	pid_t tid = atomic_load_explicit(&server->reloads.loader.tid, memory_order_relaxed);
	return !server->loader_has_ended && overtime_look(&server->loaders_overtime, tid, now_ms);
}

static bool is_job_stuck(struct server *server, uint64_t now_ms)
{
	for (unsigned i = 0; i < JOB_THREADS_MAX; i++) {
		pid_t tid = jobs_busy_thread(server->jobs, i);
		if (tid && overtime_look(&server->jobs_overtime[i], tid, now_ms))
			return true;
	}
	return false;
}

/* Who is waited for: the workers, and then the loader and jobs, which are all that is left. */
static bool is_stuck(struct server *server, uint64_t now_ms)
{
	if (server->stopped == server->started)
		return is_loader_stuck(server, now_ms) || is_job_stuck(server, now_ms);
	bool is_stuck = false;
	for (unsigned i = 0; i < server->started; i++) {
		struct worker *worker = &server->workers[i];
		pid_t tid = atomic_load_explicit(&worker->tid, memory_order_relaxed);
		if (!worker->has_stopped && overtime_look(&worker->overtime, tid, now_ms))
			is_stuck = true;
	}
	return is_stuck;
}

static void on_overtime(uv_timer_t *timer)
{
	struct server *server = timer->data;
	if (is_stuck(server, uv_now(timer->loop)))
		stop_give_up(server);
}

/* In so many milliseconds all should have stopped. */
static void expect_end(struct server *server, uint64_t ms)
{
	for (unsigned i = 0; i < server->started; i++)
		server->workers[i].overtime.has_begun = false;
	server->loaders_overtime.has_begun = false;
	memset(server->jobs_overtime, 0, sizeof server->jobs_overtime);
	uv_timer_start(&server->last_resort, on_overtime, ms, OVERTIME_LOOK_MS);
}

static void on_jobs_over(void *data, struct report *report)
{
	(void)report;
	stop_jobs_ended(data);
}

/* From the last of their threads. */
static void jobs_ended(void *data)
{
	struct server *server = data;
	server->jobs_over.deliver = on_jobs_over;
	reports_post(server, &server->jobs_over);
}

void stop_finish(struct server *server)
{
	server->finishing = true;
	commands_close(&server->commands, connections_cut(server));
	watch_close(&server->watch);
	canary_close(&server->reloads.canary);
	upgrade_close(&server->upgrade);
	/* A system call that a script waits in ends for nobody; nothing else is left that takes its time. */
	if (server->reloads.called_off)
		expect_end(server, 0);
	server->to_end = 2;
	jobs_stop(server->jobs, jobs_ended, server);
	if (jobs_are_busy(server->jobs))
		expect_end(server, 0);
	if (server->can_reload)
		reloads_finish(&server->reloads);
	else
		stop_loader_ended(server);
}

/*
 * The signals are never closed: without its last handle libuv gives a signal its default action back, and one that
 * comes between here and the exit would take the summary and the exit code along.
 */
static void stop_close(struct server *server)
{
	stall_listen(NULL, NULL);
	uv_close((uv_handle_t *)&server->wake, NULL);
	uv_close((uv_handle_t *)&server->last_resort, NULL);
	pulse_close(&server->pulse);
	recorder_close(&server->recorder);
	recordings_close(server);
	for (int i = 0; i < SERVER_SIGNALS; i++)
		uv_unref((uv_handle_t *)&server->signals[i]);
}

static void end_one(struct server *server)
{
	if (!--server->to_end)
		stop_close(server);
}

void stop_loader_ended(struct server *server)
{
	server->loader_has_ended = true;
	end_one(server);
}

void stop_jobs_ended(struct server *server)
{
	end_one(server);
}

void stop_drain(struct server *server)
{
	uint32_t ms = server->config->drain_ms;
	for (unsigned i = 0; i < server->started && server->stage == STARTING; i++)
		worker_call_off(&server->workers[i]);
	server->stage = DRAINING;
	server->drain_began_ms = uv_now(&server->loop);
	takeover_cancel(server);
	reloads_call_off(&server->reloads, "the server is stopping");
	reloads_stop(&server->reloads, "the server is stopping");
	notify_tell(&server->notify, "STOPPING=1");
	pulse_ask_nobody(&server->pulse);
	acceptor_stop(&server->acceptor, false);
	for (unsigned i = 0; i < server->started; i++)
		worker_drain(&server->workers[i]);
	if (ms)
		expect_end(server, ms);
}

void stop_begin(struct server *server, struct log_field cause)
{
	log_write(LOG_INFO, "draining", cause, F_INT("open", server_count_open(server)),
		  F_INT("deadline_ms", server->config->drain_ms));
	stop_drain(server);
}

void stop_force(struct server *server, const char *by)
{
	if (server->forced)
		return;
	server->forced = true;
	server->cut_by = by;
	for (unsigned i = 0; i < server->started && !server->finishing; i++)
		worker_stop(&server->workers[i]);
	expect_end(server, 0);
}

/* ---- the summary ---- */

/* "peer=3 drain=1" */
static void list_reasons(const struct counters *counters, char *text, size_t size)
{
	size_t at = 0;
	*text = '\0';
	for (int i = 0; i < REASON_COUNT; i++)
		if (count_read(&counters->closed[i]))
			at += (size_t)snprintf(text + at, size - at, "%s%s=%llu", at ? " " : "",
					       reason_name((enum close_reason)i),
					       (unsigned long long)count_read(&counters->closed[i]));
}

/* How many fields: none, where there were none. */
static size_t add_jobs(struct server *server, struct log_field *fields)
{
	struct job_counts counts;
	size_t n = 0;
	jobs_count(server->jobs, &counts);
	if (!counts.submitted)
		return 0;
	fields[n++] = F_INT("jobs", counts.submitted);
	fields[n++] = F_INT("jobs_done", counts.done);
	fields[n++] = F_INT("jobs_failed", counts.failed);
	fields[n++] = F_INT("jobs_shed", counts.shed);
	fields[n++] = F_INT("jobs_cancelled", counts.cancelled);
	fields[n++] = F_INT("jobs_dropped", counts.dropped);
	return n;
}

void stop_log_summary(struct server *server)
{
	server_look_at_stalls(server); /* those that the end has ended */
	struct counters sum = { 0 };
	counters_sum(&sum, &server->acceptor.counters);
	for (unsigned i = 0; i < server->started; i++)
		counters_sum(&sum, &server->workers[i].counters);
	enum { OTHERS = 7, OF_JOBS = 6 };
	struct log_field fields[COUNTER_COUNT + OTHERS + OF_JOBS];
	size_t n = 0;
	char reasons[512];
	list_reasons(&sum, reasons, sizeof reasons);
	fields[n++] = F_INT("pid", getpid());
	fields[n++] = F_INT("accepted", count_read(&sum.accepted));
	fields[n++] = F_INT("closed", counters_closed(&sum));
	fields[n++] = F_INT("open", server_count_open(server));
	fields[n++] = F_TEXT("reasons", reasons);
	for (int i = 0; i < COUNTER_COUNT; i++)
		fields[n++] = F_INT(COUNTER_NAMES[i].name, counters_read(&sum, &COUNTER_NAMES[i]));
	n += add_jobs(server, fields + n);
	fields[n++] = F_INT("log_dropped", log_dropped());
	fields[n++] =
	    F_INT("drained_ms", server->drain_began_ms ? uv_now(&server->loop) - server->drain_began_ms : 0);
	log_fields(LOG_INFO, "stopped", fields, n);
}

int stop_exit_code(const struct server *server)
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
	bool is_whole = server->trace_file.stage != TRACE_FILE_FAILED;
	return cut || server->stuck || !is_whole ? EXIT_FAILED : EXIT_OK;
}
