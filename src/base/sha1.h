/*
 * SHA-1 (RFC 3174) of something short, for the handshake of WebSockets, where it protects nothing. OpenSSL's needs two
 * megabytes of what OpenSSL sets up when it is first asked for a digest, which a server without TLS does without.
 *
 * Threads: any.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

enum { SHA1_BYTES = 20, SHA1_MOST = 119 };

/* Of data[0 .. n), up to SHA1_MOST bytes. */
void sha1(uint8_t digest[SHA1_BYTES], const void *data, size_t n);
