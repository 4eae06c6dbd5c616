/*
 * The yardstick of TLS: epoll_echo.c with OpenSSL between it and the socket.
 *
 * One thread, level-triggered epoll, TLS 1.3. An event reads the records that one read(2) brings, copies their complete
 * frames to a shared output buffer and writes that as one record, or as few as there can be. OpenSSL reads ahead, so
 * that a read(2) is not one for a record's head and one for the rest, and gives its buffers back between records, so
 * that an idle connection has none. Sessions are kept by clients, in one ticket each.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
	HEADER_BYTES = 4,
	MAX_FRAME = 1 << 20,
	READ_BYTES = 64 << 10,
	BACKLOG = 4096,
	EVENTS = 512,
};

struct conn {
	SSL *ssl;
	int fd;
	uint32_t watched;
	bool ended; /* by the peer's close_notify */
	/* The start of a frame whose end has not arrived; NULL when there is none. */
	uint8_t *part;
	size_t part_len;
	/* Replies the socket did not take; while there are any, nothing is read. */
	uint8_t *pending;
	size_t pending_at, pending_len;
};

static int epoll_fd, listen_fd;
static SSL_CTX *context;

/* Shared by all connections: an incomplete frame is moved to the front of `in` before the read that continues it. */
static _Alignas(4096) uint8_t in[HEADER_BYTES + MAX_FRAME + READ_BYTES];
static _Alignas(4096) uint8_t out[sizeof in];

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static void die_of_tls(const char *what)
{
	fprintf(stderr, "%s: ", what);
	ERR_print_errors_fp(stderr);
	exit(1);
}

static void conn_close(struct conn *c)
{
	if (c->ended)
		SSL_shutdown(c->ssl);
	SSL_free(c->ssl);
	close(c->fd);
	free(c->part);
	free(c->pending);
	free(c);
}

static void watch(struct conn *c, uint32_t events)
{
	struct epoll_event ev = { .events = events, .data.ptr = c };

	if (c->watched == events)
		return;
	if (epoll_ctl(epoll_fd, EPOLL_CTL_MOD, c->fd, &ev) != 0)
		die("epoll_ctl");
	c->watched = events;
}

static void *copy_of(const uint8_t *bytes, size_t len)
{
	void *copy = malloc(len);

	if (!copy)
		die("malloc");
	return memcpy(copy, bytes, len);
}

/* After a call of OpenSSL's that failed: can it be repeated once the socket is ready? Then it watches for that. */
static bool may_go_on(struct conn *c)
{
	int error = SSL_get_error(c->ssl, 0);

	if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE) {
		watch(c, error == SSL_ERROR_WANT_READ ? EPOLLIN : EPOLLOUT);
		return true;
	}
	c->ended = error == SSL_ERROR_ZERO_RETURN;
	ERR_clear_error();
	return false;
}

/* Sends what the socket takes, record by record, and says how much that was. False: it is beyond use. */
static bool send_records(struct conn *c, const uint8_t *bytes, size_t len, size_t *sent)
{
	size_t put;

	for (*sent = 0; *sent < len; *sent += put)
		if (SSL_write_ex(c->ssl, bytes + *sent, len - *sent, &put) != 1)
			return may_go_on(c);
	return true;
}

/* Sends what the socket takes and keeps the rest. Returns false when the connection is beyond use. */
static bool reply(struct conn *c, const uint8_t *bytes, size_t len)
{
	size_t sent;

	if (!send_records(c, bytes, len, &sent))
		return false;
	if (sent < len) {
		c->pending_len = len - sent;
		c->pending_at = 0;
		c->pending = copy_of(bytes + sent, c->pending_len);
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
		memcpy(out + at, &header, sizeof header);
		memcpy(out + at + HEADER_BYTES, in + at + HEADER_BYTES, size);
		at += HEADER_BYTES + size;
	}
	return (ssize_t)at;
}

/* Decrypts what is at hand, up to READ_BYTES, and says how much that was. False: no more will come. */
static bool receive_records(struct conn *c, uint8_t *to, size_t *got)
{
	size_t more;

	*got = 0;
	do {
		if (SSL_read_ex(c->ssl, to + *got, READ_BYTES - *got, &more) != 1)
			return may_go_on(c);
		*got += more;
	} while (*got < READ_BYTES && SSL_has_pending(c->ssl));
	watch(c, EPOLLIN);
	return true;
}

/* As epoll_echo.c does it, from the bytes kept on. */
static bool reply_to(struct conn *c, size_t len)
{
	ssize_t whole = echo_frames(len);

	if (whole < 0)
		return false;
	if ((size_t)whole < len) {
		c->part_len = len - (size_t)whole;
		c->part = copy_of(in + whole, c->part_len);
	}
	return whole == 0 || reply(c, out, (size_t)whole);
}

/* The handshake is a part of the first reads. Of what OpenSSL has read ahead no event would tell. */
static bool on_readable(struct conn *c)
{
	size_t kept, got;
	bool fine;

	do {
		kept = c->part_len;
		if (kept)
			memcpy(in, c->part, kept);
		fine = receive_records(c, in + kept, &got);
		if (got == 0)
			return fine;
		free(c->part);
		c->part = NULL;
		c->part_len = 0;
		fine = reply_to(c, kept + got) && fine;
	} while (fine && got == READ_BYTES && !c->pending && SSL_has_pending(c->ssl));
	return fine;
}

static bool on_writable(struct conn *c)
{
	size_t sent;

	if (!send_records(c, c->pending + c->pending_at, c->pending_len - c->pending_at, &sent))
		return false;
	c->pending_at += sent;
	if (c->pending_at < c->pending_len)
		return true;
	free(c->pending);
	c->pending = NULL;
	watch(c, EPOLLIN);
	return !SSL_has_pending(c->ssl) || on_readable(c);
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
		c->watched = EPOLLIN;
		c->ssl = SSL_new(context);
		if (!c->ssl || SSL_set_fd(c->ssl, fd) != 1)
			die_of_tls("SSL_new");
		SSL_set_accept_state(c->ssl);
		struct epoll_event ev = { .events = EPOLLIN, .data.ptr = c };
		if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &ev) != 0)
			die("epoll_ctl");
	}
}

static void prepare_tls(const char *certificate, const char *key)
{
	context = SSL_CTX_new(TLS_server_method());
	if (!context || SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION) != 1 ||
	    SSL_CTX_set_ciphersuites(context, "TLS_AES_128_GCM_SHA256") != 1)
		die_of_tls("SSL_CTX_new");
	SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE |
				      SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
	SSL_CTX_set_read_ahead(context, 1);
	SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
	SSL_CTX_set_num_tickets(context, 1);
	if (SSL_CTX_use_certificate_chain_file(context, certificate) != 1)
		die_of_tls(certificate);
	if (SSL_CTX_use_PrivateKey_file(context, key, SSL_FILETYPE_PEM) != 1)
		die_of_tls(key);
}

static void listen_on(uint16_t port)
{
	struct sockaddr_in addr = { .sin_family = AF_INET, .sin_port = htons(port) };
	struct epoll_event ev = { .events = EPOLLIN };
	socklen_t len = sizeof addr;
	const int on = 1;

	addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	listen_fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (listen_fd < 0)
		die("socket");
	setsockopt(listen_fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
	if (bind(listen_fd, (struct sockaddr *)&addr, sizeof addr) != 0)
		die("bind");
	if (listen(listen_fd, BACKLOG) != 0)
		die("listen");
	if (getsockname(listen_fd, (struct sockaddr *)&addr, &len) != 0)
		die("getsockname");
	epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (epoll_fd < 0 || epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listen_fd, &ev) != 0)
		die("epoll");
	printf("listening on 127.0.0.1:%u\n", (unsigned)ntohs(addr.sin_port));
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

static int wrong_usage(void)
{
	fprintf(stderr, "usage: epoll_tls_echo --certificate PEM --key PEM [--port N] [--core N]\n");
	return 2;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "port", required_argument, NULL, 'p' },
		{ "core", required_argument, NULL, 'c' },
		{ "certificate", required_argument, NULL, 'C' },
		{ "key", required_argument, NULL, 'k' },
		{ 0 },
	};
	const char *certificate = NULL, *key = NULL;
	uint16_t port = 0;
	int opt;

	while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (opt) {
		case 'p':
			port = (uint16_t)strtoul(optarg, NULL, 10);
			break;
		case 'c':
			pin((int)strtol(optarg, NULL, 10));
			break;
		case 'C':
			certificate = optarg;
			break;
		case 'k':
			key = optarg;
			break;
		default:
			return wrong_usage();
		}
	}
	if (!certificate || !key)
		return wrong_usage();
	signal(SIGPIPE, SIG_IGN); /* OpenSSL's sockets write(2) */
	prepare_tls(certificate, key);
	listen_on(port);
	serve();
}
