#include "bind/open.h"

#include "agent/http.h"
#include "agent/line.h"
#include "agent/resident.h"
#include "agent/sync.h"
#include "agent/websocket.h"
#include "agent/work.h"
#include "base/limits.h"
#include "bind/bind.h"
#include "config/config.h"
#include "stream/proxy.h"
#include "tls/context.h"
#include "tls/stream.h"

#include <stdlib.h>
#include <string.h>
#include <uv.h>

/* The runtime's anchor(agent): called by an opener, on behalf of the connection being opened. */
static int l_anchor(lua_State *lua)
{
	struct agents *agents = agents_of(lua);
	lua_settop(lua, 1);
	agent_anchor(agents, lua, agents->current->channel);
	return 0;
}

/* In the order of enum AT_*. */
static void lay_out_agents(lua_State *lua)
{
	instance_keep_function(lua, "perilune.runtime", "defer");
	instance_keep_function(lua, "perilune.runtime", "conn_index");
	instance_keep_function(lua, "perilune.runtime", "snapshot");
	instance_keep_function(lua, "perilune.runtime", "describe_fault");
	instance_keep_function(lua, "perilune.runtime", "pack_message");
	vm_push_function(lua, "perilune.runtime", "receive");
	agents_of(lua)->receive_ref = luaL_ref(lua, LUA_REGISTRYINDEX);
	vm_push_function(lua, "perilune.runtime", "open_message");
	agents_of(lua)->open_ref = luaL_ref(lua, LUA_REGISTRYINDEX);
	instance_keep_function(lua, "perilune.runtime", "json_message");
	run_keep_ended(lua);
	line_open(lua);
	sync_open(lua);
	batch_new_control(lua);
	lua_createtable(lua, BATCH_MAX, 0);
	lua_createtable(lua, BATCH_MAX, 0);
	vm_push_function(lua, "perilune.runtime", "invoke");
	vm_push_function(lua, "perilune.runtime", "has");
	vm_push_function(lua, "perilune.runtime", "take_defer");
	lua_pushnil(lua); /* AT_ERROR */
	bind_conn(lua);
}

static int runtime_ref(lua_State *lua, const char *name, int nargs)
{
	vm_push_function(lua, "perilune.runtime", name);
	lua_insert(lua, -1 - nargs);
	lua_call(lua, nargs, 1);
	return luaL_ref(lua, LUA_REGISTRYINDEX);
}

/* MAY RAISE. Of a listener whose configuration is at conf. */
static int requests_ref(lua_State *lua, bool is_websocket, int conf)
{
	vm_push_function(lua, "perilune.requests", "single");
	lua_getfield(lua, conf, "compress");
	if (is_websocket) { /* there it is of messages */
		lua_pushboolean(lua, false);
		lua_replace(lua, -2);
	}
	lua_call(lua, 1, 1);
	return luaL_ref(lua, LUA_REGISTRYINDEX);
}

/* MAY RAISE. It speaks HTTP: its handler gets requests. Its configuration is at conf as well. */
static void open_http(lua_State *lua, struct agent_endpoint *listener, const struct listener_config *config,
		      int conf)
{
	luaL_unref(lua, LUA_REGISTRYINDEX, listener->single_ref);
	listener->single_ref = requests_ref(lua, config->is_websocket, conf);
	instance_keep_function(lua, "perilune.requests", "ready");
	listener->is_http = true;
	listener->http = (struct http){ .protocol.messages = &MESSAGE_REQUESTS,
					.rest.messages = &MESSAGE_REST,
					.limits = config->http,
					.worker = &agents_of(lua)->http };
	http_init(&listener->http);
	listener->endpoint.protocol = &listener->http.protocol;
}

/*
 * MAY RAISE. What becomes of its connections that are WebSockets one day. Where `agent` at idx is for all of them, as
 * of a ws:// listener, it goes on with them in another generation.
 */
static void open_websockets(lua_State *lua, struct agent_endpoint *listener,
			    const struct listener_config *config, int idx)
{
	struct agent_endpoint *websockets = calloc(1, sizeof *websockets);
	listener->websockets = websockets;
	if (!websockets) {
		luaL_error(lua, "not enough memory");
		return; /* for analysers: it does not come back */
	}
	websockets->endpoint = listener->endpoint;
	websockets->codec = listener->codec;
	websockets->policy = listener->policy;
	websockets->budget = listener->budget;
	websockets->proceed_ms = listener->proceed_ms;
	websockets->mailbox = listener->mailbox;
	websockets->websocket = (struct websocket){ .protocol = { .messages = &MESSAGE_WEBSOCKET,
								  .max_bytes = config->message_bytes },
						    .worker = &agents_of(lua)->websocket };
	websocket_init(&websockets->websocket);
	websockets->endpoint.protocol = &websockets->websocket.protocol;
	websockets->endpoint.rules.timeouts.idle = config->pong_ms;
	websockets->endpoint.rules.timeouts.ping = config->ping_ms;
	websockets->endpoint.rules.timeouts.first_frame = 0;
	websockets->loop_ref = websockets->view_loop_ref = websockets->meta_loop_ref = LUA_NOREF;
	websockets->upgrader_ref = LUA_NOREF;
	vm_push_function(lua, "perilune.http.websocket", "metas");
	websocket_open(lua);
	lua_pushcfunction(lua, l_anchor);
	websockets->opener_ref = runtime_ref(lua, "adopter", 1);
	websockets->single_ref = runtime_ref(lua, "single", 0);
	if (!config->is_websocket)
		return;
	lua_pushvalue(lua, idx);
	lua_pushcfunction(lua, l_anchor);
	websockets->upgrader_ref = runtime_ref(lua, "upgrader", 2);
}

/*
 * MAY RAISE. Of a ws:// listener, whose configuration is at conf: in place of its agent on top of the stack, the one of
 * HTTP that lets clients in.
 */
static void push_gate(lua_State *lua, int conf)
{
	vm_push_function(lua, "perilune.http.websocket", "gate");
	lua_insert(lua, -2);
	lua_getfield(lua, conf, "websocket");
	lua_call(lua, 2, 1);
}

static int view_loop_ref(lua_State *lua, const struct batch *batch)
{
	struct agents *agents = agents_of(lua);
	vm_push_function(lua, "perilune.runtime", "view_loop");
	reply_push_surplus(lua);
	lua_pushlightuserdata(lua, (void *)batch->frames);
	lua_pushlightuserdata(lua, agents->echoed);
	lua_call(lua, 3, 3);
	agents->view = (struct view *)lua_topointer(lua, -1);
	agents->view_object = lua_topointer(lua, -2);
	lua_pop(lua, 2); /* the loop keeps both alive */
	return luaL_ref(lua, LUA_REGISTRYINDEX);
}

/* MAY RAISE. What stands on the sockets of a listener, the lowest first. */
static void open_layers(lua_State *lua, struct agent_endpoint *listener, const struct listener_config *config)
{
	char why[256];
	unsigned count = 0;
	if (config->proxy != PROXY_OFF) {
		bool is_optional = config->proxy == PROXY_IF_THERE;
		listener->layers[count++] =
		    (struct layer){ &PROXY_STREAM, is_optional ? &PROXY_OPTIONAL : &PROXY_REQUIRED };
		listener->endpoint.trust = &config->trust;
	}
	if (config->tls) {
		listener->tls = tls_context_new(config->tls, why, sizeof why);
		if (!listener->tls)
			luaL_error(lua, "listener %s: tls: %s", config->name, why);
		listener->layers[count++] = (struct layer){ &TLS_STREAM, listener->tls };
		listener->endpoint.has_handshake = true;
	}
	if (config->amplification && config->kind == LISTENER_UDP) {
		listener->amplify =
		    (struct amplify_settings){ .factor = config->amplification,
					       .name = config->name,
					       .refused = &agents_of(lua)->counters->unsent_datagrams };
		listener->layers[count++] = (struct layer){ &AMPLIFY_STREAM, &listener->amplify };
	}
	listener->endpoint.has_datagrams = config->kind == LISTENER_UDP;
	listener->endpoint.layers = count ? listener->layers : NULL;
}

void bind_open_agent(lua_State *lua, struct agent_endpoint *endpoint, int idx, const struct batch *batch)
{
	lua_pushvalue(lua, idx);
	lua_pushcfunction(lua, l_anchor);
	endpoint->opener_ref = runtime_ref(lua, "opener", 2);
	reply_push_surplus(lua);
	endpoint->loop_ref = runtime_ref(lua, "batch_loop", 1);
	endpoint->single_ref = runtime_ref(lua, "single", 0);
	reply_push_surplus(lua);
	lua_pushvalue(agents_of(lua)->vm.lua, AT_METAS);
	lua_xmove(agents_of(lua)->vm.lua, lua, 1);
	endpoint->meta_loop_ref = runtime_ref(lua, "meta_loop", 2);
	endpoint->view_loop_ref = endpoint->codec.view ? view_loop_ref(lua, batch) : LUA_NOREF;
}

/* conf.listeners[i + 1] is on top of the stack; pops it. */
static void open_listener(struct agents *agents, unsigned i, const char *name)
{
	lua_State *lua = agents->vm.lua;
	struct agent_endpoint *listener = &agents->endpoints[i];
	listener->endpoint.name = name;
	listener->endpoint.index = (uint16_t)i;
	listener->endpoint.protocol = &listener->codec.protocol;
	open_layers(lua, listener, &agents->instance.config->listeners[i]);
	lua_getfield(lua, -1, "frame");
	const char *wrong = bind_codec(lua, lua_gettop(lua), &listener->codec);
	listener->codec.lua_listener = i;
	if (wrong)
		luaL_error(lua, "listener %s: frame: %s", name, wrong);
	lua_pop(lua, 1);
	const struct listener_config *config = &agents->instance.config->listeners[i];
	int conf = lua_gettop(lua);
	lua_getfield(lua, conf, "agent");
	if (config->is_http)
		open_websockets(lua, listener, config, lua_gettop(lua));
	if (config->is_websocket)
		push_gate(lua, conf);
	bind_open_agent(lua, listener, lua_gettop(lua), &agents->host->batch);
	lua_pushcfunction(lua, l_anchor);
	lua_pushboolean(lua, false);
	lua_pushboolean(lua, config->is_http);
	listener->upgrader_ref = runtime_ref(lua, "upgrader", 4);
	if (config->is_http)
		open_http(lua, listener, config, conf);
	lua_settop(lua, conf - 1);
}

/* conf is on top of the stack. */
static void keep_redact(struct agents *agents)
{
	lua_State *lua = agents->vm.lua;
	lua_getfield(lua, -1, "record");
	lua_getfield(lua, -1, "redact");
	if (lua_isfunction(lua, -1))
		agents->redact_ref = luaL_ref(lua, LUA_REGISTRYINDEX);
	else
		lua_pop(lua, 1);
	lua_pop(lua, 1);
}

/* conf is on top of the stack. */
static void open_listeners(lua_State *lua)
{
	struct agents *agents = agents_of(lua);
	const struct config *config = agents->instance.config;
	lua_getfield(lua, -1, "listeners");
	if (lua_objlen(lua, -1) != config->listener_count)
		luaL_error(lua, "the script returns other listeners each time it is loaded");
	for (unsigned i = 0; i < config->listener_count; i++) {
		lua_rawgeti(lua, -1, (int)i + 1);
		open_listener(agents, i, config->listeners[i].name);
	}
	lua_pop(lua, 1);
}

/* conf.agents[i + 1] is on top of the stack; pops it. */
static void open_kind(struct agents *agents, unsigned i)
{
	lua_State *lua = agents->vm.lua;
	struct agent_endpoint *kind = residents_endpoint(agents, i);
	lua_getfield(lua, -1, "agent");
	lua_pushvalue(lua, -1);
	lua_pushcfunction(lua, l_anchor);
	lua_pushboolean(lua, 1);
	kind->opener_ref = runtime_ref(lua, "opener", 3);
	lua_pushcfunction(lua, l_anchor);
	lua_pushboolean(lua, 1);
	kind->upgrader_ref = runtime_ref(lua, "upgrader", 3);
	lua_pop(lua, 1);
}

/* conf is on top of the stack. */
static void open_kinds(lua_State *lua)
{
	struct agents *agents = agents_of(lua);
	const struct config *config = agents->instance.config;
	lua_getfield(lua, -1, "agents");
	if (lua_objlen(lua, -1) != config->kind_count)
		luaL_error(lua, "the script returns other agents each time it is loaded");
	for (unsigned i = 0; i < config->kind_count; i++) {
		lua_rawgeti(lua, -1, (int)i + 1);
		open_kind(agents, i);
	}
	lua_pop(lua, 1);
}

/* conf is on top of the stack. */
static void take_conf(lua_State *lua)
{
	open_listeners(lua);
	open_kinds(lua);
	bind_open_dicts(lua);
	keep_redact(agents_of(lua));
}

/* The app of setup() and teardown() is on top of the stack: it gets its methods. */
static void dress_app(lua_State *lua)
{
	vm_push_function(lua, "perilune.runtime", "dress_app");
	lua_insert(lua, -2);
	lua_call(lua, 1, 1);
}

static uint32_t least_of_listeners(const struct config *config)
{
	uint32_t least_ms = 0;
	for (unsigned i = 0; i < config->listener_count; i++) {
		uint32_t ms = config->listeners[i].budget.ms;
		if (ms && (!least_ms || ms < least_ms))
			least_ms = ms;
	}
	return least_ms;
}

static const struct instance_role AGENTS_ROLE = {
	.lay_out = lay_out_agents,
	.kept = AT_TOP,
	.push_core = bind_core,
	.take_conf = take_conf,
	.dress_app = dress_app,
	.least_ms = least_of_listeners,
	.progress = run_progress,
	.cut = batch_cut_current,
	.abandon = run_abandon,
};

static bool make_endpoints(struct agents *agents, const struct config *config)
{
	agents->endpoint_count = config->listener_count;
	agents->endpoints = calloc(config->listener_count, sizeof *agents->endpoints);
	if (!agents->endpoints)
		return false;
	for (unsigned i = 0; i < config->listener_count; i++) {
		agents->endpoints[i].budget = config->listeners[i].budget;
		agents->endpoints[i].proceed_ms = config->listeners[i].proceed_ms;
		agents->endpoints[i].mailbox = config->listeners[i].mailbox;
		agents->endpoints[i].endpoint.rules = config->listeners[i].rules;
		agents->endpoints[i].policy = config->listeners[i].policy;
	}
	return true;
}

static void free_tables(struct agents *agents)
{
	for (unsigned i = 0; agents->endpoints && i < agents->endpoint_count; i++) {
		tls_context_free(agents->endpoints[i].tls);
		free(agents->endpoints[i].websockets);
	}
	websocket_worker_deinit(&agents->websocket);
	free(agents->anchor_tables);
	free(agents->anchor_next);
	free(agents->endpoints);
	/* All else stays: `conns` may be read by others still. */
	agents->anchor_tables = NULL;
	agents->anchor_next = NULL;
	agents->endpoints = NULL;
	residents_free(agents);
}

static void free_all(struct agents *agents)
{
	work_free(agents);
	free_tables(agents);
}

static uint64_t clock_of(const struct instance *instance)
{
	return bind_now_ms((const struct agents *)(const void *)instance);
}

int agents_open(struct agents *agents, struct conn_host *host, const struct config *config, unsigned worker,
		uint32_t generation, struct counters *counters, char *why, size_t size)
{
	memset(agents, 0, sizeof *agents);
	agents->host = host;
	agents->instance.dicts = host->dicts;
	agents->instance.now_ms = clock_of;
	agents->removed_policy = config->reload_policy;
	agents->ticks = ticks_start();
	agents->counters = counters;
	agents->log_frame_bytes = config->log_frame_bytes;
	agents->redact_ref = LUA_NOREF;
	http_open_worker(agents);
	websocket_open_worker(agents, config->deflate_bytes);
	repeats_init(&agents->repeats);
	wheel_list_init(&agents->ready);
	wheel_list_init(&agents->posted);
	wheel_list_init(&agents->heard);
	idmap_init(&agents->works);
	idmap_init(&agents->tasks);
	idmap_init(&agents->links);
	if (!make_endpoints(agents, config) || !residents_open(agents, config)) {
		free_tables(agents);
		limits_explain(UV_ENOMEM, why, size);
		return UV_ENOMEM;
	}
	int err = instance_load(&agents->instance, &AGENTS_ROLE, config, worker, generation, why, size);
	if (err)
		free_all(agents);
	return err;
}

int agents_set_up(struct agents *agents, const struct snapshot *snapshot, char *why, size_t size)
{
	int err = instance_set_up(&agents->instance, snapshot, why, size);
	if (err)
		free_all(agents);
	return err;
}

void agents_detach(struct agents *agents)
{
	if (agents->attached) { /* the clock is the host's thread's */
		work_end_app(agents);
		repeats_flush(agents, agents->host->now_ms);
	}
	agents->attached = false;
	instance_detach(&agents->instance);
}

void agents_attach(struct agents *agents)
{
	instance_attach(&agents->instance);
	wheel_init(&agents->sleeps, agents->host->now_ms);
	wheel_list_init(&agents->due);
	residents_attach(agents);
	agents->attached = true;
	work_start_app(agents);
}

bool agents_close(struct agents *agents, uint32_t teardown_ms)
{
	agents_detach(agents);
	agents->app_is_over = true;
	bool done = instance_close(&agents->instance, teardown_ms);
	free_all(agents);
	return done;
}
