/* perilune.job(): what of it is C. Its Lua side is lua/perilune/jobs.lua. */
#include "agent/job.h"
#include "bind/bind.h"
#include "config/config.h"
#include "vm/values.h"

#include <stdlib.h>
#include <string.h>
#include <uv.h>

/* The arguments of l_job(). */
enum { AT_LANE = 1, AT_TIMEOUT, AT_PACK, AT_MODULE, AT_FUNCTION, AT_FIRST };

/* false or what is packed come first: see lua/perilune/jobs.lua. */
static int refuse_job(lua_State *lua, const char *message, const char *code)
{
	lua_pushboolean(lua, 0);
	lua_pushnil(lua);
	lua_pushstring(lua, message);
	lua_pushstring(lua, code);
	return 4;
}

/* MAY RAISE. In setup() there is no crew yet: what is wrong there is that nothing can wait, which is told later. */
static const struct job_config *check_jobs(lua_State *lua)
{
	const struct agents *agents = agents_of(lua);
	const struct job_config *config = &agents->instance.config->jobs;
	if (!config->workers || (!agents->crew && agents->current))
		bind_raise(
		    lua, "perilune.job: there are no jobs: in the script's settings, jobs = { workers = 2 }");
	return config;
}

/* MAY RAISE. */
static void check_job_name(lua_State *lua, int idx, const char *name)
{
	if (lua_type(lua, idx) == LUA_TFUNCTION)
		bind_raise(
		    lua,
		    "perilune.job: a job runs in another VM, where this function is not: expects the name "
		    "of a module of the app and that of a function of it, as in "
		    "perilune.job(\"hash\", \"digest\", data)");
	if (lua_type(lua, idx) != LUA_TSTRING)
		bind_raise(lua,
			   "perilune.job: expects the name of %s, as in perilune.job(\"hash\", \"digest\", "
			   "data), got %s",
			   name, luaL_typename(lua, idx));
}

/* MAY RAISE. */
static void check_arguments(lua_State *lua)
{
	check_job_name(lua, AT_MODULE, "a module");
	check_job_name(lua, AT_FUNCTION, "a function");
	if (lua_gettop(lua) >= AT_FIRST + VALUES_MAX)
		bind_raise(lua, "perilune.job: more than %d arguments: put them into a table", VALUES_MAX);
	luaL_checkstack(lua, 8, "perilune.job");
}

static const char *copy_name(lua_State *lua, int idx, char **at)
{
	size_t n;
	const char *text = lua_tolstring(lua, idx, &n), *copy = *at;
	memcpy(*at, text, n + 1);
	*at += n + 1;
	return copy;
}

/* Raises nothing. NULL: there is no memory. */
static struct agent_job *new_job(lua_State *lua, const struct run *run, const struct values *values)
{
	struct agents *agents = agents_of(lua);
	size_t names = lua_objlen(lua, AT_MODULE) + lua_objlen(lua, AT_FUNCTION) + 2;
	struct agent_job *its = malloc(sizeof *its + names + values->bytes);
	if (!its)
		return NULL;
	*its = (struct agent_job){ .agents = agents, .errand.ops = &JOB_ERRAND };
	char *at = its->bytes;
	struct job *job = &its->job;
	job->crew = agents->crew;
	job->port = agents->host->job_port;
	job->module = copy_name(lua, AT_MODULE, &at);
	job->function = copy_name(lua, AT_FUNCTION, &at);
	job->arguments = (uint8_t *)at;
	job->argument_bytes = values->bytes;
	job->conn = run->channel->id;
	job->worker = agents->instance.worker;
	job->lane = (uint8_t)lua_tointeger(lua, AT_LANE);
	values_write(lua, AT_FIRST, values, (uint8_t *)at);
	return its;
}

/* MAY RAISE, MAY YIELD. It is given, or is the caller's still. */
static int give_job(lua_State *lua, struct run *run, struct agent_job *its, const struct job_config *config)
{
	int err = 0;
	bool has_time = lua_type(lua, AT_TIMEOUT) == LUA_TNUMBER;
	uint32_t ms = has_time ? (uint32_t)lua_tonumber(lua, AT_TIMEOUT) : config->timeout_ms;
	enum job_given given = jobs_give(its->job.port->jobs, &its->job, &err);
	if (given == JOB_GIVEN)
		return errand_wait(lua, run, &its->errand, ms);
	job_free(&its->job);
	if (given == JOB_NO_THREAD)
		return refuse_job(lua, uv_strerror(err), uv_err_name(err));
	if (config->when_full == JOBS_ERROR)
		bind_raise(lua, "perilune.job: too many jobs wait (jobs.queue is %d)", (int)config->queue);
	return refuse_job(lua, "busy: too many jobs wait", "EBUSY");
}

/*
 * MAY RAISE, MAY YIELD. job(lane, milliseconds | false, pack, module, function, …) → false | which results are packed,
 * results…; false, nil, message, code; true, what the caller is to raise
 */
static int l_job(lua_State *lua)
{
	const struct job_config *config = check_jobs(lua);
	struct values values;
	check_arguments(lua);
	bind_check_beginner(lua, "perilune.job", "a task of app:spawn(…)");
	struct run *run = bind_check_waiter(lua, "perilune.job");
	if (!values_ready(lua, AT_FIRST, AT_PACK, config->message_bytes, &values))
		return refuse_job(lua, "the arguments are larger than jobs.message", "EMSGSIZE");
	struct agent_job *its = new_job(lua, run, &values);
	if (!its)
		return refuse_job(lua, "not enough memory", "ENOMEM");
	return give_job(lua, run, its, config);
}

/* lanes() → their names, in their order */
static int l_job_lanes(lua_State *lua)
{
	const struct job_config *config = &agents_of(lua)->instance.config->jobs;
	lua_createtable(lua, (int)config->lane_count, 0);
	for (unsigned i = 0; i < config->lane_count; i++) {
		lua_pushstring(lua, config->lanes[i].name);
		lua_rawseti(lua, -2, (int)i + 1);
	}
	return 1;
}

void bind_job(lua_State *lua)
{
	static const luaL_Reg FUNCTIONS[] = {
		{ "job", l_job },
		{ "job_lanes", l_job_lanes },
		{ NULL, NULL },
	};
	luaL_register(lua, NULL, FUNCTIONS);
}
