/* What may happen to very many at once, and is told of in the log once in a while. Threads: its owner's. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct seldom {
	uint64_t told_ms; /* 0: never */
	unsigned untold;  /* since then */
};

/* Not more often than that. False: it is counted instead. */
static inline bool seldom_is_due(struct seldom *seldom, uint64_t now_ms, unsigned every_ms)
{
	if (seldom->told_ms && now_ms - seldom->told_ms < every_ms) {
		seldom->untold++;
		return false;
	}
	seldom->told_ms = now_ms ? now_ms : 1;
	return true;
}

/* How many were counted; anew from now on. */
static inline unsigned seldom_take(struct seldom *seldom)
{
	unsigned untold = seldom->untold;
	seldom->untold = 0;
	return untold;
}
