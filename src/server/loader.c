#include "server/loader.h"

#include "base/thread.h"
#include "base/thread_state.h"
#include "config/sources.h"
#include "config/tls.h"
#include "worker/worker.h"

#include <stdio.h>
#include <stdlib.h>

#define CALLED_OFF "called off"

/* ---- loading ---- */

static void loader_fail(struct loading *loading, int err, const char *why)
{
	loading->report.err = err;
	snprintf(loading->report.text, sizeof loading->report.text, "%s", why);
}

/* The script set as it is now. False: explained, or it is the one that is being served. */
static bool read_sources(struct loading *loading)
{
	loading->next = config_again(loading->now);
	if (!loading->next || config_read(loading->next)) {
		loader_fail(loading, UV_ENOMEM, "not enough memory");
		return false;
	}
	uint64_t key = loading->next->sources->key;
	loading->unchanged = key == loading->now->sources->key && !config_tls_is_outdated(loading->now);
	loading->is_candidate = loading->candidate && key == loading->candidate->sources->key &&
				!config_tls_is_outdated(loading->candidate);
	return !loading->unchanged && !loading->is_candidate;
}

/* The script as it is now, for all workers to share. False: explained. */
static bool load_config(struct loading *loading)
{
	char *text = NULL, what[256];
	enum config_status status = config_load(loading->next, NULL, &text);
	if (status != CONFIG_OK)
		loader_fail(loading, status == CONFIG_BAD || status == CONFIG_USAGE ? UV_EINVAL : UV_ENOMEM,
			    text ? text : "not enough memory");
	free(text);
	if (status != CONFIG_OK)
		return false;
	config_warn(loading->next);
	config_follow(loading->now, loading->next);
	if (!config_needs_restart(loading->now, loading->next, what, sizeof what))
		return true;
	char why[512];
	snprintf(why, sizeof why, "these settings cannot change without a restart: %s", what);
	loader_fail(loading, UV_ENOTSUP, why);
	return false;
}

static void put_burial(struct loader *loader, struct chore *chore)
{
	chore->mail.next = NULL;
	*loader->last_burial = &chore->mail;
	loader->last_burial = &chore->mail.next;
}

static void loader_discard(struct loader *loader, struct loading *loading)
{
	for (unsigned i = 0; i < loading->worker_count; i++) {
		if (loading->generations[i])
			put_burial(loader, &loading->generations[i]->burial);
		loading->generations[i] = NULL;
	}
}

static bool is_off(struct loading *loading)
{
	return atomic_load(&loading->stage) == LOADING_IS_OFF;
}

/* ---- what the workers keep ---- */

struct worker_source {
	struct snapshot_source source; /* first */
	struct loading *loading;
	struct worker *worker;
};

/* In the worker's thread. */
static void on_worker_answered(struct snapshot_request *request)
{
	struct loading *loading = request->owner;
	uv_mutex_lock(&loading->lock);
	loading->has_answer = true;
	uv_cond_signal(&loading->heard);
	uv_mutex_unlock(&loading->lock);
}

/*
 * Until the worker has answered, or has not begun when the loading is called off: whoever does that may stop the worker
 * then, and so a request is given under the lock that he needs as well. False: called off, and there is no answer.
 */
static bool ask(struct loading *loading, struct worker *worker)
{
	struct snapshot_request *request = &loading->request;
	uv_mutex_lock(&loading->lock);
	bool is_taken = is_off(loading);
	if (!is_taken) {
		loading->has_answer = false;
		*request = (struct snapshot_request){ .most = loading->next->snapshot_bytes,
						      .answered = on_worker_answered,
						      .owner = loading };
		worker_ask_snapshot(worker, request);
	}
	while (!is_taken && !loading->has_answer) {
		uv_cond_wait(&loading->heard, &loading->lock);
		is_taken =
		    !loading->has_answer && is_off(loading) && worker_take_request_back(worker, request);
	}
	uv_mutex_unlock(&loading->lock);
	return !is_taken;
}

static int take_from_worker(struct snapshot_source *source, struct snapshot *snapshot, char *why, size_t size)
{
	struct worker_source *from = (struct worker_source *)(void *)source;
	struct snapshot_request *request = &from->loading->request;
	if (!ask(from->loading, from->worker)) {
		snprintf(why, size, CALLED_OFF);
		return UV_ECANCELED;
	}
	snprintf(why, size, "%s", request->report.text);
	*snapshot = request->snapshot;
	return request->report.err;
}

/* For all workers, or for none. */
static void load_all(struct loader *loader, struct loading *loading)
{
	struct report *report = &loading->report;
	if (!read_sources(loading) || is_off(loading) || !load_config(loading))
		return;
	for (unsigned i = 0; i < loading->worker_count; i++) {
		struct worker *worker = &loading->workers[i];
		if (is_off(loading))
			return;
		struct worker_source kept = { { take_from_worker }, loading, worker };
		struct generation *generation =
		    generation_open(&worker->host, loading->next, i, loading->number, &worker->counters,
				    loading->now->has_snapshot ? &kept.source : NULL, &report->err,
				    report->text, sizeof report->text);
		if (!generation) {
			report->worker = i;
			loader_discard(loader, loading);
			return;
		}
		if (loading->policy != RELOAD_AS_CONFIGURED)
			agents_set_policy(&generation->agents, loading->policy);
		generation_leave(generation);
		loading->generations[i] = generation;
	}
}

/* Its calls into Lua end when it is called off. */
static void load(struct loader *loader, struct loading *loading)
{
	guard_call_off_by(&loading->stage);
	load_all(loader, loading);
	guard_call_off_by(NULL);
	int runs = LOADING_RUNS;
	if (atomic_compare_exchange_strong(&loading->stage, &runs, LOADING_IS_DONE))
		return;
	loader_discard(loader, loading);
	loader_fail(loading, UV_ECANCELED, CALLED_OFF);
}

bool loading_call_off(struct loading *loading)
{
	int runs = LOADING_RUNS;
	bool is_off = atomic_compare_exchange_strong(&loading->stage, &runs, LOADING_IS_OFF);
	if (is_off) {
		guard_look();
		uv_mutex_lock(&loading->lock);
		uv_cond_signal(&loading->heard);
		uv_mutex_unlock(&loading->lock);
	}
	return is_off;
}

/* ---- the thread ---- */

static void loader_report(struct loader *loader, struct report *report,
			  void (*deliver)(void *server, struct report *report))
{
	report->deliver = deliver;
	loader->links.post(loader->links.server, report);
}

static void do_load(struct loader *loader, struct chore *chore)
{
	struct loading *loading = (struct loading *)(void *)((char *)chore - offsetof(struct loading, chore));
	load(loader, loading);
	loader_report(loader, &loading->report, loader->links.loaded);
}

static void loader_do_stop(struct loader *loader, struct chore *chore)
{
	(void)chore;
	loader->stopping = true;
}

static void do_mail(struct loader *loader)
{
	struct mail *next, *mail = mailbox_take(&loader->mailbox);
	for (; mail; mail = next) {
		struct chore *chore = (struct chore *)(void *)mail;
		next = mail->next;
		chore->deliver(loader, chore);
	}
}

static void bury(struct loader *loader)
{
	struct chore *chore = (struct chore *)(void *)loader->first_burial;
	struct generation *generation =
	    (struct generation *)(void *)((char *)chore - offsetof(struct generation, burial));
	loader->first_burial = chore->mail.next;
	if (!loader->first_burial)
		loader->last_burial = &loader->first_burial;
	if (loader->stopping)
		burials_close(&loader->burials, generation);
	else
		generation_close(generation);
}

/* Somebody waits for a loading, and nobody for a burial: the mail is read before each of those. */
static void loader_run(void *data)
{
	struct loader *loader = data;
	atomic_store_explicit(&loader->tid, thread_self(), memory_order_relaxed);
	while (!loader->stopping || loader->first_burial) {
		if (!loader->first_burial)
			uv_sem_wait(&loader->work);
		do_mail(loader);
		if (loader->first_burial)
			bury(loader);
	}
	burials_end(&loader->burials);
	loader_report(loader, &loader->last_words, loader->links.buried);
}

static void post(struct loader *loader, struct chore *chore, void (*deliver)(struct loader *, struct chore *))
{
	chore->deliver = deliver;
	mailbox_push(&loader->mailbox, &chore->mail);
	uv_sem_post(&loader->work);
}

int loader_start(struct loader *loader, struct loader_links links)
{
	*loader = (struct loader){ .links = links };
	loader->last_burial = &loader->first_burial;
	mailbox_init(&loader->mailbox);
	int err = uv_sem_init(&loader->work, 0);
	if (err)
		return err;
	err = thread_start(&loader->thread, THREAD_LUA_BYTES, loader_run,
			   loader); /* a script is loaded there */
	if (err)
		uv_sem_destroy(&loader->work);
	return err;
}

void loader_load(struct loader *loader, struct loading *loading)
{
	post(loader, &loading->chore, do_load);
}

void loader_bury(struct loader *loader, struct generation *generation)
{
	post(loader, &generation->burial, put_burial);
}

void loader_stop(struct loader *loader)
{
	burials_begin(&loader->burials); /* what is under way counts as well; not read before the mail */
	post(loader, &loader->stop, loader_do_stop);
}

void loader_join(struct loader *loader)
{
	uv_thread_join(&loader->thread);
	uv_sem_destroy(&loader->work);
}

/* ---- a loading ---- */

struct loading *loading_new(struct worker *workers, unsigned worker_count, struct config *now,
			    uint32_t number)
{
	struct loading *loading = calloc(1, sizeof *loading + worker_count * sizeof *loading->generations);
	if (!loading)
		return NULL;
	if (uv_mutex_init(&loading->lock))
		goto free_loading;
	if (uv_cond_init(&loading->heard))
		goto destroy_lock;
	loading->workers = workers;
	loading->worker_count = worker_count;
	loading->now = now;
	loading->number = number;
	loading->policy = RELOAD_AS_CONFIGURED;
	atomic_init(&loading->stage, LOADING_RUNS);
	config_hold(now);
	return loading;
destroy_lock:
	uv_mutex_destroy(&loading->lock);
free_loading:
	free(loading);
	return NULL;
}

void loading_free(struct loading *loading)
{
	config_drop(loading->now);
	if (loading->candidate)
		config_drop(loading->candidate);
	if (loading->next)
		config_drop(loading->next);
	uv_cond_destroy(&loading->heard);
	uv_mutex_destroy(&loading->lock);
	free(loading);
}
