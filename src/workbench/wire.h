/*
 * The wire between two apps in memory: the connection out of the one, and the connection in to the other that it
 * becomes. What the one says goes along a lane, as segments, and arrives when the link between them lets it, in the
 * order in which it was said. So do the attempt to connect, its answer, and ends. A wire of datagrams has none of
 * these: wire_datagrams.h.
 *
 * Threads: one owner.
 */
#pragma once

#include "agent/client.h"
#include "stream/memory.h"
#include "workbench/lan.h"

struct peer;
struct world_worker;

enum { WIRE_WINDOW_BYTES = 65536 }; /* that may be on their way, in each direction */

enum segment_kind {
	SEGMENT_CONNECT,
	SEGMENT_ACCEPT,
	SEGMENT_REFUSE,
	SEGMENT_BYTES, /* on a wire of datagrams: one of them, as a record (net/datagram.h) */
	SEGMENT_END,
	SEGMENT_RESET
};

struct segment {
	struct segment *next;
	uint64_t due_ms;
	enum segment_kind kind;
	bool is_kept; /* a datagram that has come to an app which is stalled */
	size_t count; /* of its bytes */
	uint8_t bytes[];
};

/* One direction. */
struct lane {
	struct segment *first, **end;
	size_t bytes;         /* on their way */
	uint64_t last_due_ms; /* nothing overtakes */
	uint64_t free_us;     /* when a slow link has passed on all that it was given */
	bool is_ended;        /* its sender has said the end, */
	bool is_cut;          /* nothing more is taken from it, */
	bool is_reset;        /* ... for there was a reset */
};

enum way { WAY_THERE, WAY_BACK }; /* from who has connected; to it */

/* The client's end of a wire. The layers of its stream lie behind it. */
struct near_end {
	struct outgoing_conn made; /* first */
	struct memory_stream memory;
	struct wire *wire;
};

/* Where somebody would be who is connected to. */
struct place {
	bool is_local;
	bool is_datagram; /* over UDP */
	char *host;       /* or the path */
	uint16_t port;
};

struct wire {
	struct wire *next;
	struct lan *lan;
	struct world *from;          /* NULL: it is closed */
	struct world_worker *worker; /* of that world; NULL, too */
	struct attempt *attempt;     /* NULL: it is connected, or nobody wants it any more */
	struct inquiry *inquiry;     /* it is none, but a question for an address; or NULL */
	struct place place;
	struct near_end *near;                       /* NULL: there is none yet, or it is gone */
	struct peer *far;                            /* NULL: nobody has answered, or its world is closed */
	const struct lan_node *near_node, *far_node; /* NULL: none, or none that is known */
	struct lane lanes[2];                        /* by enum way */
	unsigned number;                             /* of the connection, in the history */
	uint16_t source;                             /* of datagrams: the port that they come from */
	bool is_queued;                              /* it is connected, and yet to be accepted */
	bool is_opaque;                              /* what goes along it is TLS */
	bool is_websocket;                           /* ... or frames of a WebSocket: history_show_way() */
};

/* A wire, after those that the network has. NULL: no memory. */
struct wire *wire_new(struct lan *lan, struct world *from, const char *host);
void wire_free(struct wire *wire);

/* Something is on its way. */
void wire_say(struct wire *wire, enum way way, enum segment_kind kind, const void *bytes, size_t n);

/* All that this end has written is on its way, however much that is; and its end, for it is about to go. */
void wire_flush(struct wire *wire, enum way way);

/* Nothing more comes from there. */
void wire_cut(struct wire *wire, enum way way);

/* What came that way came to nobody: who says something is told by a reset, unless nobody is there to tell. */
void wire_reject(struct wire *wire, enum way way);

/* A reset in between: both ends see it, and what was on its way is lost. */
void wire_break(struct wire *wire);

/* Carries what is due. True: something has happened. */
bool wire_carry(struct wire *wire);

/* When something arrives next; WHEEL_NEVER. */
uint64_t wire_next_ms(const struct wire *wire);

/* Nobody has anything to do with it any more. */
bool wire_is_over(const struct wire *wire);

/* A line of the history. */
void wire_note(const struct wire *wire, enum way way, const char *what);

/* The same of a refusal: what was asked for. `fate`: as in wire_datagrams.c. */
void wire_note_refusal(const struct wire *wire, const char *fate);

/* ---- for wire_datagrams.c ---- */

static inline enum way way_back(enum way way)
{
	return way == WAY_THERE ? WAY_BACK : WAY_THERE;
}

/* Who speaks that way; NULL: nobody is there. */
struct memory_stream *wire_speaker(const struct wire *wire, enum way way);

static inline const struct lan_node *wire_node_at(const struct wire *wire, enum way way)
{
	return way == WAY_THERE ? wire->near_node : wire->far_node;
}

/* When n bytes that are said now arrive, if nothing before them holds them up. */
uint64_t wire_due_ms(struct wire *wire, enum way way, size_t n);

struct segment *wire_new_segment(enum segment_kind kind, uint64_t due_ms, const void *bytes, size_t n);
