/*
 * One client of the control socket. Reading and waiting for a reply exclude each other, so there is never more than
 * a request and a reply of it.
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
	char *reply;      /* being written, or NULL */
	unsigned handles; /* that are not yet closed; with the last one the memory goes */
	bool busy;        /* a request waits for its reply, or this for being read */
	bool last;        /* it ends with this reply */
	size_t used;
	char line[CONTROL_LINE_MAX + 1]; /* and its line feed */
};

/* Takes the descriptor. NULL: no memory, and it is closed. */
struct control_client *client_open(struct control *control, int fd);

/* Takes the reply. */
void client_reply(struct control_client *client, json_t *reply);

/* Leaves the control's list; its memory goes later. Idempotent. */
void client_close(struct control_client *client);
