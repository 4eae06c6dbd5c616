/*
 * Connections over streams in memory, with everything around them: a worker's share, a clock, and agents that
 * check at each call that they are called as promised. It asserts, and so serves programs without cmocka too.
 */
#pragma once

#include "base/counters.h"
#include "conn/conn.h"
#include "frame/codec.h"
#include "stream/memory.h"
#include "stream/proxy.h"
#include "stream/socket.h"
#include "support/nasty.h"

enum { START_MS = 5, FRAME_MAX_BYTES = 10000, CLIENTS = 40, LAYERS_MAX = 2, TOP_BYTES = 4096 };

/* A connection, its peer, and what its agent has seen and shall do. */
struct client {
	struct conn conn;         /* first */
	struct endpoint endpoint; /* its own */
	struct memory_stream memory;
	struct socket_stream socket;               /* instead of `memory`, where there is a poller */
	_Alignas(max_align_t) char top[TOP_BYTES]; /* world_top's, above all others */
	struct nasty_stream nasty[LAYERS_MAX];     /* above, so many as `layers` says, the lower one first */
	void *proxy;                               /* its state, of who comes by one */
	char seen[4096];                           /* "frame|frame|", and EOF, TIMEOUT … */
	const char *refused;                       /* why, where it was */
	const char *failure;                       /* what its stream had failed for when it ended */
	char failure_text[128];                    /* ... in its own words, which go with it */
	unsigned opened, closed, left, gone, eofs, timeouts, writables, flushes, drains, bad_frames;
	enum close_reason reason;
	enum timeout_kind timeout_kind;
	uint64_t ended_ms, drain_remaining_ms;
	void (*on_frame)(struct client *client, const char *text);
	enum eof_answer eof_answer;
	bool echo, keep, drain_keeps;
	/* conn_model.c's */
	char rest[4096]; /* of a frame begun */
	unsigned slot, frames_begun, frames_put, frames_seen, sent, received, number;
	unsigned layers;
	bool wild; /* sends anything, in any framing */
};

extern struct conn_host host;
extern struct counters counters;
extern struct conn_rules rules; /* of connections that begin */
extern struct codec line, u8;
extern uint64_t now_ms;
extern struct client *clients[CLIENTS];
extern const struct protocol *world_protocol; /* of connections that begin: lines, at first */
extern struct layer world_top;                /* a layer that they have above the others; none, at first */
extern uint64_t world_frames;                 /* that agents were handed */
extern bool world_frees;                      /* memory of connections that are gone, and their place */

/* 0 or an error. */
int world_start(size_t buffer_limit_bytes);

struct client *world_join(unsigned slot);

/* The same behind nasty streams, one or two, which choose like this, and fail at that call; 0: never. */
struct client *world_join_nasty(unsigned slot, unsigned layers, uint32_t (*choose)(uint32_t bound),
				unsigned fails_in);

/*
 * The same behind a proxy, or perhaps behind one. It comes from 10.0.0.1, and `trust` may be NULL: everybody is. This
 * has arrived already.
 */
struct client *world_join_proxied(unsigned slot, const struct proxy_settings *settings,
				  const struct networks *trust, const char *arrived);

/* Does one of them wait for something that only the peer can do, in an unusual place? */
bool world_is_stuck(const struct client *client);

/* The same over a socket, nasty or not. */
struct client *world_join_socket(unsigned slot, struct poller *poller, int fd, bool is_nasty,
				 uint32_t (*choose)(uint32_t bound));

/* What its peer sends: as it is on the wire. And what its peer has received, as it was sent; returns how many bytes. */
void world_put(struct client *client, const void *bytes, size_t n);
size_t world_take(struct client *client, void *to, size_t n);

/* Its events, until nothing more happens to it. */
void world_serve(struct client *client);

/* Polls and turns until nothing more happens. */
void world_run(void);

/* May its agent be given frames now? */
bool world_may_go_on(const struct conn *conn);

/* Ends whatever is left; then nothing may be held, and the sums must be right. */
void world_end(void);
