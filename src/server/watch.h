/*
 * Notices changes of the files that a generation is made of: of the Lua files in the app's folder and below it.
 *
 * Folders are watched and not files, which editors replace rather than write. What happens in quick succession is
 * one change.
 *
 * Threads: the main thread.
 */
#pragma once

#include "loop/reactor.h"

#include <stdbool.h>
#include <stdint.h>

struct watched_folder;

struct watch {
	struct reactor *reactor; /* NULL: nothing is being watched */
	struct watched inotify;
	uv_timer_t settle;
	uint64_t began_ms; /* the first event that was not yet told */
	bool moved;        /* folders came or went: they are to be watched anew */
	bool lost;         /* the app's folder itself is not there */
	const char *script;
	struct watched_folder *folders;
	unsigned count;
	void (*changed)(void *data);
	void *data;
};

/* Says in the log what is watched, or why not all is. `script` is the caller's. */
void watch_open(struct watch *watch, struct reactor *reactor, const char *script, void (*changed)(void *data),
		void *data);

/* As if something had changed just now. */
void watch_suspect(struct watch *watch);

/* May be called on one that was never opened, all zero. */
void watch_close(struct watch *watch);
