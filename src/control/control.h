/*
 * The control socket: takes clients, reads a request a line, writes a reply a line.
 *
 * It knows nothing of servers. Each request goes to one function, and is answered by control_reply() at once or
 * later; until then that client is only read to see it go. Whatever clients send, or do not read, they cost a bounded
 * amount: a line of CONTROL_LINE_MAX and a reply each, CONTROL_WAIT_MS to send or read.
 *
 * CONTROL_CLIENTS_MAX of them may stay for as long as what they have asked for takes. When they all do, there are
 * CONTROL_RESERVE places more for who wants to know why, or to end it: a request from there is to be answered at once,
 * and the next one who comes takes the place of who has been there longest. So nobody can be kept out. The same holds
 * when the process has no descriptors any more: CONTROL_RESERVE of them are kept back.
 *
 * A request may also be answered with a stream: after the reply more is sent, piece by piece as the client takes it,
 * and all that the client can do then is to end its side, or to go.
 *
 * Threads: the loop's.
 */
#pragma once

#include "loop/reactor.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

enum { CONTROL_CLIENTS_MAX = 32, CONTROL_RESERVE = 4, CONTROL_LINE_MAX = 4096, CONTROL_WAIT_MS = 10000 };

struct control_client;

enum stream_event {
	STREAM_SENT,  /* the reply, or the piece that was given last: there is room for another */
	STREAM_ENDED, /* the client has ended its side; it still takes what it is sent */
	STREAM_GONE,  /* the client is no more. The last one */
};

struct control {
	struct reactor *reactor;
	struct watched watched;
	uv_timer_t pause; /* running while there are no descriptors to accept with */
	int fd;
	bool is_open;
	bool keeps;      /* descriptors back */
	bool is_starved; /* and whoever came last has got one of these */
	int spares[CONTROL_RESERVE], spare_count;
	struct control_client *clients;
	unsigned client_count;
	uint64_t newest_id, complained_ms;
	void *owner;
	/* `line` is not terminated. Ids are never used again, so a reply may come too late for its client. */
	void (*request)(void *owner, uint64_t client, const char *line, size_t len);
	void (*gone)(void *owner, uint64_t client); /* whether or not it waited for something */
	void (*stream)(void *owner, uint64_t client,
		       enum stream_event event); /* NULL: there are no streams */
};

/*
 * Begins to accept from `fd`, a listening Unix socket that stays the caller's and outlives it. 0 or an error, and
 * then there is nothing to close.
 */
int control_open(struct control *control, struct reactor *reactor, int fd, void *owner,
		 void (*request)(void *owner, uint64_t client, const char *line, size_t len),
		 void (*gone)(void *owner, uint64_t client));

/* Has it one of the places where one does not wait? */
bool control_is_reserve(const struct control *control, uint64_t client);

/* Answers the client's request. The reply is taken; NULL (no memory) ends the client. */
void control_reply(struct control *control, uint64_t client, json_t *reply);

/*
 * Lets go of a client whose request is yet to be answered: its descriptor, which does not block, is the caller's.
 * -1: it is no more.
 */
int control_take(struct control *control, uint64_t client);

/* Answers, with a stream to follow, of which control->stream tells. */
void control_stream(struct control *control, uint64_t client, json_t *reply);

/* Sends the next piece of a stream, after STREAM_SENT; takes what malloc() made. False: the client is no more. */
bool control_send(struct control *control, uint64_t client, char *bytes, size_t n);

/* Ends a stream, all of which was sent, or is wanted no more; and with it the client. */
void control_end(struct control *control, uint64_t client);

/*
 * Accepts from another socket from now on, once who waits at the one so far is in. 0, or an error: then nothing has
 * changed.
 */
int control_move(struct control *control, int fd);

/* Takes no more clients, and leaves the socket alone; those there go on. */
void control_leave(struct control *control);

/* Ends all; the rest follows on the loop. Idempotent, and fine for one that was never opened and is zeroed. */
void control_close(struct control *control);
