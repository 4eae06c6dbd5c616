/*
 * What the contexts of both sides are set up with: certificates, keys and authorities from PEM, ciphers, and how their
 * connections read and write.
 *
 * Threads: any; of a context, one at a time.
 */
#pragma once

#include <openssl/ssl.h>
#include <stdbool.h>
#include <stddef.h>

struct tls_file;
struct tls_pair;

/* Where a function that returns false says why. */
struct setup_why {
	char *text;
	size_t size;
};

/* False, with what OpenSSL has to say of the file. */
bool setup_refuse(const struct setup_why *why, const struct tls_file *file, const char *what);

/* Our certificate with its chain, and its key. */
bool setup_pair(SSL_CTX *ssl, const struct tls_pair *pair, const struct setup_why *why);

/* Who is trusted. A server also names them to its clients. */
bool setup_authority(SSL_CTX *ssl, const struct tls_file *file, const struct setup_why *why);

/* A list of OpenSSL's names: those of 1.3 begin with TLS_. NULL: its own choice. */
bool setup_ciphers(SSL_CTX *ssl, const char *ciphers, const struct setup_why *why);

/* The peer's certificate is asked for, and taken whoever's it is; SSL_get_verify_result() has an error then. */
void setup_take_any(SSL_CTX *ssl);

/* How records are read and written, from which version on. */
void setup_modes(SSL_CTX *ssl, int min_version);
