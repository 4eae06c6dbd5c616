/*
 * A Lua VM of ours: its allocator, its libraries, where its modules lie.
 *
 * Threads: one VM, one thread. VMs share nothing.
 */
#pragma once

#include "vm/slab.h"

#include <lauxlib.h>
#include <lua.h>

/*
 * Embedded at the head of whatever owns a VM: vm_of() finds it again from any of
 * the VM's coroutines, for the allocator's data is what Lua keeps for us.
 */
struct vm {
	struct slab slab; /* first */
	lua_State *lua;
	int low_kb; /* the smallest heap sampled since the last vm_pace(): about what is live */
};

/*
 * Creates the VM with the standard libraries and the path to Perilune's own modules.
 * 0 or UV_ENOMEM.
 */
int vm_open(struct vm *vm);
void vm_close(struct vm *vm);

struct vm *vm_of(lua_State *lua);

/* Notes the size of the heap; call it often (it costs nothing) between calls of vm_pace(). */
void vm_sample(struct vm *vm);

/* Tunes the collector to what is live in the heap and to the size of the frames that pass through it.
 * Cheap: call it now and then. */
void vm_pace(struct vm *vm, size_t frame_bytes);

/* Where perilune/?.lua lies: a pattern for package.path. Set once, before any VM is opened. */
void vm_set_lua_path(const char *pattern);

/*
 * Finds Perilune's Lua modules: beside the binary, in the source tree it was built in, or where
 * they were installed. Writes a package.path pattern. 0 or UV_ENOENT.
 */
int vm_find_lua_path(char *pattern, size_t size);
