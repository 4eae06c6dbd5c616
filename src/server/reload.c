#include "server/reload.h"

#include "base/log.h"
#include "config/config.h"
#include "config/sources.h"
#include "server/worker.h"

#include <stddef.h>
#include <stdio.h>
#include <uv.h>

#define TOO_MANY_OLD                                                                      \
	"too many old generations have connections (reload.keep); wait for them to end, " \
	"reload with --policy drain, or restart"
#define STOPPING "the server is stopping"

int reloads_open(struct reloads *reloads, struct worker *workers, unsigned worker_count, void *server,
		 void (*report)(void *server, struct report *report))
{
	*reloads = (struct reloads){
		.workers = workers, .worker_count = worker_count, .newest = 1, .policy = RELOAD_AS_CONFIGURED
	};
	return loader_start(&reloads->loader, server, report);
}

/* Old generations with connections, in the worker that has most of them. */
static unsigned old_generations(const struct reloads *reloads)
{
	unsigned most = 1;
	for (unsigned i = 0; i < reloads->worker_count; i++) {
		unsigned n = atomic_load_explicit(&reloads->workers[i].generations, memory_order_relaxed);
		most = n > most ? n : most;
	}
	return most - 1;
}

static int64_t wall_ms(void)
{
	uv_timeval64_t now;
	return uv_gettimeofday(&now) ? 0 : now.tv_sec * 1000 + now.tv_usec / 1000;
}

/* The reload that was begun last has come to its end. */
static void end(struct reloads *reloads, enum reload_end how, const char *why)
{
	struct reload_outcome *last = &reloads->last;
	last->number = reloads->begun;
	last->end = how;
	last->generation = reloads->newest;
	last->time_ms = wall_ms();
	last->policy = reloads->policy;
	snprintf(last->text, sizeof last->text, "%s", why);
	if (reloads->on_outcome)
		reloads->on_outcome(reloads->listener, last);
}

void reloads_know(struct reloads *reloads, struct generation *generation)
{
	generation->known_since_ms = wall_ms();
	generation->next_known = reloads->known;
	reloads->known = generation;
}

static void forget(struct reloads *reloads, struct generation *generation)
{
	struct generation **link = &reloads->known;
	while (*link && *link != generation)
		link = &(*link)->next_known;
	if (!*link)
		return;
	*link = generation->next_known;
	generation_drop(generation);
}

void reloads_close(struct reloads *reloads)
{
	loader_stop(&reloads->loader);
	while (reloads->known)
		forget(reloads, reloads->known);
}

/* A drain makes room, as reload.when_full = "drain" does; migrating may fail. */
static bool has_room(const struct config *now, unsigned old, enum reload_policy policy)
{
	return old < now->reload_keep || now->reload_drains_old || policy == RELOAD_DRAIN;
}

uint64_t reloads_begin(struct reloads *reloads, struct config *now, enum reload_policy policy)
{
	if (reloads->running) {
		reloads->again = true;
		reloads->again_policy = policy;
		return reloads->begun + 1;
	}
	reloads->begun++;
	reloads->policy = policy;
	unsigned old = old_generations(reloads);
	if (!has_room(now, old, policy)) {
		log_write(LOG_WARN, "reload refused: " TOO_MANY_OLD, F_INT("generation", reloads->newest),
			  F_INT("old_generations", old), F_INT("keep", now->reload_keep));
		end(reloads, RELOAD_REFUSED, TOO_MANY_OLD);
		return reloads->begun;
	}
	struct loading *loading =
	    loading_new(reloads->workers, reloads->worker_count, now, reloads->newest + 1);
	if (!loading) {
		log_write(LOG_ERROR, "reload failed: the old generation serves on",
			  F_TEXT("error", "not enough memory"), F_INT("generation", reloads->newest));
		end(reloads, RELOAD_FAILED, "not enough memory");
		return reloads->begun;
	}
	loading->policy = policy;
	reloads->running = true;
	loader_load(&reloads->loader, loading);
	return reloads->begun;
}

static void log_failure(const struct reloads *reloads, const struct report *report)
{
	log_write(LOG_ERROR, "reload failed: the old generation serves on",
		  F_INT("generation", reloads->newest), F_INT("worker", report->worker),
		  F_TEXT("excerpt", report->text));
}

/* With what was asked for meanwhile. */
static void go_on(struct reloads *reloads, struct config *now, bool serving)
{
	bool again = reloads->again;
	reloads->again = false;
	if (again && serving) {
		reloads_begin(reloads, now, reloads->again_policy);
	} else if (again) {
		reloads->begun++;
		reloads->policy = reloads->again_policy;
		end(reloads, RELOAD_REFUSED, STOPPING);
	}
}

/* "": the script's. */
static const char *name_of(enum reload_policy policy)
{
	return policy == RELOAD_AS_CONFIGURED ? "" : RELOAD_POLICY_NAMES[policy];
}

static void log_success(const struct reloads *reloads, const struct config *config, bool unchanged)
{
	const char *message = unchanged ? "reload: nothing has changed" : "reloaded";
	log_write(LOG_INFO, message, F_TEXT("script", config->script), F_INT("generation", reloads->newest),
		  F_TEXT("key", config->sources->key_text), F_TEXT("policy", name_of(reloads->policy)));
	if (*config->sources->cut && !unchanged)
		log_write(LOG_WARN, "not all of the app's folder was read",
			  F_TEXT("reason", config->sources->cut));
}

/*
 * Nothing has changed; what was asked for with it holds nevertheless: this is how an operator gets rid of connections
 * that an earlier reload has pinned.
 */
static void keep_serving(struct reloads *reloads, const struct loading *loading)
{
	int err = 0;
	for (unsigned i = 0; i < reloads->worker_count && loading->policy != RELOAD_AS_CONFIGURED; i++)
		if (worker_set_policy(&reloads->workers[i], loading->policy))
			err = UV_ENOMEM;
	if (err) {
		log_write(LOG_ERROR, "reload failed: the policy does not hold everywhere",
			  F_TEXT("error", "not enough memory"), F_INT("generation", reloads->newest));
		end(reloads, RELOAD_FAILED, "not enough memory");
		return;
	}
	log_success(reloads, loading->now, true);
	end(reloads, RELOAD_DONE, "nothing has changed");
}

bool reloads_is_loading(const struct reloads *reloads)
{
	return reloads->running && (!reloads->missing || reloads->again);
}

void reloads_adopted(struct reloads *reloads, struct config *now, bool serving)
{
	if (--reloads->missing)
		return;
	reloads->running = false;
	log_success(reloads, now, false);
	end(reloads, RELOAD_DONE, "");
	go_on(reloads, now, serving);
}

struct config *reloads_flip(struct reloads *reloads, struct report *report, bool serving)
{
	struct loading *loading = (struct loading *)(void *)report;
	struct config *next = NULL, *now = loading->now;
	bool loaded = !report->err && !loading->unchanged;
	bool flips = loaded && serving;
	reloads->running = flips;
	if (report->err && serving)
		log_failure(reloads, report);
	for (unsigned i = 0; loaded && i < reloads->worker_count; i++) {
		if (serving) {
			generation_hold(loading->generations[i]);
			reloads_know(reloads, loading->generations[i]);
			worker_adopt(&reloads->workers[i], loading->generations[i]);
		} else {
			loader_bury(&reloads->loader, loading->generations[i]);
		}
	}
	if (flips) {
		reloads->newest = loading->number;
		reloads->missing = reloads->worker_count;
		next = loading->next;
		config_hold(next);
	} else if (!serving) {
		end(reloads, RELOAD_REFUSED, STOPPING);
	} else if (report->err) {
		end(reloads, RELOAD_FAILED, report->text);
	} else {
		keep_serving(reloads, loading);
	}
	if (!flips)
		go_on(reloads, now, serving);
	loading_free(loading);
	return next;
}

void reloads_bury(struct reloads *reloads, struct report *report)
{
	struct generation *generation =
	    (struct generation *)(void *)((char *)report - offsetof(struct generation, retired));
	log_write(LOG_INFO, "generation retired", F_INT("generation", generation->agents.generation),
		  F_INT("worker", generation->worker), F_INT("migrated", generation->agents.migrated),
		  F_INT("not_migrated", generation->agents.not_migrated));
	forget(reloads, generation);
	loader_bury(&reloads->loader, generation);
}
