/* Bytes into the HTTP protocol, cut as one likes, and what comes of them as a text. */
#pragma once

#include "base/buf.h"
#include "base/counters.h"
#include "http/http.h"

enum { HTTP_TEXT_BYTES = 65536 };

struct http_stream {
	struct http http;
	struct http_worker worker;
	struct counters counters;
	struct buf_pool pool;
	struct session session;
	uint64_t now_ms, epoch_ms;
	struct buf *in, *out;
	/* Where limits.upload is set: are bodies read in pieces, or as one? And the request that is being read so. */
	bool in_pieces, is_reading;
	struct buf *request;
	bool is_over;
	unsigned decodes; /* calls of decode() */
	/* "200 GET /a, 200 POST /b body, 413", with "100" where that was sent; bytes of bodies as they are. */
	char text[HTTP_TEXT_BYTES];
	size_t text_bytes;
};

void http_stream_init(struct http_stream *stream, const struct http_limits *limits);
void http_stream_deinit(struct http_stream *stream);

/* They have come; the requests among them are answered. In a copy without slack. */
void http_stream_put(struct http_stream *stream, const uint8_t *bytes, size_t n);
