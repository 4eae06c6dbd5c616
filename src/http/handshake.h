/*
 * The handshake of a WebSocket as a client has it (RFC 6455, 4.1): what it sends, and whether the answer fits that.
 * What servers make of it is lua/perilune/http/websocket.lua; but for the terms of permessage-deflate (RFC 7692, 7.1),
 * which are here for either side.
 *
 * The answer is one that HTTP's reader takes, and then: 101, with Upgrade, Connection and the right
 * Sec-WebSocket-Accept, a subprotocol that was offered or none, and no extension that was not offered.
 *
 * Threads: any.
 */
#pragma once

#include "websocket/websocket.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	HANDSHAKE_NONCE_BYTES = 16,
	HANDSHAKE_KEY_BYTES = 24,    /* the nonce as Base64 */
	HANDSHAKE_ACCEPT_BYTES = 28, /* what the server makes of the key, */
	HANDSHAKE_HEAD_MAX = 16384,  /* ... in a head of so many bytes, */
	HANDSHAKE_FIELDS_MAX = 100,  /* ... and so many fields */
	HANDSHAKE_WHY_BYTES = 160,
	HANDSHAKE_DEFLATE_BYTES = 256, /* Sec-WebSocket-Extensions, the field line */
};

/* What is asked for. Texts are somebody else's. */
struct handshake {
	const char *request; /* all of it but for the offer, the field with the key and the empty line */
	size_t request_bytes;
	const char *subprotocols; /* those that are offered, in its order: "chat,superchat"; "": none */
	bool compresses;          /* permessage-deflate is offered, */
	bool keeps;               /* ... with windows where the worker has memory for them */
};

enum handshake_outcome {
	HANDSHAKE_ACCEPTED,
	HANDSHAKE_INTERIM, /* another answer follows */
	HANDSHAKE_REFUSED, /* by another status than 101 */
	HANDSHAKE_BROKEN,  /* it is no answer to what was asked */
};

struct handshake_answer {
	unsigned status;              /* ACCEPTED, REFUSED */
	struct websocket_terms terms; /* ACCEPTED */
	const char *subprotocol;      /* ACCEPTED: the one that was chosen, among those offered, or NULL */
	size_t subprotocol_bytes;
	char why[HANDSHAKE_WHY_BYTES]; /* REFUSED: the reason phrase; BROKEN: what is wrong */
};

/* What a server makes of the key. */
void handshake_accept(const char key[HANDSHAKE_KEY_BYTES], char accept[HANDSHAKE_ACCEPT_BYTES]);

/* The key of a nonce, for the field Sec-WebSocket-Key. */
void handshake_key(const uint8_t nonce[HANDSHAKE_NONCE_BYTES], char key[HANDSHAKE_KEY_BYTES]);

/*
 * Writes the field that offers permessage-deflate, or nothing. Returns the bits of the window of what is to come that
 * it promises, which is to be reserved until the answer is there; 0: none.
 */
unsigned handshake_offer(const struct handshake *asked, const struct websocket_worker *worker,
			 char field[HANDSHAKE_DEFLATE_BYTES]);

/*
 * A server's answer to offers[0 .. n), the value of Sec-WebSocket-Extensions: the terms of the first that can be met,
 * and the field that says so. False, with no terms and an empty field: there is none. keeps: windows may be kept.
 */
bool handshake_agree(const char *offers, size_t n, const struct websocket_worker *worker, bool keeps,
		     struct websocket_terms *terms, char field[HANDSHAKE_DEFLATE_BYTES]);

/* The answer's head is head[0 .. n), with the empty line; `promised` is what handshake_offer() said. */
enum handshake_outcome handshake_read(const struct handshake *asked, const struct websocket_worker *worker,
				      unsigned promised, const uint8_t nonce[HANDSHAKE_NONCE_BYTES],
				      const uint8_t *head, size_t n, struct handshake_answer *answer);
