#include "base/reason.h"

static const char *const NAMES[REASON_COUNT] = {
	[REASON_NONE] = "none",
	[REASON_PEER] = "peer",
	[REASON_AGENT] = "agent",
	[REASON_ERROR] = "error",
	[REASON_READ_TIMEOUT] = "read_timeout",
	[REASON_WRITE_TIMEOUT] = "write_timeout",
	[REASON_IDLE_TIMEOUT] = "idle_timeout",
	[REASON_PROCEED_TIMEOUT] = "proceed_timeout",
	[REASON_FRAME_ERROR] = "frame_error",
	[REASON_OVERSIZE] = "oversize",
	[REASON_LIMIT] = "limit",
	[REASON_SLOW_CONSUMER] = "slow_consumer",
	[REASON_MEMORY] = "memory",
	[REASON_RESET] = "reset",
	[REASON_DRAIN] = "drain",
	[REASON_KICK] = "kick",
	[REASON_TLS] = "tls",
	[REASON_PROXY] = "proxy",
	[REASON_LINK] = "link",
};

const char *reason_name(enum close_reason reason)
{
	return NAMES[reason];
}

bool reason_is_fault(enum close_reason reason)
{
	return reason == REASON_ERROR || reason == REASON_PROCEED_TIMEOUT || reason == REASON_MEMORY;
}
