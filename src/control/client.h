/*
 * One client of the control socket. Reading and waiting for a reply exclude each other, so there is never more than
 * a request and a reply of it; or, in place of the latter, the piece of a stream that is on its way.
 *
 * Threads: the loop's.
 */
#pragma once

#include "control/control.h"

struct control_client {
	struct control *control;
	struct control_client *next;
	uint64_t id;
	uv_pipe_t pipe;
	uv_timer_t timer; /* runs while the client has to send or to read */
	uv_write_t write;
	char *reply;      /* being written, or NULL; the same for pieces of a stream */
	unsigned handles; /* that are not yet closed; with the last one the memory goes */
	bool busy;        /* a request waits for its reply, or this for being read */
	bool last;        /* it ends with this reply */
	bool streams;     /* it is sent what there is; it has nothing to say any more */
	size_t used;
	char line[CONTROL_LINE_MAX + 1]; /* and its line feed */
};

/* Takes the descriptor. NULL: no memory, and it is closed. */
struct control_client *client_open(struct control *control, int fd);

/* Takes the reply. */
void client_reply(struct control_client *client, json_t *reply);

/* Takes the reply; a stream follows. */
void client_stream(struct control_client *client, json_t *reply);

/* Takes the bytes. */
void client_send(struct control_client *client, char *bytes, size_t n);

/* Leaves the control's list; its memory goes later. Idempotent. */
void client_close(struct control_client *client);
