/*
 * Reloads: a new generation of the script takes the new connections, if it can be loaded for all workers;
 * otherwise nothing changes. Those there are keep theirs until they end.
 *
 * Threads: the main thread. The loading itself is the loader's.
 */
#pragma once

#include "server/loader.h"

struct reloads {
	struct loader loader;
	struct worker *workers;
	unsigned worker_count;
	uint32_t newest; /* number of the generation that was loaded last */
	bool running;    /* a loading is under way */
	bool again;      /* and was asked for once more meanwhile: the files may have changed since */
};

/* 0 or an error. */
int reloads_open(struct reloads *reloads, struct worker *workers, unsigned worker_count, void *server,
		 void (*report)(void *server, struct report *report));

/* None may be running. */
void reloads_close(struct reloads *reloads);

/* Begins one, or says in the log why not. One at a time; asked for meanwhile, it is done again. */
void reloads_begin(struct reloads *reloads, struct config *now);

/*
 * A loading has come back. `serving`: is it still wanted? Then its generations go to the workers, and the result is the
 * configuration from now on, held; NULL: nothing has changed, and the log says why.
 */
struct config *reloads_finish(struct reloads *reloads, struct report *report, bool serving);

/* A generation has come back from its worker. */
void reloads_bury(struct reloads *reloads, struct report *report);
