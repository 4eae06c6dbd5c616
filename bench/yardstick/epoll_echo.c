/*
 * The first yardstick: the fastest u32be echo one careful person writes by hand.
 *
 * One thread, level-triggered epoll, one read and one write per event. Every complete frame of a read is
 * checked and copied to a shared output buffer; a connection owns memory only while a frame is half received or a
 * reply half sent. It has none of the things a server needs (time-outs, limits, logs), which is the point: it
 * marks what the kernel leaves over.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum {
	HEADER_BYTES = 4,
	MAX_FRAME = 1 << 20,
	READ_BYTES = 64 << 10,
	BACKLOG = 4096,
	EVENTS = 512,
};

struct conn {
	int fd;
	/* The start of a frame whose end has not arrived; NULL when there is none. */
	uint8_t *part;
	size_t part_len;
	/* Replies the socket did not take; while there are any, nothing is read. */
	uint8_t *pending;
	size_t pending_at, pending_len;
};

static int epoll_fd, listen_fd;
static bool zero_copy, as_bytes;

/* Shared by all connections: an incomplete frame is moved to the front of `in` before the read that continues it.
 * Aligned, so that how the two lie to each other, which the speed of copying depends on, is not the linker's choice. */
static _Alignas(4096) uint8_t in[HEADER_BYTES + MAX_FRAME + READ_BYTES];
static _Alignas(4096) uint8_t out[sizeof in];

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static void conn_close(struct conn *c)
{
	close(c->fd);
	free(c->part);
	free(c->pending);
	free(c);
}

static void watch(const struct conn *c, uint32_t events)
{
	struct epoll_event ev = { .events = events, .data.ptr = (void *)(uintptr_t)c };

	if (epoll_ctl(epoll_fd, EPOLL_CTL_MOD, c->fd, &ev) != 0)
		die("epoll_ctl");
}

static void *copy_of(const uint8_t *bytes, size_t len)
{
	void *copy = malloc(len);

	if (!copy)
		die("malloc");
	return memcpy(copy, bytes, len);
}

/* Sends what the socket takes and keeps the rest. Returns false when the connection is beyond use. */
static bool reply(struct conn *c, const uint8_t *bytes, size_t len)
{
	ssize_t sent = send(c->fd, bytes, len, MSG_NOSIGNAL);

	if (sent == (ssize_t)len)
		return true;
	if (sent < 0) {
		if (errno != EAGAIN && errno != EINTR)
			return false;
		sent = 0;
	}
	c->pending_len = len - (size_t)sent;
	c->pending_at = 0;
	c->pending = copy_of(bytes + sent, c->pending_len);
	watch(c, EPOLLOUT);
	return true;
}

static bool on_writable(struct conn *c)
{
	ssize_t sent = send(c->fd, c->pending + c->pending_at, c->pending_len - c->pending_at, MSG_NOSIGNAL);

	if (sent < 0)
		return errno == EAGAIN || errno == EINTR;
	c->pending_at += (size_t)sent;
	if (c->pending_at == c->pending_len) {
		free(c->pending);
		c->pending = NULL;
		watch(c, EPOLLIN);
	}
	return true;
}

/* Copies the complete frames among len bytes of `in` to `out`. Returns their size, or -1 for a bad header. */
static ssize_t echo_frames(size_t len)
{
	size_t at = 0;

	while (len - at >= HEADER_BYTES) {
		uint32_t header, size;

		memcpy(&header, in + at, sizeof header);
		size = ntohl(header);
		if (size > MAX_FRAME)
			return -1;
		if (len - at - HEADER_BYTES < size)
			break;
		if (!zero_copy) {
			memcpy(out + at, &header, sizeof header);
			memcpy(out + at + HEADER_BYTES, in + at + HEADER_BYTES, size);
		}
		at += HEADER_BYTES + size;
	}
	return (ssize_t)at;
}

static bool on_readable(struct conn *c)
{
	size_t kept = c->part_len;
	ssize_t got, whole;

	/* Quadratic for frames of many reads; no cell of the benchmark has any. */
	if (kept)
		memcpy(in, c->part, kept);
	got = recv(c->fd, in + kept, as_bytes ? sizeof in : READ_BYTES, 0);
	if (got <= 0)
		return got < 0 && (errno == EAGAIN || errno == EINTR);
	if (kept) {
		free(c->part);
		c->part = NULL;
		c->part_len = 0;
	}
	kept += (size_t)got;
	whole = as_bytes ? (ssize_t)kept : echo_frames(kept);
	if (whole < 0)
		return false;
	if ((size_t)whole < kept) {
		c->part_len = kept - (size_t)whole;
		c->part = copy_of(in + whole, c->part_len);
	}
	return whole == 0 || reply(c, zero_copy || as_bytes ? in : out, (size_t)whole);
}

static void on_acceptable(void)
{
	const int on = 1;

	for (;;) {
		int fd = accept4(listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
		struct conn *c;

		if (fd < 0) {
			if (errno == EAGAIN)
				return;
			if (errno == EINTR || errno == ECONNABORTED)
				continue;
			die("accept4");
		}
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
		c = calloc(1, sizeof *c);
		if (!c)
			die("calloc");
		c->fd = fd;
		struct epoll_event ev = { .events = EPOLLIN, .data.ptr = c };
		if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &ev) != 0)
			die("epoll_ctl");
	}
}

static void listen_at(const struct sockaddr *addr, socklen_t len)
{
	struct epoll_event ev = { .events = EPOLLIN };
	const int on = 1;

	listen_fd = socket(addr->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (listen_fd < 0)
		die("socket");
	setsockopt(listen_fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
	if (bind(listen_fd, addr, len) != 0)
		die("bind");
	if (listen(listen_fd, BACKLOG) != 0)
		die("listen");
	epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (epoll_fd < 0 || epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listen_fd, &ev) != 0)
		die("epoll");
}

static void listen_on(uint16_t port)
{
	struct sockaddr_in addr = { .sin_family = AF_INET, .sin_port = htons(port) };
	socklen_t len = sizeof addr;

	addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	listen_at((struct sockaddr *)&addr, len);
	if (getsockname(listen_fd, (struct sockaddr *)&addr, &len) != 0)
		die("getsockname");
	printf("listening on 127.0.0.1:%u\n", (unsigned)ntohs(addr.sin_port));
	fflush(stdout);
}

static void listen_on_path(const char *path)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };

	if (strlen(path) >= sizeof addr.sun_path) {
		errno = ENAMETOOLONG;
		die(path);
	}
	strcpy(addr.sun_path, path);
	listen_at((struct sockaddr *)&addr, sizeof addr);
	printf("listening on unix:%s\n", path);
	fflush(stdout);
}

static void serve(void)
{
	struct epoll_event events[EVENTS];

	for (;;) {
		int n = epoll_wait(epoll_fd, events, EVENTS, -1);

		if (n < 0 && errno != EINTR)
			die("epoll_wait");
		for (int i = 0; i < n; i++) {
			struct conn *c = events[i].data.ptr;

			if (!c)
				on_acceptable();
			else if (!(c->pending ? on_writable(c) : on_readable(c)))
				conn_close(c);
		}
	}
}

static void pin(int core)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET((size_t)core, &set);
	if (sched_setaffinity(0, sizeof set, &set) != 0)
		die("sched_setaffinity");
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "port", required_argument, NULL, 'p' }, { "unix", required_argument, NULL, 'u' },
		{ "core", required_argument, NULL, 'c' }, { "zero-copy", no_argument, NULL, 'z' },
		{ "bytes", no_argument, NULL, 'b' },      { 0 },
	};
	const char *path = NULL;
	uint16_t port = 0;
	int opt;

	while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (opt) {
		case 'p':
			port = (uint16_t)strtoul(optarg, NULL, 10);
			break;
		case 'u':
			path = optarg;
			break;
		case 'c':
			pin((int)strtol(optarg, NULL, 10));
			break;
		case 'z':
			zero_copy = true;
			break;
		case 'b':
			as_bytes = true;
			break;
		default:
			fprintf(stderr, "usage: epoll_echo [--port N | --unix PATH] [--core N] [--zero-copy "
					"| --bytes]\n");
			return 2;
		}
	}
	if (path)
		listen_on_path(path);
	else
		listen_on(port);
	serve();
}
