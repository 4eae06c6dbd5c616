/*
 * The control socket: takes clients, reads a request a line, writes a reply a line.
 *
 * It knows nothing of servers. Each request goes to one function, and is answered by control_reply() at once or
 * later; until then nothing more is read from that client. Whatever clients send, or do not read, they cost a bounded
 * amount: CONTROL_CLIENTS_MAX of them, a line of CONTROL_LINE_MAX and a reply each, CONTROL_WAIT_MS to send or read.
 *
 * Threads: the loop's.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

enum { CONTROL_CLIENTS_MAX = 32, CONTROL_LINE_MAX = 4096, CONTROL_WAIT_MS = 10000 };

struct control_client;

struct control {
	uv_loop_t *loop;
	uv_poll_t poll;
	uv_timer_t pause; /* running while there are no descriptors to accept with */
	int fd;
	bool is_open;
	struct control_client *clients;
	unsigned client_count;
	uint64_t newest_id, complained_ms;
	void *owner;
	/* `line` is not terminated. Ids are never used again, so a reply may come too late for its client. */
	void (*request)(void *owner, uint64_t client, const char *line, size_t len);
};

/*
 * Begins to accept from `fd`, a listening Unix socket that stays the caller's and outlives it. 0 or an error, and
 * then there is nothing to close.
 */
int control_open(struct control *control, uv_loop_t *loop, int fd, void *owner,
		 void (*request)(void *owner, uint64_t client, const char *line, size_t len));

/* Answers the client's request. The reply is taken; NULL (no memory) ends the client. */
void control_reply(struct control *control, uint64_t client, json_t *reply);

/* Takes no more clients, and leaves the socket alone; those there go on. */
void control_leave(struct control *control);

/* Ends all; the rest follows on the loop. Idempotent, and fine for one that was never opened and is zeroed. */
void control_close(struct control *control);
