#include "agent/run.h"

#include "agent/client.h"
#include "agent/forward.h"
#include "agent/http.h"
#include "agent/ledger.h"
#include "agent/line.h"
#include "agent/member.h"
#include "agent/recipient.h"
#include "agent/sync.h"
#include "agent/task.h"

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
	[CALL_TIMER] = { "timer", true },
	[CALL_MESSAGE] = { "message", true },
	[CALL_HEARD] = { "message", true },
	[CALL_TASK] = { "task", true },
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
	lua_setfield(lua, LUA_REGISTRYINDEX, RUN_ENDED);
}

/* What is suspended may be resumed, as far as Lua knows. */
static void note_ended(lua_State *lua, const struct coroutine *co)
{
	lua_getfield(lua, LUA_REGISTRYINDEX, RUN_ENDED);
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
	run->forwards = NULL;
	run->by = NULL;
	run->views = false;
	run->callback = (uint8_t)callback;
	run->verdict = GUARD_FINE;
	run->wait = WAIT_NONE;
	run->batched = run->resumed = run->is_task = run->is_overdue = run->has_leases = false;
	run->reads_messages = run->is_amid = run->has_torn = false;
	run->serial = 0;
	run->control_ref = LUA_NOREF;
	run->sent = 0;
	run->until_ms = WHEEL_NEVER;
	run->timer = (struct wheel_node){ 0 };
	run->at = channel;
}

/* What it has taken goes back with it, and nobody waits for replies of its own. */
static void end_held(struct agents *agents, struct run *run)
{
	if (run->serial && !run->is_task) {
		sync_release_held(agents, run->serial);
		if (run->has_leases)
			client_end_leases(agents, run->channel, run->serial);
	}
	if (run->forwards)
		forward_end(agents, run);
}

void run_end_slowly(struct agents *agents, struct run *run, bool failed)
{
	give_coroutine(agents, run->co, !failed);
	end_held(agents, run);
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

/* It waits for a connection out, which is its agent's. */
static bool waits_elsewhere(const struct run *run)
{
	return run->at != run->channel;
}

static void begin_flush(struct run *run)
{
	run->at->flushing = true;
	if (run->is_task && !waits_elsewhere(run))
		task_of(run)->work->flushing++;
}

/* Who has ended is told of it, and may tell others that wait: client.c. */
static void forget_flush(struct agents *agents, struct run *run)
{
	if (waits_elsewhere(run))
		return;
	if (run->is_task)
		task_of(run)->work->flushing--;
	run->channel->flushing = work_is_flushing(agents, run->channel);
}

static void begin_read(struct run *run)
{
	struct channel *at = run->at;
	at->reading = run->reads_messages ? conn_speaks(at->conn) : &run->read_codec.protocol;
	if (waits_elsewhere(run)) {
		client_of(at)->reader = run;
		client_of(at)->is_owing = true;
		channel_set_busy(at, true); /* there may be frames at hand */
	} else if (run->is_task) {
		task_of(run)->work->reader = run;
		channel_set_busy(at, at->busy);
	}
}

static void forget_read(struct run *run)
{
	struct channel *at = run->at;
	at->reading = NULL;
	if (waits_elsewhere(run)) {
		client_of(at)->reader = NULL;
	} else if (run->is_task) {
		task_of(run)->work->reader = NULL;
		channel_set_busy(at, at->busy); /* frames are proceed's again */
	}
}

/* What it waits for will find it. */
static void begin_wait(struct agents *agents, struct run *run)
{
	uint64_t due_ms = run->until_ms < run->deadline_ms ? run->until_ms : run->deadline_ms;
	run->since_ms = agents->host->now_ms;
	if (due_ms != WHEEL_NEVER)
		wheel_arm(&agents->sleeps, &run->timer, due_ms);
	if (run->wait == WAIT_READ)
		begin_read(run);
	else if (run->wait == WAIT_FLUSH)
		begin_flush(run);
	else if (run->wait == WAIT_ERRAND)
		run->errand->run = run;
	else if (run->wait == WAIT_LINE)
		line_enter(run);
}

/* It was cancelled in the call that now waits, by itself or by one that it has begun. */
static bool is_cancelled_task(struct run *run)
{
	return run->is_task && task_of(run)->stage != TASK_LIVE;
}

static void suspend_task(struct agents *agents, struct run *run)
{
	begin_wait(agents, run);
	if (is_cancelled_task(run)) {
		run_forsake(agents, run);
		line_ready(agents, run, 0);
	}
}

/* timeout.proceed: since the events were read that it is about. */
static uint64_t call_deadline(const struct agents *agents, const struct channel *channel)
{
	uint32_t ms = agent_endpoint_of(channel)->proceed_ms;
	return ms ? agents->host->now_ms + ms : WHEEL_NEVER;
}

static bool suspend(struct agents *agents, struct run *run)
{
	struct channel *channel = run->channel;
	if (run->is_task) {
		suspend_task(agents, run);
		return true;
	}
	if (channel->suspended != run) {
		struct run *kept = malloc(sizeof *kept);
		if (!kept)
			return false;
		*kept = *run;
		channel->suspended = run = kept;
		run->deadline_ms = call_deadline(agents, channel);
		if (run->forwards)
			run->forwards->run = run;
		if (run->batched && run->wait != WAIT_OWED)
			keep_control(agents, run);
		if (!run_has_returned(run))
			count(&agents->counters->suspensions);
	}
	begin_wait(agents, run);
	channel_set_busy(channel, true);
	return true;
}

bool run_park(struct agents *agents, struct run *run)
{
	run->wait = WAIT_TURN;
	run->until_ms = agents->host->now_ms;
	return suspend(agents, run);
}

bool run_hold(struct agents *agents, struct run *run, uint64_t until_ms)
{
	run->wait = WAIT_OWED;
	run->until_ms = until_ms;
	if (!suspend(agents, run))
		return false;
	run->channel->owed = true;
	return true;
}

void run_hold_until(struct agents *agents, struct run *run, uint64_t until_ms)
{
	run->until_ms = until_ms;
	begin_wait(agents, run);
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

/* It was about to wait, and fails instead. */
static void forget_beginning(struct agents *agents, struct run *run)
{
	if (run->wait == WAIT_LINE)
		line_leave(agents, run);
	else if (run->wait == WAIT_ERRAND)
		run->errand->ops->abandon(run->errand);
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
	if (__builtin_expect(over, 0))
		forget_beginning(agents, run);
	if (status != LUA_YIELD || run->wait == WAIT_ENDED || over)
		return run_fail(agents, run, status, verdict);
	if (run->wait == WAIT_NONE)
		return run_abort(agents, "coroutine.yield() outside of a coroutine of the handler's own "
					 "(to wait, use perilune.sleep or conn:read)");
	if (!suspend(agents, run)) {
		forget_beginning(agents, run);
		return run_abort(agents, "not enough memory to suspend the handler");
	}
	return RUN_SUSPENDED;
}

static bool is_placed(const struct run *run)
{
	return run->wait == WAIT_LINE || run->wait == WAIT_READY;
}

void run_forget_wait(struct agents *agents, struct run *run)
{
	enum wait wait = (enum wait)run->wait;
	wheel_disarm(&run->timer);
	if (is_placed(run))
		line_leave(agents, run);
	run->wait = WAIT_NONE;
	if (wait == WAIT_READ)
		forget_read(run);
	else if (wait == WAIT_FLUSH)
		forget_flush(agents, run);
	else if (wait == WAIT_ERRAND)
		run->errand->run = NULL;
}

void run_forsake(struct agents *agents, struct run *run)
{
	struct errand *errand = run->wait == WAIT_ERRAND ? run->errand : NULL;
	if (is_placed(run))
		line_forsake(agents, run);
	run->wait = is_placed(run) ? WAIT_NONE : run->wait;
	run_forget_wait(agents, run);
	if (run->is_amid)
		pieces_forsake(run->channel, run->has_torn);
	run->is_amid = false;
	if (errand)
		errand->ops->abandon(errand);
}

void run_cancel(struct agents *agents, struct channel *channel)
{
	struct run *run = channel->suspended;
	if (!run)
		return;
	run_forsake(agents, run);
	channel->suspended = NULL;
	channel->busy = false;
	run_end(agents, run, true);
	free(run);
}

void run_leave(struct agents *agents, struct run *run)
{
	struct channel *channel = run->channel;
	free(run);
	if (channel->has_work)
		work_catch_up(agents, channel);
	if (channel->has_post)
		recipient_catch_up(channel);
	if (channel->has_hub)
		member_catch_up(channel);
	if (channel->owes_writable && channel_is_open(channel) && !channel->suspended) {
		channel->owes_writable = false;
		AGENT_HANDLER.writable(channel);
	}
	if (agents->successor)
		agents_migrate(channel);
}

/* A call that had been suspended has come to an end, or failed. */
static void run_is_over(struct agents *agents, struct run *run, enum outcome outcome)
{
	struct channel *channel = run->channel;
	if (run->is_task) {
		task_finish(agents, task_of(run), outcome);
		return;
	}
	channel->suspended = NULL;
	channel_set_busy(channel, false);
	if (run->callback == CALL_PROCEED)
		batch_finish(agents, run, outcome);
	else
		callback_finish(agents, run, outcome);
	run_leave(agents, run);
}

void run_wake(struct agents *agents, struct run *run, int nargs)
{
	run_forget_wait(agents, run);
	run->resumed = true;
	enum outcome outcome = nargs < 0 ? run_starve(agents, run) : run_enter(agents, run, nargs);
	if (outcome != RUN_SUSPENDED)
		run_is_over(agents, run, outcome);
}

void run_fail_read(struct agents *agents, struct run *run, const char *message, const char *code)
{
	lua_pushnil(run->co.lua);
	lua_pushstring(run->co.lua, message);
	lua_pushstring(run->co.lua, code);
	run_wake(agents, run, 3);
}

void run_expire(struct agents *agents, struct run *run)
{
	lua_State *lua = agents->vm.lua;
	lua_pushfstring(lua, "it took over %f s, its waits included (timeout.proceed)",
			(lua_Number)agent_endpoint_of(run->channel)->proceed_ms / 1000);
	lua_replace(lua, AT_ERROR);
	bool has_returned = run_has_returned(run);
	run_forsake(agents, run);
	run->resumed = run->is_overdue = true;
	if (has_returned)
		batch_fail(agents, run);
	else
		run_is_over(agents, run, RUN_FAILED);
}

/* ---- errands ---- */

struct run *errand_take(struct agents *agents, struct errand *errand)
{
	struct run *run = errand->run;
	run_forget_wait(agents, run);
	run->place = (struct line_place){ 0 };
	return run;
}

int errand_wait(lua_State *lua, struct run *run, struct errand *errand, uint32_t ms)
{
	run->wait = WAIT_ERRAND;
	run->errand = errand;
	run->until_ms = ms ? conn_host_after(agents_of(lua)->host, ms) : WHEEL_NEVER;
	return lua_yield(lua, 0);
}

void errand_time_out(struct agents *agents, struct run *run)
{
	struct errand *errand = run->errand;
	char text[ERRAND_TEXT_BYTES] = "timeout";
	if (errand->ops->explain)
		errand->ops->explain(errand, text, sizeof text);
	if (errand->ops->is_late)
		errand->ops->is_late(errand);
	run_forget_wait(agents, run);
	errand->ops->abandon(errand);
	lua_pushnil(run->co.lua);
	lua_pushstring(run->co.lua, text);
	lua_pushliteral(run->co.lua, "ETIMEDOUT");
	run_wake(agents, run, 3);
}
