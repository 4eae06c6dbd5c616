/*
 * Why a handshake or a record has failed, in words of the two sides: a server's connection speaks of its client, one
 * that a script has made of its server.
 *
 * Threads: the connection's.
 */
#pragma once

#include <openssl/ssl.h>
#include <stdbool.h>

/*
 * Of the last error in OpenSSL's queue; where there are no words for it, in OpenSSL's own. Static text, or *made, which
 * is to be freed.
 */
const char *failure_text(SSL *ssl, char **made);

/* Its peer has gone before the handshake was over. NULL: that is no news. */
const char *failure_of_leaving(const SSL *ssl, bool has_heard);

/* Its peer sends messages that hold no byte for us, on and on. */
const char *failure_of_asides(const SSL *ssl);
