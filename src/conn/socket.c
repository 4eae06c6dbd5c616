#include "conn/socket.h"

#include "conn/transport.h"

#include <errno.h>
#include <linux/sockios.h>
#include <stddef.h>
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
		got = syscall(SYS_recvfrom, self(conn)->polled.fd, to, n, 0, NULL, NULL);
	while (got < 0 && errno == EINTR);
	self(conn)->drained = got < 0 || (got < (ssize_t)n && !self(conn)->falls_short);
	return got < 0 ? -errno : got;
}

static ssize_t socket_write(struct conn *conn, const void *from, size_t n)
{
	ssize_t put;
	do
		put = syscall(SYS_sendto, self(conn)->polled.fd, from, n, MSG_NOSIGNAL, NULL, 0);
	while (put < 0 && errno == EINTR);
	if (put >= 0 && (size_t)put < n) {
		self(conn)->not_full = true;
		poller_again(&self(conn)->polled);
	}
	return put < 0 ? -errno : put;
}

/* With nothing to watch a reset is still reported: a paused or back-pressured peer that dies is noticed. */
static int socket_watch(struct conn *conn, unsigned events)
{
	return poller_watch(&self(conn)->polled,
			    (events & WATCH_READ ? EPOLLIN | EPOLLPRI | EPOLLRDHUP : 0u) |
				(events & WATCH_WRITE ? EPOLLOUT : 0u));
}

static int socket_shutdown(struct conn *conn)
{
	return shutdown(self(conn)->polled.fd, SHUT_WR) ? -errno : 0;
}

static size_t socket_unsent(struct conn *conn)
{
	int n = 0;
	return ioctl(self(conn)->polled.fd, SIOCOUTQ, &n) || n < 0 ? 0 : (size_t)n;
}

static size_t socket_unread(struct conn *conn)
{
	int n = 0;
	return ioctl(self(conn)->polled.fd, FIONREAD, &n) || n < 0 ? 0 : (size_t)n;
}

static void socket_close(struct conn *conn, bool reset)
{
	struct polled *polled = &self(conn)->polled;
	struct linger now = { .l_onoff = 1, .l_linger = 0 };
	if (reset)
		setsockopt(polled->fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
	poller_close(polled);
}

static int socket_local_address(struct conn *conn, struct sockaddr_storage *address)
{
	socklen_t len = sizeof *address;
	return getsockname(self(conn)->polled.fd, (struct sockaddr *)address, &len) ? -errno : 0;
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

/* ---- from the poller ---- */

static struct socket_conn *socket_of(struct polled *polled)
{
	return (struct socket_conn *)(void *)((char *)polled - offsetof(struct socket_conn, polled));
}

static void read_event(struct socket_conn *socket)
{
	socket->drained = false;
	conn_on_readable(&socket->conn);
	if ((!socket->drained || socket->hung_up) && !socket->conn.eof && socket->polled.fd >= 0)
		poller_again(&socket->polled);
}

/* It was not read empty, or not written full. Who is not watched any more will have a new edge when it is again. */
static void go_on(struct socket_conn *socket)
{
	bool try_writing = socket->not_full;
	socket->not_full = false;
	if (try_writing && (socket->conn.watching & WATCH_WRITE))
		conn_on_writable(&socket->conn);
	if (socket->polled.fd >= 0 && (socket->conn.watching & WATCH_READ))
		read_event(socket);
}

static void on_ready(struct polled *polled, uint32_t events)
{
	struct socket_conn *socket = socket_of(polled);
	struct conn *conn = &socket->conn;
	if (!events) {
		go_on(socket);
		return;
	}
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

static void on_closed(struct polled *polled)
{
	conn_on_closed(&socket_of(polled)->conn);
}

static const struct polled_ops POLLED_OPS = { on_ready, on_closed };

void socket_conn_init(struct socket_conn *socket, struct poller *poller, int fd)
{
	polled_init(&socket->polled, poller, fd, &POLLED_OPS);
	socket->falls_short = socket->conn.peer.sin6_family == AF_UNIX;
	socket->conn.transport = &SOCKET_OPS;
}
