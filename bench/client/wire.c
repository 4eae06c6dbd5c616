#define _GNU_SOURCE
#include "wire.h"

#include "dial.h"

#include <errno.h>
#include <stdlib.h>
#include <strings.h>

enum {
	REQUEST_MAX = 1 << 20,
	HEAD_MAX = 16 << 10, /* of a response, with its end */
	HELLO_MAX = 1024,
	MASK_BYTES = 4,
	/* Of a WebSocket's frame (RFC 6455, 5.2). */
	FINAL_TEXT = 0x81,
	FINAL_BINARY = 0x82,
	COMPRESSED = 0x40,
	MASKED = 0x80,
	LENGTH_16 = 126,
	LENGTH_64 = 127,
	/* A block of DEFLATE that is stored, and what remains of the empty one behind it (RFC 7692, 7.2.1). */
	STORED_HEAD = 5,
	STORED_TAIL = 1,
};

static const uint8_t MASK[MASK_BYTES] = { 0x6b, 0x35, 0xd2, 0x9c };
static const char ZEROS[] = "0000000000000000";
static const char HTTP_OK[] = "HTTP/1.1 200";
/* The key and its answer are those of RFC 6455, 1.3: no server knows that it has seen it before. */
static const char HELLO[] =
    "GET %s HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n%s\r\n";
static const char OFFER[] = "Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; "
			    "client_no_context_takeover\r\n";
static const char ACCEPT[] = "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
static const char AGREED[] = "Sec-WebSocket-Extensions: permessage-deflate";

void wire_digits(uint8_t *digits, uint64_t serial)
{
	uint64_t mixed = serial * 0x9e3779b97f4a7c15u; /* odd, so no two serials become one */

	for (size_t i = 0; i < WIRE_DIGITS; i++, mixed >>= 4)
		digits[i] = (uint8_t) "0123456789abcdef"[mixed & 15];
}

/* ---- frames ---- */

static void init_frames(struct wire *w, const struct options *o)
{
	uint8_t *frame = need_zeroed(1, FRAME_HEADER + o->size);

	frame_put_header(frame, o->size);
	w->request = frame;
	w->request_bytes = w->reply_bytes = FRAME_HEADER + o->size;
	w->serial_at = w->prefix_bytes = FRAME_HEADER;
	memcpy(w->prefix, frame, FRAME_HEADER);
	w->serial_bytes = FRAME_SERIAL;
	w->is_echoed = true;
}

/* ---- HTTP ---- */

static void init_http(struct wire *w, const char *path)
{
	uint8_t *request = need_zeroed(1, REQUEST_MAX);
	FILE *f = fopen(path, "rb");
	const uint8_t *zeros;

	if (!f)
		die(path);
	w->request = request;
	w->request_bytes = fread(request, 1, REQUEST_MAX, f);
	if (ferror(f))
		die(path);
	fclose(f);
	errno = 0;
	if (w->request_bytes == REQUEST_MAX)
		die("the request of --http has to be shorter than 1 MiB");
	zeros = memmem(request, w->request_bytes, ZEROS, WIRE_DIGITS);
	if (!zeros)
		die("the request of --http needs sixteen zeros, in whose place a serial number goes");
	w->serial_at = (size_t)(zeros - request);
	w->serial_bytes = WIRE_DIGITS;
	w->prefix_bytes = sizeof HTTP_OK - 1;
	memcpy(w->prefix, HTTP_OK, w->prefix_bytes);
}

/* ---- WebSockets ---- */

/* The first bytes of a frame of WebSockets. Returns how many. */
static size_t put_websocket_head(uint8_t *frame, uint8_t first, uint8_t masked, size_t payload)
{
	const size_t more = payload < LENGTH_16 ? 0 : payload <= UINT16_MAX ? 2 : 8;

	frame[0] = first;
	frame[1] = (uint8_t)(masked | (more == 0 ? payload : more == 2 ? LENGTH_16 : LENGTH_64));
	for (size_t i = 0; i < more; i++)
		frame[2 + i] = (uint8_t)(payload >> 8 * (more - 1 - i));
	return 2 + more;
}

/* Printable bytes, and so text, in the order of the alphabet. */
static void put_payload(uint8_t *payload, size_t size)
{
	for (size_t i = 0; i < size; i++)
		payload[i] = (uint8_t)('a' + i % 26);
}

/* A block of DEFLATE around the payload: it is inflated without having been compressed. */
static void put_stored(uint8_t *message, size_t size)
{
	message[1] = (uint8_t)size;
	message[2] = (uint8_t)(size >> 8);
	message[3] = (uint8_t)~message[1];
	message[4] = (uint8_t)~message[2];
	put_payload(message + STORED_HEAD, size);
}

static void init_websocket(struct wire *w, const struct options *o)
{
	const size_t before = o->deflate ? STORED_HEAD : 0, after = o->deflate ? STORED_TAIL : 0;
	const size_t message_bytes = before + o->size + after;
	uint8_t *frame = need_zeroed(1, 2 + sizeof(uint64_t) + MASK_BYTES + message_bytes), *message;
	uint8_t kind = o->binary ? FINAL_BINARY : FINAL_TEXT;
	char *hello = need_zeroed(1, HELLO_MAX);
	size_t head =
	    put_websocket_head(frame, (uint8_t)(kind | (o->deflate ? COMPRESSED : 0)), MASKED, message_bytes);

	memcpy(frame + head, MASK, MASK_BYTES);
	message = frame + head + MASK_BYTES;
	if (o->deflate)
		put_stored(message, o->size);
	else
		put_payload(message, o->size);
	for (size_t i = 0; i < message_bytes; i++)
		message[i] ^= MASK[i % MASK_BYTES];
	w->request = frame;
	w->request_bytes = head + MASK_BYTES + message_bytes;
	w->serial_at = head + MASK_BYTES + before;
	w->serial_bytes = WIRE_DIGITS;
	for (size_t i = 0; i < WIRE_DIGITS; i++)
		w->mask[i] = MASK[(before + i) % MASK_BYTES];
	w->prefix_bytes = put_websocket_head(w->prefix, kind, 0, o->size);
	w->reply_bytes = w->prefix_bytes + o->size;
	w->is_echoed = true;
	if (snprintf(hello, HELLO_MAX, HELLO, o->websocket, o->deflate ? OFFER : "") >= HELLO_MAX)
		die("the path of --websocket is too long");
	w->hello = hello;
	w->welcome[0] = ACCEPT;
	w->welcome[1] = o->deflate ? AGREED : NULL;
}

/* ---- all of them ---- */

void wire_init(struct wire *w, const struct options *o)
{
	*w = (struct wire){ 0 };
	if (o->http)
		init_http(w, o->http);
	else if (o->websocket)
		init_websocket(w, o);
	else
		init_frames(w, o);
	w->head_bytes = w->prefix_bytes + (w->is_echoed ? w->serial_bytes : 0);
}

void wire_fill(const struct wire *w, uint8_t *requests, size_t count)
{
	if (w->serial_bytes == FRAME_SERIAL) {
		frame_fill(requests, count, w->request_bytes - FRAME_HEADER);
		return;
	}
	for (size_t i = 0; i < count; i++)
		memcpy(requests + i * w->request_bytes, w->request, w->request_bytes);
}

/* ---- heads of HTTP ---- */

/* The head of a response, and what came behind it. */
struct response {
	char head[HEAD_MAX + 1]; /* with a zero byte behind all */
	size_t bytes, head_bytes;
};

/* Returns false when the connection ends, stalls, or the head is too long. */
static bool receive_head(struct response *r, int fd, SSL *tls)
{
	const char *end = NULL;

	r->bytes = 0;
	while (!end && r->bytes < HEAD_MAX) {
		size_t got = dial_receive_some(fd, tls, (uint8_t *)r->head + r->bytes, HEAD_MAX - r->bytes);

		if (!got)
			return false;
		r->bytes += got;
		r->head[r->bytes] = '\0';
		end = strstr(r->head, "\r\n\r\n");
	}
	if (!end)
		return false;
	r->head_bytes = (size_t)(end - r->head) + 4;
	return true;
}

/* What is behind `start` in the line of the head that begins with it, in whatever case, or NULL. */
static const char *line_behind(const struct response *r, const char *start)
{
	const size_t len = strlen(start);

	for (const char *line = r->head; line < r->head + r->head_bytes - 4; line = strstr(line, "\r\n") + 2)
		if (strncasecmp(line, start, len) == 0)
			return line + len;
	return NULL;
}

_Noreturn static void die_of(const char *what, struct response *r)
{
	r->head[strcspn(r->head, "\r\n")] = '\0';
	fprintf(stderr, "load: %s: %s\n", what, r->head);
	exit(2);
}

void wire_greet(const struct wire *w, int fd, SSL *tls)
{
	struct response r = { 0 };

	if (!w->hello)
		return;
	if (!dial_send(fd, tls, (const uint8_t *)w->hello, strlen(w->hello)) || !receive_head(&r, fd, tls))
		die("no answer to the handshake of WebSockets");
	if (!line_behind(&r, "HTTP/1.1 101") || r.bytes != r.head_bytes)
		die_of("the handshake of WebSockets is refused", &r);
	for (size_t i = 0; i < sizeof w->welcome / sizeof *w->welcome && w->welcome[i]; i++)
		if (!line_behind(&r, w->welcome[i]))
			die_of(w->welcome[i], &r);
}

/* Takes the first response, and from it the length of all. */
static void learn(struct wire *w, int fd, SSL *tls)
{
	struct response r = { 0 };
	const char *value;
	uint8_t *rest;
	size_t left;

	if (!receive_head(&r, fd, tls))
		die("no response");
	value = line_behind(&r, "Content-Length:");
	if (memcmp(r.head, w->prefix, w->prefix_bytes) != 0 || !value)
		die_of("the first response has to be a 200 with Content-Length", &r);
	w->reply_bytes = r.head_bytes + strtoull(value, NULL, 10);
	if (w->reply_bytes < r.bytes)
		die_of("the first response is longer than it says", &r);
	left = w->reply_bytes - r.bytes;
	rest = need_zeroed(1, left);
	if (!dial_receive(fd, tls, rest, left))
		die("the first response does not come to its end");
	free(rest);
}

bool wire_exchange(struct wire *w, int fd, SSL *tls, uint64_t serial)
{
	uint8_t *request = need_zeroed(1, w->request_bytes), *reply;
	bool right;

	wire_fill(w, request, 1);
	wire_put_serial(w, request, serial);
	right = dial_send(fd, tls, request, w->request_bytes);
	free(request);
	if (!right)
		return false;
	if (!w->reply_bytes) {
		learn(w, fd, tls);
		return true;
	}
	reply = need_zeroed(1, w->reply_bytes);
	right = dial_receive(fd, tls, reply, w->reply_bytes) && wire_is_reply(w, reply, serial, true);
	free(reply);
	return right;
}
