/* What the files of this folder share. Nobody else includes it. */
#pragma once

#include "conn/conn.h"

enum {
	CONN_LINGER_MS = 1000,          /* how long unread input may keep an ended connection */
	CONN_LINGER_MAX = 256,          /* so many at once, then they are closed without ceremony */
	CONN_CLOSING_WRITE_MS = 10000,  /* write deadline of an ending where timeout.write is off */
	CONN_FRAMES_PER_TURN = 256,     /* then others have their turn */
	CONN_TICKS_PER_TURN = 5000000,  /* ... or after so much of base/ticks.h: one to five milliseconds */
	CONN_FIRST_BATCH = 4,           /* frames: how long a handler takes is not known yet */
	CONN_DRAIN_PARTIAL_MS = 2000,   /* in a drain a begun frame must be complete by then */
	CONN_WRITE_LATER_BYTES = 32768, /* more is written at once, ... */
	CONN_UNSETTLED_BYTES = 65536, /* ... as is all when it is so much: it should still be in the caches */
	CONN_DRAIN_READS = 64,        /* reads granted to input that arrived before a drain */
};

/* input.c */

/* May frames be handed up now? */
bool input_may_deliver(const struct conn *conn);

/* Should the transport report readable? */
bool input_wanted(const struct conn *conn);

/* Is a frame begun, and are we waiting for the peer to complete it? */
bool input_partial(const struct conn *conn);

/* Reads once and hands up frames. What read() said. */
ssize_t input_read(struct conn *conn);

/* Hands up what can be decoded of the input at hand. */
void input_feed(struct conn *conn);

/* Reads and discards; true when the stream has ended. */
bool input_discard(struct conn *conn);

/* output.c */

/* Writes what the transport takes. 0, or an error that ends the connection. */
int output_write(struct conn *conn);

/* Writes, and tells the layer above what that changed. */
void output_flush(struct conn *conn);

/* deadline.c */

/* Makes sure the wheel wakes us in time. Cheap when nothing became earlier. */
void deadline_arm(struct conn *conn);

/* Handles what is due, and arms the rest. */
void deadline_fire(struct conn *conn);

/* conn.c */

/* Ends it, since reading or writing failed. */
void conn_fail(struct conn *conn, int err);

/* Brings transport, timers and state in line with what happened. Ends every event. */
void conn_settle(struct conn *conn);

/* host.c */

/* The last thing that happens to a connection: its memory is the carrier's. */
void host_forget(struct conn *conn);

/* Frees buffers by ending whoever holds most, so that `wanting`, one of conn's, can take n more bytes.
 * False: that would be conn itself, or would not help. */
bool host_relieve(struct conn_host *host, struct conn *conn, const struct buf *wanting, size_t n);
