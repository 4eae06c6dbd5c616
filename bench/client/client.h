#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct options {
	const char *host; /* dotted IPv4 */
	uint16_t port;
	pid_t server_pid;  /* zero: unknown, what concerns the server is reported as null */
	pid_t backend_pid; /* another process that the server asks, reported apart; zero: there is none */
	int connections;
	int pipeline; /* frames, requests, messages in flight on each connection */
	int sources;  /* how many addresses 127.0.0.1, 127.0.0.2 … to connect from */
	size_t size;  /* bytes of payload, at least 8, of a WebSocket 16 */
	double warmup_s, duration_s, hold_s;
	bool verify; /* compare the serial number of every reply as well */
	bool tls;
	bool udp;
	bool resume; /* sessions of TLS */
	/* What is said in place of frames; NULL both: frames are. */
	const char *http;      /* the file of a request */
	const char *websocket; /* a path */
	bool binary;           /* messages of WebSockets, which are text otherwise */
	bool redis;            /* fan: RESP in place of frames */
	bool deflate;          /* offers permessage-deflate, and uses it */
};

/* The modes. Each prints one JSON object and returns the exit status: 0, or 1 when errors were counted. */
int load_run(const struct options *o);
int idle_run(const struct options *o);
int churn_run(const struct options *o);
int rss_run(const struct options *o);
int fan_run(const struct options *o);

/* load_run() with --udp. */
int udp_run(const struct options *o);

/* Reports what (with errno, when it is not zero) and exits with status 2. */
_Noreturn void die(const char *what);

/* Zeroed memory; never NULL. */
void *need_zeroed(size_t count, size_t size);
