/* What the files of this folder share. Nobody else includes it. */
#pragma once

#include "base/buf.h"
#include "base/utf8.h"
#include "websocket/websocket.h"

#include <string.h>

enum { OPCODE_MORE, OPCODE_TEXT, OPCODE_BINARY, OPCODE_CLOSE = 8, OPCODE_PING, OPCODE_PONG };

enum { BIT_FIN = 0x80, BIT_COMPRESSED = 0x40, BITS_RESERVED = 0x70, BIT_MASKED = 0x80, CONTROL_MAX = 125 };

/* X(name, close code, what is wrong) */
#define WEBSOCKET_BREACHES(X)                                                            \
	X(RESERVED, 1002, "a frame has reserved bits")                                   \
	X(OPCODE, 1002, "a frame has an opcode that is not known")                       \
	X(UNMASKED, 1002, "a frame of a client is not masked")                           \
	X(MASKED, 1002, "a frame of a server is masked")                                 \
	X(CONTROL_LENGTH, 1002, "a control frame has more than 125 bytes")               \
	X(CONTROL_FRAGMENT, 1002, "a control frame is fragmented")                       \
	X(LENGTH, 1002, "a length is not written in its shortest form, or is over 2^63") \
	X(NOTHING_TO_GO_ON, 1002, "a frame continues a message that has not begun")      \
	X(NOT_CONTINUED, 1002, "a message begins before the last one has ended")         \
	X(CLOSE_LENGTH, 1002, "a close frame has half a code")                           \
	X(CLOSE_CODE, 1002, "a close frame has a code that nobody may send")             \
	X(DEFLATE, 1007, "a compressed message is broken")                               \
	X(UTF8, 1007, "a text is no UTF-8")                                              \
	X(SIZE, 1009, "a message is too large")

#define WEBSOCKET_BREACH_INDEX(name, code, text) BREACH_##name,
enum breach { BREACH_NONE, WEBSOCKET_BREACHES(WEBSOCKET_BREACH_INDEX) BREACH_COUNT };

/* What a close frame says. */
struct websocket_close {
	uint16_t code; /* 0: nothing */
	uint8_t text_bytes;
	char text[];
};

/* An idle connection has it: 56 bytes, in 64 of malloc's. */
struct websocket_session {
	struct buf *message;           /* what has come of the message at hand, unmasked; or NULL */
	struct websocket_close *peers; /* the peer's close frame, or NULL: none has come */
	struct websocket_close *own;   /* what this side is to say; NULL: what its reason says */
	uint32_t left;                 /* payload of the frame at hand that is still to come */
	uint8_t mask[4];               /* of that frame, */
	uint8_t masked;                /* ... and the place in it of the next byte */
	uint8_t breach;                /* enum breach */
	struct utf8 utf8;              /* how far the text is looked at, */
	struct utf8 out_utf8;          /* ... and the one that is sent in pieces */
	uint16_t said;                 /* the code that this side has said; 0: none, or none yet */
	bool begun : 1;                /* a message is at hand, */
	bool is_text : 1;              /* ... or was given last: is it text? */
	bool is_compressed : 1;
	bool is_last : 1; /* the frame at hand ends it */
	bool in_frame : 1;
	bool given : 1;       /* the message is in the hands of the layer above */
	bool out_begun : 1;   /* a message is being sent in pieces: */
	bool out_goes_on : 1; /* ... the first of them has gone */
	bool out_is_text : 1;
	bool has_tail : 1;    /* `message` ends in what is not sent of a compressed one */
	bool has_windows : 1; /* it is a struct websocket_windows */
	bool has_looked : 1;  /* look_ahead() has been further than decode(), */
	uint32_t looked;      /* ... so many bytes, up to the head of a frame, */
	uint32_t answered;    /* ... and has answered so many pings in them */
};

struct z_stream_s;

_Static_assert(sizeof(struct websocket_session) <= 56, "an idle connection has it");

/* The session of a connection that keeps a window. Each is NULL until something is compressed. */
struct websocket_windows {
	struct websocket_session session; /* first */
	struct z_stream_s *out, *in;
	struct buf *whole; /* what is inflated of the message at hand, which waits for room; or NULL */
};

/* NULL: it has none, and never will. */
static inline struct websocket_windows *websocket_windows_of(struct websocket_session *s)
{
	return s && s->has_windows ? (struct websocket_windows *)(void *)s : NULL;
}

static inline struct websocket_session *websocket_session_of(const struct session *session)
{
	return session->own;
}

/* The head of a frame. */
struct frame_head {
	uint64_t len;
	uint8_t bytes; /* of the head; 0: it is not whole */
	uint8_t opcode;
	bool is_last, is_compressed;
	uint8_t mask[4];
};

/* frame.c */

/*
 * Reads the head of the frame at in[0 .. n), which need not be whole: what is wrong with it is told as soon as
 * it is there.
 */
enum breach websocket_read_head(const struct websocket *websocket, const uint8_t *in, size_t n,
				struct frame_head *head);

/*
 * to[0 .. n) = from[0 .. n) without its mask, of which `at` bytes are used; they may be the same. Returns the
 * next `at`.
 */
uint8_t websocket_unmask(uint8_t *to, const uint8_t *from, size_t n, const uint8_t mask[4], uint8_t at);

/*
 * Appends a frame, masked where this side is the client. 0, ERR_BUFFER_LIMIT with nothing appended, or ERR_FRAME_REPLY:
 * there is no randomness.
 */
int websocket_put_frame(const struct websocket *websocket, uint8_t first, const uint8_t *payload, size_t n,
			struct buf_pool *pool, struct buf **out);

unsigned websocket_breach_code(enum breach breach);
const char *websocket_breach_text(enum breach breach);

/* close.c */

/* The payload of the peer's close frame, unmasked; s->peers is what it says. *error: ERR_BUFFER_LIMIT. */
enum breach websocket_take_close(struct websocket_session *s, const uint8_t *payload, size_t n, int *error);

/* Counts how it has ended: by the code that was said first. */
void websocket_count_end(const struct websocket_session *s, struct counters *counters);

/* Appends the close frame that ends the connection for this reason. 0 or ERR_BUFFER_LIMIT. */
int websocket_close(const struct websocket *websocket, struct websocket_session *s, enum close_reason reason,
		    struct buf_pool *pool, struct buf **out);

/* deflate.c */

/*
 * Replaces s->message, which is compressed, by what it is without that, max_bytes of the protocol at most. *error:
 * ERR_BUFFER_LIMIT: it is called again once there is room for *wanted bytes more, or ends with *wanted 0.
 */
enum breach websocket_inflate(const struct websocket *websocket, struct websocket_session *s, int *error,
			      size_t *wanted);

/*
 * The message compressed, which lasts until the next call: its bytes. 0: it is not worth it, or there is no
 * memory, and it goes out as it is. The session may be NULL.
 */
size_t websocket_compress(const struct websocket *websocket, struct websocket_session *s,
			  const struct reply *reply, const uint8_t **compressed);

/* The message that was compressed last is not sent: nothing refers to it. */
void websocket_forget_sent(struct websocket_session *s);

/* Gives back what the windows have: the connection ends. */
void websocket_drop_windows(struct websocket_session *s);
