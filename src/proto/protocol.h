/*
 * What turns bytes into messages, and replies into bytes: one at a time for each connection.
 *
 * A protocol is an immutable description that begins with a struct protocol: a framing is a struct codec
 * (frame/codec.h). What it knows of one connection's bytes is its session. It sees neither sockets nor connections nor
 * Lua. It is given bytes and says what messages there are in them, and what it has to answer by itself. Protocols that
 * need more of a session than `scanned` have their place in this folder.
 *
 * Threads: a protocol is immutable once a connection speaks it, so any thread may use it; a session belongs to its
 * connection.
 */
#pragma once

#include "base/reason.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct buf;
struct buf_pool;
struct message_kind;
struct protocol_ops;

/* What has come of the next message, of protocols that do not rewind. */
enum batch_begun {
	BATCH_NOTHING_BEGUN,
	BATCH_BEGUN,      /* its beginning: it must be whole in timeout.read */
	BATCH_BODY_BEGUN, /* ... and more, which must come on in each timeout.body */
};

enum {
	BATCH_MAX = 256, /* messages decoded in one go */
	PROTOCOL_OVERHEAD_MAX =
	    160 /* bytes that a protocol adds to a reply, or says by itself: a pong has 139 */
};

/* The beginning of every protocol. */
struct protocol {
	const struct protocol_ops *ops;
	const struct message_kind *messages; /* the layer above: how Lua sees them, and what replies are */
	uint32_t max_bytes;                  /* of one message as delivered; a larger one is refused */
};

/*
 * What a protocol knows of one connection's bytes. All zero where a connection begins to speak it, before begin().
 * Protocols that rewind have `scanned`, which decode() keeps up; others have what they like behind `own`.
 */
struct session {
	union {
		struct {
			/* At how many places from `consumed` on no terminator begins, or what else is known of them. */
			uint32_t scanned;
			uint32_t counted; /* the caller's, while it counts ahead */
		};
		void *own;
	};
};

/*
 * A decoded message. `end` is the offset just past all of its bytes (header, payload, terminator) from the start of
 * the input, so that a batch can be cut after any message and the rest decoded again, perhaps by another protocol.
 */
struct frame {
	const uint8_t *data;
	uint32_t len;
	uint32_t end;
};

/* What decode() found. Messages are in the order of the bytes. */
struct batch {
	struct frame frames[BATCH_MAX];
	unsigned count;
	size_t consumed;    /* input bytes that are done with: the messages' and ignored ones */
	size_t need;        /* total bytes from `consumed` that a begun message takes, if known; else 0 */
	int error;          /* 0 or ERR_FRAME_*, met after the messages in this batch */
	uint64_t announced; /* with an error: the length announced (malformed: the field's value, as far
			     * as it could be read), or max_bytes + 1 where a terminator did not come.
			     * ERR_BUFFER_LIMIT: how many bytes of room would do: decode() may be asked
			     * again for what follows `consumed`. 0: none would */

	/* Of the caller: by what it was decoded (the connection may speak something else by now). */
	const struct protocol *by;

	/*
	 * Of protocols that do not rewind: of which of its channels the messages are, and whether the peer sends no
	 * more there. The caller has set them to 0 and false. 0 is the connection's first: that one ends with the
	 * connection, as by the end of its stream.
	 */
	uint32_t channel;
	bool ends;

	/*
	 * ... and what has come of the next one; of a body: is that more than before? Where nothing has begun: has
	 * something come all the same that says that the peer is there? And has what was begun come to its end, so that
	 * this is another one? Set to 0 and false likewise.
	 */
	uint8_t begun; /* enum batch_begun */
	bool has_come_on;
	bool begins_anew;

	/*
	 * ... and where they put what they answer by themselves, the caller's. It goes out before the replies to the
	 * messages of this batch, and behind all others.
	 */
	struct buf_pool *pool;
	struct buf **answers;
};

/* Bytes of a reply, not yet encoded; somebody else keeps them alive. */
struct reply {
	const uint8_t *data;
	size_t len;
};

struct protocol_ops {
	const char *name;

	/*
	 * Its session is `scanned` alone, so what was not taken of a batch can be decoded again: the caller zeroes
	 * `scanned` when it consumes less than `consumed`, or goes on with another protocol. One that does not rewind
	 * is asked for one message at a time, which is always taken. It says that it cannot answer, for want of memory,
	 * by ERR_BUFFER_LIMIT.
	 */
	bool rewinds;

	/* It rewinds, and decode() runs no code of the user's: messages that wait can be counted by it. */
	bool counts;

	/* 0, or UV_ENOMEM: the connection ends. NULL: there is nothing to begin. */
	int (*begin)(const struct protocol *protocol, struct session *session);

	/* Frees what the session has. NULL: nothing. */
	void (*end)(const struct protocol *protocol, struct session *session);

	/*
	 * It does not rewind. How much of batch->pool the session holds; and gives that back: the connection ends, and
	 * decodes nothing any more. NULL, both: it holds none.
	 */
	size_t (*held)(const struct session *session);
	void (*shed)(const struct protocol *protocol, struct session *session);

	/*
	 * Decodes up to `limit` messages (1 .. BATCH_MAX) of in[0 .. n), n below 4 GiB.
	 * Sets every field of *out but the caller's and the unused frames. Never allocates where it rewinds.
	 * The same bytes give the same messages and error however they are split.
	 */
	void (*decode)(const struct protocol *protocol, const uint8_t *in, size_t n, unsigned limit,
		       struct session *session, struct batch *out);

	/*
	 * Appends n replies to *out; `data` is never NULL. max_bytes does not apply. Returns how many were appended;
	 * when fewer than n, *error says why the next one was not: ERR_FRAME_REPLY (it cannot carry it),
	 * ERR_FRAME_BETWEEN (another one is not whole yet) or ERR_BUFFER_LIMIT; else it is 0. A reply that holds a
	 * terminator is let through: the peer sees several messages. `session` is NULL while the connection has yet
	 * to begin to speak it.
	 */
	unsigned (*encode)(const struct protocol *protocol, struct session *session,
			   const struct reply *replies, unsigned n, struct buf_pool *pool, struct buf **out,
			   int *error);

	/*
	 * Where there are several channels, the same for another than the first; and what a channel takes no messages
	 * for the time being, or does again: meanwhile decode() keeps them. NULL: there is only the first.
	 */
	unsigned (*encode_in)(const struct protocol *protocol, struct session *session, uint32_t channel,
			      const struct reply *replies, unsigned n, struct buf_pool *pool,
			      struct buf **out, int *error);
	void (*hold)(const struct protocol *protocol, struct session *session, uint32_t channel,
		     bool is_held);

	/* Has decode() kept messages that it would give now, without another byte? NULL: never. */
	bool (*has_kept)(const struct protocol *protocol, const struct session *session);

	/*
	 * Appends its last word in a channel, 0: in the connection, behind which nothing of it is sent. It is asked for
	 * once. 0 or ERR_BUFFER_LIMIT. NULL: there is none.
	 */
	int (*finish)(const struct protocol *protocol, struct session *session, uint32_t channel,
		      enum close_reason reason, struct buf_pool *pool, struct buf **out);

	/*
	 * It does not rewind: is the session between two messages, with nothing that the next would need? Then another
	 * one, or that of another protocol, may go on in its place. NULL: never.
	 */
	bool (*is_at_rest)(const struct protocol *protocol, const struct session *session);

	/* Another description with these operations goes on with the session as it is. */
	bool keeps_session;

	/*
	 * It does not rewind. So many bytes may wait behind a message that is being used. NULL, SIZE_MAX: as many as
	 * the largest message has, and what one read gives.
	 */
	size_t (*ahead)(const struct protocol *protocol, const struct session *session);

	/* Its peer answers the last word: the connection waits for that, a while. */
	bool answers_finish;

	/*
	 * It does not rewind. The message that decode() gave last is needed no more. NULL: nothing is kept for it.
	 */
	void (*taken)(const struct protocol *protocol, struct session *session);

	/*
	 * It does not rewind. No message is taken for now, and in[0 .. n), which begins where decode() will go on,
	 * waits. It may append what it answers by itself to what is in there; decode() is given it all the same. Each
	 * byte may be there again, with more behind it. 0 or ERR_BUFFER_LIMIT. NULL: nothing is answered before its
	 * turn.
	 */
	int (*look_ahead)(const struct protocol *protocol, struct session *session, const uint8_t *in,
			  size_t n, struct buf_pool *pool, struct buf **out);

	/* Appends what a peer that is there answers, after timeouts.ping. 0 or ERR_BUFFER_LIMIT. NULL: none does. */
	int (*ping)(const struct protocol *protocol, struct session *session, struct buf_pool *pool,
		    struct buf **out);

	/* Has a reply of so many bytes a place in it? Else encode() says ERR_FRAME_REPLY. NULL: any has. */
	bool (*carries)(const struct protocol *protocol, size_t len);

	/* What users call it; static text. NULL: `name`. */
	const char *(*label)(const struct protocol *protocol);

	/* What is wrong with a reply that encode() refuses by ERR_FRAME_REPLY. NULL: it is too large. */
	const char *unfit;

	/* Says in words what batch->error is, in text, always terminated. */
	void (*explain)(const struct protocol *protocol, const struct batch *batch, char *text, size_t size);

	/* Checks a filled-in description. NULL, or what is wrong with it (static text). May be NULL. */
	const char *(*check)(const struct protocol *protocol);
};

static inline const char *protocol_label(const struct protocol *protocol)
{
	return protocol->ops->label ? protocol->ops->label(protocol) : protocol->ops->name;
}

static inline bool protocol_carries(const struct protocol *protocol, size_t len)
{
	return !protocol->ops->carries || protocol->ops->carries(protocol, len);
}
