/*
 * A connection goes from one generation's agents to the next one's: its agent's snapshot() is copied, as bytes, into
 * the other VM, where a new agent's upgrade() takes it. Socket, bytes at hand, output, time-outs stay as they are.
 * Where either fails, the old agent goes on as if nothing had been asked of it.
 */
#include "agent/run.h"
#include "base/log.h"
#include "config/config.h"

#include <string.h>

/* Its listener's place in another generation, or -1. */
static int listener_in(const struct agents *agents, const struct channel *channel)
{
	return config_find_slot(agents->instance.config, channel->conn->endpoint->slot,
				channel->conn->endpoint->index);
}

static bool may_migrate(struct channel *channel, const struct agents *from)
{
	struct agents *to = from->successor;
	if (!to || channel->declined_by == to->instance.generation)
		return false;
	if (!channel->conn->protocol->ops->rewinds) { /* its session is of the old generation */
		channel->declined_by = to->instance.generation;
		return false;
	}
	if (listener_in(to, channel) < 0) { /* it has nowhere to go */
		channel->declined_by = to->instance.generation;
		return false;
	}
	return agents_policy(from, channel) == RELOAD_MIGRATE && channel_is_open(channel) &&
	       channel->anchor && !channel->suspended && !channel->conn->draining;
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
	enum outcome outcome = run_enter(from, run, 1);
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
	agent_push_conn(to, co, channel);
	bool is_pushed = vm_push_bytes(&to->vm, co, bytes, len);
	lua_pushinteger(co, (lua_Integer)from_generation);
	bool failed = (is_pushed ? run_enter(to, &run, 3) : run_starve(to, &run)) != RUN_DONE;
	if (failed)
		fault_note(to, &run);
	run_end(to, &run, failed);
	return !failed;
}

/* What a connection has of its generation. */
struct belongings {
	struct agents *agents;
	const struct endpoint *endpoint;
	uint32_t anchor;
	bool has_defers;
};

static struct belongings belongings_of(const struct channel *channel)
{
	return (struct belongings){ channel->agents, channel->conn->endpoint, channel->anchor,
				    channel->has_defers };
}

static void migrate_give(struct channel *channel, const struct belongings *theirs)
{
	channel->agents = theirs->agents;
	channel->conn->endpoint = theirs->endpoint;
	channel->anchor = theirs->anchor;
	channel->has_defers = theirs->has_defers;
	if (!channel->conn->own_timeouts)
		channel->conn->timeouts = &channel->conn->endpoint->rules.timeouts;
}

static struct belongings belongings_in(struct agents *to, const struct channel *channel)
{
	unsigned at = (unsigned)listener_in(to, channel);
	return (struct belongings){ to, agents_endpoint(to, at, channel->conn->endpoint->slot), 0, false };
}

/* The listener's framing, as the new generation has it, or the connection's own, which stays. */
static void migrate_speak(struct conn *conn, const struct conn_mark *mark, const struct endpoint *old,
			  const struct endpoint *new)
{
	const struct protocol *spoke = mark->next_protocol ? mark->next_protocol : conn->protocol;
	conn_set_protocol(conn, spoke == old->protocol ? new->protocol : spoke, 0);
}

/* What upgrade() has done before it failed. */
static void take_back(struct channel *channel, struct agents *to, const struct belongings *old,
		      const struct conn_mark *mark)
{
	if (channel->has_defers)
		agent_drop_defers(to, channel);
	agent_release(to, channel);
	migrate_give(channel, old);
	conn_restore(channel->conn, mark);
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
	struct conn_mark mark = conn_mark(channel->conn);
	migrate_give(channel, &new);
	migrate_speak(channel->conn, &mark, old.endpoint, new.endpoint);
	bool ok = upgrade(to, channel, bytes, len, from->instance.generation);
	run_end(from, &run, false);
	new = belongings_of(channel);
	if (!ok) {
		take_back(channel, to, &old, &mark);
		*whose = to;
		return false;
	}
	conn_keep(channel->conn, &mark);
	migrate_give(channel, &old);
	agent_release(from, channel);
	migrate_give(channel, &new);
	agents_count(from, (size_t)-1);
	agents_count(to, 1);
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
	    channel->conn->draining || agents_policy(from, channel) != RELOAD_MIGRATE)
		return;
	struct takeovers *takeovers = &to->takeovers;
	bool removed = listener_in(to, channel) < 0, deferred = !removed && channel->has_defers;
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
	conn_attend(channel->conn); /* what upgrade() has sent, and other deadlines */
	return true;
}
