/*
 * What the Lua of a connection takes, in time and memory: conn.usage.
 *
 * One ledger is open at a time. Work that begins while one is open belongs to that one: a handler that sends to
 * another connection pays for the encoding.
 */
#pragma once

#include "agent/agent.h"

/* False: one is open already, and must not be closed. */
static inline bool ledger_open(struct agents *agents, struct channel *channel)
{
	if (agents->accounted)
		return false;
	agents->accounted = channel;
	/* Start and end are taken off and added: in between, the sums lack what the clocks are at. */
	channel->handler_ticks -= ticks_now();
	channel->handler_bytes -= vm_allocated(&agents->vm);
	return true;
}

static inline void ledger_close(struct agents *agents)
{
	struct channel *channel = agents->accounted;
	channel->handler_ticks += ticks_now();
	channel->handler_bytes += vm_allocated(&agents->vm);
	agents->accounted = NULL;
}
