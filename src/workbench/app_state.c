/* What there is of an app in memory: connections, log, counters. */
#include "agent/request.h"
#include "agent/run.h"
#include "agent/task.h"
#include "workbench/app.h"

#include <stdio.h>
#include <string.h>

/* Whose reply it is that an errand is for; NULL: it is none for a reply. */
static const char *replier_of(const struct world_worker *worker, const struct errand *errand)
{
	const struct conn_host *out = worker->outgoing.outgoing.host;
	for (size_t i = 0; out && i < out->ids.capacity; i++) {
		const struct conn *conn = conn_host_at((struct conn_host *)out, i);
		const struct client *client = conn ? client_of(&conn->first) : NULL;
		if (!client || !client->is_shared)
			continue;
		for (const struct request *each = client->requests.first; each; each = each->next)
			if (&each->errand == errand)
				return conn->endpoint->name;
	}
	return NULL;
}

/* "timeout: nobody has answered at tcp://db:1" is what it would be told then. */
static void name_errand(const struct world_worker *worker, const struct errand *errand, char *text,
			size_t size)
{
	char why[ERRAND_TEXT_BYTES] = "";
	const char *replier = replier_of(worker, errand), *colon;
	if (errand->ops->explain)
		errand->ops->explain(errand, why, sizeof why);
	if (replier)
		snprintf(text, size, "pool:request: no reply has come from %s", replier);
	else if (*why)
		snprintf(text, size, "%s: %s", errand->ops->what,
			 (colon = strstr(why, ": ")) ? colon + 2 : why);
	else
		snprintf(text, size, "%s", errand->ops->what);
}

static void name_wait(const struct world_worker *worker, const struct run *run, char *text, size_t size)
{
	bool is_on_conn = run->wait == WAIT_READ || run->wait == WAIT_FLUSH;
	bool is_out = is_on_conn && conn_is_outgoing(run->at->conn);
	const char *name = is_out ? run->at->conn->endpoint->name : "";
	switch (run->wait) {
	case WAIT_SLEEP:
		snprintf(text, size, "perilune.sleep");
		break;
	case WAIT_READ:
		snprintf(text, size, "conn:read%s%s", is_out ? " from " : "", name);
		break;
	case WAIT_FLUSH:
		snprintf(text, size, "conn:flush%s%s", is_out ? " to " : "", name);
		break;
	case WAIT_ERRAND:
		name_errand(worker, run->errand, text, size);
		break;
	case WAIT_OWED:
		snprintf(text, size, "replies of pool:forward");
		break;
	default:
		snprintf(text, size, "a task, a channel, a semaphore, or for a free connection of a pool");
	}
}

static void app_state_set_text(lua_State *lua, const char *key, const char *text)
{
	lua_pushstring(lua, text);
	lua_setfield(lua, -2, key);
}

static const char *phase_text(const struct conn *conn)
{
	static const char *const STATES[] = {
		[CONN_OPEN] = "open",
		[CONN_CLOSING] = "closing",
		[CONN_LINGER] = "waits for the client to close",
		[CONN_CLOSED] = "closed",
		[CONN_OPENING] = "in its handshake",
	};
	if (conn->state == CONN_OPEN && conn->first.paused)
		return "paused";
	return STATES[conn->state];
}

/* Sets what the run waits for in the table on top: { waits, since_ms, until_ms }. */
static void set_wait(lua_State *lua, const struct world_worker *worker, const struct run *run)
{
	char text[2 * ERRAND_TEXT_BYTES];
	name_wait(worker, run, text, sizeof text);
	app_state_set_text(lua, "waits", text);
	app_push_time(lua, run->since_ms);
	lua_setfield(lua, -2, "since_ms");
	if (run->until_ms == WHEEL_NEVER)
		return;
	app_push_time(lua, run->until_ms);
	lua_setfield(lua, -2, "until_ms");
}

/* Sets what its tasks wait for, a list of the same. */
static void set_tasks(lua_State *lua, const struct world_worker *worker, const struct channel *channel)
{
	const struct work *work = channel->has_work ? work_of(channel->agents, channel) : NULL;
	int n = 0;
	lua_newtable(lua);
	for (const struct task *task = work ? work->first : NULL; task; task = task->next) {
		if (task->stage != TASK_LIVE || task->run.wait == WAIT_NONE || task->run.wait == WAIT_READY)
			continue;
		lua_createtable(lua, 0, 3);
		set_wait(lua, worker, &task->run);
		lua_rawseti(lua, -2, ++n);
	}
	lua_setfield(lua, -2, "tasks");
}

static void push_live(lua_State *lua, const struct peer *peer, size_t number)
{
	const struct conn *conn = &peer->conn;
	const struct run *run = conn->first.suspended;
	lua_createtable(lua, 0, 10);
	lua_pushnumber(lua, (lua_Number)number);
	lua_setfield(lua, -2, "client");
	lua_pushnumber(lua, (lua_Number)peer->id);
	lua_setfield(lua, -2, "conn");
	lua_pushboolean(lua, peer->is_flow && peer->left);
	lua_setfield(lua, -2, "is_silent");
	app_state_set_text(lua, "state",
			   peer->waits ? "waits for its worker, which is stalled" : phase_text(conn));
	lua_pushnumber(lua, (lua_Number)peer->worker->index);
	lua_setfield(lua, -2, "worker");
	set_tasks(lua, peer->worker, &conn->first);
	if (!run)
		return;
	app_state_set_text(lua, "callback", callback_name(run->callback));
	set_wait(lua, peer->worker, run);
}

/*
 * live(app) → a list of the connections that there are: { client, conn, worker, is_silent, state, callback, waits,
 * since_ms, until_ms, tasks = { { waits, since_ms, until_ms }, … } }
 */
static int l_live(lua_State *lua)
{
	struct world *world = app_check_world(lua);
	int n = 0;
	lua_newtable(lua);
	for (size_t i = 0; i < world->peer_count; i++) {
		const struct peer *peer = world->peers[i];
		if (peer->gone)
			continue;
		push_live(lua, peer, i + 1);
		lua_rawseti(lua, -2, ++n);
	}
	return 1;
}

static void push_field(lua_State *lua, const struct log_field *field)
{
	switch (field->kind) {
	case LOG_IS_TEXT:
		lua_pushlstring(lua, field->text, field->len);
		break;
	case LOG_IS_REAL:
		lua_pushnumber(lua, field->real);
		break;
	case LOG_IS_BOOLEAN:
		lua_pushboolean(lua, field->number != 0);
		break;
	default:
		lua_pushnumber(lua, (lua_Number)field->number);
	}
}

static void push_entry(lua_State *lua, const struct entry *entry)
{
	static const char *const LEVELS[] = { "debug", "info", "warn", "error" };
	lua_createtable(lua, 0, 10);
	for (const struct entry_field *kept = entry->fields; kept; kept = kept->next) {
		push_field(lua, &kept->field);
		lua_setfield(lua, -2, kept->field.key);
	}
	app_state_set_text(lua, "level", LEVELS[entry->level]);
	lua_pushlstring(lua, entry->message, entry->message_bytes);
	lua_setfield(lua, -2, "message");
	app_push_time(lua, entry->at_ms);
	lua_setfield(lua, -2, "at_ms");
}

/* log(app) → the entries so far, how many there were no room for */
static int l_app_state_log(lua_State *lua)
{
	const struct entries *log = &app_check_world(lua)->log;
	int n = 0;
	lua_createtable(lua, (int)log->count, 0);
	for (const struct entry *entry = log->first; entry; entry = entry->next) {
		push_entry(lua, entry);
		lua_rawseti(lua, -2, ++n);
	}
	lua_pushinteger(lua, (lua_Integer)log->lost);
	return 2;
}

static void push_count(lua_State *lua, const char *key, uint64_t n)
{
	lua_pushnumber(lua, (lua_Number)n);
	lua_setfield(lua, -2, key);
}

/* The workers from `from` on, up to `to`: the one at idx, or all. MAY RAISE. */
static void opt_worker(lua_State *lua, int idx, unsigned *from, unsigned *to)
{
	*from = 0;
	*to = app_check_world(lua)->worker_count;
	if (lua_isnoneornil(lua, idx))
		return;
	*from = app_check_worker(lua, idx)->index;
	*to = *from + 1;
}

/* All workers have them together. */
static void push_job_counts(lua_State *lua, struct jobs *jobs)
{
	struct job_counts counts;
	jobs_count(jobs, &counts);
	push_count(lua, "jobs", counts.submitted);
	push_count(lua, "jobs_done", counts.done);
	push_count(lua, "jobs_failed", counts.failed);
	push_count(lua, "jobs_shed", counts.shed);
	push_count(lua, "jobs_cancelled", counts.cancelled);
	push_count(lua, "jobs_dropped", counts.dropped);
	push_count(lua, "jobs_waiting", counts.waiting);
	push_count(lua, "jobs_running", counts.running);
}

/* MAY RAISE. counters(app[, worker]) → those of the server, or of one worker */
static int l_counters(lua_State *lua)
{
	const struct world *world = app_check_world(lua);
	struct counters c = { 0 }, out = { 0 };
	unsigned from, to;
	opt_worker(lua, 2, &from, &to);
	if (lua_isnoneornil(lua, 2))
		counters_sum(&c, &world->counters);
	for (unsigned i = from; i < to; i++) {
		counters_sum(&c, &world->workers[i].counters);
		counters_sum(&out, &world->workers[i].outgoing.counters);
	}
	lua_createtable(lua, 0, COUNTER_COUNT + 4);
	push_count(lua, "connected", count_read(&out.accepted));
	push_count(lua, "outgoing", count_read(&out.accepted) - counters_closed(&out));
	push_count(lua, "accepted", count_read(&c.accepted));
	push_count(lua, "closed", counters_closed(&c));
	for (int i = 0; i < COUNTER_COUNT; i++)
		push_count(lua, COUNTER_NAMES[i].name, counters_read(&c, &COUNTER_NAMES[i]));
	if (lua_isnoneornil(lua, 2))
		push_job_counts(lua, world->jobs);
	return 1;
}

/* Twice: what a finaliser lets go of is garbage in the next cycle. */
static int collect_all(lua_State *lua)
{
	lua_gc(lua, LUA_GCCOLLECT, 0);
	lua_gc(lua, LUA_GCCOLLECT, 0);
	return 0;
}

struct memory {
	uint64_t vm_bytes, buffer_bytes, tasks, generations;
};

static void add_memory(struct memory *sum, const struct world_worker *worker)
{
	const struct conn_host *out = worker->outgoing.outgoing.host;
	for (struct generation *each = worker->generation; each; each = each->older) {
		lua_State *inside = each->agents.vm.lua;
		lua_cpcall(inside, collect_all, NULL);
		sum->vm_bytes += (uint64_t)lua_gc(inside, LUA_GCCOUNT, 0) << 10 |
				 (uint64_t)lua_gc(inside, LUA_GCCOUNTB, 0);
		sum->tasks += each->agents.tasks.count;
		sum->generations++;
	}
	sum->buffer_bytes += worker->host.pool.lent_bytes + (out ? out->pool.lent_bytes : 0);
}

/*
 * MAY RAISE. memory(app[, worker]) → what it has, or one worker: { vm, buffers } in bytes, { tasks, generations }
 * counted. A VM's is without garbage.
 */
static int l_app_memory(lua_State *lua)
{
	const struct world *world = app_check_world(lua);
	struct memory sum = { 0 };
	unsigned from, to;
	opt_worker(lua, 2, &from, &to);
	for (unsigned i = from; i < to; i++)
		add_memory(&sum, &world->workers[i]);
	lua_createtable(lua, 0, 4);
	push_count(lua, "vm", sum.vm_bytes);
	push_count(lua, "buffers", sum.buffer_bytes);
	push_count(lua, "tasks", sum.tasks);
	push_count(lua, "generations", sum.generations);
	return 1;
}

static const char *scheme_of_listener(const struct listener_config *listener)
{
	static const char *const SCHEMES[] = {
		[LISTENER_TCP] = "tcp", [LISTENER_UNIX] = "unix", [LISTENER_UDP] = "udp"
	};
	return listener->tls ? "tls" : SCHEMES[listener->kind];
}

/* listeners(app) → their names, their schemes: "tcp", "tls", "unix", "udp" */
static int l_listeners(lua_State *lua)
{
	const struct config *config = app_check_world(lua)->config;
	lua_createtable(lua, (int)config->listener_count, 0);
	lua_createtable(lua, (int)config->listener_count, 0);
	for (unsigned i = 0; i < config->listener_count; i++) {
		lua_pushstring(lua, config->listeners[i].name);
		lua_rawseti(lua, -3, (int)i + 1);
		lua_pushstring(lua, scheme_of_listener(&config->listeners[i]));
		lua_rawseti(lua, -2, (int)i + 1);
	}
	return 2;
}

/* workers(app) → how many there are */
static int l_workers(lua_State *lua)
{
	lua_pushnumber(lua, app_check_world(lua)->worker_count);
	return 1;
}

const luaL_Reg APP_STATE_FUNCTIONS[] = {
	{ "live", l_live },
	{ "log", l_app_state_log },
	{ "counters", l_counters },
	{ "memory", l_app_memory },
	{ "listeners", l_listeners },
	{ "workers", l_workers },
	{ NULL, NULL },
};
