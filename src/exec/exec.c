#include "exec/exec.h"

#include "base/limits.h"
#include "base/log.h"
#include "base/text.h"
#include "bind/bind.h"
#include "exec/signals.h"
#include "loop/loop.h"
#include "vm/vm.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <uv.h>

/* What is left on the VM's own stack. */
enum { AT_EXPLAIN = 1, AT_SCRIPT };

struct exec {
	struct vm vm; /* first: vm_of() leads here */
	uv_loop_t loop;
	uv_timer_t timer;
	struct signals signals;
	lua_State *co; /* the script's */
	bool waits;    /* for the timer */
	bool exits;    /* it has called os.exit() */
	bool done;
	int code;
};

static const struct vm_budget UNBOUNDED = { 0 };

static struct exec *exec_of(lua_State *lua)
{
	return (struct exec *)(void *)vm_of(lua);
}

/* ---- what the script is given: perilune.core, for one that has no connection ---- */

static void exec_on_timer(uv_timer_t *timer);

/* MAY RAISE, MAY YIELD. sleep(duration) */
static int l_exec_sleep(lua_State *lua)
{
	struct exec *exec = exec_of(lua);
	luaL_checkany(lua, 1);
	uint32_t ms = bind_duration_check(lua, 1);
	if (lua != exec->co)
		return luaL_error(lua, "perilune.sleep: cannot wait inside a coroutine of the script's own");
	/*
	 * What was computed since the loop last looked at the clock is no part of the wait, nor is a begun millisecond.
	 */
	uv_update_time(&exec->loop);
	uv_timer_start(&exec->timer, exec_on_timer, ms ? (uint64_t)ms + 1 : 0, 0);
	exec->waits = true;
	return lua_yield(lua, 0);
}

/* now() → seconds on a monotonic clock */
static int l_exec_now(lua_State *lua)
{
	lua_pushnumber(lua, (lua_Number)uv_hrtime() / 1e9);
	return 1;
}

/* time() → seconds since 1970, with fractions */
static int l_exec_time(lua_State *lua)
{
	uv_timeval64_t now = { 0 };
	uv_gettimeofday(&now);
	lua_pushnumber(lua, (lua_Number)now.tv_sec + (lua_Number)now.tv_usec / 1e6);
	return 1;
}

/* MAY RAISE. log(level, message[, fields]) */
static int l_exec_log(lua_State *lua)
{
	struct log_field fields[BIND_LOG_FIELDS];
	struct log_entry entry;
	bind_log_check(lua, &entry, fields);
	log_entry(&entry);
	return 0;
}

/* exit(code or boolean): ends the script, whatever it catches. Its VM is closed, and what it wrote is flushed. */
static int l_exit(lua_State *lua)
{
	struct exec *exec = exec_of(lua);
	if (lua_isboolean(lua, 1))
		exec->code = lua_toboolean(lua, 1) ? EXIT_SUCCESS : EXIT_FAILURE;
	else
		exec->code = luaL_optint(lua, 1, EXIT_SUCCESS) & 0xff;
	exec->exits = true;
	guard_interrupt(&exec->vm.guard, GUARD_CPU);
	return luaL_error(lua, "os.exit");
}

static const luaL_Reg CORE[] = {
	{ "sleep", l_exec_sleep }, { "now", l_exec_now }, { "time", l_exec_time },
	{ "log", l_exec_log },     { "exit", l_exit },    { NULL, NULL },
};

static void exec_set_text(lua_State *lua, const char *key, const char *text)
{
	lua_pushstring(lua, text);
	lua_setfield(lua, -2, key);
}

static void push_arguments(lua_State *lua, char **arguments)
{
	lua_newtable(lua);
	for (int i = 0; arguments[i]; i++) {
		lua_pushstring(lua, arguments[i]);
		lua_rawseti(lua, -2, i + 1);
	}
}

/* Runs protected. Results: explain(), and the script's main function with its arguments in a coroutine. Raises why it
 * cannot be run. */
static int exec_prepare(lua_State *lua)
{
	const struct exec_options *options = lua_touserdata(lua, 1);
	lua_settop(lua, 0);
	lua_getglobal(lua, "package");
	lua_getfield(lua, -1, "loaded");
	lua_newtable(lua);
	luaL_register(lua, NULL, CORE);
	lua_setfield(lua, -2, "perilune.core");
	lua_settop(lua, 0);
	lua_getglobal(lua, "require");
	lua_pushliteral(lua, "perilune.exec");
	lua_call(lua, 1, 1);
	lua_getfield(lua, -1, "prepare");
	lua_newtable(lua);
	exec_set_text(lua, "file", options->file);
	exec_set_text(lua, "code", options->code);
	push_arguments(lua, options->arguments);
	lua_setfield(lua, -2, "arguments");
	lua_call(lua, 1, LUA_MULTRET);
	lua_remove(lua, 1); /* the module */
	int nargs = lua_gettop(lua) - 2;
	lua_State *co = lua_newthread(lua);
	lua_insert(lua, AT_SCRIPT);
	if (!vm_make_stack(vm_of(lua), co, nargs + 1))
		return luaL_error(lua, "not enough memory for the arguments");
	lua_xmove(lua, co, nargs + 1);
	return 2;
}

/* ---- its end ---- */

static void exec_finish(struct exec *exec, int code)
{
	exec->done = true;
	exec->code = code;
	uv_timer_stop(&exec->timer);
}

/* Says on stderr what is on top of the VM's stack, with the place where the script is. */
static void exec_report(struct exec *exec)
{
	lua_State *lua = exec->vm.lua;
	signals_calm();
	lua_pushvalue(lua, AT_EXPLAIN);
	lua_insert(lua, -2);
	lua_pushvalue(lua, AT_SCRIPT);
	int failed = vm_pcall(&exec->vm, lua, 2, 1, &UNBOUNDED);
	const char *text = lua_tostring(lua, -1);
	fflush(stdout);
	text_printf(stderr, "%s%s", text ? text : "error: it cannot be described", failed ? "\n" : "");
	lua_pop(lua, 1);
}

static void exec_fail(struct exec *exec, const char *why)
{
	lua_pushstring(exec->vm.lua, why);
	exec_report(exec);
	exec_finish(exec, EXIT_FAILURE);
}

static void be_interrupted(struct exec *exec)
{
	const struct guard *guard = &exec->vm.guard;
	bool computed = !exec->waits && *guard->place;
	lua_pushfstring(exec->vm.lua, "%s%sinterrupted", computed ? guard->place : "", computed ? ": " : "");
	exec_report(exec);
	exec_finish(exec, 128 + signals_caught());
}

static void exec_resume(struct exec *exec, int nargs)
{
	exec->waits = false;
	vm_enter(&exec->vm, &UNBOUNDED);
	int status = lua_resume(exec->co, nargs);
	vm_leave(&exec->vm);
	if (exec->exits) {
		exec_finish(exec, exec->code);
	} else if (signals_caught()) {
		be_interrupted(exec);
	} else if (!status) {
		exec_finish(exec, EXIT_SUCCESS);
	} else if (status != LUA_YIELD) {
		lua_xmove(exec->co, exec->vm.lua, 1);
		exec_report(exec);
		exec_finish(exec, EXIT_FAILURE);
	} else if (!exec->waits) {
		exec_fail(exec,
			  "deadlock: the script waits for what never comes (coroutine.yield() outside of a "
			  "coroutine of its own)");
	}
}

static void exec_on_timer(uv_timer_t *timer)
{
	exec_resume(timer->data, 0);
}

/* ---- the whole ---- */

static void run(struct exec *exec)
{
	exec->co = lua_tothread(exec->vm.lua, AT_SCRIPT);
	exec_resume(exec, lua_gettop(exec->co) - 1);
	while (!exec->done) {
		uv_run(&exec->loop, UV_RUN_DEFAULT);
		if (!exec->done && signals_caught())
			be_interrupted(exec);
		else if (!exec->done && !uv_is_active((uv_handle_t *)&exec->timer))
			exec_fail(exec, "deadlock: the script waits for what never comes");
	}
}

/* Why there is no script to run is on top of the stack. */
static int exec_refuse(struct exec *exec)
{
	lua_State *lua = exec->vm.lua;
	if (signals_caught()) { /* what ended it says only that it was ended */
		text_printf(stderr, "perilune exec: interrupted before it ran\n");
		return 128 + signals_caught();
	}
	const char *message = lua_tostring(lua, -1);
	size_t len = message ? lua_objlen(lua, -1) : 0;
	text_printf(stderr, "%s%s", message ? message : "error", len && message[len - 1] == '\n' ? "" : "\n");
	return EXIT_FAILURE;
}

static int exec_start(struct exec *exec, const struct exec_options *options)
{
	lua_State *lua = exec->vm.lua;
	lua_pushcfunction(lua, exec_prepare);
	lua_pushlightuserdata(lua, (void *)options);
	if (vm_pcall(&exec->vm, lua, 1, 2, &UNBOUNDED))
		return exec_refuse(exec);
	run(exec);
	return exec->code;
}

static int run_on_loop(struct exec *exec, const struct exec_options *options)
{
	uv_timer_init(&exec->loop, &exec->timer);
	exec->timer.data = exec;
	int err = signals_open(&exec->signals, &exec->loop, &exec->vm.guard), code = EXIT_FAILURE;
	if (err) {
		char why[LIMITS_TEXT_BYTES];
		text_printf(stderr, "perilune exec: %s\n", limits_explain(err, why, sizeof why));
	} else {
		code = exec_start(exec, options);
		signals_close(&exec->signals);
	}
	uv_close((uv_handle_t *)&exec->timer, NULL);
	uv_run(&exec->loop, UV_RUN_DEFAULT);
	return code;
}

int exec_run(const struct exec_options *options)
{
	static struct exec exec; /* what a signal's helper looks at outlives every call */
	int err = loop_open(&exec.loop), code = EXIT_FAILURE;
	if (!err && (err = vm_open(&exec.vm)))
		uv_loop_close(&exec.loop);
	if (err) {
		char why[LIMITS_TEXT_BYTES];
		text_printf(stderr, "perilune exec: %s\n", limits_explain(err, why, sizeof why));
		return EXIT_FAILURE;
	}
	exec.vm.step_ms = GUARD_UNBOUNDED_MS;
	log_open();
	log_init(LOG_AUTO, LOG_DEBUG);
	code = run_on_loop(&exec, options);
	vm_close(&exec.vm);
	uv_loop_close(&exec.loop);
	return code;
}
