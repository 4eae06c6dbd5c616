#include "agent/member.h"

#include "agent/recipient.h"
#include "agent/whose.h"
#include "base/log.h"

#include <stdlib.h>
#include <string.h>
#include <uv.h>

enum { FOR_CONN, FOR_AGENT }; /* of member->lines */

struct waiting {
	struct waiting *before, *after;  /* in its member's line */
	struct waiting *elder, *younger; /* in its membership's */
	struct membership *of;
	struct hub_message *message; /* held */
	bool is_for_agent;
};

struct member *member_of(const struct audience *audience, const struct channel *channel)
{
	return channel->has_hub ? idmap_get(&audience->members, channel->id) : NULL;
}

/* ---- accounts ---- */

static void count_fates(struct audience *audience, struct membership *membership, enum hub_fate fate,
			unsigned n)
{
	static const size_t TOTALS[HUB_FATES] = {
		[HUB_DELIVERED] = offsetof(struct counters, hub_delivered),
		[HUB_DROPPED_OLDEST] = offsetof(struct counters, hub_dropped_oldest),
		[HUB_DROPPED_NEWEST] = offsetof(struct counters, hub_dropped_newest),
		[HUB_REPLACED] = offsetof(struct counters, hub_replaced),
		[HUB_UNFIT] = offsetof(struct counters, hub_unfit),
		[HUB_EVICTED] = offsetof(struct counters, hub_evicted),
		[HUB_LEFT] = offsetof(struct counters, hub_left),
	};
	count_add((counter *)(void *)((char *)audience->counters + TOTALS[fate]), n);
	count_add(&membership->topic->part.account.fates[fate], n);
	*(fate == HUB_DELIVERED ? &membership->delivered : &membership->dropped) += n;
}

static void count_fate(struct audience *audience, struct membership *membership, enum hub_fate fate)
{
	count_fates(audience, membership, fate, 1);
}

static void count_addressed(struct audience *audience, struct membership *membership, unsigned n)
{
	count_add(&audience->counters->hub_addressed, n);
	count_add(&membership->topic->part.account.addressed, n);
}

/* ---- what waits ---- */

static struct wait_line *line_of(const struct waiting *waiting)
{
	return &waiting->of->member->lines[waiting->is_for_agent];
}

static void note_line(struct member *member)
{
	member->channel->has_queue = member->lines[FOR_CONN].first;
}

static void line_up(struct waiting *waiting)
{
	struct wait_line *line = line_of(waiting), *own = &waiting->of->waits;
	waiting->before = line->last;
	*(line->last ? &line->last->after : &line->first) = waiting;
	line->last = waiting;
	waiting->elder = own->last;
	*(own->last ? &own->last->younger : &own->first) = waiting;
	own->last = waiting;
	waiting->of->waiting++;
	waiting->of->bytes += hub_message_bytes(waiting->message);
	note_line(waiting->of->member);
}

/* The message is the caller's then. */
static struct hub_message *take_from_lines(struct waiting *waiting)
{
	struct wait_line *line = line_of(waiting), *own = &waiting->of->waits;
	struct hub_message *message = waiting->message;
	*(waiting->before ? &waiting->before->after : &line->first) = waiting->after;
	*(waiting->after ? &waiting->after->before : &line->last) = waiting->before;
	*(waiting->elder ? &waiting->elder->younger : &own->first) = waiting->younger;
	*(waiting->younger ? &waiting->younger->elder : &own->last) = waiting->elder;
	waiting->of->waiting--;
	waiting->of->bytes -= hub_message_bytes(message);
	note_line(waiting->of->member);
	free(waiting);
	return message;
}

static void drop_waiting(struct audience *audience, struct waiting *waiting, enum hub_fate fate)
{
	count_fate(audience, waiting->of, fate);
	hub_message_drop(take_from_lines(waiting));
}

static void make_member_due(struct member *member)
{
	struct channel *channel = member->channel;
	if (member->lines[FOR_AGENT].first && !channel->suspended && !wheel_armed(&member->node))
		wheel_list_append(&agents_of_channel(channel)->heard, &member->node);
}

static void add_waiting(struct audience *audience, struct membership *membership, struct hub_message *message)
{
	struct waiting *waiting = calloc(1, sizeof *waiting);
	if (!waiting) {
		count_fate(audience, membership, HUB_DROPPED_NEWEST);
		return;
	}
	waiting->of = membership;
	waiting->message = message;
	waiting->is_for_agent = membership->rules.is_for_agent;
	hub_message_hold(message);
	line_up(waiting);
	if (waiting->is_for_agent)
		make_member_due(membership->member);
}

/* ---- the end of memberships ---- */

static void end_membership(struct audience *audience, struct membership **link, enum hub_fate fate)
{
	struct membership *membership = *link;
	while (membership->waits.first)
		drop_waiting(audience, membership->waits.first, fate);
	*link = membership->sibling;
	membership->member->count--;
	audience_remove(audience, membership);
	free(membership);
}

static void forget_member(struct audience *audience, struct member *member)
{
	struct channel *channel = member->channel;
	wheel_disarm(&member->node);
	idmap_remove(&audience->members, channel->id);
	free(member);
	channel->has_hub = channel->has_queue = false;
}

static void end_memberships(struct audience *audience, struct member *member, enum hub_fate fate)
{
	while (member->memberships)
		end_membership(audience, &member->memberships, fate);
	forget_member(audience, member);
}

static struct membership **find_membership(struct member *member, const struct audience_topic *topic)
{
	struct membership **link = &member->memberships;
	while (*link && (*link)->topic != topic)
		link = &(*link)->sibling;
	return link;
}

bool member_leave(struct audience *audience, struct channel *channel, const struct topic *topic)
{
	struct member *member = member_of(audience, channel);
	const struct audience_topic *found = member ? audience_find(audience, topic) : NULL;
	struct membership **link = found ? find_membership(member, found) : NULL;
	if (!link || !*link || (*link)->is_to_end)
		return false;
	if ((*link)->is_on_trial)
		return (*link)->is_to_end = true;
	end_membership(audience, link, HUB_LEFT);
	if (!member->memberships)
		forget_member(audience, member);
	return true;
}

void member_end(struct channel *channel)
{
	struct audience *audience = channel->conn->host->audience;
	end_memberships(audience, member_of(audience, channel), HUB_LEFT);
}

/* As they are once a trial has succeeded. */
static const struct membership_rules *rules_of(const struct membership *membership)
{
	return membership->is_to_change ? &membership->next : &membership->rules;
}

void member_end_sent(struct channel *channel)
{
	struct audience *audience = channel->conn->host->audience;
	struct member *member = member_of(audience, channel);
	for (struct membership **link = &member->memberships; *link;) {
		struct membership *membership = *link;
		if (!rules_of(membership)->is_for_agent && !membership->is_on_trial) {
			end_membership(audience, link, HUB_LEFT);
			continue;
		}
		membership->is_to_end |= !rules_of(membership)->is_for_agent;
		link = &membership->sibling;
	}
	if (!member->memberships)
		forget_member(audience, member);
}

/* ---- joining ---- */

static struct member *begin_member(struct audience *audience, struct channel *channel)
{
	struct member *member = member_of(audience, channel);
	if (member)
		return member;
	member = calloc(1, sizeof *member);
	if (!member || idmap_put(&audience->members, channel->id, member)) {
		free(member);
		return NULL;
	}
	member->channel = channel;
	channel->has_hub = true;
	return member;
}

/* NULL: there is no memory, and no topic without members is left. */
static struct membership *new_membership(struct audience *audience, struct member *member,
					 const struct topic *topic)
{
	struct membership *membership = calloc(1, sizeof *membership);
	struct audience_topic *of = membership ? audience_begin(audience, topic) : NULL;
	if (!of) {
		free(membership);
		return NULL;
	}
	membership->topic = of;
	membership->member = member;
	return membership;
}

static enum member_error add_membership(struct audience *audience, struct member *member,
					const struct topic *topic, const struct membership_rules *rules)
{
	struct membership **end = &member->memberships;
	struct membership *made = new_membership(audience, member, topic);
	if (!made)
		return MEMBER_NO_MEMORY;
	made->rules = *rules;
	while (*end)
		end = &(*end)->sibling;
	*end = made;
	member->count++;
	audience_add(audience, made);
	return MEMBER_OK;
}

static void change_rules(struct membership *membership, const struct membership_rules *rules)
{
	*(membership->is_on_trial ? &membership->next : &membership->rules) = *rules;
	membership->is_to_change = membership->is_on_trial;
	membership->is_to_end = false;
}

enum member_error member_join(struct audience *audience, struct channel *channel, const struct topic *topic,
			      const struct membership_rules *rules)
{
	struct member *member = begin_member(audience, channel);
	if (!member)
		return MEMBER_NO_MEMORY;
	const struct audience_topic *known = audience_find(audience, topic);
	struct membership *has = known ? *find_membership(member, known) : NULL;
	if (has) {
		change_rules(has, rules);
		return MEMBER_OK;
	}
	enum member_error error = member->count == MEMBER_TOPICS_MAX
				      ? MEMBER_CROWDED
				      : add_membership(audience, member, topic, rules);
	if (!member->memberships)
		forget_member(audience, member);
	return error;
}

/* ---- onto the connection ---- */

static void give_now(struct audience *audience, struct membership *membership, struct hub_message *message)
{
	int err = cast_give(&audience->cast, membership->member->channel, message);
	count_fate(audience, membership, !err ? HUB_DELIVERED : err == UV_EPIPE ? HUB_LEFT : HUB_UNFIT);
}

void member_has_room(struct channel *channel)
{
	struct audience *audience = channel->conn->host->audience;
	struct member *member = member_of(audience, channel);
	struct waiting *waiting;
	while ((waiting = member->lines[FOR_CONN].first) && channel_is_open(channel) &&
	       cast_has_room(channel, waiting->message->len)) {
		struct membership *membership = waiting->of;
		struct hub_message *message = take_from_lines(waiting);
		give_now(audience, membership, message);
		hub_message_drop(message);
	}
}

/* ---- members that do not keep up ---- */

/* A thousand may be too slow at once. */
static void log_eviction(struct audience *audience, const struct membership *membership)
{
	const struct channel *channel = membership->member->channel;
	struct whose about;
	if (!seldom_is_due(&audience->evictions, audience->host->now_ms, HUB_LOG_EVERY_MS))
		return;
	whose(channel, &about);
	log_write(LOG_WARN, "slow consumer: a member of a topic was disconnected",
		  F_TEXT("topic", membership->topic->part.topic.name), F_INT("waiting", membership->waiting),
		  about.conn, about.peer, about.listener, about.agent,
		  F_INT("more", seldom_take(&audience->evictions)), F_INT("worker", audience->worker));
}

static void evict_member(struct audience *audience, struct membership *membership)
{
	struct member *member = membership->member;
	struct channel *channel = member->channel;
	log_eviction(audience, membership);
	count_fate(audience, membership, HUB_EVICTED);
	end_memberships(audience, member, HUB_EVICTED);
	channel_close(channel, REASON_SLOW_CONSUMER, CLOSE_FLUSH);
}

/*
 * What waits is held once for all that wait for it, so that what each may have waiting says little about memory. When
 * all messages together take more than the process may have for buffers, members that do not keep up have none waiting.
 */
static bool is_memory_short(const struct membership *membership)
{
	const struct agents *agents = agents_of_channel(membership->member->channel);
	size_t most = agents->instance.config->buffer_bytes;
	return most && hub_message_memory(audience_of(agents)->hub) > most;
}

/*
 * What counts of that which waits. For an agent that may be called: what had waited for it when the turn began, unless
 * that is less by now. It has had no chance to take the rest.
 */
static void measure_waiting(const struct audience *audience, struct membership *membership,
			    uint32_t *messages, size_t *bytes)
{
	*messages = membership->waiting;
	*bytes = membership->bytes;
	if (!membership->rules.is_for_agent || membership->member->channel->suspended)
		return;
	if (membership->turn != audience->turn) {
		membership->turn = audience->turn;
		membership->had_waiting = *messages;
		membership->had_bytes = *bytes;
	}
	if (membership->had_waiting < *messages)
		*messages = membership->had_waiting;
	if (membership->had_bytes < *bytes)
		*bytes = membership->had_bytes;
}

/* Where none waits one may, however large: else it could never come. */
static bool is_too_much(const struct audience *audience, struct membership *membership,
			const struct hub_message *message)
{
	uint32_t messages;
	size_t bytes;
	measure_waiting(audience, membership, &messages, &bytes);
	bool has_bytes = messages && bytes + hub_message_bytes(message) > membership->rules.bytes;
	return is_memory_short(membership) || messages >= membership->rules.messages || has_bytes;
}

/* The one that the message takes the place of; NULL: there is none. O(messages that wait). */
static struct waiting *find_same_key(const struct membership *membership, const struct hub_message *message)
{
	struct waiting *each = membership->waits.first;
	while (each && !hub_message_has_key_of(each->message, message))
		each = each->younger;
	return each;
}

static void let_wait(struct audience *audience, struct membership *membership, struct hub_message *message)
{
	enum hub_policy policy = membership->rules.policy;
	struct waiting *same = policy == HUB_LATEST ? find_same_key(membership, message) : NULL;
	if (same)
		drop_waiting(audience, same, HUB_REPLACED);
	if (is_too_much(audience, membership, message) && policy == HUB_DISCONNECT) {
		evict_member(audience, membership);
		return;
	}
	while (policy != HUB_DROP_NEWEST && membership->waits.first &&
	       is_too_much(audience, membership, message))
		drop_waiting(audience, membership->waits.first, HUB_DROPPED_OLDEST);
	if (is_too_much(audience, membership, message))
		count_fate(audience, membership, HUB_DROPPED_NEWEST);
	else
		add_waiting(audience, membership, message);
}

/* Do messages of so many bytes go onto its connection now? */
static bool takes_now(const struct membership *membership, size_t bytes)
{
	const struct member *member = membership->member;
	return !membership->rules.is_for_agent && !member->lines[FOR_CONN].first &&
	       cast_has_room(member->channel, bytes);
}

/* The stream may take what is pending: only a peer that does not is behind. Is there room then? */
static bool finds_room(const struct membership *membership, size_t bytes)
{
	struct channel *channel = membership->member->channel;
	const struct wait_line *line = &membership->member->lines[FOR_CONN];
	const struct waiting *first;
	if (membership->rules.is_for_agent)
		return false;
	do {
		first = line->first;
		if (!conn_flush_now(channel->conn))
			return false;
		member_has_room(channel);
	} while (line->first && line->first != first);
	return takes_now(membership, bytes);
}

static bool is_skipped(const struct channel *channel, const struct hub_message *message)
{
	return message->skips_sender && message->sender == channel->id;
}

static bool is_any_skipped(const struct channel *channel, struct hub_message *const *messages, unsigned n)
{
	while (n && !is_skipped(channel, messages[n - 1]))
		n--;
	return n;
}

static size_t bytes_of_all(struct hub_message *const *messages, unsigned n)
{
	size_t bytes = 0;
	while (n)
		bytes += messages[--n]->len;
	return bytes;
}

bool member_hear_all(struct audience *audience, struct membership *membership,
		     struct hub_message *const *messages, unsigned n)
{
	struct channel *channel = membership->member->channel;
	int err;
	size_t bytes = bytes_of_all(messages, n);
	if (!channel_is_open(channel) || (!takes_now(membership, bytes) && !finds_room(membership, bytes)) ||
	    is_any_skipped(channel, messages, n) ||
	    !cast_give_all(&audience->cast, channel, messages, n, &err))
		return false;
	count_addressed(audience, membership, n);
	count_fates(audience, membership, err ? HUB_LEFT : HUB_DELIVERED, n);
	return true;
}

void member_hear(struct audience *audience, struct membership *membership, struct hub_message *message)
{
	const struct channel *channel = membership->member->channel;
	if (!channel_is_open(channel) || is_skipped(channel, message))
		return;
	count_addressed(audience, membership, 1);
	if (takes_now(membership, message->len) || finds_room(membership, message->len))
		give_now(audience, membership, message);
	else
		let_wait(audience, membership, message);
}

/* ---- to the agent ---- */

enum { ARGUMENTS = 6 };

/* Pushes what runtime.receive() takes. False: there is no memory for it. */
static bool push_heard(struct agents *agents, lua_State *co, const struct hub_message *message)
{
	char address[RECIPIENT_ADDRESS_BYTES];
	lua_pushlstring(co, message->topic, message->topic_len);
	if (!vm_push_bytes(&agents->vm, co, message->data, message->len))
		return false;
	if (message->from) {
		lua_pushlstring(co, message->from->key, message->from->len);
	} else if (message->sender) {
		recipient_write_address(address, message->worker, message->sender);
		lua_pushstring(co, address);
	} else {
		lua_pushnil(co);
	}
	if (message->kind == HUB_JSON)
		lua_pushliteral(co, "json");
	else
		lua_pushboolean(co, 0);
	lua_pushboolean(co, 0);
	return true;
}

static void call_heard(struct agents *agents, struct channel *channel, const struct hub_message *message)
{
	struct run run;
	run_begin(agents, &run, channel, CALL_HEARD);
	lua_rawgeti(run.co.lua, LUA_REGISTRYINDEX, agents->receive_ref);
	agent_push(agents, run.co.lua, channel);
	bool is_pushed = push_heard(agents, run.co.lua, message);
	enum outcome outcome = is_pushed ? run_enter(agents, &run, ARGUMENTS) : run_starve(agents, &run);
	if (outcome != RUN_SUSPENDED)
		member_finish(agents, &run, outcome);
}

void member_finish(struct agents *agents, struct run *run, enum outcome outcome)
{
	enum { AT_REPLY = 2 }; /* of what runtime.receive() returns: nobody waits for it; then the action */
	if (outcome == RUN_FAILED || !reply_take_action(agents, run, AT_REPLY))
		fault_raise(agents, run);
	run_end(agents, run, outcome == RUN_FAILED);
}

/* Whoever has more to come goes to the back of the list. */
static void call_next_heard(struct agents *agents, struct member *member)
{
	struct channel *channel = member->channel;
	struct waiting *waiting = member->lines[FOR_AGENT].first;
	if (channel->suspended || !channel_is_open(channel) || !waiting) /* member_catch_up(), member_end() */
		return;
	count_fate(audience_of(agents), waiting->of, HUB_DELIVERED);
	struct hub_message *message = take_from_lines(waiting);
	make_member_due(member);
	call_heard(agents, channel, message);
	hub_message_drop(message);
}

void members_turn(struct agents *agents)
{
	uint64_t taken = 0;
	struct wheel_node *node;
	while (taken <= host_stage_ticks(agents->host) && (node = wheel_pop(&agents->heard))) {
		struct member *member = (struct member *)(void *)node;
		const struct channel *channel = member->channel;
		taken -= channel->handler_ticks;
		call_next_heard(agents, member);
		taken += channel->handler_ticks;
	}
}

void member_catch_up(struct channel *channel)
{
	make_member_due(member_of(channel->conn->host->audience, channel));
}

/* ---- from one generation to the next ---- */

static void log_deaf(const struct agents *agents, const struct membership *membership)
{
	log_write(LOG_WARN, "a topic is left: the agent has no method message any more",
		  F_TEXT("topic", membership->topic->part.topic.name),
		  F_INT("conn", membership->member->channel->id), F_INT("worker", agents->instance.worker),
		  F_INT("generation", agents->instance.generation));
}

/* What is for an agent that cannot take it ends. */
static void leave_unheard(struct audience *audience, struct member *member, const struct agents *to)
{
	for (struct membership **link = &member->memberships; *link;)
		if ((*link)->rules.is_for_agent) {
			log_deaf(to, *link);
			end_membership(audience, link, HUB_LEFT);
		} else {
			link = &(*link)->sibling;
		}
	if (!member->memberships)
		forget_member(audience, member);
}

static bool has_any_for_agent(const struct member *member)
{
	const struct membership *each = member->memberships;
	while (each && !each->rules.is_for_agent)
		each = each->sibling;
	return each;
}

/* What upgrade() has done takes effect. False: there are no memberships any more. */
static bool keep_trial(struct audience *audience, struct member *member)
{
	for (struct membership **link = &member->memberships; *link;) {
		struct membership *membership = *link;
		if (membership->is_to_end) {
			end_membership(audience, link, HUB_LEFT);
			continue;
		}
		if (membership->is_to_change)
			membership->rules = membership->next;
		membership->is_on_trial = membership->is_to_change = false;
		link = &membership->sibling;
	}
	if (member->memberships)
		return true;
	forget_member(audience, member);
	return false;
}

void member_follow(struct channel *channel, struct agents *to)
{
	struct audience *audience = audience_of(to);
	struct member *member = member_of(audience, channel);
	wheel_disarm(&member->node);
	if (!keep_trial(audience, member) || !has_any_for_agent(member))
		return;
	if (agent_has_method(to, channel, CALL_MESSAGE))
		make_member_due(member);
	else
		leave_unheard(audience, member, to);
}

void member_try(struct channel *channel)
{
	struct membership *each = member_of(channel->conn->host->audience, channel)->memberships;
	for (; each; each = each->sibling)
		each->is_on_trial = true;
}

void member_restore(struct channel *channel)
{
	struct audience *audience = channel->conn->host->audience;
	struct member *member = member_of(audience, channel);
	for (struct membership **link = &member->memberships; *link;)
		if (!(*link)->is_on_trial) {
			end_membership(audience, link, HUB_LEFT);
		} else {
			(*link)->is_on_trial = (*link)->is_to_end = (*link)->is_to_change = false;
			link = &(*link)->sibling;
		}
	if (!member->memberships)
		forget_member(audience, member);
}
