/*
 * What the TLS streams of an endpoint have in common, in one worker: OpenSSL's contexts, made of a listener's settings.
 * One for each worker, since OpenSSL 3.0 takes locks that a shared one would make all of them wait for.
 *
 * Threads: one worker's, but for making and freeing it.
 */
#pragma once

#include <openssl/ssl.h>
#include <stddef.h>

struct tls_settings;
struct tls_context;

/* NULL, and why not in `why`. The settings must outlive it. */
struct tls_context *tls_context_new(const struct tls_settings *settings, char *why, size_t size);

/* Its streams must have opened, or be gone. */
void tls_context_free(struct tls_context *context);

/* A connection of a server's. NULL: no memory. */
SSL *tls_context_accept(const struct tls_context *context);

/* OpenSSL is used from here on, by any thread. */
void tls_library_init(void);
