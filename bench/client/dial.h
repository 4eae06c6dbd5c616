#pragma once

#include "client.h"

#include <openssl/types.h>

/* Starts the nth connection to the server, from one source address after another, without waiting for it. Returns a
 * non-blocking socket that the caller owns, or -1 with errno. */
int dial_start(const struct options *o, uint64_t nth);

/* The same with TCP_NODELAY, established. Dies when that fails. */
int dial(const struct options *o, uint64_t nth);

/* A connected, non-blocking socket of UDP, from the nth source address. Dies when that fails. */
int dial_datagrams(const struct options *o, uint64_t nth);

/* Waits until the socket is ready for `events` of poll(). Returns false after some seconds without. */
bool dial_wait(int fd, short events);

/*
 * All of it, waiting as needed; through TLS, where there is any. Returns false on an error, the end of the stream, or
 * seconds without progress.
 */
bool dial_send(int fd, SSL *tls, const uint8_t *bytes, size_t len);
bool dial_receive(int fd, SSL *tls, uint8_t *bytes, size_t len);

/* What is there, up to len bytes, waiting for the first of them. Zero where dial_receive() returns false. */
size_t dial_receive_some(int fd, SSL *tls, uint8_t *bytes, size_t len);
