/* What of perilune.connect() and perilune.resolve() is C. Their Lua side is lua/perilune/connecting.lua. */
#include "agent/client.h"
#include "agent/forward.h"
#include "agent/handle.h"
#include "agent/line.h"
#include "agent/request.h"
#include "agent/websocket.h"
#include "bind/bind.h"
#include "config/tls.h"
#include "net/address.h"
#include "tls/context.h"
#include "tls/outgoing.h"
#include "tls/stream.h"

#include <net/if.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

#define NO_NETWORK "there is no network here"

/* ---- a specification in Lua: what lua/perilune/connecting.lua makes of an address and options ---- */

static uint32_t spec_number(lua_State *lua, int idx, const char *group, const char *key)
{
	lua_getfield(lua, idx, group);
	lua_getfield(lua, -1, key);
	double n = lua_tonumber(lua, -1);
	lua_pop(lua, 2);
	return n < 0 ? 0 : n > UINT32_MAX ? UINT32_MAX : (uint32_t)n;
}

static uint32_t spec_milliseconds(lua_State *lua, int idx, const char *key)
{
	lua_getfield(lua, idx, key);
	double ms = lua_tonumber(lua, -1);
	lua_pop(lua, 1);
	return ms > 0 && ms < UINT32_MAX ? (uint32_t)ms : 0;
}

/* A field that is text, or NULL. It lives as long as the specification. */
static const char *spec_text(lua_State *lua, int idx, const char *key)
{
	lua_getfield(lua, idx, key);
	const char *text = lua_tostring(lua, -1);
	lua_pop(lua, 1);
	return text;
}

static bool spec_flag(lua_State *lua, int idx, const char *key)
{
	lua_getfield(lua, idx, key);
	bool is_set = lua_toboolean(lua, -1);
	lua_pop(lua, 1);
	return is_set;
}

static enum slow_policy spec_policy(lua_State *lua, int idx)
{
	static const char *const POLICIES[] = {
		[SLOW_PAUSE] = "pause", [SLOW_CLOSE] = "close", [SLOW_DROP] = "drop", NULL
	};
	lua_getfield(lua, idx, "limits");
	lua_getfield(lua, -1, "slow_consumer");
	unsigned policy = bind_choice_check(lua, lua_gettop(lua), POLICIES);
	lua_pop(lua, 2);
	return (enum slow_policy)policy;
}

static struct conn_rules spec_rules(lua_State *lua, int spec)
{
	return (struct conn_rules){
		.timeouts = { .read = spec_number(lua, spec, "timeout", "read"),
			      .write = spec_number(lua, spec, "timeout", "write"),
			      .idle = spec_number(lua, spec, "timeout", "idle"),
			      .first_frame = spec_number(lua, spec, "timeout", "first_frame") },
		.send_buffer_bytes = spec_number(lua, spec, "limits", "send_buffer"),
		.inbox_frames = spec_number(lua, spec, "limits", "inbox"),
		.slow = spec_policy(lua, spec),
	};
}

/* What is not said stays as it is. */
static void spec_override(lua_State *lua, int idx, const char *group, const char *key, double *number)
{
	lua_getfield(lua, idx, group);
	lua_getfield(lua, -1, key);
	if (lua_isnumber(lua, -1))
		*number = lua_tonumber(lua, -1);
	lua_pop(lua, 2);
}

/* Of each call of its agent: as the first listener has it, but for what is said. */
static void read_budget(lua_State *lua, int spec, struct agent_endpoint *its)
{
	struct agents *agents = agents_of(lua);
	const struct agent_endpoint *first = &agents->endpoints[0];
	double ms = first->budget.ms, bytes = (double)first->budget.allocated_bytes,
	       proceed_ms = first->proceed_ms;
	spec_override(lua, spec, "limits", "proceed", &ms);
	spec_override(lua, spec, "limits", "allocation", &bytes);
	spec_override(lua, spec, "timeout", "proceed", &proceed_ms);
	its->budget = (struct vm_budget){ .ms = (uint32_t)ms, .allocated_bytes = (uint64_t)bytes };
	its->mailbox = first->mailbox;
	its->proceed_ms = proceed_ms < UINT32_MAX ? (uint32_t)proceed_ms : UINT32_MAX;
	if (its->budget.ms && its->budget.ms < agents->vm.guard.least_ms)
		guard_set_least(&agents->vm.guard, its->budget.ms);
}

/* One that was begun before, and was not finished when something was raised, is in the way no more. */
static struct client_endpoint *unborn_endpoint_for(lua_State *lua, const char *name)
{
	struct agents *agents = agents_of(lua);
	if (agents->unborn_endpoint)
		client_drop_endpoint(lua, agents->unborn_endpoint);
	size_t bytes = strlen(name) + 1;
	struct client_endpoint *endpoint = calloc(1, sizeof *endpoint + bytes);
	agents->unborn_endpoint = endpoint;
	if (endpoint)
		memcpy(endpoint->name, name, bytes);
	return endpoint;
}

static void init_refs(struct agent_endpoint *endpoint)
{
	endpoint->opener_ref = endpoint->upgrader_ref = endpoint->loop_ref = endpoint->single_ref =
	    endpoint->view_loop_ref = endpoint->meta_loop_ref = LUA_NOREF;
	endpoint->codec.lua_decode_ref = endpoint->codec.lua_encode_ref = LUA_NOREF;
}

/* MAY RAISE. Its files are read now, and no more. */
static void open_outgoing_tls(lua_State *lua, struct agent_endpoint *endpoint, int spec)
{
	struct tls_outgoing rules;
	char why[512];
	lua_getfield(lua, spec, "tls");
	if (lua_istable(lua, -1)) {
		const char *wrong =
		    config_read_outgoing(lua, agents_of(lua)->instance.config, &rules, why, sizeof why);
		if (wrong)
			RAISE(lua, "perilune.connect: tls: %s", wrong);
		endpoint->tls = tls_outgoing_context(&rules, why, sizeof why);
		tls_outgoing_deinit(&rules);
		if (!endpoint->tls)
			RAISE(lua, "perilune.connect: tls: %s", why);
		endpoint->layers[0] = (struct layer){ &TLS_STREAM, endpoint->tls };
		endpoint->endpoint.layers = endpoint->layers;
	}
	lua_pop(lua, 1);
}

/* A field that is text, as a copy. MAY RAISE. */
static const char *copy_text(lua_State *lua, int idx, const char *key, size_t *n)
{
	lua_getfield(lua, idx, key);
	const char *text = luaL_checklstring(lua, -1, n);
	char *copy = malloc(*n + 1);
	if (!copy)
		luaL_error(lua, "perilune.connect: not enough memory");
	else
		memcpy(copy, text, *n + 1);
	lua_pop(lua, 1);
	return copy;
}

/* MAY RAISE. What it speaks once its handshake is over. */
static void open_outgoing_websocket(lua_State *lua, struct client_endpoint *endpoint, int spec)
{
	struct agent_endpoint *its = &endpoint->endpoint;
	lua_getfield(lua, spec, "websocket");
	int its_own = lua_gettop(lua);
	if (lua_istable(lua, its_own)) {
		struct handshake *handshake = &endpoint->handshake;
		size_t bytes;
		handshake->request = copy_text(lua, its_own, "request", &handshake->request_bytes);
		handshake->subprotocols = copy_text(lua, its_own, "subprotocols", &bytes);
		handshake->compresses = spec_flag(lua, its_own, "compress");
		handshake->keeps = spec_flag(lua, its_own, "keeps");
		its->websocket = (struct websocket){ .protocol = { .messages = &MESSAGE_WEBSOCKET,
								   .max_bytes = spec_number(
								       lua, spec, "limits", "message") },
						     .worker = &agents_of(lua)->websocket,
						     .is_client = true };
		websocket_init(&its->websocket);
		its->endpoint.rules.timeouts.idle = spec_milliseconds(lua, its_own, "pong");
		its->endpoint.rules.timeouts.ping = spec_milliseconds(lua, its_own, "ping");
		lua_getfield(lua, its_own, "metas");
		websocket_open(lua);
		endpoint->is_websocket = true;
	}
	lua_settop(lua, its_own - 1);
}

/* MAY RAISE. */
static struct client_endpoint *new_endpoint(lua_State *lua, int spec, const struct conn_host *out)
{
	struct agents *agents = agents_of(lua);
	struct client_endpoint *endpoint = unborn_endpoint_for(lua, spec_text(lua, spec, "address"));
	if (!endpoint)
		RAISE(lua, "perilune.connect: not enough memory");
	struct agent_endpoint *its = &endpoint->endpoint;
	init_refs(its);
	endpoint->key_ref = LUA_NOREF;
	its->endpoint.name = endpoint->name;
	its->endpoint.index = (uint16_t)agents->endpoint_count;
	its->endpoint.protocol = &its->codec.protocol;
	its->endpoint.rules = spec_rules(lua, spec);
	its->endpoint.has_datagrams = spec_flag(lua, spec, "datagrams");
	its->policy = RELOAD_PIN;
	read_budget(lua, spec, its);
	endpoint->connect_ms = spec_number(lua, spec, "timeout", "connect");
	endpoint->read_ms = its->endpoint.rules.timeouts.read;
	endpoint->keepalive_ms = spec_milliseconds(lua, spec, "keepalive");
	lua_getfield(lua, spec, "frame");
	const char *wrong = bind_codec(lua, lua_gettop(lua), &its->codec);
	if (wrong)
		luaL_error(lua, "perilune.connect: frame: %s", wrong);
	open_outgoing_tls(lua, its, spec);
	open_outgoing_websocket(lua, endpoint, spec);
	lua_getfield(lua, spec, "agent");
	endpoint->has_agent = lua_toboolean(lua, -1);
	if (!endpoint->has_agent && its->codec.view) { /* what is read in straight lines is kept */
		its->codec.view = false;
		its->codec.protocol.messages = &MESSAGE_STRINGS;
	}
	if (endpoint->has_agent)
		bind_open_agent(lua, its, lua_gettop(lua), &out->batch);
	lua_pop(lua, 2);
	return endpoint;
}

/* MAY RAISE. The endpoint of the key at `key`, made by the specification at `spec` where there is none. */
static struct client_endpoint *endpoint_for(lua_State *lua, int key, int spec, const struct conn_host *out)
{
	struct client_endpoint *endpoint = client_endpoint_of(lua, key);
	if (endpoint)
		return endpoint;
	endpoint = new_endpoint(lua, spec, out);
	client_keep_endpoint(lua, key, endpoint);
	agents_of(lua)->unborn_endpoint = NULL;
	return endpoint;
}

/* Our side's address; false: there is none. The text was looked at before. */
static bool read_local(const char *text, struct sockaddr_storage *local)
{
	memset(local, 0, sizeof *local);
	return text && (!uv_ip4_addr(text, 0, (struct sockaddr_in *)local) ||
			!uv_ip6_addr(text, 0, (struct sockaddr_in6 *)local));
}

static struct dial_target target_of(lua_State *lua, int spec, struct sockaddr_storage *local)
{
	lua_getfield(lua, spec, "port");
	uint16_t port = (uint16_t)lua_tonumber(lua, -1);
	lua_pop(lua, 1);
	const char *path = spec_text(lua, spec, "path");
	return (struct dial_target){
		.is_local = path != NULL,
		.is_datagram = spec_flag(lua, spec, "datagrams"),
		.host = spec_text(lua, spec, "host"),
		.port = port,
		.path = path,
		.from = read_local(spec_text(lua, spec, "from"), local) ? local : NULL,
	};
}

/* ---- perilune.connect ---- */

/* MAY RAISE. The thread's host of connections out, made if it is not there; NULL: *err. */
static struct conn_host *begin_host(struct agents *agents, int *err)
{
	struct outgoing *outgoing = agents->host->outgoing;
	*err = !outgoing ? UV_ENOTSUP : outgoing->host ? 0 : outgoing->ops->begin(outgoing);
	return *err ? NULL : outgoing->host;
}

static struct work *begin_clients(lua_State *lua, struct channel *channel)
{
	struct work *work = work_begin(agents_of(lua), channel);
	if (!work)
		bind_raise(lua, "perilune.connect: not enough memory");
	return work;
}

/* What it leases from now on ends with it. */
static void lease_to(struct agents *agents, struct run *run)
{
	run->has_leases = true;
	if (!run->serial)
		run->serial = ++agents->last_serial;
}

/*
 * MAY RAISE. How long it may take to connect: less than timeout.connect where the number at idx, in seconds, says so.
 */
static uint32_t connect_ms(lua_State *lua, int idx, const struct client_endpoint *endpoint)
{
	uint32_t ms = lua_isnoneornil(lua, idx) ? 0 : bind_duration_of(lua, idx, "perilune.connect");
	return ms && (!endpoint->connect_ms || ms < endpoint->connect_ms) ? ms : endpoint->connect_ms;
}

/* MAY RAISE, MAY YIELD. connect(key, specification[, is_leased[, most]]) → conn | nil, message, code */
static int l_connect(lua_State *lua)
{
	struct agents *agents = agents_of(lua);
	int err;
	luaL_checktype(lua, 1, LUA_TSTRING);
	luaL_checktype(lua, 2, LUA_TTABLE);
	struct channel *channel = bind_check_beginner(lua, "perilune.connect", "a task of app:spawn(…)");
	struct run *run = bind_check_waiter(lua, "perilune.connect");
	const struct conn_host *out = begin_host(agents, &err);
	if (!out)
		return client_push_error(lua, err, err == UV_ENOTSUP ? NO_NETWORK : NULL);
	struct client_endpoint *endpoint = endpoint_for(lua, 1, 2, out);
	uint32_t ms = connect_ms(lua, 4, endpoint);
	struct work *work = begin_clients(lua, channel);
	if (work->client_count >= WORK_CLIENTS_MAX)
		return client_push_error(lua, UV_EBUSY, "too many connections out of one agent");
	struct sockaddr_storage local;
	struct dial_target target = target_of(lua, 2, &local);
	struct client *client = client_dial(agents, work, endpoint, &target, &err);
	if (!client)
		return client_push_error(
		    lua, err, err == UV_EBUSY ? "too many connections out (limits.outgoing)" : NULL);
	if (lua_toboolean(lua, 3)) {
		lease_to(agents, run);
		client->is_leased = true;
	}
	return errand_wait(lua, run, &client->errand, ms);
}

/* ---- perilune.resolve ---- */

struct asking {
	struct inquiry inquiry; /* first */
	struct errand errand;
	struct agents *agents;
};

static void abandon_asking(struct errand *errand)
{
	struct asking *asking = (struct asking *)(void *)((char *)errand - offsetof(struct asking, errand));
	asking->inquiry.outgoing->ops->cancel_inquiry(&asking->inquiry);
	free(asking);
}

static const struct errand_ops ASKING_ERRAND = { .what = "perilune.resolve", .abandon = abandon_asking };

/* Pushes them as a list of text. */
static void push_addresses(lua_State *lua, const union address *list, unsigned count)
{
	char text[INET6_ADDRSTRLEN + IF_NAMESIZE + 1];
	lua_createtable(lua, (int)count, 0);
	for (unsigned i = 0; i < count; i++) {
		lua_pushstring(lua, address_host(&list[i], text, sizeof text));
		lua_rawseti(lua, -2, (int)i + 1);
	}
}

static void on_answered(struct inquiry *inquiry, int err, const union address *list, unsigned count)
{
	struct asking *asking = (struct asking *)(void *)inquiry;
	struct run *run = errand_take(asking->agents, &asking->errand);
	int n = 1;
	if (count)
		push_addresses(run->co.lua, list, count);
	else
		n = client_push_error(run->co.lua, err, NULL);
	line_ready(asking->agents, run, n);
	free(asking);
}

/* MAY RAISE, MAY YIELD. resolve(name[, timeout]) → addresses | nil, message, code */
static int l_resolve(lua_State *lua)
{
	struct agents *agents = agents_of(lua);
	const char *name = luaL_checkstring(lua, 1);
	enum { USUAL_MS = 5000 };
	uint32_t ms = lua_isnoneornil(lua, 2) ? USUAL_MS : bind_duration_of(lua, 2, "perilune.resolve");
	bind_check_beginner(lua, "perilune.resolve", "a task of app:spawn(…)");
	struct run *run = bind_check_waiter(lua, "perilune.resolve");
	struct outgoing *outgoing = agents->host->outgoing;
	if (!outgoing)
		return client_push_error(lua, UV_ENOTSUP, NO_NETWORK);
	struct asking *asking = calloc(1, sizeof *asking);
	if (!asking)
		return client_push_error(lua, UV_ENOMEM, NULL);
	asking->inquiry = (struct inquiry){ .outgoing = outgoing, .done = on_answered };
	asking->errand.ops = &ASKING_ERRAND;
	asking->agents = agents;
	int err = outgoing->ops->resolve(&asking->inquiry, name);
	if (!err)
		return errand_wait(lua, run, &asking->errand, ms);
	free(asking);
	return client_push_error(lua, err, NULL);
}

/* ---- connections that are kept, and shared: lua/perilune/pooling.lua ---- */

/* MAY RAISE. The connection out at 1, without an agent; NULL: it has ended. */
static struct client *check_client(lua_State *lua, const char *what)
{
	struct channel *channel = bind_check_conn(lua);
	struct client *client = channel ? client_of(channel) : NULL;
	if (channel && !client)
		bind_raise(lua, "%s: it is no connection of perilune.connect() without an agent", what);
	return client && client->stage == CLIENT_OPEN && channel_is_open(channel) ? client : NULL;
}

/* MAY RAISE. Is it the running call's agent's? */
static bool is_callers(lua_State *lua, const struct client *client)
{
	const struct run *run = agents_of(lua)->current;
	return run && client->work && client->work->channel == run->channel;
}

/* MAY RAISE. The client of entry.conn; the entry is at 1. NULL: it has ended. Leaves its conn at 1, the entry at 2. */
static struct client *check_entry(lua_State *lua, const char *what)
{
	luaL_checktype(lua, 1, LUA_TTABLE);
	lua_settop(lua, 1);
	lua_getfield(lua, 1, "conn");
	lua_insert(lua, 1);
	return check_client(lua, what);
}

/*
 * entry.conn becomes the app's, and another conn object: the one that its owner has is of no use to it any more.
 * Nothing
 * is left half done, wherever the call is ended.
 */
static struct client *release_entry(lua_State *lua, const char *what)
{
	struct agents *agents = agents_of(lua);
	struct client *client = check_entry(lua, what);
	if (!client || !is_callers(lua, client))
		return NULL;
	uint64_t id = outgoing_new_id(agents->host->outgoing);
	lua_createtable(lua, 1, 0);
	lua_pushnumber(lua, handle_seal(lua_topointer(lua, -1), id));
	lua_rawseti(lua, -2, HANDLE_AT);
	lua_getmetatable(lua, 1);
	lua_setmetatable(lua, -2);
	lua_setfield(lua, 2, "conn");
	if (client_release(agents, client, id))
		return client;
	lua_pushvalue(lua, 1);
	lua_setfield(lua, 2, "conn");
	return NULL;
}

/* MAY RAISE. release(entry) → true: entry.conn is the app's now, and idles | false: it is of no use to others */
static int l_release(lua_State *lua)
{
	lua_pushboolean(lua, release_entry(lua, "release") != NULL);
	return 1;
}

/* MAY RAISE. share(entry) → the same, and it takes requests */
static int l_share(lua_State *lua)
{
	struct client *client = release_entry(lua, "share");
	if (client)
		client_share(client);
	lua_pushboolean(lua, client != NULL);
	return 1;
}

/*
 * MAY RAISE. acquire(conn[, is_agents]) → true: it is the running call's agent's now, for as long as the call runs
 * or, where it is to be the agent's, as that lives | false: it has ended, or said something
 */
static int l_acquire(lua_State *lua)
{
	struct agents *agents = agents_of(lua);
	struct client *client = check_client(lua, "acquire");
	struct channel *channel = bind_check_beginner(lua, "pool", "a task of app:spawn(…)");
	struct work *work = client ? begin_clients(lua, channel) : NULL;
	bool is_agents = lua_toboolean(lua, 2);
	bool acquired = client && client_acquire(client, work);
	if (acquired && !is_agents) {
		lease_to(agents, agents->current);
		client->lessee = agents->current->serial;
	}
	lua_pushboolean(lua, acquired);
	return 1;
}

/* MAY RAISE, MAY YIELD. request(conn, data[, timeout]) → reply | nil, message, code */
static int l_request(lua_State *lua)
{
	struct client *client = check_client(lua, "request");
	uint32_t ms = lua_isnoneornil(lua, 3) ? 0 : bind_duration_of(lua, 3, "pool:request: timeout");
	struct run *run = bind_check_waiter(lua, "pool:request");
	if (!client || !client->is_shared || !request_may_send(client))
		return client_push_error(lua, UV_ECANCELED, "closed");
	if (lua_isnone(lua, 3))
		ms = client_endpoint(client)->read_ms;
	return request_send(lua, run, client, 2, ms);
}

/*
 * MAY RAISE. forward(conn, depth, data[, timeout[, otherwise]]) → what the handler is to return for its frame; nothing:
 * it cannot be done here and now
 */
static int l_forward(lua_State *lua)
{
	struct client *client = check_client(lua, "forward");
	if (client)
		client = forward_choose(agents_of(lua), client);
	if (!client || !forward_is_possible(client, (uint32_t)lua_tointeger(lua, 2)))
		return 0;
	uint32_t ms = lua_isnoneornil(lua, 4) ? client_endpoint(client)->read_ms
					      : bind_duration_of(lua, 4, "pool:forward: timeout");
	forward_send(lua, client, 3, ms, 5);
	return 1;
}

/* forwarder() → forward_bytes and its first argument, for LuaJIT's ffi */
static int l_forwarder(lua_State *lua)
{
	bool (*function)(struct agents *, double, uint32_t, uint32_t, const char *, size_t) = forward_bytes;
	lua_pushlightuserdata(lua, (void *)(uintptr_t)function);
	lua_pushlightuserdata(lua, agents_of(lua));
	return 2;
}

/*
 * MAY RAISE. owed(conn) → how many replies are owed to requests; for how many seconds no frame has come; for how many
 * milliseconds it has said nothing though it owes one | nil: it has ended, or is of no use any more
 */
static int l_owed(lua_State *lua)
{
	struct client *client = check_client(lua, "owed");
	if (!client || (client->is_shared && !request_may_send(client)))
		return 0;
	const struct conn *conn = &client->made->conn;
	lua_pushinteger(lua, (lua_Integer)client->requests.count);
	lua_pushnumber(lua, (lua_Number)(conn->host->now_ms - conn->idle_since_ms) / 1000);
	lua_pushnumber(lua, (lua_Number)request_silence_ms(client));
	return 3;
}

void bind_connect(lua_State *lua)
{
	static const luaL_Reg FUNCTIONS[] = {
		{ "connect", l_connect }, { "resolve", l_resolve }, { "release", l_release },
		{ "acquire", l_acquire }, { "request", l_request }, { "owed", l_owed },
		{ "share", l_share },     { "forward", l_forward }, { "forwarder", l_forwarder },
		{ NULL, NULL },
	};
	luaL_register(lua, NULL, FUNCTIONS);
}
