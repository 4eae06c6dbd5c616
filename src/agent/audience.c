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

static struct hub_message *shift_message(struct audience *audience)
{
	struct mail *mail = audience->come;
	if (!mail)
		return NULL;
	audience->come = mail->next;
	if (!audience->come)
		audience->come_end = &audience->come;
	return ((struct hub_mail *)(void *)mail)->message;
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

static void end_message(struct audience *audience)
{
	hub_done(audience->hub, audience->worker, audience->message);
	audience->message = NULL;
	audience->topic_count = 0;
	audience->next = NULL;
}

void audience_close(struct audience *audience)
{
	hub_close_box(audience->hub, audience->worker);
	if (audience->message)
		end_message(audience);
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

/* False: there is none. */
static bool begin_heard_message(struct audience *audience)
{
	if (!audience->come)
		empty_box_of(audience);
	audience->message = shift_message(audience);
	if (!audience->message)
		return false;
	find_topics(audience, audience->message);
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

/* To so many of its members at most. False: to all of them. */
static bool deliver_some(struct audience *audience, unsigned most)
{
	struct membership *membership = NULL;
	while (most-- && (membership = next_membership(audience)))
		member_hear(audience, membership, audience->message);
	if (!membership)
		end_message(audience);
	return membership;
}

bool audience_has_mail(const struct audience *audience)
{
	return audience->message || audience->come || hub_has_mail(audience->hub, audience->worker);
}

/*
 * What is given to a connection is written in its own turn, which costs more than giving it: so it is no more than some
 * thousands at once, however little time they take.
 */
bool audience_turn(struct audience *audience)
{
	enum { AT_ONCE = 64, PORTIONS = 32 };
	cast_forget(&audience->cast);
	if (!audience_has_mail(audience))
		return false;
	uint64_t began = ticks_now();
	for (unsigned i = 0; i < PORTIONS && ticks_now() - began <= host_stage_ticks(audience->host);) {
		if (!audience->message && !begin_heard_message(audience))
			break;
		i += deliver_some(audience, AT_ONCE);
	}
	return audience_has_mail(audience);
}
