/* The ends of a connection, as people write them. */
#pragma once

#include "net/address.h"

struct conn;

enum { PEER_TEXT_BYTES = ADDRESS_TEXT_BYTES, LOCAL_TEXT_BYTES = sizeof "unix:" + ADDRESS_PATH_BYTES };

/* Its address; see address_text(). Always terminated; returns text. */
const char *peer_text(const struct conn *conn, char *text, size_t size);

/* Ours: the same, or "unix:/run/app.sock". */
const char *local_text(struct conn *conn, char *text, size_t size);
