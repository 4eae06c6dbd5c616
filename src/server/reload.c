#include "server/reload.h"

#include "base/log.h"
#include "config/config.h"
#include "config/sources.h"
#include "server/worker.h"

#include <stddef.h>

int reloads_open(struct reloads *reloads, struct worker *workers, unsigned worker_count, void *server,
		 void (*report)(void *server, struct report *report))
{
	*reloads = (struct reloads){ .workers = workers, .worker_count = worker_count, .newest = 1 };
	return loader_start(&reloads->loader, server, report);
}

void reloads_close(struct reloads *reloads)
{
	loader_stop(&reloads->loader);
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

void reloads_begin(struct reloads *reloads, struct config *now)
{
	if (reloads->running) {
		reloads->again = true;
		return;
	}
	unsigned old = old_generations(reloads);
	if (old >= now->reload_keep) {
		log_write(LOG_WARN,
			  "reload refused: too many old generations have connections (reload.keep); "
			  "wait for them to end, or restart",
			  F_INT("generation", reloads->newest), F_INT("old_generations", old),
			  F_INT("keep", now->reload_keep));
		return;
	}
	struct loading *loading =
	    loading_new(reloads->workers, reloads->worker_count, now, reloads->newest + 1);
	if (!loading) {
		log_write(LOG_ERROR, "reload failed: the old generation serves on",
			  F_TEXT("error", "not enough memory"), F_INT("generation", reloads->newest));
		return;
	}
	reloads->running = true;
	loader_load(&reloads->loader, loading);
}

static void log_failure(const struct reloads *reloads, const struct report *report)
{
	log_write(LOG_ERROR, "reload failed: the old generation serves on",
		  F_INT("generation", reloads->newest), F_INT("worker", report->worker),
		  F_TEXT("excerpt", report->text));
}

static void log_success(const struct reloads *reloads, const struct config *config, bool unchanged)
{
	const char *message = unchanged ? "reload: nothing has changed" : "reloaded";
	log_write(LOG_INFO, message, F_TEXT("script", config->script), F_INT("generation", reloads->newest),
		  F_TEXT("key", config->sources->key_text));
	if (*config->sources->cut && !unchanged)
		log_write(LOG_WARN, "not all of the app's folder was read",
			  F_TEXT("reason", config->sources->cut));
}

struct config *reloads_finish(struct reloads *reloads, struct report *report, bool serving)
{
	struct loading *loading = (struct loading *)(void *)report;
	struct config *next = NULL, *now = loading->now;
	bool loaded = !report->err && !loading->unchanged;
	reloads->running = false;
	if (report->err && serving)
		log_failure(reloads, report);
	if (loading->unchanged && serving)
		log_success(reloads, now, true);
	for (unsigned i = 0; loaded && i < reloads->worker_count; i++) {
		if (serving)
			worker_adopt(&reloads->workers[i], loading->generations[i]);
		else
			loader_bury(&reloads->loader, loading->generations[i]);
	}
	if (loaded && serving) {
		reloads->newest = loading->number;
		next = loading->next;
		config_hold(next);
		log_success(reloads, next, false);
	}
	bool again = reloads->again && serving;
	reloads->again = false;
	if (again)
		reloads_begin(reloads, next ? next : now);
	loading_free(loading);
	return next;
}

void reloads_bury(struct reloads *reloads, struct report *report)
{
	struct generation *generation =
	    (struct generation *)(void *)((char *)report - offsetof(struct generation, retired));
	log_write(LOG_INFO, "generation retired", F_INT("generation", generation->agents.generation),
		  F_INT("worker", generation->worker));
	loader_bury(&reloads->loader, generation);
}
