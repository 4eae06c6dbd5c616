/*
 * What goes over the wire: requests of one size and replies of one size, whether these are frames, HTTP or messages of
 * a WebSocket. All that differs is data, so that a mode of the client knows none of them.
 *
 * Each request carries a serial number that no other one has, because a runtime that interns strings finds a repeated
 * one ready-made. Where it is in digits, they are of a number that differs from its neighbours' in all of them, as some
 * hashes sample a few bytes of a string.
 */
#pragma once

#include "client.h"
#include "frame.h"

#include <openssl/types.h>
#include <stdio.h>

enum {
	WIRE_DIGITS = 16, /* of a serial, hexadecimal */
	WIRE_PREFIX_MAX = 12,
	WIRE_HEAD_MAX = WIRE_PREFIX_MAX + WIRE_DIGITS,
};

struct wire {
	const uint8_t *request; /* one, with the place of its serial; lives as long as the process */
	size_t request_bytes;
	size_t reply_bytes;        /* zero: the first reply will tell, see wire_exchange() */
	size_t serial_at;          /* where in a request */
	size_t serial_bytes;       /* of a frame: 8, as it is; WIRE_DIGITS: in digits */
	uint8_t mask[WIRE_DIGITS]; /* what digits are combined with in a request; a reply has them without */
	uint8_t prefix[WIRE_PREFIX_MAX]; /* what each reply begins with */
	size_t prefix_bytes;
	bool is_echoed;         /* the serial is right behind that */
	size_t head_bytes;      /* both: the part of a reply that is checked */
	const char *hello;      /* HTTP that is said first on a connection; NULL: nothing is */
	const char *welcome[2]; /* lines that the answer to that must have, in any case; NULL: no more */
};

/* What the options ask for. Dies when a file cannot be read or is no request. */
void wire_init(struct wire *w, const struct options *o);

/* Writes count requests, all but their serials. The filler of frames differs from one to the next. */
void wire_fill(const struct wire *w, uint8_t *requests, size_t count);

/* The digits of a serial. */
void wire_digits(uint8_t *digits, uint64_t serial);

static inline void wire_put_serial(const struct wire *w, uint8_t *request, uint64_t serial)
{
	uint8_t *place = request + w->serial_at;

	if (w->serial_bytes == FRAME_SERIAL) {
		memcpy(place, &serial, sizeof serial);
		return;
	}
	wire_digits(place, serial);
	for (size_t i = 0; i < WIRE_DIGITS; i++)
		place[i] ^= w->mask[i];
}

/* Whether head, the first head_bytes of a reply, is right. verify: the serial as well, where it comes back. */
static inline bool wire_is_reply(const struct wire *w, const uint8_t *head, uint64_t serial, bool verify)
{
	const uint8_t *echo = head + w->prefix_bytes;
	uint8_t digits[WIRE_DIGITS];

	if (memcmp(head, w->prefix, w->prefix_bytes) != 0)
		return false;
	if (!verify || !w->is_echoed)
		return true;
	if (w->serial_bytes == FRAME_SERIAL)
		return memcmp(echo, &serial, sizeof serial) == 0;
	wire_digits(digits, serial);
	return memcmp(echo, digits, sizeof digits) == 0;
}

/* Says what is said first on a new connection, and waits for the answer. Dies when that is not as it must be. */
void wire_greet(const struct wire *w, int fd, SSL *tls);

/*
 * A request and its reply, on a connection that has nothing in flight. Learns the length of replies from the first one,
 * and dies when it does not tell. Returns false when the reply is not there or not right.
 */
bool wire_exchange(struct wire *w, int fd, SSL *tls, uint64_t serial);
