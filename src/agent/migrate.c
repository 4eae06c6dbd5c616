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
static int listener_in(const struct agents *agents, const struct conn *conn)
{
	return config_find_slot(agents->instance.config, conn->endpoint->slot, conn->endpoint->index);
}

static bool may_migrate(struct conn *conn, const struct agents *from)
{
	struct agents *to = from->successor;
	if (!to || conn->declined_by == to->instance.generation)
		return false;
	if (listener_in(to, conn) < 0) { /* it has nowhere to go */
		conn->declined_by = to->instance.generation;
		return false;
	}
	return agents_policy(from, conn) == RELOAD_MIGRATE && conn_is_open(conn) && conn->anchor &&
	       !conn->suspended && !conn->draining;
}

static void migrate_push_runtime(lua_State *lua, const char *name)
{
	lua_pushfstring(lua, "perilune.runtime.%s", name);
	lua_rawget(lua, LUA_REGISTRYINDEX);
}

/* The bytes are on run's coroutine until run_end(). NULL: the fault is noted. */
static const char *take_snapshot(struct agents *from, struct run *run, struct conn *conn, size_t *len)
{
	run_begin(from, run, conn, CALL_SNAPSHOT);
	lua_State *co = run->co.lua;
	migrate_push_runtime(co, "snapshot");
	agent_push(from, co, conn);
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
static bool upgrade(struct agents *to, struct conn *conn, const char *bytes, size_t len,
		    uint32_t from_generation)
{
	struct run run;
	run_begin(to, &run, conn, CALL_UPGRADE);
	lua_State *co = run.co.lua;
	lua_rawgeti(co, LUA_REGISTRYINDEX, agent_endpoint_of(conn)->upgrader_ref);
	agent_push_conn(to, co, conn);
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
	const struct codec *codec;
	bool has_defers;
};

static struct belongings belongings_of(const struct conn *conn)
{
	return (struct belongings){ conn->agents, conn->endpoint, conn->anchor, conn->codec,
				    conn->has_defers };
}

static void migrate_give(struct conn *conn, const struct belongings *theirs)
{
	conn->agents = theirs->agents;
	conn->endpoint = theirs->endpoint;
	conn->anchor = theirs->anchor;
	conn->codec = theirs->codec;
	conn->has_defers = theirs->has_defers;
	if (!conn->own_timeouts)
		conn->timeouts = &conn->endpoint->rules.timeouts;
	conn_forget_scanned(conn);
}

static struct belongings belongings_in(struct agents *to, const struct conn *conn)
{
	bool listeners_own = conn->codec == conn->endpoint->codec;
	unsigned at = (unsigned)listener_in(to, conn);
	const struct endpoint *endpoint = agents_endpoint(to, at, conn->endpoint->slot);
	return (struct belongings){ to, endpoint, 0, listeners_own ? endpoint->codec : conn->codec, false };
}

/* What upgrade() has done before it failed. */
static void take_back(struct conn *conn, struct agents *to, const struct belongings *old,
		      const struct conn_mark *mark)
{
	if (conn->has_defers)
		agent_drop_defers(to, conn);
	agent_release(to, conn);
	migrate_give(conn, old);
	conn_restore(conn, mark);
}

/* False: it stays, and *whose fault that is; NULL: nobody's. */
static bool migrate_hand_over(struct conn *conn, struct agents *from, struct agents *to,
			      const struct agents **whose)
{
	struct run run;
	size_t len;
	const char *bytes = take_snapshot(from, &run, conn, &len);
	if (!bytes) {
		*whose = from;
		return false;
	}
	/* snapshot() may have ended it, or deferred a function of the old VM. */
	if (!conn_is_open(conn) || conn->has_defers) {
		run_end(from, &run, false);
		return false;
	}
	struct belongings old = belongings_of(conn), new = belongings_in(to, conn);
	struct conn_mark mark = conn_mark(conn);
	migrate_give(conn, &new);
	bool ok = upgrade(to, conn, bytes, len, from->instance.generation);
	run_end(from, &run, false);
	new = belongings_of(conn);
	if (!ok) {
		take_back(conn, to, &old, &mark);
		*whose = to;
		return false;
	}
	conn_keep(conn, &mark);
	migrate_give(conn, &old);
	agent_release(from, conn);
	migrate_give(conn, &new);
	agents_count(from, (size_t)-1);
	agents_count(to, 1);
	return true;
}

static void count_one(atomic_uint *n)
{
	atomic_store_explicit(n, atomic_load_explicit(n, memory_order_relaxed) + 1, memory_order_relaxed);
}

/* It stays where it is, until another generation asks. `whose` fault it is; NULL: nobody's. */
static void decline(struct conn *conn, struct agents *from, struct agents *to, const struct agents *whose)
{
	conn->declined_by = to->instance.generation;
	count_one(&from->not_migrated);
	count(&from->counters->not_migrated);
	if (whose && !*to->declined_why)
		memcpy(to->declined_why, whose->last_fault, sizeof to->declined_why);
}

/* Apart from decline(): who has declined once stays, and is to be told of as often as somebody wants to know. */
void agents_count_staying(const struct conn *conn)
{
	const struct agents *from = agents_of_conn(conn);
	struct agents *to = from->successor;
	if (!to || conn->declined_by != to->instance.generation || !conn_is_open(conn) || conn->draining ||
	    agents_policy(from, conn) != RELOAD_MIGRATE)
		return;
	struct takeovers *takeovers = &to->takeovers;
	bool removed = listener_in(to, conn) < 0, deferred = !removed && conn->has_defers;
	takeovers->removed += removed;
	takeovers->deferred += deferred;
	takeovers->failed += !removed && !deferred;
	if (takeovers->failed && !*takeovers->why)
		memcpy(takeovers->why, to->declined_why, sizeof takeovers->why);
}

bool agents_migrate(struct conn *conn)
{
	struct agents *from = agents_of_conn(conn), *to = from->successor;
	if (!may_migrate(conn, from))
		return false;
	const struct agents *whose = NULL;
	/* Its deferred functions are of the old VM, and have yet to run. */
	if (conn->has_defers || !migrate_hand_over(conn, from, to, &whose)) {
		decline(conn, from, to, whose);
		return false;
	}
	count_one(&from->migrated);
	count(&from->counters->migrated);
	to->takeovers.migrated++;
	conn_attend(conn); /* what upgrade() has sent, and other deadlines */
	return true;
}
