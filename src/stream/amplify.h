/*
 * A layer over a flow that keeps its replies from being a weapon: who forges the address of a victim must not get us
 * to send the victim more than a few times what it has sent us (RFC 9000, section 8.1, does the same for QUIC). What
 * would be too much is dropped and counted, until the peer has answered: a datagram has come after one of ours had
 * gone. Bytes are those of records: of datagrams with their headers of UDP.
 *
 * Threads: as the connection's.
 */
#pragma once

#include "base/counters.h"
#include "stream/stream.h"

/* Of all flows of a listener and a thread. */
struct amplify_settings {
	uint32_t factor;  /* bytes sent for each that has come, 1 at least */
	const char *name; /* of the listener, for the log */
	counter *refused; /* datagrams that were not sent */
	bool has_told;    /* the log of the first one */
};

struct amplify_stream {
	struct stream_layer
	    layer; /* first; its settings are a struct amplify_settings, or NULL: it lets all pass */
	uint64_t received, sent;
	bool has_answered;
};

extern const struct stream_ops AMPLIFY_STREAM;
