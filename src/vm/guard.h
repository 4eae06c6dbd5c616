/*
 * Ends Lua that does not return.
 *
 * Every entry into Lua is a *dispatch*: guard_enter() gives it a number and a budget, guard_leave()
 * ends it; each is a store that the watchdog reads. A watchdog thread looks at all guards; where the same dispatch has
 * used up its budget of CPU time, it sends the thread a signal. The handler checks that this very dispatch is still
 * running and arms a hook that ends it: by a yield where abandon() allows that, else by an error at every instruction
 * until guard_leave(). So a kill never meets another dispatch, and a script's own pcall cannot swallow it for longer
 * than an instruction.
 *
 * A dispatch may be a *batch* of calls. When it has run for a while, whatever its budgets, the hook is armed in the
 * same way, and only asks cut() to let it end after the call at hand.
 *
 * How a hook gets the attention of compiled code is the business of vm/interrupt.h, which knows several ways;
 * guard_start() finds out which of them works with the LuaJIT at hand.
 *
 * Threads: a guard belongs to the thread of its VM. The watchdog reads `dispatch` and `cut_short`, writes `victim` and
 * `too_long`.
 */
#pragma once

#include "vm/stall.h"

#include <lua.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	GUARD_BUDGET_BITS = 22,                            /* milliseconds: up to 70 minutes */
	GUARD_UNBOUNDED_MS = (1 << GUARD_BUDGET_BITS) - 1, /* no budget; memory is still watched */
	GUARD_BUDGET_MAX_MS = GUARD_UNBOUNDED_MS - 1,
	GUARD_BATCH = 1 << GUARD_BUDGET_BITS, /* with a budget: the dispatch is of several calls */
	GUARD_NUMBER_SHIFT = GUARD_BUDGET_BITS + 1,
	GUARD_TURN_MS = 5, /* of a batch: CPU time from the first look at it, so 5 to 15 from its begin */
};

/* Not SIGPROF: that is LuaJIT's. Not below SIGRTMIN: those belong to the user. */
#ifdef __SANITIZE_THREAD__
/* ThreadSanitizer holds signals back until the thread calls the system, but for those it takes for traps.
 * Of these cmocka wants all but this one. */
#define GUARD_SIGNAL SIGTRAP
#else
#define GUARD_SIGNAL (SIGRTMIN + 2)
#endif

/* Why a dispatch has to end. */
enum guard_verdict { GUARD_FINE, GUARD_CPU, GUARD_MEMORY, GUARD_ALLOCATION, GUARD_CALLED_OFF };

/* All zero: not opened; then nothing is watched. */
struct guard {
	/* number << GUARD_NUMBER_SHIFT | GUARD_BATCH | budget; a budget of 0: no Lua runs */
	_Atomic uint64_t dispatch;
	_Atomic uint64_t victim;    /* the dispatch to end */
	_Atomic uint64_t too_long;  /* the batch that is to be cut short, */
	_Atomic uint64_t cut_short; /* ... and that which has been */
	/* Set from the signal handler; whoever loops for long in C looks at it. enum guard_verdict. */
	volatile sig_atomic_t verdict;
	volatile sig_atomic_t leaving; /* by a yield from the hook: nothing more to do */
	volatile sig_atomic_t cuts;    /* the hook is to call cut() */
	volatile sig_atomic_t armed;   /* since the dispatch began the hook has been, for one of the two */
	lua_State *lua;
	uint8_t *hook_mask;     /* the VM's; NULL: it was not found, or not looked for */
	bool attached;          /* to `thread`, which alone may run it, and is watched */
	atomic_bool is_closing; /* guard_begin_end() */
	pthread_t thread;
	uintptr_t stack;       /* an address of its stack, outside of all calls */
	const atomic_int *off; /* of the thread, see guard_call_off_by(); or NULL */
	struct guard *outer;   /* the thread's guard opened before this one */
	/*
	 * A batch is one dispatch of many calls, each with the whole budget: where progress(owner) is not what it
	 * was, another call runs than when the budget began, and it begins anew. Asked from the hook. NULL: never.
	 */
	uint64_t (*progress)(void *owner);
	uint64_t progressed;
	/*
	 * Calls that have not begun are left for later: the batch has taken GUARD_TURN_MS. Asked from the hook, which
	 * lets the call that runs go on. For those who begin dispatches with GUARD_BATCH.
	 */
	void (*cut)(void *owner);
	/* Asked from the hook before it ends a call with GUARD_MEMORY. True: the call goes on after all, its budget
	 * begins anew. `lua`: the coroutine that runs. NULL: never. */
	bool (*has_room)(struct guard *guard, lua_State *lua);
	/* Asked from the hook before it ends a call. True: whoever resumed `lua` takes a yield for the end, and resumes
	 * it no more. Else, and with NULL, it ends by errors. */
	bool (*abandon)(void *owner, lua_State *lua);
	void *owner; /* of these functions: their first argument */
	/* Says what was used up, in at most size - 1 bytes: the limits are known to whoever sets them. NULL: something
	 * general is said. Not called in a signal's handler. */
	void (*explain)(const struct guard *guard, enum guard_verdict verdict, char *text, size_t size);
	char place[160]; /* "chat.lua:14", where the dispatch was when it was ended */
	char why[160];   /* what the error says; set by whoever knows the limits */
	struct stall stall;

	/* The watchdog's own. */
	struct guard *next;
	uint32_t least_ms; /* the smallest budget that will be asked for */
	uint64_t seen;
	int64_t seen_ns, signalled_ns; /* CPU time of the thread when first seen; clock */
	int64_t last_ns;               /* CPU time at the last look */
};

/*
 * Starts the watchdog, finds out how running Lua can be interrupted here; once per process, before
 * other threads. Returns the name of the way, see vm/interrupt.h. "no-jit": compiled code cannot be
 * interrupted, so guard_open() turns the compiler off. NULL: the watchdog cannot be started.
 */
const char *guard_start(void);

/* Why not: an error of thread_start(). */
int guard_error(void);

/* For tests: only in the way of that name. NULL: it does not work here. */
const char *guard_start_with(const char *name);

/* Ends the watchdog; no guard may be open. */
void guard_stop(void);

/*
 * Watches `lua`, a fresh VM of this thread whose first block is at `state`, state_bytes long. Its libraries are
 * there: opening that of the compiler turns the compiler on.
 */
void guard_open(struct guard *guard, lua_State *lua, void *state, size_t state_bytes);
void guard_close(struct guard *guard);

/* The VM goes from one thread, which no longer runs anything in it, to another. Idempotent. */
void guard_detach(struct guard *guard);
void guard_attach(struct guard *guard);

/*
 * Guards that this thread attaches from now on end their calls, whatever their budgets, while *off is not 0: somebody
 * else wants what the thread does no more. NULL: guards that it attaches later go by their budgets alone.
 */
void guard_call_off_by(const atomic_int *off);

/* Any thread, after it has set such a value: calls end now, and not when the watchdog next looks. */
void guard_look(void);

/* Calls that block in the system are told of as this worker's, see vm/stall.h; from a generation of the script. */
void guard_set_worker(struct guard *guard, unsigned worker, uint32_t generation);

/* The smallest budget that will be asked for: how closely the watchdog must look. */
void guard_set_least(struct guard *guard, uint32_t ms);

static inline bool guard_is_running(const struct guard *guard)
{
	return atomic_load_explicit(&guard->dispatch, memory_order_relaxed) & GUARD_UNBOUNDED_MS;
}

/*
 * For messages: what the next dispatch calls, a constant, and on behalf of which connection; 0: none. In a
 * dispatch: what it does from here on.
 */
static inline void guard_name(struct guard *guard, const char *callback, uint64_t conn)
{
	atomic_store_explicit(&guard->stall.callback, callback, memory_order_relaxed);
	atomic_store_explicit(&guard->stall.conn, conn, memory_order_relaxed);
}

/* In a dispatch, after a call of C that may have blocked, and has returned. Pushes nothing. */
static inline void guard_note_return(struct guard *guard, lua_State *lua)
{
	if (__builtin_expect(atomic_load_explicit(&guard->stall.stalled, memory_order_relaxed) != 0, 0))
		stall_note_place(&guard->stall, atomic_load_explicit(&guard->dispatch, memory_order_relaxed),
				 lua);
}

/* Begins a dispatch, budget_ms: 1 .. GUARD_UNBOUNDED_MS, or that | GUARD_BATCH. None may be running. */
static inline void guard_enter(struct guard *guard, uint32_t budget_ms)
{
	uint64_t now = atomic_load_explicit(&guard->dispatch, memory_order_relaxed);
	atomic_store_explicit(&guard->dispatch, now + (UINT64_C(1) << GUARD_NUMBER_SHIFT) + budget_ms,
			      memory_order_relaxed);
}

/*
 * Of this thread: makes the running dispatch end at its next instruction. Harmless when none runs. The first
 * verdict holds; a further call arms the hook anew, should the VM have lost it between two of its modes.
 */
void guard_interrupt(struct guard *guard, enum guard_verdict verdict);

/*
 * For functions in C that take long. True: the call that they are called in has to end, and so have they. As between
 * instructions of Lua, what may be lack of memory is looked into first: so it MAY RAISE what a finaliser does.
 */
bool guard_must_end(struct guard *guard, lua_State *lua);

/* Any thread, while the guard is open; not in a signal's handler: ends `dispatch`, if it still runs. */
void guard_kill(struct guard *guard, uint64_t dispatch);

/* Undoes guard_interrupt(), and all else that has armed the hook. */
enum guard_verdict guard_disarm(struct guard *guard);

/* Ends the dispatch. Anything but GUARD_FINE: it was told to end. */
static inline enum guard_verdict guard_leave(struct guard *guard)
{
	uint64_t now = atomic_load_explicit(&guard->dispatch, memory_order_relaxed);
	atomic_store_explicit(&guard->dispatch, now & ~(uint64_t)(GUARD_BATCH | GUARD_UNBOUNDED_MS),
			      memory_order_relaxed);
	atomic_signal_fence(memory_order_seq_cst); /* from here on the handler does nothing */
	return guard->armed ? guard_disarm(guard) : GUARD_FINE;
}

/*
 * The last dispatch: lua_close(), in which finalisers run, and nothing that is compiled. guard_end() when the VM is
 * about to be gone: nobody touches it from then on. Idempotent.
 */
void guard_begin_end(struct guard *guard, uint32_t budget_ms);
void guard_end(struct guard *guard);

/* The budget of CPU time of the dispatch that was ended last, in milliseconds; 0: it was not ended for that. */
static inline uint32_t guard_budget_ms(const struct guard *guard)
{
	return (uint32_t)(atomic_load_explicit(&guard->victim, memory_order_relaxed) & GUARD_UNBOUNDED_MS);
}

/* Pushes the error that ended the last dispatch, with its place. */
void guard_push_error(const struct guard *guard, lua_State *lua);
