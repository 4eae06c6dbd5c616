/*
 * Tasks: functions that run beside an agent's callbacks, each in a coroutine of its own (perilune.spawn).
 *
 * A task is a run that its agent's channel does not wait for. It begins, and goes on, in agents_turn(), when nothing of
 * the agent's is running. Its handle, a Lua table, gets what it came to: whoever joins it waits in the handle's line
 * (line.h) until then. What it has deferred runs at its end, however it ends.
 *
 * A fault goes to who waits for the task when it happens, and is the agent's where nobody does. To keep it for somebody
 * who may join the task later would hide it: that one may be waiting for what will never come now.
 */
#pragma once

#include "agent/work.h"

enum task_stage {
	TASK_LIVE,
	TASK_ENDING, /* it is over, but for what it has deferred */
	TASK_FAULTY, /* the same, and who waited for it has not taken its fault yet */
};

struct task {
	struct run run; /* first */
	struct work *work;
	struct task *next, *prev;
	unsigned children; /* that it has begun, or has from those; and that are there */
	uint64_t parent;   /* the task that began it, by its serial; 0: no task */
	int handle_ref;
	int origin_ref; /* where it was begun, as text */
	int group_ref;  /* a list that gets the handle at the end, and whose line is told; or LUA_NOREF */
	uint64_t timer; /* of the app's that repeats, and began it: its name; else 0 */
	enum task_stage stage;
	bool has_defers;
	bool is_cancelled; /* its run may still have its coroutine */
	bool
	    is_subsumed; /* its fault is that of a group which has raised another one: it is logged, and no more */
	bool has_failed; /* the handle has its error */
	bool is_told;    /* whoever looks at the handle sees that it has ended */
};

/*
 * What a handle has: how the task ended, how many results there are, and those; or what was raised, the coroutine in
 * which it was, and where the task was begun. Shared with lua/perilune/waiting.lua.
 */
enum {
	TASK_HANDLE_STATE = 1,
	TASK_HANDLE_COUNT,
	TASK_HANDLE_FIRST,
	TASK_HANDLE_THREAD,
	TASK_HANDLE_ORIGIN,
};

static inline struct task *task_of(struct run *run)
{
	return (struct task *)(void *)run;
}

/*
 * MAY RAISE. Begins a task of the channel's agent: the function and its nargs arguments are on top of the stack, and are
 * popped. Pushes its handle, with the metatable at `meta`. The list at `group`, 0 for none.
 */
void task_begin(lua_State *lua, struct channel *channel, int nargs, int meta, int group);

/* The task of the handle at idx, or NULL: it has ended, or there is none. */
struct task *task_check(lua_State *lua, int idx);

/* It is not to go on. It has ended in agents_turn() at the latest; so do those that it has begun. */
void task_cancel(struct agents *agents, struct task *task);

/* It belongs to a group that needs it no more: the same, and a fault that it has already is only logged. */
void task_dismiss(struct agents *agents, struct task *task);

/* Its call has returned or failed: run_wake(). */
void task_finish(struct agents *agents, struct task *task, enum outcome outcome);

/* Its turn in agents_turn(), and it has nothing to be resumed for. */
void task_go_on(struct agents *agents, struct task *task);

/* At the end of the agent: it goes on no more. Outside of calls. */
void task_stop(struct agents *agents, struct task *task);

/* ... and then what of it is left ends. False: not all has, and its turn is over. */
bool task_end_with_agent(struct agents *agents, struct task *task, uint64_t began_ticks, bool is_urgent);

/* Somebody has taken its fault, if it has one. */
void task_take_fault(struct agents *agents, struct task *task);
