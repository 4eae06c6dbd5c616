/*
 * Loads new generations of the script, and buries old ones, in a thread of its own: what a script's top level does
 * with its time, or the end of a large heap, is nothing that connections wait for.
 *
 * Threads: the main thread gives the work and is told by mail.
 */
#pragma once

#include "config/config.h"
#include "worker/generation.h"
#include "worker/mail.h"

#include <stdatomic.h>
#include <sys/types.h>
#include <uv.h>

struct worker;

/* Whose word comes first holds: the loader's that it has loaded, or the main thread's that it is not wanted. */
enum loading_stage { LOADING_RUNS, LOADING_IS_OFF, LOADING_IS_DONE };

/* One attempt to load a generation for all workers. */
struct loading {
	struct report report; /* first; report.err and report.text say why it failed */
	struct chore chore;
	atomic_int stage; /* enum loading_stage */
	/* Of the worker that is being asked what its script keeps: see ask() in loader.c. */
	struct snapshot_request request;
	uv_mutex_t lock; /* of what follows, and of giving the request */
	uv_cond_t heard; /* the answer, or that it is called off */
	bool has_answer;
	uint32_t number;
	struct worker *workers;
	unsigned worker_count;
	enum reload_policy policy; /* instead of what the script says; RELOAD_AS_CONFIGURED: none is */
	struct config *now;        /* what is being served; held */
	struct config *candidate;  /* what is being tried as a canary; held, or NULL */
	struct config *next;       /* held; NULL: there was no memory */
	bool unchanged;            /* the script set is the one being served: nothing was loaded */
	bool is_candidate;         /* it is the candidate's: likewise */
	bool no_room;              /* reload.keep refuses it: the main thread's */
	struct generation
	    *generations[]; /* one a worker, newly loaded and left by the loader's thread; or NULL */
};

/* How it reaches the server, and what becomes of its reports, in the main thread. */
struct loader_links {
	void *server;
	void (*post)(void *server, struct report *report);
	void (*loaded)(void *server,
		       struct report *report); /* part of a loading, which is the server's again */
	void (*buried)(void *server, struct report *report); /* all that it was given, and no more comes */
};

struct loader {
	uv_thread_t thread;
	_Atomic pid_t tid; /* of the thread; 0: it has not begun */
	uv_sem_t work;
	struct mailbox mailbox;
	struct chore stop;
	struct report last_words;
	struct loader_links links;
	/* The thread's own: generations to close, the oldest first, for when there is nothing to load. */
	struct mail *first_burial, **last_burial;
	bool stopping;
	struct burials burials; /* those that the stop waits for: the thread's from then on */
};

/* 0 or an error. */
int loader_start(struct loader *loader, struct loader_links links);

/* Loads; `loading` comes back with the report, and is to be freed with loading_free(). */
void loader_load(struct loader *loader, struct loading *loading);

/*
 * Ends a loading, wherever the script is in its top level or its setup(). True: nothing will have come of it when it
 * comes back, with UV_ECANCELED. False: it has been loaded, and its report is under way. Any thread.
 */
bool loading_call_off(struct loading *loading);

/* Closes a generation that has left its thread, once there is nothing to load. */
void loader_bury(struct loader *loader, struct generation *generation);

/*
 * Ends the thread once what is under way is done and what there is is buried, which may take VM_TEARDOWN_MS in all;
 * then it reports that. Once, and the last that it is given.
 */
void loader_stop(struct loader *loader);

/* After that report. */
void loader_join(struct loader *loader);

/*
 * As RELOAD_AS_CONFIGURED. NULL: no memory. Generations that were not taken out of it (set to NULL) must have been
 * given away by then.
 */
struct loading *loading_new(struct worker *workers, unsigned worker_count, struct config *now,
			    uint32_t number);
void loading_free(struct loading *loading);
