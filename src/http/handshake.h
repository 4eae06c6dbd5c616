/*
 * The handshake of a WebSocket as a client has it (RFC 6455, 4.1): what it sends, and whether the answer fits that.
 * What servers make of it is lua/perilune/http/websocket.lua.
 *
 * The answer is one that HTTP's reader takes, and then: 101, with Upgrade, Connection and the right
 * Sec-WebSocket-Accept, a subprotocol that was offered or none, and no extension that was not offered.
 *
 * Threads: any.
 */
#pragma once

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
};

/* What is asked for. Texts are somebody else's. */
struct handshake {
	const char *request; /* all of it but for the field with the key and the empty line */
	size_t request_bytes;
	const char *subprotocols; /* those that are offered, in its order: "chat,superchat"; "": none */
	bool compresses;          /* permessage-deflate is offered, each message by itself */
};

enum handshake_outcome {
	HANDSHAKE_ACCEPTED,
	HANDSHAKE_INTERIM, /* another answer follows */
	HANDSHAKE_REFUSED, /* by another status than 101 */
	HANDSHAKE_BROKEN,  /* it is no answer to what was asked */
};

struct handshake_answer {
	unsigned status;         /* ACCEPTED, REFUSED */
	uint8_t window_bits;     /* ACCEPTED: as of struct websocket */
	const char *subprotocol; /* ACCEPTED: the one that was chosen, among those offered, or NULL */
	size_t subprotocol_bytes;
	char why[HANDSHAKE_WHY_BYTES]; /* REFUSED: the reason phrase; BROKEN: what is wrong */
};

/* What a server makes of the key. */
void handshake_accept(const char key[HANDSHAKE_KEY_BYTES], char accept[HANDSHAKE_ACCEPT_BYTES]);

/* The key of a nonce, for the field Sec-WebSocket-Key. */
void handshake_key(const uint8_t nonce[HANDSHAKE_NONCE_BYTES], char key[HANDSHAKE_KEY_BYTES]);

/* The answer's head is head[0 .. n), with the empty line. */
enum handshake_outcome handshake_read(const struct handshake *asked,
				      const uint8_t nonce[HANDSHAKE_NONCE_BYTES], const uint8_t *head,
				      size_t n, struct handshake_answer *answer);
