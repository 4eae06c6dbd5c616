#include "script/instance.h"

#include "base/descriptors.h"
#include "base/limits.h"
#include "base/log.h"
#include "config/config.h"
#include "script/phase.h"
#include "script/snapshot.h"

#include <stdio.h>
#include <string.h>
#include <uv.h>

struct loading {
	struct instance *instance;
	const struct instance_role *role;
	bool is_described; /* what was raised is a report already */
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
	if (config->inside && !role->load)
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

/* The function of that name that the conf on top of the stack has; nil counts as LUA_REFNIL. */
static int ref_callback(lua_State *lua, const char *name)
{
	lua_getfield(lua, -1, name);
	return luaL_ref(lua, LUA_REGISTRYINDEX);
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
	if (role->load) {
		role->load(lua);
		lua_settop(lua, role->kept);
		return role->kept;
	}
	load_script(lua, loading);
	if (role->take_conf)
		role->take_conf(lua);
	push_app(lua, instance);
	if (role->dress_app)
		role->dress_app(lua);
	instance->app_ref = luaL_ref(lua, LUA_REGISTRYINDEX);
	instance->setup_ref = ref_callback(lua, "setup");
	instance->snapshot_ref = ref_callback(lua, "snapshot");
	instance->teardown_ref = ref_callback(lua, "teardown");
	vm_push_function(lua, "perilune.runtime", "forget_loaders");
	lua_call(lua, 0, 0);
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
	vm->memory_bytes = role->memory_bytes ? role->memory_bytes(config) : config->memory_bytes;
	vm->pace.garbage = config->garbage_share;
	if (!config->jit)
		vm_stop_jit(vm);
}

/* The script is refused, `why` says why: closes what there is. */
static int instance_refuse(struct instance *instance, uint32_t teardown_ms, char *why, size_t size)
{
	guard_call_off_by(NULL); /* teardown() is no part of what may have been called off */
	instance_close(instance, teardown_ms);
	if (descriptors_left(2))
		return UV_EINVAL;
	descriptors_explain(why, size); /* Lua says of a module only that it is not found */
	return UV_EMFILE;
}

static int run_loading(struct vm *vm, const char *name, lua_CFunction function, void *data, int nresults)
{
	lua_pushcfunction(vm->lua, function);
	lua_pushlightuserdata(vm->lua, data);
	vm->stage = VM_LOADING;
	guard_name(&vm->guard, name, 0);
	int failed = vm_pcall(vm, vm->lua, 1, nresults, &VM_LOAD_BUDGET);
	vm->stage = VM_SERVING;
	return failed;
}

int instance_load(struct instance *instance, const struct instance_role *role, const struct config *config,
		  unsigned worker, uint32_t generation, char *why, size_t size)
{
	struct loading loading = { instance, role, false };
	const struct phase top_level = { .ref = LUA_NOREF };
	instance->config = config;
	instance->worker = worker;
	instance->generation = generation;
	instance->app_ref = instance->setup_ref = LUA_NOREF;
	instance->snapshot_ref = instance->teardown_ref = LUA_NOREF;
	remember_directory(instance, config->script);
	if (vm_open(&instance->vm)) {
		limits_explain(UV_ENOMEM, why, size);
		return UV_ENOMEM;
	}
	set_limits(instance, role);
	if (!run_loading(&instance->vm, "loading", l_load, &loading, role->kept))
		return 0;
	if (loading.is_described)
		snprintf(why, size, "%s", lua_tostring(instance->vm.lua, -1));
	else
		phase_explain(instance, &top_level, why, size);
	return instance_refuse(instance, 0, why, size); /* it has not come to setup() */
}

struct setting_up {
	struct instance *instance;
	const struct snapshot *snapshot;
};

/* Runs protected. The data is nil where there is none. */
static int l_set_up(lua_State *lua)
{
	const struct setting_up *setting_up = lua_touserdata(lua, 1);
	const struct instance *instance = setting_up->instance;
	const struct snapshot *snapshot = setting_up->snapshot;
	lua_settop(lua, 0);
	lua_rawgeti(lua, LUA_REGISTRYINDEX, instance->setup_ref);
	lua_rawgeti(lua, LUA_REGISTRYINDEX, instance->app_ref);
	if (snapshot->bytes) {
		vm_push_function(lua, "perilune.plain", "unpack");
		lua_pushlstring(lua, snapshot->bytes, snapshot->len);
		lua_call(lua, 1, 1);
	}
	lua_call(lua, lua_gettop(lua) - 1, 0);
	return 0;
}

int instance_set_up(struct instance *instance, const struct snapshot *snapshot, char *why, size_t size)
{
	struct setting_up setting_up = { instance, snapshot };
	const struct phase setup = { .name = "setup", .ref = instance->setup_ref };
	struct vm *vm = &instance->vm;
	if (setup.ref != LUA_REFNIL && run_loading(vm, setup.name, l_set_up, &setting_up, 0)) {
		phase_explain(instance, &setup, why, size);
		return instance_refuse(instance, VM_TEARDOWN_MS, why, size);
	}
	luaL_unref(vm->lua, LUA_REGISTRYINDEX, instance->setup_ref);
	instance->setup_ref = LUA_REFNIL;
	vm_settle(vm);
	return 0;
}

int instance_open(struct instance *instance, const struct instance_role *role, const struct config *config,
		  unsigned worker, uint32_t generation, char *why, size_t size)
{
	const struct snapshot none = { 0 };
	int err = instance_load(instance, role, config, worker, generation, why, size);
	return err ? err : instance_set_up(instance, &none, why, size);
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
	struct log_field worker = F_INT("worker", instance->worker);
	if (instance->worker == (unsigned)STALL_NOBODY)
		worker = F_TEXT("worker", NULL);
	log_write(LOG_WARN, "a finaliser failed", F_TEXT("error", vm->finaliser_error),
		  F_INT("times", vm->finaliser_failures), worker, F_INT("generation", instance->generation));
	vm->finaliser_failures = 0;
}
