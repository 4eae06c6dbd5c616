/* What there is of an app in memory: connections, log, counters. */
#include "agent/run.h"
#include "workbench/app.h"

static const char *wait_name(enum wait wait)
{
	return wait == WAIT_SLEEP ? "perilune.sleep" : wait == WAIT_READ ? "conn:read" : "conn:flush";
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

static void push_live(lua_State *lua, const struct peer *peer, size_t number)
{
	const struct conn *conn = &peer->conn;
	const struct run *run = conn->first.suspended;
	lua_createtable(lua, 0, 6);
	lua_pushnumber(lua, (lua_Number)number);
	lua_setfield(lua, -2, "client");
	lua_pushnumber(lua, (lua_Number)conn->first.id);
	lua_setfield(lua, -2, "conn");
	app_state_set_text(lua, "state", phase_text(conn));
	if (!run)
		return;
	app_state_set_text(lua, "callback", callback_name(run->callback));
	app_state_set_text(lua, "waits", wait_name(run->wait));
	if (run->until_ms == WHEEL_NEVER)
		return;
	app_push_time(lua, run->until_ms);
	lua_setfield(lua, -2, "until_ms");
}

/* live(app) → a list of the connections that there are: { client, conn, state, callback, waits, until_ms } */
static int l_live(lua_State *lua)
{
	struct world *world = app_check_world(lua);
	int n = 0;
	lua_newtable(lua);
	for (size_t i = 0; i < world->peer_count; i++) {
		if (world->peers[i]->gone)
			continue;
		push_live(lua, world->peers[i], i + 1);
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

static void push_count(lua_State *lua, const char *key, const counter *c)
{
	lua_pushnumber(lua, (lua_Number)count_read(c));
	lua_setfield(lua, -2, key);
}

/* counters(app) → those of the server */
static int l_counters(lua_State *lua)
{
	const struct counters *c = &app_check_world(lua)->counters;
	lua_createtable(lua, 0, 12);
	push_count(lua, "accepted", &c->accepted);
	push_count(lua, "frames_in", &c->frames_in);
	push_count(lua, "frames_out", &c->frames_out);
	push_count(lua, "bytes_in", &c->bytes_in);
	push_count(lua, "bytes_out", &c->bytes_out);
	push_count(lua, "faults", &c->faults);
	push_count(lua, "suspensions", &c->suspensions);
	push_count(lua, "dropped_frames", &c->dropped_frames);
	push_count(lua, "discarded_bytes", &c->discarded_bytes);
	push_count(lua, "cut", &c->cut);
	lua_pushnumber(lua, (lua_Number)counters_closed(c));
	lua_setfield(lua, -2, "closed");
	return 1;
}

/* listeners(app) → their names */
static int l_listeners(lua_State *lua)
{
	const struct config *config = app_check_world(lua)->config;
	lua_createtable(lua, (int)config->listener_count, 0);
	lua_createtable(lua, (int)config->listener_count, 0);
	for (unsigned i = 0; i < config->listener_count; i++) {
		lua_pushstring(lua, config->listeners[i].name);
		lua_rawseti(lua, -3, (int)i + 1);
		lua_pushboolean(lua, config->listeners[i].tls != NULL);
		lua_rawseti(lua, -2, (int)i + 1);
	}
	return 2;
}

const luaL_Reg APP_STATE_FUNCTIONS[] = {
	{ "live", l_live },
	{ "log", l_app_state_log },
	{ "counters", l_counters },
	{ "listeners", l_listeners },
	{ NULL, NULL },
};
