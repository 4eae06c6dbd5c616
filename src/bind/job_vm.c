#include "bind/job_vm.h"

#include "agent/run.h"
#include "base/log.h"
#include "base/text.h"
#include "bind/bind.h"
#include "config/config.h"
#include "conn/conn.h"
#include "script/instance.h"
#include "vm/values.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

/* In the registry. */
#define RUN "perilune.job.run"
#define DESCRIBE "perilune.job.describe"
#define PACK "perilune.job.pack"

struct job_vm {
	struct instance instance;     /* first */
	const struct conn_host *host; /* in memory, whose time it is; else NULL */
	unsigned thread;
	struct job *job; /* that runs */
	lua_State *co;   /* which a job runs in; NULL: the next one gets a new one */
	int co_ref;
};

static struct job_vm *job_vm_of(lua_State *lua)
{
	return (struct job_vm *)(void *)vm_of(lua);
}

static uint64_t job_now_ms(const struct instance *instance)
{
	const struct conn_host *host = ((const struct job_vm *)(const void *)instance)->host;
	return host ? host->now_ms : uv_hrtime() / 1000000;
}

/* ---- what a job can call: perilune.core, for one that has no agent ---- */

/* now() → seconds on a monotonic clock */
static int l_job_now(lua_State *lua)
{
	BIND_AT_MOST(lua, 0, "perilune.now");
	const struct job_vm *vm = job_vm_of(lua);
	lua_pushnumber(lua, vm->host ? (lua_Number)vm->host->now_ms / 1000 : (lua_Number)uv_hrtime() / 1e9);
	return 1;
}

/* time() → seconds since 1970, with fractions */
static int l_job_time(lua_State *lua)
{
	BIND_AT_MOST(lua, 0, "perilune.time");
	const struct conn_host *host = job_vm_of(lua)->host;
	uv_timeval64_t now = { 0 };
	if (host && host->epoch_ms) {
		lua_pushnumber(lua, (lua_Number)(host->epoch_ms + host->now_ms) / 1000);
		return 1;
	}
	uv_gettimeofday(&now);
	lua_pushnumber(lua, (lua_Number)now.tv_sec + (lua_Number)now.tv_usec / 1e6);
	return 1;
}

enum { NAME_BYTES = 128 };

/* "hash.digest" */
static const char *job_name(const struct job *job, char name[NAME_BYTES])
{
	snprintf(name, NAME_BYTES, "%s.%s", job->module, job->function);
	return name;
}

/* MAY RAISE. log(level, message[, fields]) */
static int l_job_log(lua_State *lua)
{
	const struct job_vm *vm = job_vm_of(lua);
	struct log_field fields[BIND_LOG_FIELDS + 4];
	struct log_entry entry;
	char name[NAME_BYTES];
	bind_log_check(lua, &entry, fields);
	if (vm->job) {
		fields[entry.count++] = F_TEXT("job", job_name(vm->job, name));
		if (vm->job->conn)
			fields[entry.count++] = F_INT("conn", vm->job->conn);
		fields[entry.count++] = F_INT("worker", vm->job->worker);
	}
	fields[entry.count++] = F_INT("generation", vm->instance.generation);
	log_entry(&entry);
	return 0;
}

/* ---- for lua/perilune/job.lua ---- */

/* names() → module, function */
static int l_job_names(lua_State *lua)
{
	const struct job *job = job_vm_of(lua)->job;
	lua_pushstring(lua, job->module);
	lua_pushstring(lua, job->function);
	return 2;
}

/* MAY RAISE. arguments() → false | which of them are packed, arguments */
static int l_job_arguments(lua_State *lua)
{
	const struct job *job = job_vm_of(lua)->job;
	bool packed;
	luaL_checkstack(lua, (int)values_count(job->arguments, job->argument_bytes) + 2,
			"arguments of a job");
	lua_pushboolean(lua, 0);
	int at = lua_gettop(lua);
	int n = values_read(lua, job->arguments, job->argument_bytes, &packed);
	if (packed) {
		values_push_kinds(lua, job->arguments, job->argument_bytes);
		lua_replace(lua, at);
	}
	return n + 1;
}

/* Outside of what may raise. */
static void job_keep(struct job *job, enum job_end end, size_t bytes)
{
	job->result = malloc(bytes);
	job->result_bytes = bytes;
	job->end = (uint8_t)(job->result ? end : JOB_NO_MEMORY);
}

/* MAY RAISE. results(…): it is done */
static int l_job_results(lua_State *lua)
{
	struct job_vm *vm = job_vm_of(lua);
	struct values values;
	if (lua_gettop(lua) > VALUES_MAX)
		RAISE(lua, "perilune.job: a job returns at most %d values: put them into a table",
		      VALUES_MAX);
	luaL_checkstack(lua, 8, "results of a job");
	lua_getfield(lua, LUA_REGISTRYINDEX, PACK);
	lua_insert(lua, 1);
	if (!values_ready(lua, 2, 1, vm->instance.config->jobs.message_bytes, &values)) {
		vm->job->end = JOB_TOO_LARGE;
		return 0;
	}
	job_keep(vm->job, JOB_DONE, values.bytes);
	if (vm->job->result)
		values_write(lua, 2, &values, vm->job->result);
	return 0;
}

/* MAY RAISE. refuse(message): its caller is to blame */
static int l_job_refuse(lua_State *lua)
{
	struct job *job = job_vm_of(lua)->job;
	size_t n;
	const char *message = luaL_checklstring(lua, 1, &n);
	job_keep(job, JOB_REFUSED, n + 1);
	if (job->result)
		memcpy(job->result, message, n + 1);
	return 0;
}

static void push_job_core(lua_State *lua)
{
	static const luaL_Reg FUNCTIONS[] = {
		{ "now", l_job_now },
		{ "time", l_job_time },
		{ "log", l_job_log },
		{ "job_names", l_job_names },
		{ "job_arguments", l_job_arguments },
		{ "job_results", l_job_results },
		{ "job_refuse", l_job_refuse },
		{ NULL, NULL },
	};
	lua_newtable(lua);
	luaL_register(lua, NULL, FUNCTIONS);
	lua_pushboolean(lua, 1);
	lua_setfield(lua, -2, "is_job");
	bind_dict(lua);
}

/* ---- the role ---- */

static void set_list(lua_State *lua, const char *key, const char *list)
{
	lua_pushstring(lua, list ? list : "");
	lua_setfield(lua, -2, key);
}

static void keep_field(lua_State *lua, const char *field, const char *key)
{
	lua_getfield(lua, -1, field);
	lua_setfield(lua, LUA_REGISTRYINDEX, key);
}

/* MAY RAISE. In memory a script draws the same numbers each time. */
static void seed_job(lua_State *lua, const struct job_vm *vm)
{
	if (!vm->host)
		return;
	lua_getglobal(lua, "math");
	lua_getfield(lua, -1, "randomseed");
	lua_pushinteger(lua, (lua_Integer)vm->thread + 1);
	lua_call(lua, 1, 0);
	lua_pop(lua, 1);
}

static void load_job(lua_State *lua)
{
	const struct instance *instance = instance_of(lua);
	seed_job(lua, job_vm_of(lua));
	const struct job_config *jobs = &instance->config->jobs;
	vm_push_function(lua, "perilune.job", "open");
	lua_pushstring(lua, instance->config->script);
	lua_createtable(lua, 0, 4);
	set_list(lua, "modules", jobs->modules);
	set_list(lua, "unsafe", jobs->unsafe);
	set_list(lua, "compat", jobs->compat);
	lua_pushinteger(lua, (lua_Integer)instance->generation);
	lua_setfield(lua, -2, "generation");
	lua_call(lua, 2, 1);
	run_keep_ended(lua);
	keep_field(lua, "run", RUN);
	keep_field(lua, "describe", DESCRIBE);
	keep_field(lua, "pack", PACK);
	bind_open_dicts(lua);
	vm_push_function(lua, "perilune.runtime", "forget_loaders");
	lua_call(lua, 0, 0);
}

static uint32_t least_of_jobs(const struct config *config)
{
	return config->jobs.proceed_ms;
}

static size_t memory_of_jobs(const struct config *config)
{
	return config->jobs.memory_bytes;
}

static bool job_abandon(void *owner, lua_State *lua)
{
	const struct job_vm *vm = owner;
	return vm->job && lua == vm->co;
}

static const struct instance_role JOB_ROLE = {
	.push_core = push_job_core,
	.load = load_job,
	.least_ms = least_of_jobs,
	.memory_bytes = memory_of_jobs,
	.abandon = job_abandon,
};

/* ---- a job that fails ---- */

static const struct vm_budget JOB_DESCRIBE_BUDGET = { .ms = 100 };

static void keep_texts(struct job *job, const char *const texts[JOB_FAULT_TEXTS])
{
	size_t bytes = 0;
	for (int i = 0; i < JOB_FAULT_TEXTS; i++)
		bytes += strlen(texts[i]) + 1;
	free(job->result);
	job_keep(job, JOB_FAILED, bytes);
	char *at = (char *)job->result;
	for (int i = 0; at && i < JOB_FAULT_TEXTS; i++)
		at = stpcpy(at, texts[i]) + 1;
}

/* job_vm, error value → the texts of JOB_FAILED */
static int l_job_describe(lua_State *lua)
{
	const struct job_vm *vm = lua_touserdata(lua, 1);
	lua_getfield(lua, LUA_REGISTRYINDEX, DESCRIBE);
	lua_pushvalue(lua, 2);
	lua_rawgeti(lua, LUA_REGISTRYINDEX, vm->co_ref);
	lua_createtable(lua, 0, 4);
	lua_pushstring(lua, vm->instance.directory);
	lua_setfield(lua, -2, "directory");
	lua_pushinteger(lua, (lua_Integer)vm->instance.generation);
	lua_setfield(lua, -2, "generation");
	if (vm->job->conn) {
		lua_pushnumber(lua, (lua_Number)vm->job->conn);
		lua_setfield(lua, -2, "conn");
	}
	lua_call(lua, 3, JOB_FAULT_TEXTS);
	return JOB_FAULT_TEXTS;
}

static void keep_undescribed(struct job_vm *vm, int at)
{
	lua_State *lua = vm->instance.vm.lua;
	char text[256] = "an error that cannot be described";
	if (lua_type(lua, at) == LUA_TSTRING)
		text_escape(TEXT_LINE, text, sizeof text, lua_tostring(lua, at), lua_objlen(lua, at));
	keep_texts(vm->job, (const char *const[JOB_FAULT_TEXTS]){ text, "", "", "", "" });
}

/* What was raised is on top of the VM's stack, and goes. */
static void keep_fault(struct job_vm *vm)
{
	struct vm *its = &vm->instance.vm;
	lua_State *lua = its->lua;
	int at = lua_gettop(lua);
	vm_make_room(its);
	lua_pushcfunction(lua, l_job_describe);
	lua_pushlightuserdata(lua, vm);
	lua_pushvalue(lua, at);
	if (vm_pcall(its, lua, 2, JOB_FAULT_TEXTS, &JOB_DESCRIBE_BUDGET)) {
		keep_undescribed(vm, at);
	} else {
		const char *texts[JOB_FAULT_TEXTS];
		for (int i = 0; i < JOB_FAULT_TEXTS; i++)
			texts[i] = lua_tostring(lua, at + 1 + i) ? lua_tostring(lua, at + 1 + i) : "";
		keep_texts(vm->job, texts);
	}
	lua_settop(lua, at - 1);
}

/* Pushes what is wrong. */
static void push_what(struct job_vm *vm, int status, enum guard_verdict verdict)
{
	lua_State *lua = vm->instance.vm.lua;
	if (verdict != GUARD_FINE)
		guard_push_error(&vm->instance.vm.guard, lua);
	else if (status == LUA_YIELD)
		lua_pushliteral(lua, "coroutine.yield() outside of a coroutine of the job's own");
	else
		lua_xmove(vm->co, lua, 1);
}

/* A module that it was loading is not taken for one that is being loaded: Lua could think that it goes on. */
static void drop_coroutine(struct job_vm *vm)
{
	lua_State *lua = vm->instance.vm.lua;
	lua_getfield(lua, LUA_REGISTRYINDEX, RUN_ENDED);
	lua_rawgeti(lua, LUA_REGISTRYINDEX, vm->co_ref);
	lua_pushboolean(lua, 1);
	lua_rawset(lua, -3);
	lua_pop(lua, 1);
	luaL_unref(lua, LUA_REGISTRYINDEX, vm->co_ref);
	vm->co = NULL;
	vm->co_ref = LUA_NOREF;
}

/* False: nothing more is to run in this VM. */
static bool job_vm_fail(struct job_vm *vm, int status, enum guard_verdict verdict)
{
	struct job *job = vm->job;
	bool has_memory = verdict != GUARD_MEMORY && status != LUA_ERRMEM;
	vm_forget_loading(&vm->instance.vm);
	if (verdict == GUARD_CALLED_OFF) {
		job->end = JOB_CALLED_OFF;
	} else {
		if (!has_memory)
			vm->instance.vm.is_full = true;
		push_what(vm, status, verdict);
		keep_fault(vm);
		job->code = !has_memory ? "ENOMEM" : verdict == GUARD_CPU ? "ETIME" : "EFAULT";
	}
	drop_coroutine(vm);
	return has_memory && verdict != GUARD_CPU;
}

/* ---- struct job_ops ---- */

static struct job_vm *job_vm_open(const struct job_place *place, char *why, size_t size)
{
	const struct job_surroundings *around = place->owner;
	struct job_vm *vm = calloc(1, sizeof *vm);
	if (!vm) {
		snprintf(why, size, "not enough memory");
		return NULL;
	}
	vm->host = around->host;
	vm->thread = place->thread;
	vm->co_ref = LUA_NOREF;
	vm->instance.dicts = around->dicts;
	vm->instance.now_ms = job_now_ms;
	if (instance_load(&vm->instance, &JOB_ROLE, place->config, (unsigned)STALL_NOBODY, place->generation,
			  why, size)) {
		free(vm);
		return NULL;
	}
	vm_settle(&vm->instance.vm);
	vm->instance.vm.limits = "jobs";
	return vm;
}

static void job_vm_close(struct job_vm *vm)
{
	instance_close(&vm->instance, 0);
	free(vm);
}

static void ready_coroutine(struct job_vm *vm)
{
	lua_State *lua = vm->instance.vm.lua;
	if (vm->co)
		return;
	vm->co = lua_newthread(lua);
	vm->co_ref = luaL_ref(lua, LUA_REGISTRYINDEX);
}

static bool job_vm_run(struct job_vm *vm, struct job *job)
{
	struct vm *its = &vm->instance.vm;
	struct vm_budget budget = { .ms = vm->instance.config->jobs.proceed_ms };
	vm->job = job;
	vm_relieve(its, true);
	ready_coroutine(vm);
	lua_getfield(vm->co, LUA_REGISTRYINDEX, RUN);
	guard_name(&its->guard, "job", job->conn);
	vm_enter(its, &budget);
	int status = lua_resume(vm->co, 0);
	enum guard_verdict verdict = vm_leave(its);
	bool is_fit = true;
	if (status || verdict == GUARD_MEMORY)
		is_fit = job_vm_fail(vm, status, verdict);
	else
		lua_settop(vm->co, 0);
	vm->job = NULL;
	vm_sample(its);
	if (its->finaliser_failures)
		instance_tell_of_finalisers(&vm->instance);
	return is_fit;
}

const struct job_ops JOB_OPS = { job_vm_open, job_vm_run, job_vm_close };
