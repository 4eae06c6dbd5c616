/*
 * The callbacks of connections, and where agents are anchored.
 *
 * Agents are anchored in tables of 256: the collector traverses a table in one step, and one table for all agents would
 * make that step as long as there are connections.
 */
#include "agent/agent.h"

#include "agent/handle.h"
#include "agent/http.h"
#include "agent/link.h"
#include "agent/member.h"
#include "agent/message.h"
#include "agent/recipient.h"
#include "agent/record.h"
#include "agent/resident.h"
#include "agent/run.h"
#include "agent/task.h"
#include "agent/whose.h"
#include "base/err.h"
#include "base/log.h"
#include "conn/outgoing.h"
#include "conn/peer.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <uv.h>

/* ---- anchors ---- */

enum { ANCHORS_PER_TABLE = 256 };

static int anchor_table_of(const struct agents *agents, uint32_t anchor)
{
	return agents->anchor_tables[(anchor - 1) / ANCHORS_PER_TABLE];
}

static int anchor_slot_of(uint32_t anchor)
{
	return (int)((anchor - 1) % ANCHORS_PER_TABLE) + 1;
}

/* MAY RAISE. One more table of anchors, all free. */
static bool add_anchors(struct agents *agents, lua_State *lua)
{
	uint32_t tables = agents->anchor_count / ANCHORS_PER_TABLE, first = agents->anchor_count + 1;
	int *refs = realloc(agents->anchor_tables, (tables + 1) * sizeof *refs);
	if (!refs)
		return false;
	agents->anchor_tables = refs;
	size_t slots = (size_t)agents->anchor_count + ANCHORS_PER_TABLE + 1;
	uint32_t *next = realloc(agents->anchor_next, slots * sizeof *next);
	if (!next)
		return false;
	agents->anchor_next = next;
	lua_createtable(lua, ANCHORS_PER_TABLE, 0);
	refs[tables] = luaL_ref(lua, LUA_REGISTRYINDEX);
	agents->anchor_count += ANCHORS_PER_TABLE;
	for (uint32_t i = agents->anchor_count; i >= first; i--) {
		next[i] = agents->anchor_free;
		agents->anchor_free = i;
	}
	return true;
}

void agent_anchor(struct agents *agents, lua_State *lua, struct channel *channel)
{
	if (!agents->anchor_free && !add_anchors(agents, lua))
		luaL_error(lua, "not enough memory for another agent");
	uint32_t anchor = agents->anchor_free;
	/* First, for it may be the stack's last slot. */
	lua_rawgeti(lua, LUA_REGISTRYINDEX, anchor_table_of(agents, anchor));
	agents->anchor_free = agents->anchor_next[anchor];
	channel->anchor = anchor;
	lua_insert(lua, -2);
	lua_rawseti(lua, -2, anchor_slot_of(anchor));
	lua_pop(lua, 1);
}

void agent_release(struct agents *agents, struct channel *channel)
{
	uint32_t anchor = channel->anchor;
	if (!anchor)
		return;
	lua_State *lua = agents->vm.lua;
	lua_rawgeti(lua, LUA_REGISTRYINDEX, anchor_table_of(agents, anchor));
	lua_pushnil(lua);
	lua_rawseti(lua, -2, anchor_slot_of(anchor));
	lua_pop(lua, 1);
	agents->anchor_next[anchor] = agents->anchor_free;
	agents->anchor_free = anchor;
	channel->anchor = 0;
}

void agent_push_anchored(struct agents *agents, lua_State *lua, const struct channel *channel)
{
	lua_rawgeti(lua, LUA_REGISTRYINDEX, anchor_table_of(agents, channel->anchor));
	lua_rawgeti(lua, -1, anchor_slot_of(channel->anchor));
}

void agent_push(struct agents *agents, lua_State *lua, const struct channel *channel)
{
	agent_push_anchored(agents, lua, channel);
	lua_replace(lua, -2);
}

/* ---- callbacks other than proceed ---- */

void callback_prepare(struct agents *agents, struct run *run, struct channel *channel, enum callback callback)
{
	run_begin(agents, run, channel, callback);
	lua_State *lua = agents->vm.lua, *co = run->co.lua;
	lua_pushvalue(lua, AT_INVOKE);
	lua_xmove(lua, co, 1);
	agent_push(agents, co, channel);
	lua_pushstring(co, callback_name(callback));
}

/* eof() and drain() return true to keep the connection. Of one that has waited, that is known only here. */
static void unless_kept(struct run *run, bool keep)
{
	struct channel *channel = run->channel;
	if (keep)
		return;
	if (run->callback == CALL_EOF)
		channel_close(channel, REASON_PEER, CLOSE_FLUSH);
	if (run->callback == CALL_DRAIN && channel->lone)
		resident_keep_no_more(channel);
	else if (run->callback == CALL_DRAIN)
		channel->conn->drain_kept = false;
}

bool callback_finish(struct agents *agents, struct run *run, enum outcome outcome)
{
	if (run->callback == CALL_MESSAGE) {
		recipient_finish(agents, run, outcome);
		return false;
	}
	if (run->callback == CALL_HEARD) {
		member_finish(agents, run, outcome);
		return false;
	}
	bool keep = false, failed = outcome == RUN_FAILED;
	/* opened() is called by the opener, and a timer is a function: no "found" is before their results. */
	int first = run->callback == CALL_OPENED || run->callback == CALL_TIMER ? 1 : 2;
	if (outcome == RUN_DONE &&
	    !reply_take(agents, run, first, run->callback == CALL_TIMER ? NULL : &keep))
		failed = true;
	if (failed)
		fault_raise(agents, run);
	if (run->resumed && !failed)
		unless_kept(run, keep);
	run_end(agents, run, outcome == RUN_FAILED);
	return keep;
}

/* Calls agent:name(), with one more argument if there is one on the VM's stack. */
static bool call(struct agents *agents, struct channel *channel, enum callback callback, int nargs)
{
	struct run run;
	callback_prepare(agents, &run, channel, callback);
	lua_xmove(agents->vm.lua, run.co.lua, nargs);
	enum outcome outcome = run_enter(agents, &run, 2 + nargs);
	return outcome == RUN_SUSPENDED || callback_finish(agents, &run, outcome);
}

bool agent_has_method(struct agents *agents, const struct channel *channel, enum callback callback)
{
	lua_State *lua = agents->vm.lua;
	lua_pushvalue(lua, AT_HAS);
	agent_push(agents, lua, channel);
	lua_pushstring(lua, callback_name(callback));
	const struct vm_budget *budget = &agent_endpoint_of(channel)->budget;
	guard_name(&agents->vm.guard, callback_name(callback), channel->id);
	bool has = !vm_pcall(&agents->vm, lua, 2, 1, budget) && lua_toboolean(lua, -1);
	lua_settop(lua, AT_TOP);
	return has;
}

/* ---- struct conn_handler ---- */

void agent_push_conn(struct agents *agents, lua_State *lua, const struct channel *channel)
{
	lua_createtable(lua, 1, 0);
	lua_pushnumber(lua, handle_seal(lua_topointer(lua, -1), channel->id));
	lua_rawseti(lua, -2, HANDLE_AT);
	lua_pushvalue(agents->vm.lua, AT_CONN);
	lua_xmove(agents->vm.lua, lua, 1);
	lua_setmetatable(lua, -2);
}

static void on_opened(struct channel *channel)
{
	struct agents *agents = agents_of_channel(channel);
	struct run run;
	if (__builtin_expect(channel->conn->host->tape != NULL, 0))
		record_open(channel);
	run_begin(agents, &run, channel, CALL_OPENED);
	lua_rawgeti(run.co.lua, LUA_REGISTRYINDEX, agent_endpoint_of(channel)->opener_ref);
	agent_push_conn(agents, run.co.lua, channel);
	enum outcome outcome = run_enter(agents, &run, 1);
	if (outcome != RUN_SUSPENDED)
		callback_finish(agents, &run, outcome);
}

/* Whoever may knock may do so as often as it likes: entries are few. */
static void agent_log_refusal(struct agents *agents, const struct channel *channel, enum close_reason reason,
			      const char *why)
{
	const struct conn *conn = channel->conn;
	char peer[PEER_TEXT_BYTES];
	if (!repeats_show_refusal(agents, conn->endpoint->index, why))
		return;
	log_write(LOG_WARN, "connection refused", F_TEXT("reason", reason_name(reason)),
		  F_TEXT(reason == REASON_LIMIT ? "limit" : "error", why), F_INT("conn", channel->id),
		  F_TEXT("peer", peer_text(conn, peer, sizeof peer)),
		  F_TEXT("listener", conn->endpoint->name), F_INT("worker", agents->instance.worker),
		  F_INT("generation", agents->instance.generation));
}

static void on_refused(struct channel *channel, enum close_reason reason, const char *why)
{
	agent_log_refusal(agents_of_channel(channel), channel, reason, why);
}

/* What was handed up is used by now. */
static void migrate_behind(struct channel *channel, const struct protocol *by)
{
	struct conn *conn = channel->conn;
	if (by->ops->taken && by == conn->protocol)
		by->ops->taken(by, &conn->session);
	agents_migrate(channel);
}

static __attribute__((noinline)) unsigned on_unusual_frames(struct agents *agents, struct channel *channel,
							    struct batch *batch)
{
	if (channel->is_piped)
		return pipe_frames(channel, batch);
	/* The frames are decoded anew: they may be others under the new generation's codec. */
	if (agents->successor && !channel->reading && (agents_migrate(channel) || !channel_is_open(channel)))
		return 0;
	if (channel->recorded)
		record_in(channel, batch);
	if (!channel->reading) {
		unsigned used = batch_run(agents, channel, batch);
		/* One whose session rests between messages can go only then. */
		if (agents->successor && !batch->by->ops->rewinds && channel->agents == agents)
			migrate_behind(channel, batch->by);
		return used;
	}
	struct run *run = work_reader(agents, channel);
	int values = 1 + batch->by->messages->more;
	run_wake(agents, run, batch_push_first(agents, run->co.lua, batch) ? values : -1);
	return 1;
}

static unsigned on_frames(struct channel *channel, struct batch *batch)
{
	struct agents *agents = agents_of_channel(channel);
	bool is_unusual = channel->is_piped || channel->recorded || channel->reading || agents->successor;
	if (__builtin_expect(is_unusual, 0))
		return on_unusual_frames(agents, channel, batch);
	return batch_run(agents, channel, batch);
}

enum { EOF_READS_MAX = 100 };

static enum eof_answer on_eof(struct channel *channel)
{
	struct agents *agents = agents_of_channel(channel);
	struct run *run = channel->suspended,
		   *reader = channel->reading ? work_reader(agents, channel) : NULL;
	if (channel->recorded && !channel->conn->eof_later && !channel->conn->eof_done)
		record_eof(channel);
	if (channel->is_piped)
		return pipe_eof(channel);
	if (reader && http_waits_for_all(channel))
		return EOF_CLOSE;
	if (reader) {
		bool is_task = reader->is_task;
		/* It reads on and on, and does not look: that would be for ever. */
		if (++channel->conn->eof_reads > EOF_READS_MAX)
			return EOF_CLOSE;
		run_fail_read(agents, reader, "end of stream", "EOF");
		if (!is_task || channel->agents != agents || channel->reading || !channel_is_open(channel))
			return EOF_LATER; /* that of another generation, perhaps: the task was what it had waited for */
		run = channel->suspended; /* a task was told, and now the agent */
	}
	if (!channel->anchor)
		return EOF_CLOSE;
	if (run && run_has_returned(run))
		return EOF_LATER;
	/*
	 * An agent that has eof() finishes its call first. Any other ends, even one that waits: most clients that send
	 * FIN have gone, and a protocol that half-closes says so by having the method.
	 */
	if (run) /* a request is answered all the same: its client has said all that it has to */
		return messages_of(channel)->answer || agent_has_method(agents, channel, CALL_EOF)
			   ? EOF_LATER
			   : EOF_CLOSE;
	return call(agents, channel, CALL_EOF, 0) ? EOF_KEEP : EOF_CLOSE;
}

static const char *const TIMEOUT_NAMES[TIMEOUT_KINDS] = { "read", "write", "idle", "first_frame" };

static bool agent_on_timeout(struct channel *channel, enum timeout_kind kind)
{
	struct agents *agents = agents_of_channel(channel);
	if (!channel->anchor)
		return false;
	lua_pushstring(agents->vm.lua, TIMEOUT_NAMES[kind]);
	return call(agents, channel, CALL_TIMEOUT, 1);
}

static void log_bad_frame(struct agents *agents, const struct channel *channel, int err, const char *error)
{
	char peer[PEER_TEXT_BYTES];
	if (!repeats_show_bad_frame(agents, channel->conn->endpoint->index, err))
		return;
	log_write(LOG_WARN, "bad frame", F_TEXT("error", error), F_INT("conn", channel->id),
		  F_TEXT("peer", peer_text(channel->conn, peer, sizeof peer)),
		  F_TEXT("listener", channel->conn->endpoint->name), F_INT("worker", agents->instance.worker),
		  F_INT("generation", agents->instance.generation));
}

static void on_bad_frame(struct channel *channel, const struct batch *batch)
{
	struct agents *agents = agents_of_channel(channel);
	const struct protocol *by = batch->by;
	char error[sizeof agents->codec_error];
	bool by_lua = by->messages->are_values && batch->error == ERR_FRAME_MALFORMED;
	by->ops->explain(by, batch, error, sizeof error);
	if (channel->recorded)
		record_note(channel, TRACE_BAD_FRAME);
	if (by_lua && agents->decode_failed)
		fault_decode(agents, channel);
	else
		log_bad_frame(agents, channel, batch->error, error);
	if (http_waits_for_all(channel))
		return; /* its call is for a whole request alone, as if it had come before */
	struct run *reader = channel->reading ? work_reader(agents, channel) : channel->suspended;
	if (reader) { /* in conn:read, or nobody had looked at its frames */
		run_fail_read(agents, reader, error,
			      batch->error == ERR_FRAME_TOO_LARGE ? "EMSGSIZE" : "EPROTO");
		return;
	}
	if (!channel->anchor || !channel_is_open(channel))
		return;
	if (batch->error == ERR_FRAME_TOO_LARGE && !by->messages->answer) {
		lua_pushnumber(agents->vm.lua, (lua_Number)batch->announced);
		call(agents, channel, CALL_OVERSIZE, 1);
	} else {
		lua_pushstring(agents->vm.lua, error);
		call(agents, channel, CALL_MALFORMED, 1);
	}
}

static void agent_on_writable(struct channel *channel)
{
	struct agents *agents = agents_of_channel(channel);
	if (channel->is_piped)
		pipe_writable(channel);
	if (channel->suspended)
		channel->owes_writable = true;
	else if (channel->anchor)
		call(agents, channel, CALL_WRITABLE, 0);
}

static void on_flushed(struct channel *channel)
{
	struct agents *agents = agents_of_channel(channel);
	struct run *run = channel->suspended;
	work_flushed(agents, channel);
	if (!run || run->wait != WAIT_FLUSH || run->at != channel)
		return;
	lua_pushboolean(run->co.lua, 1);
	run_wake(agents, run, 1);
}

/* timeout.drain = 0 leaves as long as it takes. */
static const uint64_t DRAIN_FOREVER_MS = UINT64_C(1) << 50;

static bool on_drain(struct channel *channel, uint64_t remaining_ms)
{
	struct agents *agents = agents_of_channel(channel);
	if (channel->recorded)
		record_note(channel, TRACE_DRAIN);
	if (!channel->anchor)
		return false;
	lua_pushnumber(agents->vm.lua,
		       remaining_ms > DRAIN_FOREVER_MS ? HUGE_VAL : (lua_Number)remaining_ms / 1000);
	return call(agents, channel, CALL_DRAIN, 1);
}

void agent_drop_defers(struct agents *agents, const struct channel *channel)
{
	agent_drop_defers_of(agents, (double)channel->id);
}

void agent_drop_defers_of(struct agents *agents, double key)
{
	lua_State *lua = agents->vm.lua;
	do {
		lua_settop(lua, AT_TOP);
		lua_pushvalue(lua, AT_TAKE_DEFER);
		lua_pushnumber(lua, key);
	} while (!lua_pcall(lua, 1, 1, 0) && !lua_isnil(lua, -1));
	lua_settop(lua, AT_TOP);
}

/* Runs the functions of conn:defer. False: there may be more of them, and its turn is over. */
static bool run_defers(struct agents *agents, struct channel *channel)
{
	lua_State *lua = agents->vm.lua;
	uint64_t began = channel->handler_ticks;
	bool is_over;
	while (!(is_over = channel_turn_is_over(channel, began))) {
		lua_pushvalue(lua, AT_TAKE_DEFER);
		lua_pushnumber(lua, (lua_Number)channel->id);
		if (lua_pcall(lua, 1, 1, 0) || lua_isnil(lua, -1))
			break;
		struct run run;
		run_begin(agents, &run, channel, CALL_DEFER);
		lua_xmove(lua, run.co.lua, 1);
		enum outcome outcome = run_enter(agents, &run, 0);
		if (outcome == RUN_FAILED)
			fault_raise(agents, &run);
		run_end(agents, &run, outcome == RUN_FAILED);
		/* Each would cost the others as much again. */
		if (run.verdict != GUARD_FINE) {
			agent_drop_defers(agents, channel);
			break;
		}
	}
	lua_settop(lua, AT_TOP);
	return !is_over;
}

static void log_tls_failure(struct agents *agents, const struct channel *channel, const char *why)
{
	char peer[PEER_TEXT_BYTES];
	const struct conn *conn = channel->conn;
	if (!repeats_show_tls_failure(agents, conn->endpoint->index))
		return;
	log_write(LOG_WARN, "TLS failed", F_TEXT("error", why), F_INT("conn", channel->id),
		  F_TEXT("peer", peer_text(conn, peer, sizeof peer)),
		  F_TEXT("listener", conn->endpoint->name), F_INT("worker", agents->instance.worker),
		  F_INT("generation", agents->instance.generation));
}

/* Its stream may have failed in its opening or later: a client that speaks something else, a record that is broken. */
static void log_layer_failure(struct agents *agents, const struct channel *channel, enum close_reason reason)
{
	if ((reason != REASON_TLS && reason != REASON_PROXY) || channel != &channel->conn->first)
		return;
	const char *why = stream_failure(&channel->conn->io);
	if (why && reason == REASON_TLS)
		log_tls_failure(agents, channel, why);
	else if (why)
		agent_log_refusal(agents, channel, reason, why);
}

static void log_end(struct agents *agents, const struct channel *channel, enum close_reason reason)
{
	struct whose about;
	if (!log_enabled(LOG_DEBUG))
		return;
	whose(channel, &about);
	log_write(LOG_DEBUG, "closed", F_TEXT("reason", reason_name(reason)), about.conn, about.peer,
		  about.listener, about.agent, F_INT("worker", agents->instance.worker),
		  F_INT("generation", agents->instance.generation));
}

static void agent_tell_closed(struct agents *agents, struct channel *channel, enum close_reason reason)
{
	log_layer_failure(agents, channel, reason);
	log_end(agents, channel, reason);
	if (channel->recorded)
		record_close(channel, reason);
	if (channel->anchor) {
		const struct message_kind *messages = messages_of(channel);
		lua_pushstring(agents->vm.lua, reason_name(reason));
		int more = messages && messages->push_end ? messages->push_end(agents->vm.lua, channel) : 0;
		call(agents, channel, CALL_CLOSED, 1 + more);
	}
}

static bool agent_on_closed(struct channel *channel, enum close_reason reason)
{
	struct agents *agents = agents_of_channel(channel);
	bool told = channel->told_closed;
	if (channel->has_links)
		link_end(agents, channel, reason);
	run_cancel(agents, channel);
	if (channel->has_post)
		recipient_end(agents, channel);
	if (channel->has_hub)
		member_end(channel);
	if (channel->has_work && !work_end(agents, channel))
		return false;
	channel->told_closed = true;
	if (!told)
		agent_tell_closed(agents, channel, reason);
	if (channel->has_defers && !run_defers(agents, channel))
		return false;
	agent_release(agents, channel);
	return true;
}

const struct conn_handler AGENT_HANDLER = {
	.opened = on_opened,
	.refused = on_refused,
	.frames = on_frames,
	.eof = on_eof,
	.timeout = agent_on_timeout,
	.bad_frame = on_bad_frame,
	.writable = agent_on_writable,
	.flushed = on_flushed,
	.room = member_has_room,
	.drain = on_drain,
	.closed = agent_on_closed,
};

void agents_ask_anew(struct agents *agents)
{
	atomic_store_explicit(&agents->not_migrated, 0, memory_order_relaxed);
}

void agents_succeed(struct agents *agents, struct agents *successor, const struct agents *policies)
{
	agents->successor = successor;
	agents->policies = policies;
	work_supersede_app(agents);
}

void agents_end_app(struct agents *agents)
{
	if (agents->app && !agents->app_is_over)
		work_end_app(agents);
}

bool agents_have_ended(struct agents *agents)
{
	if (atomic_load_explicit(&agents->conns, memory_order_relaxed) || residents_count(agents))
		return false;
	if (agents->clients)
		agents_end_app(agents); /* they are its, or on their way out */
	return !agents->clients;
}

static enum reload_policy policy_for(const struct agents *agents, unsigned slot, unsigned listener)
{
	const struct agents *by = agents->policies;
	int theirs = config_find_slot(by->instance.config, slot, listener);
	return theirs < 0 ? by->removed_policy : by->endpoints[theirs].policy;
}

enum reload_policy agents_policy(const struct agents *agents, const struct channel *channel)
{
	if (channel->lone)
		return residents_policy(agents->policies, channel->conn->endpoint->name);
	return policy_for(agents, channel->conn->endpoint->slot, channel->conn->endpoint->index);
}

/* What those of this endpoint are to do now. */
static void note_policy(struct agent_endpoint *endpoint, enum reload_policy policy, enum drains *noted)
{
	bool drained = endpoint->drains;
	endpoint->drains = policy == RELOAD_DRAIN;
	if (endpoint->drains && !drained)
		*noted = DRAINS_MORE;
	else if (endpoint->drains && !*noted)
		*noted = DRAINS_NO_MORE;
}

enum drains agents_note_drains(struct agents *agents)
{
	enum drains noted = DRAINS_NONE;
	const struct config *config = agents->instance.config;
	for (unsigned i = 0; i < agents->endpoint_count; i++)
		note_policy(&agents->endpoints[i], policy_for(agents, config->listeners[i].slot, i), &noted);
	for (unsigned i = 0; i < config->kind_count; i++)
		note_policy(residents_endpoint(agents, i),
			    residents_policy(agents->policies, config->kinds[i].name), &noted);
	return noted;
}

const char *agents_first_fault(const struct agents *agents)
{
	bool has = atomic_load_explicit(&agents->has_first_fault, memory_order_acquire);
	return has ? agents->first_fault : NULL;
}

void agents_set_policy(struct agents *agents, enum reload_policy policy)
{
	for (unsigned i = 0; i < agents->endpoint_count; i++)
		agents->endpoints[i].policy = policy;
	for (unsigned i = 0; i < agents->instance.config->kind_count; i++)
		residents_endpoint(agents, i)->policy = policy;
	agents->removed_policy = policy;
}

const struct endpoint *agents_endpoint(struct agents *agents, unsigned index, uint16_t slot)
{
	struct endpoint *endpoint = &agents->endpoints[index].endpoint;
	endpoint->slot = slot;
	return endpoint;
}

const struct codec *agents_codec(const struct agents *agents, unsigned listener)
{
	return &agents->endpoints[listener].codec;
}
