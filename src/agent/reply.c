/* From what a handler returns to bytes on their way. */
#include "agent/ledger.h"
#include "agent/record.h"
#include "agent/run.h"
#include "base/err.h"
#include "base/text.h"

#include <assert.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <uv.h>

enum { SHOWN_BYTES = 48, ERROR_SHOWN_BYTES = 200 }; /* of a name in a message; of one that is another's */

bool reply_explain(struct channel *channel, lua_State *lua, size_t len, int err)
{
	if (err == ERR_FRAME_BETWEEN) {
		lua_pushliteral(lua, REPLY_BETWEEN);
		return false;
	}
	if (err != ERR_FRAME_REPLY)
		return true; /* the connection has ended or is about to: there is nobody to tell */
	const struct protocol *speaks = conn_speaks(channel->conn);
	if (speaks->ops->unfit)
		lua_pushstring(lua, speaks->ops->unfit);
	else
		lua_pushfstring(lua, "a reply of %d bytes does not fit a %s frame", (int)len,
				protocol_label(speaks));
	return false;
}

static bool send_bytes(struct channel *channel, lua_State *lua, const void *data, size_t len, bool *below)
{
	int err = channel_send(channel, data, len, below);
	if (__builtin_expect(channel->recorded, 0) && !err)
		record_out(channel, data, len);
	return !err || reply_explain(channel, lua, len, err);
}

/*
 * MAY RAISE in a call of a handler's: encode(reply) are on the stack. What is sent in a call is encoded as part of it,
 * and what encode() raises is the call's own error; what it returns is encoded when it is over.
 */
static int call_encode(struct agents *agents, struct channel *channel, lua_State *lua)
{
	if (agents->current) {
		lua_call(lua, 1, 1);
		return 0;
	}
	bool opened = ledger_open(agents, channel);
	guard_name(&agents->vm.guard, callback_name(CALL_ENCODE), channel->id);
	int status = vm_pcall(&agents->vm, lua, 1, 1, &agent_endpoint_of(channel)->budget);
	if (opened)
		ledger_close(agents);
	return status;
}

bool reply_encode(struct agents *agents, struct channel *channel, lua_State *lua, int idx)
{
	lua_rawgeti(lua, LUA_REGISTRYINDEX, codec_of(conn_speaks(channel->conn))->lua_encode_ref);
	lua_pushvalue(lua, idx);
	if (call_encode(agents, channel, lua)) {
		agents->encode_failed = true;
		agents->reply_verdict = agents->vm.verdict;
		return false;
	}
	if (lua_type(lua, -1) == LUA_TSTRING)
		return true;
	lua_pushfstring(lua, "the codec's encode returned a %s, not a string", luaL_typename(lua, -1));
	agents->encode_failed = true;
	return false;
}

bool reply_send_encoded(struct agents *agents, struct channel *channel, lua_State *lua, int idx, bool *below)
{
	if (!reply_encode(agents, channel, lua, idx))
		return false;
	size_t len;
	const char *data = lua_tolstring(lua, -1, &len);
	bool ok = send_bytes(channel, lua, data, len, below);
	if (ok)
		lua_pop(lua, 1);
	return ok;
}

static bool send_view(struct agents *agents, struct channel *channel, lua_State *lua, bool *below)
{
	struct view *view = agents->view;
	if (!view->data) {
		lua_pushstring(lua, REPLY_DEAD_VIEW);
		return false;
	}
	return send_bytes(channel, lua, view->data, view->len, below);
}

static bool is_view(struct agents *agents, lua_State *lua, int idx)
{
	return agents->view && lua_type(lua, idx) == 10 /* cdata */ &&
	       lua_topointer(lua, idx) == agents->view_object;
}

static bool explain_hole(lua_State *lua, int idx, int later)
{
	int i = 1;
	for (;; i++) {
		lua_rawgeti(lua, idx, i);
		bool is_hole = lua_isnil(lua, -1);
		lua_pop(lua, 1);
		if (is_hole)
			break;
	}
	lua_pushfstring(lua, "a list of replies has no holes: item %d is nil, and there is an item %d", i,
			later);
	return false;
}

/* The string at idx, for a message: a zero byte does not end it. */
static const char *reply_show(lua_State *lua, int idx, char shown[SHOWN_BYTES])
{
	size_t len;
	const char *text = lua_tolstring(lua, idx, &len);
	text_escape(TEXT_LINE, shown, SHOWN_BYTES, text, len);
	return shown;
}

/* The key on top of the stack is no item's. */
static bool explain_key(lua_State *lua)
{
	char shown[SHOWN_BYTES], name[SHOWN_BYTES + 2];
	if (lua_type(lua, -1) == LUA_TSTRING)
		snprintf(name, sizeof name, "'%s'", reply_show(lua, -1, shown));
	else if (lua_type(lua, -1) == LUA_TNUMBER)
		snprintf(name, sizeof name, "%.14g", lua_tonumber(lua, -1));
	else
		snprintf(name, sizeof name, "that is a %s", luaL_typename(lua, -1));
	lua_pushfstring(lua, "a list of replies has items 1, 2 … and nothing else; this table has the key %s",
			name);
	return false;
}

enum { SHORT_LIST = 256 }; /* items: takes no longer than a batch does */

/* MAY RAISE, of longer lists. Looks now and then whether the call has to end: a list may have millions of items. */
static void list_look(struct agents *agents, lua_State *lua, size_t item)
{
	if (item % SHORT_LIST == SHORT_LIST - 1 && guard_must_end(&agents->vm.guard, lua))
		luaL_error(lua, "sending a list was ended");
}

/* The item on top of the stack, number i. */
static bool check_item(struct agents *agents, struct channel *channel, lua_State *lua, int i)
{
	bool views = is_view(agents, lua, lua_gettop(lua));
	if (views && !agents->view->data) {
		lua_pushstring(lua, REPLY_DEAD_VIEW);
		return false;
	}
	if (!views && !lua_isstring(lua, -1)) {
		lua_pushfstring(lua, "a list of replies holds strings; item %d is a %s", i,
				luaL_typename(lua, -1));
		return false;
	}
	size_t len = views ? agents->view->len : lua_objlen(lua, -1);
	return protocol_carries(conn_speaks(channel->conn), len) ||
	       reply_explain(channel, lua, len, ERR_FRAME_REPLY);
}

/*
 * MAY RAISE. Whatever is in the table is an item 1 … n that can be sent. Else it would not be sent, and nobody be told;
 * or others would, and then the handler fail: a peer would have a part of an answer.
 */
static bool check_list(struct agents *agents, struct channel *channel, lua_State *lua, int idx, size_t n)
{
	size_t items = 0;
	for (lua_pushnil(lua); lua_next(lua, idx); items++) {
		list_look(agents, lua, items);
		double key = lua_type(lua, -2) == LUA_TNUMBER ? lua_tonumber(lua, -2) : 0;
		if (!(key >= 1 && key < INT_MAX && key == (int)key)) {
			lua_pop(lua, 1);
			return explain_key(lua);
		}
		if (key > (double)n)
			return explain_hole(lua, idx, (int)key);
		if (!check_item(agents, channel, lua, (int)key))
			return false;
		lua_pop(lua, 1);
	}
	return items == n || explain_hole(lua, idx, (int)n);
}

/* MAY RAISE. */
static bool send_list(struct agents *agents, struct channel *channel, lua_State *lua, int idx, bool *below)
{
	size_t n = lua_objlen(lua, idx);
	if (!check_list(agents, channel, lua, idx, n))
		return false;
	for (size_t i = 1; i <= n; i++) {
		list_look(agents, lua, i);
		lua_rawgeti(lua, idx, (int)i);
		if (!reply_send(agents, channel, lua, lua_gettop(lua), below))
			return false;
		lua_pop(lua, 1);
	}
	return true;
}

struct listing {
	struct agents *agents;
	struct channel *channel;
	bool *below;
};

/* listing, list */
static int l_send_list(lua_State *lua)
{
	const struct listing *listing = lua_touserdata(lua, 1);
	return send_list(listing->agents, listing->channel, lua, 2, listing->below) ? 0 : lua_error(lua);
}

/* A long list that was returned is a call of its own: it has the budget of one. */
static bool send_returned_list(struct agents *agents, struct channel *channel, lua_State *lua, int idx,
			       bool *below)
{
	struct listing listing = { agents, channel, below };
	lua_pushcfunction(lua, l_send_list);
	lua_pushlightuserdata(lua, &listing);
	lua_pushvalue(lua, idx);
	bool opened = ledger_open(agents, channel);
	int status = vm_pcall(&agents->vm, lua, 2, 0, &agent_endpoint_of(channel)->budget);
	if (opened)
		ledger_close(agents);
	if (status)
		agents->reply_verdict = agents->vm.verdict;
	return !status;
}

bool reply_send(struct agents *agents, struct channel *channel, lua_State *lua, int idx, bool *below)
{
	int type = lua_type(lua, idx);
	*below = true;
	if (type == LUA_TNIL || type == LUA_TNONE)
		return true;
	const struct message_kind *messages = messages_of(channel);
	if (messages->send)
		return messages->send(agents, channel, lua, idx, below);
	if (type == LUA_TSTRING || type == LUA_TNUMBER) {
		size_t len;
		const char *data = lua_tolstring(lua, idx, &len);
		return send_bytes(channel, lua, data, len, below);
	}
	if (is_view(agents, lua, idx))
		return send_view(agents, channel, lua, below);
	if (type == LUA_TBOOLEAN && !lua_toboolean(lua, idx)) /* what `cond and "text"` leaves */
		return true;
	if (type == LUA_TTABLE && (lua_objlen(lua, idx) <= SHORT_LIST || guard_is_running(&agents->vm.guard)))
		return send_list(agents, channel, lua, idx, below);
	if (type == LUA_TTABLE)
		return send_returned_list(agents, channel, lua, idx, below);
	lua_pushfstring(lua, "a reply is a string, a list of strings or nil, not a %s",
			luaL_typename(lua, idx));
	return false;
}

/* NULL: it is no text. */
static const char *action_at(lua_State *lua, int idx, size_t *len)
{
	*len = 0;
	return lua_type(lua, idx) == LUA_TSTRING ? lua_tolstring(lua, idx, len) : NULL;
}

static bool is_close(const char *action, size_t len)
{
	return action && len == strlen("close") && !memcmp(action, "close", len);
}

static char surplus; /* its address is known to nobody else */

void reply_push_surplus(lua_State *lua)
{
	lua_pushlightuserdata(lua, &surplus);
}

/* What the loops make of more than a reply and an action: { surplus, reply, action, more }. */
static bool is_surplus(lua_State *lua, int idx)
{
	if (!lua_istable(lua, idx))
		return false;
	lua_rawgeti(lua, idx, 1);
	bool is = lua_touserdata(lua, -1) == &surplus;
	lua_pop(lua, 1);
	return is;
}

/* Pushes what is wrong with a reply, an action and more, at reply and behind it on the stack of `from`. */
static void push_surplus_error(lua_State *lua, lua_State *from, int reply)
{
	char message[ERROR_SHOWN_BYTES], code[SHOWN_BYTES];
	size_t len;
	const char *action = action_at(from, reply + 1, &len);
	if (lua_toboolean(from, reply) || !action || is_close(action, len)) {
		lua_pushliteral(lua, "a handler returns a reply and an action; a third value would be lost");
		return;
	}
	text_escape(TEXT_LINE, message, sizeof message, action, len);
	if (lua_type(from, reply + 2) == LUA_TSTRING)
		lua_pushfstring(lua, "a handler returned an error as its reply: %s (%s)", message,
				reply_show(from, reply + 2, code));
	else
		lua_pushfstring(lua, "a handler returned an error as its reply: %s", message);
}

bool reply_is_action(lua_State *lua, int idx)
{
	if (!lua_toboolean(lua, idx)) /* nil, or what `cond and "close"` leaves */
		return true;
	size_t len;
	const char *action = action_at(lua, idx, &len);
	return is_close(action, len);
}

bool reply_action(struct channel *channel, lua_State *lua, int idx)
{
	if (!lua_toboolean(lua, idx)) /* nil, or what `cond and "close"` leaves */
		return true;
	char shown[SHOWN_BYTES];
	size_t len;
	const char *action = action_at(lua, idx, &len);
	if (is_close(action, len)) {
		channel_close(channel, REASON_AGENT, CLOSE_FLUSH);
		return true;
	}
	if (is_surplus(lua, idx)) {
		int top = lua_gettop(lua);
		for (int i = 2; i <= 4; i++)
			lua_rawgeti(lua, idx, i);
		push_surplus_error(lua, lua, top + 1);
	} else if (action)
		lua_pushfstring(lua, "unknown action '%s'; the only one is \"close\"",
				reply_show(lua, idx, shown));
	else
		lua_pushfstring(lua, "the action after a reply is \"close\" or nothing, not a %s",
				luaL_typename(lua, idx));
	return false;
}

/* More than a reply and an action: the error is at AT_ERROR. */
static bool refuse_surplus(struct agents *agents, struct run *run, int first)
{
	lua_State *lua = agents->vm.lua, *co = run->co.lua;
	if (lua_isnoneornil(co, first + 2))
		return false;
	push_surplus_error(lua, co, first);
	lua_replace(lua, AT_ERROR);
	return true;
}

bool reply_take_action(struct agents *agents, struct run *run, int first)
{
	lua_State *lua = agents->vm.lua, *co = run->co.lua;
	if (refuse_surplus(agents, run, first))
		return false;
	lua_settop(co, first + 1);
	lua_xmove(co, lua, 1);
	bool ok = reply_action(run->channel, lua, lua_gettop(lua));
	if (!ok)
		lua_replace(lua, AT_ERROR);
	lua_settop(lua, AT_TOP);
	return ok;
}

bool reply_take(struct agents *agents, struct run *run, int first, bool *keep)
{
	lua_State *lua = agents->vm.lua, *co = run->co.lua;
	int at = lua_gettop(lua) + 1;
	bool below, answers = keep && lua_type(co, first) == LUA_TBOOLEAN;
	if (keep)
		*keep = answers && lua_toboolean(co, first);
	/* What is pushed here has no room on the other stack, if the handler returned as much as that holds. */
	if (refuse_surplus(agents, run, first)) {
		lua_settop(co, first - 1);
		return false;
	}
	lua_settop(co, first + 1);
	lua_xmove(co, lua, 2);
	bool sends = !answers && reply_is_action(lua, at + 1); /* else it is a fault, and nothing goes out */
	const struct message_kind *messages = messages_of(run->channel);
	bool ok = !sends || (__builtin_expect(messages->answer != NULL, 0)
				 ? messages->answer(agents, run, lua, at)
				 : reply_send(agents, run->channel, lua, at, &below));
	ok = ok && reply_action(run->channel, lua, at + 1);
	if (!ok)
		lua_replace(lua, AT_ERROR);
	/* Who took the reply may have dropped what it had here, and no more. */
	assert(lua_gettop(lua) >= at - 1);
	lua_settop(lua, at - 1);
	return ok;
}
