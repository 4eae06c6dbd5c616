/*
 * Ends a script when its user wants that: SIGINT and SIGTERM, whether it computes, waits in the loop or in a call of
 * the system. A second signal ends the process at once, as if nobody had asked for them.
 *
 * Threads: a helper is told by the signal's handler, since what ends a computation may not be done in there.
 */
#pragma once

#include "vm/guard.h"

#include <uv.h>

struct signals {
	struct guard *guard;
	uv_async_t wake; /* makes the loop return */
	uv_thread_t helper;
};

/*
 * Once per process. `guard` is watched over until signals_close(), and so has to be open that long. 0 or a negative
 * UV_E*.
 */
int signals_open(struct signals *signals, uv_loop_t *loop, struct guard *guard);

/* The signal's number, or 0. Known at once, even before what runs is ended. */
int signals_caught(void);

/* The script has ended: no call is interrupted from now on, for what is left is to tell how. */
void signals_calm(void);

/* Its handle is closed when the loop has run once more. */
void signals_close(struct signals *signals);
