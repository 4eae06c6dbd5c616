#include "server/status.h"

#include "base/log.h"
#include "base/version.h"
#include "base/workdir.h"
#include "config/config.h"
#include "control/message.h"
#include "dict/dicts.h"
#include "hub/hub.h"
#include "jobs/jobs.h"
#include "names/names.h"
#include "server/acceptor.h"
#include "server/reload.h"

#include <limits.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

static void set_number(json_t *object, const char *name, uint64_t n)
{
	json_object_set_new(object, name, json_integer((json_int_t)n));
}

/* "2026-02-03T04:05:06.789Z" */
static void set_time(json_t *object, const char *name, int64_t wall_ms)
{
	time_t seconds = (time_t)(wall_ms / 1000);
	struct tm parts;
	char text[40], whole[56];
	gmtime_r(&seconds, &parts);
	strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &parts);
	snprintf(whole, sizeof whole, "%s.%03dZ", text, (int)(wall_ms % 1000));
	message_set_text(object, name, whole);
}

/* ---- listeners and workers ---- */

static json_t *listener_of(const struct listener *listener)
{
	json_t *one = json_object();
	message_set_text(one, "listener", listener->config->name);
	message_set_text(one, "address", listener->address);
	set_number(one, "open", atomic_load_explicit(&listener->open, memory_order_relaxed));
	set_number(one, "limit", listener->config->connections);
	set_number(one, "refused", atomic_load_explicit(&listener->refused, memory_order_relaxed));
	return one;
}

/* Those of the configuration, in its order, then those that have only connections still. */
static json_t *status_listeners_of(const struct server_view *view)
{
	struct listener *const *slots = view->acceptor->listeners->slots;
	json_t *all = json_array();
	for (unsigned i = 0; i < view->config->listener_count; i++)
		json_array_append_new(all, listener_of(slots[view->config->listeners[i].slot]));
	for (unsigned i = 0; i < LISTENER_SLOTS; i++) {
		if (!slots[i] || config_find_slot(view->config, i, i) >= 0 ||
		    !atomic_load_explicit(&slots[i]->open, memory_order_relaxed))
			continue;
		json_t *one = listener_of(slots[i]);
		json_object_set_new(one, "removed", json_true());
		json_array_append_new(all, one);
	}
	return all;
}

/* Those that there are. */
static json_t *phases_of(const struct counters *counters)
{
	static const char *const NAMES[PHASE_COUNT] = {
		[PHASE_OPENING] = "opening", [PHASE_CLOSING] = "closing", [PHASE_SUSPENDED] = "suspended",
		[PHASE_CHOKED] = "choked",   [PHASE_PAUSED] = "paused",   [PHASE_DRAINING] = "draining",
		[PHASE_OPEN] = "open"
	};
	json_t *all = json_object();
	for (int phase = PHASE_COUNT - 1; phase > PHASE_NONE; phase--)
		set_number(all, NAMES[phase], count_read(&counters->phases[phase]));
	return all;
}

static json_t *status_worker_of(const struct worker *worker, uint64_t now_ms)
{
	json_t *one = json_object();
	const struct counters *counters = &worker->counters;
	set_number(one, "worker", worker->index);
	set_number(one, "connections", atomic_load_explicit(&worker->load, memory_order_relaxed));
	set_number(one, "generations", atomic_load_explicit(&worker->generations, memory_order_relaxed));
	set_number(one, "closed", counters_closed(counters));
	set_number(one, "frames_in", count_read(&counters->frames_in));
	set_number(one, "frames_out", count_read(&counters->frames_out));
	set_number(one, "faults", count_read(&counters->faults));
	set_number(one, "held_up", worker->held_up.times);
	json_object_set_new(one, "held_up_by", stalls_status(&worker->held_up, now_ms));
	json_object_set_new(one, "states", phases_of(counters));
	return one;
}

static json_t *workers_of(const struct server_view *view)
{
	json_t *all = json_array();
	for (unsigned i = 0; i < view->worker_count; i++)
		json_array_append_new(all, status_worker_of(&view->workers[i], view->now_ms));
	return all;
}

/* ---- counters ---- */

/* `counts` has one a reason; those that are not 0. */
static json_t *reasons_of(const counter *counts)
{
	json_t *all = json_object();
	for (int i = 0; i < REASON_COUNT; i++)
		if (count_read(&counts[i]))
			set_number(all, reason_name((enum close_reason)i), count_read(&counts[i]));
	return all;
}

static json_t *counters_of(const struct server_view *view)
{
	struct counters sum = { 0 };
	counters_sum(&sum, &view->acceptor->counters);
	for (unsigned i = 0; i < view->worker_count; i++)
		counters_sum(&sum, &view->workers[i].counters);
	json_t *counters = json_object();
	set_number(counters, "accepted", count_read(&sum.accepted));
	set_number(counters, "closed", counters_closed(&sum));
	set_number(counters, "open", atomic_load_explicit(&view->acceptor->open, memory_order_relaxed));
	json_object_set_new(counters, "reasons", reasons_of(sum.closed));
	json_object_set_new(counters, "states", phases_of(&sum));
	json_object_set_new(counters, "fault_reasons", reasons_of(sum.faults_by));
	for (int i = 0; i < COUNTER_COUNT; i++)
		set_number(counters, COUNTER_NAMES[i].name, counters_read(&sum, &COUNTER_NAMES[i]));
	set_number(counters, "log_dropped", log_dropped());
	return counters;
}

/* Connections out: what the others count is not among the figures of clients. */
static json_t *status_outgoing(const struct server_view *view)
{
	struct counters sum = { 0 };
	for (unsigned i = 0; i < view->worker_count; i++)
		counters_sum(&sum, &view->workers[i].outgoing_counters);
	json_t *all = json_object();
	uint64_t made = count_read(&sum.accepted), closed = counters_closed(&sum);
	set_number(all, "connected", made);
	set_number(all, "closed", closed);
	set_number(all, "open", made > closed ? made - closed : 0);
	json_object_set_new(all, "reasons", reasons_of(sum.closed));
	json_object_set_new(all, "states", phases_of(&sum));
	set_number(all, "frames_in", count_read(&sum.frames_in));
	set_number(all, "frames_out", count_read(&sum.frames_out));
	set_number(all, "bytes_in", count_read(&sum.bytes_in));
	set_number(all, "bytes_out", count_read(&sum.bytes_out));
	return all;
}

/* Agents without a socket. */
static json_t *residents_of_all(const struct server_view *view)
{
	struct counters sum = { 0 };
	for (unsigned i = 0; i < view->worker_count; i++)
		counters_sum(&sum, &view->workers[i].counters);
	uint64_t begun = count_read(&sum.residents_begun), ended = count_read(&sum.residents_ended);
	json_t *all = json_object();
	set_number(all, "begun", begun);
	set_number(all, "ended", ended);
	set_number(all, "open", begun > ended ? begun - ended : 0);
	json_object_set_new(all, "reasons", reasons_of(sum.residents_by));
	return all;
}

/* ---- shared dictionaries ---- */

static json_t *dict_of(const struct dict_counts *counts, const char *name)
{
	json_t *one = json_object();
	message_set_text(one, "name", name);
	set_number(one, "entries", counts->entries);
	set_number(one, "bytes", counts->bytes);
	set_number(one, "limit", counts->limit);
	set_number(one, "hits", counts->hits);
	set_number(one, "misses", counts->misses);
	set_number(one, "evicted", counts->evicted);
	set_number(one, "expired", counts->expired);
	return one;
}

static json_t *dicts_of(const struct server_view *view)
{
	json_t *all = json_array();
	struct dict_counts counts;
	char name[DICT_NAME_MAX + 1];
	for (unsigned at = 0; dicts_count(view->dicts, at, name, &counts); at++)
		json_array_append_new(all, dict_of(&counts, name));
	return all;
}

/* ---- jobs ---- */

static json_t *lanes_of(const struct server_view *view)
{
	const struct job_config *config = &view->config->jobs;
	json_t *all = json_array();
	for (unsigned i = 0; i < config->lane_count; i++) {
		struct job_lane_counts counts;
		jobs_count_lane(view->jobs, i, &counts);
		json_t *one = json_object();
		message_set_text(one, "name", config->lanes[i].name);
		set_number(one, "waiting", counts.waiting);
		set_number(one, "running", counts.running);
		json_array_append_new(all, one);
	}
	return all;
}

/* null: there are none, and there were none */
static json_t *status_jobs(const struct server_view *view)
{
	enum { NS_PER_MS = 1000000 };
	struct job_counts counts;
	jobs_count(view->jobs, &counts);
	if (!view->config->jobs.workers && !counts.submitted)
		return json_null();
	json_t *all = json_object();
	set_number(all, "workers", view->config->jobs.workers);
	set_number(all, "threads", counts.threads);
	set_number(all, "submitted", counts.submitted);
	set_number(all, "waiting", counts.waiting);
	set_number(all, "running", counts.running);
	set_number(all, "done", counts.done);
	set_number(all, "failed", counts.failed);
	set_number(all, "shed", counts.shed);
	set_number(all, "cancelled", counts.cancelled);
	set_number(all, "dropped", counts.dropped);
	set_number(all, "waited_ms", counts.waited_ns / NS_PER_MS);
	json_object_set_new(all, "lanes", lanes_of(view));
	return all;
}

/* ---- generations ---- */

/* null: none runs */
static json_t *canary_of(const struct canary *canary)
{
	if (!canary_runs(canary))
		return json_null();
	struct canary_figures figures = canary_look(canary);
	json_t *one = json_object();
	set_number(one, "generation", figures.generation);
	set_number(one, "reload", canary->reload);
	json_object_set_new(one, "share", json_real(canary->config->canary_share));
	json_object_set_new(one, "max_errors", json_real(canary->config->canary_max_errors));
	set_number(one, "window_ms", canary->config->canary_window_ms);
	set_number(one, "left_ms", figures.left_ms);
	set_number(one, "connections", figures.conns);
	set_number(one, "errors", figures.failed);
	if (*figures.fault)
		message_set_text(one, "error", figures.fault);
	return one;
}

static const char *state_of(const struct generation *generation, uint32_t newest)
{
	if (generation->number == newest)
		return "serving";
	return generation->is_candidate ? "canary" : generation->is_withdrawn ? "withdrawn" : "old";
}

/* Those of all workers that have this one's number; they follow each other. */
static const struct generation *add_generation(json_t *all, const struct generation *first, int64_t now_ms,
					       uint32_t newest)
{
	const struct generation *each = first;
	uint32_t number = first->number;
	uint64_t conns = 0, residents = 0, workers = 0, migrated = 0, not_migrated = 0;
	for (; each && each->number == number; each = each->next_known, workers++) {
		conns += atomic_load_explicit(&each->agents.conns, memory_order_relaxed);
		residents += atomic_load_explicit(&each->agents.lone, memory_order_relaxed);
		migrated += atomic_load_explicit(&each->agents.migrated, memory_order_relaxed);
		not_migrated += atomic_load_explicit(&each->agents.not_migrated, memory_order_relaxed);
	}
	json_t *one = json_object();
	set_number(one, "generation", number);
	json_object_set_new(one, "newest", json_boolean(number == newest));
	message_set_text(one, "state", state_of(first, newest));
	set_number(one, "connections", conns);
	set_number(one, "residents", residents);
	set_number(one, "workers", workers);
	set_number(one, "migrated", migrated);
	set_number(one, "not_migrated", not_migrated);
	set_time(one, "since", first->known_since_ms);
	set_number(one, "age_ms",
		   now_ms > first->known_since_ms ? (uint64_t)(now_ms - first->known_since_ms) : 0);
	json_array_append_new(all, one);
	return each;
}

void status_add_generations(json_t *reply, const struct server_view *view)
{
	json_t *all = json_array();
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	int64_t now_ms = (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
	for (const struct generation *each = view->reloads->known; each;)
		each = add_generation(all, each, now_ms, view->reloads->newest);
	json_object_set_new(reply, "generations", all);
	json_object_set_new(reply, "canary", canary_of(&view->reloads->canary));
}

void status_set_now(json_t *object, const char *name)
{
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	set_time(object, name, (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000);
}

/* What became of connections that were to migrate. */
static void add_takeovers(json_t *one, const struct reload_outcome *outcome)
{
	const struct takeovers *takeovers = &outcome->takeovers;
	json_t *stay = json_object();
	set_number(one, "migrated", takeovers->migrated);
	set_number(one, "not_migrated", handover_count_staying(takeovers));
	set_number(one, "waiting", outcome->waiting);
	set_number(stay, "failed", takeovers->failed);
	set_number(stay, "deferred", takeovers->deferred);
	set_number(stay, "removed", takeovers->removed);
	json_object_set_new(one, "stay", stay);
	if (*takeovers->why)
		message_set_text(one, "error", takeovers->why);
}

json_t *status_outcome(const struct reload_outcome *outcome)
{
	static const char *const ENDS[] = { [RELOAD_DONE] = "reloaded",
					    [RELOAD_FAILED] = "failed",
					    [RELOAD_REFUSED] = "refused",
					    [RELOAD_WITHDRAWN] = "withdrawn" };
	if (!outcome->number)
		return json_null();
	json_t *one = json_object();
	set_number(one, "number", outcome->number);
	message_set_text(one, "outcome", ENDS[outcome->end]);
	set_number(one, "generation", outcome->generation);
	set_time(one, "time", outcome->time_ms);
	if (outcome->policy != RELOAD_AS_CONFIGURED)
		message_set_text(one, "policy", RELOAD_POLICY_NAMES[outcome->policy]);
	if (*outcome->text)
		message_set_text(one, "message", outcome->text);
	if (outcome->end == RELOAD_DONE)
		add_takeovers(one, outcome);
	return one;
}

/* ---- all of it ---- */

/* The script, whatever folder the reader is in. Null where it cannot be told. */
static void add_script_path(json_t *reply, const char *script)
{
	char path[2 * PATH_MAX];
	const char *folder = *script == '/' ? "" : workdir_name();
	snprintf(path, sizeof path, "%s%s%s", folder, *folder ? "/" : "", script);
	message_set_text(reply, "script_path", *path == '/' ? path : NULL);
}

void status_add_all(json_t *reply, const struct server_view *view)
{
	message_set_text(reply, "version", PERILUNE_VERSION);
	set_number(reply, "pid", (uint64_t)getpid());
	message_set_text(reply, "script", view->config->script);
	add_script_path(reply, view->config->script);
	message_set_text(reply, "stage", view->stage);
	message_set_text(reply, "log_file", log_path());
	set_number(reply, "uptime_ms", view->uptime_ms);
	set_number(reply, "generation", view->reloads->newest);
	json_object_set_new(reply, "listeners", status_listeners_of(view));
	json_object_set_new(reply, "workers", workers_of(view));
	status_add_generations(reply, view);
	json_object_set_new(reply, "counters", counters_of(view));
	json_object_set_new(reply, "outgoing", status_outgoing(view));
	json_object_set_new(reply, "residents", residents_of_all(view));
	json_object_set_new(reply, "shared", dicts_of(view));
	json_object_set_new(reply, "jobs", status_jobs(view));
	set_number(reply, "names", names_count(view->names));
	set_number(reply, "topics", hub_topics(view->hub));
	json_object_set_new(reply, "last_reload", status_outcome(&view->reloads->last));
}
