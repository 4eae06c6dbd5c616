/* What the files of this folder share. Nobody else includes it. */
#pragma once

#include "base/buf.h"
#include "base/counters.h"
#include "http/http.h"
#include "http/refusal.h"

#include <string.h>

enum {
	HTTP_METHOD_MAX = 32,
	HTTP_LINE_REST =
	    HTTP_METHOD_MAX + 11, /* of a request line, without its target: blanks, the version, CR */
	HTTP_HEAD_MAX = 512       /* bytes of a response's head without the fields of the handler */
};

static inline bool http_is_blank(uint8_t c)
{
	return c == ' ' || c == '\t';
}

/* Without the blanks around it. */
static inline void http_trim(const uint8_t **text, size_t *n)
{
	for (; *n && http_is_blank(**text); (*n)--)
		(*text)++;
	while (*n && http_is_blank((*text)[*n - 1]))
		(*n)--;
}

/* What is being read. */
enum http_stage {
	STAGE_LINE,   /* the request line */
	STAGE_FIELDS, /* up to the empty line */
	STAGE_BODY,   /* of a known length */
	STAGE_CHUNK,  /* the line with a chunk's size */
	STAGE_DATA,   /* a chunk */
	STAGE_DATA_END,
	STAGE_TRAILERS,
};

/* What becomes of the body of a request that was handed up without it. */
enum http_rest {
	REST_NONE, /* there is none, or no more */
	REST_UNREAD,
	REST_PIECES,
	REST_ALL,
	REST_DROPPED, /* the request is answered */
};

struct http_session {
	struct http_request request;
	const struct http *http; /* of which `rest` is read */
	struct buf *body;        /* chunked: the head, and what has come of the body; else NULL */
	uint64_t left;           /* of the body, or of the chunk */
	uint64_t out_left;       /* of the body of the response under way: FRAMING_LENGTH */
	uint64_t file_at;        /* from where on `file` is sent */
	int file;
	uint64_t taken;               /* of a chunked body: bytes that are decoded */
	size_t given;                 /* bytes at the front of `body` that were given as a piece */
	size_t came;                  /* of the body by the last look: whether more has come since */
	uint32_t at;                  /* of the head: where the line at hand begins */
	uint32_t scanned;             /* bytes from there on that hold no LF */
	uint32_t requests;            /* of the connection that were handed up */
	uint32_t block_bytes, fields; /* header fields and trailers so far */
	uint8_t stage;
	uint8_t refusal;   /* enum http_refusal: what it was refused for */
	uint8_t rest;      /* enum http_rest */
	uint8_t framing;   /* enum http_framing: of the response that is under way */
	bool has_host : 1; /* of the head at hand */
	bool has_length : 1;
	bool has_coding : 1;
	bool has_close : 1;      /* Connection: close, */
	bool has_keep_alive : 1; /* ... or keep-alive */
	bool expects : 1;        /* 100-continue */
	bool bad_expectation : 1;
	bool skipped : 1;     /* an empty line before it */
	bool begun : 1;       /* something of the request has come */
	bool pending : 1;     /* it was handed up, and is not answered yet */
	bool last : 1;        /* no response follows */
	bool is_silent : 1;   /* the response under way has no body, whatever is written */
	bool is_standing : 1; /* ... and it is whole whenever the server ends it */
	bool is_ending : 1;   /* ... and the connection ends after it */
	bool is_amid : 1;     /* ... and a piece of it is not whole */
	bool has_file : 1;    /* ... and it is sent from `file` */
};

static inline struct http_session *http_session_of(const struct session *session)
{
	return session->own;
}

/* head.c */

/*
 * Reads on in the head, in[0 .. n), from its first byte. True: it is whole, and s->request is filled in. False: it is
 * not, or s->refusal says why it is refused.
 */
bool http_read_head(const struct http *http, struct http_session *s, const uint8_t *in, size_t n);

/*
 * The line at in[0 .. n) that has ended: its length without CR LF. False: it has not ended, or is refused. `most` bytes
 * at most, its end included, or it is refused for `too_long`.
 */
bool http_line(struct http_session *s, const uint8_t *in, size_t n, size_t most, enum http_refusal too_long,
	       size_t *len);

/* The same of a field's line, or the empty one behind them: within limits.headers. */
bool http_field_line(const struct http *http, struct http_session *s, const uint8_t *in, size_t n,
		     size_t *len);

/* A field line of a trailer. False: it is refused. */
bool http_read_trailer(const struct http *http, struct http_session *s, const uint8_t *line, size_t len);

/* The same of a request, whose trailers are handed up: what must be known before the body is refused as well. */
bool http_read_request_trailer(const struct http *http, struct http_session *s, const uint8_t *line,
			       size_t len);

/* A field line of a response. False: it is refused. */
bool http_read_response_field(const struct http *http, struct http_session *s, const uint8_t *line,
			      size_t len);

/* Has it only bytes that the value of a field may have? */
bool http_is_value(const uint8_t *text, size_t n);

/* body.c */

/* The line with a chunk's size: its bytes, 0: it has not ended, or s->refusal says why it is refused. */
size_t http_read_chunk_line(struct http_session *s, const uint8_t *in, size_t n, uint64_t *size);

/* The same of the end of a chunk's data, behind which the next chunk's line is read. n is 1 at least. */
size_t http_read_chunk_end(struct http_session *s, const uint8_t *in, size_t n);

/*
 * Reads on in a chunked body: adds to s->body what is decoded. Returns how many bytes are done with; *is_whole: that
 * was all of it. Else there is more to come, or s->refusal is set, or *error is ERR_BUFFER_LIMIT.
 */
size_t http_read_chunks(const struct http *http, struct http_session *s, const uint8_t *in, size_t n,
			bool *is_whole, int *error);

/* protocol.c */

/* What s->refusal says of it. */
void http_fail_batch(struct http_session *s, struct batch *out);

/* The bytes of the chunk, or of trailers, that are at hand, `has` at most; 0: no room would do. */
size_t http_room_wanted(const struct http *http, const struct http_session *s, size_t has);

/* incoming.c */

/* The head of a request is whole, of n bytes: is it to be handed up without its body? And does that. */
bool http_comes_apart(const struct http *http, const struct http_session *s, size_t n);
void http_give_head(const struct http *http, struct http_session *s, const uint8_t *in, struct batch *out);

/* The request is answered, and of its body n bytes more have come. */
void http_drop_rest(struct http_session *s, size_t n, struct batch *out);

/* Is the request at hand the last one that its connection may have? */
bool http_is_last_request(const struct http *http, const struct http_session *s);

/* It is answered: is so much of its body to come that the connection is to end? */
bool http_abandons_rest(const struct http_session *s);

void http_init_rest(struct http *http);

/* struct protocol_ops */
size_t http_ahead(const struct protocol *protocol, const struct session *session);

/* pieces.c */

/* The server ends the response under way: one that stands is whole. 0 or ERR_BUFFER_LIMIT. */
int http_stand_down(struct http_session *s, struct buf_pool *pool, struct buf **out);

/* Closes the file that a response is sent from, if there is one. */
void http_drop_file(struct http_session *s);

/* response.c */

/* How a response's head says where its end is. */
struct http_framed {
	enum http_framing by;
	uint64_t length; /* FRAMING_LENGTH */
};

/*
 * Writes the head at `to`, which has room for HTTP_HEAD_MAX and the fields, and returns its end. Sets in the response
 * where its date is, and is_last.
 */
char *http_put_head(char *to, const struct http *http, const struct http_request *request,
		    struct http_response *response, struct http_framed framed);

_Static_assert(offsetof(struct counters, http_5xx) - offsetof(struct counters, http_2xx) ==
		   3 * sizeof(counter),
	       "one behind the other");

/* A response of that status, 200 to 599, is on its way. */
static inline void http_count_class(const struct http *http, unsigned status)
{
	counter *classes = &http->worker->counters->http_2xx;
	if (status >= 200 && status < 600)
		count(classes + (status / 100 - 2));
}

/* Appends the response that refuses, the last one. 0 or ERR_BUFFER_LIMIT. */
int http_refuse(const struct http *http, struct http_session *s, enum http_refusal refusal,
		struct buf_pool *pool, struct buf **out);

static inline bool http_fail(struct http_session *s, enum http_refusal refusal)
{
	s->refusal = (uint8_t)refusal;
	return false;
}

/* Is it the lower-case word, whatever the case of its letters? */
static inline bool http_is_word(const uint8_t *text, size_t n, const char *word)
{
	if (n != strlen(word))
		return false;
	for (size_t i = 0; i < n; i++)
		if ((text[i] >= 'A' && text[i] <= 'Z' ? text[i] | 0x20 : text[i]) != (uint8_t)word[i])
			return false;
	return true;
}
