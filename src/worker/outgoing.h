/*
 * A worker's connections out: by sockets, over what the dialer connects (net/dial.h). They have a host of their own,
 * which is made with the first of them.
 *
 * Threads: the worker's.
 */
#pragma once

#include "conn/outgoing.h"

struct worker;

/* What the worker's host leads to. NULL: no memory. */
struct outgoing *worker_outgoing_new(struct worker *worker);
void worker_outgoing_free(struct worker *worker);

/* As conn_host_waited(), of its host, which is there: worker->out. */
void worker_outgoing_waited(struct worker *worker, uint64_t wanted_ms);

/* The clients have gone: ends what is left, delivering what is pending for so long. True: nothing is left. */
bool worker_outgoing_end(struct worker *worker);
