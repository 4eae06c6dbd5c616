/*
 * An instance: a VM with a loaded script, from its top level to its teardown(), and without connections.
 *
 * A role says what the instance is for. That of a worker's agents opens the script's listeners (bind/open.c).
 *
 * Threads: one at a time. The one that has it calls instance_detach(), then the next one instance_attach().
 */
#pragma once

#include "vm/vm.h"

struct config;
struct dicts;
struct snapshot;

/* At the head of whatever is more than an instance: vm_of() leads there from any of the VM's coroutines. */
struct instance {
	struct vm vm; /* first */
	const struct config *config;
	/* For logs, and for setup() and teardown(), which are told of it; (unsigned)STALL_NOBODY: it is no worker's. */
	unsigned worker;
	uint32_t generation; /* of the script; for the same, and for the names of its chunks */
	/* What the script has returned, in the registry; LUA_NOREF until it has been loaded. */
	int app_ref, setup_ref, snapshot_ref, teardown_ref;
	/* Set by who opens it, before: dictionaries that all instances share, and the clock that they go by. */
	struct dicts *dicts;
	uint64_t (*now_ms)(const struct instance *instance);
	char directory[1024]; /* of the script, for excerpts */
};

/*
 * What an instance is for: a constant. A function that is NULL is left out. Those that take a lua_State, but for
 * abandon(), run in the protected call that loads the script, and MAY RAISE: then the script is refused.
 */
struct instance_role {
	/* Before the script: pushes `kept` values, which become the bottom of the VM's own stack. */
	void (*lay_out)(lua_State *lua);
	int kept;
	/* Pushes the functions behind `require "perilune"`; without, they say that there is no running server. */
	void (*push_core)(lua_State *lua);
	/* In place of the script, whose top level and setup() do not run then: take_conf() and dress_app() are not called. */
	void (*load)(lua_State *lua);
	/* Between the top level and setup(): the script's validated settings are on top of the stack, and stay. */
	void (*take_conf)(lua_State *lua);
	/* The app that setup() and teardown() are given is on top of the stack, and stays: it gets what the role adds. */
	void (*dress_app)(lua_State *lua);
	/*
	 * The smallest CPU time that any of its calls is given, in milliseconds, which says how closely the watchdog
	 * has to look; 0: none is less than teardown()'s.
	 */
	uint32_t (*least_ms)(const struct config *config);
	/* What the VM may have; NULL: limits.memory. */
	size_t (*memory_bytes)(const struct config *config);
	/* What the guard asks while a call runs, see vm/guard.h; `owner` is the instance. */
	uint64_t (*progress)(void *owner);
	void (*cut)(void *owner);
	bool (*abandon)(void *owner, lua_State *lua);
};

static inline struct instance *instance_of(lua_State *lua)
{
	return (struct instance *)(void *)vm_of(lua);
}

/*
 * Loads config->script, as config->sources have it, in a fresh VM. Whatever `instance` held is overwritten; the config
 * must outlive it. 0 or a negative code, with an explanation of up to size - 1 bytes in `why`: UV_EINVAL: the script is
 * at fault; UV_EMFILE: there are no descriptors left; UV_ENOMEM. What was opened is closed then. Else the calling
 * thread has the instance, and instance_set_up() comes next.
 */
int instance_load(struct instance *instance, const struct instance_role *role, const struct config *config,
		  unsigned worker, uint32_t generation, char *why, size_t size);

/*
 * Runs setup(app, data), if there is one, with what the snapshot of the generation before holds; once. Fails as
 * instance_load() does; what was opened is closed then, after a teardown().
 */
int instance_set_up(struct instance *instance, const struct snapshot *snapshot, char *why, size_t size);

/* Both, with an empty snapshot. */
int instance_open(struct instance *instance, const struct instance_role *role, const struct config *config,
		  unsigned worker, uint32_t generation, char *why, size_t size);

/* From one thread to another. Each does nothing where it is so already. In between, any thread may close it. */
void instance_detach(struct instance *instance);
void instance_attach(struct instance *instance);

/*
 * Runs teardown(app) and closes the VM, in the thread that has the instance, or in any where none has. teardown_ms: its
 * CPU time; 0: it is left out. False: there was one, and that was so.
 */
bool instance_close(struct instance *instance, uint32_t teardown_ms);

/* MAY RAISE. While it is being loaded: keeps a function of a Lua module of ours in the registry, as "module.name". */
void instance_keep_function(lua_State *lua, const char *module, const char *name);

/* Logs what finalisers have done outside of calls, if anything. */
void instance_tell_of_finalisers(struct instance *instance);
