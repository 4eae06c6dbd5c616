/*
 * The layer that takes the PROXY header off a connection. It opens when that is complete; then it is in nobody's way,
 * and stream_peer_address() says who the client is.
 *
 * Whether the peer may speak for others is not its business (struct endpoint: `trust`).
 */
#pragma once

#include "stream/stream.h"

extern const struct stream_ops PROXY_STREAM;

/* A layer's settings. */
struct proxy_settings {
	bool is_optional; /* what begins otherwise has no header, and is taken as it is */
};

extern const struct proxy_settings PROXY_REQUIRED, PROXY_OPTIONAL;
