/*
 * One client of the control socket. It has one request at a time, and a reply to it; or, in place of the latter, the
 * piece of a stream that is on its way. While it waits for a reply it is read on, within the room for a line: that is
 * how we learn that it has gone.
 *
 * Threads: the loop's.
 */
#pragma once

#include "control/control.h"

struct control_client {
	struct control *control;
	struct control_client *next; /* younger ones come first */
	uint64_t id, since_ms;
	struct watched watched;
	uv_timer_t timer; /* runs while the client has to send or to read */
	char *reply;      /* on its way, or NULL; the same for pieces of a stream */
	size_t reply_size, reply_at;
	bool is_reserve; /* it has one of the places that are kept for who does not stay */
	bool busy;       /* a request waits for its reply, or this for being read */
	bool last;       /* it ends with this reply */
	bool streams;    /* it is sent what there is; it has nothing to say any more */
	bool eof;        /* it has ended its side */
	size_t used;
	char line[CONTROL_LINE_MAX + 1]; /* and its line feed */
};

/* control.c: closes the descriptor of a client, or keeps it back for another. */
void control_release(struct control *control, int fd);

/* Takes the descriptor. NULL: no memory, or the kernel does not watch it, and it is closed. */
struct control_client *client_open(struct control *control, int fd);

/* Takes the reply. */
void client_reply(struct control_client *client, json_t *reply);

/* Takes the reply; a stream follows. */
void client_stream(struct control_client *client, json_t *reply);

/* Takes the bytes. */
void client_send(struct control_client *client, char *bytes, size_t n);

/* Leaves the control's list, without its descriptor, which is the caller's; its memory goes later. -1: it has left. */
int client_leave(struct control_client *client);

/* The same, and closes the descriptor. Idempotent. */
void client_close(struct control_client *client);
