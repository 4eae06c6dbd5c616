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
 * With permessage-deflate (RFC 7692, deflate.c) each message is compressed by itself, in both directions: so
 * connections have no window of their own, and share what is needed for that with all others of their worker.
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
	uint8_t random[256];               /* of which the last `random_left` bytes are not used yet */
	uint16_t random_left;
};

enum { WEBSOCKET_HEAD_MAX = 14, WEBSOCKET_CLOSE_TEXT_MAX = 123 };

/* A listener's; or one connection's, where it compresses. */
struct websocket {
	struct protocol protocol; /* first; its max_bytes are set */
	struct websocket_worker *worker;
	/*
	 * Of what is sent compressed, 9 to 15. 8: nothing is, as zlib has no such window, but the peer may. 0: nothing
	 * is, in either direction.
	 */
	uint8_t window_bits;
	bool is_client; /* this side has opened it */
};

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
