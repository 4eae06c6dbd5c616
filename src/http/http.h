/*
 * HTTP/1.1 on the server's side, as a protocol: requests in, responses out, one after the other.
 *
 * A request is a message: its head as it came, then its body, decoded where it was chunked, in one piece. The next one
 * is decoded once this one is answered, so responses are in order and a connection has at most one request open. What
 * is no business of Lua's is answered here: 100 Continue, and the refusals (refusal.h). A refused connection ends,
 * since nobody knows where its next request would begin. The grammar is strict, and docs/http.md has it as a table.
 *
 * No memory is kept for a length that was announced: bodies grow with what arrives. Each byte is looked at once,
 * however the input is cut: the session knows how far the head, or the chunk, was read.
 *
 * Threads: the worker's that has the connections.
 */
#pragma once

#include "http/date.h"
#include "proto/protocol.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct counters;

struct http_limits {
	uint32_t uri;      /* bytes of a target: 414 */
	uint32_t headers;  /* bytes of all header fields and trailers: 431 */
	uint32_t fields;   /* ... and how many: 431 */
	uint32_t body;     /* bytes of a body, decoded: 413 */
	uint64_t upload;   /* ... that is read in pieces; 0: none is, requests are handed up whole */
	uint32_t requests; /* of a connection, the last of which is told so; 0: any number */
};

/* What all HTTP connections of a worker share. */
struct http_worker {
	struct buf_pool *pool;
	struct counters *counters;
	const uint64_t *now_ms, *epoch_ms; /* of its host: epoch_ms 0 is for the system's time */
	int64_t date_s;                    /* of which second `date` is */
	char date[HTTP_DATE_BYTES + 1];    /* "Sun, 06 Nov 1994 08:49:37 GMT" */
};

/* A listener's. */
struct http {
	struct protocol protocol; /* first */
	struct protocol rest;     /* decodes the body of a request that was handed up without: incoming.c */
	struct http_limits limits;
	struct http_worker *worker;
};

/* Where the parts of a request's head are. Offsets from its first byte. */
struct http_request {
	uint32_t head_bytes;    /* the request line, the fields, the empty line */
	uint32_t trailer_bytes; /* of the lines behind a chunked body, which are the message's last bytes */
	uint32_t method_bytes;
	uint32_t target_at, target_bytes;
	uint32_t path_at, path_bytes;   /* of the target: up to the "?"; "/" where there is none */
	uint32_t query_at, query_bytes; /* behind the "?" */
	bool has_query;
	bool has_path; /* else the path is "/", which is not in the target: http://host */
	bool is_1_0;   /* HTTP/1.0 */
	bool is_head;  /* the method is HEAD */
	bool is_chunked;
	bool keeps; /* the client would have the connection go on */
};

/* Fills in the protocol. Its limits and its worker are set. */
void http_init(struct http *http);

/* The request that was handed up last and is not answered yet; NULL: there is none. */
const struct http_request *http_pending(const struct session *session);

/*
 * Where limits.upload is set, a request whose body has not come with it is handed up as its head alone; the body is
 * read while it is pending (incoming.c): http_want_rest(), then decode() of http->rest gives a piece, in which nothing
 * is for the end, or all of it. Is there something of it to be read?
 */
bool http_has_rest(const struct session *session);

/* Of the requests of its connection, which one was handed up last? So nobody takes another one's body for its own. */
uint32_t http_number_of(const struct session *session);

/* 0, or ERR_FRAME_REPLY: there is none, or all is wanted of one that was read in pieces. */
int http_want_rest(const struct http *http, struct session *session, bool all);

/* Of a request that is answered: what is still to come of its body, and is dropped. */
size_t http_dropped_bytes(const struct session *session);

/* Was all of it wanted, so that nobody but the client is to be told what is wrong with it? */
bool http_wants_all(const struct session *session);

/* Does the client wait for 100 Continue? And that, once: 0 or ERR_BUFFER_LIMIT. */
bool http_owes_continue(const struct session *session);
int http_continue(struct session *session, struct buf_pool *pool, struct buf **out);

/* Of such a body that has come to its end: the lines of its trailers. */
const char *http_trailers(const struct session *session, size_t *n);

/* Is it between requests, with nothing of the next one? */
bool http_is_at_rest(const struct session *session);

struct http_response {
	unsigned status; /* 200 to 599 */
	/* Fields, each "Name: value\r\n", that are none of those that are made here: http_makes_field(). */
	const char *fields;
	size_t field_bytes;
	const char *body;
	size_t body_bytes;
	bool closes; /* the connection is to end after it */
	bool stands; /* it comes in pieces, and is whole whenever the server ends it */
	/* Set by http_respond(): the bytes appended, where in them the Date field is, and does the connection end? */
	size_t bytes, date_at, date_bytes;
	bool is_last;
};

/*
 * Appends the response to the pending request. 0, ERR_FRAME_REPLY (no request is pending), or ERR_BUFFER_LIMIT with
 * nothing appended.
 */
int http_respond(const struct http *http, struct session *session, struct http_response *response,
		 struct buf_pool *pool, struct buf **out);

/*
 * Responses in pieces (pieces.c): a head, pieces of the body, an end. The request is pending until then. The body is
 * as long as was said, or is chunked, or, for HTTP/1.0, ends with the connection. Where the response has no body, as
 * one to HEAD, pieces are counted and left out.
 */
enum http_framing {
	FRAMING_NONE, /* no response is under way */
	FRAMING_LENGTH,
	FRAMING_CHUNKS,
	FRAMING_END, /* of the connection: one that comes too early must be a reset, as nothing else tells */
	FRAMING_BODILESS,
};

/* The most that is added to a piece. */
enum { HTTP_PIECE_OVERHEAD = 16 + 4 };

/*
 * Appends the head. The response has no body; `length`: how long that will be, or NULL. Sets what http_respond() does.
 * 0, ERR_FRAME_REPLY (no request is pending, or its response has begun), or ERR_BUFFER_LIMIT with nothing appended.
 */
int http_begin_pieces(const struct http *http, struct session *session, struct http_response *response,
		      const uint64_t *length, struct buf_pool *pool, struct buf **out);

/*
 * Appends a piece. 0, ERR_FRAME_REPLY (none has begun), ERR_FRAME_TOO_LARGE (more than its length), ERR_BUFFER_LIMIT.
 */
int http_add_piece(struct session *session, const void *data, size_t n, struct buf_pool *pool,
		   struct buf **out);

/* Appends bytes as a piece of a response that is framed like that. 0 or ERR_BUFFER_LIMIT. */
int http_frame_piece(enum http_framing framing, const void *data, size_t n, struct buf_pool *pool,
		     struct buf **out);

/*
 * Hands it a file to send from, from that offset on: the session closes it, when the response has ended or the session
 * does. A response of a known length is about to begin.
 */
void http_give_file(struct session *session, int file, uint64_t offset);

/*
 * Appends up to n bytes of that, *added of them; 0: that was all. 0, ERR_FRAME_REPLY, ERR_BUFFER_LIMIT, or a negative
 * error of reading; UV_EOF: the file has become shorter.
 */
int http_add_from_file(struct session *session, size_t n, size_t *added, struct buf_pool *pool,
		       struct buf **out);

/*
 * Where it can be sent without being read: up to n bytes of *file from *at on; 0: it cannot, or there are none. And so
 * many of them have been.
 */
size_t http_part_of_file(const struct session *session, size_t n, int *file, uint64_t *at);
void http_sent_of_file(struct session *session, size_t n);

/*
 * Appends the end, with trailers where it is chunked: lines as `fields`. 0, ERR_FRAME_REPLY, ERR_BUFFER_LIMIT, or
 * ERR_FRAME_MALFORMED: it is shorter than was said.
 */
int http_end_pieces(const struct http *http, struct session *session, const char *trailers, size_t n,
		    struct buf_pool *pool, struct buf **out);

/* Has it said its last: does no response follow? */
bool http_is_last(const struct session *session);

enum http_framing http_framing_of(const struct session *session);

/* Is one under way whose pieces come from elsewhere as well, each whole by itself: server-sent events? */
bool http_is_standing(const struct session *session);

/* A piece of such a response is longer than was room for: the rest of it comes before any other. */
void http_set_amid(struct session *session, bool is_amid);
bool http_is_amid(const struct session *session);

/* Bytes that its length says are still to come. */
uint64_t http_left_of(const struct session *session);

/* Does a response of that status have no body, whatever was asked? */
bool http_is_bodiless(unsigned status);

/*
 * Appends the response to the pending request that is the last word of HTTP: 101, with fields as above. What follows is
 * another protocol's. 0, ERR_FRAME_REPLY or ERR_BUFFER_LIMIT.
 */
int http_switch(struct session *session, const char *fields, size_t n, struct buf_pool *pool,
		struct buf **out);

/* "OK"; "" where the status has no phrase that is known. */
const char *http_phrase(unsigned status);

static inline const struct http *http_of(const struct protocol *protocol)
{
	return (const struct http *)(const void *)protocol;
}
