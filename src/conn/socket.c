#include "conn/socket.h"

#include "conn/transport.h"

#include <errno.h>
#include <linux/sockios.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

static struct socket_conn *self(struct conn *conn)
{
	return (struct socket_conn *)(void *)conn;
}

static int fd_of(struct conn *conn)
{
	uv_os_fd_t fd = -1;
	uv_fileno((uv_handle_t *)&self(conn)->poll, &fd);
	return fd;
}

/* uv_fileno() would do; this is its one load, on the hot path. */
static inline int fast_fd(struct conn *conn)
{
	return self(conn)->poll.io_watcher.fd;
}

/*
 * recv() and send() are cancellation points: with threads, the C library brackets each with two locked
 * instructions. Nobody is ever cancelled here.
 */
static ssize_t socket_read(struct conn *conn, void *to, size_t n)
{
	ssize_t got;
	do
		got = syscall(SYS_recvfrom, fast_fd(conn), to, n, 0, NULL, NULL);
	while (got < 0 && errno == EINTR);
	return got < 0 ? -errno : got;
}

static ssize_t socket_write(struct conn *conn, const void *from, size_t n)
{
	ssize_t put;
	do
		put = syscall(SYS_sendto, fast_fd(conn), from, n, MSG_NOSIGNAL, NULL, 0);
	while (put < 0 && errno == EINTR);
	return put < 0 ? -errno : put;
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
	struct conn *conn = poll->data;
	conn->host->now_ms = uv_now(poll->loop);
	if (status < 0) {
		conn_on_broken(conn);
		return;
	}
	if (events & UV_WRITABLE)
		conn_on_writable(conn);
	if (events & UV_READABLE)
		conn_on_readable(conn);
	/* Nothing was to be read, so this is a hang-up (or urgent data, which we do not speak):
	 * once is enough, it would be reported for ever. */
	if (events == UV_PRIORITIZED)
		uv_poll_stop(poll);
}

/*
 * With nothing to watch, the descriptor stays registered (for urgent data, of all things), since
 * the kernel then still reports a reset: a paused or back-pressured peer that dies is noticed.
 */
static int socket_watch(struct conn *conn, unsigned events)
{
	int wanted = (events & WATCH_READ ? UV_READABLE : 0) | (events & WATCH_WRITE ? UV_WRITABLE : 0);
	return uv_poll_start(&self(conn)->poll, wanted ? wanted : UV_PRIORITIZED, on_poll);
}

static int socket_shutdown(struct conn *conn)
{
	return shutdown(fd_of(conn), SHUT_WR) ? -errno : 0;
}

static size_t socket_unsent(struct conn *conn)
{
	int n = 0;
	return ioctl(fd_of(conn), SIOCOUTQ, &n) || n < 0 ? 0 : (size_t)n;
}

static bool socket_has_unread(struct conn *conn)
{
	int n = 0;
	return !ioctl(fd_of(conn), FIONREAD, &n) && n > 0;
}

static void on_close(uv_handle_t *handle)
{
	conn_on_closed(handle->data);
}

static void socket_close(struct conn *conn, bool reset)
{
	int fd = fd_of(conn);
	struct linger now = { .l_onoff = 1, .l_linger = 0 };
	if (reset)
		setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
	uv_close((uv_handle_t *)&self(conn)->poll, on_close);
	close(fd);
}

static int socket_local_address(struct conn *conn, struct sockaddr_storage *address)
{
	socklen_t len = sizeof *address;
	return getsockname(fd_of(conn), (struct sockaddr *)address, &len) ? -errno : 0;
}

static const struct transport_ops SOCKET_OPS = {
	.read = socket_read,
	.write = socket_write,
	.watch = socket_watch,
	.unsent = socket_unsent,
	.shutdown = socket_shutdown,
	.has_unread = socket_has_unread,
	.close = socket_close,
	.local_address = socket_local_address,
};

int socket_conn_init(struct socket_conn *socket, uv_loop_t *loop, int fd)
{
	int err = uv_poll_init(loop, &socket->poll, fd);
	if (err) {
		close(fd);
		return err;
	}
	socket->poll.data = &socket->conn;
	socket->conn.transport = &SOCKET_OPS;
	return 0;
}
