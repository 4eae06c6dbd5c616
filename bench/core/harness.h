/* An app in memory (workbench/world.h), for programs that measure it. */
#pragma once

#include "workbench/peer.h"
#include "workbench/world.h"

/* Loads the script; exits with a message when that fails. */
void harness_open(struct world *world, const char *script);

/* One more connection, opened. */
struct peer *harness_connect(struct world *world);

/* Its events, until nothing more happens to it. */
void harness_serve(struct peer *peer);

/* Ends the connections and the VM. */
void harness_close(struct world *world);

/* Nanoseconds of this thread's CPU time. */
uint64_t harness_cpu_ns(void);
