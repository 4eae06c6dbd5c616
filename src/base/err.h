/*
 * Error codes of our own, beside libuv's negative errno values.
 *
 * Every C function that can fail returns 0 or a negative code: UV_E* for what
 * the system says, ERR_* for what only Perilune can say. The two ranges do not
 * meet (libuv's end above -5000). Leaves include uv.h for these codes alone.
 */
#pragma once

enum {
	ERR_FRAME_TOO_LARGE = -5001, /* announced or grown past the codec's max */
	ERR_FRAME_EMPTY = -5002,     /* zero length where the policy is "error" */
	ERR_FRAME_MALFORMED = -5003, /* not this framing at all */
	ERR_FRAME_REPLY = -5004,     /* a reply that this framing cannot carry */
	ERR_BUFFER_LIMIT = -5005,    /* the worker's buffers are at their limit */
	ERR_FRAME_LATER = -5006,     /* none: there may be more, but decoding has taken its time */
	ERR_TLS = -5007,             /* a handshake has failed, or a record is broken */
	ERR_OPENING_LATE = -5008,    /* a layer of a stream has not opened in time */
	ERR_PROXY_HEADER = -5009,    /* a connection does not begin with a PROXY header that is one */
	ERR_FRAME_BETWEEN = -5010,   /* a reply between the pieces of a message, which is not whole yet */
};
