/*
 * The yardstick of the hub: one thread, level-triggered epoll, and one send(2) for each member and burst.
 *
 * Frames are u32be. "join" makes a connection a member, and is answered by "here"; frames that begin with "send" go to
 * all members, those of one read together; all others are sent back. A member that does not take all at once is
 * disconnected: there is no queue. So this is what the kernel leaves over for anybody who delivers.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { HEADER = 4, READ_BYTES = 64 << 10, EVENTS = 512, FDS_MAX = 1 << 16, BACKLOG = 4096 };

static int epoll_fd, members[FDS_MAX], member_count;
static struct part {
	uint8_t *bytes; /* the beginning of a frame */
	size_t len;
} parts[FDS_MAX];
static _Alignas(4096) uint8_t in[2 * READ_BYTES], out[2 * READ_BYTES];

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static void drop(int fd)
{
	for (int i = 0; i < member_count; i++)
		if (members[i] == fd)
			members[i] = members[--member_count];
	free(parts[fd].bytes);
	parts[fd] = (struct part){ 0 };
	close(fd);
}

static void publish(const uint8_t *bytes, size_t n)
{
	for (int i = 0; n && i < member_count; i++)
		if (send(members[i], bytes, n, MSG_NOSIGNAL | MSG_DONTWAIT) != (ssize_t)n)
			shutdown(members[i], SHUT_RDWR);
}

static void reply(int fd, const void *bytes, size_t n)
{
	if (send(fd, bytes, n, MSG_NOSIGNAL | MSG_DONTWAIT) != (ssize_t)n)
		shutdown(fd, SHUT_RDWR);
}

/* The whole frames of n bytes. Returns how many bytes those are. */
static size_t serve(int fd, size_t n)
{
	size_t at = 0, to_all = 0;

	for (uint32_t size; n - at >= HEADER; at += HEADER + size) {
		memcpy(&size, in + at, HEADER);
		size = ntohl(size);
		if (size > READ_BYTES - HEADER || n - at - HEADER < size)
			break;
		const uint8_t *frame = in + at, *text = frame + HEADER;
		if (size >= 4 && !memcmp(text, "send", 4)) {
			memcpy(out + to_all, frame, HEADER + size);
			to_all += HEADER + size;
		} else if (size == 4 && !memcmp(text, "join", 4)) {
			members[member_count++] = fd;
			reply(fd, "\0\0\0\4here", 8);
		} else {
			reply(fd, frame, HEADER + size);
		}
	}
	publish(out, to_all);
	return at;
}

static void on_readable(int fd)
{
	struct part *part = &parts[fd];
	size_t kept = part->len;

	if (kept)
		memcpy(in, part->bytes, kept);
	ssize_t got = recv(fd, in + kept, READ_BYTES, 0);
	if (got < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (got <= 0) {
		drop(fd);
		return;
	}
	size_t n = kept + (size_t)got, used = serve(fd, n);
	if (n - used > READ_BYTES) {
		drop(fd);
		return;
	}
	part->len = n - used;
	if (part->len && !part->bytes && !(part->bytes = malloc(READ_BYTES)))
		die("malloc");
	if (part->len)
		memcpy(part->bytes, in + used, part->len);
}

static void on_client(int listen_fd)
{
	const int on = 1;
	int fd = accept4(listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	struct epoll_event ev = { .events = EPOLLIN, .data.fd = fd };

	if (fd < 0)
		return;
	if (fd >= FDS_MAX) {
		close(fd);
		return;
	}
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &ev) != 0)
		die("epoll_ctl");
}

static int listen_on(int port)
{
	struct sockaddr_in address = { .sin_family = AF_INET,
				       .sin_port = htons((uint16_t)port),
				       .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	const int on = 1;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	struct epoll_event ev = { .events = EPOLLIN, .data.fd = fd };

	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0 ||
	    bind(fd, (struct sockaddr *)&address, sizeof address) != 0 || listen(fd, BACKLOG) != 0 ||
	    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &ev) != 0)
		die("listen");
	return fd;
}

int main(int argc, char **argv)
{
	struct epoll_event events[EVENTS];
	struct rlimit limit;

	if (argc != 3 || strcmp(argv[1], "--port") != 0) {
		fputs("usage: epoll_fan --port N\n", stderr);
		return 2;
	}
	if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_NOFILE, &limit);
	}
	epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	int listen_fd = listen_on(atoi(argv[2]));
	for (;;) {
		int n = epoll_wait(epoll_fd, events, EVENTS, -1);

		for (int i = 0; i < n; i++)
			if (events[i].data.fd == listen_fd)
				on_client(listen_fd);
			else
				on_readable(events[i].data.fd);
	}
}
