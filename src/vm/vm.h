/*
 * A Lua VM of ours: its allocator, its libraries, where its modules lie.
 *
 * Threads: one VM, one thread. VMs share nothing.
 */
#pragma once

#include "vm/guard.h"
#include "vm/layout.h"
#include "vm/slab.h"

#include <lauxlib.h>
#include <lua.h>
#include <signal.h>

/*
 * SERVING: limits.proceed. LOADING: VM_LOAD_BUDGET, and a memory limit of the loader's. KEEPING: VM_SNAPSHOT_MS.
 * ENDING: VM_TEARDOWN_MS.
 */
enum vm_stage { VM_SERVING, VM_LOADING, VM_KEEPING, VM_ENDING };

/* How the collector is paced: pace.c. */
struct vm_pace {
	double garbage;         /* limits.garbage: a share of what is live */
	int speed;              /* of the collector */
	int low_kb;             /* the smallest heap sampled since the last vm_pace(): about what is live */
	uint32_t live_strings;  /* about; 0: not known yet */
	uint32_t begin_strings; /* where there are so many strings, a cycle begins */
	bool is_large;          /* the table of strings and what it holds are not in the caches */
	size_t due_bytes;       /* what may be over the threshold before a step is worth a call of its own */
};

extern const struct vm_pace VM_PACE_DEFAULT;

/* Opcodes of loops over pairs(), and of those over any iterator: where they begin, and where they go on. */
struct vm_loops {
	bool is_known;
	uint8_t begin, any_begin, next, any_next;
};

/*
 * Embedded at the head of whatever owns a VM: vm_of() finds it again from any of
 * the VM's coroutines, for the allocator's data is what Lua keeps for us.
 */
struct vm {
	struct slab slab; /* first */
	/*
	 * What may be allocated before somebody looks: the one thing that the allocator counts. Credit is
	 * given in portions (`granted` in all), so granted - credit is what was ever allocated, in bytes.
	 */
	int64_t credit, granted;
	uint64_t call_begin; /* that sum when the running call began */
	int64_t call_end;    /* limits.allocation: where it ends the running call */
	uint64_t call_bytes; /* the last limits.allocation that a call had */
	enum vm_stage stage; /* whose limits what runs now has: for messages, */
	const char *limits;  /* ... and the settings that they are of: "limits" */
	size_t memory_bytes; /* limits.memory; 0: no limit */
	size_t live_bytes;   /* of the heap, when is_full was last dealt with */
	bool is_full;        /* it was reached; relief is due */
	bool lends_nothing;  /* vm_push() runs: the spare is for what is small */
	bool is_stepping;    /* vm_collect_step() runs */
	bool overran;        /* a finaliser did not return in step_ms: those after it get less */
	int relief_cycles;   /* of the collector, until it is over */
	unsigned stays_full; /* reliefs in a row after which more than memory_bytes were still live */
	size_t hurry_at;     /* the heap at which the collector is next told to hurry, in bytes */
	unsigned looks_past_limit;
	uint64_t
	    collect_at; /* bytes ever allocated: not sooner is there another collection before a verdict */
	bool is_proven; /* of the verdict GUARD_MEMORY: a collection was no help */
	struct guard guard;
	enum guard_verdict verdict; /* of the last vm_pcall() that failed */
	void *state;                /* the VM's first block */
	size_t state_bytes;
	/* Words in there: LuaJIT's own count of the heap's bytes, and the count at which the collector goes on.
	 * NULL: they were not found. collector.c */
	size_t *heap, *threshold;
	void *spare;           /* NULL: used up */
	size_t kept_threshold; /* while the collector is stopped */
	uint64_t stepped_at;   /* without a threshold: bytes ever allocated when its last step was due */
	int step_ref, room_ref;
	uint32_t step_ms;            /* CPU time of the finalisers that a step of the collector calls */
	unsigned finaliser_failures; /* outside of calls */
	char finaliser_error[192];   /* of the last one */
	lua_State *lua;
	struct layout layout;
	struct vm_pace pace;
	struct vm_loops loops;
};

/* What one call into Lua may use. */
struct vm_budget {
	uint32_t ms;              /* limits.proceed: CPU time; 0: any */
	uint64_t allocated_bytes; /* limits.allocation; 0: any */
};

/*
 * Creates the VM with the standard libraries and the path to Perilune's own modules.
 * 0 or UV_ENOMEM.
 */
int vm_open(struct vm *vm);

/* In the thread that the guard is attached to. What finalisers did meanwhile is in finaliser_failures. */
void vm_close(struct vm *vm);

struct vm *vm_of(lua_State *lua);

/* Of a script's top level, and of its setup(). */
extern const struct vm_budget VM_LOAD_BUDGET;

/*
 * Of teardown(), which somebody waits for: a stop, or the next reload. And of the script's snapshot(), for which the
 * connections wait.
 */
enum { VM_TEARDOWN_MS = 1000, VM_SNAPSHOT_MS = 1000 };

/* From now on everything is interpreted. */
void vm_stop_jit(struct vm *vm);

/*
 * Begins and ends a call into Lua, see vm/guard.h; none may be running. Between the two, and nowhere else, the
 * collector runs, and with it finalisers: what is called there has to be protected.
 */
static inline void vm_enter(struct vm *vm, const struct vm_budget *budget);
static inline enum guard_verdict vm_leave(struct vm *vm);

/*
 * lua_pcall() under a budget: its own, or that of the call it is part of. What ended it by verdict is the
 * error on the stack.
 */
int vm_pcall(struct vm *vm, lua_State *lua, int nargs, int nresults, const struct vm_budget *budget);

/*
 * After a call that was ended: no module is taken for one that is being loaded. It would be refused for ever, as one
 * that requires itself. Outside of calls.
 */
void vm_forget_loading(struct vm *vm);

/* Readies it, before any module of a user's is loaded. MAY RAISE. Both: loading.c */
void vm_open_loading(lua_State *lua);

/* MAY RAISE. Finds vm->loops. All of these: despecialize.c */
void vm_open_despecialize(lua_State *lua);

/* How many bytes string.dump() makes of the function on top, lines and all; 0: memory is short. */
size_t vm_dump_bytes(lua_State *lua);

/* Writes as many. False: memory is short. */
bool vm_dump(lua_State *lua, uint8_t *bytes);

/*
 * MAY RAISE. In place of the function on top, which has just been loaded and has not run: the same with loops over
 * pairs() that never leave anything out.
 */
void vm_despecialize(lua_State *lua);

/* Bytes allocated since the VM was opened. */
static inline uint64_t vm_allocated(const struct vm *vm)
{
	return (uint64_t)(vm->granted - vm->credit);
}

/* Outside of Lua, often: where limits.memory was reached, collects some of the garbage, or all that is over the
 * limit, if it may take so long. What the last call left should be gone by then. */
static inline void vm_relieve(struct vm *vm, bool may_take_long);

/* Where limits.memory was reached, lets a call have some memory all the same: to say so, for one. */
void vm_make_room(struct vm *vm);

/* Notes the size of the heap, and begins a cycle before the table of strings is full. Call it between polls: it costs
 * next to nothing. */
void vm_sample(struct vm *vm);

/* Tunes the collector to what is live in the heap and to the size of the frames that pass through it.
 * Cheap: call it now and then. */
void vm_pace(struct vm *vm, size_t frame_bytes);

/* Is a new string likely to wait for memory? Then vm->layout.strings tells for which. */
static inline bool vm_expects_misses(const struct vm *vm)
{
	return vm->pace.is_large && vm->layout.knows_hash;
}

/* After loading: collects what that has left behind, if it is much, and makes room for the strings to come. */
void vm_settle(struct vm *vm);

/* When nobody waits: makes room for strings, so that the table need not grow in the midst of traffic. */
void vm_make_room_for_strings(struct vm *vm);

/* A table in C that every VM finds as require(name); `push` pushes it, and may raise. */
struct vm_library {
	const char *name; /* NULL ends a list */
	void (*push)(lua_State *lua);
	bool is_late; /* it is made when it is required; others are there from the begin, and once */
};

/* The list is kept. Set once, before any VM is opened. */
void vm_set_libraries(const struct vm_library *libraries);

/* For modules.c: the late one of that name, or NULL. */
const struct vm_library *vm_late_library(const char *name);

/*
 * Where perilune/?.lua lies: a pattern whose last '?' stands for the name, as the folder may have such a character, and
 * a ';' as well. Set once, before any VM is opened.
 */
void vm_set_lua_path(const char *pattern);

/* That pattern; "" before it is set. */
const char *vm_lua_path(void);

/*
 * Perilune's modules are compiled once for all VMs that are opened from now on, until it is turned off: for whoever
 * opens many. Only where all VMs belong to one thread. modules.c
 */
void vm_share_modules(bool share);

/* MAY RAISE. In a fresh VM: they are found. */
void vm_open_modules(lua_State *lua, const char *pattern);

/*
 * MAY RAISE. Pushes a function of a Lua module of ours, which is loaded if it is not there: what only loading needs is
 * forgotten afterwards (runtime.forget_loaders()).
 */
void vm_push_function(lua_State *lua, const char *module, const char *name);

/*
 * Finds Perilune's Lua modules: beside the binary, in the source tree it was built in, or where
 * they were installed. Writes a pattern for vm_set_lua_path(). 0 or UV_ENOENT.
 */
int vm_find_lua_path(char *pattern, size_t size);

/* The same of a binary that is there, by its whole path without links. */
int vm_find_lua_path_from(const char *exe, char *pattern, size_t size);

/* Of a VM that is being made. MAY RAISE. Both: collector.c */
void vm_open_collector(struct vm *vm, lua_State *lua);

/* Outside of calls: makes room for so many more values on a stack of the VM's. False: there is no memory for them. What
 * is pushed without has to fit into what every stack has: about 20. */
bool vm_make_stack(struct vm *vm, lua_State *lua, int slots);

/*
 * Outside of calls the spare lends memory for what is small, and no more than this at a time: what is as large as a
 * peer or a script likes is pushed by vm_push().
 */
enum { VM_PLAIN_BYTES = 65536 };

/* Outside of calls: may so many bytes be pushed plainly? */
static inline bool vm_may_push(const struct vm *vm, size_t bytes)
{
	return bytes <= VM_PLAIN_BYTES && vm->spare;
}

/*
 * Outside of calls: what push(from), a light userdata, returns goes to the stack `to` of the VM's, which has room for
 * it. False: there is no memory for it, and nothing was pushed; the call that it was for has to fail.
 */
bool vm_push(struct vm *vm, lua_State *to, lua_CFunction push, const void *from);

/* The same with a string. */
bool vm_push_bytes(struct vm *vm, lua_State *to, const void *bytes, size_t n);

/* MAY RAISE, as finalisers may. So much of the collector's work. True: a cycle is over. pace.c */
bool vm_step(struct vm *vm, lua_State *lua, int kb);

/* Outside of calls: so much of the collector's work, protected and under a budget. True: a cycle is over. */
bool vm_collect_step(struct vm *vm, int kb);

/* perilune.guard.watch_calls(), and watched(function) → function: watched.c */
int vm_l_watch_calls(lua_State *lua);
int vm_l_watched(lua_State *lua);

/* After guard_open(): errors of calls that are ended name the limit and its value. explain.c */
void vm_explain_limits(struct vm *vm);

/* After guard_open(): no call is ended for what others left. memory.c */
void vm_limit_memory(struct vm *vm);

/* What the core may still have between calls when the system has no more memory. memory.c */
void vm_take_spare(struct vm *vm);
void vm_drop_spare(struct vm *vm);

/* For lua_newstate(): memory.c */
void *vm_alloc(void *vm, void *block, size_t old_bytes, size_t new_bytes);

/* ---- inline ---- */

void vm_collect_some(struct vm *vm, bool may_take_long);

static inline void vm_relieve(struct vm *vm, bool may_take_long)
{
	if (vm->is_full)
		vm_collect_some(vm, may_take_long);
}

enum { VM_DUE_BYTES = 4096 }; /* due_bytes of a small heap, in which a step is short */
#define VM_NEVER_BYTES ((size_t)1 << 47)

void vm_collect_due(struct vm *vm);
void vm_start_collector_slowly(struct vm *vm);
void vm_stop_collector_slowly(struct vm *vm);

static inline void vm_start_collector(struct vm *vm)
{
	if (__builtin_expect(!vm->threshold, 0)) {
		vm_start_collector_slowly(vm);
		return;
	}
	if (*vm->heap >= vm->kept_threshold + vm->pace.due_bytes)
		vm_collect_due(vm);
	*vm->threshold = vm->kept_threshold;
}

static inline void vm_stop_collector(struct vm *vm)
{
	if (__builtin_expect(!vm->threshold, 0)) {
		vm_stop_collector_slowly(vm);
		return;
	}
	vm->kept_threshold = *vm->threshold;
	*vm->threshold = VM_NEVER_BYTES;
}

void vm_limit_call(struct vm *vm, uint64_t bytes);
void vm_unlimit_call(struct vm *vm);

/* Of a call that has ended with GUARD_MEMORY: does it hold? */
enum guard_verdict vm_judge(struct vm *vm);

static inline void vm_enter(struct vm *vm, const struct vm_budget *budget)
{
	vm_start_collector(vm);
	if (budget->allocated_bytes)
		vm_limit_call(vm, budget->allocated_bytes);
	vm->call_begin = vm_allocated(vm);
	guard_enter(&vm->guard, budget->ms ? budget->ms : GUARD_UNBOUNDED_MS);
}

static inline enum guard_verdict vm_leave(struct vm *vm)
{
	vm_stop_collector(vm);
	if (vm->call_end != INT64_MAX)
		vm_unlimit_call(vm);
	enum guard_verdict verdict = guard_leave(&vm->guard);
	return verdict == GUARD_MEMORY ? vm_judge(vm) : verdict;
}
