/*
 * The workbench: a VM for specifications, in coroutines on a live loop, so that they may call what waits.
 *
 * Tasks are coroutines within each other: the one on top runs, or waits for something that the loop will tell. One that
 * does not come to its end within its time, or waits for what never comes, ends as a failed call does; the others
 * go on.
 *
 * Threads: all of it belongs to the one that runs it.
 */
#pragma once

#include "vm/vm.h"

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

struct bench_app;
struct task;

struct bench {
	struct vm vm; /* first */
	uv_loop_t loop;
	uv_timer_t timer;
	bool timed_out;
	unsigned events;        /* what the loop has told, counted */
	struct task *task;      /* the one on top */
	struct task *called;    /* it is to be the next one */
	bool waits;             /* the one on top yields to wait, */
	uint64_t wait_ms;       /* ... for so long at most */
	struct bench_app *apps; /* those that are open */
};

static inline struct bench *bench_of(lua_State *lua)
{
	return (struct bench *)(void *)vm_of(lua);
}

/*
 * Runs module.run(argument, …) of one of Perilune's modules in a workbench of its own, on a thread with a large stack.
 * Returns the exit code that it returned; EXIT_FAILED with a message on stderr when it raised.
 */
int bench_run(const char *module, int argc, char **argv);

/* For those who report something from the loop. */
static inline void bench_tell(struct bench *bench)
{
	bench->events++;
}

/* task.c */

/* Runs the function on top of the VM's stack, with the n arguments above it, to its end. True: its results are there;
 * false: an error message. */
bool task_run_main(struct bench *bench, int nargs);

/* Pushes the functions call, wait: see task.c. */
void task_push_functions(lua_State *lua);

/* app.c: the library perilune.workbench.app */
void bench_push_app(lua_State *lua);

/* app_lan.c: the library perilune.workbench.lan */
void bench_push_lan(lua_State *lua);

/* Ends the apps that are left. */
void bench_close_apps(struct bench *bench);

/* net.c: the library perilune.workbench.net */
void bench_push_net(lua_State *lua);

/* Closes a handle that is left on the loop. */
void bench_close_net(struct bench *bench, uv_handle_t *handle);
