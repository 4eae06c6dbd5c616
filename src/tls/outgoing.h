/*
 * TLS of connections that a script makes: what its `tls` says, as plain data with the bytes of the files that it names,
 * and the context of such connections. One for each worker and identity, for the reason that context.h gives.
 *
 * Threads: one worker's, but for making and freeing it.
 */
#pragma once

#include "tls/settings.h"

struct tls_context;

struct tls_outgoing {
	/*
	 * Whom the certificate must be for: a name without a dot before or behind it, which is asked for as well (SNI),
	 * or an address, which is not. NULL: nobody is asked for, and so nothing can be verified.
	 */
	char *server_name;
	bool verify;               /* the certificate, by authority and name; else whoever answers is taken */
	struct tls_file authority; /* PEM: who must have signed it; without one: whom the system trusts */
	struct tls_pair pair;      /* ours, for servers that ask for one; or none */
	uint8_t *alpn;             /* as on the wire: lengths and names, the best first; NULL: none */
	size_t alpn_bytes;
	int min_version; /* 0x0303: 1.2, 0x0304: 1.3 */
	char *ciphers;   /* as those of struct tls_settings */
};

/* What it has; not itself. */
void tls_outgoing_deinit(struct tls_outgoing *outgoing);

/* Of connections by these rules, which may go then. NULL, and why not in `why`. It reads no file but the system's. */
struct tls_context *tls_outgoing_context(const struct tls_outgoing *outgoing, char *why, size_t size);
