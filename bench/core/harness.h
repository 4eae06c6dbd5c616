/* An app in memory (workbench/world.h), for programs that measure it. */
#pragma once

#include "workbench/world.h"

/* Loads the script; exits with a message when that fails. */
void harness_open(struct world *world, const char *script);

/* One more connection, opened. */
struct memory_conn *harness_connect(struct world *world);

/* Ends the connections and the VM. */
void harness_close(struct world *world);

/* Nanoseconds of this thread's CPU time. */
uint64_t harness_cpu_ns(void);
