/*
 * The callbacks of connections, and where agents are anchored.
 *
 * Agents are anchored in tables of 256: the collector traverses a table in one step, and one table for all agents would
 * make that step as long as there are connections.
 */
#include "agent/agent.h"

#include "agent/handle.h"
#include "agent/record.h"
#include "agent/run.h"
#include "base/err.h"
#include "base/log.h"
#include "conn/peer.h"
#include "tls/stream.h"

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
	if (run->callback == CALL_DRAIN)
		channel->conn->drain_kept = false;
}

bool callback_finish(struct agents *agents, struct run *run, enum outcome outcome)
{
	bool keep = false, failed = outcome == RUN_FAILED;
	/* opened() is called by the opener, without a "found" before its results. */
	int first = run->callback == CALL_OPENED ? 1 : 2;
	if (outcome == RUN_DONE && !reply_take(agents, run, first, &keep))
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

/* Looking a method up may run an __index of the script, so it is protected. */
static bool has_method(struct agents *agents, const struct channel *channel, enum callback callback)
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
static void on_refused(struct channel *channel, enum close_reason reason, const char *why)
{
	struct agents *agents = agents_of_channel(channel);
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

static unsigned on_frames(struct channel *channel, struct batch *batch)
{
	struct agents *agents = agents_of_channel(channel);
	/* The frames are decoded anew: they may be others under the new generation's codec. */
	if (__builtin_expect(agents->successor != NULL, 0) && !channel->reading &&
	    (agents_migrate(channel) || !channel_is_open(channel)))
		return 0;
	if (__builtin_expect(channel->recorded, 0))
		record_in(channel, batch);
	if (!channel->reading)
		return batch_run(agents, channel, batch);
	struct run *run = channel->suspended;
	run_wake(agents, run, batch_push_first(agents, run->co.lua, batch) ? 1 : -1);
	return 1;
}

enum { EOF_READS_MAX = 100 };

/* What it waits for in conn:read does not come: nil, message, code. */
static void fail_read(struct agents *agents, struct run *run, const char *message, const char *code)
{
	lua_pushnil(run->co.lua);
	lua_pushstring(run->co.lua, message);
	lua_pushstring(run->co.lua, code);
	run_wake(agents, run, 3);
}

static enum eof_answer on_eof(struct channel *channel)
{
	struct agents *agents = agents_of_channel(channel);
	struct run *run = channel->suspended;
	if (channel->recorded && !channel->conn->eof_later && !channel->conn->eof_done)
		record_note(channel, TRACE_EOF);
	if (run && run->wait == WAIT_READ) {
		/* It reads on and on, and does not look: that would be for ever. */
		if (++channel->conn->eof_reads > EOF_READS_MAX)
			return EOF_CLOSE;
		fail_read(agents, run, "end of stream", "EOF");
		return EOF_LATER;
	}
	if (!channel->anchor)
		return EOF_CLOSE;
	if (run && run->wait == WAIT_TURN)
		return EOF_LATER;
	/*
	 * An agent that has eof() finishes its call first. Any other ends, even one that waits: most clients that send
	 * FIN have gone, and a protocol that half-closes says so by having the method.
	 */
	if (run)
		return has_method(agents, channel, CALL_EOF) ? EOF_LATER : EOF_CLOSE;
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
	if (channel->suspended) { /* in conn:read, or nobody had looked at its frames */
		fail_read(agents, channel->suspended, error,
			  batch->error == ERR_FRAME_TOO_LARGE ? "EMSGSIZE" : "EPROTO");
		return;
	}
	if (!channel->anchor || !channel_is_open(channel))
		return;
	if (batch->error == ERR_FRAME_TOO_LARGE) {
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
	if (channel->suspended)
		channel->owes_writable = true;
	else if (channel->anchor)
		call(agents, channel, CALL_WRITABLE, 0);
}

static void on_flushed(struct channel *channel)
{
	struct agents *agents = agents_of_channel(channel);
	struct run *run = channel->suspended;
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
	lua_State *lua = agents->vm.lua;
	do {
		lua_settop(lua, AT_TOP);
		lua_pushvalue(lua, AT_TAKE_DEFER);
		lua_pushnumber(lua, (lua_Number)channel->id);
	} while (!lua_pcall(lua, 1, 1, 0) && !lua_isnil(lua, -1));
	lua_settop(lua, AT_TOP);
}

/* False: there may be more of them, and its turn is over. */
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

/* It has not opened: a client that speaks something else, or does not like the certificate. */
static void log_failed_opening(struct agents *agents, const struct channel *channel)
{
	char peer[PEER_TEXT_BYTES];
	const struct conn *conn = channel->conn;
	const char *why = tls_stream_why(&conn->io);
	if (!why || !repeats_show_bad_frame(agents, conn->endpoint->index, ERR_TLS))
		return;
	log_write(LOG_WARN, "TLS failed", F_TEXT("error", why), F_INT("conn", channel->id),
		  F_TEXT("peer", peer_text(conn, peer, sizeof peer)),
		  F_TEXT("listener", conn->endpoint->name), F_INT("worker", agents->instance.worker),
		  F_INT("generation", agents->instance.generation));
}

static void log_end(struct agents *agents, const struct channel *channel, enum close_reason reason)
{
	char peer[PEER_TEXT_BYTES];
	if (!log_enabled(LOG_DEBUG))
		return;
	log_write(LOG_DEBUG, "closed", F_TEXT("reason", reason_name(reason)), F_INT("conn", channel->id),
		  F_TEXT("peer", peer_text(channel->conn, peer, sizeof peer)),
		  F_TEXT("listener", channel->conn->endpoint->name), F_INT("worker", agents->instance.worker),
		  F_INT("generation", agents->instance.generation));
}

static void agent_tell_closed(struct agents *agents, struct channel *channel, enum close_reason reason)
{
	run_cancel(agents, channel);
	if (reason == REASON_TLS)
		log_failed_opening(agents, channel);
	log_end(agents, channel, reason);
	if (channel->recorded)
		record_close(channel, reason);
	if (channel->anchor) {
		lua_pushstring(agents->vm.lua, reason_name(reason));
		call(agents, channel, CALL_CLOSED, 1);
	}
}

static bool agent_on_closed(struct channel *channel, enum close_reason reason)
{
	struct agents *agents = agents_of_channel(channel);
	bool told = channel->told_closed;
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
	.drain = on_drain,
	.closed = agent_on_closed,
};

/* ---- time ---- */

static struct run *run_of(struct wheel_node *timer)
{
	return (struct run *)(void *)((char *)timer - offsetof(struct run, timer));
}

/* What it waits for may have arrived in time, and not been looked at yet. */
static void time_out_read(struct agents *agents, struct run *run, uint64_t now_ms)
{
	struct channel *channel = run->channel;
	if (now_ms < agents->host->grace_until_ms) {
		wheel_arm(&agents->sleeps, &run->timer, agents->host->grace_until_ms);
		return;
	}
	conn_read_late(channel->conn);
	if (channel->suspended == run && run->wait == WAIT_READ && run->until_ms <= now_ms)
		fail_read(agents, run, "timeout", "ETIMEDOUT");
}

/* Whoever is left over from the last turn comes first: one that sleeps for no time would be before them each time. */
void agents_turn(struct agents *agents, uint64_t now_ms)
{
	struct wheel_node *node;
	uint64_t taken = 0;
	vm_relieve(&agents->vm, true);
	if (wheel_is_empty(&agents->due))
		wheel_advance(&agents->sleeps, now_ms, &agents->due);
	while (taken <= CONN_TICKS_PER_STAGE && (node = wheel_pop(&agents->due))) {
		struct run *run = run_of(node);
		const struct channel *channel = run->channel;
		taken -= channel->handler_ticks;
		if (run->wait == WAIT_SLEEP)
			run_wake(agents, run, 0);
		else if (run->wait == WAIT_TURN)
			batch_go_on(agents, run);
		else
			time_out_read(agents, run, now_ms);
		taken += channel->handler_ticks;
	}
}

uint64_t agents_next_ms(const struct agents *agents)
{
	if (!wheel_is_empty(&agents->due))
		return agents->host->now_ms;
	uint64_t sleep_ms = wheel_next_ms(&agents->sleeps);
	return sleep_ms < agents->repeats.next_ms ? sleep_ms : agents->repeats.next_ms;
}

/*
 * Ending calls does not help against what is kept on purpose: then every growth ends a connection, and somebody has to
 * be told why. Not after the first relief: an agent that was ended lives on until its peer has taken the last output.
 */
static void warn_of_memory(struct agents *agents, uint64_t now_ms)
{
	enum { RELIEFS = 2, EVERY_MS = 60000 };
	struct vm *vm = &agents->vm;
	if (vm->stays_full < RELIEFS || now_ms < agents->memory_warning_ms)
		return;
	agents->memory_warning_ms = now_ms + EVERY_MS;
	vm->stays_full = 1; /* the next relief decides about the next line */
	log_write(LOG_WARN, "memory stays over the limit", F_INT("live_bytes", vm->live_bytes),
		  F_INT("limit_bytes", vm->memory_bytes), F_INT("worker", agents->instance.worker),
		  F_INT("generation", agents->instance.generation),
		  F_TEXT("hint",
			 "bound what the script keeps for all connections (a cache in a local of a file), or "
			 "raise limits.memory; until then calls that need more end with memory"));
}

/* It was called between calls, so there is no connection to blame. */
static void warn_of_finalisers(struct agents *agents, uint64_t now_ms)
{
	enum { EVERY_MS = 60000 };
	if (!agents->vm.finaliser_failures || now_ms < agents->finaliser_warning_ms)
		return;
	agents->finaliser_warning_ms = now_ms + EVERY_MS;
	instance_tell_of_finalisers(&agents->instance);
}

void agents_report(struct agents *agents)
{
	uint64_t now_ms = agents->host->now_ms;
	warn_of_memory(agents, now_ms);
	warn_of_finalisers(agents, now_ms);
	if (now_ms >= agents->repeats.next_ms)
		repeats_sweep(agents, now_ms);
}

void agents_ask_anew(struct agents *agents)
{
	atomic_store_explicit(&agents->not_migrated, 0, memory_order_relaxed);
}

void agents_succeed(struct agents *agents, struct agents *successor, const struct agents *policies)
{
	agents->successor = successor;
	agents->policies = policies;
}

static enum reload_policy policy_for(const struct agents *agents, unsigned slot, unsigned listener)
{
	const struct agents *by = agents->policies;
	int theirs = config_find_slot(by->instance.config, slot, listener);
	return theirs < 0 ? by->removed_policy : by->endpoints[theirs].policy;
}

enum reload_policy agents_policy(const struct agents *agents, const struct channel *channel)
{
	return policy_for(agents, channel->conn->endpoint->slot, channel->conn->endpoint->index);
}

enum drains agents_note_drains(struct agents *agents)
{
	enum drains noted = DRAINS_NONE;
	for (unsigned i = 0; i < agents->endpoint_count; i++) {
		struct agent_endpoint *listener = &agents->endpoints[i];
		bool drained = listener->drains;
		listener->drains =
		    policy_for(agents, agents->instance.config->listeners[i].slot, i) == RELOAD_DRAIN;
		if (listener->drains && !drained)
			noted = DRAINS_MORE;
		else if (listener->drains && !noted)
			noted = DRAINS_NO_MORE;
	}
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
