#include "loop/reactor.h"

#include <assert.h>
#include <errno.h>
#include <unistd.h>

/* ---- what is watched ---- */

static int reactor_control(struct reactor *reactor, int operation, struct watched *watched, unsigned events)
{
	/* The kernel tells of errors whatever is asked for: of who waits for nothing, once, or we would spin. */
	struct epoll_event event = { .events = events ? events : EPOLLET, .data.ptr = watched };
	return epoll_ctl(reactor->epoll_fd, operation, watched->fd, &event) ? -errno : 0;
}

int reactor_add(struct reactor *reactor, struct watched *watched, int fd, unsigned events)
{
	watched->fd = fd;
	int err = reactor_control(reactor, EPOLL_CTL_ADD, watched, events);
	if (err)
		watched->fd = -1;
	return err;
}

void reactor_want(struct reactor *reactor, struct watched *watched, unsigned events)
{
	/* It changes what is there already, for which the kernel needs nothing. */
	int err = reactor_control(reactor, EPOLL_CTL_MOD, watched, events);
	assert(!err);
}

void reactor_remove(struct reactor *reactor, struct watched *watched)
{
	if (watched->fd < 0)
		return;
	reactor_control(reactor, EPOLL_CTL_DEL, watched, 0);
	watched->fd = -1;
	for (int i = 0; i < reactor->event_count; i++)
		if (reactor->events[i].data.ptr == watched)
			reactor->events[i].data.ptr = NULL;
}

int reactor_replace(struct reactor *reactor, struct watched *watched, int fd, unsigned events)
{
	struct watched old = { .fd = watched->fd };
	int err = reactor_add(reactor, watched, fd, events);
	if (err)
		watched->fd = old.fd;
	else
		reactor_remove(reactor, &old);
	return err;
}

/* ---- turning ---- */

static void serve_event(struct reactor *reactor, int i, bool *loop_is_due)
{
	struct watched *watched = reactor->events[i].data.ptr;
	if (watched == (void *)reactor)
		*loop_is_due = true;
	else if (watched)
		watched->ready(watched, reactor->events[i].events);
}

static void reactor_turn(struct reactor *reactor)
{
	int ms = uv_backend_timeout(reactor->loop);
	int n = epoll_wait(reactor->epoll_fd, reactor->events, REACTOR_EVENTS_MAX, ms);
	bool loop_is_due = n <= 0 || !ms;
	uv_update_time(reactor->loop);
	reactor->event_count = n;
	for (int i = 0; i < n; i++)
		serve_event(reactor, i, &loop_is_due);
	reactor->event_count = 0;
	if (loop_is_due && !reactor->stopped)
		uv_run(reactor->loop, UV_RUN_NOWAIT);
}

void reactor_run(struct reactor *reactor)
{
	reactor->stopped = false;
	while (!reactor->stopped && uv_loop_alive(reactor->loop))
		reactor_turn(reactor);
}

void reactor_stop(struct reactor *reactor)
{
	reactor->stopped = true;
}

/* ---- life ---- */

/* The loop's own set is the one whose events have the reactor as data. */
int reactor_open(struct reactor *reactor, uv_loop_t *loop)
{
	struct epoll_event event = { .events = EPOLLIN, .data.ptr = reactor };
	*reactor = (struct reactor){ .loop = loop };
	reactor->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (reactor->epoll_fd < 0)
		return -errno;
	if (!epoll_ctl(reactor->epoll_fd, EPOLL_CTL_ADD, uv_backend_fd(loop), &event))
		return 0;
	int err = -errno;
	reactor_close(reactor);
	return err;
}

void reactor_close(struct reactor *reactor)
{
	if (reactor->epoll_fd >= 0)
		close(reactor->epoll_fd);
	reactor->epoll_fd = -1;
}
