/*
 * One connection: bytes in, frames up, replies down, deadlines kept, one end.
 *
 * A state machine over a stack of streams and an injected clock. It never sees Lua:
 * what happens is reported upwards through struct conn_handler, which the
 * agent layer implements. Handlers are called from the loop alone: calls from
 * above (channel_send, conn_close, …) change state and queue the connection for
 * attention. So no handler is ever entered from within another. Such a call writes
 * at once only past the high-water mark, and in conn_flush_now().
 *
 *   OPENING (where a layer of the stream has a handshake)
 *     │
 *     ▼         close asked            output gone            unread input
 *   OPEN ─────────────────────▶ CLOSING ──────────▶ (LINGER) ◀────────────
 *     │ reset, abort, deadline      │                   │ end of stream, deadline
 *     └─────────────────────────────┴───────────────────┴──▶ CLOSED
 *
 * Threads: a connection belongs to its worker.
 */
#pragma once

#include "base/buf.h"
#include "base/counters.h"
#include "base/idmap.h"
#include "base/outq.h"
#include "base/reason.h"
#include "base/seldom.h"
#include "base/wheel.h"
#include "conn/channel.h"
#include "conn/endpoint.h"
#include "proto/protocol.h"
#include "stream/stream.h"

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct conn;
struct outgoing;
struct tape;

enum timeout_kind { TIMEOUT_READ, TIMEOUT_WRITE, TIMEOUT_IDLE, TIMEOUT_FIRST_FRAME, TIMEOUT_KINDS };

enum eof_answer {
	EOF_CLOSE, /* end the connection, delivering what is pending */
	EOF_KEEP,  /* keep it for writing */
	EOF_LATER, /* the agent is suspended: finish that, and its frames, and ask again */
};

/* Implemented by the layer above. Called from the loop only, never nested. */
struct conn_handler {
	void (*opened)(struct channel *channel);

	/*
	 * It is not to be opened, and ends: for `limit` the name of the one, else what is wrong with it, for the log.
	 * Of a stream that fails by itself only closed() is told: see stream_failure().
	 */
	void (*refused)(struct channel *channel, enum close_reason reason, const char *why);

	/*
	 * Frames have arrived: batch->count of them, at least one. Returns how many were used;
	 * the bytes of the others are kept and decoded again later. When channel->reading is set
	 * the batch is the one frame that the agent waits for. It may leave frames for the connection's next turn.
	 */
	unsigned (*frames)(struct channel *channel, struct batch *batch);

	/* The peer will send no more, and all its frames were handed up. */
	enum eof_answer (*eof)(struct channel *channel);

	/* A deadline has passed. True: keep the connection (the deadline starts anew). */
	bool (*timeout)(struct channel *channel, enum timeout_kind kind);

	/* A frame broke the rules; the connection ends after this. */
	void (*bad_frame)(struct channel *channel, const struct batch *batch);

	/* Pending output fell below the low-water mark again. */
	void (*writable)(struct channel *channel);

	/* All output has been handed over; only when channel->flushing was set. */
	void (*flushed)(struct channel *channel);

	/* The same; only when channel->has_queue was set. */
	void (*room)(struct channel *channel);

	/* The server is going away in remaining_ms. True: the agent will close by itself. */
	bool (*drain)(struct channel *channel, uint64_t remaining_ms);

	/*
	 * The last call, opened or not. Whatever the agent waits for is cancelled. False: there is more to do, in the
	 * connection's next turn, when it is called again.
	 */
	bool (*closed)(struct channel *channel, enum close_reason reason);
};

/*
 * Ids from here on are those of channels that are no connection's first. Each host counts its own, from where its
 * part of them begins: 2^37 for each of 256.
 */
#define CONN_FURTHER_IDS (UINT64_C(1) << 45)
#define CONN_FURTHER_IDS_OF(host_number) (CONN_FURTHER_IDS + ((uint64_t)(host_number) << 37))

enum {
	CONN_SCRATCH_BYTES = 131072, /* a read: 64 KiB with what frames them fit */
	CONN_UNSETTLED_MAX = 32,
	CONN_TICKS_PER_STAGE = 2 * CHANNEL_TICKS_PER_TURN, /* of all deadlines in a turn, or all accepts */
};

struct audience;
struct dicts;
struct job_port;
struct post;

/*
 * What the connections of one worker share.
 * The scratch buffer and the batch serve one event at a time.
 */
struct conn_host {
	const struct conn_handler *handler;
	/*
	 * The clock, as it was last read: after each poll, before anything here runs. What had happened by then is
	 * dated with it: bytes that have come, deadlines that are due. What begins in or after a handler, which may
	 * have taken long, reads it anew: conn_host_after(), clock_ms().
	 */
	uint64_t now_ms;
	uint64_t epoch_ms; /* what the time of day is ahead of it in an app in memory; 0: the system knows */
	uint64_t clock_ticks; /* when now_ms was last read off the clock, in base/ticks.h */
	uint64_t turn_ticks; /* CHANNEL_TICKS_PER_TURN; an app in memory has many more: its time is virtual */
	uint64_t polled_ms;  /* now_ms when the events that are served were reported */
	uint64_t grace_until_ms; /* no time-out before: the process stood still, and heard nothing */
	uint64_t grace_given_ms; /* since a wait was last in time with no grace left */
	struct wheel wheel;
	struct buf_pool pool;
	struct counters *counters;
	struct conn *attention, **attention_tail; /* queued by conn_attend() */
	struct batch batch;
	struct conn
	    *decoding;    /* whose bytes are being decoded and handed up: a batch may be of its protocol */
	uint8_t *scratch; /* CONN_SCRATCH_BYTES */
	const uint8_t *input; /* what the batch was decoded from */
	size_t input_bytes;
	struct tape *tape;   /* the layer above: what new connections are recorded on, or NULL */
	struct dicts *dicts; /* that its agents share with those of others; NULL: there are none */
	const struct counters_all *all_counters; /* what the whole process counts; NULL: nobody asks */
	struct job_port *job_port;               /* by which its agents give jobs; NULL: they cannot */
	struct post *post; /* the layer above: how its agents send to those of others; NULL: they cannot */
	struct audience *audience; /* the same: who is a member of topics; NULL: nobody can be */
	struct outgoing *outgoing; /* how its agents make connections out; NULL: they cannot */
	struct conn *current;      /* whose event is being served; settled when it ends */
	size_t open;               /* connections not yet closed */
	size_t lone;               /* channels on no connection: the layer above's */
	/* Connections whose events of this poll are served, but whose output is not written: conn_host_settle(). */
	struct conn *unsettled[CONN_UNSETTLED_MAX];
	unsigned unsettled_count;
	size_t unsettled_bytes;     /* of output they have */
	struct seldom evicted;      /* connections that have ended as the memory for buffers was used up */
	unsigned lingering;         /* connections in CONN_LINGER */
	unsigned opening;           /* connections in a handshake: endpoint.has_handshake */
	unsigned opening_max;       /* so many at once; 0: as many as come */
	uint64_t opening_ticks;     /* that they have taken since the last turn */
	uint64_t drain_deadline_ms; /* set before conn_drain() is called */
	bool draining;              /* conn_host_drain(): all connections drain, new ones too */
	bool overdue;               /* the drain's deadline has come, or was brought forward */
	/* Reads the clock anew, sets now_ms and clock_ticks: a handler may have taken long. NULL: now_ms is right. */
	uint64_t (*clock_ms)(struct conn_host *host);
	/* By the clock, and rounded up; now_ms stays as it is. NULL: of now_ms. See conn_host_after(). */
	uint64_t (*after_ms)(struct conn_host *host, uint32_t ms);
	/*
	 * The layers of its stream have opened, and its peer is known. It may be refused, by conn_refuse(). Not called
	 * where nobody knows who the peer is; may be NULL.
	 */
	void (*admit)(struct conn *conn);
	void (*left)(
	    struct conn *conn); /* its place is free: said before the peer can see the end; may be NULL */
	void (*closes)(struct conn *conn); /* so is what the stream holds, in an instant; may be NULL */
	void (*gone)(struct conn *conn);   /* the carrier may free its memory */
	struct idmap ids;                  /* the channels of all connections that are not yet gone, by id */
	uint64_t last_further_id; /* of further channels: CONN_FURTHER_IDS_OF(), at first of host 0 */
};

/* CONN_OPENING: a layer of its stream has a beginning, which goes on; the handler knows nothing of it yet. */
enum conn_state { CONN_OPEN, CONN_CLOSING, CONN_LINGER, CONN_CLOSED, CONN_OPENING };

struct conn {
	/* What is seldom looked at comes first: the rest of it lies in as few lines of the caches as it can. */
	struct sockaddr_in6 peer;    /* IPv4 is kept mapped; family AF_UNIX: neither address nor port */
	uint8_t reason;              /* enum close_reason, once an end was decided */
	uint8_t drain_reads;         /* reads that its drain has used, of CONN_DRAIN_READS */
	uint8_t eof_reads;           /* how often conn:read() was told of the end */
	unsigned char gives_way : 2; /* turns of the others to wait for before the end goes on */
	bool has_finished : 1;       /* its protocol has said its last word */
	bool own_timeouts : 1;
	bool has_left : 1; /* the host was told that the place is free */
	bool trial : 1;    /* conn_mark(): its next protocol has to wait */
	bool counted : 1;  /* the carrier's: among those of its address */
	/* However it ends: what is being sent has no other end than the stream's, and is not whole. */
	bool resets : 1;

	struct stream_user io; /* what carries its bytes */
	struct conn_host *host;
	const struct endpoint *endpoint;
	const struct timeouts *timeouts;      /* the endpoint's, or this connection's own */
	const struct protocol *protocol;      /* the endpoint's, or this connection's own */
	const struct protocol *next_protocol; /* what it is to speak from the next message on; or NULL */
	struct buf *
	    in; /* bytes received and not yet used; empty where a session has those of a begun message; or NULL */
	struct outq out; /* what is to be sent */
	struct conn *next_attention;
	struct wheel_node timer; /* the earliest deadline, or earlier */
	uint64_t idle_since_ms;  /* last completed frame, or when the agent last became free */
	uint64_t first_since_ms; /* the same, but for frames that are ignored */
	uint64_t read_since_ms;  /* when the partial frame in `in` was begun */
	uint64_t write_since_ms; /* last progress of pending output; lingering: its deadline */
	size_t unsent;           /* what the stream held when it was last asked */
	struct session session;  /* the protocol's; `counted` is of what follows counted_bytes */
	union {
		/* Of a protocol that counts. */
		struct {
			uint32_t counted_bytes;  /* of `in`, how far they were counted */
			uint32_t waiting_frames; /* whole frames in `in` while the agent is suspended */
		};
		struct further
		    *further; /* of one that does not rewind: its other channels, the latest first */
	};
	uint8_t state;    /* enum conn_state */
	uint8_t watching; /* what is watched at the lowest stream */
	uint8_t wanted;   /* STREAM_*: what reading and writing wait for */
	uint8_t phase;    /* enum conn_phase, as it is counted */
	/* Those that are asked for together are in one byte. */
	bool choked : 1;   /* output past the high-water mark */
	bool reads_on : 1; /* also then, as nothing that it reads adds to its output */
	bool more : 1;     /* input at hand that was left for fairness */
	bool eof : 1;      /* the peer has shut its side */
	bool draining : 1;
	bool lost : 1; /* reset, or as good as: what is left is read, then it ends */
	bool shut_asked : 1;
	bool blocked : 1;   /* the stream took not all; waiting for writable */
	bool layered : 1;   /* its stack is more than a socket */
	bool queued : 1;    /* in the attention list */
	bool framed : 1;    /* a first frame has completed */
	bool eof_done : 1;  /* the agent knows of the end */
	bool untaken : 1;   /* output was written; whether the peer takes it is still to be looked at */
	bool eof_later : 1; /* EOF_LATER was the answer */
	bool shut : 1;      /* we have sent our end-of-stream */
	bool gone : 1;      /* the carrier is done; free when it leaves the list */
	bool drain_told : 1;
	bool drain_kept : 1;  /* the agent closes by itself */
	bool drain_over : 1;  /* the deadline of its drain has come */
	bool drain_cuts : 1;  /* ... and drops what cannot be written at once */
	bool has_further : 1; /* channels beside its first */
	bool own_protocol : 1;
	bool own_next : 1;
	/* Its agent's call is for as long as the peer is there: neither outlives the other, nor a drain. */
	bool stands : 1;
	bool in_body : 1;      /* what has begun in `in` is a body: timeout.body instead of timeout.read */
	bool begun : 1;        /* of a protocol that does not rewind: a message has begun, and is not whole */
	bool pinged : 1;       /* the peer was asked whether it is there, and nothing has come since */
	unsigned char how : 2; /* enum close_how */

	struct channel first; /* what its agent talks through */
};

/* ---- for the worker ---- */

/* 0 or UV_ENOMEM. */
int conn_host_init(struct conn_host *host, const struct conn_handler *handler, struct counters *counters,
		   size_t buffer_limit_bytes, uint64_t now_ms);
void conn_host_deinit(struct conn_host *host);

/* Ends the events of a poll: the carrier calls it when it has reported all, before any on_closed. */
void conn_host_settle(struct conn_host *host);

/*
 * The carrier has waited for events until now_ms, though it wanted to look again at wanted_ms. Where that is much
 * later the process was stopped, perhaps with all of its machine: then peers, too, have a while before they are late:
 * once, and not again at each of many late waits in a row.
 */
void conn_host_waited(struct conn_host *host, uint64_t wanted_ms);

/* Serves due deadlines and queued connections. True: there is more to do at once. */
bool conn_host_turn(struct conn_host *host, uint64_t now_ms);

/*
 * When a wait will be over that begins now, and not when the events of this poll were reported: never too early. None
 * at all (0) is over at once.
 */
static inline uint64_t conn_host_after(struct conn_host *host, uint32_t ms)
{
	return ms && host->after_ms ? host->after_ms(host, ms) : host->now_ms + ms;
}

/* All deadlines in a turn, or all accepts, take so many at most. */
static inline uint64_t host_stage_ticks(const struct conn_host *host)
{
	return 2 * host->turn_ticks;
}

/* When conn_host_turn() must next run; WHEEL_NEVER: only on events. */
uint64_t conn_host_next_ms(const struct conn_host *host);

/*
 * Begins a connection in caller's memory, zeroed but for `io`, `peer` and what the layer
 * above keeps. Reports opened(), now or when the stream has opened, and starts watching.
 */
void conn_open(struct conn *conn, struct conn_host *host, const struct endpoint *endpoint, uint64_t id);

/* In host->admit(): ends it with the reason `limit`, which is this one, after these bytes. */
void conn_refuse(struct conn *conn, const char *limit, const char *words, size_t bytes);

/* The connection whose first channel has that place in host->ids, or NULL. */
struct conn *conn_host_at(const struct conn_host *host, size_t slot);

/* All that are not yet gone. `visit` begins no connection, and forgets none. */
void conn_host_each(struct conn_host *host, void (*visit)(struct conn *conn));

/* Drains all connections, and those that come; after so long conn_host_turn() ends what is left. 0: never. Once. */
void conn_host_drain(struct conn_host *host, uint32_t ms);

/* The drain, which has begun, does not wait any longer: as when its deadline comes. */
void conn_host_end_drain(struct conn_host *host);

/* The same without a look at what has arrived. The drain need not have begun. */
void conn_host_cut(struct conn_host *host);

/* The server is going away (by host->drain_deadline_ms): finish what is in flight, then end. */
void conn_drain(struct conn *conn);

/*
 * That deadline has come. What has arrived by now is handed up, if the agent takes it at once; then it ends like
 * this.
 */
void conn_end_drain(struct conn *conn, enum close_how how);

/* Ends it at once, for a drain. What is left behind by CLOSE_NOW is counted as cut. */
void conn_cut(struct conn *conn, enum close_how how);

/*
 * For time-outs of the layer above: what has arrived is read and handed up before the agent, which waits in
 * conn->reading, is told that nothing has. It may have been resumed by then.
 */
void conn_read_late(struct conn *conn);

/* ---- for the layer above: state changes only, effective from the loop ---- */

/* Queues the connection for the next turn. */
void conn_attend(struct conn *conn);

/* Hands pending output to the stream now. True: nothing is left pending. */
bool conn_flush_now(struct conn *conn);

/* Asks for the end. The first reason given is the one that counts. */
void conn_close(struct conn *conn, enum close_reason reason, enum close_how how);

/* Half-close: once the output is gone, our end-of-stream. */
void conn_shutdown(struct conn *conn);

/*
 * What it speaks from the next message on; replies are encoded by it at once. It takes effect now, or where a batch
 * is being handed up, when that is over. own_bytes: of the description, of which a copy is taken; 0: it outlives the
 * connection. 0, UV_ENOMEM, or UV_EBUSY: it has channels that the present one has made.
 */
int conn_set_protocol(struct conn *conn, const struct protocol *protocol, size_t own_bytes);

/*
 * The same at once, and for what has an endpoint of its own from here on. Of the batch that is being handed up nothing
 * is used any more, and the connection is no trial's.
 */
int conn_change(struct conn *conn, const struct endpoint *endpoint, const struct protocol *protocol,
		size_t own_bytes);

/* By what replies are encoded now. */
static inline const struct protocol *conn_speaks(const struct conn *conn)
{
	return conn->next_protocol ? conn->next_protocol : conn->protocol;
}

/* 0 or UV_ENOMEM. */
int conn_set_timeout(struct conn *conn, enum timeout_kind kind, uint32_t ms);

/* It has its endpoint's again. */
void conn_forget_timeouts(struct conn *conn);

/*
 * A trial: what an agent asks for after conn_mark() can be taken back, or kept: one of the two follows within the same
 * event. That is its protocol, time-outs, pausing and the end; not what it has sent. The connection is open, and has
 * the rules that it had when it was marked.
 */
struct conn_mark {
	const struct protocol *next_protocol;
	struct timeouts timeouts;
	bool had_own_next, had_own_timeouts, was_paused, was_shut_asked;
};

struct conn_mark conn_mark(struct conn *conn);
void conn_keep(struct conn *conn, const struct conn_mark *mark);
void conn_restore(struct conn *conn, const struct conn_mark *mark);

/* May frames be handed up? Nothing is, once an end was decided. */
static inline bool conn_is_open(const struct conn *conn)
{
	return conn->state == CONN_OPEN;
}

/* Its handlers have taken so much since their ticks were at `began` that others should have their turn. */
static inline bool channel_turn_is_over(const struct channel *channel, uint64_t began)
{
	return channel->handler_ticks - began > channel->conn->host->turn_ticks;
}

static inline bool channel_is_open(const struct channel *channel)
{
	return conn_is_open(channel->conn) && !channel->ended;
}

/*
 * Bytes that have been received and are of no message yet. Of those that are being handed up, all behind the at-th
 * message of the batch: they may be messages that nobody has seen. What a layer keeps is not counted. For protocols
 * that rewind.
 */
size_t conn_unused_bytes(const struct conn *conn, unsigned at);

static inline size_t conn_pending_bytes(const struct conn *conn)
{
	return outq_len(&conn->out);
}
