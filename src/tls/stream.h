/*
 * TLS as a layer of a stream: TLS 1.2 and 1.3 (RFC 5246, RFC 8446) by OpenSSL, over whatever stream is below. The
 * layer's settings are a struct tls_context, which says whether it is the server's side or the client's. A client
 * speaks first: until it has, the layer needs STREAM_WRITE. So the first event of a socket that has connected begins
 * the handshake.
 *
 * Our end of stream is a close_notify, and so is the peer's: one that ends without is cut off, and is told apart as a
 * reset. There is no renegotiation.
 *
 * Threads: its connection's worker's.
 */
#pragma once

#include "stream/stream.h"

#include <openssl/ssl.h>

extern const struct stream_ops TLS_STREAM;

/* OpenSSL's connection, once it has opened; or NULL: the stack has no TLS. */
SSL *tls_stream_of(const struct stream_user *user);
