/*
 * A channel: what an agent talks through. Every connection contains one, its first; most protocols have no other. A
 * protocol with streams of its own has further channels in a connection (further.c), each with an agent.
 *
 * A channel has what is an agent's: who it is, what it waits for, what its handlers have used. What belongs to the
 * bytes (the stream, buffers, deadlines, the end) is the connection's, `conn`.
 *
 * Threads: the connection's worker's.
 */
#pragma once

#include "base/reason.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct protocol;
struct conn;
struct reply;
struct shared;

/* How an ending treats output that is still pending. */
enum close_how {
	CLOSE_FLUSH, /* deliver it first */
	CLOSE_NOW,   /* drop it */
	CLOSE_RESET, /* drop it, and let the peer see a reset */
};

struct channel;

/*
 * A lone channel has an agent, and no connection: whose agent it is says what becomes of what it asks for. State
 * changes only: a call of its may be running. A channel that is not lone has none of these.
 */
struct lone_ops {
	/* It is to end. */
	void (*close)(struct channel *channel, enum close_reason reason, enum close_how how);
	/* Its agent is suspended, or free again. */
	void (*changed)(struct channel *channel);
};

enum { CHANNEL_TICKS_PER_TURN = 5000000 }; /* of base/ticks.h: one to five milliseconds of handlers */

struct channel {
	struct conn *conn;              /* of a lone one: open, and with nobody at the other end */
	const struct protocol *reading; /* the framing in which conn:read waits for one frame; or NULL */

	/* What calls of its handler took: time (base/ticks.h), memory allocated. The layer above adds it up. */
	uint64_t handler_ticks, handler_bytes;
	uint64_t frames_in;   /* whole frames handed up */
	uint64_t id;          /* unique in the process, ascending among first channels; 0 is nobody's */
	uint16_t batch_limit; /* frames per batch now: 1 after a suspension, doubling */
	bool busy : 1;        /* the agent is suspended: no frames, but for `reading` */
	bool owed : 1;        /* ... as replies are to come from elsewhere; its call is over */
	bool flushing : 1;    /* the agent waits until the output is gone */
	bool paused : 1;      /* by the agent */
	bool ended : 1;       /* its end was decided, whatever its connection's; never set in a first one */
	bool opened : 1;      /* the handler has yet to be told of the end; set from the start */
	bool lone : 1;        /* it is on no connection: struct lone_ops */
	bool has_queue : 1;   /* the layer above has more for it once the output is gone: conn_handler.room */

	/* The layer above: its memory in here. `agents` is set before conn_open(). */
	bool recorded : 1;      /* on the host's tape. Frames are handed up one by one */
	bool owes_writable : 1; /* to be told once it is free */
	bool has_defers : 1;
	bool has_work : 1;    /* tasks, timers, connections out */
	bool has_post : 1;    /* names, messages that wait, an address that it has sent from */
	bool has_links : 1;   /* with other connections, */
	bool is_piped : 1;    /* ... one of which gets its bytes */
	bool told_closed : 1; /* closed() was called; deferred functions may be left */
	bool overran : 1;     /* a call on its behalf was ended for the time it took */
	bool has_hub : 1;     /* it is a member of topics */
	uint32_t anchor;      /* where its agent is anchored; 0: there is none */
	uint32_t declined_by; /* the newest generation that was to take it over, and could not; 0: none */
	void *agents;
	void *suspended; /* the call that is suspended, or NULL */
};

/* ---- for the layer above: state changes only, effective from the loop ---- */

/*
 * Appends one framed reply. 0 and *below: is the output still below its mark?
 * ERR_FRAME_REPLY, UV_EPIPE when it is closing or shut.
 */
int channel_send(struct channel *channel, const void *data, size_t len, bool *below);

/*
 * The same for several replies. *sent says how many are done with. Past the high-water mark it goes on:
 * who has more than a few dozen calls it in portions.
 */
int channel_send_batch(struct channel *channel, const struct reply *replies, unsigned n, unsigned *sent);

/*
 * Appends a message by a function of the layer above, which knows what its connection speaks: 0, a code, or
 * ERR_BUFFER_LIMIT with nothing appended. About so many bytes. 0, its code, or UV_EPIPE.
 */
struct buf;
struct buf_pool;
struct session;
typedef int channel_append(void *data, struct session *session, struct buf_pool *pool, struct buf **out);
int channel_send_by(struct channel *channel, channel_append *append, void *data, size_t bytes);

/* Appends bytes that are framed already: `frames` of them. */
int channel_send_raw(struct channel *channel, const void *bytes, size_t n, unsigned frames);

/* The same of bytes that have just been read from another: what its stream takes at once is not copied. */
int channel_pass(struct channel *channel, const void *bytes, size_t n);

/*
 * The same of up to n bytes of a file, from `at` on: *passed of them, which its stream has taken without their being
 * copied. 0 of them: it takes none for now, or not so: they are to be read and sent. 0 or UV_EPIPE.
 */
int channel_pass_file(struct channel *channel, int file, uint64_t at, size_t n, size_t *passed);

/*
 * The same with a part of what is shared, which is held until it is sent: `frames` of them end with it.
 * 0 or UV_EPIPE.
 */
int channel_share(struct channel *channel, struct shared *shared, uint32_t at, uint32_t len, unsigned frames);

/*
 * The same with all of it, at once where nothing has to come first: then it is not copied, and the connection needs no
 * turn of its own for it. Who sends the same to thousands saves that.
 */
int channel_share_now(struct channel *channel, struct shared *shared, unsigned frames);

/* Asks for the end. The first reason given is the one that counts. */
void channel_close(struct channel *channel, enum close_reason reason, enum close_how how);

/* A call of its agent was ended for the time it took: the other connections have a turn before this one ends. */
void channel_give_way(struct channel *channel);

/* Half-close: once the output is gone, our end-of-stream. */
void channel_shutdown(struct channel *channel);

/* The agent is suspended, or free again. */
void channel_set_busy(struct channel *channel, bool busy);

void channel_pause(struct channel *channel);
void channel_resume(struct channel *channel);
