/*
 * Calls: perilune.call(), which waits for the reply to its message. There is always a time at which it waits no longer.
 *
 * Threads: the one that has the agents.
 */
#pragma once

#include "agent/post.h"
#include "agent/run.h"

struct call {
	struct errand errand; /* first */
	struct post *post;
	struct name *to; /* held; NULL: it is not sent yet */
	uint64_t number;
};

/* NULL: there is no memory. */
struct call *call_begin(struct post *post);

/* Nobody waits for it: it could not be sent. */
void call_forget(struct call *call);

/* This message is its. */
void call_sign(struct call *call, struct letter *letter);

/*
 * The reply has come, or why there is none; the letter stays the caller's. Who waits goes on with two values (is it
 * packed?, the reply) or with nil, message, code. One that nobody waits for any more is counted.
 */
void call_answer(struct post *post, const struct letter *letter);
