/*
 * Threads whose stacks have a size of ours, whatever `ulimit -s` says: that is what a thread gets otherwise.
 *
 * Leaf. Any thread.
 */
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>

enum {
	THREAD_BYTES = 512 << 10,    /* of one that runs nothing but our own code */
	THREAD_LUA_BYTES = 64 << 20, /* deep Lua recursion through C ends in an error, not in a signal */
};

/*
 * 0, or why it was not started: UV_ENOMEM, also where there is no room for its stack, and UV_EAGAIN: there may be no
 * more threads. limits_explain() says more. `run` is called with the mask of signals of the caller.
 */
int thread_start(pthread_t *thread, size_t stack_bytes, void (*run)(void *data), void *data);

/* Has the calling thread, which is the process's first, less room than Lua should have? */
bool thread_is_narrow(void);
