#include "agent/call.h"

#include "agent/line.h"

#include <stdio.h>
#include <stdlib.h>

static struct call *call_of(struct errand *errand)
{
	return (struct call *)(void *)errand;
}

void call_forget(struct call *call)
{
	idmap_remove(&call->post->calls, call->number);
	names_leave(call->to);
	free(call);
}

static void call_abandon(struct errand *errand)
{
	call_forget(call_of(errand));
}

static void call_explain(const struct errand *errand, char *text, size_t size)
{
	const struct call *call = (const struct call *)(const void *)errand;
	snprintf(text, size, "timeout: %.*s has not answered", call->to->len, call->to->key);
}

static void call_is_late(struct errand *errand)
{
	count(&call_of(errand)->post->counters->calls_timed_out);
}

static const struct errand_ops CALL_ERRAND = {
	.what = "perilune.call", .abandon = call_abandon, .explain = call_explain, .is_late = call_is_late
};

struct call *call_begin(struct post *post)
{
	struct call *call = malloc(sizeof *call);
	if (!call)
		return NULL;
	*call = (struct call){ .errand.ops = &CALL_ERRAND, .post = post, .number = ++post->last_call };
	if (!idmap_put(&post->calls, call->number, call))
		return call;
	free(call);
	return NULL;
}

void call_sign(struct call *call, struct letter *letter)
{
	call->to = letter->to;
	names_hold(call->to);
	letter->call = call->number;
}

/* ---- answers ---- */

static int push_call_refusal(lua_State *lua, enum letter_about why)
{
	static const struct {
		const char *message, *code;
	} WORDS[] = {
		[LETTER_CANCELED] = { "it has ended, or failed, before it has replied", "ECANCELED" },
		[LETTER_OVERSIZE] = { "the reply is larger than 1 MiB", "EMSGSIZE" },
		[LETTER_NO_ROOM] = { "too much is on its way to this worker", "EBUSY" },
		[LETTER_NO_MEMORY] = { "not enough memory for the reply", "ENOMEM" },
	};
	lua_pushnil(lua);
	lua_pushstring(lua, WORDS[why].message);
	lua_pushstring(lua, WORDS[why].code);
	return 3;
}

/* How many values; -1: there is no memory for them. */
static int push_answer(struct agents *agents, lua_State *lua, const struct letter *letter)
{
	if (letter->about != LETTER_REPLY)
		return push_call_refusal(lua, (enum letter_about)letter->about);
	lua_pushboolean(lua, letter->kind == LETTER_PACKED);
	return letter_push(&agents->vm, lua, letter) ? 2 : -1;
}

void call_answer(struct post *post, const struct letter *letter)
{
	struct call *call = idmap_get(&post->calls, letter->call);
	if (!call) {
		count(&post->counters->replies_dropped);
		return;
	}
	struct agents *agents = agents_of_channel(call->errand.run->channel);
	struct run *run = errand_take(agents, &call->errand);
	call_forget(call);
	line_ready(agents, run, push_answer(agents, run->co.lua, letter));
}
