/*
 * Asks all workers what their scripts keep, for another process that is to take over (takeover.c).
 *
 * Threads: the main thread. A worker has its request until it has answered.
 */
#pragma once

#include "restart/kept.h"
#include "worker/mail.h"

struct snapshots;
struct worker;

/* How it reaches the server. */
struct snapshots_links {
	void *server;
	void (*post)(void *server,
		     struct report *report); /* it is delivered in the main thread; any thread */
	void (*collected)(void *server, struct snapshots *snapshots); /* all have answered */
};

/*
 * `most`: bytes of each. NULL: no memory, and nobody is asked. Else it calls collected(), unless it is called off
 * before.
 */
struct snapshots *snapshots_ask(struct worker *workers, unsigned count, size_t most,
				struct snapshots_links links);

/* Nobody wants them any more. They are gone when the last worker has answered, or will not. */
void snapshots_call_off(struct snapshots *snapshots);

/* The first worker that has not answered. */
unsigned snapshots_find_missing(const struct snapshots *snapshots);

/* ---- once they are collected ---- */

/* The report of the first that has failed; NULL: none has. */
const struct report *snapshots_find_failure(const struct snapshots *snapshots);

/* All of them, in place of `kept`, which is empty. False: no memory. */
bool snapshots_move(struct snapshots *snapshots, struct kept *kept);

void snapshots_free(struct snapshots *snapshots);
