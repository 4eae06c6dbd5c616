/*
 * The other end of a connection in memory: what a client sends, and what it gets, with the times.
 *
 * Its moves take effect when the world settles (world.h).
 */
#pragma once

#include "conn/conn.h"
#include "frame/codec.h"
#include "stream/memory.h"

struct endpoint;
struct wire;
struct world;
struct world_worker;
struct tls_client;

/* From this byte of what was received on, it came at that time. */
struct peer_mark {
	size_t offset;
	uint64_t at_ms;
};

/* The layers of its connection's stream lie behind it. */
struct peer {
	struct conn conn; /* first */
	struct memory_stream memory;
	struct tls_client *tls; /* of a listener with TLS, unless it is to speak plainly; or NULL */
	struct world *world;
	struct world_worker *worker; /* who has its connection; of one that has none: the first */
	struct agents *agents;       /* whose codec it has */
	struct wire *wire; /* which carries what it says: lan.h; NULL: it is a specification's client */
	struct peer *next_live, **live_link; /* of those whose connection is not yet gone */
	uint16_t listener;
	uint64_t id;     /* of its connection */
	unsigned number; /* of a specification's client, in the network's history; 0: none yet */
	/* All that came, and how far it was taken apart. */
	uint8_t *received;
	size_t received_bytes, received_room, taken_bytes;
	struct peer_mark *marks;
	size_t mark_count, mark_room;
	struct session session; /* the codec's */
	struct codec
	    codec; /* the listener's; but limits.frame is for what the server gets, not for its replies */
	uint64_t ended_ms;
	size_t may_read; /* bytes that it still takes; SIZE_MAX: all that come */
	bool refused;    /* at the door: there is no connection */
	bool gone;       /* the connection is over, but for what is yet to be looked at here */
	bool ended;      /* its agent was told */
	bool left;       /* the client has hung up */
	bool end_seen;
	bool has_space;    /* it counts for limits.per_ip */
	bool is_placed;    /* it is clear whose client it is to be: a flow's stay with their worker */
	bool waits;        /* for its worker, which is stalled: its connection is yet to begin */
	bool is_websocket; /* for the network's history: history_show_way() */
	bool is_flow;      /* of datagrams: its connection begins with what it sends, and perhaps again */
	uint64_t end_seen_ms;
};

/*
 * Of a listener's connection; NULL: no memory. Owned by the world. `is_bare`: it has no layers; what it sends is what
 * they would have made of it.
 */
struct peer *peer_new(struct world *world, unsigned listener, bool is_bare);
void peer_free(struct peer *peer);

/* Frames are as these agents' listener has them, from now on. */
void peer_speak(struct peer *peer, struct agents *agents);

/* It sends these; in its next turn they are there. False: no memory. */
bool peer_send(struct peer *peer, const void *bytes, size_t n);

/*
 * A datagram, as a record, has come to a connection of this endpoint: put to its stream, or dropped and counted where a
 * socket would: it is too large, or too many wait already.
 */
void peer_put_datagram(struct memory_stream *to, const struct endpoint *endpoint, struct counters *counters,
		       const uint8_t *record, size_t n);

/* It sends no more. */
void peer_half_close(struct peer *peer);

/* What its TLS has to say is on its way. */
void peer_begin_tls(struct peer *peer, struct tls_client *tls);

/* Takes what was sent to it, unless it does not read; closes where clients do. True: something happened. */
bool peer_look(struct peer *peer);

/* Bytes as if they had been received; false: no memory. */
bool peer_receive(struct peer *peer, const void *bytes, size_t n);

/* Reads no more than so many bytes from now on; SIZE_MAX: goes on. */
void peer_stall(struct peer *peer, size_t bytes);

/* As close(2): its side ends, and whoever sends to it gets a reset. */
void peer_hang_up(struct peer *peer);

/* Why it ended, or REASON_NONE: it has not. */
enum close_reason peer_reason(const struct peer *peer);

/*
 * The next frame of what was received: 1, and batch->frames[0] until more is received; 0: there is none yet; or the
 * error that batch->error tells of.
 */
int peer_next_frame(struct peer *peer, struct batch *batch);

/* When the byte came. */
uint64_t peer_time_of(const struct peer *peer, size_t offset);
