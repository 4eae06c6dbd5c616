#include "vm/guard.h"

#include <lauxlib.h>
#include <luajit.h>
#include <lualib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
	HOOK_MASK_ACTIVE = 0x10,  /* LuaJIT's HOOK_ACTIVE: in a hook, so no other is called */
	HOOK_MASK_PROFILE = 0x80, /* LuaJIT's HOOK_PROFILE: what compiled loops test */
	HOOK_MASK_EVENTS = LUA_MASKCALL | LUA_MASKRET | LUA_MASKLINE | LUA_MASKCOUNT,
	TICK_MIN_MS = 1,
	TICK_MAX_MS = 10, /* a dispatch is noticed, and so killed, by this much too late */
	TICKS_PER_BUDGET = 8,
	RESEND_MS = 2,        /* for a signal that came between two modes of the VM, and was lost */
	LOOK_MIN_NS = 200000, /* a thread that gets no CPU time may be about to use up its budget for long */
};

#define NS_PER_MS INT64_C(1000000)

static struct {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	pthread_t thread;
	struct guard *guards; /* all that are open; under the lock */
	lua_State *profiler;  /* a VM that owns LuaJIT's profiler, so that no other does */
	bool running, no_jit;
} watchdog = { .lock = PTHREAD_MUTEX_INITIALIZER };

static _Thread_local struct guard *mine;

/* ---- the hook ---- */

/* Not in the signal handler: snprintf() may not run there. */
static void explain(struct guard *guard)
{
	static const char *const LIMITS[] = {
		[GUARD_FINE] = "interrupted",
		[GUARD_CPU] = "it ran for too long without waiting (limits.proceed)",
		[GUARD_MEMORY] = "the worker's memory is used up (limits.memory)",
		[GUARD_ALLOCATION] = "it allocated too much in one call (limits.allocation)",
	};
	snprintf(guard->why, sizeof guard->why, "%s", LIMITS[guard->verdict]);
}

/* The guard of the VM that this coroutine is of. */
static struct guard *guard_of(lua_State *lua)
{
	const void *registry = lua_topointer(lua, LUA_REGISTRYINDEX);
	struct guard *guard = mine;
	while (guard && lua_topointer(guard->lua, LUA_REGISTRYINDEX) != registry)
		guard = guard->outer;
	return guard;
}

static void stand_down(struct guard *guard);

/* Whose budget is it that was used up? True: of calls before the one that runs; it has its own from now on. */
static bool has_moved_on(struct guard *guard)
{
	if (guard->verdict != GUARD_CPU || !guard->progress)
		return false;
	uint64_t now = guard->progress(guard->progress_data);
	if (now == guard->progressed)
		return false;
	guard->progressed = now;
	/* Another number: the watchdog starts counting again, and a signal under way means nothing any more. */
	atomic_fetch_add_explicit(&guard->dispatch, UINT64_C(1) << GUARD_BUDGET_BITS, memory_order_relaxed);
	atomic_signal_fence(memory_order_seq_cst);
	stand_down(guard);
	guard->verdict = GUARD_FINE;
	return true;
}

/* Where the script is: the innermost line that is not of Perilune's own modules, if there is one near. */
static void note_place(struct guard *guard, lua_State *lua)
{
	enum { LEVELS = 8 };
	lua_Debug ar;
	for (int level = 0; level < LEVELS && lua_getstack(lua, level, &ar); level++) {
		if (!lua_getinfo(lua, "Sl", &ar) || ar.currentline <= 0)
			continue;
		bool is_ours = strstr(ar.source, "/lua/perilune/");
		if (!is_ours || !*guard->place)
			snprintf(guard->place, sizeof guard->place, "%s:%d", ar.short_src, ar.currentline);
		if (!is_ours)
			return;
	}
}

/* Runs at every instruction, once armed. MAY RAISE, which is its purpose. */
static void on_hook(lua_State *lua, lua_Debug *ar)
{
	(void)ar;
	struct guard *guard = guard_of(lua);
	if (!guard || !guard->verdict || has_moved_on(guard))
		return;
	if (!*guard->place)
		note_place(guard, lua);
	explain(guard);
	luaL_error(lua, "%s%s%s", guard->place, *guard->place ? ": " : "", guard->why);
}

/*
 * An error raised by the hook leaves the mark "in a hook" behind where the first to catch it is C, as in
 * load(); no hook would ever be called again.
 */
static void forget_active(struct guard *guard)
{
	if (guard->hook_mask)
		*guard->hook_mask &= (uint8_t)~HOOK_MASK_ACTIVE;
}

/* Only a change of its mode makes LuaJIT look anew; so it is changed whatever it was. */
static void arm(struct guard *guard)
{
	if (guard->hook_mask)
		*guard->hook_mask &= (uint8_t)~HOOK_MASK_PROFILE;
	lua_sethook(guard->lua, NULL, 0, 0);
	lua_sethook(guard->lua, on_hook, LUA_MASKCOUNT, 1);
	if (guard->hook_mask)
		*guard->hook_mask |= HOOK_MASK_PROFILE;
}

static void stand_down(struct guard *guard)
{
	if (guard->hook_mask)
		*guard->hook_mask &= (uint8_t)~HOOK_MASK_PROFILE;
	lua_sethook(guard->lua, NULL, 0, 0);
}

enum guard_verdict guard_disarm(struct guard *guard)
{
	enum guard_verdict verdict = (enum guard_verdict)guard->verdict;
	forget_active(guard);
	stand_down(guard);
	explain(guard);
	guard->verdict = GUARD_FINE;
	return verdict;
}

void guard_interrupt(struct guard *guard, enum guard_verdict verdict)
{
	if (!guard->lua || !guard_is_running(guard))
		return;
	if (!guard->verdict) {
		*guard->place = '\0';
		guard->verdict = (sig_atomic_t)verdict;
	}
	arm(guard);
}

void guard_push_error(const struct guard *guard, lua_State *lua)
{
	lua_pushfstring(lua, "%s%s%s", guard->place, *guard->place ? ": " : "", guard->why);
}

/* ---- the signal ---- */

/* On the thread whose dispatch is to end, or has ended meanwhile. */
static void on_kill(int number)
{
	(void)number;
	for (struct guard *guard = mine; guard; guard = guard->outer) {
		uint64_t dispatch = atomic_load_explicit(&guard->dispatch, memory_order_relaxed);
		if (dispatch != atomic_load_explicit(&guard->victim, memory_order_acquire))
			continue;
		if (guard->verdict)
			forget_active(guard); /* the first attempt was lost */
		guard_interrupt(guard, GUARD_CPU);
	}
}

/* ---- the watchdog ---- */

static int64_t read_ns(clockid_t clock)
{
	struct timespec t;
	if (clock_gettime(clock, &t))
		return 0;
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static int64_t cpu_ns(const struct guard *guard)
{
	clockid_t clock;
	return pthread_getcpuclockid(guard->thread, &clock) ? 0 : read_ns(clock);
}

static void kill_dispatch(struct guard *guard, uint64_t dispatch)
{
	int64_t now_ns = read_ns(CLOCK_MONOTONIC);
	if (now_ns - guard->signalled_ns < RESEND_MS * NS_PER_MS)
		return;
	guard->signalled_ns = now_ns;
	atomic_store_explicit(&guard->victim, dispatch, memory_order_release);
	pthread_kill(guard->thread, GUARD_SIGNAL);
}

/* Says how much of its budget the running dispatch has left, at least; INT64_MAX: none is running under one. */
static int64_t look_at(struct guard *guard)
{
	uint64_t dispatch = atomic_load_explicit(&guard->dispatch, memory_order_relaxed);
	uint32_t budget_ms = (uint32_t)(dispatch & GUARD_UNBOUNDED_MS);
	if (!budget_ms || budget_ms == GUARD_UNBOUNDED_MS) {
		guard->seen = 0;
		return INT64_MAX;
	}
	if (dispatch != guard->seen) {
		guard->seen = dispatch;
		guard->seen_ns = cpu_ns(guard);
		guard->signalled_ns = 0;
	}
	int64_t left_ns = budget_ms * NS_PER_MS - (cpu_ns(guard) - guard->seen_ns);
	if (left_ns <= 0)
		kill_dispatch(guard, dispatch);
	return left_ns;
}

static int64_t tick_ns(const struct guard *guard)
{
	int64_t ms = guard->least_ms / TICKS_PER_BUDGET;
	return (ms < TICK_MIN_MS ? TICK_MIN_MS : ms > TICK_MAX_MS ? TICK_MAX_MS : ms) * NS_PER_MS;
}

/*
 * Under the lock. Looks at all, and says when to look next: soon enough to notice a new dispatch early in
 * its budget, and when the first budget may be used up.
 */
static int64_t look_around(void)
{
	int64_t next_ns = TICK_MAX_MS * NS_PER_MS;
	for (struct guard *guard = watchdog.guards; guard; guard = guard->next) {
		int64_t left_ns = look_at(guard), tick = tick_ns(guard);
		if (left_ns <= 0)
			left_ns = RESEND_MS * NS_PER_MS;
		else if (left_ns < LOOK_MIN_NS)
			left_ns = LOOK_MIN_NS;
		if (left_ns < tick)
			tick = left_ns;
		if (tick < next_ns)
			next_ns = tick;
	}
	return next_ns;
}

static void *watch(void *nothing)
{
	pthread_mutex_lock(&watchdog.lock);
	while (watchdog.running) {
		int64_t until_ns = read_ns(CLOCK_MONOTONIC) + look_around();
		struct timespec until = { until_ns / 1000000000, until_ns % 1000000000 };
		if (watchdog.guards)
			pthread_cond_timedwait(&watchdog.changed, &watchdog.lock, &until);
		else
			pthread_cond_wait(&watchdog.changed, &watchdog.lock);
	}
	pthread_mutex_unlock(&watchdog.lock);
	return nothing;
}

/* ---- guards ---- */

/*
 * The one byte of the VM's state that always holds the mask of the hook; NULL if there is not exactly
 * one. Where it lies is not part of LuaJIT's interface, so every VM is asked.
 */
static uint8_t *find_hook_mask(lua_State *lua, uint8_t *state, size_t state_bytes)
{
	static const int MASKS[] = {
		0, LUA_MASKCALL, LUA_MASKRET, LUA_MASKLINE, LUA_MASKCOUNT, LUA_MASKLINE | LUA_MASKRET, 0
	};
	uint8_t misses[16384] = { 0 }, *found = NULL;
	if (state_bytes > sizeof misses)
		return NULL;
	for (size_t m = 0; m < sizeof MASKS / sizeof *MASKS; m++) {
		lua_sethook(lua, on_hook, MASKS[m], MASKS[m] & LUA_MASKCOUNT ? 1000000 : 0);
		for (size_t i = 0; i < state_bytes; i++)
			misses[i] |= (state[i] & (HOOK_MASK_EVENTS | HOOK_MASK_PROFILE)) != MASKS[m];
	}
	for (size_t i = 0; i < state_bytes; i++) {
		if (misses[i])
			continue;
		if (found)
			return NULL;
		found = state + i;
	}
	return found;
}

static void ignore_sample(void *data, lua_State *lua, int samples, int state)
{
	(void)data;
	(void)lua;
	(void)samples;
	(void)state;
}

void guard_open(struct guard *guard, lua_State *lua, void *state, size_t state_bytes)
{
	*guard = (struct guard){ .lua = lua, .least_ms = 1000 };
	if (!watchdog.no_jit)
		guard->hook_mask = find_hook_mask(lua, state, state_bytes);
	if (guard->hook_mask)
		luaJIT_profile_start(lua, "l", ignore_sample, NULL);
	else
		luaJIT_setmode(lua, 0, LUAJIT_MODE_ENGINE | LUAJIT_MODE_OFF);
	guard_attach(guard);
}

void guard_attach(struct guard *guard)
{
	if (guard->attached)
		return;
	guard->attached = true;
	guard->thread = pthread_self();
	guard->outer = mine;
	mine = guard;
	sigset_t kill_signal; /* whoever started us may have had it blocked */
	sigemptyset(&kill_signal);
	sigaddset(&kill_signal, GUARD_SIGNAL);
	pthread_sigmask(SIG_UNBLOCK, &kill_signal, NULL);
	pthread_mutex_lock(&watchdog.lock);
	guard->next = watchdog.guards;
	watchdog.guards = guard;
	pthread_cond_signal(&watchdog.changed);
	pthread_mutex_unlock(&watchdog.lock);
}

void guard_detach(struct guard *guard)
{
	if (!guard->attached)
		return;
	pthread_mutex_lock(&watchdog.lock);
	struct guard **link = &watchdog.guards;
	while (*link != guard)
		link = &(*link)->next;
	*link = guard->next;
	pthread_mutex_unlock(&watchdog.lock);
	for (link = &mine; *link != guard;)
		link = &(*link)->outer;
	*link = guard->outer;
	guard->attached = false;
}

void guard_close(struct guard *guard)
{
	guard_detach(guard);
	guard->lua = NULL;
}

void guard_set_least(struct guard *guard, uint32_t ms)
{
	pthread_mutex_lock(&watchdog.lock);
	guard->least_ms = ms;
	pthread_cond_signal(&watchdog.changed);
	pthread_mutex_unlock(&watchdog.lock);
}

/* ---- start and end ---- */

struct first_block {
	void *state;
	size_t bytes;
};

static void *note_first_block(void *data, void *block, size_t old_bytes, size_t new_bytes)
{
	struct first_block *first = data;
	(void)old_bytes;
	if (!new_bytes) {
		free(block);
		return NULL;
	}
	block = realloc(block, new_bytes);
	if (!first->state)
		*first = (struct first_block){ block, new_bytes };
	return block;
}

/* Long enough to be compiled, and to tell an interrupted loop from one that ran to its end. */
static const char ENDLESS[] = "local n = 0 for i = 1, 1e9 do n = n + i % 7 end return n";

static bool can_interrupt(lua_State *lua, const struct first_block *first)
{
	static struct guard guard;
	guard_open(&guard, lua, first->state, first->bytes);
	guard_set_least(&guard, 1);
	bool interrupted = false;
	if (guard.hook_mask && !luaL_loadstring(lua, ENDLESS)) {
		guard_enter(&guard, 2);
		int status = lua_pcall(lua, 0, 1, 0);
		interrupted = guard_leave(&guard) == GUARD_CPU && status;
	}
	guard_close(&guard);
	return interrupted;
}

static bool self_test(void)
{
	struct first_block first = { 0 };
	lua_State *lua = lua_newstate(note_first_block, &first);
	if (!lua)
		return false;
	luaL_openlibs(lua);
	bool passed = can_interrupt(lua, &first);
	lua_close(lua);
	return passed;
}

static bool start_thread(void)
{
	pthread_condattr_t monotonic;
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&watchdog.changed, &monotonic);
	pthread_condattr_destroy(&monotonic);
	struct sigaction action = { .sa_handler = on_kill, .sa_flags = SA_RESTART };
	sigaction(GUARD_SIGNAL, &action, NULL);
	/* Signals are for the main thread, and for those that are to be interrupted. */
	sigset_t all, before;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	watchdog.running = true;
	bool started = !pthread_create(&watchdog.thread, NULL, watch, NULL);
	if (!started)
		watchdog.running = false;
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return started;
}

const char *guard_start(void)
{
	if (watchdog.running)
		return watchdog.no_jit ? "no-jit" : "hook";
	if (!start_thread())
		return NULL;
	watchdog.profiler = luaL_newstate();
	if (watchdog.profiler)
		luaJIT_profile_start(watchdog.profiler, "i100000000", ignore_sample, NULL);
	watchdog.no_jit = !watchdog.profiler || !self_test();
	return watchdog.no_jit ? "no-jit" : "hook";
}

void guard_stop(void)
{
	if (!watchdog.running)
		return;
	pthread_mutex_lock(&watchdog.lock);
	watchdog.running = false;
	pthread_cond_signal(&watchdog.changed);
	pthread_mutex_unlock(&watchdog.lock);
	pthread_join(watchdog.thread, NULL);
	pthread_cond_destroy(&watchdog.changed);
	if (watchdog.profiler) {
		luaJIT_profile_stop(watchdog.profiler);
		lua_close(watchdog.profiler);
	}
	watchdog.profiler = NULL;
}
