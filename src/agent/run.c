#include "agent/run.h"

#include "agent/ledger.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

static const struct {
	const char *name;
	bool may_wait;
} CALLBACKS[] = {
	[CALL_OPENED] = { "opened", true },
	[CALL_PROCEED] = { "proceed", true },
	[CALL_EOF] = { "eof", true },
	[CALL_TIMEOUT] = { "timeout", false },
	[CALL_FAILED] = { "failed", false },
	[CALL_OVERSIZE] = { "oversize", false },
	[CALL_MALFORMED] = { "malformed", false },
	[CALL_WRITABLE] = { "writable", true },
	[CALL_DRAIN] = { "drain", true },
	[CALL_CLOSED] = { "closed", false },
	[CALL_DEFER] = { "defer", false },
	[CALL_SNAPSHOT] = { "snapshot", false },
	[CALL_UPGRADE] = { "upgrade", false },
	[CALL_DECODE] = { "decode", false },
	[CALL_ENCODE] = { "encode", false },
};

const char *callback_name(enum callback callback)
{
	return CALLBACKS[callback].name;
}

bool callback_may_wait(enum callback callback)
{
	return CALLBACKS[callback].may_wait;
}

/* ---- the pool ---- */

#define ENDED "perilune.ended" /* in the registry: lua/perilune/ended.lua */

static struct coroutine take_coroutine(struct agents *agents)
{
	if (agents->pooled)
		return agents->pool[--agents->pooled];
	struct coroutine co = { .lua = lua_newthread(agents->vm.lua) };
	co.ref = luaL_ref(agents->vm.lua, LUA_REGISTRYINDEX);
	return co;
}

void run_keep_ended(lua_State *lua)
{
	lua_getglobal(lua, "require");
	lua_pushliteral(lua, "perilune.ended");
	lua_call(lua, 1, 1);
	lua_setfield(lua, LUA_REGISTRYINDEX, ENDED);
}

/* What is suspended may be resumed, as far as Lua knows. */
static void note_ended(lua_State *lua, const struct coroutine *co)
{
	lua_getfield(lua, LUA_REGISTRYINDEX, ENDED);
	lua_rawgeti(lua, LUA_REGISTRYINDEX, co->ref);
	lua_pushboolean(lua, 1);
	lua_rawset(lua, -3);
	lua_pop(lua, 1);
}

/* A coroutine that returned can be started again; one that failed or is suspended cannot. */
static void give_coroutine(struct agents *agents, struct coroutine co, bool reusable)
{
	if (!reusable)
		note_ended(agents->vm.lua, &co);
	if (!reusable || agents->pooled == AGENT_COROUTINES_KEPT) {
		luaL_unref(agents->vm.lua, LUA_REGISTRYINDEX, co.ref);
		return;
	}
	lua_settop(co.lua, 0);
	agents->pool[agents->pooled++] = co;
}

/* ---- a run ---- */

void run_begin(struct agents *agents, struct run *run, struct channel *channel, enum callback callback)
{
	/* Field by field: read_codec is large, and set only where it is used. */
	run->co = take_coroutine(agents);
	run->channel = channel;
	run->by = NULL;
	run->views = false;
	run->callback = callback;
	run->verdict = GUARD_FINE;
	run->wait = WAIT_NONE;
	run->batched = run->resumed = false;
	run->control_ref = LUA_NOREF;
	run->sent = 0;
	run->until_ms = WHEEL_NEVER;
	run->timer = (struct wheel_node){ 0 };
}

void run_end(struct agents *agents, struct run *run, bool failed)
{
	give_coroutine(agents, run->co, !failed);
	if (run->control_ref != LUA_NOREF)
		luaL_unref(agents->vm.lua, LUA_REGISTRYINDEX, run->control_ref);
}

/* The control table goes with the run; the worker gets a new one. */
static void keep_control(struct agents *agents, struct run *run)
{
	lua_State *lua = agents->vm.lua;
	lua_pushvalue(lua, AT_CONTROL);
	run->control_ref = luaL_ref(lua, LUA_REGISTRYINDEX);
	batch_new_control(lua);
	lua_replace(lua, AT_CONTROL);
}

static bool suspend(struct agents *agents, struct run *run)
{
	struct channel *channel = run->channel;
	if (channel->suspended != run) {
		struct run *kept = malloc(sizeof *kept);
		if (!kept)
			return false;
		*kept = *run;
		channel->suspended = run = kept;
		if (run->batched)
			keep_control(agents, run);
		if (run->wait != WAIT_TURN)
			count(&agents->counters->suspensions);
	}
	if (run->until_ms != WHEEL_NEVER)
		wheel_arm(&agents->sleeps, &run->timer, run->until_ms);
	channel->reading = run->wait == WAIT_READ ? &run->read_codec.protocol : NULL;
	channel->flushing = run->wait == WAIT_FLUSH;
	channel_set_busy(channel, true);
	return true;
}

bool run_park(struct agents *agents, struct run *run)
{
	run->wait = WAIT_TURN;
	run->until_ms = agents->host->now_ms;
	return suspend(agents, run);
}

/*
 * A call that the guard ended has the guard's error, whatever the script made of it. One that got a
 * refusal of memory has met the same limit.
 */
static enum outcome run_fail(struct agents *agents, struct run *run, int status, enum guard_verdict verdict)
{
	lua_State *lua = agents->vm.lua;
	if (verdict == GUARD_FINE)
		lua_xmove(run->co.lua, lua, 1);
	else
		guard_push_error(&agents->vm.guard, lua);
	lua_replace(lua, AT_ERROR);
	if (verdict == GUARD_FINE && status == LUA_ERRMEM) {
		verdict = GUARD_MEMORY;
		agents->vm.is_full = true;
	}
	vm_forget_loading(&agents->vm);
	run->verdict = (uint8_t)verdict;
	return RUN_FAILED;
}

/* It has yielded, and cannot be resumed. */
static enum outcome run_abort(struct agents *agents, const char *why)
{
	lua_pushstring(agents->vm.lua, why);
	lua_replace(agents->vm.lua, AT_ERROR);
	return RUN_FAILED;
}

enum outcome run_starve(struct agents *agents, struct run *run)
{
	agents->vm.is_full = true;
	run->verdict = GUARD_MEMORY;
	return run_abort(agents, "not enough memory to call the handler");
}

uint64_t run_progress(void *data)
{
	struct agents *agents = data;
	const struct run *run = agents->vm.is_stepping ? NULL : agents->current;
	return run && run->batched ? batch_index(agents, run) : agents->vm.guard.progressed;
}

/* One that has overrun has had its time: what is left to say and to tidy up gets a tenth. */
static struct vm_budget budget_of(const struct channel *channel)
{
	enum { SHARE = 10, LEAST_MS = 5 };
	struct vm_budget budget = agent_endpoint_of(channel)->budget;
	if (channel->overran && budget.ms > LEAST_MS)
		budget.ms = budget.ms > SHARE * LEAST_MS ? budget.ms / SHARE : LEAST_MS;
	return budget;
}

bool run_abandon(void *data, lua_State *lua)
{
	struct agents *agents = data;
	struct run *run = agents->current;
	if (!run || run->co.lua != lua)
		return false;
	run->wait = WAIT_ENDED;
	return true;
}

enum outcome run_enter(struct agents *agents, struct run *run, int nargs)
{
	assert(!agents->current);
	lua_State *co = run->co.lua;
	agents->current = run;
	run->wait = WAIT_NONE;
	run->until_ms = WHEEL_NEVER;
	struct vm_budget budget = budget_of(run->channel);
	vm_relieve(&agents->vm,
		   callback_may_wait(run->callback)); /* else the agent that fails is still there */
	if (run->batched) {
		agents->vm.guard.progressed = run->resumed ? batch_index(agents, run) : 1;
		if (agents->vm.guard.cut)
			budget.ms = (budget.ms ? budget.ms : GUARD_UNBOUNDED_MS) | GUARD_BATCH;
	}
	ledger_open(agents, run->channel);
	guard_name(&agents->vm.guard, CALLBACKS[run->callback].name, run->channel->id);
	vm_enter(&agents->vm, &budget);
	int status = lua_resume(co, nargs);
	enum guard_verdict verdict = vm_leave(&agents->vm);
	ledger_close(agents);
	agents->current = NULL;
	if (agents->view)
		agents->view->data = NULL;
	/* It came to its end, or to a wait, before the next instruction; it has used too much all the same. */
	bool over = verdict == GUARD_MEMORY || verdict == GUARD_ALLOCATION;
	if (status == 0 && !over)
		return RUN_DONE;
	if (status != LUA_YIELD || run->wait == WAIT_ENDED || over)
		return run_fail(agents, run, status, verdict);
	if (run->wait == WAIT_NONE)
		return run_abort(agents, "coroutine.yield() outside of a coroutine of the handler's own "
					 "(to wait, use perilune.sleep or conn:read)");
	if (!suspend(agents, run))
		return run_abort(agents, "not enough memory to suspend the handler");
	return RUN_SUSPENDED;
}

static void forget_wait(struct channel *channel, struct run *run)
{
	wheel_disarm(&run->timer);
	channel->reading = NULL;
	channel->flushing = false;
}

void run_cancel(struct agents *agents, struct channel *channel)
{
	struct run *run = channel->suspended;
	if (!run)
		return;
	forget_wait(channel, run);
	channel->suspended = NULL;
	channel->busy = false;
	run_end(agents, run, true);
	free(run);
}

void run_leave(struct agents *agents, struct run *run)
{
	struct channel *channel = run->channel;
	free(run);
	if (channel->owes_writable && channel_is_open(channel) && !channel->suspended) {
		channel->owes_writable = false;
		AGENT_HANDLER.writable(channel);
	}
	if (agents->successor)
		agents_migrate(channel);
}

void run_wake(struct agents *agents, struct run *run, int nargs)
{
	struct channel *channel = run->channel;
	forget_wait(channel, run);
	run->resumed = true;
	enum outcome outcome = nargs < 0 ? run_starve(agents, run) : run_enter(agents, run, nargs);
	if (outcome == RUN_SUSPENDED)
		return;
	channel->suspended = NULL;
	channel_set_busy(channel, false);
	if (run->callback == CALL_PROCEED)
		batch_finish(agents, run, outcome);
	else
		callback_finish(agents, run, outcome);
	run_leave(agents, run);
}
