/*
 * How agents are opened: the role that makes an instance of the script (script/instance.h) into agents, with what Lua
 * sees of them and of its listeners; and how they are closed.
 */
#pragma once

#include "agent/agent.h"
#include "script/snapshot.h"

/*
 * Loads the script in a fresh VM and readies its agents; of `host` nothing is read yet. Fails as instance_load() does.
 * Then agents_set_up() is to be called, or agents_close() without a teardown.
 */
int agents_open(struct agents *agents, struct conn_host *host, const struct config *config, unsigned worker,
		uint32_t generation, struct counters *counters, char *why, size_t size);

/* See instance_set_up(). When it fails the agents are closed. */
int agents_set_up(struct agents *agents, const struct snapshot *snapshot, char *why, size_t size);

/*
 * A script may be loaded by one thread and serve in another: agents_detach() in the one, agents_attach() in the
 * thread of `host`, before its first connection. Between the two, and to close them, any thread may have them.
 */
void agents_detach(struct agents *agents);
void agents_attach(struct agents *agents);

/*
 * Runs teardown(app), closes the VM. All connections must be gone. In the thread that has the agents. teardown_ms: its
 * CPU time; 0: it is left out. False: there was one, and that was so.
 */
bool agents_close(struct agents *agents, uint32_t teardown_ms);
