/* Names, and what is sent to them: perilune.register, unregister, send, call. */
#include "names/names.h"

#include "agent/call.h"
#include "agent/recipient.h"
#include "agent/resident.h"
#include "agent/work.h"
#include "bind/bind.h"

#include <string.h>

/* ---- arguments; all of these MAY RAISE ---- */

static struct names_key check_agent_name(lua_State *lua, const char *what)
{
	struct names_key key;
	key.data = lua_tolstring(lua, 1, &key.len);
	if (!key.data)
		bind_raise(lua, "%s: the name is a string, got %s", what, luaL_typename(lua, 1));
	if (!key.len || key.len > NAMES_KEY_MAX)
		bind_raise(lua, "%s: a name has 1 to %d bytes, this one has %d", what, NAMES_KEY_MAX,
			   (int)key.len);
	return key;
}

/* The running call's channel, which the app's may be. */
static struct channel *check_sender(lua_State *lua, const char *what)
{
	const struct agents *agents = agents_of(lua);
	if (!agents->current)
		bind_raise(lua,
			   "%s: only a running handler can; what belongs to no connection does so in "
			   "setup(app), in a "
			   "task of app:spawn(…)",
			   what);
	if (agents->current->callback == CALL_SNAPSHOT)
		bind_raise(lua, "%s: snapshot() must not begin anything", what);
	return agents->current->channel;
}

/* An agent that can have names. */
static struct channel *check_owner(lua_State *lua, const char *what)
{
	struct channel *channel = check_sender(lua, what);
	if (work_is_apps(channel))
		bind_raise(lua, "%s: only an agent can have a name, and this task is the app's", what);
	if (!channel->anchor)
		bind_raise(lua, "%s: there is no agent yet: in opened(), or later", what);
	return channel;
}

bool bind_takes_messages(lua_State *lua, struct agents *agents, const struct channel *channel)
{
	agent_push(agents, lua, channel);
	lua_getfield(lua, -1, callback_name(CALL_MESSAGE));
	bool has = !lua_isnil(lua, -1);
	lua_pop(lua, 2);
	return has;
}

/* What is sent, at idx; it may be packed, and is there instead then. False: it is too large. */
static bool check_message(lua_State *lua, int idx, const char *what, struct letter_value *value)
{
	if (!letter_read(lua, idx, value)) {
		lua_getfield(lua, LUA_REGISTRYINDEX, "perilune.runtime.pack_message");
		lua_pushvalue(lua, idx);
		lua_pushstring(lua, what);
		lua_call(lua, 2, 1);
		lua_replace(lua, idx);
		letter_read(lua, idx, value);
		value->kind = LETTER_PACKED;
		return value->data && value->len <= LETTER_BYTES_MAX;
	}
	return value->len <= LETTER_BYTES_MAX;
}

/*
 * One that sends without a name, and can be sent to, gets an address, with its first message. It has one or none from
 * then on, whatever becomes of its method: the second message does not ask again. False: there is no memory for it.
 */
static bool give_address(lua_State *lua, struct agents *agents, struct channel *channel)
{
	struct recipient *recipient = recipient_of(agents, channel);
	if (work_is_apps(channel) || channel->lone || !channel->anchor || !channel_is_open(channel))
		return true;
	if (recipient && (recipient->names || recipient->address || recipient->is_mute))
		return true;
	bool is_mute = !bind_takes_messages(lua, agents, channel);
	recipient = recipient_begin(agents, channel);
	if (!recipient)
		return false;
	recipient->is_mute = is_mute;
	return is_mute || recipient_make_address(agents, recipient);
}

/* ---- results ---- */

static int push_unsent(lua_State *lua, const char *message, const char *code)
{
	lua_pushnil(lua);
	lua_pushstring(lua, message);
	lua_pushstring(lua, code);
	return 3;
}

static int push_too_large(lua_State *lua)
{
	return push_unsent(lua, "a message has at most 1 MiB", "EMSGSIZE");
}

/* Of what was not sent. */
static int push_post_error(lua_State *lua, enum post_error error)
{
	static const struct {
		const char *message, *code;
	} WORDS[] = {
		[POST_ABSENT] = { "nobody has that name", "ENOENT" },
		[POST_BUSY] = { "too many messages wait for it", "EBUSY" },
		[POST_FULL] = { "too much is on its way to its worker", "EBUSY" },
		[POST_CROWDED] = { "there are as many agents of that kind as there may be", "EBUSY" },
		[POST_DEADLOCK] = { "the agent would wait for itself", "EDEADLK" },
		[POST_NO_MEMORY] = { "not enough memory", "ENOMEM" },
	};
	return push_unsent(lua, WORDS[error].message, WORDS[error].code);
}

/* ---- functions; all of these MAY RAISE ---- */

static void check_new_name(lua_State *lua, struct names_key key)
{
	if (*key.data == '@')
		bind_raise(lua, "perilune.register: names that begin with @ are given, not registered");
	if (residents_kind_of(agents_of(lua), key) >= 0)
		bind_raise(
		    lua,
		    "perilune.register: names such as '%s' are those of agents without a socket, which "
		    "`agents` declares: they have them from their beginning",
		    key.data);
}

/* { replace = true } at 2, or nothing */
static bool check_replaces(lua_State *lua)
{
	static const char *const NAMES[] = { "replace", NULL };
	bool replaces = false;
	if (lua_isnoneornil(lua, 2))
		return false;
	bind_type_of(lua, 2, LUA_TTABLE, "perilune.register", "its options");
	for (lua_pushnil(lua); lua_next(lua, 2); lua_pop(lua, 1)) {
		bind_option_check(lua, NAMES, "perilune.register");
		if (!lua_isboolean(lua, -1))
			bind_raise(lua, "perilune.register: replace is true or false, got %s",
				   luaL_typename(lua, -1));
		replaces = lua_toboolean(lua, -1);
	}
	return replaces;
}

/* register(name[, { replace = true }]) → true | nil, message, code */
static int l_names_register(lua_State *lua)
{
	struct agents *agents = agents_of(lua);
	struct names_key key = check_agent_name(lua, "perilune.register");
	BIND_AT_MOST(lua, 2, "perilune.register");
	struct channel *channel = check_owner(lua, "perilune.register");
	bool replaces = check_replaces(lua);
	check_new_name(lua, key);
	bind_check_beginner(lua, "perilune.register", "");
	if (!bind_takes_messages(lua, agents, channel))
		bind_raise(lua,
			   "perilune.register: the agent has no method message, which takes what is sent");
	struct recipient *recipient = recipient_begin(agents, channel);
	if (!recipient)
		return push_unsent(lua, "not enough memory", "ENOMEM");
	if (recipient_find(agents, recipient, key)) {
		lua_pushboolean(lua, 1);
		return 1;
	}
	if (recipient->name_count == RECIPIENT_NAMES_MAX)
		bind_raise(lua, "perilune.register: the agent has %d names already, which is the most",
			   RECIPIENT_NAMES_MAX);
	enum names_error error = recipient_register(agents, recipient, key, replaces);
	if (error == NAMES_EXISTS)
		return push_unsent(lua, "another agent has that name", "EEXIST");
	if (error)
		return push_unsent(lua, "not enough memory", "ENOMEM");
	recipient->is_mute = false;
	lua_pushboolean(lua, 1);
	return 1;
}

/* unregister(name) → had it that name? */
static int l_names_unregister(lua_State *lua)
{
	struct agents *agents = agents_of(lua);
	struct names_key key = check_agent_name(lua, "perilune.unregister");
	BIND_AT_MOST(lua, 1, "perilune.unregister");
	const struct channel *channel = check_owner(lua, "perilune.unregister");
	struct recipient *recipient = recipient_of(agents, channel);
	lua_pushboolean(lua, recipient && recipient_unregister(agents, recipient, key));
	return 1;
}

/* send(name, data) → true | nil, message, code */
static int l_names_send(lua_State *lua)
{
	struct agents *agents = agents_of(lua);
	struct letter_value value;
	struct channel *channel = check_sender(lua, "perilune.send");
	struct names_key key = check_agent_name(lua, "perilune.send");
	BIND_AT_MOST(lua, 2, "perilune.send");
	if (!check_message(lua, 2, "perilune.send", &value))
		return push_too_large(lua);
	if (!give_address(lua, agents, channel))
		return push_post_error(lua, POST_NO_MEMORY);
	enum post_error error = post_send(agents, channel, key, &value, NULL);
	if (error)
		return push_post_error(lua, error);
	lua_pushboolean(lua, 1);
	return 1;
}

/* MAY YIELD. call(name, data, timeout | nil) → is it packed?, reply | nil, message, code */
static int l_names_call(lua_State *lua)
{
	enum { CALL_MS = 5000 };
	struct agents *agents = agents_of(lua);
	struct letter_value value;
	struct channel *channel = check_sender(lua, "perilune.call");
	struct names_key key = check_agent_name(lua, "perilune.call");
	BIND_AT_MOST(lua, 3, "perilune.call");
	uint32_t ms = lua_isnoneornil(lua, 3) ? CALL_MS : bind_duration_of(lua, 3, "perilune.call");
	if (!ms)
		bind_raise(lua, "perilune.call: the time-out must be more than 0: no call waits for ever");
	struct run *run = bind_check_waiter(lua, "perilune.call");
	if (!check_message(lua, 2, "perilune.call", &value))
		return push_too_large(lua);
	struct call *call = give_address(lua, agents, channel) ? call_begin(post_of(agents)) : NULL;
	if (!call)
		return push_post_error(lua, POST_NO_MEMORY);
	enum post_error error = post_send(agents, channel, key, &value, call);
	if (error) {
		call_forget(call);
		return push_post_error(lua, error);
	}
	return errand_wait(lua, run, &call->errand, ms);
}

void bind_names(lua_State *lua)
{
	static const luaL_Reg FUNCTIONS[] = {
		{ "register", l_names_register },
		{ "unregister", l_names_unregister },
		{ "send", l_names_send },
		{ "call", l_names_call },
		{ NULL, NULL },
	};
	luaL_register(lua, NULL, FUNCTIONS);
}
