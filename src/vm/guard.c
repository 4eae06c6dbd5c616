#include "vm/guard.h"

#include "base/thread.h"
#include "base/thread_state.h"
#include "vm/interrupt.h"
#include "vm/self_test.h"

#include <lauxlib.h>
#include <luajit.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <uv.h>

enum {
	HOOK_MASK_ACTIVE = 0x10, /* LuaJIT's HOOK_ACTIVE: in a hook, so no other is called */
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
	const struct interrupt *way;
	bool running;
	int err; /* why the thread was not started */
} watchdog = { .lock = PTHREAD_MUTEX_INITIALIZER };

static _Thread_local struct guard *mine;
static _Thread_local const atomic_int *heeded; /* guard_call_off_by() */

/* While a VM is closed it has nothing compiled, and Lua's own interface suffices: INTERRUPTS[0]. */
static const struct interrupt *way_of(const struct guard *guard)
{
	return guard->is_closing ? &INTERRUPTS[0] : watchdog.way;
}

/* ---- the hook ---- */

/* Not in the signal handler: snprintf() may not run there. */
static void guard_explain(struct guard *guard)
{
	static const char *const LIMITS[] = {
		[GUARD_FINE] = "interrupted",
		[GUARD_CPU] = "it ran for too long without waiting (limits.proceed)",
		[GUARD_MEMORY] = "the worker's memory is used up (limits.memory)",
		[GUARD_ALLOCATION] = "it allocated too much in one call (limits.allocation)",
		[GUARD_CALLED_OFF] = "it was called off",
	};
	enum guard_verdict verdict = (enum guard_verdict)guard->verdict;
	snprintf(guard->why, sizeof guard->why, "%s", LIMITS[verdict]);
	if (guard->explain && verdict != GUARD_FINE)
		guard->explain(guard, verdict, guard->why, sizeof guard->why);
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

/*
 * The call goes on with a new budget. Another number: the watchdog starts counting again, and a signal under way means
 * nothing any more.
 */
static void let_go_on(struct guard *guard, lua_State *lua)
{
	atomic_fetch_add_explicit(&guard->dispatch, UINT64_C(1) << GUARD_NUMBER_SHIFT, memory_order_relaxed);
	atomic_signal_fence(memory_order_seq_cst);
	way_of(guard)->stand_down(guard, lua);
	guard->verdict = GUARD_FINE;
}

/* Whose budget is it that was used up? True: of calls before the one that runs; it has its own from now on. */
static bool has_moved_on(struct guard *guard, lua_State *lua)
{
	if (guard->verdict != GUARD_CPU || !guard->progress)
		return false;
	uint64_t now = guard->progress(guard->owner);
	if (now == guard->progressed)
		return false;
	guard->progressed = now;
	let_go_on(guard, lua);
	return true;
}

/* The call at hand goes on. */
static void cut_short(struct guard *guard, lua_State *lua)
{
	uint64_t dispatch = atomic_load_explicit(&guard->dispatch, memory_order_relaxed);
	atomic_store_explicit(&guard->cut_short, dispatch, memory_order_relaxed);
	guard->cuts = false;
	guard->cut(guard->owner);
	if (!guard->verdict)
		watchdog.way->stand_down(guard, lua);
}

static bool has_got_room(struct guard *guard, lua_State *lua)
{
	if (guard->verdict != GUARD_MEMORY || !guard->has_room || !guard->has_room(guard, lua))
		return false;
	let_go_on(guard, lua);
	return true;
}

bool guard_must_end(struct guard *guard, lua_State *lua)
{
	return guard->verdict != GUARD_FINE && !has_got_room(guard, lua);
}

/* A yield leaves all pcalls at once; thousands of them would each have to be left by an error. */
static bool may_abandon(struct guard *guard, lua_State *lua)
{
	return guard->abandon && lua_isyieldable(lua) && lua_checkstack(lua, LUA_MINSTACK) &&
	       guard->abandon(guard->owner, lua);
}

/* LuaJIT yields differently from hooks: the mark "in a hook" has to be there, and no signal may take it away. */
static void leave_by_yield(struct guard *guard, lua_State *lua)
{
	guard->leaving = true;
	atomic_signal_fence(memory_order_seq_cst);
	if (guard->hook_mask)
		*guard->hook_mask |= HOOK_MASK_ACTIVE;
	lua_yield(lua, 0);
}

/* Runs at every instruction, once armed. MAY RAISE, which is its purpose. */
static void on_hook(lua_State *lua, lua_Debug *ar)
{
	(void)ar;
	struct guard *guard = guard_of(lua);
	if (guard && guard->cuts)
		cut_short(guard, lua);
	if (!guard || !guard->verdict || has_moved_on(guard, lua) || has_got_room(guard, lua))
		return;
	/* Once: each pcall on the way out meets it again. */
	if (!*guard->place) {
		stall_find_place(lua, guard->place, sizeof guard->place);
		guard_explain(guard);
	}
	if (may_abandon(guard, lua))
		leave_by_yield(guard, lua);
	guard_push_error(guard, lua);
	lua_error(lua);
}

/*
 * An error raised by the hook leaves the mark "in a hook" behind where the first to catch it is C, as in
 * load(); no hook would be called again in this dispatch. Where the mask is not known, that has to do: a coroutine
 * and lua_pcall() take the mark away when they end.
 */
static void forget_active(struct guard *guard)
{
	if (guard->hook_mask)
		*guard->hook_mask &= (uint8_t)~HOOK_MASK_ACTIVE;
}

enum guard_verdict guard_disarm(struct guard *guard)
{
	enum guard_verdict verdict = (enum guard_verdict)guard->verdict;
	forget_active(guard);
	way_of(guard)->stand_down(guard, guard->lua);
	guard->armed = guard->cuts = false;
	if (verdict == GUARD_FINE)
		return GUARD_FINE;
	guard_explain(guard);
	guard->verdict = GUARD_FINE;
	guard->leaving = false;
	return verdict;
}

/* Also in the handler. */
static void tell_to_end(struct guard *guard, enum guard_verdict verdict)
{
	if (!guard_is_running(guard))
		return;
	if (!guard->verdict) {
		*guard->place = '\0';
		guard->verdict = (sig_atomic_t)verdict;
	}
	guard->armed = true;
	way_of(guard)->arm(guard, on_hook);
}

/* The handler must not come in between: arming is not for two at a time. */
void guard_interrupt(struct guard *guard, enum guard_verdict verdict)
{
	if (!guard->lua || !guard_is_running(guard))
		return;
	sigset_t kill_signal, before;
	sigemptyset(&kill_signal);
	sigaddset(&kill_signal, GUARD_SIGNAL);
	pthread_sigmask(SIG_BLOCK, &kill_signal, &before);
	way_of(guard)->prepare(guard);
	tell_to_end(guard, verdict);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
}

void guard_begin_end(struct guard *guard, uint32_t budget_ms)
{
	guard->is_closing = true;
	guard_enter(guard, budget_ms);
}

void guard_end(struct guard *guard)
{
	uint64_t now = atomic_load_explicit(&guard->dispatch, memory_order_relaxed);
	atomic_store_explicit(&guard->dispatch, now & ~(uint64_t)(GUARD_BATCH | GUARD_UNBOUNDED_MS),
			      memory_order_relaxed);
	atomic_signal_fence(memory_order_seq_cst);
}

void guard_push_error(const struct guard *guard, lua_State *lua)
{
	lua_pushfstring(lua, "%s%s%s", guard->place, *guard->place ? ": " : "", guard->why);
}

/* ---- the signal ---- */

static bool is_called_off(const struct guard *guard)
{
	return guard->off && atomic_load_explicit(guard->off, memory_order_relaxed);
}

static bool takes_too_long(const struct guard *guard, uint64_t dispatch)
{
	return dispatch == atomic_load_explicit(&guard->too_long, memory_order_acquire) &&
	       guard_is_running(guard) && !guard->verdict;
}

static void tell_to_cut(struct guard *guard)
{
	guard->cuts = guard->armed = true;
	watchdog.way->arm(guard, on_hook);
}

/* On the thread whose dispatch is to end or to be cut short, or has ended meanwhile. */
static void on_kill(int number)
{
	(void)number;
	for (struct guard *guard = mine; guard; guard = guard->outer) {
		uint64_t dispatch = atomic_load_explicit(&guard->dispatch, memory_order_relaxed);
		if (dispatch != atomic_load_explicit(&guard->victim, memory_order_acquire)) {
			if (takes_too_long(guard, dispatch))
				tell_to_cut(guard);
			else
				watchdog.way->decline(guard);
			continue;
		}
		if (guard->leaving) {
			watchdog.way->decline(guard);
			continue;
		}
		if (guard->verdict)
			forget_active(guard); /* the first attempt was lost */
		tell_to_end(guard, is_called_off(guard) ? GUARD_CALLED_OFF : GUARD_CPU);
	}
}

void guard_kill(struct guard *guard, uint64_t dispatch)
{
	way_of(guard)->prepare(guard);
	atomic_store_explicit(&guard->victim, dispatch, memory_order_release);
	pthread_kill(guard->thread, GUARD_SIGNAL);
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

/* While a VM is closed each signal ends but one finaliser, and there may be thousands that do not return. */
static int64_t resend_ns(const struct guard *guard)
{
	return guard->is_closing ? LOOK_MIN_NS : RESEND_MS * NS_PER_MS;
}

static void kill_now_and_then(struct guard *guard, uint64_t dispatch)
{
	int64_t now_ns = read_ns(CLOCK_MONOTONIC);
	if (now_ns - guard->signalled_ns < resend_ns(guard))
		return;
	guard->signalled_ns = now_ns;
	guard_kill(guard, dispatch);
}

/*
 * Says how much time a batch has left before it is to be cut short; INT64_MAX: it is none, or has been cut. It is told
 * again at each look until then, for a signal may be lost. But not while it waits in the system, where the hook is not
 * called, and calls may end early for a signal.
 */
static int64_t look_at_batch(struct guard *guard, uint64_t dispatch, int64_t now_ns)
{
	enum { RUNS_NS = 1000000 };
	if (!(dispatch & GUARD_BATCH) ||
	    dispatch == atomic_load_explicit(&guard->cut_short, memory_order_relaxed))
		return INT64_MAX;
	bool runs = now_ns - guard->last_ns >= RUNS_NS;
	int64_t left_ns = GUARD_TURN_MS * NS_PER_MS - (now_ns - guard->seen_ns);
	guard->last_ns = now_ns;
	if (left_ns > 0)
		return left_ns;
	if (!runs)
		return INT64_MAX;
	watchdog.way->prepare(guard);
	atomic_store_explicit(&guard->too_long, dispatch, memory_order_release);
	pthread_kill(guard->thread, GUARD_SIGNAL);
	return INT64_MAX;
}

/* Says when the running dispatch may have used up what it has, at the earliest; INT64_MAX: none runs that could. */
static int64_t guard_look_at(struct guard *guard, int64_t clock_ns)
{
	uint64_t dispatch = atomic_load_explicit(&guard->dispatch, memory_order_relaxed);
	uint32_t budget_ms = (uint32_t)(dispatch & GUARD_UNBOUNDED_MS);
	bool off = is_called_off(guard);
	stall_look(&guard->stall, budget_ms ? dispatch : 0, clock_ns);
	bool is_bounded = budget_ms != GUARD_UNBOUNDED_MS || off;
	if (!budget_ms || (!is_bounded && !(dispatch & GUARD_BATCH))) {
		guard->seen = 0;
		return INT64_MAX;
	}
	int64_t now_ns = cpu_ns(guard);
	if (dispatch != guard->seen) {
		guard->seen = dispatch;
		guard->seen_ns = guard->last_ns = now_ns;
		guard->signalled_ns = 0;
	}
	if (!is_bounded)
		return look_at_batch(guard, dispatch, now_ns);
	int64_t left_ns = off ? 0 : budget_ms * NS_PER_MS - (now_ns - guard->seen_ns);
	if (left_ns <= 0)
		kill_now_and_then(guard, dispatch);
	int64_t turn_ns = left_ns > 0 ? look_at_batch(guard, dispatch, now_ns) : INT64_MAX;
	return turn_ns < left_ns ? turn_ns : left_ns;
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
	int64_t next_ns = TICK_MAX_MS * NS_PER_MS, now_ns = read_ns(CLOCK_MONOTONIC);
	for (struct guard *guard = watchdog.guards; guard; guard = guard->next) {
		int64_t left_ns = guard_look_at(guard, now_ns), tick = tick_ns(guard);
		if (left_ns <= 0)
			left_ns = resend_ns(guard);
		else if (left_ns < LOOK_MIN_NS)
			left_ns = LOOK_MIN_NS;
		if (left_ns < tick)
			tick = left_ns;
		if (tick < next_ns)
			next_ns = tick;
	}
	return next_ns;
}

static void guard_watch(void *nothing)
{
	(void)nothing;
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
}

/* ---- guards ---- */

/* Whoever started us may have had them blocked. */
static void unblock_signals(void)
{
	sigset_t wanted;
	sigemptyset(&wanted);
	sigaddset(&wanted, GUARD_SIGNAL);
	sigaddset(&wanted, SIGPROF);
	pthread_sigmask(SIG_UNBLOCK, &wanted, NULL);
}

void guard_open(struct guard *guard, lua_State *lua, void *state, size_t state_bytes)
{
	*guard = (struct guard){ .lua = lua, .least_ms = 1000, .stall.worker = STALL_NOBODY };
	if (!watchdog.way->open(guard, state, state_bytes))
		luaJIT_setmode(lua, 0, LUAJIT_MODE_ENGINE | LUAJIT_MODE_OFF);
	guard_attach(guard);
}

void guard_attach(struct guard *guard)
{
	if (guard->attached)
		return;
	guard->attached = true;
	guard->off = heeded;
	guard->thread = pthread_self();
	guard->stall.thread = thread_self();
	guard->stack = (uintptr_t)__builtin_frame_address(0);
	guard->outer = mine;
	mine = guard;
	unblock_signals();
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
	stall_look(&guard->stall, 0, read_ns(CLOCK_MONOTONIC)); /* what has stalled is over */
	pthread_mutex_unlock(&watchdog.lock);
	for (link = &mine; *link != guard;)
		link = &(*link)->outer;
	*link = guard->outer;
	guard->attached = false;
}

void guard_close(struct guard *guard)
{
	if (!guard->lua)
		return;
	guard_detach(guard);
	watchdog.way->decline(guard); /* a signal under way finds nobody */
	guard->lua = NULL;
}

void guard_call_off_by(const atomic_int *off)
{
	heeded = off;
}

void guard_look(void)
{
	pthread_mutex_lock(&watchdog.lock);
	if (watchdog.running)
		pthread_cond_signal(&watchdog.changed);
	pthread_mutex_unlock(&watchdog.lock);
}

void guard_set_worker(struct guard *guard, unsigned worker, uint32_t generation)
{
	pthread_mutex_lock(&watchdog.lock);
	guard->stall.worker = (int)worker;
	guard->stall.generation = generation;
	pthread_mutex_unlock(&watchdog.lock);
}

void guard_set_least(struct guard *guard, uint32_t ms)
{
	pthread_mutex_lock(&watchdog.lock);
	guard->least_ms = ms;
	pthread_cond_signal(&watchdog.changed);
	pthread_mutex_unlock(&watchdog.lock);
}

/* ---- start and end ---- */

static int guard_start_thread(void)
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
	int err = thread_start(&watchdog.thread, THREAD_BYTES, guard_watch, NULL);
	if (err)
		watchdog.running = false;
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return err;
}

/* The first way that works; NULL: that of this name does not. */
static const struct interrupt *guard_choose(const char *name)
{
	bool has_profiler = interrupt_start();
	for (const struct interrupt *way = INTERRUPTS; way->name; way++) {
		if (name && strcmp(name, way->name) != 0)
			continue;
		watchdog.way = way;
		if (!way->compiles || (has_profiler && self_test_passes()))
			return way;
	}
	return NULL;
}

const char *guard_start_with(const char *name)
{
	if (watchdog.running)
		return watchdog.way->name;
	watchdog.err = guard_start_thread();
	if (watchdog.err)
		return NULL;
	const struct interrupt *way = guard_choose(name);
	if (!way)
		guard_stop();
	return way ? way->name : NULL;
}

const char *guard_start(void)
{
	return guard_start_with(NULL);
}

int guard_error(void)
{
	return watchdog.err ? watchdog.err : UV_EAGAIN;
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
	interrupt_stop();
}
