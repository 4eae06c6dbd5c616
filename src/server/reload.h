/*
 * Reloads: a new generation of the script takes the new connections, if it can be loaded for all workers;
 * otherwise nothing changes. Those there are keep theirs until they end. It is done once all workers have adopted it;
 * one whose script wants a canary, once that has been promoted or withdrawn. Its outcome is told when, in addition, all
 * connections have been asked that were to migrate.
 *
 * The way of one: reloads_begin() mails the loader, which reads the script set. If that differs from the one that is
 * served, the loader checks the script and makes a generation for each worker, or none. Listeners that are new are
 * opened, those that are no more are closed, and then the workers are told: so the order of a worker's orders says
 * which generation a client is for (acceptor.h). Each worker reports it as adopted. A canary is first adopted as a
 * candidate, for the connections that the acceptor gives to it; reloads_look() counts how many of them have failed.
 *
 * Threads: the main thread. The loading itself is the loader's.
 */
#pragma once

#include "server/canary.h"
#include "server/loader.h"
#include "worker/handover.h"

/* WITHDRAWN: it was a canary, and it stayed one. */
enum reload_end { RELOAD_DONE, RELOAD_FAILED, RELOAD_REFUSED, RELOAD_WITHDRAWN };

/* How a reload ended. */
struct reload_outcome {
	uint64_t number; /* of the reload, from 1; 0: there has been none */
	enum reload_end end;
	uint32_t generation;        /* that served when it had been loaded, or was not */
	int64_t time_ms;            /* by the wall clock */
	enum reload_policy policy;  /* that was asked for; RELOAD_AS_CONFIGURED: none was */
	struct takeovers takeovers; /* when it is done: what became of connections that were to migrate */
	unsigned waiting;           /* ... and how many agents wait, and follow when they are done */
	char text[4096];            /* why, with the excerpt; "" when it is done */
};

struct reloads {
	struct loader loader;
	struct worker *workers;
	unsigned worker_count;
	uint32_t newest;   /* number of the generation that serves */
	uint32_t numbered; /* ... that was numbered last: a canary may be, or may have been, newer */
	bool
	    running; /* one has begun, and has not come to its end, or so far that it is a canary or a handover */
	unsigned missing; /* workers that have yet to adopt what was loaded; 0: it is still being loaded */
	struct loading *loading;   /* that it is, until it comes back or is called off; or NULL */
	unsigned called_off;       /* loadings that were, and have yet to come back */
	struct generation *coming; /* what they adopt, if that is to be a canary (as its `first`); or NULL */
	uint64_t number;           /* of the one that runs, or ran last */
	enum reload_policy policy; /* that it was asked for with */
	bool again; /* it was asked for once more meanwhile: the files may have changed since */
	enum reload_policy again_policy; /* ... by whoever asked last */
	uint64_t begun;                  /* how many reloads there have been, the running one included */
	struct canary canary;
	struct reload_outcome last; /* of those that have ended, the one that began last */
	struct handover *handovers; /* of reloads that are done but for connections that migrate */
	/* Those that serve or have connections still, held: the newest first, one a worker each. */
	struct generation *known;

	/* Is told of each outcome as it comes; may be NULL. It must not begin another. */
	void *listener;
	void (*on_outcome)(void *listener, const struct reload_outcome *outcome);
	/* One has found its script on trial: its outcome will be that of the reload whose canary that is. */
	void (*on_joined)(void *listener, uint64_t number, uint64_t canarys);
	/* The configuration from now on; lent. */
	void (*on_newest)(void *listener, struct config *config);
};

/* 0 or an error. */
int reloads_open(struct reloads *reloads, struct worker *workers, unsigned worker_count,
		 struct loader_links links);

/* None may be running, and none may begin after this. the loader reports when all old generations have been buried. */
void reloads_finish(struct reloads *reloads);

/* After that report. */
void reloads_close(struct reloads *reloads);

/*
 * Begins one, or says in the log why not. One at a time; asked for meanwhile, it is done again, with the policy of
 * whoever asked last. The policy is for the connections that older generations have, instead of the new script's;
 * where nothing has changed, it takes effect all the same. Returns the number that its outcome will have, or has.
 */
uint64_t reloads_begin(struct reloads *reloads, struct config *now, enum reload_policy policy);

/*
 * None is wanted any more, `why` says why: the script that is being loaded for one is ended, and the reload that was to
 * follow does not begin. One that only waits for workers goes on. Idempotent.
 */
void reloads_call_off(struct reloads *reloads, const char *why);

/*
 * Is the script being loaded, or will it be? If not, one that is running only waits for workers, which have all they
 * need.
 */
bool reloads_is_loading(const struct reloads *reloads);

/* A loading that went well cannot be served after all: why not, in report->text. Before reloads_flip(). */
void reloads_reject(struct reloads *reloads, struct report *report);

/*
 * May what was loaded become a generation, for all that reload.keep says? False: it is rejected, and will be told as
 * refused. Before reloads_flip().
 */
bool reloads_admit(struct reloads *reloads, struct report *report);

/*
 * A loading has come back. `serving`: is it still wanted? Then its generations go to the workers, as the newest or to
 * be a canary; or nothing has changed, the reload has ended, and the log says why.
 */
void reloads_flip(struct reloads *reloads, struct report *report, bool serving);

/*
 * A generation is adopted. With the last of them the reload has ended, or its canary begins; `now` is the
 * configuration that is being served.
 */
void reloads_adopted(struct reloads *reloads, struct config *now, bool serving);

/* A part is handed over. With the last of a reload its outcome is known. */
void reloads_handed_over(struct reloads *reloads, struct report *report);

/* The canary, if one runs, is withdrawn if too many of its connections have failed. Often. */
void reloads_look(struct reloads *reloads);

/* Its time is over: for canary_open(). */
void reloads_on_window_over(void *reloads);

/* None are wanted any more: a canary is one no more, and who waits for it is told why. Idempotent. */
void reloads_stop(struct reloads *reloads, const char *why);

/* Lists a worker's generation, and takes over a hold on it. */
void reloads_know(struct reloads *reloads, struct generation *generation);

/* A generation has come back from its worker. */
void reloads_bury(struct reloads *reloads, struct report *report);
