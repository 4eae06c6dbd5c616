#include "agent/task.h"

#include "agent/client.h"
#include "agent/handle.h"
#include "agent/line.h"
#include "agent/sync.h"
#include "agent/timer.h"

#include <stdlib.h>
#include <string.h>

/* ---- the beginning ---- */

/* What a task that was begun before had of its own when something was raised; none of it is in use. */
static struct task *take_unborn(struct agents *agents, lua_State *lua)
{
	struct task *task = agents->unborn;
	if (!task)
		task = calloc(1, sizeof *task);
	if (!task)
		return NULL;
	if (agents->unborn) {
		luaL_unref(lua, LUA_REGISTRYINDEX, task->handle_ref);
		luaL_unref(lua, LUA_REGISTRYINDEX, task->group_ref);
		luaL_unref(lua, LUA_REGISTRYINDEX, task->origin_ref);
	}
	memset(task, 0, sizeof *task);
	task->handle_ref = task->group_ref = task->origin_ref = LUA_NOREF;
	agents->unborn = task;
	return task;
}

static bool is_users(const lua_Debug *frame)
{
	return *frame->what != 'C' && *frame->source == '@' && !strstr(frame->source, "/lua/perilune/");
}

enum { ORIGIN_LEVELS = 12, ORIGIN_BYTES = 480 };

/* MAY RAISE. Pushes where in the script it was begun, a line; and below that, where that task was begun. */
static void push_origin(lua_State *lua, const struct run *by)
{
	lua_Debug frame;
	bool found = false;
	for (int level = 1; level < ORIGIN_LEVELS && !found && lua_getstack(lua, level, &frame); level++)
		found = lua_getinfo(lua, "Sl", &frame) && is_users(&frame) && frame.currentline > 0;
	if (found)
		lua_pushfstring(lua, "%s:%d", frame.source + 1, frame.currentline);
	else
		lua_pushliteral(lua, "");
	if (!by || !by->is_task)
		return;
	lua_rawgeti(lua, LUA_REGISTRYINDEX, ((const struct task *)(const void *)by)->origin_ref);
	if (lua_objlen(lua, -1) + lua_objlen(lua, -2) > ORIGIN_BYTES) {
		lua_pop(lua, 1);
		return;
	}
	lua_pushliteral(lua, "\n");
	lua_insert(lua, -2);
	lua_concat(lua, 3);
}

/* MAY RAISE. Pushes a handle of that id. */
static void push_handle(lua_State *lua, uint64_t id, int meta)
{
	lua_createtable(lua, TASK_HANDLE_COUNT, 0);
	lua_pushnumber(lua, handle_seal(lua_topointer(lua, -1), id | HANDLE_OF_TASK));
	lua_rawseti(lua, -2, HANDLE_AT);
	lua_pushvalue(lua, meta);
	lua_setmetatable(lua, -2);
}

static void link_task(struct work *work, struct task *task)
{
	task->work = work;
	task->prev = work->last;
	*(work->last ? &work->last->next : &work->first) = task;
	work->last = task;
	work->task_count++;
}

static void unlink_task(struct task *task)
{
	struct work *work = task->work;
	*(task->prev ? &task->prev->next : &work->first) = task->next;
	*(task->next ? &task->next->prev : &work->last) = task->prev;
	work->task_count--;
}

static uint64_t new_serial(struct agents *agents)
{
	return ++agents->last_serial;
}

/* A call may be running, this one perhaps, so all that touches the VM is left to task_go_on(). */
static void task_mark_cancelled(struct agents *agents, struct task *task)
{
	struct run *run = &task->run;
	task->stage = TASK_ENDING;
	task->is_cancelled = true;
	if (run == agents->current)
		return; /* when it waits: suspend() */
	if (run->wait == WAIT_LINE) {
		line_call(agents, run, 0, GIFT_NONE);
	} else if (run->wait != WAIT_READY) {
		struct errand *errand = run->wait == WAIT_ERRAND ? run->errand : NULL;
		run_forget_wait(agents, run);
		line_ready(agents, run, 0);
		if (errand)
			errand->ops->abandon(errand);
	}
}

/* So that run_begin() needs no memory: what raises there would unwind a stack that is not running. */
static void pool_coroutine(struct agents *agents, lua_State *lua)
{
	if (agents->pooled)
		return;
	struct coroutine co = { .lua = lua_newthread(lua) };
	co.ref = luaL_ref(lua, LUA_REGISTRYINDEX);
	agents->pool[agents->pooled++] = co;
}

void task_begin(lua_State *lua, struct channel *channel, int nargs, int meta, int group)
{
	struct agents *agents = agents_of(lua);
	struct work *work = work_begin(agents, channel);
	struct task *task = work ? take_unborn(agents, lua) : NULL;
	if (!task) {
		luaL_error(lua, "not enough memory for another task");
		abort();
	}
	if (work->task_count >= WORK_TASKS_MAX)
		luaL_error(lua, "there are %d tasks already, which is the most", WORK_TASKS_MAX);
	uint64_t id = new_serial(agents);
	push_handle(lua, id, meta);
	lua_pushvalue(lua, -1);
	task->handle_ref = luaL_ref(lua, LUA_REGISTRYINDEX);
	push_origin(lua, agents->current);
	task->origin_ref = luaL_ref(lua, LUA_REGISTRYINDEX);
	if (group) {
		lua_pushvalue(lua, group);
		task->group_ref = luaL_ref(lua, LUA_REGISTRYINDEX);
	}
	pool_coroutine(agents, lua);
	run_begin(agents, &task->run, channel, CALL_TASK);
	if (idmap_put(&agents->tasks, id, task)) {
		run_end(agents, &task->run, false);
		luaL_error(lua, "not enough memory for another task");
	}
	agents->unborn = NULL;
	lua_insert(lua, -2 - nargs); /* the handle stays, below */
	lua_xmove(lua, task->run.co.lua, nargs + 1);
	task->run.is_task = true;
	task->run.deadline_ms = WHEEL_NEVER; /* perilune.timeout() is for tasks */
	task->run.serial = id;
	bool is_child = agents->current && agents->current->is_task && agents->current->channel == channel;
	task->parent = is_child ? agents->current->serial : 0;
	if (is_child)
		task_of(agents->current)->children++;
	link_task(work, task);
	line_ready(agents, &task->run, nargs);
	if (is_child && task_of(agents->current)->stage != TASK_LIVE)
		task_mark_cancelled(agents, task); /* as it would be, had it begun before */
}

struct task *task_check(lua_State *lua, int idx)
{
	lua_rawgeti(lua, idx, HANDLE_AT);
	uint64_t id = lua_type(lua, -1) == LUA_TNUMBER
			  ? handle_open_task(lua_topointer(lua, idx), lua_tonumber(lua, -1))
			  : 0;
	lua_pop(lua, 1);
	return id ? idmap_get(&agents_of(lua)->tasks, id) : NULL;
}

/* ---- what it came to ---- */

struct keeping {
	struct task *task;
	enum outcome
	    outcome; /* RUN_DONE: its results are on its coroutine; RUN_FAILED: its error is the second argument */
};

/*
 * MAY RAISE. The handle is on top of the stack. Returns how many results there are. Nothing is pushed on their coroutine,
 * whose stack may be full.
 */
static int keep_results(lua_State *lua, lua_State *co)
{
	int n = lua_gettop(co), handle = lua_gettop(lua);
	luaL_checkstack(lua, n + 2, "too many results of a task");
	lua_xmove(co, lua, n);
	for (int i = 1; i <= n; i++) {
		lua_pushvalue(lua, handle + i);
		lua_rawseti(lua, handle, TASK_HANDLE_FIRST - 1 + i);
	}
	lua_settop(lua, handle);
	return n;
}

static int keep_error(lua_State *lua, const struct task *task, int error)
{
	lua_pushvalue(lua, error);
	lua_rawseti(lua, -2, TASK_HANDLE_FIRST);
	lua_rawgeti(lua, LUA_REGISTRYINDEX, task->run.co.ref);
	lua_rawseti(lua, -2, TASK_HANDLE_THREAD);
	lua_rawgeti(lua, LUA_REGISTRYINDEX, task->origin_ref);
	lua_rawseti(lua, -2, TASK_HANDLE_ORIGIN);
	return 1;
}

/* keeping, error. Runs protected. The handle does not say yet that the task has ended. */
static int l_keep(lua_State *lua)
{
	const struct keeping *keeping = lua_touserdata(lua, 1);
	struct task *task = keeping->task;
	lua_rawgeti(lua, LUA_REGISTRYINDEX, task->handle_ref);
	int n = keeping->outcome == RUN_DONE ? keep_results(lua, task->run.co.lua) : keep_error(lua, task, 2);
	lua_pushinteger(lua, n);
	lua_rawseti(lua, -2, TASK_HANDLE_COUNT);
	return 0;
}

static const struct vm_budget KEEPING_BUDGET = { 0 };

/* False: there was no memory for it, which is at AT_ERROR now. */
static bool keep(struct agents *agents, struct task *task, enum outcome outcome)
{
	lua_State *lua = agents->vm.lua;
	struct keeping keeping = { task, outcome };
	lua_pushcfunction(lua, l_keep);
	lua_pushlightuserdata(lua, &keeping);
	lua_pushvalue(lua, AT_ERROR);
	if (!vm_pcall(&agents->vm, lua, 2, 0, &KEEPING_BUDGET))
		return true;
	lua_replace(lua, AT_ERROR);
	return false;
}

/* Runs protected: the group gets the handle. */
static int l_join_group(lua_State *lua)
{
	const struct task *task = lua_touserdata(lua, 1);
	lua_rawgeti(lua, LUA_REGISTRYINDEX, task->group_ref);
	lua_rawgeti(lua, LUA_REGISTRYINDEX, task->handle_ref);
	lua_rawseti(lua, -2, (int)lua_objlen(lua, -2) + 1);
	return 0;
}

/* All who wait in the line of what `ref` leads to go on. */
static void wake_line(struct agents *agents, int ref)
{
	lua_State *lua = agents->vm.lua;
	struct run *run;
	if (ref == LUA_NOREF)
		return;
	lua_rawgeti(lua, LUA_REGISTRYINDEX, ref);
	while ((run = line_first(line_of(lua, -1)))) {
		lua_pushboolean(run->co.lua, 1);
		line_call(agents, run, 1, GIFT_NONE);
	}
	lua_pop(lua, 1);
}

static const char *task_state(const struct task *task)
{
	return task->is_cancelled ? "cancelled" : task->has_failed ? "failed" : "done";
}

/* What it has deferred has run: it has ended, for whoever waits for that. */
static void tell(struct agents *agents, struct task *task)
{
	lua_State *lua = agents->vm.lua;
	if (task->is_told)
		return;
	task->is_told = true;
	lua_rawgeti(lua, LUA_REGISTRYINDEX, task->handle_ref);
	lua_pushstring(lua, task_state(task)); /* its place is there: push_handle() */
	lua_rawseti(lua, -2, TASK_HANDLE_STATE);
	lua_pop(lua, 1);
	if (task->group_ref != LUA_NOREF) {
		lua_pushcfunction(lua, l_join_group);
		lua_pushlightuserdata(lua, task);
		if (vm_pcall(&agents->vm, lua, 1, 0, &KEEPING_BUDGET))
			lua_pop(lua, 1); /* who waits for the group is woken, and finds no memory itself */
	}
	wake_line(agents, task->handle_ref);
	wake_line(agents, task->group_ref);
}

/* ---- the end ---- */

static void task_free(struct agents *agents, struct task *task)
{
	lua_State *lua = agents->vm.lua;
	wheel_disarm(&task->run.place.node);
	unlink_task(task);
	idmap_remove(&agents->tasks, task->run.serial);
	luaL_unref(lua, LUA_REGISTRYINDEX, task->handle_ref);
	luaL_unref(lua, LUA_REGISTRYINDEX, task->group_ref);
	luaL_unref(lua, LUA_REGISTRYINDEX, task->origin_ref);
	free(task);
}

static void run_task_defer(struct agents *agents, struct task *task)
{
	struct run run;
	run_begin(agents, &run, task->run.channel, CALL_DEFER);
	lua_xmove(agents->vm.lua, run.co.lua, 1);
	enum outcome outcome = run_enter(agents, &run, 0);
	if (outcome == RUN_FAILED)
		fault_raise(agents, &run);
	run_end(agents, &run, outcome == RUN_FAILED);
	if (run.verdict != GUARD_FINE) /* each would cost the others as much again */
		agent_drop_defers_of(agents, -(lua_Number)task->run.serial);
}

/* The latest first. False: there are more of them, and the turn is over. */
static bool run_task_defers(struct agents *agents, struct task *task, uint64_t began_ticks, bool is_urgent)
{
	lua_State *lua = agents->vm.lua;
	while (task->has_defers) {
		if (!is_urgent && channel_turn_is_over(task->run.channel, began_ticks))
			return false;
		lua_settop(lua, AT_TOP);
		lua_pushvalue(lua, AT_TAKE_DEFER);
		lua_pushnumber(lua, -(lua_Number)task->run.serial);
		task->has_defers = !lua_pcall(lua, 1, 1, 0) && !lua_isnil(lua, -1);
		if (task->has_defers)
			run_task_defer(agents, task);
		lua_settop(lua, AT_TOP);
	}
	return true;
}

void task_stop(struct agents *agents, struct task *task)
{
	if (task->run.co.lua && (task->stage == TASK_LIVE || task->is_cancelled)) {
		run_forsake(agents, &task->run);
		run_end(agents, &task->run, true);
		task->run.co.lua = NULL;
		task->is_cancelled = true;
		task->stage = TASK_ENDING;
	}
}

static void queue_task(struct agents *agents, struct task *task)
{
	if (!wheel_armed(&task->run.place.node))
		line_ready(agents, &task->run, 0);
}

/* One that is over, but for its deferred functions, has no more say: who has begun it counts. */
static bool is_below(struct agents *agents, const struct task *each, const struct task *cancelled)
{
	const struct task *parent = each;
	do {
		parent = parent->parent ? idmap_get(&agents->tasks, parent->parent) : NULL;
		if (parent && (parent == cancelled || parent->is_cancelled))
			return true;
	} while (parent && parent->stage != TASK_LIVE);
	return false;
}

/* Those that it has begun lie behind it, and theirs behind them. */
static void cancel_children(struct agents *agents, const struct task *task)
{
	for (struct task *each = task->children ? task->next : NULL; each; each = each->next)
		if (each->stage == TASK_LIVE && is_below(agents, each, task))
			task_mark_cancelled(agents, each);
}

/* Those of a task that is over are now those of the one that has begun it, if it is a task. */
static void bequeath_children(struct agents *agents, const struct task *task)
{
	struct task *parent = task->parent ? idmap_get(&agents->tasks, task->parent) : NULL;
	if (parent)
		parent->children += task->children - 1;
	for (struct task *each = task->children ? task->next : NULL; each; each = each->next)
		if (each->parent == task->run.serial)
			each->parent = parent ? task->parent : 0;
}

void task_cancel(struct agents *agents, struct task *task)
{
	if (task->stage != TASK_LIVE)
		return;
	task_mark_cancelled(agents, task);
	cancel_children(agents, task);
}

void task_dismiss(struct agents *agents, struct task *task)
{
	task->is_subsumed = true;
	task_cancel(agents, task);
	if (task->stage == TASK_FAULTY)
		queue_task(agents, task);
}

/* It is over: frees it. Its agent may migrate now. */
static void task_leave(struct agents *agents, struct task *task)
{
	struct channel *channel = task->run.channel;
	tell(agents, task);
	sync_release_held(agents, task->run.serial);
	if (task->run.has_leases)
		client_end_leases(agents, channel, task->run.serial);
	if (task->run.co.lua)
		run_end(agents, &task->run, true);
	bequeath_children(agents, task);
	task_free(agents, task);
	if (agents->successor && !work_is_apps(channel))
		agents_migrate(channel);
}

/* Pushes its error to where fault_raise() finds it. */
static void take_error(struct agents *agents, const struct task *task)
{
	lua_State *lua = agents->vm.lua;
	lua_rawgeti(lua, LUA_REGISTRYINDEX, task->handle_ref);
	lua_rawgeti(lua, -1, TASK_HANDLE_FIRST);
	lua_replace(lua, AT_ERROR);
	lua_pop(lua, 1);
}

/* Nobody has taken its fault, and nobody will. */
static void blame_agent(struct agents *agents, struct task *task)
{
	take_error(agents, task);
	if (task->is_subsumed)
		fault_note(agents, &task->run);
	else
		fault_raise(agents, &task->run);
}

/*
 * Does somebody wait for it? Who does is told now, and before it in agents->ready: it comes again behind them, to see
 * whether its fault was taken.
 */
static bool may_be_taken(struct agents *agents, struct task *task)
{
	lua_State *lua = agents->vm.lua;
	if (task->is_told || task->is_subsumed)
		return false;
	lua_rawgeti(lua, LUA_REGISTRYINDEX, task->handle_ref);
	bool is_awaited = line_first(line_of(lua, -1)) || task->group_ref != LUA_NOREF;
	lua_pop(lua, 1);
	tell(agents, task);
	wheel_disarm(&task->run.place.node); /* whatever its place was: behind all of them */
	if (is_awaited)
		line_ready(agents, &task->run, 0);
	return is_awaited;
}

void task_go_on(struct agents *agents, struct task *task)
{
	if (task->is_cancelled && task->run.co.lua)
		task_stop(agents, task);
	if (!run_task_defers(agents, task, task->run.channel->handler_ticks, false)) {
		queue_task(agents, task);
		return;
	}
	if (task->stage == TASK_FAULTY && may_be_taken(agents, task))
		return;
	if (task->stage == TASK_FAULTY)
		blame_agent(agents, task);
	task_leave(agents, task);
}

/* Whoever joins it, and catches that, might have it happen again and again: it ends the agent, as it does in a call. */
static bool is_ended_from_outside(const struct task *task)
{
	return task->run.verdict != GUARD_FINE;
}

static void task_fail(struct agents *agents, struct task *task)
{
	task->has_failed = true;
	if (keep(agents, task, RUN_FAILED) && !is_ended_from_outside(task))
		task->stage = TASK_FAULTY;
	else
		fault_raise(agents, &task->run);
	if (task->timer && task->run.verdict == GUARD_CPU)
		timer_give_up(agents, task->timer);
	cancel_children(agents, task);
}

void task_finish(struct agents *agents, struct task *task, enum outcome outcome)
{
	task->stage = TASK_ENDING;
	task->is_cancelled = false; /* whoever has done so: it has come to its end */
	if (outcome == RUN_DONE && !keep(agents, task, RUN_DONE)) {
		task->run.verdict = GUARD_MEMORY;
		outcome = RUN_FAILED;
	}
	if (outcome == RUN_FAILED) {
		task_fail(agents, task);
	} else {
		run_end(agents, &task->run, false);
		task->run.co.lua = NULL;
	}
	task_go_on(agents, task);
}

bool task_end_with_agent(struct agents *agents, struct task *task, uint64_t began_ticks, bool is_urgent)
{
	if (!run_task_defers(agents, task, began_ticks, is_urgent))
		return false;
	if (task->stage == TASK_FAULTY) {
		take_error(agents, task);
		fault_note(agents, &task->run);
	}
	task_leave(agents, task);
	return true;
}

void task_take_fault(struct agents *agents, struct task *task)
{
	if (task->stage != TASK_FAULTY)
		return;
	task->stage = TASK_ENDING;
	queue_task(agents, task);
}
