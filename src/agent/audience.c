#include "agent/audience.h"

#include "agent/member.h"
#include "base/ticks.h"

#include <stdlib.h>
#include <string.h>

/* ---- the beginning and the end ---- */

void audience_open(struct audience *audience, struct hub *hub, struct conn_host *host, unsigned worker)
{
	*audience =
	    (struct audience){ .hub = hub, .host = host, .counters = host->counters, .worker = worker };
	audience->come_end = &audience->come;
	idmap_init(&audience->members);
	host->audience = audience;
}

static struct hub_message *next_message(const struct audience *audience)
{
	return audience->come ? ((struct hub_mail *)(void *)audience->come)->message : NULL;
}

static struct hub_message *shift_message(struct audience *audience)
{
	struct hub_message *message = next_message(audience);
	if (!message)
		return NULL;
	audience->come = audience->come->next;
	if (!audience->come)
		audience->come_end = &audience->come;
	return message;
}

static void empty_box_of(struct audience *audience)
{
	for (struct mail *next, *mail = hub_collect(audience->hub, audience->worker); mail; mail = next) {
		next = mail->next;
		mail->next = NULL;
		*audience->come_end = mail;
		audience->come_end = &mail->next;
	}
}

static void end_group(struct audience *audience)
{
	for (unsigned i = 0; i < audience->group_count; i++)
		hub_done(audience->hub, audience->worker, audience->group[i]);
	audience->group_count = 0;
	audience->topic_count = 0;
	audience->next = NULL;
}

void audience_close(struct audience *audience)
{
	hub_close_box(audience->hub, audience->worker);
	end_group(audience);
	audience_drop_rest(audience);
	cast_forget(&audience->cast);
	free(audience->topics);
	audience->topics = NULL;
	audience->topic_room = 0;
	topic_map_free(&audience->names);
	topic_trie_free(&audience->patterns);
	idmap_deinit(&audience->members);
}

void audience_drop_rest(struct audience *audience)
{
	struct hub_message *message;
	if (!audience->hub)
		return;
	empty_box_of(audience);
	while ((message = shift_message(audience)))
		hub_done(audience->hub, audience->worker, message);
}

/* ---- topics ---- */

struct audience_topic *audience_find(const struct audience *audience, const struct topic *topic)
{
	struct topic *found =
	    topic->is_pattern
		? topic_trie_find(&audience->patterns, hub_key(audience->hub), topic->name, topic->len)
		: topic_map_find(&audience->names, topic->name, topic->len, topic->hash);
	return (struct audience_topic *)(void *)found;
}

static int table_add(struct audience *audience, struct topic *topic)
{
	return topic->is_pattern ? topic_trie_add(&audience->patterns, hub_key(audience->hub), topic)
				 : topic_map_add(&audience->names, topic);
}

static void table_remove(struct audience *audience, struct topic *topic)
{
	if (topic->is_pattern)
		topic_trie_remove(&audience->patterns, topic);
	else
		topic_map_remove(&audience->names, topic);
}

struct audience_topic *audience_begin(struct audience *audience, const struct topic *topic)
{
	struct audience_topic *made = audience_find(audience, topic);
	if (made)
		return made;
	made = calloc(1, sizeof *made + topic->len + 1u);
	if (!made)
		return NULL;
	memcpy(made->name, topic->name, topic->len);
	made->part.topic = *topic;
	made->part.topic.name = made->name;
	made->part.worker = audience->worker;
	if (table_add(audience, &made->part.topic)) {
		free(made);
		return NULL;
	}
	if (hub_enter(audience->hub, &made->part)) {
		table_remove(audience, &made->part.topic);
		free(made);
		return NULL;
	}
	return made;
}

void audience_add(struct audience *audience, struct membership *membership)
{
	struct audience_topic *topic = membership->topic;
	membership->before = topic->last;
	*(topic->last ? &topic->last->after : &topic->first) = membership;
	topic->last = membership;
	count(&topic->part.members);
	count(&audience->counters->hub_joined);
}

/* It has no members, and the message at hand may be for it. */
static void forget_topic(struct audience *audience, struct audience_topic *topic)
{
	for (size_t i = 0; i < audience->topic_count; i++)
		if (audience->topics[i] == topic)
			audience->topics[i] = NULL;
	hub_leave(audience->hub, &topic->part);
	table_remove(audience, &topic->part.topic);
	free(topic);
}

void audience_remove(struct audience *audience, struct membership *membership)
{
	struct audience_topic *topic = membership->topic;
	if (audience->next == membership)
		audience->next = membership->after;
	if (audience->current == membership)
		audience->current = NULL;
	*(membership->before ? &membership->before->after : &topic->first) = membership->after;
	*(membership->after ? &membership->after->before : &topic->last) = membership->before;
	count_add(&topic->part.members, (uint64_t)-1);
	count(&audience->counters->hub_parted);
	if (!topic->first)
		forget_topic(audience, topic);
}

/* ---- delivery ---- */

/* Where there is no memory for more topics, the members of those do without. */
static void add_topic(struct topic *topic, void *data)
{
	struct audience *audience = data;
	if (audience->topic_count == audience->topic_room) {
		size_t room = audience->topic_room ? 2 * audience->topic_room : 4;
		struct audience_topic **grown =
		    realloc(audience->topics, room * sizeof(struct audience_topic *));
		if (!grown)
			return;
		audience->topics = grown;
		audience->topic_room = room;
	}
	audience->topics[audience->topic_count++] = (struct audience_topic *)(void *)topic;
}

static void find_topics(struct audience *audience, const struct hub_message *message)
{
	const struct siphash_key *key = hub_key(audience->hub);
	uint64_t hash = siphash(key, message->topic, message->topic_len);
	struct topic *named = topic_map_find(&audience->names, message->topic, message->topic_len, hash);
	if (named)
		add_topic(named, audience);
	topic_trie_match(&audience->patterns, key, message->topic, message->topic_len, add_topic, audience);
}

static void begin_topic(struct audience *audience, size_t at)
{
	audience->topic_at = at;
	struct audience_topic *topic = at < audience->topic_count ? audience->topics[at] : NULL;
	audience->next = topic ? topic->first : NULL;
}

/* Does the message that has come next go along with those that are in the group, of so many bytes? */
static bool goes_along(const struct audience *audience, size_t bytes)
{
	const struct hub_message *next = next_message(audience), *first = audience->group[0];
	return next && audience->group_count < AUDIENCE_GROUP_MAX &&
	       bytes + next->len <= AUDIENCE_GROUP_BYTES && next->topic_len == first->topic_len &&
	       !memcmp(next->topic, first->topic, first->topic_len);
}

/* False: there is no message. */
static bool begin_group(struct audience *audience)
{
	size_t bytes = 0;
	if (!audience->come)
		empty_box_of(audience);
	if (!audience->come)
		return false;
	do {
		struct hub_message *message = shift_message(audience);
		audience->group[audience->group_count++] = message;
		bytes += message->len;
	} while (goes_along(audience, bytes));
	find_topics(audience, audience->group[0]);
	begin_topic(audience, 0);
	return true;
}

/* The next membership that the message is for, or NULL. */
static struct membership *next_membership(struct audience *audience)
{
	while (!audience->next && audience->topic_at < audience->topic_count)
		begin_topic(audience, audience->topic_at + 1);
	struct membership *membership = audience->next;
	if (membership)
		audience->next = membership->after;
	return membership;
}

static void give_group(struct audience *audience, struct membership *membership)
{
	struct conn *conn = membership->member->channel->conn;
	unsigned n = audience->group_count;
	audience->current = membership;
	audience->cast.is_at_once = ++audience->given > AUDIENCE_FEW;
	if (n == 1 || !member_hear_all(audience, membership, audience->group, n))
		for (unsigned i = 0; i < n && audience->current; i++)
			member_hear(audience, membership, audience->group[i]);
	if (audience->cast.is_at_once && audience->current)
		conn_flush_now(conn); /* what had to wait for others, or was put together there */
	audience->current = NULL;
	audience->cast.is_at_once = false;
}

/* To as many of their members as make so many messages. */
static void deliver_some(struct audience *audience, unsigned messages)
{
	struct membership *membership = NULL;
	for (unsigned i = 0; i < messages && (membership = next_membership(audience));
	     i += audience->group_count)
		give_group(audience, membership);
	if (!membership)
		end_group(audience);
}

bool audience_has_mail(const struct audience *audience)
{
	return audience->group_count || audience->come || hub_has_mail(audience->hub, audience->worker);
}

bool audience_turn(struct audience *audience)
{
	enum { AT_ONCE = 64 }; /* before the clock is looked at */
	cast_forget(&audience->cast);
	if (!audience_has_mail(audience))
		return false;
	uint64_t began = ticks_now();
	audience->given = 0;
	audience->turn++;
	while (ticks_now() - began <= host_stage_ticks(audience->host) &&
	       (audience->group_count || begin_group(audience)))
		deliver_some(audience, AT_ONCE);
	return audience_has_mail(audience);
}
