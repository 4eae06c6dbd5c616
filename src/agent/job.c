#include "agent/job.h"

#include "agent/line.h"
#include "agent/whose.h"
#include "vm/values.h"

#include <lauxlib.h>
#include <stdio.h>
#include <string.h>

/* ---- struct errand_ops ---- */

static struct agent_job *job_of_errand(const struct errand *errand)
{
	return (struct agent_job *)(void *)((char *)errand - offsetof(struct agent_job, errand));
}

static void abandon_job(struct errand *errand)
{
	jobs_abandon(&job_of_errand(errand)->job);
}

static void explain_job(const struct errand *errand, char *text, size_t size)
{
	const struct job *job = &job_of_errand(errand)->job;
	snprintf(text, size, "timeout: %.64s.%.64s() has not come to its end", job->module, job->function);
}

const struct errand_ops JOB_ERRAND = { .what = "perilune.job",
				       .abandon = abandon_job,
				       .explain = explain_job };

/* ---- a job that has failed ---- */

enum { ABOUT_BYTES = 1024, LEVELS_MAX = 20 };

struct fault_texts {
	const char *message, *report, *trace, *place, *kind;
};

static struct fault_texts texts_of(const struct job *job)
{
	const char *at[JOB_FAULT_TEXTS], *text = (const char *)job->result;
	for (int i = 0; i < JOB_FAULT_TEXTS; i++) {
		at[i] = text;
		text += strlen(text) + 1;
	}
	return (struct fault_texts){ at[0], at[1], at[2], at[3], at[4] };
}

static bool is_frame_of_users(const lua_Debug *frame)
{
	return frame->source[0] == '@' && !strstr(frame->source, "/lua/perilune/") &&
	       !strstr(frame->source, "/lua/perilune.lua") && frame->currentline > 0;
}

/* Where the call that waits was when it gave the job, and where that was called: a line for each, behind `indent`. */
static void describe_caller(lua_State *co, const char *indent, char *text, size_t size)
{
	lua_Debug frame;
	size_t at = 0;
	*text = '\0';
	for (int level = 0; level < LEVELS_MAX && at < size && lua_getstack(co, level, &frame); level++) {
		if (!lua_getinfo(co, "Sl", &frame) || !is_frame_of_users(&frame))
			continue;
		int n = snprintf(text + at, size - at, "%s%.200s:%d: %s\n", indent, frame.source + 1,
				 frame.currentline, at ? "calls that" : "gives the job");
		at += n > 0 ? (size_t)n : 0;
	}
	size_t used = strlen(text);
	if (used && text[used - 1] == '\n' && !*indent)
		text[used - 1] = '\0';
}

static void log_job_fault(struct agents *agents, const struct run *run, const struct job *job)
{
	struct fault_texts texts = texts_of(job);
	struct whose about;
	char name[ABOUT_BYTES], caller[ABOUT_BYTES], trace[4 * ABOUT_BYTES], report[8 * ABOUT_BYTES];
	if (!repeats_show_fault(agents, run->channel->conn->endpoint->index, texts.kind, texts.place,
				texts.message))
		return;
	whose(run->channel, &about);
	snprintf(name, sizeof name, "%s.%s", job->module, job->function);
	describe_caller(run->co.lua, "", caller, sizeof caller);
	snprintf(trace, sizeof trace, "%s%s%s", texts.trace, *texts.trace ? "\n" : "", caller);
	describe_caller(run->co.lua, "    ", caller, sizeof caller);
	snprintf(report, sizeof report, "%s%s", texts.report, caller);
	log_write(LOG_ERROR, "job failed", F_TEXT("error", texts.message), F_TEXT("place", texts.place),
		  F_TEXT("job", name), about.conn, about.peer, about.listener, about.agent,
		  F_INT("worker", agents->instance.worker), F_INT("generation", agents->instance.generation),
		  F_TEXT("traceback", trace), F_TEXT("excerpt", report));
}

/* ---- what the caller is given: false or what is packed, and results; or true and what it is to raise ---- */

static int push_job_error(lua_State *lua, const char *message, const char *code)
{
	lua_pushboolean(lua, 0);
	lua_pushnil(lua);
	lua_pushstring(lua, message);
	lua_pushstring(lua, code);
	return 4;
}

static int push_job_fault(lua_State *lua, const struct job *job)
{
	struct fault_texts texts = texts_of(job);
	char message[2 * ABOUT_BYTES];
	snprintf(message, sizeof message, "%s%s%s", texts.place, *texts.place ? ": " : "", texts.message);
	return push_job_error(lua, message, job->code);
}

/* MAY RAISE. */
static int push_job_results(lua_State *lua, const struct job *job)
{
	bool packed;
	int at = lua_gettop(lua) + 1;
	lua_pushboolean(lua, 0);
	int n = values_read(lua, job->result, job->result_bytes, &packed);
	if (packed) {
		values_push_kinds(lua, job->result, job->result_bytes);
		lua_replace(lua, at);
	}
	return n + 1;
}

/* Runs protected: job → what push_job_results() pushes */
static int l_push_job_results(lua_State *lua)
{
	const struct job *job = lua_touserdata(lua, 1);
	luaL_checkstack(lua, (int)values_count(job->result, job->result_bytes) + 2, "results of a job");
	return push_job_results(lua, job);
}

/* How many values; -1: there is no memory for them. */
static int give_results(struct vm *vm, lua_State *co, const struct job *job)
{
	int count = (int)values_count(job->result, job->result_bytes) + 2;
	if (!vm_make_stack(vm, co, count))
		return -1;
	if (vm_may_push(vm, job->result_bytes))
		return push_job_results(co, job);
	return vm_push(vm, co, l_push_job_results, job) ? count - 1 : -1;
}

static int give_outcome(struct agents *agents, const struct run *run, const struct job *job)
{
	lua_State *co = run->co.lua;
	switch ((enum job_end)job->end) {
	case JOB_DONE:
		return give_results(&agents->vm, co, job);
	case JOB_FAILED:
		log_job_fault(agents, run, job);
		return push_job_fault(co, job);
	case JOB_REFUSED:
		lua_pushboolean(co, 1);
		lua_pushstring(co, (const char *)job->result);
		return 2;
	case JOB_TOO_LARGE:
		return push_job_error(co, "the results are larger than jobs.message", "EMSGSIZE");
	case JOB_NO_MEMORY:
		return push_job_error(co, "not enough memory for the results", "ENOMEM");
	case JOB_CALLED_OFF:
		break;
	}
	return push_job_error(co, "the job was called off", "ECANCELED");
}

static void tell_caller(struct agent_job *its)
{
	struct agents *agents = its->agents;
	struct run *run = errand_take(agents, &its->errand);
	line_ready(agents, run, give_outcome(agents, run, &its->job));
}

bool agent_jobs_over(struct job_port *port)
{
	struct mail *next, *mail = port ? job_port_take(port) : NULL;
	bool any = mail;
	for (; mail; mail = next) {
		struct job *job = (struct job *)(void *)mail;
		next = mail->next;
		if (!job->is_abandoned)
			tell_caller((struct agent_job *)(void *)job);
		job_free(job);
	}
	return any;
}
