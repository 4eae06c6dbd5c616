/*
 * What connections out to one address, with the same options, have in common. Those that are not used any more are kept
 * for a while: a program connects to the same few places again and again, and to read certificates takes long.
 */
#include "agent/client.h"

#include "tls/context.h"

#include <lauxlib.h>
#include <stdlib.h>

#define ENDPOINTS "perilune.endpoints" /* in the registry: key → endpoint, as a light userdata */

/* MAY RAISE. */
static void push_endpoints(lua_State *lua)
{
	lua_getfield(lua, LUA_REGISTRYINDEX, ENDPOINTS);
	if (!lua_isnil(lua, -1))
		return;
	lua_pop(lua, 1);
	lua_newtable(lua);
	lua_pushvalue(lua, -1);
	lua_setfield(lua, LUA_REGISTRYINDEX, ENDPOINTS);
}

struct client_endpoint *client_endpoint_of(lua_State *lua, int key)
{
	push_endpoints(lua);
	lua_pushvalue(lua, key);
	lua_rawget(lua, -2);
	struct client_endpoint *endpoint = lua_touserdata(lua, -1);
	lua_pop(lua, 2);
	return endpoint;
}

void client_free_endpoint(struct client_endpoint *endpoint)
{
	tls_context_free(endpoint->endpoint.tls);
	free((void *)endpoint->handshake.request);
	free((void *)endpoint->handshake.subprotocols);
	free(endpoint);
}

static void unref_all(lua_State *lua, const struct client_endpoint *endpoint)
{
	const struct agent_endpoint *its = &endpoint->endpoint;
	const int REFS[] = { its->opener_ref,           its->loop_ref,      its->single_ref,
			     its->view_loop_ref,        its->meta_loop_ref, its->codec.lua_decode_ref,
			     its->codec.lua_encode_ref, endpoint->key_ref };
	for (size_t i = 0; i < sizeof REFS / sizeof *REFS; i++)
		luaL_unref(lua, LUA_REGISTRYINDEX, REFS[i]);
}

void client_drop_endpoint(lua_State *lua, struct client_endpoint *endpoint)
{
	struct agents *agents = agents_of(lua);
	if (agents->unborn_endpoint == endpoint)
		agents->unborn_endpoint = NULL;
	unref_all(lua, endpoint);
	client_free_endpoint(endpoint);
}

/* It is found no more. */
static void forget_endpoint(lua_State *lua, struct client_endpoint *endpoint)
{
	struct client_endpoint **link = &agents_of(lua)->client_endpoints;
	while (*link != endpoint)
		link = &(*link)->next;
	*link = endpoint->next;
	push_endpoints(lua);
	lua_rawgeti(lua, LUA_REGISTRYINDEX, endpoint->key_ref);
	lua_pushnil(lua);
	lua_rawset(lua, -3);
	lua_pop(lua, 1);
	client_drop_endpoint(lua, endpoint);
}

static void trim_endpoints(lua_State *lua)
{
	enum { IDLE_MAX = 32 };
	struct client_endpoint *oldest = NULL;
	unsigned idle = 0;
	for (struct client_endpoint *each = agents_of(lua)->client_endpoints; each; each = each->next) {
		idle += !each->users;
		if (!each->users && (!oldest || each->used < oldest->used))
			oldest = each;
	}
	if (idle > IDLE_MAX)
		forget_endpoint(lua, oldest);
}

void client_keep_endpoint(lua_State *lua, int key, struct client_endpoint *endpoint)
{
	struct agents *agents = agents_of(lua);
	trim_endpoints(lua);
	lua_pushvalue(lua, key);
	endpoint->key_ref = luaL_ref(lua, LUA_REGISTRYINDEX);
	push_endpoints(lua);
	lua_pushvalue(lua, key);
	lua_pushlightuserdata(lua, endpoint);
	lua_rawset(lua, -3);
	lua_pop(lua, 1);
	endpoint->next = agents->client_endpoints;
	agents->client_endpoints = endpoint;
}

void client_free_endpoints(struct agents *agents)
{
	struct client_endpoint *endpoint;
	while ((endpoint = agents->client_endpoints)) {
		agents->client_endpoints = endpoint->next;
		client_free_endpoint(endpoint);
	}
	if (agents->unborn_endpoint)
		client_free_endpoint(agents->unborn_endpoint);
	agents->unborn_endpoint = NULL;
}
