/*
 * Notices changes of the files that a generation is made of: of the Lua files in the app's folder and below it.
 *
 * Folders are watched and not files, which editors replace rather than write. What happens in quick succession is
 * one change.
 *
 * Threads: the main thread.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

struct watched_folder;

struct watch {
	uv_loop_t *loop; /* NULL: nothing is being watched */
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
void watch_open(struct watch *watch, uv_loop_t *loop, const char *script, void (*changed)(void *data),
		void *data);

/* As if something had changed just now. */
void watch_suspect(struct watch *watch);

/* May be called on one that was never opened, all zero. */
void watch_close(struct watch *watch);
