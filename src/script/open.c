/* How a worker's VM comes to be: runtime, script, listeners; and how it ends. */
#include "script/open.h"

#include "agent/run.h"
#include "base/descriptors.h"
#include "base/limits.h"
#include "bind/bind.h"
#include "config/config.h"
#include "script/phase.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

/* Keeps module.name where C finds it by name. */
static void keep_function(lua_State *lua, const char *module, const char *name)
{
	vm_push_function(lua, module, name);
	lua_pushfstring(lua, "%s.%s", module, name);
	lua_insert(lua, -2);
	lua_settable(lua, LUA_REGISTRYINDEX);
}

/* The runtime's anchor(agent): called by an opener, on behalf of the connection being opened. */
static int l_anchor(lua_State *lua)
{
	struct agents *agents = agents_of(lua);
	lua_settop(lua, 1);
	agent_anchor(agents, lua, agents->current->conn);
	return 0;
}

/* Lays out what stays on the VM's stack, in the order of enum AT_*. */
static void lay_out(struct agents *agents)
{
	lua_State *lua = agents->vm.lua;
	keep_function(lua, "perilune.runtime", "defer");
	keep_function(lua, "perilune.runtime", "conn_index");
	keep_function(lua, "perilune.runtime", "snapshot");
	keep_function(lua, "perilune.runtime", "describe_phase");
	keep_function(lua, "perilune.runtime", "describe_fault");
	run_keep_ended(lua);
	batch_new_control(lua);
	lua_createtable(lua, FRAME_BATCH_MAX, 0);
	lua_createtable(lua, FRAME_BATCH_MAX, 0);
	vm_push_function(lua, "perilune.runtime", "invoke");
	vm_push_function(lua, "perilune.runtime", "has");
	vm_push_function(lua, "perilune.runtime", "take_defer");
	lua_pushnil(lua); /* AT_ERROR */
	bind_conn(lua);
}

static int runtime_ref(lua_State *lua, const char *name, int nargs)
{
	vm_push_function(lua, "perilune.runtime", name);
	lua_insert(lua, -1 - nargs);
	lua_call(lua, nargs, 1);
	return luaL_ref(lua, LUA_REGISTRYINDEX);
}

static int view_loop_ref(struct agents *agents)
{
	lua_State *lua = agents->vm.lua;
	vm_push_function(lua, "perilune.runtime", "view_loop");
	reply_push_surplus(lua);
	lua_pushlightuserdata(lua, agents->host->batch.frames);
	lua_pushlightuserdata(lua, agents->echoed);
	lua_call(lua, 3, 3);
	agents->view = (struct view *)lua_topointer(lua, -1);
	agents->view_object = lua_topointer(lua, -2);
	lua_pop(lua, 2); /* the loop keeps both alive */
	return luaL_ref(lua, LUA_REGISTRYINDEX);
}

/* conf.listeners[i + 1] is on top of the stack; pops it. */
static void open_listener(struct agents *agents, unsigned i, const char *name)
{
	lua_State *lua = agents->vm.lua;
	struct agent_endpoint *listener = &agents->endpoints[i];
	listener->endpoint.name = name;
	listener->endpoint.index = (uint16_t)i;
	listener->endpoint.codec = &listener->codec;
	lua_getfield(lua, -1, "frame");
	const char *wrong = bind_codec(lua, lua_gettop(lua), &listener->codec);
	listener->codec.lua_listener = i;
	if (wrong)
		luaL_error(lua, "listener %s: frame: %s", name, wrong);
	lua_pop(lua, 1);
	lua_getfield(lua, -1, "agent");
	lua_pushcfunction(lua, l_anchor);
	listener->opener_ref = runtime_ref(lua, "opener", 2);
	lua_getfield(lua, -1, "agent");
	lua_pushcfunction(lua, l_anchor);
	listener->upgrader_ref = runtime_ref(lua, "upgrader", 2);
	reply_push_surplus(lua);
	listener->loop_ref = runtime_ref(lua, "batch_loop", 1);
	listener->single_ref = runtime_ref(lua, "single", 0);
	reply_push_surplus(lua);
	lua_pushvalue(lua, AT_METAS);
	listener->meta_loop_ref = runtime_ref(lua, "meta_loop", 2);
	listener->view_loop_ref = listener->codec.view ? view_loop_ref(agents) : LUA_NOREF;
	lua_pop(lua, 1);
}

/* What setup() and teardown() are given. */
static void push_app(struct agents *agents, const struct config *config)
{
	lua_State *lua = agents->vm.lua;
	lua_createtable(lua, 0, 4);
	lua_pushinteger(lua, (lua_Integer)agents->worker);
	lua_setfield(lua, -2, "worker");
	lua_pushinteger(lua, (lua_Integer)config->workers);
	lua_setfield(lua, -2, "workers");
	lua_pushinteger(lua, (lua_Integer)agents->generation);
	lua_setfield(lua, -2, "generation");
	lua_pushstring(lua, config->script);
	lua_setfield(lua, -2, "script");
}

/* conf is on top of the stack. */
static void keep_redact(struct agents *agents)
{
	lua_State *lua = agents->vm.lua;
	lua_getfield(lua, -1, "record");
	lua_getfield(lua, -1, "redact");
	if (lua_isfunction(lua, -1))
		agents->redact_ref = luaL_ref(lua, LUA_REGISTRYINDEX);
	else
		lua_pop(lua, 1);
	lua_pop(lua, 1);
}

struct opening {
	struct agents *agents;
	const struct config *config;
	struct phase phase; /* what runs: the top level, or setup() */
	bool is_described;  /* what was raised is a report already */
};

/* setup is at AT_TOP + 1. */
static void run_setup(struct opening *opening)
{
	struct agents *agents = opening->agents;
	lua_State *lua = agents->vm.lua;
	if (lua_isnil(lua, -1))
		return;
	lua_pushvalue(lua, -1);
	opening->phase.name = "setup";
	guard_name(&agents->vm.guard, "setup", 0);
	opening->phase.ref = luaL_ref(lua, LUA_REGISTRYINDEX);
	lua_rawgeti(lua, LUA_REGISTRYINDEX, agents->app_ref);
	lua_call(lua, 1, 0);
	luaL_unref(lua, LUA_REGISTRYINDEX, opening->phase.ref);
}

/* What the workbench adds to a VM. It may change the runtime, of which nothing is in use yet. */
static void open_inside(lua_State *lua, const char *module)
{
	lua_getglobal(lua, "require");
	lua_pushstring(lua, module);
	lua_call(lua, 1, 1);
	lua_setfield(lua, LUA_REGISTRYINDEX, "perilune.inside");
}

/* Runs protected. Raises what went wrong. */
static void open_script(lua_State *lua)
{
	struct opening *opening = lua_touserdata(lua, 1);
	struct agents *agents = opening->agents;
	const struct config *config = opening->config;
	lua_settop(lua, 0);
	config_open_sources(lua, config);
	if (config->inside)
		open_inside(lua, config->inside);
	lay_out(agents);
	lua_getglobal(lua, "package");
	lua_getfield(lua, -1, "loaded");
	bind_core(lua);
	lua_setfield(lua, -2, "perilune.core");
	lua_settop(lua, AT_TOP);
	vm_push_function(lua, "perilune.app", "load");
	lua_pushstring(lua, config->script);
	config_push_options(lua, config);
	lua_pushinteger(lua, (lua_Integer)agents->generation);
	lua_setfield(lua, -2, "generation");
	lua_call(lua, 2, 2);
	opening->is_described = lua_isnil(lua, -2);
	if (opening->is_described)
		lua_error(lua);
	lua_getfield(lua, -2, "conf");
	lua_getfield(lua, -1, "listeners");
	if (lua_objlen(lua, -1) != config->listener_count)
		luaL_error(lua, "the script returns other listeners each time it is loaded");
	for (unsigned i = 0; i < config->listener_count; i++) {
		lua_rawgeti(lua, -1, (int)i + 1);
		open_listener(agents, i, config->listeners[i].name);
	}
	lua_pop(lua, 1);
	push_app(agents, config);
	agents->app_ref = luaL_ref(lua, LUA_REGISTRYINDEX);
	lua_getfield(lua, -1, "teardown");
	agents->teardown_ref = luaL_ref(lua, LUA_REGISTRYINDEX);
	keep_redact(agents);
	lua_getfield(lua, -1, "setup");
	lua_replace(lua, AT_TOP + 1);
	lua_settop(lua, AT_TOP + 1);
	vm_push_function(lua, "perilune.runtime", "forget_loaders");
	lua_call(lua, 0, 0);
	run_setup(opening);
}

/* What lay_out() made becomes the results, and so the bottom of the VM's own stack. */
static int open_and_keep(lua_State *lua)
{
	open_script(lua);
	lua_settop(lua, AT_TOP);
	return AT_TOP;
}

static void remember_directory(struct agents *agents, const char *script)
{
	const char *slash = strrchr(script, '/');
	if (slash)
		snprintf(agents->directory, sizeof agents->directory, "%.*s", (int)(slash - script), script);
	else
		snprintf(agents->directory, sizeof agents->directory, ".");
}

static void set_budgets(struct agents *agents, const struct config *config)
{
	enum { STEP_LEAST_MS = 20 }; /* the collector's own work is part of it */
	uint32_t least_ms = VM_TEARDOWN_MS;
	for (unsigned i = 0; i < config->listener_count; i++) {
		struct vm_budget budget = config->listeners[i].budget;
		agents->endpoints[i].budget = budget;
		agents->endpoints[i].endpoint.rules = config->listeners[i].rules;
		agents->endpoints[i].policy = config->listeners[i].policy;
		if (budget.ms && budget.ms < least_ms)
			least_ms = budget.ms;
	}
	guard_set_least(&agents->vm.guard, least_ms);
	guard_set_worker(&agents->vm.guard, agents->worker, agents->generation);
	agents->vm.step_ms = least_ms < STEP_LEAST_MS ? STEP_LEAST_MS : least_ms;
	agents->vm.guard.progress = run_progress;
	agents->vm.guard.cut = batch_cut_current;
	agents->vm.guard.abandon = run_abandon;
	agents->vm.guard.owner = agents;
	agents->vm.memory_bytes = config->memory_bytes;
	agents->vm.pace.garbage = config->garbage_share;
	if (!config->jit)
		vm_stop_jit(&agents->vm);
}

int agents_open(struct agents *agents, struct conn_host *host, const struct config *config, unsigned worker,
		uint32_t generation, struct counters *counters, char *why, size_t size)
{
	memset(agents, 0, sizeof *agents);
	agents->host = host;
	agents->config = config;
	agents->removed_policy = config->reload_policy;
	agents->worker = worker;
	agents->generation = generation;
	agents->ticks = ticks_start();
	agents->counters = counters;
	agents->log_frame_bytes = config->log_frame_bytes;
	agents->endpoint_count = config->listener_count;
	agents->teardown_ref = agents->app_ref = agents->redact_ref = LUA_NOREF;
	repeats_init(&agents->repeats);
	remember_directory(agents, config->script);
	limits_explain(UV_ENOMEM, why, size);
	agents->endpoints = calloc(config->listener_count, sizeof *agents->endpoints);
	if (!agents->endpoints)
		return UV_ENOMEM;
	if (vm_open(&agents->vm)) {
		free(agents->endpoints);
		return UV_ENOMEM;
	}
	set_budgets(agents, config);
	lua_State *lua = agents->vm.lua;
	struct opening opening = { agents, config, { .ref = LUA_NOREF }, false };
	lua_pushcfunction(lua, open_and_keep);
	lua_pushlightuserdata(lua, &opening);
	agents->vm.stage = VM_LOADING;
	guard_name(&agents->vm.guard, "loading", 0);
	int failed = vm_pcall(&agents->vm, lua, 1, AT_TOP, &VM_LOAD_BUDGET);
	agents->vm.stage = VM_SERVING;
	if (failed) {
		if (opening.is_described)
			snprintf(why, size, "%s", lua_tostring(lua, -1));
		else
			phase_explain(agents, &opening.phase, why, size);
		guard_call_off_by(NULL); /* teardown() is no part of what may have been called off */
		agents_close(agents, VM_TEARDOWN_MS);
		if (descriptors_left(2))
			return UV_EINVAL;
		descriptors_explain(why, size); /* Lua says of a module only that it is not found */
		return UV_EMFILE;
	}
	vm_settle(&agents->vm);
	return 0;
}

void agents_detach(struct agents *agents)
{
	if (agents->attached) /* the clock is the host's thread's */
		repeats_flush(agents, agents->host->now_ms);
	agents->attached = false;
	guard_detach(&agents->vm.guard);
}

void agents_attach(struct agents *agents)
{
	guard_attach(&agents->vm.guard);
	wheel_init(&agents->sleeps, agents->host->now_ms);
	wheel_list_init(&agents->due);
	agents->attached = true;
}

static void run_teardown(struct agents *agents, uint32_t ms)
{
	struct phase phase = { .name = "teardown", .ref = agents->teardown_ref };
	struct vm_budget budget = { .ms = ms };
	lua_State *lua = agents->vm.lua;
	lua_rawgeti(lua, LUA_REGISTRYINDEX, agents->teardown_ref);
	lua_rawgeti(lua, LUA_REGISTRYINDEX, agents->app_ref);
	agents->vm.stage = VM_ENDING;
	guard_name(&agents->vm.guard, phase.name, 0);
	if (vm_pcall(&agents->vm, lua, 1, 0, &budget))
		phase_log(agents, &phase);
}

bool agents_close(struct agents *agents, uint32_t teardown_ms)
{
	bool has_teardown = agents->teardown_ref != LUA_NOREF && agents->teardown_ref != LUA_REFNIL;
	if (agents->vm.lua) {
		agents_detach(agents);
		guard_attach(&agents->vm.guard); /* whoever closes it runs teardown() */
		if (has_teardown && teardown_ms)
			run_teardown(agents, teardown_ms);
		vm_close(&agents->vm);
		agent_tell_of_finalisers(agents);
	}
	free(agents->anchor_tables);
	free(agents->anchor_next);
	free(agents->endpoints);
	/* All else stays: `conns` may be read by others still. */
	agents->anchor_tables = NULL;
	agents->anchor_next = NULL;
	agents->endpoints = NULL;
	return teardown_ms || !has_teardown;
}
