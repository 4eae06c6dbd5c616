#include "agent/resident.h"

#include "agent/recipient.h"
#include "agent/run.h"
#include "names/names.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

struct kind {
	struct conn conn; /* of all its channels: open, and with nobody at the other end */
	struct agent_endpoint endpoint;
	struct names_kind *names_kind;
	uint32_t idle_ms; /* 0: never */
};

struct residents {
	struct wheel wheel;         /* those that are at nothing, by when they are idle */
	struct wheel_node due;      /* of those: who has yet to be looked at; a list, as the others are */
	struct wheel_node draining; /* who is at nothing, and is to end */
	struct wheel_node ending;   /* who has to be told so, and who has more to do before it has ended */
	bool drains, is_over;       /* the drain of all has begun, its deadline has come */
	unsigned kind_count;
	struct kind kinds[];
};

/* ---- what they say ---- */

/* There is nobody to say it to. */
static bool send_nothing(struct agents *agents, struct channel *channel, lua_State *lua, int idx, bool *below)
{
	(void)agents;
	(void)below;
	lua_pushfstring(lua, "%s has no connection to send a %s to", resident_name(channel),
			luaL_typename(lua, idx));
	return false;
}

static const struct message_kind MESSAGE_NONE = { .send = send_nothing };
static const struct protocol_ops NO_OPS = { .name = "none", .rewinds = true };
static const struct protocol NO_PROTOCOL = { .ops = &NO_OPS, .messages = &MESSAGE_NONE };

/* ---- the kinds of a VM ---- */

static void close_lone(struct channel *channel, enum close_reason reason, enum close_how how);
static void resident_changed(struct channel *channel);

static const struct lone_ops LONE_OPS = { .close = close_lone, .changed = resident_changed };

/* False: there is no memory. */
static bool residents_open_kind(struct agents *agents, unsigned at, const struct kind_config *config)
{
	struct kind *kind = &agents->residents->kinds[at];
	struct endpoint *endpoint = &kind->endpoint.endpoint;
	kind->idle_ms = config->idle_ms;
	kind->names_kind = names_open_kind(agents->host->post->names, config->name);
	kind->endpoint.budget = config->budget;
	kind->endpoint.proceed_ms = config->proceed_ms;
	kind->endpoint.mailbox = config->mailbox;
	kind->endpoint.policy = config->policy;
	endpoint->name = config->name;
	endpoint->index =
	    (uint16_t)(agents->endpoint_count + 1 + at); /* behind the app's: for the log alone */
	endpoint->slot = LISTENER_NO_SLOT;
	endpoint->protocol = &NO_PROTOCOL;
	endpoint->lone = &LONE_OPS;
	kind->conn.endpoint = endpoint;
	kind->conn.timeouts = &endpoint->rules.timeouts;
	kind->conn.protocol = &NO_PROTOCOL;
	kind->conn.host = agents->host;
	return kind->names_kind;
}

bool residents_open(struct agents *agents, const struct config *config)
{
	if (!config->kind_count)
		return true;
	struct residents *residents =
	    calloc(1, sizeof *residents + config->kind_count * sizeof residents->kinds[0]);
	if (!residents)
		return false;
	agents->residents = residents;
	residents->kind_count = config->kind_count;
	for (unsigned i = 0; i < config->kind_count; i++)
		if (!residents_open_kind(agents, i, &config->kinds[i]))
			return false;
	return true;
}

struct agent_endpoint *residents_endpoint(struct agents *agents, unsigned kind)
{
	return &agents->residents->kinds[kind].endpoint;
}

void residents_attach(struct agents *agents)
{
	struct residents *residents = agents->residents;
	if (!residents)
		return;
	wheel_init(&residents->wheel, agents->host->now_ms);
	wheel_list_init(&residents->due);
	wheel_list_init(&residents->draining);
	wheel_list_init(&residents->ending);
}

void residents_free(struct agents *agents)
{
	assert(!residents_count(agents));
	free(agents->residents);
	agents->residents = NULL;
}

size_t residents_count(const struct agents *agents)
{
	return atomic_load_explicit(&agents->lone, memory_order_relaxed);
}

int resident_kind_in(const struct agents *agents, const struct channel *channel)
{
	const char *name = channel->conn->endpoint->name;
	return config_find_kind(agents->instance.config, name, strlen(name));
}

enum reload_policy residents_policy(const struct agents *by, const char *kind)
{
	int theirs = config_find_kind(by->instance.config, kind, strlen(kind));
	return theirs < 0 ? by->removed_policy : by->residents->kinds[theirs].endpoint.policy;
}

static struct residents *residents_of(const struct resident *resident)
{
	return agents_of_channel(&resident->channel)->residents;
}

static struct kind *kind_of(const struct channel *channel)
{
	return (struct kind *)(void *)channel->conn;
}

/* ---- where one belongs ---- */

static bool is_at_something(const struct resident *resident)
{
	return resident->channel.busy || atomic_load_explicit(&resident->name->waiting, memory_order_relaxed);
}

/* So long nothing has come: no time-out is as long as what 32 bits have room for. */
static uint32_t idle_for_ms(const struct resident *resident)
{
	return (uint32_t)resident->channel.conn->host->now_ms - resident->since_ms;
}

static void wait_for_idle(struct resident *resident)
{
	const struct kind *kind = kind_of(&resident->channel);
	uint64_t since_ms = resident->channel.conn->host->now_ms - idle_for_ms(resident);
	if (kind->idle_ms)
		wheel_arm(&residents_of(resident)->wheel, &resident->node, since_ms + kind->idle_ms);
}

void resident_settle(struct resident *resident)
{
	struct residents *residents = residents_of(resident);
	const struct channel *channel = &resident->channel;
	wheel_disarm(&resident->node);
	if (channel->ended)
		wheel_list_append(&residents->ending, &resident->node);
	else if (channel->busy)
		return;
	else if (resident->draining && !resident->drain_kept)
		wheel_list_append(&residents->draining, &resident->node);
	else
		wait_for_idle(resident);
}

void resident_take(struct resident *resident)
{
	resident->has_taken = true;
	resident_touch(resident);
}

void resident_touch(struct resident *resident)
{
	resident->since_ms =
	    (uint32_t)resident->channel.conn->host->now_ms; /* where it is on the wheel, it stays */
}

static void close_lone(struct channel *channel, enum close_reason reason, enum close_how how)
{
	struct resident *resident = resident_of(channel);
	(void)how;
	if (channel->ended)
		return;
	channel->ended = true;
	resident->reason = (uint8_t)reason;
	resident_settle(resident);
}

static void resident_changed(struct channel *channel)
{
	if (!channel->busy)
		resident_touch(resident_of(channel));
	resident_settle(resident_of(channel));
}

/* ---- its beginning ---- */

const char *resident_name(const struct channel *channel)
{
	return resident_of(channel)->name->key;
}

struct name *resident_address(const struct channel *channel)
{
	names_hold(resident_of(channel)->name);
	return resident_of(channel)->name;
}

void resident_push_name(lua_State *lua, const struct channel *channel)
{
	const struct name *name = resident_of(channel)->name;
	lua_pushlstring(lua, name->key, name->len);
}

void resident_push_key(lua_State *lua, const struct channel *channel)
{
	const struct name *name = resident_of(channel)->name;
	size_t prefix = strlen(channel->conn->endpoint->name) + 1;
	lua_pushlstring(lua, name->key + prefix, name->len - prefix);
}

static struct resident *new_resident(struct agents *agents, struct kind *kind, struct name *name)
{
	struct conn_host *host = agents->host;
	struct resident *resident = calloc(1, sizeof *resident);
	if (!resident || idmap_put(&host->ids, ++host->last_further_id, &resident->channel)) {
		free(resident);
		return NULL;
	}
	resident->channel.conn = &kind->conn;
	resident->channel.id = host->last_further_id;
	resident->channel.agents = agents;
	resident->channel.lone = resident->channel.opened = true;
	resident->since_ms = (uint32_t)host->now_ms;
	resident->name = name;
	names_hold(name);
	return resident;
}

void resident_open(struct agents *agents, struct resident *resident)
{
	struct channel *channel = &resident->channel;
	struct run run;
	resident->begun = true;
	run_begin(agents, &run, channel, CALL_OPENED);
	lua_rawgeti(run.co.lua, LUA_REGISTRYINDEX, agent_endpoint_of(channel)->opener_ref);
	resident_push_key(run.co.lua, channel);
	resident_push_name(run.co.lua, channel);
	enum outcome outcome = run_enter(agents, &run, 2);
	if (outcome != RUN_SUSPENDED)
		callback_finish(agents, &run, outcome);
}

/* NULL: there is no memory, or the worker ends. */
static struct channel *make_resident(struct agents *agents, unsigned at, struct name *name)
{
	struct kind *kind = &agents->residents->kinds[at];
	struct resident *resident = agents->host->overdue ? NULL : new_resident(agents, kind, name);
	if (!resident)
		return NULL;
	names_lead(post_of(agents)->names, name, resident->channel.id);
	agents_count_lone(agents, 1);
	agents->host->lone++;
	count(&agents->counters->residents_begun);
	resident->draining = agents->host->draining;
	resident_settle(resident);
	return &resident->channel;
}

int residents_kind_of(const struct agents *agents, struct names_key key)
{
	const char *colon = agents->residents ? memchr(key.data, ':', key.len) : NULL;
	return colon ? config_find_kind(agents->instance.config, key.data, (size_t)(colon - key.data)) : -1;
}

bool residents_birth(const struct agents *agents, struct names_key key, struct names_birth *birth)
{
	int at = residents_kind_of(agents, key);
	if (at < 0)
		return false;
	const struct kind_config *config = &agents->instance.config->kinds[at];
	*birth = (struct names_birth){ .kind = agents->residents->kinds[at].names_kind,
				       .at_once = config->most,
				       .most = config->mailbox };
	return true;
}

/* While all end, what one says at its end makes none: two that say something to each other would never have ended. */
static struct channel *make_for(struct agents *newest, const struct letter *letter)
{
	struct names_key key = { letter->to->key, letter->to->len };
	int at = residents_kind_of(newest, key);
	bool is_in_vain = at < 0 || (letter->is_last_word && newest->host->draining);
	return is_in_vain ? NULL : make_resident(newest, (unsigned)at, letter->to);
}

struct recipient *resident_recipient(struct post *post, const struct letter *letter)
{
	uint64_t id = letter->to->channel;
	struct channel *channel = id ? idmap_get(&post->newest->host->ids, id) : NULL;
	if (!channel)
		channel = make_for(post->newest, letter);
	return channel ? recipient_begin(agents_of_channel(channel), channel) : NULL;
}

void resident_move(struct channel *channel, struct agents *to, unsigned at)
{
	struct resident *resident = resident_of(channel);
	wheel_disarm(&resident->node);
	agents_count_lone(agents_of_channel(channel), (size_t)-1);
	channel->agents = to;
	channel->conn = &to->residents->kinds[at].conn;
	agents_count_lone(to, 1);
	resident_settle(resident);
}

void resident_go_on(struct channel *channel)
{
	channel->ended = false;
	resident_settle(resident_of(channel));
}

/* ---- its end ---- */

static void free_resident(struct agents *agents, struct resident *resident)
{
	const struct channel *channel = &resident->channel;
	idmap_remove(&agents->host->ids, channel->id);
	count(&agents->counters->residents_ended);
	count(&agents->counters->residents_by[resident->reason]);
	agents_count_lone(agents, (size_t)-1);
	agents->host->lone--;
	free(resident);
}

/* What has come since it was to end is for the next of that name, which begins now that it has ended. */
static void begin_next_resident(struct post *post, struct name *name, struct mail *letters)
{
	names_lead(post->names, name, 0);
	if (!letters)
		names_release_unused(post->names, name);
	for (struct mail *next; letters; letters = next) {
		next = letters->next;
		post_take(post, letter_of(letters));
	}
	names_leave(name);
}

/* False: it has more to do. */
static bool resident_finish(struct agents *agents, struct resident *resident)
{
	struct channel *channel = &resident->channel;
	struct name *name = resident->name;
	if (!AGENT_HANDLER.closed(channel, (enum close_reason)resident->reason))
		return false;
	struct mail *letters = channel->has_post ? recipient_leave(agents, channel) : NULL;
	free_resident(agents, resident);
	begin_next_resident(post_of(agents), name, letters);
	return true;
}

void resident_drain(struct channel *channel)
{
	struct resident *resident = resident_of(channel);
	if (channel->ended || resident->draining)
		return;
	resident->draining = true;
	resident_settle(resident);
}

void resident_keep_no_more(struct channel *channel)
{
	resident_of(channel)->drain_kept = false;
	resident_settle(resident_of(channel));
}

void resident_end_drain(struct channel *channel)
{
	channel_close(channel, REASON_DRAIN, CLOSE_NOW);
}

static void resident_tell_drain(struct resident *resident)
{
	const struct conn_host *host = resident->channel.conn->host;
	uint64_t now_ms = host->now_ms, end_ms = host->drain_deadline_ms;
	resident->drain_told = true;
	resident->drain_kept = true; /* a drain() that waits has yet to say: unless_kept() */
	resident->drain_kept =
	    host->handler->drain(&resident->channel, end_ms > now_ms ? end_ms - now_ms : 0);
}

static void go_on_draining(struct resident *resident)
{
	if (!is_at_something(resident) && !resident->drain_told)
		resident_tell_drain(resident);
	if (!is_at_something(resident) && !resident->drain_kept)
		channel_close(&resident->channel, REASON_DRAIN, CLOSE_FLUSH);
	resident_settle(resident);
}

/* It may say that it goes on. */
static void expire_resident(struct agents *agents, struct resident *resident)
{
	if (agents->host->handler->timeout(&resident->channel, TIMEOUT_IDLE))
		resident_touch(resident);
	else
		channel_close(&resident->channel, REASON_IDLE_TIMEOUT, CLOSE_FLUSH);
	resident_settle(resident);
}

static void look_at_idle(struct agents *agents, struct resident *resident)
{
	uint64_t now_ms = agents->host->now_ms;
	bool is_idle = idle_for_ms(resident) >= kind_of(&resident->channel)->idle_ms;
	if (now_ms < agents->host->grace_until_ms)
		wheel_arm(&agents->residents->wheel, &resident->node, agents->host->grace_until_ms);
	else if (is_idle && !is_at_something(resident))
		expire_resident(agents, resident);
	else
		resident_settle(resident);
}

/* ---- turns ---- */

static struct resident *resident_of_node(struct wheel_node *node)
{
	return (struct resident *)(void *)((char *)node - offsetof(struct resident, node));
}

/* All that these agents have, in no order. `visit` makes none, and frees none. */
static void each_resident(struct agents *agents, void (*visit)(struct channel *channel))
{
	const struct idmap *ids = &agents->host->ids;
	for (size_t i = 0; i < ids->capacity; i++) {
		struct channel *channel = ids->slots[i].value;
		if (channel && channel->lone && channel->agents == agents)
			visit(channel);
	}
}

/* The server goes away: all of them do, and those that come. */
static void follow_drain(struct agents *agents)
{
	struct residents *residents = agents->residents;
	const struct conn_host *host = agents->host;
	if (host->draining && !residents->drains)
		each_resident(agents, resident_drain);
	if (host->overdue && !residents->is_over)
		each_resident(agents, resident_end_drain);
	residents->drains = host->draining;
	residents->is_over = host->overdue;
}

/* True: there is time for another one. */
static bool residents_have_time(const struct agents *agents, uint64_t began)
{
	return ticks_now() - began <= host_stage_ticks(agents->host);
}

static void residents_end_some(struct agents *agents)
{
	struct wheel_node *node, *ending = &agents->residents->ending;
	uint64_t began = ticks_now();
	while (residents_have_time(agents, began) && (node = wheel_pop(ending)))
		if (!resident_finish(agents, resident_of_node(node)))
			wheel_list_append(ending, node);
}

/* Each is looked at once: messages may be under way to it, and then it comes again in the next turn. */
static void residents_drain_some(struct agents *agents)
{
	struct wheel_node *node, *draining = &agents->residents->draining, end = { 0 };
	uint64_t began = ticks_now();
	wheel_list_append(draining, &end);
	while ((node = wheel_pop(draining)) != &end) {
		if (residents_have_time(agents, began))
			go_on_draining(resident_of_node(node));
		else
			wheel_list_append(draining, node);
	}
}

static void residents_look(struct agents *agents, uint64_t now_ms)
{
	struct residents *residents = agents->residents;
	struct wheel_node *node;
	uint64_t began = ticks_now();
	if (wheel_is_empty(&residents->due))
		wheel_advance(&residents->wheel, now_ms, &residents->due);
	while (residents_have_time(agents, began) && (node = wheel_pop(&residents->due)))
		look_at_idle(agents, resident_of_node(node));
}

void residents_turn(struct agents *agents, uint64_t now_ms)
{
	const struct conn_host *host = agents->host;
	struct residents *residents = agents->residents;
	if (host->draining != residents->drains || host->overdue != residents->is_over)
		follow_drain(agents);
	residents_look(agents, now_ms);
	residents_drain_some(agents);
	residents_end_some(agents);
}

uint64_t residents_next_ms(const struct agents *agents)
{
	const struct residents *residents = agents->residents;
	const struct conn_host *host = agents->host;
	bool is_told = host->draining == residents->drains && host->overdue == residents->is_over;
	bool has_more = !wheel_is_empty(&residents->due) || !wheel_is_empty(&residents->draining) ||
			!wheel_is_empty(&residents->ending);
	return has_more || !is_told ? host->now_ms : wheel_next_ms(&residents->wheel);
}
