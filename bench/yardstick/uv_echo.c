/*
 * The second yardstick: the same u32be echo on plain libuv streams.
 *
 * It does what epoll_echo does, frame for frame, through uv_read_start, uv_try_write and, for what the socket does not
 * take at once, uv_write. What it loses to epoll_echo is the price of libuv, which Perilune pays as well.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <getopt.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

enum {
	HEADER_BYTES = 4,
	MAX_FRAME = 1 << 20,
	READ_BYTES = 64 << 10,
	BACKLOG = 4096,
};

struct conn {
	uv_tcp_t tcp;
	/* The start of a frame whose end has not arrived; NULL when there is none. */
	uint8_t *part;
	size_t part_len;
};

struct pending {
	uv_write_t req;
	uint8_t bytes[];
};

/* Shared by all connections: an incomplete frame is moved to the front of `in` before the read that continues it.
 * Aligned, so that how the two lie to each other, which the speed of copying depends on, is not the linker's choice. */
static _Alignas(4096) uint8_t in[HEADER_BYTES + MAX_FRAME + READ_BYTES];
static _Alignas(4096) uint8_t out[sizeof in];

static void check(int err, const char *what)
{
	if (err < 0) {
		fprintf(stderr, "uv_echo: %s: %s\n", what, uv_strerror(err));
		exit(1);
	}
}

static void *need(void *memory)
{
	check(memory ? 0 : UV_ENOMEM, "malloc");
	return memory;
}

static void on_close(uv_handle_t *handle)
{
	struct conn *c = (struct conn *)handle;

	free(c->part);
	free(c);
}

static void conn_close(struct conn *c)
{
	if (!uv_is_closing((uv_handle_t *)&c->tcp))
		uv_close((uv_handle_t *)&c->tcp, on_close);
}

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
	struct conn *c = (struct conn *)handle;

	(void)suggested;
	if (c->part_len)
		memcpy(in, c->part, c->part_len);
	*buf = uv_buf_init((char *)in + c->part_len, READ_BYTES);
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

static void on_read(uv_stream_t *stream, ssize_t got, const uv_buf_t *buf);

static void on_written(uv_write_t *req, int status)
{
	struct conn *c = (struct conn *)req->handle;

	if (status < 0)
		conn_close(c);
	else
		check(uv_read_start(req->handle, on_alloc, on_read), "uv_read_start");
	free(req);
}

/* Sends what the socket takes and queues the rest; nothing is read until that is gone. */
static void reply(struct conn *c, size_t len)
{
	uv_stream_t *stream = (uv_stream_t *)&c->tcp;
	uv_buf_t buf = uv_buf_init((char *)out, (unsigned)len);
	int sent = uv_try_write(stream, &buf, 1);
	struct pending *rest;

	if (sent == (int)len)
		return;
	if (sent < 0 && sent != UV_EAGAIN) {
		conn_close(c);
		return;
	}
	if (sent < 0)
		sent = 0;
	len -= (size_t)sent;
	rest = need(malloc(sizeof *rest + len));
	memcpy(rest->bytes, out + sent, len);
	buf = uv_buf_init((char *)rest->bytes, (unsigned)len);
	uv_read_stop(stream);
	check(uv_write(&rest->req, stream, &buf, 1, on_written), "uv_write");
}

static void on_read(uv_stream_t *stream, ssize_t got, const uv_buf_t *buf)
{
	struct conn *c = (struct conn *)stream;
	size_t have;
	ssize_t whole;

	(void)buf;
	if (got < 0)
		conn_close(c);
	if (got <= 0)
		return;
	have = c->part_len + (size_t)got;
	free(c->part);
	c->part = NULL;
	c->part_len = 0;
	whole = echo_frames(have);
	if (whole < 0) {
		conn_close(c);
		return;
	}
	if ((size_t)whole < have) {
		c->part_len = have - (size_t)whole;
		c->part = memcpy(need(malloc(c->part_len)), in + whole, c->part_len);
	}
	if (whole > 0)
		reply(c, (size_t)whole);
}

static void on_connection(uv_stream_t *listener, int status)
{
	struct conn *c;

	check(status, "accept");
	c = need(calloc(1, sizeof *c));
	check(uv_tcp_init(listener->loop, &c->tcp), "uv_tcp_init");
	if (uv_accept(listener, (uv_stream_t *)&c->tcp) != 0) {
		conn_close(c);
		return;
	}
	uv_tcp_nodelay(&c->tcp, 1);
	check(uv_read_start((uv_stream_t *)&c->tcp, on_alloc, on_read), "uv_read_start");
}

static void listen_on(uv_tcp_t *listener, int port)
{
	struct sockaddr_in addr;
	int len = sizeof addr;

	check(uv_ip4_addr("127.0.0.1", port, &addr), "address");
	check(uv_tcp_init(uv_default_loop(), listener), "uv_tcp_init");
	check(uv_tcp_bind(listener, (const struct sockaddr *)&addr, 0), "bind");
	check(uv_listen((uv_stream_t *)listener, BACKLOG, on_connection), "listen");
	check(uv_tcp_getsockname(listener, (struct sockaddr *)&addr, &len), "getsockname");
	printf("listening on 127.0.0.1:%u\n", (unsigned)ntohs(addr.sin_port));
	fflush(stdout);
}

static void pin(int core)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET((size_t)core, &set);
	check(sched_setaffinity(0, sizeof set, &set), "sched_setaffinity");
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "port", required_argument, NULL, 'p' },
		{ "core", required_argument, NULL, 'c' },
		{ 0 },
	};
	static uv_tcp_t listener;
	int port = 0, opt;

	while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (opt) {
		case 'p':
			port = (int)strtol(optarg, NULL, 10);
			break;
		case 'c':
			pin((int)strtol(optarg, NULL, 10));
			break;
		default:
			fprintf(stderr, "usage: uv_echo [--port N] [--core N]\n");
			return 2;
		}
	}
	signal(SIGPIPE, SIG_IGN);
	listen_on(&listener, port);
	return uv_run(uv_default_loop(), UV_RUN_DEFAULT);
}
