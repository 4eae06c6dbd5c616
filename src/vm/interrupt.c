#include "vm/interrupt.h"

#include "vm/guard.h"

#include <lauxlib.h>
#include <luajit.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/time.h>
#include <time.h>

enum {
	HOOK_MASK_PROFILE = 0x80, /* LuaJIT's HOOK_PROFILE: what compiled loops test */
	HOOK_MASK_EVENTS = LUA_MASKCALL | LUA_MASKRET | LUA_MASKLINE | LUA_MASKCOUNT,
};

/* ---- the mask of the hook ---- */

static void ignore_event(lua_State *lua, lua_Debug *ar)
{
	(void)lua;
	(void)ar;
}

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
		lua_sethook(lua, ignore_event, MASKS[m], MASKS[m] & LUA_MASKCOUNT ? 1000000 : 0);
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

/* ---- hook, no-jit ---- */

/* For finalisers: see forget_active(). */
static void note_hook_mask(struct guard *guard, void *state, size_t state_bytes)
{
	guard->hook_mask = find_hook_mask(guard->lua, state, state_bytes);
}

static bool open_hook(struct guard *guard, void *state, size_t state_bytes)
{
	note_hook_mask(guard, state, state_bytes);
	return true;
}

static bool open_no_jit(struct guard *guard, void *state, size_t state_bytes)
{
	note_hook_mask(guard, state, state_bytes);
	return false;
}

static void do_nothing(struct guard *guard)
{
	(void)guard;
}

/* Only a change of its mode makes LuaJIT look anew; so it is changed whatever it was. */
static void set_hook(struct guard *guard, lua_Hook hook)
{
	lua_sethook(guard->lua, NULL, 0, 0);
	lua_sethook(guard->lua, hook, LUA_MASKCOUNT, 1);
}

static void clear_hook(struct guard *guard, lua_State *lua)
{
	(void)guard;
	lua_sethook(lua, NULL, 0, 0);
}

/* ---- the profiler ---- */

/*
 * LuaJIT has one profiler for the whole process, and takes no lock for it. So whoever starts or stops it, for
 * whatever VM, first moves this from AT_HOME or LOOSE to MOVING. (Asking for profiling by line starts it as
 * well, if nobody owns it.)
 */
enum loan {
	AT_HOME, /* the VM that never runs owns it */
	MOVING,  /* a thread is at it */
	OFFERED, /* nobody owns it, and the borrower may take it, on its own thread only */
	TAKEN,   /* the borrower owns it, and gives it back */
	LOOSE,   /* nobody owns it: the borrower had no use for it */
};

static struct {
	lua_State *home; /* under MOVING */
	_Atomic int loan;
	_Atomic(struct guard *) borrower; /* while OFFERED and TAKEN */
} profiler;

static void ignore_sample(void *data, lua_State *lua, int samples, int state)
{
	(void)data;
	(void)lua;
	(void)samples;
	(void)state;
}

/* No timer: nothing is to be measured. Also in a signal's handler: all that LuaJIT calls is sigaction(). */
static void own_profiler(lua_State *lua)
{
	static const struct itimerval NEVER = { 0 };
	luaJIT_profile_start(lua, "i100000000", ignore_sample, NULL);
	setitimer(ITIMER_PROF, &NEVER, NULL);
}

/* False: somebody else has it. */
static bool get_hold(void)
{
	int loan = AT_HOME;
	if (atomic_compare_exchange_strong(&profiler.loan, &loan, MOVING)) {
		luaJIT_profile_stop(profiler.home);
		return true;
	}
	return loan == LOOSE && atomic_compare_exchange_strong(&profiler.loan, &loan, MOVING);
}

/* Under MOVING. What `lua` compiles from now on looks at the profiler's bit. */
static void bring_home(lua_State *lua)
{
	own_profiler(profiler.home);
	luaJIT_profile_start(lua, "l", ignore_sample, NULL);
	atomic_store(&profiler.loan, AT_HOME);
}

/* Waits for calls of other VMs that are just being ended; a long call of C may keep one from it. */
static bool open_profiler(struct guard *guard, void *state, size_t state_bytes)
{
	enum { TRIES = 2000, PAUSE_NS = 1000000 };
	(void)state;
	(void)state_bytes;
	for (int i = 0; !get_hold(); i++) {
		if (i == TRIES)
			return false;
		nanosleep(&(struct timespec){ .tv_nsec = PAUSE_NS }, NULL);
	}
	bring_home(guard->lua);
	return true;
}

static void lend_profiler(struct guard *guard)
{
	if (!get_hold())
		return;
	atomic_store(&profiler.borrower, guard);
	atomic_store(&profiler.loan, OFFERED);
}

/*
 * LuaJIT's handler of SIGPROF sets the bit in the mask of the VM that owns the profiler. It is not started
 * twice, which would stop it, and free the code that is just running. Without it the hook alone is armed:
 * that ends what is interpreted, and the next signal may find the profiler free.
 */
static void arm_profiler(struct guard *guard, lua_Hook hook)
{
	set_hook(guard, hook);
	if (atomic_load(&profiler.borrower) != guard)
		return;
	if (atomic_load(&profiler.loan) == OFFERED) {
		own_profiler(guard->lua);
		atomic_store(&profiler.loan, TAKEN);
	}
	if (atomic_load(&profiler.loan) == TAKEN)
		raise(SIGPROF);
}

static void decline_profiler(struct guard *guard)
{
	if (atomic_load(&profiler.borrower) == guard && atomic_load(&profiler.loan) == OFFERED)
		atomic_store(&profiler.loan, LOOSE);
}

static int return_nothing(lua_State *lua)
{
	(void)lua;
	return 0;
}

/*
 * A hook gives the recording of a trace up, but LuaJIT cleans up after it at the next call. By then the trace that it
 * was to go on from must not have been thrown away: LuaJIT would write to it all the same.
 */
static void finish_recording(lua_State *lua)
{
	if (lua_cpcall(lua, return_nothing, NULL))
		lua_pop(lua, 1);
}

/* LuaJIT forgets with the profiler that traces were to look at its bit, and it forgets the traces. */
static void return_profiler(struct guard *guard, lua_State *lua)
{
	clear_hook(guard, lua);
	if (atomic_load(&profiler.borrower) != guard || atomic_load(&profiler.loan) != TAKEN)
		return;
	atomic_store(&profiler.loan, MOVING);
	finish_recording(lua);
	luaJIT_profile_stop(lua);
	atomic_store(&profiler.borrower, NULL);
	bring_home(lua);
}

/* ---- hook-mask ---- */

static bool open_hook_mask(struct guard *guard, void *state, size_t state_bytes)
{
	guard->hook_mask = find_hook_mask(guard->lua, state, state_bytes);
	return guard->hook_mask && open_profiler(guard, state, state_bytes);
}

static void clear_hook_mask(struct guard *guard, lua_State *lua)
{
	if (guard->hook_mask)
		*guard->hook_mask &= (uint8_t)~HOOK_MASK_PROFILE;
	clear_hook(guard, lua);
}

/* The bit is set last: with it LuaJIT's mode would not depend on the hook. */
static void arm_hook_mask(struct guard *guard, lua_Hook hook)
{
	clear_hook_mask(guard, guard->lua);
	set_hook(guard, hook);
	if (guard->hook_mask)
		*guard->hook_mask |= HOOK_MASK_PROFILE;
}

/* ---- all of them ---- */

const struct interrupt INTERRUPTS[] = {
	{ "hook", true, open_hook, do_nothing, set_hook, do_nothing, clear_hook },
	{ "hook-mask", true, open_hook_mask, do_nothing, arm_hook_mask, do_nothing, clear_hook_mask },
	{ "profiler", true, open_profiler, lend_profiler, arm_profiler, decline_profiler, return_profiler },
	{ "no-jit", false, open_no_jit, do_nothing, set_hook, do_nothing, clear_hook },
	{ NULL, false, NULL, NULL, NULL, NULL, NULL },
};

static void on_stray_signal(int number)
{
	(void)number;
}

/*
 * Where nobody has started the profiler, a SIGPROF would end the process. Not SIG_IGN: that would be
 * handed down to programs that scripts start.
 */
static void survive_stray_signals(void)
{
	struct sigaction now, stray = { .sa_handler = on_stray_signal, .sa_flags = SA_RESTART };
	if (!sigaction(SIGPROF, NULL, &now) && now.sa_handler == SIG_DFL)
		sigaction(SIGPROF, &stray, NULL);
}

bool interrupt_start(void)
{
	profiler.home = luaL_newstate();
	if (!profiler.home)
		return false;
	survive_stray_signals();
	own_profiler(profiler.home);
	atomic_store(&profiler.loan, AT_HOME);
	return true;
}

void interrupt_stop(void)
{
	if (!profiler.home)
		return;
	luaJIT_profile_stop(profiler.home);
	lua_close(profiler.home);
	profiler.home = NULL;
}
