/*
 * A trace's file, for --record: written by the pool of threads for files, so that a slow disk holds up nobody.
 *
 * Threads: the main thread.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

struct trace_file {
	uv_loop_t *loop;
	uv_file fd; /* -1: there is none */
	uv_fs_t write;
	char *bytes; /* on their way; NULL: none are */
	size_t n, at;
	int64_t whole; /* bytes of it that are whole lines */
	bool is_over;  /* closed once nothing is on its way */
	void *owner;
	/* What was given has been written, or (an error) has not, and nothing will be any more. */
	void (*written)(void *owner, int err);
};

/*
 * Makes the file, for its owner alone. `force`: one that is there is overwritten. 0 or an error, explained. Owner and
 * callback are set.
 */
int trace_file_open(struct trace_file *file, uv_loop_t *loop, const char *path, bool force, char *why,
		    size_t size);

/* As struct recorder_sink has them. */
bool trace_file_keep(void *file, char *bytes, size_t n);
void trace_file_end(void *file);
