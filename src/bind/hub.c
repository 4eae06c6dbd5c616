/* Topics: conn:join, conn:leave, conn:publish, conn:topics; perilune.hub. */
#include "hub/hub.h"

#include "agent/http.h"
#include "agent/member.h"
#include "agent/recipient.h"
#include "agent/work.h"
#include "bind/bind.h"
#include "conn/outgoing.h"

#include <string.h>

/* ---- arguments; all of these MAY RAISE ---- */

static int push_refused(lua_State *lua, const char *message, const char *code)
{
	lua_pushnil(lua);
	lua_pushstring(lua, message);
	lua_pushstring(lua, code);
	return 3;
}

/*
 * The topic at idx, or a pattern where that may be. 0; or 3, and nil, message, code are pushed: names of topics are
 * often made of what clients say, so a malformed one is no fault of the script's.
 */
static int check_topic(lua_State *lua, int idx, bool may_be_pattern, const char *what, struct topic *topic)
{
	size_t len;
	const char *why, *text = lua_type(lua, idx) == LUA_TSTRING ? lua_tolstring(lua, idx, &len) : NULL;
	if (!text)
		bind_raise(lua, "%s: the topic is a string, got %s", what, luaL_typename(lua, idx));
	enum topic_kind kind = topic_check(text, len, &why);
	if (kind == TOPIC_PATTERN && !may_be_pattern) {
		kind = TOPIC_MALFORMED;
		why = "\"*\" and \">\" are for conn:join";
	}
	if (kind == TOPIC_MALFORMED) {
		lua_pushfstring(lua, "this is no topic: %s", why);
		return push_refused(lua, lua_tostring(lua, -1), "EINVAL");
	}
	const struct hub *hub = audience_of(agents_of(lua))->hub;
	*topic = (struct topic){ .hash = siphash(hub_key(hub), text, len),
				 .name = text,
				 .len = (uint8_t)len,
				 .is_pattern = kind == TOPIC_PATTERN };
	return 0;
}

/* A handler runs, which may do what changes something for others. */
static struct run *check_running(lua_State *lua, const char *what)
{
	struct run *run = agents_of(lua)->current;
	if (!run)
		bind_raise(lua,
			   "%s: only a running handler can; what belongs to no connection does so in "
			   "setup(app), in a task of app:spawn(…)",
			   what);
	if (run->callback == CALL_SNAPSHOT)
		bind_raise(lua, "%s: snapshot() must not begin anything", what);
	return run;
}

/* The option on top of the stack: a whole number from 1 on. */
static uint32_t check_count_option(lua_State *lua, const char *name, const char *what)
{
	enum { MOST = 1000000 };
	double n = lua_type(lua, -1) == LUA_TNUMBER ? lua_tonumber(lua, -1) : 0;
	if (!(n >= 1 && n <= MOST && n == (uint32_t)n))
		bind_raise(lua, "%s: %s: expects a whole number from 1 to %d", what, name, MOST);
	return (uint32_t)n;
}

static uint32_t check_bytes_option(lua_State *lua, const char *name, const char *what)
{
	enum { LEAST = 1024, MOST = 1 << 30 };
	size_t bytes = bind_size_option_check(lua, name, what);
	if (bytes < LEAST || bytes > MOST)
		bind_raise(lua, "%s: %s: expects a size from 1k to 1g", what, name);
	return (uint32_t)bytes;
}

static void check_join_option(lua_State *lua, struct membership_rules *rules)
{
	static const char *const NAMES[] = { "policy", "messages", "bytes", "deliver", NULL };
	static const char *const POLICIES[] = { [HUB_DISCONNECT] = "disconnect",
						[HUB_DROP_NEWEST] = "drop_newest",
						[HUB_DROP_OLDEST] = "drop_oldest",
						[HUB_LATEST] = "latest",
						NULL };
	static const char *const DELIVER[] = { "conn", "agent", NULL };
	const char *name = bind_option_check(lua, NAMES, "conn:join");
	int top = lua_gettop(lua);
	if (name == NAMES[0])
		rules->policy = (enum hub_policy)bind_choice_of(lua, top, POLICIES, "conn:join: policy");
	else if (name == NAMES[1])
		rules->messages = check_count_option(lua, name, "conn:join");
	else if (name == NAMES[2])
		rules->bytes = check_bytes_option(lua, name, "conn:join");
	else
		rules->is_for_agent = bind_choice_of(lua, top, DELIVER, "conn:join: deliver") == 1;
}

static struct membership_rules check_rules(lua_State *lua, int idx)
{
	const struct hub_config *hub = &agents_of(lua)->instance.config->hub;
	struct membership_rules rules = { .policy = hub->policy,
					  .messages = hub->messages,
					  .bytes = hub->bytes };
	if (lua_isnoneornil(lua, idx))
		return rules;
	bind_type_of(lua, idx, LUA_TTABLE, "conn:join", "its options");
	for (lua_pushnil(lua); lua_next(lua, idx); lua_pop(lua, 1))
		check_join_option(lua, &rules);
	return rules;
}

/* What can be a member: a connection of a client's that has frames, messages, or a response of http.events. */
static void check_can_join(lua_State *lua, const struct channel *channel, bool is_for_agent)
{
	if (conn_is_outgoing(channel->conn))
		bind_raise(lua,
			   "conn:join: a connection out cannot be a member: its agent's own connection can");
	if (!channel->anchor)
		bind_raise(lua, "conn:join: there is no agent yet: in opened(), or later");
	if (is_for_agent && !bind_takes_messages(lua, agents_of(lua), channel))
		bind_raise(lua, "conn:join: the agent has no method message, which takes what is published");
	if (!is_for_agent && http_is_spoken(channel) && !http_is_standing(&channel->conn->session))
		bind_raise(lua, "conn:join: of HTTP only a response of http.events can be a member: "
				"events:join(topic)");
}

/* ---- members; all of these MAY RAISE ---- */

/* The topic is at 2, options are at 3. NULL: the connection has ended. */
static int join_channel(lua_State *lua, struct channel *channel)
{
	struct agents *agents = agents_of(lua);
	struct topic topic;
	check_running(lua, "conn:join");
	struct membership_rules rules = check_rules(lua, 3);
	int refused = check_topic(lua, 2, true, "conn:join", &topic);
	if (refused)
		return refused;
	if (!channel || !channel_is_open(channel) || (!rules.is_for_agent && channel->conn->shut_asked))
		return bind_push_closed(lua);
	check_can_join(lua, channel, rules.is_for_agent);
	enum member_error error = member_join(audience_of(agents), channel, &topic, &rules);
	if (error == MEMBER_CROWDED)
		return push_refused(lua, "a connection has at most 1000 topics", "EBUSY");
	if (error)
		return push_refused(lua, "not enough memory", "ENOMEM");
	lua_pushboolean(lua, 1);
	return 1;
}

/* conn:join(topic[, options]) → true | nil, "closed" | nil, message, code */
int bind_conn_join(lua_State *lua)
{
	struct channel *channel = bind_check_conn(lua);
	BIND_AT_MOST(lua, 3, "conn:join");
	return join_channel(lua, channel);
}

/* The topic is at 2. NULL: the connection has ended. */
static int leave_channel(lua_State *lua, struct channel *channel)
{
	struct topic topic;
	check_running(lua, "conn:leave");
	int refused = check_topic(lua, 2, true, "conn:leave", &topic);
	if (refused)
		return refused;
	lua_pushboolean(lua, channel && channel->has_hub &&
				 member_leave(channel->conn->host->audience, channel, &topic));
	return 1;
}

/* conn:leave(topic) → was it a member? */
int bind_conn_leave(lua_State *lua)
{
	struct channel *channel = bind_check_conn(lua);
	BIND_AT_MOST(lua, 2, "conn:leave");
	return leave_channel(lua, channel);
}

/* join(id, topic[, options]), leave(id, topic): of events:join(), of the connection that has the response. */
int bind_events_join(lua_State *lua)
{
	return join_channel(lua, bind_find_conn(agents_of(lua), (uint64_t)luaL_checknumber(lua, 1)));
}

int bind_events_leave(lua_State *lua)
{
	return leave_channel(lua, bind_find_conn(agents_of(lua), (uint64_t)luaL_checknumber(lua, 1)));
}

static void set_hub_count(lua_State *lua, const char *name, uint64_t n)
{
	bind_set_number(lua, name, (double)n);
}

/* conn:topics() → { [topic] = { delivered, dropped, waiting } } */
int bind_conn_topics(lua_State *lua)
{
	const struct channel *channel = bind_check_conn(lua);
	BIND_AT_MOST(lua, 1, "conn:topics");
	const struct member *member = channel ? member_of(channel->conn->host->audience, channel) : NULL;
	lua_newtable(lua);
	for (const struct membership *each = member ? member->memberships : NULL; each;
	     each = each->sibling) {
		const struct topic *topic = &each->topic->part.topic;
		lua_pushlstring(lua, topic->name, topic->len);
		lua_createtable(lua, 0, 3);
		set_hub_count(lua, "delivered", each->delivered);
		set_hub_count(lua, "dropped", each->dropped);
		set_hub_count(lua, "waiting", each->waiting);
		lua_rawset(lua, -3);
	}
	return 1;
}

/* ---- publishing; all of these MAY RAISE ---- */

static bool check_flag_option(lua_State *lua, const char *name, const char *what)
{
	if (!lua_isboolean(lua, -1))
		bind_raise(lua, "%s: %s is true or false, got %s", what, name, luaL_typename(lua, -1));
	return lua_toboolean(lua, -1);
}

static void check_key_option(lua_State *lua, const char *what, struct hub_draft *draft)
{
	if (lua_type(lua, -1) != LUA_TSTRING || lua_objlen(lua, -1) > HUB_KEY_BYTES_MAX)
		bind_raise(lua, "%s: key: expects a text of at most %d bytes", what, HUB_KEY_BYTES_MAX);
	draft->key = lua_tolstring(lua, -1, &draft->key_len); /* the options keep it alive */
}

static void check_publish_options(lua_State *lua, int idx, const char *what, struct hub_draft *draft)
{
	static const char *const NAMES[] = { "key", "binary", "others", NULL };
	if (lua_isnoneornil(lua, idx))
		return;
	bind_type_of(lua, idx, LUA_TTABLE, what, "its options");
	for (lua_pushnil(lua); lua_next(lua, idx); lua_pop(lua, 1)) {
		const char *name = bind_option_check(lua, NAMES, what);
		if (name == NAMES[0])
			check_key_option(lua, what, draft);
		else if (name == NAMES[2])
			draft->skips_sender = check_flag_option(lua, name, what);
		else if (check_flag_option(lua, name, what))
			draft->kind = HUB_BINARY;
	}
}

/* A text, or a table, which is there as JSON then. */
static void check_data(lua_State *lua, int idx, const char *what, struct hub_draft *draft)
{
	int type = lua_type(lua, idx);
	if (type != LUA_TSTRING && type != LUA_TNUMBER && type != LUA_TTABLE)
		bind_raise(lua, "%s: the data is a text, or a table, which is sent as JSON; got %s", what,
			   luaL_typename(lua, idx));
	if (type == LUA_TTABLE && draft->kind == HUB_BINARY)
		bind_raise(lua, "%s: binary: a table is sent as JSON, which is text", what);
	if (type == LUA_TTABLE) {
		lua_getfield(lua, LUA_REGISTRYINDEX, "perilune.runtime.json_message");
		lua_pushvalue(lua, idx);
		lua_pushstring(lua, what);
		lua_call(lua, 2, 1);
		lua_replace(lua, idx);
		draft->kind = HUB_JSON;
	}
	draft->data = lua_tolstring(lua, idx, &draft->len);
}

static struct name *name_of_sender(struct agents *agents, const struct channel *channel)
{
	struct recipient *recipient = recipient_of(agents, channel);
	return recipient ? recipient_address(agents, recipient) : NULL;
}

/* What it holds, it lets go of before anything can raise. Returns how many results it has pushed. */
static int post_draft(lua_State *lua, struct agents *agents, const struct channel *by,
		      struct hub_draft *draft)
{
	struct audience *audience = audience_of(agents);
	struct hub_reach reach;
	count(&audience->counters->hub_published);
	hub_find(audience->hub, draft->topic, draft->topic_len, &reach);
	unsigned missed = 0;
	if (reach.count) {
		draft->from = name_of_sender(agents, by);
		struct hub_message *message = hub_make_message(audience->hub, draft, reach.count);
		if (!message) {
			names_leave(draft->from);
			return push_refused(lua, "not enough memory", "ENOMEM");
		}
		missed = hub_post(audience->hub, message, &reach, audience->worker,
				  agents->instance.config->hub.inbox);
		hub_message_drop(message);
	}
	count_add(&audience->counters->hub_missed, missed);
	if (missed)
		return push_refused(
		    lua, "too many messages wait on some worker: its members do not get this one", "EBUSY");
	lua_pushboolean(lua, 1);
	return 1;
}

/* The topic is at idx, then data and options. `by` is on whose behalf. */
static int publish(lua_State *lua, int idx, const struct channel *by, const char *what)
{
	struct topic topic;
	struct agents *agents = agents_of(lua);
	struct hub_draft draft = { .key = "",
				   .sender = work_is_apps(by) ? 0 : by->id,
				   .worker = audience_of(agents)->worker };
	check_publish_options(lua, idx + 2, what, &draft);
	check_data(lua, idx + 1, what, &draft);
	int refused = check_topic(lua, idx, false, what, &topic);
	if (refused)
		return refused;
	if (draft.len > HUB_MESSAGE_BYTES_MAX)
		return push_refused(lua, "a message has at most 1 MiB", "EMSGSIZE");
	draft.topic = topic.name;
	draft.topic_len = topic.len;
	return post_draft(lua, agents, by, &draft);
}

/* conn:publish(topic, data[, options]) → true | nil, "closed" | nil, message, code */
int bind_conn_publish(lua_State *lua)
{
	const struct channel *channel = bind_check_conn(lua);
	BIND_AT_MOST(lua, 4, "conn:publish");
	check_running(lua, "conn:publish");
	return channel ? publish(lua, 2, channel, "conn:publish") : bind_push_closed(lua);
}

/* hub.publish(topic, data[, options]) → true | nil, message, code */
static int l_hub_publish(lua_State *lua)
{
	BIND_AT_MOST(lua, 3, "perilune.hub.publish");
	const struct run *run = check_running(lua, "perilune.hub.publish");
	return publish(lua, 1, run->channel, "perilune.hub.publish");
}

/* ---- what there is; all of these MAY RAISE ---- */

static void check_attached(lua_State *lua, const char *what)
{
	if (!agents_of(lua)->attached)
		bind_raise(lua, "%s: only a running handler can ask", what);
}

/* hub.count(topic) → members | nil, message, code */
static int l_hub_count(lua_State *lua)
{
	struct topic topic;
	BIND_AT_MOST(lua, 1, "perilune.hub.count");
	check_attached(lua, "perilune.hub.count");
	int refused = check_topic(lua, 1, false, "perilune.hub.count", &topic);
	if (refused)
		return refused;
	lua_pushnumber(lua, (lua_Number)hub_count(audience_of(agents_of(lua))->hub, topic.name, topic.len));
	return 1;
}

/* Sets what has become of messages in the table on top. */
static void set_account(lua_State *lua, const struct hub_account *account)
{
	uint64_t fates[HUB_FATES], waiting = count_read(&account->addressed);
	for (unsigned i = 0; i < HUB_FATES; i++)
		waiting -= fates[i] = count_read(&account->fates[i]);
	set_hub_count(lua, "addressed", count_read(&account->addressed));
	set_hub_count(lua, "delivered", fates[HUB_DELIVERED]);
	/* Each worker counts on while the others are asked. */
	set_hub_count(lua, "waiting", (int64_t)waiting > 0 ? waiting : 0);
	lua_createtable(lua, 0, 4);
	set_hub_count(lua, "oldest", fates[HUB_DROPPED_OLDEST]);
	set_hub_count(lua, "newest", fates[HUB_DROPPED_NEWEST]);
	set_hub_count(lua, "replaced", fates[HUB_REPLACED]);
	set_hub_count(lua, "unfit", fates[HUB_UNFIT]);
	lua_setfield(lua, -2, "dropped");
	lua_createtable(lua, 0, 2);
	set_hub_count(lua, "slow", fates[HUB_EVICTED]);
	set_hub_count(lua, "left", fates[HUB_LEFT]);
	lua_setfield(lua, -2, "evicted");
}

static int push_topic_stats(lua_State *lua, struct hub *hub)
{
	struct topic topic;
	struct hub_account account = { 0 };
	uint64_t members = 0;
	int refused = check_topic(lua, 1, true, "perilune.hub.stats", &topic);
	if (refused)
		return refused;
	if (!hub_account_of(hub, &topic, &account, &members))
		return push_refused(lua, "it has no members", "ENOENT");
	lua_createtable(lua, 0, 6);
	set_hub_count(lua, "members", members);
	set_account(lua, &account);
	return 1;
}

static struct hub_account account_in(const struct counters *sum)
{
	struct hub_account account = { .addressed = count_read(&sum->hub_addressed) };
	const counter *const fates[HUB_FATES] = {
		[HUB_DELIVERED] = &sum->hub_delivered,
		[HUB_DROPPED_OLDEST] = &sum->hub_dropped_oldest,
		[HUB_DROPPED_NEWEST] = &sum->hub_dropped_newest,
		[HUB_REPLACED] = &sum->hub_replaced,
		[HUB_UNFIT] = &sum->hub_unfit,
		[HUB_EVICTED] = &sum->hub_evicted,
		[HUB_LEFT] = &sum->hub_left,
	};
	for (unsigned i = 0; i < HUB_FATES; i++)
		account.fates[i] = count_read(fates[i]);
	return account;
}

/* hub.stats([topic]) → { members, topics, published, … } | nil, message, code */
static int l_hub_stats(lua_State *lua)
{
	BIND_AT_MOST(lua, 1, "perilune.hub.stats");
	check_attached(lua, "perilune.hub.stats");
	struct hub *hub = audience_of(agents_of(lua))->hub;
	if (!lua_isnoneornil(lua, 1))
		return push_topic_stats(lua, hub);
	struct counters sum = { 0 };
	hub_sum(hub, &sum);
	const struct hub_account account = account_in(&sum);
	uint64_t joined = count_read(&sum.hub_joined), parted = count_read(&sum.hub_parted);
	lua_createtable(lua, 0, 10);
	set_hub_count(lua, "members", joined > parted ? joined - parted : 0);
	set_hub_count(lua, "topics", hub_topics(hub));
	set_hub_count(lua, "published", count_read(&sum.hub_published));
	set_hub_count(lua, "missed", count_read(&sum.hub_missed));
	set_account(lua, &account);
	lua_createtable(lua, (int)hub_workers(hub), 0);
	for (unsigned i = 0; i < hub_workers(hub); i++) {
		lua_pushnumber(lua, hub_depth(hub, i));
		lua_rawseti(lua, -2, (int)i + 1);
	}
	lua_setfield(lua, -2, "inbox");
	return 1;
}

void bind_hub(lua_State *lua)
{
	static const luaL_Reg FUNCTIONS[] = {
		{ "hub_publish", l_hub_publish },
		{ "hub_count", l_hub_count },
		{ "hub_stats", l_hub_stats },
		{ NULL, NULL },
	};
	luaL_register(lua, NULL, FUNCTIONS);
}
