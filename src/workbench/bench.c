#include "workbench/bench.h"

#include "base/limits.h"
#include "base/text.h"
#include "base/thread.h"
#include "loop/loop.h"
#include "server/server.h"
#include "workbench/entropy.h"
#include "workbench/script.h"

#include <stdio.h>
#include <string.h>

struct request {
	const char *module;
	int argc;
	char **argv;
	int code;
};

static void add_library(lua_State *lua, const char *name, void (*push)(lua_State *lua))
{
	lua_getglobal(lua, "package");
	lua_getfield(lua, -1, "loaded");
	push(lua);
	lua_setfield(lua, -2, name);
	lua_pop(lua, 2);
}

/* Pushes module.run and its arguments. */
static int bench_prepare(lua_State *lua)
{
	const struct request *request = lua_touserdata(lua, 1);
	lua_settop(lua, 0);
	add_library(lua, "perilune.workbench.task", task_push_functions);
	add_library(lua, "perilune.workbench.app", bench_push_app);
	add_library(lua, "perilune.workbench.lan", bench_push_lan);
	add_library(lua, "perilune.workbench.net", bench_push_net);
	lua_getglobal(lua, "require");
	lua_pushstring(lua, request->module);
	lua_call(lua, 1, 1);
	lua_getfield(lua, -1, "run");
	lua_remove(lua, 1);
	luaL_checkstack(lua, request->argc + 4, "arguments");
	for (int i = 0; i < request->argc; i++)
		lua_pushstring(lua, request->argv[i]);
	return request->argc + 1;
}

static int bench_fail(lua_State *lua)
{
	const char *message = lua_tostring(lua, -1);
	text_printf(stderr, "perilune: %s\n", message ? message : "an error that is no text");
	return EXIT_FAILED;
}

static int run_module(struct bench *bench, const struct request *request)
{
	lua_State *lua = bench->vm.lua;
	if (!vm_make_stack(&bench->vm, lua, request->argc + 4))
		return EXIT_FAILED;
	lua_pushcfunction(lua, bench_prepare);
	lua_pushlightuserdata(lua, (void *)request);
	if (lua_pcall(lua, 1, LUA_MULTRET, 0) || !task_run_main(bench, request->argc))
		return bench_fail(lua);
	return (int)lua_tointeger(lua, -1);
}

static void close_handle(uv_handle_t *handle, void *bench)
{
	bench_close_net(bench, handle);
}

/* Handles that are left close with the loop. */
static void bench_close_loop(struct bench *bench)
{
	uv_walk(&bench->loop, close_handle, bench);
	uv_run(&bench->loop, UV_RUN_DEFAULT);
	uv_loop_close(&bench->loop);
}

static void bench_thread(void *data)
{
	static struct bench bench;
	struct request *request = data;
	memset(&bench, 0, sizeof bench);
	if (loop_open(&bench.loop)) {
		fprintf(stderr, "perilune: cannot start an event loop: not enough memory or descriptors\n");
		return;
	}
	uv_timer_init(&bench.loop, &bench.timer);
	bench.timer.data = &bench;
	entropy_begin();
	vm_share_modules(true);
	int err = vm_open(&bench.vm);
	if (!err) {
		request->code = run_module(&bench, request);
		bench_close_apps(&bench);
		vm_close(&bench.vm);
	} else {
		char why[LIMITS_TEXT_BYTES];
		fprintf(stderr, "perilune: %s\n", limits_explain(err, why, sizeof why));
	}
	bench_close_loop(&bench);
	script_forget();
	vm_share_modules(false);
}

int bench_run(const char *module, int argc, char **argv)
{
	struct request request = { module, argc, argv, EXIT_FAILED };
	pthread_t thread;
	int err = guard_start() ? 0 : guard_error();
	if (!err)
		err = thread_start(&thread, THREAD_LUA_BYTES, bench_thread, &request);
	if (err) {
		char why[LIMITS_TEXT_BYTES];
		fprintf(stderr, "perilune: cannot start a thread: %s\n",
			limits_explain(err, why, sizeof why));
		return EXIT_FAILED;
	}
	pthread_join(thread, NULL);
	return request.code;
}
