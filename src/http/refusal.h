/*
 * What is refused without asking Lua: why, and with which status. The connection ends after each of them.
 */
#pragma once

#include "proto/protocol.h"

struct counters;

/* X(name, status, what is wrong) */
#define HTTP_REFUSALS(X)                                                                                     \
	X(LINE_END, 400, "a line must end in CR LF: a CR or LF stands alone")                                \
	X(LEADING_LINE, 400, "more than one empty line before a request")                                    \
	X(REQUEST_LINE, 400, "the request line must be a method, a target and a version, one blank between") \
	X(METHOD, 400, "the method is no token of at most 32 characters")                                    \
	X(TARGET, 400, "the target is neither a path, nor an http:// address, nor the * of OPTIONS")         \
	X(TARGET_CHARACTER, 400, "the target has a character that must be percent-encoded")                  \
	X(FIELD_LINE, 400, "a header field must be a name, a colon and a value")                             \
	X(FIELD_NAME, 400, "the name of a header field has a character that is not allowed")                 \
	X(FIELD_VALUE, 400, "the value of a header field has a control character")                           \
	X(FOLDED, 400, "a header field is folded over several lines")                                        \
	X(NO_HOST, 400, "the header field Host is missing")                                                  \
	X(HOST_TWICE, 400, "the header field Host is there twice")                                           \
	X(HOST, 400, "the header field Host is no host")                                                     \
	X(LENGTH, 400, "Content-Length is no number")                                                        \
	X(LENGTH_TWICE, 400, "Content-Length is there twice")                                                \
	X(LENGTH_AND_CODING, 400, "both Content-Length and Transfer-Encoding are there")                     \
	X(CODING_TWICE, 400, "Transfer-Encoding is there twice")                                             \
	X(CODING_1_0, 400, "HTTP/1.0 has no Transfer-Encoding")                                              \
	X(CHUNK_SIZE, 400, "the size of a chunk is no hexadecimal number of 1 to 16 digits")                 \
	X(CHUNK_EXTENSION, 400, "chunk extensions are not taken")                                            \
	X(CHUNK_END, 400, "a chunk does not end in CR LF")                                                   \
	X(TRAILER, 400, "a trailer must not say how a message is read")                                      \
	X(TIME_OUT, 408, "the request has not come in time")                                                 \
	X(BODY, 413, "the body is too large")                                                                \
	X(URI, 414, "the target is too long")                                                                \
	X(EXPECTATION, 417, "the only expectation that can be met is 100-continue")                          \
	X(HEADERS, 431, "the header fields are too large")                                                   \
	X(FIELDS, 431, "there are too many header fields")                                                   \
	X(ERROR, 500, "the request could not be answered")                                                   \
	X(CONNECT, 501, "this is no proxy")                                                                  \
	X(CODING, 501, "the only transfer coding that is known is chunked")                                  \
	X(GOING, 503, "the server is going away")                                                            \
	X(MEMORY, 503, "the server is short of memory")                                                      \
	X(VERSION, 505, "the only versions that are known are HTTP/1.1 and HTTP/1.0")

#define HTTP_REFUSAL_INDEX(name, status, text) REFUSE_##name,
enum http_refusal { REFUSE_NOTHING, HTTP_REFUSALS(HTTP_REFUSAL_INDEX) REFUSAL_COUNT };

unsigned http_refusal_status(enum http_refusal refusal);
const char *http_refusal_text(enum http_refusal refusal);

/* The code that decode() gives: ERR_FRAME_TOO_LARGE for what is over a limit, else ERR_FRAME_MALFORMED. */
int http_refusal_error(enum http_refusal refusal);

/* By status: refusals only. http_count_class() has them as well. */
void http_refusal_count(struct counters *counters, enum http_refusal refusal);
