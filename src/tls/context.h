/*
 * What TLS streams have in common, in one worker: OpenSSL's contexts. Those of a listener are made of its settings,
 * those of connections out as outgoing.h says. One for each worker, since OpenSSL 3.0 takes locks that a shared one
 * would make all of them wait for.
 *
 * Threads: one worker's, but for making and freeing it.
 */
#pragma once

#include <openssl/ssl.h>
#include <stdbool.h>
#include <stddef.h>

struct tls_context;
struct tls_settings;

/* Which side of its connections is ours: the server's or the client's. */
struct tls_side {
	/* A connection that is about to begin. NULL: no memory. */
	SSL *(*begin)(const struct tls_context *context);

	void (*free)(struct tls_context *context);
	bool speaks_first;
};

/* What each kind of context begins with. */
struct tls_context {
	const struct tls_side *side;
};

/* Of a listener. NULL, and why not in `why`. The settings must outlive it. */
struct tls_context *tls_context_new(const struct tls_settings *settings, char *why, size_t size);

/* NULL is none. Its streams must have opened, or be gone. */
void tls_context_free(struct tls_context *context);

/* OpenSSL is used from here on, by any thread. */
void tls_library_init(void);
