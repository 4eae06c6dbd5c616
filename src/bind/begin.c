/* What an agent, or the app, begins beside its calls: timers and tasks. Their Lua side is lua/perilune/waiting.lua. */
#include "agent/task.h"
#include "agent/timer.h"
#include "bind/bind.h"

enum { ARGUMENTS_MAX = 16 }; /* of a function that is called later: as many as each stack has room for */

/* Those that end something or go somewhere else begin nothing. */
static bool callback_may_begin(enum callback callback)
{
	return callback != CALL_CLOSED && callback != CALL_DEFER && callback != CALL_SNAPSHOT &&
	       callback != CALL_DECODE && callback != CALL_ENCODE;
}

struct channel *bind_check_beginner(lua_State *lua, const char *what, const char *apps)
{
	struct agents *agents = agents_of(lua);
	const struct run *run = agents->current;
	if (!run)
		bind_raise(
		    lua,
		    "%s: only a running handler can; what belongs to no connection begins in setup(app), "
		    "with %s",
		    what, apps);
	if (!callback_may_begin(run->callback))
		bind_raise(lua, "%s: %s() must not begin anything", what, callback_name(run->callback));
	if (work_is_apps(run->channel) && agents->app_is_over)
		bind_raise(lua, "%s: this generation of the script ends", what);
	if (!work_is_apps(run->channel) && !channel_is_open(run->channel))
		bind_raise(lua, "%s: the connection has ended", what);
	return run->channel;
}

/* MAY RAISE. The same for what is begun with the app of setup(app). */
static struct channel *check_app(lua_State *lua, const char *what)
{
	struct agents *agents = agents_of(lua);
	if (!lua_istable(lua, 1))
		bind_raise(lua, "%s: write it with a colon, as in %s(…)", what, what);
	if (agents->app_is_over)
		bind_raise(lua, "%s: this generation of the script ends", what);
	if (agents->vm.stage == VM_KEEPING)
		bind_raise(lua, "%s: snapshot() must not begin anything", what);
	struct channel *channel = work_app(agents);
	if (!channel)
		bind_raise(lua, "%s: not enough memory", what);
	return channel;
}

/* MAY RAISE. */
static void check_function(lua_State *lua, int idx, const char *what)
{
	if (!lua_isfunction(lua, idx))
		bind_raise(lua, "%s: a function expected, got %s", what, luaL_typename(lua, idx));
}

/* MAY RAISE. The function at idx and its arguments behind it become what is called: the function, or a list. */
static void pack_call(lua_State *lua, int idx, const char *what)
{
	int nargs = lua_gettop(lua) - idx;
	check_function(lua, idx, what);
	if (nargs > ARGUMENTS_MAX)
		bind_raise(lua, "%s: more than %d arguments: put them into a table", what, ARGUMENTS_MAX);
	if (!nargs)
		return;
	lua_createtable(lua, nargs + 2, 0);
	lua_insert(lua, idx);
	for (int i = nargs; i; i--)
		lua_rawseti(lua, idx, 2 + i);
	lua_rawseti(lua, idx, 1);
	lua_pushinteger(lua, nargs);
	lua_rawseti(lua, idx, 2);
}

/* MAY RAISE. duration, function, arguments at idx → timer */
static int begin_timer(lua_State *lua, int idx, struct channel *channel, bool repeats, const char *what)
{
	uint32_t ms = bind_duration_of(lua, idx, what);
	if (work_is_apps(channel) && agents_of(lua)->app_is_superseded)
		bind_raise(lua, "%s: a newer generation of the script serves, and has these timers", what);
	if (repeats && !ms)
		bind_raise(lua, "%s: the time between two calls must be more than 0", what);
	pack_call(lua, idx + 1, what);
	lua_settop(lua, idx + 1);
	uint64_t name = timer_begin(lua, channel, ms, repeats ? ms : 0);
	lua_getfield(lua, LUA_REGISTRYINDEX, "perilune.timer");
	lua_pushnumber(lua, (lua_Number)name);
	lua_call(lua, 1, 1);
	return 1;
}

/* MAY RAISE. after(duration, function, …) → timer */
static int l_begin_after(lua_State *lua)
{
	return begin_timer(lua, 1, bind_check_beginner(lua, "perilune.after", "app:after(…)"), false,
			   "perilune.after");
}

/* MAY RAISE. every(duration, function, …) → timer */
static int l_begin_every(lua_State *lua)
{
	return begin_timer(lua, 1, bind_check_beginner(lua, "perilune.every", "app:every(…)"), true,
			   "perilune.every");
}

/* MAY RAISE. app_after(app, duration, function, …) → timer */
static int l_begin_app_after(lua_State *lua)
{
	return begin_timer(lua, 2, check_app(lua, "app:after"), false, "app:after");
}

/* MAY RAISE. app_every(app, duration, function, …) → timer */
static int l_begin_app_every(lua_State *lua)
{
	return begin_timer(lua, 2, check_app(lua, "app:every"), true, "app:every");
}

/* cancel_timer(name) → is it cancelled? false: it has been called for the last time, or cancelled, or has ended */
static int l_begin_cancel_timer(lua_State *lua)
{
	static const lua_Number NAMES_END = 9007199254740992.0; /* 2^53 */
	lua_Number name = luaL_checknumber(lua, 1);
	lua_pushboolean(lua, name >= 1 && name < NAMES_END && timer_cancel(agents_of(lua), (uint64_t)name));
	return 1;
}

/* MAY RAISE. The function at 2, its arguments behind it, and at 1 the list of its group or nil → handle */
static int begin_task(lua_State *lua, struct channel *channel, const char *what)
{
	int nargs = lua_gettop(lua) - 2;
	check_function(lua, 2, what);
	if (nargs > ARGUMENTS_MAX)
		bind_raise(lua, "%s: more than %d arguments: put them into a table", what, ARGUMENTS_MAX);
	luaL_checkstack(lua, 8, what);
	lua_getfield(lua, LUA_REGISTRYINDEX, "perilune.task");
	lua_insert(lua, 1);
	task_begin(lua, channel, nargs, 1, lua_istable(lua, 2) ? 2 : 0);
	return 1;
}

/* MAY RAISE. spawn(group or nil, function, …) → handle */
static int l_begin_spawn(lua_State *lua)
{
	return begin_task(lua, bind_check_beginner(lua, "perilune.spawn", "app:spawn(…)"), "perilune.spawn");
}

/* MAY RAISE. app_spawn(app, function, …) → handle */
static int l_begin_app_spawn(lua_State *lua)
{
	struct channel *channel = check_app(lua, "app:spawn");
	lua_pushnil(lua);
	lua_replace(lua, 1);
	return begin_task(lua, channel, "app:spawn");
}

/* is_cancelled(handle) → has it been cancelled, and is about to end? */
static int l_begin_is_cancelled(lua_State *lua)
{
	luaL_checktype(lua, 1, LUA_TTABLE);
	const struct task *task = task_check(lua, 1);
	lua_pushboolean(lua, task && task->is_cancelled);
	return 1;
}

/* MAY RAISE. cancel_task(handle) → was it still at work? */
static int l_begin_cancel_task(lua_State *lua)
{
	struct agents *agents = agents_of(lua);
	luaL_checktype(lua, 1, LUA_TTABLE);
	struct task *task = task_check(lua, 1);
	if (task && agents->current == &task->run)
		bind_raise(lua, "task:cancel: a task that wants to end returns");
	bool is_live = task && task->stage == TASK_LIVE;
	if (task)
		task_cancel(agents, task);
	lua_pushboolean(lua, is_live);
	return 1;
}

/* MAY RAISE. dismiss_task(handle): of a group, whose result or fault is another's. */
static int l_begin_dismiss_task(lua_State *lua)
{
	luaL_checktype(lua, 1, LUA_TTABLE);
	struct task *task = task_check(lua, 1);
	if (task)
		task_dismiss(agents_of(lua), task);
	return 0;
}

/* MAY RAISE. check_join(handle): no task waits for itself. */
static int l_begin_check_join(lua_State *lua)
{
	luaL_checktype(lua, 1, LUA_TTABLE);
	const struct task *task = task_check(lua, 1);
	if (task && agents_of(lua)->current == &task->run)
		bind_raise(lua, "task:join: a task cannot wait for its own end");
	return 0;
}

/* MAY RAISE. take_fault(handle) → the serial of the running call, whose fault it is now */
static int l_begin_take_fault(lua_State *lua)
{
	struct agents *agents = agents_of(lua);
	luaL_checktype(lua, 1, LUA_TTABLE);
	struct task *task = task_check(lua, 1);
	if (task)
		task_take_fault(agents, task);
	if (agents->current && !agents->current->serial)
		agents->current->serial = ++agents->last_serial;
	lua_pushnumber(lua, agents->current ? (lua_Number)agents->current->serial : 0);
	return 1;
}

/* MAY RAISE. check_group(name, n[, duration]): may the running call begin n tasks, and wait for them? */
static int l_begin_check_group(lua_State *lua)
{
	const char *what = luaL_checkstring(lua, 1);
	struct channel *channel = bind_check_beginner(lua, what, "a task of app:spawn(…)");
	const struct work *work = work_of(agents_of(lua), channel);
	bind_check_may_wait(lua, what);
	if (!lua_isyieldable(lua))
		bind_raise(lua, "%s: cannot wait here: a function in C has called this one", what);
	if (!lua_isnoneornil(lua, 3))
		bind_duration_of(lua, 3, what);
	if ((work ? work->task_count : 0) + luaL_checknumber(lua, 2) > WORK_TASKS_MAX)
		bind_raise(lua, "%s: there are too many tasks already: %d are the most", what,
			   WORK_TASKS_MAX);
	return 0;
}

/* MAY RAISE. defer(function): when the running task has ended, however, the latest first. */
static int l_begin_defer(lua_State *lua)
{
	struct run *run = agents_of(lua)->current;
	BIND_AT_MOST(lua, 1, "perilune.defer");
	luaL_checktype(lua, 1, LUA_TFUNCTION);
	if (!run || !run->is_task)
		bind_raise(
		    lua, "perilune.defer: only in a task (what is to run at a connection's end: conn:defer)");
	lua_getfield(lua, LUA_REGISTRYINDEX, "perilune.runtime.defer");
	lua_pushnumber(lua, -(lua_Number)run->serial);
	lua_pushvalue(lua, 1);
	task_of(run)->has_defers = true; /* first: the call may be ended in there */
	lua_call(lua, 2, 0);
	return 0;
}

void bind_begin(lua_State *lua)
{
	static const luaL_Reg FUNCTIONS[] = {
		{ "after", l_begin_after },
		{ "every", l_begin_every },
		{ "app_after", l_begin_app_after },
		{ "app_every", l_begin_app_every },
		{ "cancel_timer", l_begin_cancel_timer },
		{ "spawn", l_begin_spawn },
		{ "app_spawn", l_begin_app_spawn },
		{ "cancel_task", l_begin_cancel_task },
		{ "is_cancelled", l_begin_is_cancelled },
		{ "dismiss_task", l_begin_dismiss_task },
		{ "check_join", l_begin_check_join },
		{ "check_group", l_begin_check_group },
		{ "take_fault", l_begin_take_fault },
		{ "defer", l_begin_defer },
		{ NULL, NULL },
	};
	luaL_register(lua, NULL, FUNCTIONS);
}
