/*
 * WebSocket (RFC 6455), on either side, as a protocol: from behind the handshake on, which is HTTP's
 * (agent/websocket.h, http/handshake.h). What a client sends is masked, each frame by a fresh key that nobody can
 * guess.
 *
 * A message is one for the layer above, however many frames it came in: it is put together, and text is looked
 * at, as its bytes come. Pings are answered here, and pongs are looked at by nobody. What breaks the rules ends
 * the connection with a close frame that says why, as does each end that this side decides about; a close frame
 * of the peer is answered.
 *
 * No memory is kept for a length that was announced. Between messages a session has none but its own few bytes.
 *
 * With permessage-deflate (RFC 7692, deflate.c) a connection may keep what was sent, and what has come, in windows of
 * its own, so that what repeats from one message to the next is found. What they take is within a bound of the
 * worker's: it is looked at where the handshake promises one, counted from then on, and allocated with the first
 * compressed message. A connection without a window has each message compressed by itself, by what it shares with all
 * others of its worker.
 *
 * Threads: the worker's that has the connections.
 */
#pragma once

#include "proto/protocol.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct buf;
struct buf_pool;
struct counters;
struct websocket_deflate;

/* What all WebSockets of a worker, and a generation, share. */
struct websocket_worker {
	struct buf_pool *pool;
	struct counters *counters;
	struct websocket_deflate *deflate; /* NULL: it has compressed nothing yet */
	uint64_t windows_max;              /* bytes of the worker's windows, counters->websocket_windows */
	uint8_t random[256];               /* of which the last `random_left` bytes are not used yet */
	uint16_t random_left;
};

enum { WEBSOCKET_HEAD_MAX = 14, WEBSOCKET_CLOSE_TEXT_MAX = 123 };

/* What a handshake has come to about compression. */
struct websocket_terms {
	/*
	 * Of what is sent compressed, 9 to 15. 8: nothing is, as zlib has no such window, but the peer may. 0: nothing
	 * is, in either direction.
	 */
	uint8_t window_bits;
	uint8_t
	    kept_out; /* the window of what was sent, 9 to window_bits; 0: each message is compressed by itself */
	uint8_t kept_in; /* the same of what has come; 0: the peer compresses each by itself */
};

/* A listener's; or one connection's, where it compresses. */
struct websocket {
	struct protocol protocol; /* first; its max_bytes are set */
	struct websocket_worker *worker;
	struct websocket_terms terms;
	bool is_client; /* this side has opened it */
};

enum { WEBSOCKET_BITS_MIN = 9, WEBSOCKET_BITS_MAX = 15, WEBSOCKET_BITS_KEPT = 12 };

/*
 * The window that may be promised to a connection, with 9 to `most` bits: the largest for which the worker has memory
 * beside so many bytes more. 0: there is none. One of what is sent has WEBSOCKET_BITS_KEPT at most.
 */
unsigned websocket_window_out(const struct websocket_worker *worker, unsigned most);
unsigned websocket_window_in(const struct websocket_worker *worker, unsigned most, size_t beside);

/* What one takes of zlib, in bytes. 0 bits: nothing. */
size_t websocket_window_out_bytes(unsigned bits);
size_t websocket_window_in_bytes(unsigned bits);

/* Counts windows that were promised, or forgets them. A session does so for its own. */
void websocket_reserve(struct websocket_worker *worker, const struct websocket_terms *terms);
void websocket_unreserve(struct websocket_worker *worker, const struct websocket_terms *terms);

/* Fills in the protocol. Its max_bytes, its messages and its worker are set. */
void websocket_init(struct websocket *websocket);

void websocket_worker_deinit(struct websocket_worker *worker);

/* Is the message that was given last binary? */
bool websocket_is_binary(const struct session *session);

/*
 * Appends a message. 0, or with nothing appended ERR_FRAME_REPLY (a text that is no UTF-8), ERR_FRAME_BETWEEN, or
 * ERR_BUFFER_LIMIT. The session is NULL while the connection has yet to begin to speak it.
 */
int websocket_append(const struct websocket *websocket, const struct session *session, bool is_binary,
		     const struct reply *reply, struct buf_pool *pool, struct buf **out);

/*
 * A message that was appended without this session is sent by it, and may be compressed: nothing that follows refers to
 * what was before it.
 */
void websocket_sent_for_many(struct session *session);

/*
 * A message in pieces begins: others are refused with ERR_FRAME_BETWEEN until its last piece. False: one has begun
 * before.
 */
bool websocket_begin_message(struct session *session, bool is_binary);

/* Is one on its way, which is not whole yet? */
bool websocket_is_between(const struct session *session);

/*
 * Appends a piece of it, a frame. 0, ERR_FRAME_REPLY with nothing appended (the text is no UTF-8; or with the last
 * piece, not whole), or ERR_BUFFER_LIMIT likewise. One that is empty is left out, unless it is the last. Pieces are not
 * compressed.
 */
int websocket_append_piece(const struct websocket *websocket, struct session *session, bool is_last,
			   const struct reply *piece, struct buf_pool *pool, struct buf **out);

/* What is before a whole message that a server sends. Returns how many bytes. */
size_t websocket_head(uint8_t head[WEBSOCKET_HEAD_MAX], bool is_binary, size_t len);

/*
 * What the close frame of this side is to say: the first that was set counts. The code is one that may be sent,
 * or 0; the text has WEBSOCKET_CLOSE_TEXT_MAX bytes at most, of UTF-8. False: there is no memory.
 */
bool websocket_say_at_close(struct session *session, unsigned code, const char *text, size_t n);

/* That was taken back, and so is what it was to say. */
void websocket_unsay_at_close(struct session *session);

/* What the peer's close frame said; the code is 1005 where it said nothing, and 0 where there was none. */
unsigned websocket_peers_code(const struct session *session, const char **text, size_t *n);

/* May a peer send it in a close frame? May a script? */
bool websocket_code_is_valid(unsigned code);
bool websocket_code_is_scripts(unsigned code);

static inline const struct websocket *websocket_of(const struct protocol *protocol)
{
	return (const struct websocket *)(const void *)protocol;
}
