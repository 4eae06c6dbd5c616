/*
 * Watches descriptors, and turns a loop beside them: the main thread's sockets and pipes. The epoll set is our own,
 * since libuv ends the process where the kernel refuses to watch one more (loop.h); here that is an error of whoever
 * asks.
 *
 *     reactor_add(reactor, watched, 0)     may fail; from then on nothing does
 *     reactor_want(reactor, watched, EPOLLIN)
 *     reactor_remove(reactor, watched)     before the descriptor is closed
 *
 * Threads: the loop's.
 */
#pragma once

#include <stdbool.h>
#include <sys/epoll.h>
#include <uv.h>

enum { REACTOR_EVENTS_MAX = 64 };

struct watched {
	int fd; /* -1: not watched */
	void (*ready)(struct watched *watched, unsigned events);
	void *data;
};

struct reactor {
	uv_loop_t *loop;
	int epoll_fd;
	bool stopped;
	/* Of the turn that is under way, so that what is removed in it is not called any more. */
	struct epoll_event events[REACTOR_EVENTS_MAX];
	int event_count;
};

/* 0 or an error. The loop is open. */
int reactor_open(struct reactor *reactor, uv_loop_t *loop);
void reactor_close(struct reactor *reactor);

/*
 * Watches a descriptor for these events (EPOLLIN, EPOLLOUT, EPOLLRDHUP; 0: for none yet), for as long as they last; an
 * error of it, and the end of both directions, are told once whatever is wanted. `ready` is set. 0 or an error.
 */
int reactor_add(struct reactor *reactor, struct watched *watched, int fd, unsigned events);

/* Other events from now on. Cannot fail. */
void reactor_want(struct reactor *reactor, struct watched *watched, unsigned events);

/* Watches another descriptor in place of the one so far. 0, or an error: nothing has changed. */
int reactor_replace(struct reactor *reactor, struct watched *watched, int fd, unsigned events);

/* `ready` is not called any more, so the memory may go at once. Idempotent, and fine where fd is -1. */
void reactor_remove(struct reactor *reactor, struct watched *watched);

/* Until nothing on the loop is left, or reactor_stop() was called. */
void reactor_run(struct reactor *reactor);
void reactor_stop(struct reactor *reactor);
