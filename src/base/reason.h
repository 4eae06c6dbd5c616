/*
 * Why a connection ended: a closed list, used in closed(), in logs and as a metric label. So timeout.first_frame has no
 * reason of its own: a client that never says anything is idle.
 */
#pragma once

#include <stdbool.h>

enum close_reason {
	REASON_NONE,
	REASON_PEER,
	REASON_AGENT,
	REASON_ERROR,
	REASON_READ_TIMEOUT,
	REASON_WRITE_TIMEOUT,
	REASON_IDLE_TIMEOUT,
	REASON_PROCEED_TIMEOUT,
	REASON_FRAME_ERROR,
	REASON_OVERSIZE,
	REASON_LIMIT,
	REASON_SLOW_CONSUMER,
	REASON_MEMORY,
	REASON_RESET,
	REASON_DRAIN,
	REASON_KICK,
	REASON_TLS,
	REASON_PROXY,
	REASON_LINK, /* what it was linked to, or who had begun it, has ended */
	REASON_COUNT
};

/* Did the handler, or its codec, end the connection by what it did wrong? */
bool reason_is_fault(enum close_reason reason);

/* The name users see: "peer", "idle_timeout", … */
const char *reason_name(enum close_reason reason);
