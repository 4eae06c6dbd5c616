#include "server/reload.h"

#include "base/log.h"
#include "config/config.h"
#include "config/sources.h"
#include "worker/worker.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <uv.h>

#define TOO_MANY_OLD                                                                      \
	"too many old generations have connections (reload.keep); wait for them to end, " \
	"reload with --policy drain, or restart"
#define STOPPING "the server is stopping"

int reloads_open(struct reloads *reloads, struct worker *workers, unsigned worker_count,
		 struct loader_links links)
{
	*reloads = (struct reloads){ .workers = workers,
				     .worker_count = worker_count,
				     .newest = 1,
				     .numbered = 1,
				     .policy = RELOAD_AS_CONFIGURED };
	return loader_start(&reloads->loader, links);
}

/* A canary is not: what is loaded takes its place. One without agents is about to be retired, if it is not yet. */
static bool is_old(const struct reloads *reloads, const struct generation *generation)
{
	const struct generation *candidate = reloads->canary.first;
	return generation->number != reloads->newest &&
	       !(candidate && generation->number == candidate->number) &&
	       (atomic_load_explicit(&generation->agents.conns, memory_order_relaxed) ||
		atomic_load_explicit(&generation->agents.lone, memory_order_relaxed));
}

/* Old generations with connections, in the worker that has most of them. */
static unsigned old_generations(const struct reloads *reloads)
{
	unsigned most = 0;
	for (unsigned i = 0; i < reloads->worker_count; i++) {
		unsigned n = 0;
		for (const struct generation *each = reloads->known; each; each = each->next_known)
			n += each->worker == i && is_old(reloads, each);
		most = n > most ? n : most;
	}
	return most;
}

static int64_t wall_ms(void)
{
	uv_timeval64_t now;
	return uv_gettimeofday(&now) ? 0 : now.tv_sec * 1000 + now.tv_usec / 1000;
}

/* `handover`: what became of connections with it, or NULL. */
static void reload_tell(struct reloads *reloads, uint64_t number, enum reload_policy policy,
			enum reload_end how, const char *why, const struct handover *handover)
{
	struct reload_outcome outcome = {
		.number = number,
		.end = how,
		.generation = handover ? handover->generation : reloads->newest,
		.time_ms = wall_ms(),
		.policy = policy,
	};
	if (handover) {
		outcome.takeovers = handover->takeovers;
		outcome.waiting = handover->waiting;
	}
	snprintf(outcome.text, sizeof outcome.text, "%s", why);
	/* They do not end in the order in which they began: connections may take long to migrate. */
	if (number >= reloads->last.number)
		reloads->last = outcome;
	if (reloads->on_outcome)
		reloads->on_outcome(reloads->listener, &outcome);
}

static void reload_end_one(struct reloads *reloads, uint64_t number, enum reload_policy policy,
			   enum reload_end how, const char *why)
{
	reload_tell(reloads, number, policy, how, why, NULL);
}

/* The one that runs. */
static void reload_end(struct reloads *reloads, enum reload_end how, const char *why)
{
	reload_end_one(reloads, reloads->number, reloads->policy, how, why);
}

/* ---- connections that migrate ---- */

/* The one that runs is done; what is told of it waits until connections have been asked. `text`: a literal. */
static void reload_hand_over(struct reloads *reloads, const char *text, bool asks_anew)
{
	struct handover *handover = handover_new(reloads->worker_count);
	if (!handover) { /* then that is not told */
		reload_end(reloads, RELOAD_DONE, text);
		return;
	}
	handover->reload = reloads->number;
	handover->policy = reloads->policy;
	handover->text = text;
	handover->generation = reloads->newest;
	handover->asks_anew = asks_anew;
	handover->next = reloads->handovers;
	reloads->handovers = handover;
	handover_begin(handover, reloads->workers);
}

static void log_handover(const struct handover *handover)
{
	const struct takeovers *sum = &handover->takeovers;
	bool stay = handover_count_staying(sum);
	if (!handover_concerned_any(handover))
		return;
	log_write(stay ? LOG_WARN : LOG_INFO,
		  stay ? "connections stay with the old code" : "connections migrated",
		  F_INT("generation", handover->generation), F_INT("migrated", sum->migrated),
		  F_INT("not_migrated", handover_count_staying(sum)), F_INT("failed", sum->failed),
		  F_INT("deferred", sum->deferred), F_INT("removed", sum->removed),
		  F_INT("waiting", handover->waiting), F_TEXT("error", sum->why));
}

static void tell_handover(struct reloads *reloads, const struct handover *handover)
{
	log_handover(handover);
	reload_tell(reloads, handover->reload, handover->policy, RELOAD_DONE, handover->text, handover);
}

void reloads_handed_over(struct reloads *reloads, struct report *report)
{
	struct handover *whole = handover_take(report), **link = &reloads->handovers;
	if (!whole)
		return;
	while (*link != whole)
		link = &(*link)->next;
	*link = whole->next;
	tell_handover(reloads, whole);
	free(whole);
}

static void free_handovers(struct reloads *reloads)
{
	for (struct handover *next, *each = reloads->handovers; each; each = next) {
		next = each->next;
		free(each);
	}
	reloads->handovers = NULL;
}

/* ---- the generations ---- */

void reloads_know(struct reloads *reloads, struct generation *generation)
{
	generation->known_since_ms = wall_ms();
	generation->next_known = reloads->known;
	reloads->known = generation;
}

static void reload_forget(struct reloads *reloads, struct generation *generation)
{
	struct generation **link = &reloads->known;
	while (*link && *link != generation)
		link = &(*link)->next_known;
	if (!*link)
		return;
	*link = generation->next_known;
	generation_drop(generation);
}

void reloads_finish(struct reloads *reloads)
{
	/*
	 * Of these some parts have come too late for their workers, which have stopped, and have them in the mail
	 * still.
	 */
	for (const struct handover *each = reloads->handovers; each; each = each->next)
		tell_handover(reloads, each);
	loader_stop(&reloads->loader);
}

void reloads_close(struct reloads *reloads)
{
	loader_join(&reloads->loader);
	free_handovers(reloads);
	while (reloads->known)
		reload_forget(reloads, reloads->known);
}

/* A drain makes room, as reload.when_full = "drain" does; migrating may fail. */
static bool reload_has_room(const struct reloads *reloads, const struct config *now)
{
	return old_generations(reloads) < now->reload_keep || now->reload_drains_old ||
	       reloads->policy == RELOAD_DRAIN;
}

static void reload_refuse(struct reloads *reloads, const struct config *now)
{
	log_write(LOG_WARN, "reload refused: " TOO_MANY_OLD, F_INT("generation", reloads->newest),
		  F_INT("old_generations", old_generations(reloads)), F_INT("keep", now->reload_keep));
	reload_end(reloads, RELOAD_REFUSED, TOO_MANY_OLD);
}

/* The one that runs has its number already. */
static void reload_load(struct reloads *reloads, struct config *now)
{
	struct loading *loading =
	    loading_new(reloads->workers, reloads->worker_count, now, reloads->numbered + 1);
	if (!loading) {
		log_write(LOG_ERROR, "reload failed: the old generation serves on",
			  F_TEXT("error", "not enough memory"), F_INT("generation", reloads->newest));
		reload_end(reloads, RELOAD_FAILED, "not enough memory");
		return;
	}
	loading->policy = reloads->policy;
	if (canary_runs(&reloads->canary)) {
		loading->candidate = reloads->canary.config;
		config_hold(loading->candidate);
	}
	reloads->running = true;
	reloads->loading = loading;
	loader_load(&reloads->loader, loading);
}

uint64_t reloads_begin(struct reloads *reloads, struct config *now, enum reload_policy policy)
{
	if (reloads->running) {
		reloads->again = true;
		reloads->again_policy = policy;
		return reloads->begun + 1;
	}
	reloads->number = ++reloads->begun;
	reloads->policy = policy;
	/* Where a canary runs, it may be the one that is called off, which takes no room: see reloads_admit(). */
	if (canary_runs(&reloads->canary) || reload_has_room(reloads, now))
		reload_load(reloads, now);
	else
		reload_refuse(reloads, now);
	return reloads->number;
}

/* One that was asked for meanwhile has its number by then. */
static void refuse_next(struct reloads *reloads, const char *why)
{
	if (!reloads->again)
		return;
	reloads->again = false;
	reload_end_one(reloads, ++reloads->begun, reloads->again_policy, RELOAD_REFUSED, why);
}

void reloads_call_off(struct reloads *reloads, const char *why)
{
	if (reloads->loading && loading_call_off(reloads->loading)) {
		log_write(LOG_WARN, "reload called off", F_TEXT("reason", why),
			  F_INT("generation", reloads->newest));
		reloads->loading = NULL;
		reloads->called_off++;
		reloads->running = false;
		reload_end(reloads, RELOAD_REFUSED, why);
	}
	refuse_next(reloads, why);
}

bool reloads_is_loading(const struct reloads *reloads)
{
	return reloads->running && (!reloads->missing || reloads->again);
}

/* ---- what is said ---- */

static void log_failure(const struct reloads *reloads, const struct report *report)
{
	log_write(LOG_ERROR, "reload failed: the old generation serves on",
		  F_INT("generation", reloads->newest), F_INT("worker", report->worker),
		  F_TEXT("excerpt", report->text));
}

/* "": the script's. */
static const char *reload_name_of(enum reload_policy policy)
{
	return policy == RELOAD_AS_CONFIGURED ? "" : RELOAD_POLICY_NAMES[policy];
}

static void log_unchanged(const struct reloads *reloads, const struct config *config, uint32_t generation)
{
	log_write(LOG_INFO, "reload: nothing has changed", F_TEXT("script", config->script),
		  F_INT("generation", generation), F_TEXT("key", config->sources->key_text),
		  F_TEXT("policy", reload_name_of(reloads->policy)));
}

static void log_success(const struct reloads *reloads, const struct config *config)
{
	log_write(LOG_INFO, "reloaded", F_TEXT("script", config->script),
		  F_INT("generation", reloads->newest), F_TEXT("key", config->sources->key_text),
		  F_TEXT("policy", reload_name_of(reloads->policy)));
	if (*config->sources->cut)
		log_write(LOG_WARN, "not all of the app's folder was read",
			  F_TEXT("reason", config->sources->cut));
}

/* ---- the canary ---- */

/* The generation in one worker after the other. */
static void each_of(struct reloads *reloads, struct generation *first,
		    void (*visit)(struct worker *worker, struct generation *generation))
{
	for (unsigned i = 0; i < reloads->worker_count; i++, first = first->next_known)
		visit(&reloads->workers[first->worker], first);
}

static void withdraw_in(struct worker *worker, struct generation *generation)
{
	generation->is_candidate = false;
	generation->is_withdrawn = true;
	worker_withdraw(worker, generation);
}

/* The workers go on as they are: they are about to stop. */
static void mark_withdrawn(struct worker *worker, struct generation *generation)
{
	(void)worker;
	generation->is_candidate = false;
	generation->is_withdrawn = true;
}

static void promote_in(struct worker *worker, struct generation *generation)
{
	generation->is_candidate = false;
	worker_promote(worker, generation);
}

/* It ends as a canary, and its reload with it; what becomes of the generation is the caller's business. */
static void reload_give_up(struct reloads *reloads, const char *why, const struct canary_figures *figures)
{
	const struct canary *canary = &reloads->canary;
	uint64_t number = canary->reload;
	enum reload_policy policy = canary->policy;
	char message[128], text[512];
	bool is_bad = canary_is_bad(canary, figures);
	snprintf(message, sizeof message, "canary withdrawn: %s", why);
	log_write(is_bad ? LOG_ERROR : LOG_WARN, message, F_INT("generation", figures->generation),
		  F_INT("connections", figures->conns), F_INT("errors", figures->failed),
		  F_TEXT("error", figures->fault));
	snprintf(text, sizeof text, "%s (%llu of %llu)%s%s", message, (unsigned long long)figures->failed,
		 (unsigned long long)figures->conns, *figures->fault ? ": " : "", figures->fault);
	canary_end(&reloads->canary);
	reload_end_one(reloads, number, policy, RELOAD_WITHDRAWN, is_bad ? text : message);
}

static void withdraw(struct reloads *reloads, const char *why)
{
	if (!canary_runs(&reloads->canary))
		return;
	struct canary_figures figures = canary_look(&reloads->canary);
	each_of(reloads, reloads->canary.first, withdraw_in);
	reload_give_up(reloads, why, &figures);
}

void reloads_look(struct reloads *reloads)
{
	if (!canary_runs(&reloads->canary))
		return;
	struct canary_figures figures = canary_look(&reloads->canary);
	if (canary_is_bad(&reloads->canary, &figures))
		withdraw(reloads, "too many of its connections failed");
}

void reloads_stop(struct reloads *reloads, const char *why)
{
	if (!canary_runs(&reloads->canary))
		return;
	struct canary_figures figures = canary_look(&reloads->canary);
	each_of(reloads, reloads->canary.first, mark_withdrawn);
	reload_give_up(reloads, why, &figures);
}

/* The reload goes on where it became a canary: all workers are to adopt what it has loaded. */
static void promote(struct reloads *reloads)
{
	struct canary *canary = &reloads->canary;
	struct canary_figures figures = canary_look(canary);
	log_write(LOG_INFO,
		  figures.conns ? "canary promoted" : "canary promoted: no connection has come to it",
		  F_INT("generation", figures.generation), F_INT("connections", figures.conns),
		  F_INT("errors", figures.failed));
	reloads->number = canary->reload;
	reloads->policy = canary->policy;
	reloads->newest = figures.generation;
	reloads->running = true;
	reloads->missing = reloads->worker_count;
	each_of(reloads, canary->first, promote_in);
	reloads->on_newest(reloads->listener, canary->config);
	canary_end(canary);
}

/* One that fails in its last moment is not promoted. */
static void promote_if_due(struct reloads *reloads)
{
	reloads_look(reloads);
	if (canary_runs(&reloads->canary) && reloads->canary.is_over && !reloads->running)
		promote(reloads);
}

void reloads_on_window_over(void *reloads)
{
	promote_if_due(reloads);
}

/* ---- what has come back ---- */

/* With what had to wait. */
static void go_on(struct reloads *reloads, struct config *now, bool serving)
{
	if (reloads->again && serving) {
		reloads->again = false;
		reloads_begin(reloads, now, reloads->again_policy);
	}
	refuse_next(reloads, STOPPING);
	promote_if_due(reloads);
}

/* False: it has ended instead. */
static bool apply_policy(struct reloads *reloads)
{
	int err = 0;
	for (unsigned i = 0; i < reloads->worker_count && reloads->policy != RELOAD_AS_CONFIGURED; i++)
		if (worker_set_policy(&reloads->workers[i], reloads->policy))
			err = UV_ENOMEM;
	if (!err)
		return true;
	log_write(LOG_ERROR, "reload failed: the policy does not hold everywhere",
		  F_TEXT("error", "not enough memory"), F_INT("generation", reloads->newest));
	reload_end(reloads, RELOAD_FAILED, "not enough memory");
	return false;
}

/*
 * Nothing has changed; what was asked for with it holds nevertheless: this is how an operator gets rid of connections
 * that an earlier reload has pinned.
 */
static void keep_serving(struct reloads *reloads, const struct config *now)
{
	bool had_canary = canary_runs(&reloads->canary);
	withdraw(reloads, "the script is again the one that is being served");
	if (!apply_policy(reloads))
		return;
	log_unchanged(reloads, now, reloads->newest);
	/* Another policy, or the end of a canary, makes the workers ask by itself. */
	reload_hand_over(reloads,
			 had_canary ? "nothing has changed; the canary was withdrawn" : "nothing has changed",
			 !had_canary && reloads->policy == RELOAD_AS_CONFIGURED);
}

/* The same for a canary, whose policy it becomes. What becomes of it, the canary decides. */
static void keep_trying(struct reloads *reloads)
{
	struct canary *canary = &reloads->canary;
	if (!apply_policy(reloads))
		return;
	if (reloads->policy != RELOAD_AS_CONFIGURED)
		canary->policy = reloads->policy;
	log_unchanged(reloads, canary->config, canary->first->number);
	reloads->on_joined(reloads->listener, reloads->number, canary->reload);
}

/* Sockets are opened and closed for the whole server, so half of it cannot have them. */
static bool wants_canary(const struct loading *loading)
{
	if (!(loading->next->canary_share > 0))
		return false;
	bool can = config_has_same_listeners(loading->now, loading->next);
	if (!can)
		log_write(LOG_WARN, "no canary: listeners come or go", F_INT("generation", loading->number));
	return can;
}

/* The generations go to their workers; the reload has not yet ended. */
static void hand_out(struct reloads *reloads, struct loading *loading)
{
	bool is_candidate = wants_canary(loading);
	withdraw(reloads, "a later reload supersedes it");
	reloads->running = true;
	reloads->missing = reloads->worker_count;
	reloads->numbered = loading->number;
	for (unsigned i = 0; i < reloads->worker_count; i++) {
		struct generation *generation = loading->generations[i];
		generation->is_candidate = is_candidate;
		generation_hold(generation);
		reloads_know(reloads, generation);
		worker_adopt(&reloads->workers[i], generation);
	}
	reloads->coming = is_candidate ? reloads->known : NULL;
	if (is_candidate)
		return;
	reloads->newest = loading->number;
	reloads->on_newest(reloads->listener, loading->next);
}

static void reload_discard(struct reloads *reloads, struct loading *loading)
{
	for (unsigned i = 0; i < reloads->worker_count; i++)
		if (loading->generations[i])
			loader_bury(&reloads->loader, loading->generations[i]);
	reload_end(reloads, RELOAD_REFUSED, STOPPING);
}

static void reload_take(struct reloads *reloads, struct loading *loading)
{
	const struct report *report = &loading->report;
	if (loading->no_room) {
		reload_refuse(reloads, loading->now);
	} else if (report->err) {
		log_failure(reloads, report);
		reload_end(reloads, RELOAD_FAILED, report->text);
	} else if (loading->unchanged) {
		keep_serving(reloads, loading->now);
	} else if (!loading->is_candidate) {
		hand_out(reloads, loading);
	} else if (canary_runs(&reloads->canary) && reloads->canary.config == loading->candidate) {
		keep_trying(reloads);
	} else {
		reload_load(reloads,
			    loading->now); /* it was withdrawn meanwhile, and so this is something new */
	}
}

void reloads_flip(struct reloads *reloads, struct report *report, bool serving)
{
	struct loading *loading = (struct loading *)(void *)report;
	if (loading != reloads->loading) {
		reloads->called_off--;
		loading_free(loading);
		return;
	}
	reloads->loading = NULL;
	reloads->running = false;
	if (serving)
		reload_take(reloads, loading);
	else
		reload_discard(reloads, loading);
	if (!reloads->running)
		go_on(reloads, loading->now, serving);
	loading_free(loading);
}

void reloads_reject(struct reloads *reloads, struct report *report)
{
	struct loading *loading = (struct loading *)(void *)report;
	report->err = UV_ECANCELED;
	for (unsigned i = 0; i < reloads->worker_count; i++)
		loader_bury(&reloads->loader, loading->generations[i]);
}

bool reloads_admit(struct reloads *reloads, struct report *report)
{
	struct loading *loading = (struct loading *)(void *)report;
	loading->no_room = !reload_has_room(reloads, loading->now);
	if (loading->no_room)
		reloads_reject(reloads, report);
	return !loading->no_room;
}

void reloads_adopted(struct reloads *reloads, struct config *now, bool serving)
{
	if (--reloads->missing)
		return;
	reloads->running = false;
	if (!reloads->coming) {
		log_success(reloads, now);
		reload_hand_over(reloads, "", false);
	} else if (serving) {
		canary_begin(&reloads->canary, reloads->coming, reloads->coming->config, reloads->number,
			     reloads->policy);
	} else {
		each_of(reloads, reloads->coming, mark_withdrawn);
		reload_end(reloads, RELOAD_REFUSED, STOPPING);
	}
	reloads->coming = NULL;
	go_on(reloads, now, serving);
}

void reloads_bury(struct reloads *reloads, struct report *report)
{
	struct generation *generation =
	    (struct generation *)(void *)((char *)report - offsetof(struct generation, retired));
	log_write(LOG_INFO, "generation retired", F_INT("generation", generation->number),
		  F_INT("worker", generation->worker),
		  F_INT("migrated", atomic_load(&generation->agents.migrated)),
		  F_INT("not_migrated", atomic_load(&generation->agents.not_migrated)));
	reload_forget(reloads, generation);
	loader_bury(&reloads->loader, generation);
}
