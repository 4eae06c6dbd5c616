/* Addresses as people write them. */
#pragma once

#include <stddef.h>

struct conn;
struct sockaddr;

enum { PEER_TEXT_BYTES = 64 };

/* "127.0.0.1:5060", "[2001:db8::1]:5060", "unix". Always terminated; returns text. */
const char *address_text(const struct sockaddr *address, char *text, size_t size);

/* The peer of a connection. */
const char *peer_text(const struct conn *conn, char *text, size_t size);

/* Our side. */
const char *local_text(struct conn *conn, char *text, size_t size);
