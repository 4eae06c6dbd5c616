#include "conn/socket.h"

#include "base/ticks.h"
#include "conn/transport.h"

#include <errno.h>
#include <linux/sockios.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

static struct socket_conn *self(struct conn *conn)
{
	return (struct socket_conn *)(void *)conn;
}

/*
 * recv() and send() are cancellation points: with threads, the C library brackets each with two locked
 * instructions. Nobody is ever cancelled here.
 */
static ssize_t socket_read(struct conn *conn, void *to, size_t n)
{
	ssize_t got;
	do
		got = syscall(SYS_recvfrom, self(conn)->fd, to, n, 0, NULL, NULL);
	while (got < 0 && errno == EINTR);
	self(conn)->drained = got < 0 || (got < (ssize_t)n && !self(conn)->falls_short);
	return got < 0 ? -errno : got;
}

static void be_ready(struct socket_conn *socket)
{
	struct poller *poller = socket->poller;
	if (socket->is_ready)
		return;
	socket->is_ready = true;
	socket->next_ready = poller->ready;
	poller->ready = socket;
}

static ssize_t socket_write(struct conn *conn, const void *from, size_t n)
{
	ssize_t put;
	do
		put = syscall(SYS_sendto, self(conn)->fd, from, n, MSG_NOSIGNAL, NULL, 0);
	while (put < 0 && errno == EINTR);
	if (put >= 0 && (size_t)put < n) {
		self(conn)->not_full = true;
		be_ready(self(conn));
	}
	return put < 0 ? -errno : put;
}

static int control(struct socket_conn *socket, int operation, uint32_t events)
{
	struct epoll_event event = { .events = events, .data.ptr = socket };
	return epoll_ctl(socket->poller->epoll_fd, operation, socket->fd, &event) ? -errno : 0;
}

/*
 * Every change is a new edge: what is ready already is reported. With nothing to watch the socket
 * stays in the set, where the kernel still reports a reset: a paused or back-pressured peer that
 * dies is noticed.
 */
static int socket_watch(struct conn *conn, unsigned events)
{
	struct socket_conn *socket = self(conn);
	int err = control(socket, socket->registered ? EPOLL_CTL_MOD : EPOLL_CTL_ADD,
			  EPOLLET | (events & WATCH_READ ? EPOLLIN | EPOLLPRI | EPOLLRDHUP : 0u) |
			      (events & WATCH_WRITE ? EPOLLOUT : 0u));
	socket->registered = !err;
	return err;
}

static int socket_shutdown(struct conn *conn)
{
	return shutdown(self(conn)->fd, SHUT_WR) ? -errno : 0;
}

static size_t socket_unsent(struct conn *conn)
{
	int n = 0;
	return ioctl(self(conn)->fd, SIOCOUTQ, &n) || n < 0 ? 0 : (size_t)n;
}

static size_t socket_unread(struct conn *conn)
{
	int n = 0;
	return ioctl(self(conn)->fd, FIONREAD, &n) || n < 0 ? 0 : (size_t)n;
}

/*
 * Closing would take it out of the set, were it not for processes that are being started, by an upgrade or by a
 * script's io.popen: until its exec the new one has a duplicate, and as long as that is open the kernel reports
 * events of a connection whose memory is gone. How the process is started is no way out: other threads run on,
 * and descriptors are duplicated whatever the memory is. So each is taken out first. It is hardly more work: what
 * is done here close() need not do.
 */
static void socket_close(struct conn *conn, bool reset)
{
	struct socket_conn *socket = self(conn);
	struct linger now = { .l_onoff = 1, .l_linger = 0 };
	control(socket, EPOLL_CTL_DEL, 0);
	if (reset)
		setsockopt(socket->fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
	close(socket->fd);
	socket->fd = -1;
	socket->next_closed = socket->poller->closed;
	socket->poller->closed = socket;
}

static int socket_local_address(struct conn *conn, struct sockaddr_storage *address)
{
	socklen_t len = sizeof *address;
	return getsockname(self(conn)->fd, (struct sockaddr *)address, &len) ? -errno : 0;
}

static const struct transport_ops SOCKET_OPS = {
	.read = socket_read,
	.write = socket_write,
	.watch = socket_watch,
	.unsent = socket_unsent,
	.shutdown = socket_shutdown,
	.unread = socket_unread,
	.close = socket_close,
	.local_address = socket_local_address,
};

void socket_conn_init(struct socket_conn *socket, struct poller *poller, int fd)
{
	socket->poller = poller;
	socket->fd = fd;
	socket->falls_short = socket->conn.peer.sin6_family == AF_UNIX;
	socket->conn.transport = &SOCKET_OPS;
}

/* ---- the poller ---- */

enum { EVENTS_MAX = 256 };

static void read_event(struct socket_conn *socket)
{
	socket->drained = false;
	conn_on_readable(&socket->conn);
	if ((!socket->drained || socket->hung_up) && !socket->conn.eof && socket->fd >= 0)
		be_ready(socket);
}

static void serve(struct socket_conn *socket, uint32_t events)
{
	struct conn *conn = &socket->conn;
	if (socket->fd < 0)
		return; /* closed in this very poll */
	if (events & EPOLLERR) {
		conn_on_broken(conn);
		return;
	}
	if (events & (EPOLLRDHUP | EPOLLHUP))
		socket->hung_up = true;
	if (events & EPOLLPRI)
		socket->falls_short = true;
	if ((conn->watching & WATCH_WRITE) && (events & (EPOLLOUT | EPOLLHUP)))
		conn_on_writable(conn);
	if ((conn->watching & WATCH_READ) && (events & (EPOLLIN | EPOLLPRI | EPOLLRDHUP | EPOLLHUP)))
		read_event(socket);
}

/* Who is not watched any more will have a new edge when it is again. */
static void serve_ready(struct poller *poller)
{
	struct socket_conn *next, *socket = poller->ready;
	poller->ready = NULL;
	for (; socket; socket = next) {
		next = socket->next_ready;
		socket->is_ready = false;
		bool try_writing = socket->not_full;
		socket->not_full = false;
		if (socket->fd >= 0 && try_writing && (socket->conn.watching & WATCH_WRITE))
			conn_on_writable(&socket->conn);
		if (socket->fd >= 0 && (socket->conn.watching & WATCH_READ))
			read_event(socket);
	}
}

uint64_t poller_read_clock(struct poller *poller)
{
	struct conn_host *host = poller->host;
	uv_update_time(poller->loop);
	host->clock_ticks = ticks_now();
	return host->now_ms = uv_now(poller->loop);
}

void poller_poll(struct poller *poller, int timeout_ms)
{
	struct epoll_event events[EVENTS_MAX];
	int uv_ms = uv_backend_timeout(poller->loop);
	bool uv_is_due = !uv_ms;
	if (poller->ready)
		timeout_ms = 0;
	if (uv_ms >= 0 && (timeout_ms < 0 || uv_ms < timeout_ms))
		timeout_ms = uv_ms;
	uint64_t wanted_ms = timeout_ms > 0 ? poller->host->now_ms + (unsigned)timeout_ms : UINT64_MAX;
	atomic_store_explicit(&poller->busy_since_ms, 0, memory_order_relaxed);
	int n = epoll_wait(poller->epoll_fd, events, EVENTS_MAX, timeout_ms);
	if (n < 0) /* stopped, and told to go on: what has happened meanwhile is not known yet */
		n = epoll_wait(poller->epoll_fd, events, EVENTS_MAX, 0);
	uint64_t now_ms = poller->host->polled_ms = poller_read_clock(poller);
	atomic_store_explicit(&poller->busy_since_ms, now_ms, memory_order_relaxed);
	conn_host_waited(poller->host, wanted_ms);
	serve_ready(poller);
	for (int i = 0; i < n; i++) {
		if (events[i].data.ptr)
			serve(events[i].data.ptr, events[i].events);
		else
			uv_is_due = true;
	}
	conn_host_settle(poller->host);
	if (uv_is_due || (n <= 0 && uv_ms > 0))
		uv_run(poller->loop, UV_RUN_NOWAIT);
}

void poller_forget(struct poller *poller)
{
	struct socket_conn *next, *socket = poller->closed;
	poller->closed = NULL;
	for (; socket; socket = next) {
		next = socket->next_closed;
		if (socket->is_ready) {
			socket->next_closed = poller->closed; /* serve_ready() has to see it first */
			poller->closed = socket;
		} else {
			conn_on_closed(&socket->conn);
		}
	}
}

int poller_init(struct poller *poller, struct conn_host *host, uv_loop_t *loop)
{
	struct epoll_event event = { .events = EPOLLIN };
	*poller = (struct poller){ .host = host, .loop = loop };
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
