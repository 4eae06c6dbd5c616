/*
 * Responses as a client reads them: bytes in, and what they are out, step by step. The grammar is as strict as that of
 * requests, and docs/http-client.md has it as a table.
 *
 * It sees neither sockets nor Lua, and has no memory but its own: who reads keeps the bytes that a step has not
 * consumed, and gives them again with more behind them. Each byte is looked at once, however the input is cut.
 *
 * Threads: it belongs to who reads.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct http_reader;

struct http_reader_limits {
	uint32_t headers; /* bytes of all header fields and trailers */
	uint32_t fields;  /* ... and how many */
};

enum http_event {
	HTTP_MORE,    /* nothing: more bytes are needed */
	HTTP_INTERIM, /* a response 1xx, which says that another one follows */
	HTTP_HEAD,    /* the status line and the fields, up to the empty line behind them */
	HTTP_DATA,    /* some of the body, decoded where it is chunked */
	HTTP_TRAILER, /* the line of a field behind a chunked body, without its end */
	HTTP_END,     /* the response is whole */
	HTTP_BROKEN,  /* it is refused: http_reader_why() */
};

/* What has come of the first `consumed` bytes. The data is among them. */
struct http_step {
	enum http_event event;
	const uint8_t *data;
	size_t len, consumed;
};

/* How far a body goes. */
enum http_extent { HTTP_NO_BODY, HTTP_OF_LENGTH, HTTP_CHUNKED, HTTP_TO_THE_END };

struct http_answer {
	unsigned status; /* 200 to 599; of http_read_answer() also 101 */
	bool is_1_0;
	bool keeps; /* the connection goes on after it */
	enum http_extent extent;
	uint64_t length; /* HTTP_OF_LENGTH */
};

/* The size of one, and one made of so many bytes. */
size_t http_reader_bytes(void);
struct http_reader *http_reader_init(void *bytes, const struct http_reader_limits *limits);

/* Another response begins, with a body of so many bytes at most. `is_head`: it answers HEAD, and has none. */
void http_reader_begin(struct http_reader *reader, bool is_head, uint64_t body_max);

/*
 * Reads on in in[0 .. n). HTTP_MORE consumes only what it has no use for any more. After HTTP_END and HTTP_BROKEN there
 * is no further step.
 */
struct http_step http_reader_step(struct http_reader *reader, const uint8_t *in, size_t n);

/*
 * The head of one response, in[0 .. n) with the empty line, which may be one that switches protocols (101): HTTP_HEAD;
 * HTTP_INTERIM, another one follows; or HTTP_BROKEN, and *why says for what it is refused.
 */
enum http_event http_read_answer(const struct http_reader_limits *limits, const uint8_t *in, size_t n,
				 struct http_answer *answer, const char **why);

/* What the head has said. */
const struct http_answer *http_reader_answer(const struct http_reader *reader);

/* The stream has ended. True: so the response is whole. Else http_reader_why() says in what it was cut short. */
bool http_reader_finish(struct http_reader *reader);

/* Why it is refused; static text. */
const char *http_reader_why(const struct http_reader *reader);

/* ... and is it for a limit? */
bool http_reader_is_too_large(const struct http_reader *reader);
