#include "net/poller.h"

#include <errno.h>
#include <unistd.h>

int poller_init(struct poller *poller, uv_loop_t *loop)
{
	struct epoll_event event = { .events = EPOLLIN };
	*poller = (struct poller){ .loop = loop };
	poller->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (poller->epoll_fd < 0)
		return -errno;
	if (epoll_ctl(poller->epoll_fd, EPOLL_CTL_ADD, uv_backend_fd(loop), &event)) {
		int err = -errno;
		poller_deinit(poller);
		return err;
	}
	return 0;
}

void poller_deinit(struct poller *poller)
{
	close(poller->epoll_fd);
	poller->epoll_fd = -1;
}

/* ---- what is watched ---- */

void polled_init(struct polled *polled, struct poller *poller, int fd, const struct polled_ops *ops)
{
	*polled = (struct polled){ .ops = ops, .poller = poller, .fd = fd };
}

static int poller_control(struct polled *polled, int operation, uint32_t events)
{
	struct epoll_event event = { .events = events, .data.ptr = polled };
	return epoll_ctl(polled->poller->epoll_fd, operation, polled->fd, &event) ? -errno : 0;
}

int poller_watch(struct polled *polled, uint32_t events)
{
	int err =
	    poller_control(polled, polled->is_registered ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, EPOLLET | events);
	polled->is_registered = !err;
	return err;
}

void poller_again(struct polled *polled)
{
	struct poller *poller = polled->poller;
	if (polled->is_ready || polled->fd < 0)
		return;
	polled->is_ready = true;
	polled->next = poller->ready;
	poller->ready = polled;
}

static void put_closed(struct polled *polled)
{
	struct poller *poller = polled->poller;
	polled->next = poller->closed;
	poller->closed = polled;
}

/*
 * Closing would take it out of the set, were it not for processes that are being started, by an upgrade or by a
 * script's io.popen: until its exec the new one has a duplicate, and as long as that is open the kernel reports
 * events of something whose memory is gone. How the process is started is no way out: other threads run on,
 * and descriptors are duplicated whatever the memory is. So each is taken out first. It is hardly more work: what
 * is done here close() need not do.
 */
void poller_close(struct polled *polled)
{
	close(poller_release(polled));
}

int poller_release(struct polled *polled)
{
	int fd = polled->fd;
	poller_control(polled, EPOLL_CTL_DEL, 0);
	polled->fd = -1;
	if (!polled->is_ready) /* else serve_ready() has to see it first */
		put_closed(polled);
	return fd;
}

/* ---- a turn ---- */

static inline __attribute__((always_inline)) int wait(struct poller *poller, int timeout_ms)
{
	int uv_ms = uv_backend_timeout(poller->loop);
	if (poller->ready)
		timeout_ms = 0;
	if (uv_ms >= 0 && (timeout_ms < 0 || uv_ms < timeout_ms))
		timeout_ms = uv_ms;
	atomic_store_explicit(&poller->busy_since_ms, 0, memory_order_relaxed);
	int n = epoll_wait(poller->epoll_fd, poller->events, POLLER_EVENTS_MAX, timeout_ms);
	if (n < 0) /* stopped, and told to go on: what has happened meanwhile is not known yet */
		n = epoll_wait(poller->epoll_fd, poller->events, POLLER_EVENTS_MAX, 0);
	uv_update_time(poller->loop);
	atomic_store_explicit(&poller->busy_since_ms, uv_now(poller->loop), memory_order_relaxed);
	poller->count = n;
	poller->loop_is_due = !uv_ms || (n <= 0 && uv_ms > 0);
	return timeout_ms;
}

/* Of those that asked for it before this poll. */
static void serve_ready(struct poller *poller)
{
	struct polled *next, *polled = poller->ready;
	poller->ready = NULL;
	for (; polled; polled = next) {
		next = polled->next;
		polled->is_ready = false;
		if (polled->fd >= 0)
			polled->ops->ready(polled, 0);
		else
			put_closed(polled);
	}
}

static inline __attribute__((always_inline)) void serve(struct poller *poller)
{
	serve_ready(poller);
	for (int i = 0; i < poller->count; i++) {
		struct polled *polled = poller->events[i].data.ptr;
		if (!polled)
			poller->loop_is_due = true;
		else if (polled->fd >= 0) /* not closed in this very poll */
			polled->ops->ready(polled, poller->events[i].events);
	}
}

int poller_wait(struct poller *poller, int timeout_ms)
{
	return wait(poller, timeout_ms);
}

void poller_serve(struct poller *poller)
{
	serve(poller);
}

/* Not by the two above: those have one caller, the loop, and are part of it. */
void poller_finish(struct poller *poller)
{
	wait(poller, 0);
	serve(poller);
	poller_forget(poller);
}

void poller_run_loop(struct poller *poller)
{
	if (poller->loop_is_due)
		uv_run(poller->loop, UV_RUN_NOWAIT);
}

void poller_forget(struct poller *poller)
{
	struct polled *next, *polled = poller->closed;
	poller->closed = NULL;
	for (; polled; polled = next) {
		next = polled->next;
		polled->ops->closed(polled);
	}
}
