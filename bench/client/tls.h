/*
 * The client's side of TLS 1.3, always with TLS_AES_128_GCM_SHA256. Whoever the server says it is, is believed, so what
 * a handshake costs the client is less than what it costs others; the server pays in full.
 */
#pragma once

#include "client.h"

#include <openssl/ssl.h>

/* What --tls and --resume say. With the latter, connections go on with the newest session that there is. */
void tls_prepare(const struct options *o);

/* Begins on a connection that has been started, without waiting. The socket stays the caller's. */
SSL *tls_start(int fd);

/* Waits for the end of the handshake. False: it has failed, or was not resumed though it is to be. */
bool tls_finish(SSL *tls);

/* Both on an established connection. Dies when that fails. */
SSL *tls_dial(int fd);

/*
 * As send(2) and recv(2), with errno. Bytes that were not sent have to come again. Reading takes all that is at hand
 * and fits; of what does not, no event tells.
 */
ssize_t tls_send(SSL *tls, const uint8_t *bytes, size_t len);
ssize_t tls_recv(SSL *tls, uint8_t *bytes, size_t len);

/* Says goodbye and frees it. NULL: there is none. */
void tls_end(SSL *tls);
