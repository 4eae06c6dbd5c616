/*
 * Calls that block in the system. A budget is one of CPU time, so a call that waits in read() or connect() uses none
 * of it up, while all other connections of its worker wait with it. The watchdog (vm/guard.h) looks at each call that
 * lasts, whether its thread sleeps; where that adds up to STALL_MS the call *stalls*, and whoever listens is told, then
 * and when it is over. Nothing is sent to the thread: a signal would end some system calls early, as poll() and
 * nanosleep().
 *
 * A thread that computes, or that would if the machine let it, is runnable, and not blamed. Where there is no /proc
 * nobody is.
 *
 * Threads: a struct stall is the watchdog's, but where said otherwise.
 */
#pragma once

#include <lua.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum {
	STALL_MS = 1000, /* one that is shorter is everyday: a disk that syncs, a page that was swapped out */
	STALL_PLACE_BYTES = 160,
	STALL_NOBODY = -1, /* as `worker`: nobody wants to know */
};

struct stall_event {
	bool is_over;
	int worker;
	uint32_t generation;
	const char *callback;
	uint64_t conn;
	uint64_t ms;                   /* since the call began, by the clock */
	char place[STALL_PLACE_BYTES]; /* "": not known, as it never is before the end */
};

struct stall {
	/* Of the call that runs, or the last: set by the thread before it begins. */
	_Atomic(const char *) callback; /* a constant: "proceed" */
	_Atomic uint64_t conn;          /* 0: on behalf of none */
	_Atomic uint64_t stalled;       /* the dispatch that stalls; 0: none does. The thread reads it, */
	_Atomic uint64_t placed;        /* ... and sets this to it, when it has set: */
	char place[STALL_PLACE_BYTES];  /* "chat.lua:14" */

	pid_t thread;
	int worker; /* STALL_NOBODY, or whom the events are of */
	uint32_t generation;
	struct stall_event event;   /* while there is one that stalls */
	uint64_t seen;              /* the dispatch that ran when last looked at; 0: none did */
	int64_t seen_ns, looked_ns; /* since when; when last looked at */
	int64_t asleep_ns;          /* for how long of it the thread slept */
};

/* The watchdog: `dispatch` runs at present, 0: none does. now_ns: CLOCK_MONOTONIC. */
void stall_look(struct stall *stall, uint64_t dispatch, int64_t now_ns);

/* Of the thread that runs the VM, in a call: the system has been called, and here is where from. Pushes nothing. */
void stall_note_place(struct stall *stall, uint64_t dispatch, lua_State *lua);

/* Where the script is: the innermost line that is not of Perilune's own modules, if there is one near; else the
 * innermost. */
void stall_find_place(lua_State *lua, char *place, size_t size);

/*
 * Who is told that there are events: wake(data) is called by the watchdog, and must not block. NULL: nobody is, from
 * now on. Any thread.
 */
void stall_listen(void (*wake)(void *data), void *data);

/* The oldest event. False: there is none. Any thread. */
bool stall_take(struct stall_event *event);
