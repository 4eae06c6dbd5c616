#include "script/instance.h"

#include "base/descriptors.h"
#include "base/limits.h"
#include "base/log.h"
#include "config/config.h"
#include "script/phase.h"

#include <stdio.h>
#include <string.h>
#include <uv.h>

struct loading {
	struct instance *instance;
	const struct instance_role *role;
	struct phase phase; /* what runs: the top level, or setup() */
	bool is_described;  /* what was raised is a report already */
};

/* ---- before the script ---- */

void instance_keep_function(lua_State *lua, const char *module, const char *name)
{
	vm_push_function(lua, module, name);
	lua_pushfstring(lua, "%s.%s", module, name);
	lua_insert(lua, -2);
	lua_settable(lua, LUA_REGISTRYINDEX);
}

/* What the workbench adds to a VM. It may change the runtime, of which nothing is in use yet. */
static void open_inside(lua_State *lua, const char *module)
{
	lua_getglobal(lua, "require");
	lua_pushstring(lua, module);
	lua_call(lua, 1, 1);
	lua_setfield(lua, LUA_REGISTRYINDEX, "perilune.inside");
}

static void open_core(lua_State *lua, const struct instance_role *role)
{
	lua_getglobal(lua, "package");
	lua_getfield(lua, -1, "loaded");
	role->push_core(lua);
	lua_setfield(lua, -2, "perilune.core");
	lua_pop(lua, 2);
}

/* Readies the VM for the script. On the stack, which is empty, is then what the role keeps there. */
static void lay_out_vm(lua_State *lua, const struct instance_role *role, const struct config *config)
{
	config_open_sources(lua, config);
	if (config->inside)
		open_inside(lua, config->inside);
	instance_keep_function(lua, "perilune.runtime", "describe_phase");
	if (role->lay_out)
		role->lay_out(lua);
	if (role->push_core)
		open_core(lua, role);
	lua_settop(lua, role->kept);
}

/* ---- the script ---- */

/* Runs the top level; pushes the script's conf. */
static void load_script(lua_State *lua, struct loading *loading)
{
	const struct instance *instance = loading->instance;
	int at = lua_gettop(lua) + 1;
	vm_push_function(lua, "perilune.app", "load");
	lua_pushstring(lua, instance->config->script);
	config_push_options(lua, instance->config);
	lua_pushinteger(lua, (lua_Integer)instance->generation);
	lua_setfield(lua, -2, "generation");
	lua_call(lua, 2, 2);
	loading->is_described = lua_isnil(lua, at);
	if (loading->is_described)
		lua_error(lua);
	lua_getfield(lua, at, "conf");
	lua_replace(lua, at);
	lua_settop(lua, at);
}

/* What setup() and teardown() are given. */
static void push_app(lua_State *lua, const struct instance *instance)
{
	lua_createtable(lua, 0, 4);
	lua_pushinteger(lua, (lua_Integer)instance->worker);
	lua_setfield(lua, -2, "worker");
	lua_pushinteger(lua, (lua_Integer)instance->config->workers);
	lua_setfield(lua, -2, "workers");
	lua_pushinteger(lua, (lua_Integer)instance->generation);
	lua_setfield(lua, -2, "generation");
	lua_pushstring(lua, instance->config->script);
	lua_setfield(lua, -2, "script");
}

/* setup, a function or nil, is on top of the stack. */
static void run_setup(lua_State *lua, struct loading *loading)
{
	struct instance *instance = loading->instance;
	if (lua_isnil(lua, -1))
		return;
	lua_pushvalue(lua, -1);
	loading->phase.name = "setup";
	guard_name(&instance->vm.guard, "setup", 0);
	loading->phase.ref = luaL_ref(lua, LUA_REGISTRYINDEX);
	lua_rawgeti(lua, LUA_REGISTRYINDEX, instance->app_ref);
	lua_call(lua, 1, 0);
	luaL_unref(lua, LUA_REGISTRYINDEX, loading->phase.ref);
}

/*
 * Runs protected. What the role has laid out is the results, and so becomes the bottom of the VM's own stack. Raises
 * what went wrong.
 */
static int l_load(lua_State *lua)
{
	struct loading *loading = lua_touserdata(lua, 1);
	struct instance *instance = loading->instance;
	const struct instance_role *role = loading->role;
	lua_settop(lua, 0);
	lay_out_vm(lua, role, instance->config);
	load_script(lua, loading);
	int conf = lua_gettop(lua);
	if (role->take_conf)
		role->take_conf(lua);
	push_app(lua, instance);
	instance->app_ref = luaL_ref(lua, LUA_REGISTRYINDEX);
	lua_getfield(lua, conf, "teardown");
	instance->teardown_ref = luaL_ref(lua, LUA_REGISTRYINDEX);
	lua_getfield(lua, conf, "setup");
	lua_replace(lua, conf);
	lua_settop(lua, conf);
	vm_push_function(lua, "perilune.runtime", "forget_loaders");
	lua_call(lua, 0, 0);
	run_setup(lua, loading);
	lua_settop(lua, role->kept);
	return role->kept;
}

/* ---- from open to close ---- */

static void remember_directory(struct instance *instance, const char *script)
{
	const char *slash = strrchr(script, '/');
	if (slash)
		snprintf(instance->directory, sizeof instance->directory, "%.*s", (int)(slash - script),
			 script);
	else
		snprintf(instance->directory, sizeof instance->directory, ".");
}

static void set_limits(struct instance *instance, const struct instance_role *role)
{
	enum { STEP_LEAST_MS = 20 }; /* the collector's own work is part of it */
	const struct config *config = instance->config;
	struct vm *vm = &instance->vm;
	uint32_t least_ms = role->least_ms ? role->least_ms(config) : 0;
	if (!least_ms || least_ms > VM_TEARDOWN_MS)
		least_ms = VM_TEARDOWN_MS;
	guard_set_least(&vm->guard, least_ms);
	guard_set_worker(&vm->guard, instance->worker, instance->generation);
	vm->step_ms = least_ms < STEP_LEAST_MS ? STEP_LEAST_MS : least_ms;
	vm->guard.progress = role->progress;
	vm->guard.cut = role->cut;
	vm->guard.abandon = role->abandon;
	vm->guard.owner = instance;
	vm->memory_bytes = config->memory_bytes;
	vm->pace.garbage = config->garbage_share;
	if (!config->jit)
		vm_stop_jit(vm);
}

/* The script is refused: says why, and closes what there is. */
static int instance_refuse(struct instance *instance, const struct loading *loading, char *why, size_t size)
{
	if (loading->is_described)
		snprintf(why, size, "%s", lua_tostring(instance->vm.lua, -1));
	else
		phase_explain(instance, &loading->phase, why, size);
	guard_call_off_by(NULL); /* teardown() is no part of what may have been called off */
	instance_close(instance, VM_TEARDOWN_MS);
	if (descriptors_left(2))
		return UV_EINVAL;
	descriptors_explain(why, size); /* Lua says of a module only that it is not found */
	return UV_EMFILE;
}

int instance_open(struct instance *instance, const struct instance_role *role, const struct config *config,
		  unsigned worker, uint32_t generation, char *why, size_t size)
{
	struct loading loading = { instance, role, { .ref = LUA_NOREF }, false };
	instance->config = config;
	instance->worker = worker;
	instance->generation = generation;
	instance->app_ref = instance->teardown_ref = LUA_NOREF;
	remember_directory(instance, config->script);
	if (vm_open(&instance->vm)) {
		limits_explain(UV_ENOMEM, why, size);
		return UV_ENOMEM;
	}
	set_limits(instance, role);
	struct vm *vm = &instance->vm;
	lua_pushcfunction(vm->lua, l_load);
	lua_pushlightuserdata(vm->lua, &loading);
	vm->stage = VM_LOADING;
	guard_name(&vm->guard, "loading", 0);
	int failed = vm_pcall(vm, vm->lua, 1, role->kept, &VM_LOAD_BUDGET);
	vm->stage = VM_SERVING;
	if (failed)
		return instance_refuse(instance, &loading, why, size);
	vm_settle(vm);
	return 0;
}

void instance_detach(struct instance *instance)
{
	guard_detach(&instance->vm.guard);
}

void instance_attach(struct instance *instance)
{
	guard_attach(&instance->vm.guard);
}

static void run_teardown(struct instance *instance, uint32_t ms)
{
	struct phase phase = { .name = "teardown", .ref = instance->teardown_ref };
	struct vm_budget budget = { .ms = ms };
	struct vm *vm = &instance->vm;
	lua_rawgeti(vm->lua, LUA_REGISTRYINDEX, instance->teardown_ref);
	lua_rawgeti(vm->lua, LUA_REGISTRYINDEX, instance->app_ref);
	vm->stage = VM_ENDING;
	guard_name(&vm->guard, phase.name, 0);
	if (vm_pcall(vm, vm->lua, 1, 0, &budget))
		phase_log(instance, &phase);
}

bool instance_close(struct instance *instance, uint32_t teardown_ms)
{
	bool has_teardown = instance->teardown_ref != LUA_NOREF && instance->teardown_ref != LUA_REFNIL;
	/* Whoever closes it runs teardown(), which ends when this thread's calls are called off. */
	instance_detach(instance);
	instance_attach(instance);
	if (has_teardown && teardown_ms)
		run_teardown(instance, teardown_ms);
	vm_close(&instance->vm);
	instance_tell_of_finalisers(instance);
	return teardown_ms || !has_teardown;
}

void instance_tell_of_finalisers(struct instance *instance)
{
	struct vm *vm = &instance->vm;
	if (!vm->finaliser_failures)
		return;
	log_write(LOG_WARN, "a finaliser failed", F_TEXT("error", vm->finaliser_error),
		  F_INT("times", vm->finaliser_failures), F_INT("worker", instance->worker),
		  F_INT("generation", instance->generation));
	vm->finaliser_failures = 0;
}
