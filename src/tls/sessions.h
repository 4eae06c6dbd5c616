/*
 * The sessions that servers have given to the connections of a context, for the next ones to go on with: most of the
 * handshake is left out then, and the server's certificate is not looked at again.
 *
 * A context is of one identity, and so are its sessions: the same name, the same authorities, the same rules. A context
 * that verifies nothing keeps them as well: going on with one leaves out no check that a handshake would make.
 *
 * A ticket of 1.3 is used once: two connections with the same one could be told to be the same client's (RFC 8446 C.4).
 * A session of 1.2 is used again and again. None is used when the server's certificate has ended since.
 *
 * Threads: the context's.
 */
#pragma once

#include <openssl/ssl.h>
#include <stdbool.h>

/* From here on the context keeps the latest of them, as long as it is there. False: no memory. */
bool sessions_keep(SSL_CTX *context);

/* A connection that is about to begin goes on with the latest, if there is one. */
void sessions_resume(SSL *ssl);
