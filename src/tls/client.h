/*
 * The client's side of TLS, in memory: bytes that it sends become what is on the wire, and back. For tests; it trusts
 * whoever answers, unless it is given an authority.
 *
 * Threads: its owner's.
 */
#pragma once

#include <openssl/ssl.h>
#include <stdbool.h>
#include <stddef.h>

struct tls_client;

struct tls_client_settings {
	const char *server_name; /* NULL: it asks for none */
	const unsigned char *alpn;
	size_t alpn_bytes;       /* as on the wire; 0: none */
	int version;             /* 0x0303 or 0x0304 alone; 0: either */
	const char *certificate; /* PEM, and its key in another; NULL: none */
	const char *key;
	const char *authority; /* PEM: whom it trusts; NULL: anybody */
	SSL_SESSION *session;  /* it would go on with that; NULL: with none */
};

/* NULL, and why not in `why`. Its first words are to be taken at once: tls_client_take(). */
struct tls_client *tls_client_new(const struct tls_client_settings *settings, char *why, size_t size);
void tls_client_free(struct tls_client *client);

/* It has that to say: at once, or when the handshake is over. False: no memory, or it has ended. */
bool tls_client_send(struct tls_client *client, const void *bytes, size_t n);

/* It says no more: a close_notify. */
void tls_client_end(struct tls_client *client);

/* Takes up to n bytes for the wire. How many; 0: there are none. */
size_t tls_client_take(struct tls_client *client, void *to, size_t n);

/* These have come by the wire. False: no memory. */
bool tls_client_put(struct tls_client *client, const void *bytes, size_t n);

/* Reads up to n bytes of what the server has said. How many; 0: there are none for now. */
size_t tls_client_read(struct tls_client *client, void *to, size_t n);

/* Has the server said that it says no more? */
bool tls_client_is_ended(const struct tls_client *client);

/* Why it has failed, or NULL. */
const char *tls_client_why(const struct tls_client *client);

/* OpenSSL's connection, once the handshake is over; or NULL. */
SSL *tls_client_ssl(const struct tls_client *client);
