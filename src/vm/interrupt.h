/*
 * The ways to make running Lua call a hook. The interpreter looks at hooks, compiled code does not, and what
 * makes it leave for the interpreter depends on how LuaJIT was built; guard_start() tries them in this order:
 *
 *   hook       It does look, if LuaJIT was built with LUAJIT_ENABLE_CHECKHOOK. Nothing but Lua's own interface.
 *   hook-mask  It looks at the profiler's bit of the hook mask, at every loop, if it was recorded while
 *              profiling by line was asked for (without ever owning the profiler). The bit is set in the VM's
 *              memory, at a place that is searched. Any number of VMs at a time.
 *   profiler   The same bit, set by LuaJIT itself, whose profiler the VM is lent for that. One VM at a time, and
 *              all that it has compiled is thrown away.
 *   no-jit     Nothing is compiled.
 */
#pragma once

#include <lua.h>
#include <stdbool.h>
#include <stddef.h>

struct guard;

struct interrupt {
	const char *name;
	bool compiles;
	/*
	 * On the thread of `guard`, whose VM is fresh: what it compiles from now on can be interrupted. False: it
	 * cannot.
	 */
	bool (*open)(struct guard *guard, void *state, size_t state_bytes);
	/* Before arm(), on any thread, but not in a signal's handler. */
	void (*prepare)(struct guard *guard);
	/*
	 * On the VM's thread, also in the handler, also from within compiled code: calls `hook` at every instruction.
	 * May be lost between two modes of the VM; again then, after another prepare().
	 */
	void (*arm)(struct guard *guard, lua_Hook hook);
	/* As arm(): what prepare() prepared is not needed any more. */
	void (*decline)(struct guard *guard);
	/*
	 * On the VM's thread, not in the handler, nor from compiled code. `lua`: the VM's coroutine that runs, if any.
	 */
	void (*stand_down)(struct guard *guard, lua_State *lua);
};

/* In the order of trying; the last one has no name. */
extern const struct interrupt INTERRUPTS[];

/*
 * Once per process, before other threads: gives LuaJIT's profiler, of which there is one, to a VM that never
 * runs. False: for want of memory; then only no-jit works.
 */
bool interrupt_start(void);
void interrupt_stop(void);
