#define _GNU_SOURCE
#include "dial.h"

#include "tls.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { PATIENCE_MS = 5000 };

/* The port is chosen at connect(), when both ends are known: each pair of addresses has all ephemeral ports. */
static int bind_source(int fd, uint32_t host)
{
	struct sockaddr_in source = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(host) };
	const int on = 1;

	if (setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on) != 0)
		return -1;
	return bind(fd, (struct sockaddr *)&source, sizeof source);
}

/* A non-blocking socket on its way to the server, or -1 with errno. */
static int socket_to(const struct options *o, uint64_t nth, int type)
{
	struct sockaddr_in server = { .sin_family = AF_INET, .sin_port = htons(o->port) };
	const int on = 1;
	int fd = socket(AF_INET, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return -1;
	if (inet_pton(AF_INET, o->host, &server.sin_addr) != 1) {
		errno = EINVAL;
		goto fail;
	}
	if (o->sources > 1 && bind_source(fd, INADDR_LOOPBACK + (uint32_t)(nth % (uint64_t)o->sources)) != 0)
		goto fail;
	/* Nagle's algorithm would keep a frame behind the handshake until the server sends something, or 40 ms. */
	if (o->tls)
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	if (connect(fd, (struct sockaddr *)&server, sizeof server) == 0 || errno == EINPROGRESS)
		return fd;
fail:;
	int err = errno;
	close(fd);
	errno = err;
	return -1;
}

int dial_start(const struct options *o, uint64_t nth)
{
	return socket_to(o, nth, SOCK_STREAM);
}

int dial_datagrams(const struct options *o, uint64_t nth)
{
	int fd = socket_to(o, nth, SOCK_DGRAM);

	if (fd < 0)
		die("connect");
	return fd;
}

int dial(const struct options *o, uint64_t nth)
{
	int fd = dial_start(o, nth), err = ETIMEDOUT;
	socklen_t len = sizeof err;
	const int on = 1;

	if (fd < 0)
		die("connect");
	if (dial_wait(fd, POLLOUT))
		getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &len);
	errno = err;
	if (err)
		die("connect");
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	return fd;
}

bool dial_wait(int fd, short events)
{
	struct pollfd p = { .fd = fd, .events = events };

	return poll(&p, 1, PATIENCE_MS) == 1;
}

bool dial_send(int fd, SSL *tls, const uint8_t *bytes, size_t len)
{
	while (len) {
		ssize_t sent = tls ? tls_send(tls, bytes, len) : send(fd, bytes, len, MSG_NOSIGNAL);

		if (sent < 0 && (errno != EAGAIN || !dial_wait(fd, POLLOUT)))
			return false;
		if (sent > 0) {
			bytes += sent;
			len -= (size_t)sent;
		}
	}
	return true;
}

size_t dial_receive_some(int fd, SSL *tls, uint8_t *bytes, size_t len)
{
	for (;;) {
		ssize_t got = tls ? tls_recv(tls, bytes, len) : recv(fd, bytes, len, 0);

		if (got >= 0)
			return (size_t)got;
		if (errno != EAGAIN || !dial_wait(fd, POLLIN))
			return 0;
	}
}

bool dial_receive(int fd, SSL *tls, uint8_t *bytes, size_t len)
{
	while (len) {
		size_t got = dial_receive_some(fd, tls, bytes, len);

		if (!got)
			return false;
		bytes += got;
		len -= got;
	}
	return true;
}
