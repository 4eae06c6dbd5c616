#include "stream/socket.h"

#include <errno.h>
#include <linux/sockios.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

/* In polled.flags. */
enum {
	DRAINED = 1,     /* the last read took all there was */
	HUNG_UP = 2,     /* the peer's end of stream has arrived, behind whatever is unread */
	FALLS_SHORT = 4, /* a read may take less than there is: only EAGAIN says that it is drained */
	NOT_FULL = 8,    /* a write fell short: only EAGAIN says that it is full */
	ENDED = 16,      /* the peer's end of stream was read */
	WATCHED = 32,    /* for reading */
};

static struct polled *polled_of(struct stream *stream)
{
	return &((struct socket_stream *)(void *)stream)->polled;
}

static void set(struct polled *polled, uint8_t flag, bool value)
{
	polled->flags = (uint8_t)(value ? polled->flags | flag : polled->flags & ~flag);
}

/*
 * recv() and send() are cancellation points: with threads, the C library brackets each with two locked
 * instructions. Nobody is ever cancelled here.
 */
static ssize_t socket_read(struct stream *stream, void *to, size_t n)
{
	struct polled *polled = polled_of(stream);
	ssize_t got;
	do
		got = syscall(SYS_recvfrom, polled->fd, to, n, 0, NULL, NULL);
	while (got < 0 && errno == EINTR);
	set(polled, DRAINED, got < 0 || (got < (ssize_t)n && !(polled->flags & FALLS_SHORT)));
	if (!got)
		polled->flags |= ENDED;
	return got < 0 ? -errno : got;
}

/* It fell short: there may be room again, and no edge would tell. */
static void fall_short(struct polled *polled)
{
	polled->flags |= NOT_FULL;
	poller_again(polled);
}

static inline __attribute__((always_inline)) ssize_t socket_send(struct stream *stream, const void *from,
								 size_t n, int flags)
{
	struct polled *polled = polled_of(stream);
	ssize_t put;
	do
		put = syscall(SYS_sendto, polled->fd, from, n, MSG_NOSIGNAL | flags, NULL, 0);
	while (put < 0 && errno == EINTR);
	if (put >= 0 && (size_t)put < n)
		fall_short(polled);
	return put < 0 ? -errno : put;
}

static ssize_t socket_write(struct stream *stream, const void *from, size_t n)
{
	return socket_send(stream, from, n, 0);
}

/* What does not fill a segment waits: for 200 ms, should nothing follow after all. */
static ssize_t socket_write_more(struct stream *stream, const void *from, size_t n)
{
	return socket_send(stream, from, n, MSG_MORE);
}

static ssize_t socket_writev(struct stream *stream, const struct iovec *parts, int n)
{
	struct polled *polled = polled_of(stream);
	struct msghdr message = { .msg_iov = (struct iovec *)parts, .msg_iovlen = (size_t)n };
	size_t all = 0;
	ssize_t put;
	for (int i = 0; i < n; i++)
		all += parts[i].iov_len;
	do
		put = syscall(SYS_sendmsg, polled->fd, &message, MSG_NOSIGNAL);
	while (put < 0 && errno == EINTR);
	if (put >= 0 && (size_t)put < all)
		fall_short(polled);
	return put < 0 ? -errno : put;
}

/* Not every file system has it. */
static ssize_t socket_send_file(struct stream *stream, int file, uint64_t at, size_t n)
{
	struct polled *polled = polled_of(stream);
	off_t from = (off_t)at;
	ssize_t put;
	do
		put = sendfile(polled->fd, file, &from, n);
	while (put < 0 && errno == EINTR);
	if (put > 0 && (size_t)put < n)
		fall_short(polled);
	if (put < 0 && (errno == EINVAL || errno == ENOSYS || errno == EOVERFLOW))
		return -ENOTSUP;
	return put < 0 ? -errno : put;
}

/* With nothing to watch a reset is still reported: a paused or back-pressured peer that dies is noticed. */
static int socket_watch(struct stream *stream, unsigned events)
{
	set(polled_of(stream), WATCHED, events & STREAM_READ);
	return poller_watch(polled_of(stream), (events & STREAM_READ ? EPOLLIN | EPOLLPRI | EPOLLRDHUP : 0u) |
						   (events & STREAM_WRITE ? EPOLLOUT : 0u));
}

static void socket_again(struct stream *stream)
{
	poller_again(polled_of(stream));
}

static int socket_shutdown(struct stream *stream)
{
	return shutdown(polled_of(stream)->fd, SHUT_WR) ? -errno : 0;
}

static size_t socket_unsent(struct stream *stream)
{
	int n = 0;
	return ioctl(polled_of(stream)->fd, SIOCOUTQ, &n) || n < 0 ? 0 : (size_t)n;
}

static size_t socket_unread(struct stream *stream)
{
	int n = 0;
	return ioctl(polled_of(stream)->fd, FIONREAD, &n) || n < 0 ? 0 : (size_t)n;
}

static void socket_close(struct stream *stream, bool reset)
{
	struct polled *polled = polled_of(stream);
	struct linger now = { .l_onoff = 1, .l_linger = 0 };
	if (reset)
		setsockopt(polled->fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
	poller_close(polled);
}

static int socket_local_address(struct stream *stream, struct sockaddr_storage *address)
{
	socklen_t len = sizeof *address;
	return getsockname(polled_of(stream)->fd, (struct sockaddr *)address, &len) ? -errno : 0;
}

static const struct stream_ops SOCKET_STREAM = {
	.name = "socket",
	.read = socket_read,
	.write = socket_write,
	.write_more = socket_write_more,
	.writev = socket_writev,
	.send_file = socket_send_file,
	.unsent = socket_unsent,
	.unread = socket_unread,
	.shutdown = socket_shutdown,
	.close = socket_close,
	.local_address = socket_local_address,
	.watch = socket_watch,
	.again = socket_again,
};

/* ---- from the poller ---- */

static struct stream_user *user_of(struct polled *polled)
{
	return ((struct socket_stream *)(void *)((char *)polled - offsetof(struct socket_stream, polled)))
	    ->stream.user;
}

/* Of epoll(7)'s events. None: it was not read empty, or not written full, and no edge would tell. */
static unsigned socket_events_of(struct polled *polled, uint32_t events)
{
	if (!events) {
		unsigned write = polled->flags & NOT_FULL ? STREAM_WRITE : 0u;
		polled->flags &= (uint8_t)~NOT_FULL;
		return write | STREAM_READ;
	}
	if (events & EPOLLERR)
		return STREAM_BROKEN;
	if (events & (EPOLLRDHUP | EPOLLHUP))
		polled->flags |= HUNG_UP;
	if (events & EPOLLPRI)
		polled->flags |= FALLS_SHORT;
	return (events & (EPOLLOUT | EPOLLHUP) ? STREAM_WRITE : 0u) |
	       (events & (EPOLLIN | EPOLLPRI | EPOLLRDHUP | EPOLLHUP) ? STREAM_READ : 0u);
}

static bool has_more(const struct polled *polled)
{
	uint8_t flags = polled->flags;
	return (flags & WATCHED) && !(flags & ENDED) && (!(flags & DRAINED) || (flags & HUNG_UP));
}

/* Who is not watched any more will have a new edge when it is again. */
static void socket_on_ready(struct polled *polled, uint32_t epoll_events)
{
	struct stream_user *user = user_of(polled);
	unsigned events = socket_events_of(polled, epoll_events);
	if (events & STREAM_READ)
		polled->flags &= (uint8_t)~DRAINED;
	user->events->ready(user, events);
	if ((events & STREAM_READ) && has_more(polled) && polled->fd >= 0)
		poller_again(polled);
}

static void socket_on_closed(struct polled *polled)
{
	struct stream_user *user = user_of(polled);
	user->events->closed(user);
}

static const struct polled_ops POLLED_OPS = { socket_on_ready, socket_on_closed };

void socket_stream_start(struct socket_stream *socket, struct stream_user *user, struct poller *poller,
			 int fd, bool is_local)
{
	socket->stream = (struct stream){ &SOCKET_STREAM, user };
	user->stream = &socket->stream;
	polled_init(&socket->polled, poller, fd, &POLLED_OPS);
	socket->polled.flags = is_local ? FALLS_SHORT : 0;
}
