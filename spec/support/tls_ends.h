/*
 * The two ends of a connection of TLS, each a stack over a stream in memory, and nothing else: no connections, no
 * loop. An end goes on only where the events that its stack asks for would let it.
 */
#pragma once

#include "stream/memory.h"
#include "tls/context.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct end {
	struct stream_user user;
	struct memory_stream memory;
	_Alignas(max_align_t) char state[256]; /* the layer's */
	bool has_opened;
	int err; /* 0: it has not failed */
};

struct ends {
	struct end client, server;
};

/* Nothing has gone to and fro yet. */
void ends_begin(struct ends *ends, const struct tls_context *client, const struct tls_context *server);
void ends_free(struct ends *ends);

/* What one has written comes to the other, at most so many bytes. */
void ends_pass(struct end *from, struct end *to, size_t max);

/* One step of the handshake, if an event lets it. */
void end_step(struct end *end);

/* Until both have opened or failed. */
void ends_meet(struct ends *ends);

/* Reads all there is, and passes on what that leads to. > 0: how many bytes; 0: the end of the stream; or an error. */
ssize_t end_read(struct end *end, void *to, size_t n);

/* One says so much, and the other hears it. */
bool ends_say(struct end *from, struct end *to, const char *text);
