/*
 * A connection goes from one generation's agents to the next one's: its agent's snapshot() is copied, as bytes, into
 * the other VM, where a new agent's upgrade() takes it. Socket, bytes at hand, output, time-outs stay as they are.
 * Where either fails, the old agent goes on as if nothing had been asked of it.
 */
#include "agent/member.h"
#include "agent/recipient.h"
#include "agent/resident.h"
#include "agent/run.h"
#include "agent/websocket.h"
#include "agent/work.h"
#include "base/log.h"
#include "config/config.h"
#include "conn/outgoing.h"

#include <string.h>

/* Its listener's place in another generation, or its kind's; or -1. */
static int listener_in(const struct agents *agents, const struct channel *channel)
{
	if (channel->lone)
		return resident_kind_in(agents, channel);
	return config_find_slot(agents->instance.config, channel->conn->endpoint->slot,
				channel->conn->endpoint->index);
}

bool agents_is_occupied(const struct channel *channel)
{
	return channel->suspended || channel->has_links || work_is_busy(agents_of_channel(channel), channel);
}

static bool is_draining(const struct channel *channel)
{
	return channel->lone ? resident_of(channel)->draining : channel->conn->draining;
}

/* Of a ws:// listener's: what those have in another generation; NULL: there is no such listener. */
static struct agent_endpoint *websockets_in(struct agents *agents, const struct channel *channel)
{
	int at = listener_in(agents, channel);
	struct agent_endpoint *theirs = at < 0 ? NULL : agents->endpoints[at].websockets;
	bool is_listeners = agent_endpoint_of(channel)->upgrader_ref != LUA_NOREF;
	return is_listeners && theirs && theirs->upgrader_ref != LUA_NOREF ? theirs : NULL;
}

/* One that HTTP's agent has accepted: whose agent it would be in another generation, only that one knows. */
static bool is_accepted_websocket(const struct channel *channel)
{
	return websocket_has(channel) && agent_endpoint_of(channel)->upgrader_ref == LUA_NOREF;
}

static bool may_migrate(struct channel *channel, const struct agents *from)
{
	struct agents *to = from->successor;
	if (!to || (!channel->lone && conn_is_outgoing(channel->conn)) ||
	    channel->declined_by == to->instance.generation)
		return false;
	const struct protocol *protocol = channel->conn->protocol;
	if (websocket_has(channel) && !websockets_in(to, channel)) {
		channel->declined_by = to->instance.generation;
		return false;
	}
	if (!protocol->ops->rewinds &&
	    !protocol->ops->is_at_rest) { /* its session is of the old generation */
		channel->declined_by = to->instance.generation;
		return false;
	}
	if (!protocol->ops->rewinds &&
	    (channel->conn->next_protocol || !protocol->ops->is_at_rest(protocol, &channel->conn->session)))
		return false;               /* it is asked again between two messages */
	if (listener_in(to, channel) < 0) { /* it has nowhere to go */
		channel->declined_by = to->instance.generation;
		return false;
	}
	return agents_policy(from, channel) == RELOAD_MIGRATE && channel_is_open(channel) &&
	       channel->anchor && !agents_is_occupied(channel) && !is_draining(channel);
}

static void migrate_push_runtime(lua_State *lua, const char *name)
{
	lua_pushfstring(lua, "perilune.runtime.%s", name);
	lua_rawget(lua, LUA_REGISTRYINDEX);
}

/* The bytes are on run's coroutine until run_end(). NULL: the fault is noted. */
static const char *take_snapshot(struct agents *from, struct run *run, struct channel *channel, size_t *len)
{
	run_begin(from, run, channel, CALL_SNAPSHOT);
	lua_State *co = run->co.lua;
	migrate_push_runtime(co, "snapshot");
	agent_push(from, co, channel);
	/* The requests of HTTP stand alone. */
	lua_pushboolean(co, !channel->lone && messages_of(channel)->answer);
	enum outcome outcome = run_enter(from, run, 2);
	if (outcome == RUN_DONE && lua_type(co, 1) == LUA_TSTRING)
		return lua_tolstring(co, 1, len);
	if (outcome == RUN_DONE) {
		lua_settop(co, 1);
		lua_xmove(co, from->vm.lua, 1);
		lua_replace(from->vm.lua, AT_ERROR);
	}
	fault_note(from, run);
	run_end(from, run, true);
	return NULL;
}

/* Makes the connection's agent in `to`. False: the fault is noted. */
static bool upgrade(struct agents *to, struct channel *channel, const char *bytes, size_t len,
		    uint32_t from_generation)
{
	struct run run;
	run_begin(to, &run, channel, CALL_UPGRADE);
	lua_State *co = run.co.lua;
	lua_rawgeti(co, LUA_REGISTRYINDEX, agent_endpoint_of(channel)->upgrader_ref);
	if (channel->lone)
		resident_push_key(co, channel);
	else
		agent_push_conn(to, co, channel);
	bool is_pushed = vm_push_bytes(&to->vm, co, bytes, len);
	lua_pushinteger(co, (lua_Integer)from_generation);
	if (channel->lone)
		resident_push_name(co, channel);
	else
		lua_pushnil(co);
	bool failed = (is_pushed ? run_enter(to, &run, 4) : run_starve(to, &run)) != RUN_DONE;
	if (failed)
		fault_note(to, &run);
	run_end(to, &run, failed);
	return !failed;
}

/* What a connection has of its generation. */
struct belongings {
	struct agents *agents;
	const struct endpoint *endpoint; /* of a connection */
	unsigned place;                  /* of its kind, where it is none */
	uint32_t anchor;
	bool has_defers, has_work;
	unsigned names;
};

static struct belongings belongings_of(const struct channel *channel)
{
	unsigned place = channel->lone ? (unsigned)resident_kind_in(channel->agents, channel) : 0;
	return (struct belongings){ channel->agents,        channel->conn->endpoint, place,
				    channel->anchor,        channel->has_defers,     channel->has_work,
				    recipient_mark(channel) };
}

static void give_conn(struct channel *channel, const struct belongings *theirs)
{
	channel->agents = theirs->agents;
	channel->conn->endpoint = theirs->endpoint;
	layers_follow(theirs->endpoint->layers, &channel->conn->io);
	stream_bound(&channel->conn->io, theirs->endpoint->protocol->max_bytes,
		     theirs->endpoint->rules.inbox_frames);
	if (!channel->conn->own_timeouts)
		channel->conn->timeouts = &channel->conn->endpoint->rules.timeouts;
}

static void migrate_give(struct channel *channel, const struct belongings *theirs)
{
	if (channel->lone)
		resident_move(channel, theirs->agents, theirs->place);
	else
		give_conn(channel, theirs);
	channel->anchor = theirs->anchor;
	channel->has_defers = theirs->has_defers;
	channel->has_work = theirs->has_work;
}

static struct belongings belongings_in(struct agents *to, const struct channel *channel)
{
	unsigned at = (unsigned)listener_in(to, channel);
	if (channel->lone)
		return (struct belongings){ .agents = to, .place = at };
	const struct endpoint *endpoint = agents_endpoint(to, at, channel->conn->endpoint->slot);
	if (websocket_has(channel)) {
		struct agent_endpoint *websockets = websockets_in(to, channel);
		websockets->endpoint.slot = endpoint->slot;
		endpoint = &websockets->endpoint;
	}
	return (struct belongings){ .agents = to, .endpoint = endpoint };
}

/* The listener's framing, as the new generation has it, or the connection's own, which stays. 0 or UV_ENOMEM. */
static int migrate_speak(struct conn *conn, const struct conn_mark *mark, const struct endpoint *old,
			 const struct endpoint *new)
{
	const struct protocol *spoke = mark->next_protocol ? mark->next_protocol : conn->protocol;
	if (websocket_has(&conn->first))
		return websocket_follow(conn, agent_endpoint_of(&conn->first));
	return conn_set_protocol(conn, spoke == old->protocol ? new->protocol : spoke, 0);
}

/* What upgrade() asks for can be taken back: of a lone channel that is its end alone. */
static struct conn_mark begin_trial(struct channel *channel)
{
	if (channel->has_hub)
		member_try(channel);
	return channel->lone ? (struct conn_mark){ 0 } : conn_mark(channel->conn);
}

static void migrate_keep(struct channel *channel, const struct conn_mark *mark)
{
	if (!channel->lone)
		conn_keep(channel->conn, mark);
}

static void migrate_restore(struct channel *channel, const struct conn_mark *mark)
{
	if (channel->lone)
		resident_go_on(channel);
	else
		conn_restore(channel->conn, mark);
}

/* What upgrade() has done before it failed. */
static void take_back(struct channel *channel, struct agents *to, const struct belongings *old,
		      const struct conn_mark *mark)
{
	if (channel->has_post)
		recipient_restore(channel, old->names);
	if (channel->has_hub)
		member_restore(channel);
	work_end_now(to, channel);
	if (channel->has_defers)
		agent_drop_defers(to, channel);
	agent_release(to, channel);
	migrate_give(channel, old);
	if (websocket_has(channel))
		websocket_unsay_at_close(&channel->conn->session);
	migrate_restore(channel, mark);
}

/* How many connections the generations have; agents without a socket are counted elsewhere. */
static void count_moved(const struct channel *channel, struct agents *from, struct agents *to)
{
	if (channel->lone)
		return;
	agents_count(from, (size_t)-1);
	agents_count(to, 1);
}

/* False: it stays, and *whose fault that is; NULL: nobody's. */
static bool migrate_hand_over(struct channel *channel, struct agents *from, struct agents *to,
			      const struct agents **whose)
{
	struct run run;
	size_t len;
	const char *bytes = take_snapshot(from, &run, channel, &len);
	if (!bytes) {
		*whose = from;
		return false;
	}
	/* snapshot() may have ended it, or deferred a function of the old VM. */
	if (!channel_is_open(channel) || channel->has_defers) {
		run_end(from, &run, false);
		return false;
	}
	struct belongings old = belongings_of(channel), new = belongings_in(to, channel);
	struct conn_mark mark = begin_trial(channel);
	migrate_give(channel, &new);
	int err = new.endpoint ? migrate_speak(channel->conn, &mark, old.endpoint, new.endpoint) : 0;
	bool ok = !err && upgrade(to, channel, bytes, len, from->instance.generation);
	run_end(from, &run, false);
	new = belongings_of(channel);
	if (!ok) {
		take_back(channel, to, &old, &mark);
		*whose = err ? NULL : to;
		return false;
	}
	migrate_keep(channel, &mark);
	migrate_give(channel, &old);
	work_end_now(from, channel); /* its timers: upgrade() has begun its own */
	agent_release(from, channel);
	migrate_give(channel, &new);
	if (channel->has_post)
		recipient_follow(channel, to);
	if (channel->has_hub)
		member_follow(channel, to);
	count_moved(channel, from, to);
	return true;
}

static void count_one(atomic_uint *n)
{
	atomic_store_explicit(n, atomic_load_explicit(n, memory_order_relaxed) + 1, memory_order_relaxed);
}

/* It stays where it is, until another generation asks. `whose` fault it is; NULL: nobody's. */
static void decline(struct channel *channel, struct agents *from, struct agents *to,
		    const struct agents *whose)
{
	channel->declined_by = to->instance.generation;
	count_one(&from->not_migrated);
	count(&from->counters->not_migrated);
	if (whose && !*to->declined_why)
		memcpy(to->declined_why, whose->last_fault, sizeof to->declined_why);
}

/* Apart from decline(): who has declined once stays, and is to be told of as often as somebody wants to know. */
void agents_count_staying(const struct channel *channel)
{
	const struct agents *from = agents_of_channel(channel);
	struct agents *to = from->successor;
	if (!to || channel->declined_by != to->instance.generation || !channel_is_open(channel) ||
	    is_draining(channel) || agents_policy(from, channel) != RELOAD_MIGRATE)
		return;
	struct takeovers *takeovers = &to->takeovers;
	bool removed = listener_in(to, channel) < 0;
	if (!removed && is_accepted_websocket(channel))
		return; /* it is not to migrate: it stays, as those that are pinned */
	bool deferred = !removed && channel->has_defers;
	takeovers->removed += removed;
	takeovers->deferred += deferred;
	takeovers->failed += !removed && !deferred;
	if (takeovers->failed && !*takeovers->why)
		memcpy(takeovers->why, to->declined_why, sizeof takeovers->why);
}

bool agents_migrate(struct channel *channel)
{
	struct agents *from = agents_of_channel(channel), *to = from->successor;
	if (!may_migrate(channel, from))
		return false;
	const struct agents *whose = NULL;
	/* Its deferred functions are of the old VM, and have yet to run. */
	if (channel->has_defers || !migrate_hand_over(channel, from, to, &whose)) {
		decline(channel, from, to, whose);
		return false;
	}
	count_one(&from->migrated);
	count(&from->counters->migrated);
	to->takeovers.migrated++;
	if (!channel->lone)
		conn_attend(channel->conn); /* what upgrade() has sent, and other deadlines */
	return true;
}
