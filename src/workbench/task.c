/* Coroutines that may wait, one within the other. */
#include "workbench/bench.h"

#include <stdlib.h>
#include <string.h>

struct task {
	struct task *outer;
	lua_State *co;
	int ref;
	uint32_t limit_ms;    /* 0: none */
	uint64_t deadline_ms; /* by the loop's clock */
};

/* How a task has ended. */
enum task_end { TASK_DONE, TASK_FAILED, TASK_TIMED_OUT, TASK_DEADLOCKED };

static const char *const END_NAMES[] = { "done", "error", "timeout", "deadlock" };

/* ---- functions of Lua ---- */

static struct bench *check_task(lua_State *lua, const char *what)
{
	struct bench *bench = bench_of(lua);
	if (!bench->task || bench->task->co != lua)
		luaL_error(lua, "%s: cannot wait inside a coroutine of the specification's own", what);
	return bench;
}

/*
 * MAY RAISE, MAY YIELD. call(limit_ms, fn, …): runs fn(…) as a task of its own, which has so much time (0: any).
 * Returns how that has ended, for results().
 */
static int l_call(lua_State *lua)
{
	struct bench *bench = check_task(lua, "call");
	lua_Number limit_ms = luaL_checknumber(lua, 1);
	luaL_argcheck(lua, limit_ms >= 0 && limit_ms <= GUARD_BUDGET_MAX_MS, 1, "milliseconds expected");
	luaL_checktype(lua, 2, LUA_TFUNCTION);
	int n = lua_gettop(lua) - 1;
	lua_State *co = lua_newthread(lua);
	lua_insert(lua, 2);
	if (!vm_make_stack(&bench->vm, co, n))
		return luaL_error(lua, "not enough memory");
	struct task *task = malloc(sizeof *task);
	if (!task)
		return luaL_error(lua, "not enough memory");
	*task = (struct task){ .co = co, .limit_ms = (uint32_t)limit_ms, .ref = LUA_NOREF };
	bench->called = task;
	lua_xmove(lua, co, n);
	lua_settop(lua, 2);
	return lua_yield(lua, 1); /* the coroutine, to be kept */
}

/*
 * MAY RAISE. results(call(…)) → true and what the function returned; or false, "error" | "timeout" | "deadlock", the
 * message or where it was, and a traceback. Apart from call(), which is resumed outside of any protection: as many
 * values as a function may return need not fit on the stack.
 */
static int l_results(lua_State *lua)
{
	lua_State *co = lua_tothread(lua, 1);
	if (!co)
		return luaL_argerror(lua, 1, "what call() returns is expected");
	const char *how = luaL_checkstring(lua, 2);
	if (!strcmp(how, END_NAMES[TASK_DONE])) {
		int n = lua_gettop(co);
		luaL_checkstack(lua, n + 1, "results");
		lua_pushboolean(lua, 1);
		lua_xmove(co, lua, n);
		return n + 1;
	}
	lua_pushboolean(lua, 0);
	lua_pushstring(lua, how);
	if (!strcmp(how, END_NAMES[TASK_FAILED]))
		lua_xmove(co, lua, 1);
	else
		lua_pushvalue(lua, 3);
	luaL_traceback(lua, co, NULL, 0);
	return 4;
}

/* MAY RAISE, MAY YIELD. wait(ms) → true: something has happened on the loop; false: it has not, for so long */
static int l_wait(lua_State *lua)
{
	struct bench *bench = check_task(lua, "wait");
	lua_Number ms = luaL_checknumber(lua, 1);
	luaL_argcheck(lua, ms >= 0 && ms <= 1e12, 1, "milliseconds expected");
	bench->waits = true;
	bench->wait_ms = (uint64_t)ms;
	return lua_yield(lua, 0);
}

static const luaL_Reg FUNCTIONS[] = {
	{ "call", l_call }, { "results", l_results }, { "wait", l_wait }, { NULL, NULL }
};

void task_push_functions(lua_State *lua)
{
	lua_newtable(lua);
	luaL_register(lua, NULL, FUNCTIONS);
}

/* ---- waiting ---- */

static void task_on_timer(uv_timer_t *timer)
{
	struct bench *bench = timer->data;
	bench->timed_out = true;
}

enum waited { WAITED_EVENT, WAITED_ENOUGH, WAITED_TOO_LONG };

static enum waited wait_for_events(struct bench *bench, const struct task *task)
{
	unsigned events = bench->events;
	uv_update_time(&bench->loop);
	uint64_t now_ms = uv_now(&bench->loop), until_ms = now_ms + bench->wait_ms;
	bool too_long = task->limit_ms && task->deadline_ms < until_ms;
	if (too_long)
		until_ms = task->deadline_ms;
	bench->timed_out = false;
	uv_timer_start(&bench->timer, task_on_timer, until_ms > now_ms ? until_ms - now_ms : 0, 0);
	while (bench->events == events && !bench->timed_out)
		uv_run(&bench->loop, UV_RUN_ONCE);
	uv_timer_stop(&bench->timer);
	if (bench->events != events)
		return WAITED_EVENT;
	return too_long ? WAITED_TOO_LONG : WAITED_ENOUGH;
}

/* ---- running ---- */

static void task_begin(struct bench *bench, struct task *task)
{
	task->outer = bench->task;
	task->deadline_ms = 0;
	if (task->limit_ms) {
		uv_update_time(&bench->loop);
		task->deadline_ms = uv_now(&bench->loop) + task->limit_ms;
	}
	bench->task = task;
}

/* The called coroutine is what its caller has yielded. */
static void begin_called(struct bench *bench)
{
	struct task *task = bench->called;
	lua_State *caller = bench->task->co;
	bench->called = NULL;
	lua_xmove(caller, bench->vm.lua, 1);
	task->ref = luaL_ref(bench->vm.lua, LUA_REGISTRYINDEX);
	task_begin(bench, task);
}

/* Hands what came of the task on top to the one below, for l_results(): how many values. The task is freed. */
static int task_end(struct bench *bench, enum task_end how, const char *place)
{
	struct task *task = bench->task;
	lua_State *to = task->outer->co;
	lua_rawgeti(to, LUA_REGISTRYINDEX, task->ref);
	lua_pushstring(to, END_NAMES[how]);
	lua_pushstring(to, place);
	luaL_unref(bench->vm.lua, LUA_REGISTRYINDEX, task->ref);
	bench->task = task->outer;
	free(task);
	return 3;
}

static int task_resume(struct bench *bench, const struct task *task, int nargs, enum guard_verdict *verdict)
{
	struct vm_budget budget = { .ms = task->limit_ms };
	vm_enter(&bench->vm, &budget);
	int status = lua_resume(task->co, nargs);
	*verdict = vm_leave(&bench->vm);
	return status;
}

/* What a task that has yielded asks for: how many values it is resumed with. */
static int task_serve(struct bench *bench)
{
	struct task *task = bench->task;
	if (bench->called) {
		begin_called(bench);
		return lua_gettop(bench->task->co) - 1;
	}
	if (!bench->waits)
		return task_end(bench, TASK_DEADLOCKED, "");
	bench->waits = false;
	enum waited waited = wait_for_events(bench, task);
	if (waited == WAITED_TOO_LONG)
		return task_end(bench, TASK_TIMED_OUT, "");
	lua_pushboolean(task->co, waited == WAITED_EVENT);
	return 1;
}

/* Forgets what a task that failed had asked for: an error may come from within the asking. */
static void forget_request(struct bench *bench)
{
	free(bench->called);
	bench->called = NULL;
	bench->waits = false;
}

bool task_run_main(struct bench *bench, int nargs)
{
	lua_State *lua = bench->vm.lua;
	struct task first = { .co = lua_newthread(lua) };
	first.ref = luaL_ref(lua, LUA_REGISTRYINDEX);
	if (!vm_make_stack(&bench->vm, first.co, nargs + 1)) {
		lua_pushliteral(lua, "not enough memory");
		return false;
	}
	lua_xmove(lua, first.co, nargs + 1);
	task_begin(bench, &first);
	for (;;) {
		enum guard_verdict verdict;
		int status = task_resume(bench, bench->task, nargs, &verdict);
		if (status == LUA_YIELD && !(bench->task == &first && !bench->called && !bench->waits)) {
			nargs = task_serve(bench);
			continue;
		}
		forget_request(bench);
		if (bench->task == &first) {
			if (status == LUA_YIELD)
				lua_pushliteral(lua, "coroutine.yield() outside of a test");
			else
				lua_xmove(first.co, lua, 1);
			bench->task = NULL;
			luaL_unref(lua, LUA_REGISTRYINDEX, first.ref);
			return status == 0;
		}
		if (verdict != GUARD_FINE)
			nargs = task_end(bench, TASK_TIMED_OUT, bench->vm.guard.place);
		else
			nargs = task_end(bench, status ? TASK_FAILED : TASK_DONE, "");
	}
}
