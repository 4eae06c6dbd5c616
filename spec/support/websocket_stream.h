/* A WebSocket's session that is given bytes, and what comes of them as text. For tests. */
#pragma once

#include "base/buf.h"
#include "base/counters.h"
#include "websocket/websocket.h"

struct websocket_stream {
	struct websocket websocket;
	struct websocket_worker worker;
	struct counters counters;
	struct buf_pool pool;
	struct session session;
	struct buf *in, *out;
	bool is_over; /* it is refused, or the peer has sent a close frame */
	bool is_held; /* messages are not taken: only look_ahead() sees what comes */
	/* "text abc, binary 3:00ff01, pong x, close 1000, refused 1002": binary is its length and its first bytes. */
	char text[65536];
	size_t text_bytes;
};

/* window_bits: of compression; 0: there is none. It is a server's; who sets websocket.is_client makes it a client's. */
void websocket_stream_init(struct websocket_stream *stream, uint32_t message_bytes, unsigned window_bits);
void websocket_stream_init_terms(struct websocket_stream *stream, uint32_t message_bytes,
				 struct websocket_terms terms);
void websocket_stream_deinit(struct websocket_stream *stream);

/* Bytes that have come. */
void websocket_stream_put(struct websocket_stream *stream, const uint8_t *bytes, size_t n);

/* Takes messages, or does not. */
void websocket_stream_hold(struct websocket_stream *stream, bool is_held);
