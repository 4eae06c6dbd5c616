/*
 * The listeners of the process: those that the configuration has, and those that it has no more, while they have
 * connections. Each has a slot, a number that stays while its place in the configuration changes; connections know
 * theirs.
 *
 * Threads: the main thread. Others may look at the slots of connections that they have.
 */
#pragma once

#include "server/listener.h"

enum { LISTENER_SLOTS = 1024 };

struct listeners {
	struct listener *slots[LISTENER_SLOTS]; /* NULL: free */
};

/*
 * Makes the listeners of `config` that have no slot, bound and listening, and gives them one: all, or none. Sockets
 * that were inherited are taken; `inheritance` may be NULL. 0, or an error: each that failed is in the log, and the
 * first in `why`.
 */
int listeners_add(struct listeners *listeners, struct config *config, struct inheritance *inheritance,
		  char *why, size_t size);

/* Logs that the file of a Unix socket was gone, and that there is a new one, or (`why`) that there is none. */
void listeners_tell_lost(const char *address, const char *name, const char *why);

/* Takes back listeners_add(). */
void listeners_discard(struct listeners *listeners, struct config *config);

/* Frees those that have gone, with their last connection and their last event. */
void listeners_sweep(struct listeners *listeners);

/* Closes and frees all. No thread may have a connection of theirs. */
void listeners_free(struct listeners *listeners);
