/*
 * What happens when a handler raises: one log entry, a last word, the end of its connection.
 *
 * fault_raise() is the one place where an error in a handler is caught. The error is described
 * (lua/perilune/fault.lua), logged, and folded with others of its kind (repeats.h); failed() is asked for a last word;
 * the connection is closed with `error`, or with the reason that belongs to the guard's verdict.
 */
#include "agent/resident.h"
#include "agent/task.h"
#include "agent/whose.h"
#include "base/log.h"
#include "base/text.h"

#include <stdio.h>
#include <string.h>

static void fault_set_text(lua_State *lua, const char *key, const char *text)
{
	lua_pushstring(lua, text);
	lua_setfield(lua, -2, key);
}

struct description {
	struct agents *agents;
	const struct run *run;
	enum callback blamed;
	const struct whose *whose;
};

/* MAY RAISE. Pushes the function that is blamed, of a codec in Lua; else nil. */
static void push_codec(lua_State *lua, const struct codec *codec, enum callback blamed)
{
	bool is_codecs = codec->kind == CODEC_LUA && (blamed == CALL_DECODE || blamed == CALL_ENCODE);
	if (is_codecs)
		lua_rawgeti(lua, LUA_REGISTRYINDEX,
			    blamed == CALL_DECODE ? codec->lua_decode_ref : codec->lua_encode_ref);
	else
		lua_pushnil(lua);
}

/* MAY RAISE. Whose connection it is, or which agent. */
static void push_who(lua_State *lua, const struct description *description)
{
	const struct channel *channel = description->run->channel;
	if (channel->lone) {
		fault_set_text(lua, "agent_name", resident_name(channel));
		return;
	}
	fault_set_text(lua, "peer", description->whose->peer_text);
	fault_set_text(lua, "listener", channel->conn->endpoint->name);
	lua_pushnumber(lua, (lua_Number)channel->id);
	lua_setfield(lua, -2, "conn");
}

/* MAY RAISE. Pushes what runtime.describe_fault() wants to know. */
static void fault_push_about(lua_State *lua, const struct description *description)
{
	struct agents *agents = description->agents;
	const struct run *run = description->run;
	struct channel *channel = run->channel;
	lua_createtable(lua, 0, 8);
	fault_set_text(lua, "directory", agents->instance.directory);
	fault_set_text(lua, "callback", callback_name(description->blamed));
	if (!work_is_apps(channel))
		push_who(lua, description);
	lua_pushinteger(lua, (lua_Integer)agents->instance.generation);
	lua_setfield(lua, -2, "generation");
	if (channel->anchor && agents_of_channel(channel) == agents)
		agent_push(agents, lua, channel);
	else
		lua_pushnil(lua);
	lua_setfield(lua, -2, "agent");
	lua_rawgeti(lua, LUA_REGISTRYINDEX, agent_endpoint_of(channel)->opener_ref);
	lua_setfield(lua, -2, "opener");
	push_codec(lua, &agent_endpoint_of(channel)->codec, description->blamed);
	lua_setfield(lua, -2, "called");
	lua_pushnumber(lua, (lua_Number)run->serial);
	lua_setfield(lua, -2, "serial");
	if (run->is_task) {
		lua_rawgeti(lua, LUA_REGISTRYINDEX, ((const struct task *)(const void *)run)->origin_ref);
		lua_setfield(lua, -2, "origin");
	}
}

/* description, error value → what log_fault() wants to know */
static int l_fault_describe(lua_State *lua)
{
	const struct description *description = lua_touserdata(lua, 1);
	lua_getfield(lua, LUA_REGISTRYINDEX, "perilune.runtime.describe_fault");
	lua_pushvalue(lua, 2);
	lua_rawgeti(lua, LUA_REGISTRYINDEX, description->run->co.ref);
	fault_push_about(lua, description);
	lua_call(lua, 3, 5);
	return 5;
}

enum { FRAME_BYTES_MAX = 256 }; /* the most that log.frame_bytes may ask for */

/* The first bytes of the frame that proceed() was given, when log.frame_bytes asks for them. */
static void frame_text(struct agents *agents, const struct run *run, char *text, size_t size)
{
	*text = '\0';
	if (run->callback != CALL_PROCEED || run->resumed || !agents->log_frame_bytes)
		return;
	unsigned index = run->batched ? batch_index(agents, run) - 1 : 0;
	if (index >= run->channel->conn->host->batch.count)
		return;
	const struct frame *frame = &run->channel->conn->host->batch.frames[index];
	size_t n = frame->len < agents->log_frame_bytes ? frame->len : agents->log_frame_bytes;
	if (frame->data)
		text_escape(TEXT_LINE, text, size, frame->data, n);
}

/* The time that the connection's handler has had, all calls together. */
static uint64_t used_ms(const struct agents *agents, const struct channel *channel)
{
	return (uint64_t)(ticks_seconds(&agents->ticks, channel->handler_ticks) * 1000);
}

/* Written once, before anybody reads it. */
static void keep_first(struct agents *agents, const char *place, const char *message)
{
	if (atomic_load_explicit(&agents->has_first_fault, memory_order_relaxed))
		return;
	snprintf(agents->first_fault, sizeof agents->first_fault, "%s%s%s", place, *place ? ": " : "",
		 message);
	atomic_store_explicit(&agents->has_first_fault, true, memory_order_release);
}

/* `kind` is what faults of one cause have in common: see repeats_show_fault(). */
static void log_fault(struct agents *agents, const struct run *run, enum callback blamed,
		      const struct whose *about, const char *message, const char *excerpt, const char *trace,
		      const char *place, const char *kind)
{
	keep_first(agents, place, message);
	const char *name = callback_name(run->callback);
	size_t n = strlen(name);
	bool is_named = !strncmp(place, name, n) && place[n] == ','; /* "snapshot, defined at app.lua:4" */
	snprintf(agents->last_fault, sizeof agents->last_fault, "%s%s%s: %s", is_named ? "" : name,
		 *place && !is_named ? ", " : "", place, message);
	if (!repeats_show_fault(agents, run->channel->conn->endpoint->index, kind, place, message))
		return;
	char frame[4 * FRAME_BYTES_MAX + 1];
	frame_text(agents, run, frame, sizeof frame);
	log_write(LOG_ERROR, "handler failed", F_TEXT("error", message), F_TEXT("place", place),
		  F_TEXT("callback", callback_name(blamed)), about->conn, about->peer, about->listener,
		  about->agent, F_INT("worker", agents->instance.worker),
		  F_INT("generation", agents->instance.generation),
		  F_INT("used_ms", used_ms(agents, run->channel)), F_TEXT("frame", frame),
		  F_TEXT("traceback", trace), F_TEXT("excerpt", excerpt));
}

enum close_reason reason_of_verdict(enum guard_verdict verdict)
{
	switch (verdict) {
	case GUARD_CPU:
		return REASON_PROCEED_TIMEOUT;
	case GUARD_MEMORY:
	case GUARD_ALLOCATION:
		return REASON_MEMORY;
	case GUARD_CALLED_OFF: /* only what is loaded is */
	case GUARD_FINE:
		break;
	}
	return REASON_ERROR;
}

/* An error's __tostring is code of the user's; but what we do ourselves takes a while as well. */
static struct vm_budget describe_budget(const struct run *run)
{
#if defined __SANITIZE_ADDRESS__ || defined __SANITIZE_THREAD__
	enum { LEAST_MS = 100, MOST_MS = 100 };
#else
	enum { LEAST_MS = 10, MOST_MS = 100 };
#endif
	uint32_t ms = agent_endpoint_of(run->channel)->budget.ms;
	return (struct vm_budget){ .ms = !ms || ms > MOST_MS ? MOST_MS : ms < LEAST_MS ? LEAST_MS : ms };
}

enum close_reason fault_reason(const struct run *run)
{
	if (run->is_overdue)
		return REASON_PROCEED_TIMEOUT;
	return reason_of_verdict((enum guard_verdict)run->verdict);
}

/* Describing an error runs code that the error itself may upset; then what is at hand must do. */
static void log_undescribed(struct agents *agents, const struct run *run, enum callback blamed,
			    const struct whose *about)
{
	lua_State *lua = agents->vm.lua;
	char message[256];
	if (lua_type(lua, AT_ERROR) == LUA_TSTRING)
		text_escape(TEXT_LINE, message, sizeof message, lua_tostring(lua, AT_ERROR),
			    lua_objlen(lua, AT_ERROR));
	else
		snprintf(message, sizeof message, "%s", "an error that cannot be described");
	log_fault(agents, run, blamed, about, message, "", "", "", "");
}

static void fault_describe(struct agents *agents, const struct run *run, enum callback blamed)
{
	lua_State *lua = agents->vm.lua;
	struct whose about;
	whose(run->channel, &about);
	vm_make_room(&agents->vm);
	struct description description = { agents, run, blamed, &about };
	lua_pushcfunction(lua, l_fault_describe);
	lua_pushlightuserdata(lua, &description);
	lua_pushvalue(lua, AT_ERROR);
	struct vm_budget budget = describe_budget(run);
	guard_name(&agents->vm.guard, callback_name(blamed), run->channel->id);
	if (vm_pcall(&agents->vm, lua, 2, 5, &budget)) {
		log_undescribed(agents, run, blamed, &about);
	} else {
		log_fault(agents, run, blamed, &about, lua_tostring(lua, -5), lua_tostring(lua, -4),
			  lua_tostring(lua, -3), lua_tostring(lua, -2), lua_tostring(lua, -1));
	}
	lua_settop(lua, AT_TOP);
}

/* The agent may say a last word. It is told what was raised, and by what. */
static void ask_failed(struct agents *agents, struct channel *channel, enum callback blamed)
{
	struct run last;
	callback_prepare(agents, &last, channel, CALL_FAILED);
	lua_pushvalue(agents->vm.lua, AT_ERROR);
	lua_xmove(agents->vm.lua, last.co.lua, 1);
	lua_pushstring(last.co.lua, callback_name(blamed));
	callback_finish(agents, &last, run_enter(agents, &last, 4));
}

/* Counts and logs it. Returns who is blamed: an encode() that its replies have met, or the call itself. */
static enum callback note(struct agents *agents, struct run *run)
{
	enum callback blamed = agents->encode_failed ? CALL_ENCODE : run->callback;
	if (run->verdict == GUARD_FINE)
		run->verdict = (uint8_t)agents->reply_verdict;
	reply_forget(agents);
	count(&agents->counters->faults);
	count(&agents->counters->faults_by[fault_reason(run)]);
	fault_describe(agents, run, blamed);
	return blamed;
}

void fault_note(struct agents *agents, struct run *run)
{
	(void)note(agents, run);
}

static bool has_last_word(const struct run *run)
{
	const struct channel *channel = run->channel;
	return run->callback != CALL_FAILED && run->callback != CALL_CLOSED && run->callback != CALL_DEFER &&
	       channel_is_open(channel) && channel->anchor &&
	       (!channel->suspended || channel->suspended == run);
}

void fault_raise(struct agents *agents, struct run *run)
{
	struct channel *channel = run->channel;
	enum callback blamed = note(agents, run);
	if (work_is_apps(channel))
		return; /* there is nothing to end but the task */
	if (run->verdict == GUARD_CPU)
		channel_give_way(channel);
	if (has_last_word(run)) {
		agents->failing = run;
		ask_failed(agents, channel, blamed);
		agents->failing = NULL;
	}
	/* What failed() is told of is why the connection ends, whatever becomes of the telling. */
	if (run->callback != CALL_FAILED)
		channel_close(channel, fault_reason(run), CLOSE_FLUSH);
}

void fault_decode(struct agents *agents, struct channel *channel)
{
	struct run run;
	run_begin(agents, &run, channel, CALL_DECODE);
	run.verdict = (uint8_t)agents->decode_verdict;
	agents->decode_failed = false;
	fault_raise(agents, &run);
	run_end(agents, &run, false);
}
