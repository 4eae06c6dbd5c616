/* A worker's insides without its thread and sockets: agents over the memory transport. */
#pragma once

#include "agent/agent.h"
#include "config/config.h"
#include "conn/memory.h"

struct harness {
	struct config config;
	struct counters counters;
	struct conn_host host;
	struct agents agents;
	uint64_t now_ms;
	uint64_t next_id;
};

/* Loads the script; exits with a message when that fails. */
void harness_open(struct harness *harness, const char *script);

/* One more connection, opened. */
struct memory_conn *harness_connect(struct harness *harness);

/* Ends the connections and the VM. */
void harness_close(struct harness *harness);

/* Nanoseconds of this thread's CPU time. */
uint64_t harness_cpu_ns(void);
