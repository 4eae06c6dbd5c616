/*
 * A message of the hub's, as it goes onto connections: framed once for each protocol and framing that they speak, and
 * shared by all of them on this worker.
 *
 * What was framed is kept for the next member, a turn long at most.
 *
 * Threads: the worker's.
 */
#pragma once

#include "base/seldom.h"
#include "base/shared.h"
#include "frame/codec.h"
#include "hub/message.h"

struct channel;

enum { CAST_VARIANTS = 8, CAST_PENDING_BYTES = 32768, HUB_LOG_EVERY_MS = 1000 };

/* A message, or some that follow each other, for one kind of connection. */
struct cast_variant {
	struct hub_message *message; /* the first, held */
	unsigned messages;
	struct shared *bytes; /* NULL: err says why not */
	int err;
	uint8_t kind;              /* enum cast_kind */
	uint8_t setting;           /* the window of a WebSocket that compresses; how HTTP frames pieces */
	const struct protocol *by; /* only to compare, within a turn; NULL: it is one connection's own */
	struct codec codec;        /* CAST_CODEC */
};

struct cast {
	struct cast_variant variants[CAST_VARIANTS];
	unsigned count, oldest;
	bool is_at_once;         /* what is given is written at once */
	struct seldom unencoded; /* what a codec in Lua cannot encode */
};

/*
 * Can so many bytes of messages go onto the connection now? Not behind much that waits there to be taken, themselves
 * included; and not amid a message or an event of its own. Where nothing waits, any number can.
 */
bool cast_has_room(const struct channel *channel, size_t bytes);

/* Puts it onto the connection. 0; UV_EPIPE: that ends; any other: it cannot be framed for it. From the loop. */
int cast_give(struct cast *cast, struct channel *channel, struct hub_message *message);

/*
 * The same of some that always come together, as long as the first of them is in the cast. False: it cannot be, or not
 * of all of them: they are to be given one by one. Else *err as above; UV_EPIPE is the only one.
 */
bool cast_give_all(struct cast *cast, struct channel *channel, struct hub_message *const *messages,
		   unsigned n, int *err);

/* Lets go of all that was framed. */
void cast_forget(struct cast *cast);
