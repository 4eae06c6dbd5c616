/*
 * How another thread of the process fares: does it wait, does it compute? By /proc, so where there is none nothing is
 * known.
 *
 * Threads: any.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct thread_state {
	bool is_asleep;  /* it waits for something, and not for a processor */
	uint64_t cpu_ms; /* all that it has used, to about 10 ms */
};

/* The caller's own, as thread_read() takes it. */
pid_t thread_self(void);

/* False: it has ended, or that is not known. */
bool thread_read(pid_t thread, struct thread_state *state);
