/* What the closed loops share: the time that is measured, giving up on a silent server, and the report. */
#pragma once

#include "client.h"
#include "hist.h"
#include "proc.h"

struct loop_sample {
	uint64_t at_ns, replies;
	struct proc_times server, backend, client;
};

struct loop {
	const struct options *o;
	uint64_t replies, errors;
	struct hist latency;
	struct loop_sample start, end;
};

/* Calls turn(self), which counts into *l and returns within a tenth of a second or so, through the warm-up and the
 * measured time. Ends early, with an error, when there are no replies for seconds. */
void loop_run(struct loop *l, void (*turn)(void *self), void *self);

/* Prints the JSON object. more: further members, each with a comma behind it. Returns the exit status. */
int loop_report(const struct loop *l, const char *more);
