/*
 * What a server sends until it ends its side, cut as one likes, into a reader of responses; what comes of it as a text.
 */
#pragma once

#include "http/reader.h"

enum { HTTP_ANSWER_BYTES = 65536 };

struct http_answers {
	struct http_reader *reader;
	uint8_t *kept; /* bytes that no step has consumed */
	size_t kept_bytes;
	bool is_over, is_refused;
	unsigned steps;
	/*
	 * "200 hello, kept", or "200 hello (X: y), ends" with trailers, or with " +3" for bytes behind its end; else
	 * "no: " and why. Bytes of bodies are as they are.
	 */
	char text[HTTP_ANSWER_BYTES];
	size_t text_bytes;
};

void http_answers_init(struct http_answers *answers, const struct http_reader_limits *limits, bool is_head,
		       uint64_t body_max);
void http_answers_deinit(struct http_answers *answers);

/* They have come. Each step gets them in a copy without slack. */
void http_answers_put(struct http_answers *answers, const uint8_t *bytes, size_t n);

/* That was all. */
void http_answers_end(struct http_answers *answers);
