#include "config/config.h"

#include "base/descriptors.h"
#include "base/limits.h"
#include "config/sources.h"
#include "config/tls.h"
#include "tls/settings.h"
#include "vm/vm.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <uv.h>

/*
 * One load. All Lua runs in a protected call; what is allocated meanwhile hangs from *config or
 * *text at once, so an error that unwinds the C stack leaks nothing.
 */
struct load {
	lua_State *lua;
	struct config *config;
	const char *form; /* of *text: "print", "json" or NULL */
	char **text;
	enum config_status status;
	bool no_memory; /* malloc's, not Lua's */
};

/* ---- fields of the table on top of the stack; all of these may raise ---- */

static void raise_no_memory(struct load *load)
{
	load->no_memory = true;
	luaL_error(load->lua, "not enough memory");
}

static void *config_allocate(struct load *load, size_t n, size_t bytes)
{
	void *block = calloc(n ? n : 1, bytes);
	if (!block)
		raise_no_memory(load);
	return block;
}

/* A copy of the string at idx. */
static char *config_copy_text(struct load *load, int idx, size_t *bytes)
{
	size_t len = 0;
	const char *text = luaL_checklstring(load->lua, idx, &len);
	char *copy = config_allocate(load, len + 1, 1);
	memcpy(copy, text, len);
	if (bytes)
		*bytes = len;
	return copy;
}

/* NULL when the field is nil or false. Owned by the caller. */
static char *text_field(struct load *load, const char *key, size_t *bytes)
{
	char *copy = NULL;
	lua_getfield(load->lua, -1, key);
	if (lua_toboolean(load->lua, -1))
		copy = config_copy_text(load, lua_gettop(load->lua), bytes);
	lua_pop(load->lua, 1);
	return copy;
}

static double config_number_field(struct load *load, const char *key, double max)
{
	lua_getfield(load->lua, -1, key);
	double value = lua_tonumber(load->lua, -1);
	if (lua_type(load->lua, -1) != LUA_TNUMBER || !(value >= 0 && value <= max))
		luaL_error(load->lua, "configuration: '%s' is not a number from 0 to %f", key, max);
	lua_pop(load->lua, 1);
	return value;
}

static uint32_t u32_field(struct load *load, const char *key)
{
	return (uint32_t)config_number_field(load, key, UINT32_MAX);
}

static bool bool_field(struct load *load, const char *key)
{
	lua_getfield(load->lua, -1, key);
	bool value = lua_toboolean(load->lua, -1);
	lua_pop(load->lua, 1);
	return value;
}

/* The index in a NULL-terminated list of names. */
static int config_choice_field(struct load *load, const char *key, const char *const *names)
{
	lua_getfield(load->lua, -1, key);
	const char *name = lua_tostring(load->lua, -1);
	int i = 0;
	while (names[i] && !(name && !strcmp(names[i], name)))
		i++;
	if (!names[i])
		luaL_error(load->lua, "configuration: '%s' has an unknown value", key);
	lua_pop(load->lua, 1);
	return i;
}

/* Pushes a field that is a table. */
static void enter(struct load *load, const char *key)
{
	lua_getfield(load->lua, -1, key);
	if (!lua_istable(load->lua, -1))
		luaL_error(load->lua, "configuration: '%s' is not a table", key);
}

static void config_leave(struct load *load)
{
	lua_pop(load->lua, 1);
}

/* Pushes a function of one of Perilune's modules. May raise. */
static void push_function(lua_State *lua, const char *module, const char *name)
{
	lua_getglobal(lua, "require");
	lua_pushstring(lua, module);
	lua_call(lua, 1, 1);
	lua_getfield(lua, -1, name);
	lua_remove(lua, -2);
}

/* ---- the parts of a configuration ---- */

const char *const RELOAD_POLICY_NAMES[] = {
	[RELOAD_PIN] = "pin", [RELOAD_MIGRATE] = "migrate", [RELOAD_DRAIN] = "drain", NULL
};

bool reload_policy_of(const char *name, enum reload_policy *policy)
{
	for (int i = 0; RELOAD_POLICY_NAMES[i]; i++) {
		if (strcmp(name, RELOAD_POLICY_NAMES[i]) != 0)
			continue;
		*policy = (enum reload_policy)i;
		return true;
	}
	return false;
}

static void config_read_address(struct load *load, struct listener_config *listener)
{
	static const char *const KINDS[] = {
		[LISTENER_TCP] = "tcp", [LISTENER_UNIX] = "unix", [LISTENER_UDP] = "udp", NULL
	};
	listener->name = text_field(load, "name", NULL);
	listener->address = text_field(load, "address", NULL);
	listener->kind = (enum listener_kind)config_choice_field(load, "kind", KINDS);
	listener->mode = -1;
	if (listener->kind != LISTENER_UNIX) {
		listener->host = text_field(load, "host", NULL);
		listener->port = (uint16_t)config_number_field(load, "port", UINT16_MAX);
		return;
	}
	listener->path = text_field(load, "path", NULL);
	lua_getfield(load->lua, -1, "mode");
	bool has_mode = !lua_isnil(load->lua, -1);
	lua_pop(load->lua, 1);
	if (has_mode)
		listener->mode = (int)config_number_field(load, "mode", 07777);
}

static void read_protocol(struct load *load, struct listener_config *listener)
{
	lua_getfield(load->lua, -1, "protocol");
	const char *name = lua_tostring(load->lua, -1);
	listener->is_http = name;
	listener->is_websocket = name && !strcmp(name, "ws");
	lua_pop(load->lua, 1);
}

static void read_limits(struct load *load, struct listener_config *listener)
{
	static const char *const POLICIES[] = {
		[SLOW_PAUSE] = "pause", [SLOW_CLOSE] = "close", [SLOW_DROP] = "drop", NULL
	};
	enter(load, "limits");
	listener->connections = u32_field(load, "connections");
	listener->per_ip = u32_field(load, "per_ip");
	listener->accept_rate = config_number_field(load, "accept_rate", 1e9);
	listener->reject = text_field(load, "reject", &listener->reject_bytes);
	listener->rules.send_buffer_bytes = u32_field(load, "send_buffer");
	listener->budget.ms = (uint32_t)config_number_field(load, "proceed", GUARD_BUDGET_MAX_MS);
	listener->budget.allocated_bytes =
	    (uint64_t)config_number_field(load, "allocation", (double)(SIZE_MAX / 2));
	listener->rules.inbox_frames = u32_field(load, "inbox");
	listener->mailbox = u32_field(load, "mailbox");
	listener->rules.slow = (enum slow_policy)config_choice_field(load, "slow_consumer", POLICIES);
	listener->http = (struct http_limits){ .uri = u32_field(load, "uri"),
					       .headers = u32_field(load, "headers"),
					       .fields = u32_field(load, "fields"),
					       .body = u32_field(load, "body") };
	listener->http.requests = u32_field(load, "requests");
	listener->http.upload = (uint64_t)config_number_field(load, "upload", 9007199254740992.0);
	if (listener->is_websocket) {
		listener->http.body = 0;
		listener->http.upload = 0;
	}
	listener->message_bytes = u32_field(load, "message");
	config_leave(load);
}

static void read_timeouts(struct load *load, struct listener_config *listener)
{
	struct timeouts *timeouts = &listener->rules.timeouts;
	enter(load, "timeout");
	timeouts->read = u32_field(load, "read");
	timeouts->write = u32_field(load, "write");
	timeouts->idle = u32_field(load, "idle");
	timeouts->first_frame = u32_field(load, "first_frame");
	timeouts->opening = u32_field(load, "handshake");
	timeouts->body = u32_field(load, "body");
	if (listener->is_http)
		timeouts->read = u32_field(load, "header");
	if (listener->is_websocket)
		timeouts->first_frame = timeouts->opening;
	listener->proceed_ms = u32_field(load, "proceed");
	config_leave(load);
}

/* The item on top of the stack. */
static void read_network(struct load *load, struct networks *trust)
{
	const char *text = lua_tostring(load->lua, -1);
	if (text && !strcmp(text, "unix"))
		trust->has_unix = true;
	else if (text && network_read(text, &trust->list[trust->count]))
		trust->count++;
	else
		luaL_error(load->lua, "configuration: 'trust' has what is no network");
}

static void read_proxy(struct load *load, struct listener_config *listener)
{
	lua_getfield(load->lua, -1, "proxy");
	bool is_optional = lua_type(load->lua, -1) == LUA_TSTRING, is_on = lua_toboolean(load->lua, -1);
	lua_pop(load->lua, 1);
	listener->proxy = is_optional ? PROXY_IF_THERE : is_on ? PROXY_ON : PROXY_OFF;
	enter(load, "trust");
	size_t n = lua_objlen(load->lua, -1);
	listener->trust.list = config_allocate(load, n, sizeof *listener->trust.list);
	for (size_t i = 1; i <= n; i++) {
		lua_rawgeti(load->lua, -1, (int)i);
		read_network(load, &listener->trust);
		lua_pop(load->lua, 1);
	}
	config_leave(load);
}

static enum reload_policy policy_field(struct load *load)
{
	return (enum reload_policy)config_choice_field(load, "policy", RELOAD_POLICY_NAMES);
}

/* listener.frame as people see it. */
static char *framing_text(struct load *load)
{
	lua_State *lua = load->lua;
	push_function(lua, "perilune.config", "describe_frame");
	lua_getfield(lua, -2, "frame");
	lua_call(lua, 1, 1);
	char *text = config_copy_text(load, lua_gettop(lua), NULL);
	lua_pop(lua, 1);
	return text;
}

static void read_listener(struct load *load, struct listener_config *listener)
{
	listener->slot = LISTENER_NO_SLOT;
	config_read_address(load, listener);
	read_protocol(load, listener);
	listener->framing = framing_text(load);
	listener->backlog = (int)config_number_field(load, "backlog", UINT16_MAX);
	listener->keepalive_ms = u32_field(load, "keepalive");
	listener->nodelay = bool_field(load, "nodelay");
	listener->reuse_port = bool_field(load, "reuse_port");
	enter(load, "reload");
	listener->policy = policy_field(load);
	config_leave(load);
	read_limits(load, listener);
	read_timeouts(load, listener);
	listener->ping_ms = u32_field(load, "ping");
	listener->pong_ms = u32_field(load, "pong");
	read_proxy(load, listener);
	listener->amplification = u32_field(load, "amplification");
}

/* ---- tls:// ---- */

struct tls_load {
	struct load *load;
	struct tls_settings **settings;
};

/* tls_load, the table */
static int read_tls_protected(lua_State *lua)
{
	const struct tls_load *tls = lua_touserdata(lua, 1);
	config_read_tls(lua, tls->load->config, tls->settings);
	return 0;
}

/* In place of the app on the stack: nil, message and errors, of what is at the top. */
static void refuse_tls(struct load *load, int listener)
{
	lua_State *lua = load->lua;
	push_function(lua, "perilune.app", "refuse_tls");
	lua_pushstring(lua, load->config->script);
	lua_getfield(lua, 1, "conf");
	lua_pushinteger(lua, listener);
	lua_pushvalue(lua, -5);
	lua_call(lua, 4, 3);
	for (int i = 3; i >= 1; i--)
		lua_replace(lua, i);
	lua_settop(lua, 3);
}

/*
 * The files of all listeners, once each is known to be right by itself. False: nil, message, errors are on the stack
 * instead of the app. May raise.
 */
static bool read_tls(struct load *load)
{
	lua_State *lua = load->lua;
	struct config *config = load->config;
	lua_getfield(lua, 1, "conf");
	lua_getfield(lua, -1, "listeners");
	for (unsigned i = 0; i < config->listener_count; i++) {
		struct tls_load tls = { load, &config->listeners[i].tls };
		lua_rawgeti(lua, -1, (int)i + 1);
		lua_pushcfunction(lua, read_tls_protected);
		lua_pushlightuserdata(lua, &tls);
		lua_getfield(lua, -3, "tls");
		bool has = lua_toboolean(lua, -1);
		if (has && lua_pcall(lua, 2, 0, 0)) {
			refuse_tls(load, (int)i + 1);
			return false;
		}
		lua_pop(lua, has ? 1 : 4);
	}
	lua_pop(lua, 2);
	return true;
}

/* One more line. */
static void add_tls_warning(void *data, const char *text)
{
	struct config *config = data;
	size_t n = config->tls_warnings ? strlen(config->tls_warnings) : 0, more = strlen(text) + 2;
	char *grown = realloc(config->tls_warnings, n + more);
	if (!grown)
		return;
	snprintf(grown + n, more, "%s\n", text);
	config->tls_warnings = grown;
}

static void note_tls_warnings(struct config *config)
{
	for (unsigned i = 0; i < config->listener_count; i++)
		if (config->listeners[i].tls)
			tls_settings_warn(config->listeners[i].tls, (int64_t)time(NULL), add_tls_warning,
					  config);
}

static void read_listeners(struct load *load)
{
	struct config *config = load->config;
	enter(load, "listeners");
	size_t n = lua_objlen(load->lua, -1);
	config->listeners = config_allocate(load, n, sizeof *config->listeners);
	for (size_t i = 0; i < n; i++) {
		config->listener_count++;
		lua_rawgeti(load->lua, -1, (int)i + 1);
		read_listener(load, &config->listeners[i]);
		config->listeners[i].sockets = config->workers;
		lua_pop(load->lua, 1);
	}
	config_leave(load);
}

static void read_dicts(struct load *load)
{
	struct config *config = load->config;
	enter(load, "shared");
	size_t n = lua_objlen(load->lua, -1);
	config->dicts = config_allocate(load, n, sizeof *config->dicts);
	for (size_t i = 0; i < n; i++) {
		lua_rawgeti(load->lua, -1, (int)i + 1);
		config->dict_count++;
		config->dicts[i].name = text_field(load, "name", NULL);
		config->dicts[i].bytes = (size_t)config_number_field(load, "bytes", (double)(SIZE_MAX / 2));
		lua_pop(load->lua, 1);
	}
	config_leave(load);
}

static void read_lanes(struct load *load)
{
	struct job_config *jobs = &load->config->jobs;
	enter(load, "lanes");
	size_t n = lua_objlen(load->lua, -1);
	jobs->lanes = config_allocate(load, n, sizeof *jobs->lanes);
	for (size_t i = 0; i < n && i < JOB_LANES_MAX; i++) {
		lua_rawgeti(load->lua, -1, (int)i + 1);
		jobs->lane_count++;
		jobs->lanes[i].name = text_field(load, "name", NULL);
		jobs->lanes[i].workers = u32_field(load, "workers");
		lua_pop(load->lua, 1);
	}
	config_leave(load);
}

/* The kind on top of the stack. */
static void read_kind(struct load *load, struct kind_config *kind)
{
	kind->name = text_field(load, "name", NULL);
	kind->idle_ms = u32_field(load, "idle");
	kind->most = u32_field(load, "most");
	enter(load, "reload");
	kind->policy = policy_field(load);
	config_leave(load);
	enter(load, "limits");
	kind->mailbox = u32_field(load, "mailbox");
	kind->budget.ms = (uint32_t)config_number_field(load, "proceed", GUARD_BUDGET_MAX_MS);
	kind->budget.allocated_bytes =
	    (uint64_t)config_number_field(load, "allocation", (double)(SIZE_MAX / 2));
	config_leave(load);
	enter(load, "timeout");
	kind->proceed_ms = u32_field(load, "proceed");
	config_leave(load);
}

static void read_kinds(struct load *load)
{
	struct config *config = load->config;
	enter(load, "agents");
	size_t n = lua_objlen(load->lua, -1);
	config->kinds = config_allocate(load, n, sizeof *config->kinds);
	for (size_t i = 0; i < n; i++) {
		lua_rawgeti(load->lua, -1, (int)i + 1);
		config->kind_count++;
		read_kind(load, &config->kinds[i]);
		lua_pop(load->lua, 1);
	}
	config_leave(load);
}

static void read_jobs(struct load *load)
{
	static const char *const WHEN_FULL[] = {
		[JOBS_BLOCK] = "block", [JOBS_SHED] = "shed", [JOBS_ERROR] = "error", NULL
	};
	struct job_config *jobs = &load->config->jobs;
	enter(load, "jobs");
	jobs->workers = u32_field(load, "workers");
	jobs->queue = u32_field(load, "queue");
	jobs->when_full = (enum jobs_full)config_choice_field(load, "when_full", WHEN_FULL);
	jobs->timeout_ms = u32_field(load, "timeout");
	jobs->proceed_ms = (uint32_t)config_number_field(load, "proceed", GUARD_BUDGET_MAX_MS);
	jobs->memory_bytes = (size_t)config_number_field(load, "memory", (double)(SIZE_MAX / 2));
	jobs->message_bytes = u32_field(load, "message");
	jobs->buffer_bytes = (size_t)config_number_field(load, "buffers", (double)(SIZE_MAX / 2));
	if (jobs->workers) {
		read_lanes(load);
		jobs->modules = text_field(load, "all_modules", NULL);
		jobs->unsafe = text_field(load, "all_unsafe", NULL);
		jobs->compat = text_field(load, "all_compat", NULL);
		jobs->more_unsafe = text_field(load, "all_more", NULL);
	}
	config_leave(load);
}

static void read_hub(struct load *load)
{
	static const char *const POLICIES[] = { [HUB_DISCONNECT] = "disconnect",
						[HUB_DROP_NEWEST] = "drop_newest",
						[HUB_DROP_OLDEST] = "drop_oldest",
						[HUB_LATEST] = "latest",
						NULL };
	struct hub_config *hub = &load->config->hub;
	enter(load, "hub");
	hub->policy = (enum hub_policy)config_choice_field(load, "policy", POLICIES);
	hub->messages = u32_field(load, "messages");
	hub->bytes = u32_field(load, "bytes");
	hub->inbox = u32_field(load, "inbox");
	config_leave(load);
}

static void read_log(struct load *load)
{
	static const char *const FORMATS[] = {
		[LOG_AUTO] = "auto", [LOG_TEXT] = "text", [LOG_JSON] = "json", NULL
	};
	static const char *const LEVELS[] = {
		[LOG_DEBUG] = "debug", [LOG_INFO] = "info", [LOG_WARN] = "warn", [LOG_ERROR] = "error", NULL
	};
	struct config *config = load->config;
	enter(load, "log");
	config->log_file = text_field(load, "file", NULL);
	config->log_format = (enum log_format)config_choice_field(load, "format", FORMATS);
	config->log_level = (enum log_level)config_choice_field(load, "level", LEVELS);
	config->log_frame_bytes = u32_field(load, "frame_bytes");
	config_leave(load);
}

/* The names as one text. */
static void read_unsafe(struct load *load)
{
	struct config *config = load->config;
	size_t at = 0;
	config->unsafe[0] = '\0';
	enter(load, "unsafe");
	size_t n = lua_objlen(load->lua, -1);
	for (size_t i = 1; i <= n && at < sizeof config->unsafe; i++) {
		lua_rawgeti(load->lua, -1, (int)i);
		at += (size_t)snprintf(config->unsafe + at, sizeof config->unsafe - at, "%s%s",
				       i > 1 ? ", " : "", lua_tostring(load->lua, -1));
		lua_pop(load->lua, 1);
	}
	config_leave(load);
}

static void read_config(struct load *load)
{
	static const char *const WHEN_FULL[] = { "refuse", "drain", NULL };
	struct config *config = load->config;
	config->workers = u32_field(load, "workers");
	config->buffer_bytes = (size_t)config_number_field(load, "buffers", (double)(SIZE_MAX / 2));
	config->memory_bytes = (size_t)config_number_field(load, "memory", (double)(SIZE_MAX / 2));
	config->handshakes = u32_field(load, "handshakes");
	config->outgoing = u32_field(load, "outgoing");
	config->deflate_bytes = (size_t)config_number_field(load, "deflate", (double)(SIZE_MAX / 2));
	config->garbage_share = config_number_field(load, "garbage", 1);
	config->snapshot_bytes = (size_t)config_number_field(load, "snapshot_bytes", UINT32_MAX);
	lua_getfield(load->lua, -1, "snapshot");
	config->has_snapshot = lua_isfunction(load->lua, -1);
	lua_pop(load->lua, 1);
	config->takes_snapshot = bool_field(load, "takes_snapshot");
	config->control = text_field(load, "control", NULL);
	config->jit = bool_field(load, "jit");
	config->drain_ms = u32_field(load, "drain_ms");
	config->upgrade_ms = u32_field(load, "upgrade_ms");
	enter(load, "reload");
	config->reload_keep = u32_field(load, "keep");
	config->reload_drains_old = config_choice_field(load, "when_full", WHEN_FULL) == 1;
	config->canary_share = config_number_field(load, "canary", 1);
	config->canary_window_ms = u32_field(load, "window");
	config->canary_max_errors = config_number_field(load, "max_errors", 1);
	config->reload_policy = policy_field(load);
	config_leave(load);
	config->strays = text_field(load, "strays", NULL);
	config->globals = text_field(load, "globals", NULL);
	config->warnings = text_field(load, "warnings", NULL);
	config->shared_tables = text_field(load, "shared_tables", NULL);
	read_unsafe(load);
	read_log(load);
	read_dicts(load);
	read_jobs(load);
	read_hub(load);
	read_kinds(load);
	read_listeners(load);
}

/* The text for people or programs. Stack in and out: app or nil, message, errors. May raise. */
static void take_text(struct load *load)
{
	lua_State *lua = load->lua;
	push_function(lua, "perilune.app", "report");
	if (load->form)
		lua_pushstring(lua, load->form);
	else
		lua_pushnil(lua);
	for (int i = 1; i <= 3; i++)
		lua_pushvalue(lua, i);
	lua_call(lua, 4, 1);
	if (!lua_isnil(lua, -1))
		*load->text = config_copy_text(load, lua_gettop(lua), NULL);
	lua_pop(lua, 1);
}

/* Is one of the errors at `idx` the command line's? May raise. */
static bool is_usage(lua_State *lua, int idx)
{
	if (!lua_istable(lua, idx))
		return false;
	push_function(lua, "perilune.app", "is_usage");
	lua_pushvalue(lua, idx);
	lua_call(lua, 1, 1);
	bool is = lua_toboolean(lua, -1);
	lua_pop(lua, 1);
	return is;
}

static int load_protected(lua_State *lua)
{
	struct load *load = lua_touserdata(lua, 1);
	lua_settop(lua, 0);
	config_open_sources(lua, load->config);
	push_function(lua, "perilune.app", "load");
	lua_pushstring(lua, load->config->script);
	config_push_options(lua, load->config);
	lua_pushboolean(lua, true); /* here, once, and not by each worker */
	lua_setfield(lua, -2, "finds_globals");
	lua_call(lua, 2, 3);
	load->status = CONFIG_BAD;
	/* app or nil, message, errors */
	bool is_right = lua_toboolean(lua, 1);
	if (is_right) {
		lua_getfield(lua, 1, "conf");
		read_config(load);
		lua_pop(lua, 1);
		is_right = read_tls(load);
	}
	take_text(load);
	if (is_right) {
		note_tls_warnings(load->config);
		load->status = CONFIG_OK;
	} else if (is_usage(lua, 3)) {
		load->status = CONFIG_USAGE;
	}
	return 0;
}

/* The script was ended from outside: what it did until then is of no interest. */
static int explain_protected(lua_State *lua)
{
	struct load *load = lua_touserdata(lua, 1);
	free(*load->text);
	*load->text = NULL;
	lua_settop(lua, 0);
	lua_pushnil(lua);
	lua_getglobal(lua, "require");
	lua_pushliteral(lua, "perilune.app");
	lua_call(lua, 1, 1);
	lua_getfield(lua, -1, "failure_text");
	lua_remove(lua, -2);
	lua_pushstring(lua, load->config->script);
	guard_push_error(&vm_of(lua)->guard, lua);
	lua_call(lua, 2, 1);
	lua_pushnil(lua);
	take_text(load);
	return 0;
}

/* Perilune's own Lua failed. The error is on top of the stack. */
static enum config_status take_failure(struct load *load, int status)
{
	free(*load->text);
	*load->text = NULL;
	if (status == LUA_ERRMEM || load->no_memory)
		return CONFIG_NO_MEMORY;
	/* Converting anything else could raise. */
	bool is_text = lua_type(load->lua, -1) == LUA_TSTRING;
	const char *message = is_text ? lua_tostring(load->lua, -1) : "an error that is no text";
	*load->text = strdup(message);
	return *load->text ? CONFIG_BROKEN : CONFIG_NO_MEMORY;
}

int config_read(struct config *config)
{
	if (!config->sources)
		config->sources = sources_read(config->script);
	return config->sources ? 0 : UV_ENOMEM;
}

/* A module that cannot be opened is "not found" to Lua. One that opens another needs two descriptors. */
static enum config_status blame_limit(enum config_status status, char **text)
{
	char why[128];
	if ((status != CONFIG_BAD && status != CONFIG_BROKEN) || descriptors_left(2))
		return status;
	free(*text);
	*text = strdup(descriptors_explain(why, sizeof why));
	return *text ? CONFIG_SHORT : CONFIG_NO_MEMORY;
}

/* The script's own limit is not known yet. What serves is not to lose its memory to what is loaded beside it. */
static size_t loading_memory(const struct config *config)
{
	enum { LEAST_BYTES = 64 << 20, TIMES = 4 };
	uint64_t half = config_memory() / 2, several = (uint64_t)config->memory_bytes * TIMES;
	several = several > LEAST_BYTES ? several : LEAST_BYTES;
	return (size_t)(config->memory_bytes && several < half ? several : half);
}

enum config_status config_load(struct config *config, const char *print, char **text)
{
	struct vm vm;
	*text = NULL;
	if (config_read(config))
		return CONFIG_NO_MEMORY;
	if (*config->sources->failed) {
		*text = strdup(config->sources->failed);
		return *text ? CONFIG_SHORT : CONFIG_NO_MEMORY;
	}
	int err = vm_open(&vm);
	if (err) {
		char why[LIMITS_TEXT_BYTES];
		*text = strdup(limits_explain(err, why, sizeof why));
		return *text ? CONFIG_SHORT : CONFIG_NO_MEMORY;
	}
	struct load load = { .lua = vm.lua, .config = config, .form = print, .text = text };
	vm.memory_bytes = loading_memory(config);
	vm.stage = VM_LOADING;
	guard_name(&vm.guard, "loading", 0);
	guard_set_worker(&vm.guard, 0, 0); /* no worker's: it is for the main thread, or the loader's */
	vm_enter(&vm, &VM_LOAD_BUDGET);
	int status = lua_cpcall(vm.lua, load_protected, &load);
	if (vm_leave(&vm) != GUARD_FINE && status) {
		load.status = CONFIG_BAD;
		vm_make_room(&vm);
		status = lua_cpcall(vm.lua, explain_protected, &load);
	}
	if (status)
		load.status = take_failure(&load, status);
	vm_close(&vm);
	return blame_limit(load.status, text);
}

int config_add_override(struct config *config, const char *path, const char *value, const char *origin)
{
	size_t n = config->override_count;
	struct override *grown = realloc(config->overrides, (n + 1) * sizeof *grown);
	if (!grown)
		return UV_ENOMEM;
	config->overrides = grown;
	grown[n] = (struct override){ strdup(path), strdup(value), strdup(origin) };
	config->override_count++;
	return grown[n].path && grown[n].value && grown[n].origin ? 0 : UV_ENOMEM;
}

static void free_listener(struct listener_config *listener)
{
	free(listener->name);
	free(listener->address);
	free(listener->framing);
	free(listener->host);
	free(listener->path);
	free(listener->reject);
	tls_settings_free(listener->tls);
	free(listener->trust.list);
}

void config_free(struct config *config)
{
	for (size_t i = 0; i < config->override_count; i++) {
		free(config->overrides[i].path);
		free(config->overrides[i].value);
		free(config->overrides[i].origin);
	}
	for (size_t i = 0; i < config->listener_count; i++)
		free_listener(&config->listeners[i]);
	for (size_t i = 0; i < config->dict_count; i++)
		free(config->dicts[i].name);
	for (size_t i = 0; i < config->jobs.lane_count; i++)
		free(config->jobs.lanes[i].name);
	free(config->jobs.lanes);
	free(config->jobs.modules);
	free(config->jobs.unsafe);
	free(config->jobs.compat);
	free(config->jobs.more_unsafe);
	for (size_t i = 0; i < config->kind_count; i++)
		free(config->kinds[i].name);
	free(config->overrides);
	free(config->dicts);
	free(config->kinds);
	free(config->listeners);
	free(config->script);
	free(config->control);
	free(config->log_file);
	free(config->strays);
	free(config->shared_tables);
	free(config->globals);
	free(config->warnings);
	free(config->tls_warnings);
	sources_free(config->sources);
	memset(config, 0, sizeof *config);
}

static void config_set_text(lua_State *lua, const char *key, const char *text)
{
	lua_pushstring(lua, text);
	lua_setfield(lua, -2, key);
}

void config_push_options(lua_State *lua, const struct config *config)
{
	luaL_checkstack(lua, 4, "options");
	lua_createtable(lua, 0, 3);
	lua_createtable(lua, (int)config->override_count, 0);
	for (size_t i = 0; i < config->override_count; i++) {
		const struct override *override = &config->overrides[i];
		lua_createtable(lua, 0, 3);
		config_set_text(lua, "path", override->path);
		config_set_text(lua, "value", override->value);
		config_set_text(lua, "origin", override->origin);
		lua_rawseti(lua, -2, (int)i + 1);
	}
	lua_setfield(lua, -2, "overrides");
	lua_pushinteger(lua, (lua_Integer)config_processors());
	lua_setfield(lua, -2, "cpus");
	lua_pushnumber(lua, (lua_Number)config_memory());
	lua_setfield(lua, -2, "memory");
}

/* Fills in load->paths, which is NULL-terminated at any moment. */
struct path_load {
	struct load load; /* for config_allocate() and config_copy_text() */
	char **paths;
};

static int load_paths_protected(lua_State *lua)
{
	struct path_load *load = lua_touserdata(lua, 1);
	lua_settop(lua, 0);
	push_function(lua, "perilune.config", "paths");
	lua_call(lua, 0, 1);
	size_t n = lua_objlen(lua, 1);
	load->paths = config_allocate(&load->load, n + 1, sizeof *load->paths);
	for (size_t i = 0; i < n; i++) {
		lua_rawgeti(lua, 1, (int)i + 1);
		load->paths[i] = config_copy_text(&load->load, 2, NULL);
		lua_pop(lua, 1);
	}
	return 0;
}

int config_paths(char ***paths)
{
	struct vm vm;
	*paths = NULL;
	if (vm_open(&vm))
		return UV_ENOMEM;
	struct path_load load = { .load.lua = vm.lua };
	int status = lua_cpcall(vm.lua, load_paths_protected, &load);
	vm_close(&vm);
	if (!status) {
		*paths = load.paths;
		return 0;
	}
	config_free_paths(load.paths);
	return status == LUA_ERRMEM || load.load.no_memory ? UV_ENOMEM : UV_ENOENT;
}

void config_free_paths(char **paths)
{
	for (char **path = paths; path && *path; path++)
		free(*path);
	free(paths);
}

uint64_t config_memory(void)
{
	uint64_t machine = uv_get_total_memory(), ours = uv_get_constrained_memory();
	return ours && ours < machine ? ours : machine;
}

unsigned config_processors(void)
{
	cpu_set_t allowed;
	/* Fails on a machine with more than CPU_SETSIZE processors. */
	if (!sched_getaffinity(0, sizeof allowed, &allowed)) {
		int count = CPU_COUNT(&allowed);
		return count > 0 ? (unsigned)count : 1;
	}
	long online = sysconf(_SC_NPROCESSORS_ONLN);
	return online > 0 ? (unsigned)online : 1;
}
