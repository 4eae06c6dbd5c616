/*
 * A trace's file, for --record: written by a thread of its own, so that a slow disk holds up nobody. It is started
 * before anybody is served; libuv's pool of threads, made when it is first used, would end the process where it cannot
 * be.
 *
 * Threads: the main thread, but for write_all().
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

enum trace_file_stage {
	TRACE_FILE_NONE,
	TRACE_FILE_OPEN,
	TRACE_FILE_WHOLE,  /* closed, with all that it was given */
	TRACE_FILE_FAILED, /* closed, or left behind, without */
};

struct trace_file {
	enum trace_file_stage stage;
	int fd;
	uv_thread_t thread;
	uv_sem_t work; /* there are bytes, or it is over */
	uv_async_t done;
	char *bytes; /* on their way: the thread's; NULL: none are */
	size_t n;
	int err;             /* what came of them */
	int64_t whole;       /* bytes of it that are whole lines */
	atomic_bool is_done; /* the thread is through with `bytes`: they are the main thread's again */
	bool is_over;        /* closed once nothing is on its way */
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

/* The server ends: what is on its way now is left to its fate. Idempotent, and fine for one that was never opened. */
void trace_file_abandon(struct trace_file *file);
