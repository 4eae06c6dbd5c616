#include "agent/recipient.h"

#include "agent/resident.h"
#include "base/log.h"

#include <stdio.h>
#include <stdlib.h>

/* ---- whose it is ---- */

struct recipient *recipient_of(const struct agents *agents, const struct channel *channel)
{
	return channel->has_post ? idmap_get(&post_of(agents)->recipients, channel->id) : NULL;
}

struct recipient *recipient_begin(struct agents *agents, struct channel *channel)
{
	struct recipient *recipient = recipient_of(agents, channel);
	if (recipient)
		return recipient;
	recipient = malloc(sizeof *recipient);
	if (!recipient || idmap_put(&post_of(agents)->recipients, channel->id, recipient)) {
		free(recipient);
		return NULL;
	}
	*recipient = (struct recipient){ .channel = channel };
	channel->has_post = true;
	return recipient;
}

/* ---- names ---- */

/* `link` leads to it. Its place in the directory may be another's by now. */
static void give_name_up(const struct post *post, struct recipient *recipient, struct name **link)
{
	struct name *name = *link;
	*link = name->sibling;
	recipient->name_count--;
	names_release(post->names, name);
	names_leave(name);
}

/* Those that others have been given are its no more. */
static void forget_lost(const struct post *post, struct recipient *recipient)
{
	for (struct name **link = &recipient->names; *link;)
		if (names_is_listed(*link))
			link = &(*link)->sibling;
		else
			give_name_up(post, recipient, link);
}

static struct name **find_own_name(struct recipient *recipient, struct names_key key)
{
	struct name **link = &recipient->names;
	while (*link && ((*link)->len != key.len || memcmp((*link)->key, key.data, key.len) != 0))
		link = &(*link)->sibling;
	return link;
}

struct name *recipient_find(struct agents *agents, struct recipient *recipient, struct names_key key)
{
	forget_lost(post_of(agents), recipient);
	return *find_own_name(recipient, key);
}

static void log_replaced(const struct agents *agents, const struct name *name, const struct name *before)
{
	log_write(LOG_INFO, "a name has another agent now", F_TEXT("name", name->key),
		  F_INT("conn", name->channel), F_INT("worker", name->worker),
		  F_INT("before", before->channel), F_INT("before_worker", before->worker),
		  F_INT("generation", agents->instance.generation));
}

/* The agent's, whoever finds it: held. */
static enum names_error recipient_claim(struct agents *agents, const struct recipient *recipient,
					struct names_key key, bool replaces, struct name **name)
{
	const struct post *post = post_of(agents);
	struct name *before;
	const struct names_claim claim = { .key = key,
					   .most = agent_endpoint_of(recipient->channel)->mailbox,
					   .worker = post->worker,
					   .channel = recipient->channel->id,
					   .replaces = replaces };
	enum names_error error = names_claim(post->names, &claim, name, &before);
	if (before)
		log_replaced(agents, *name, before);
	names_leave(before);
	return error;
}

enum names_error recipient_register(struct agents *agents, struct recipient *recipient, struct names_key key,
				    bool replaces)
{
	struct name *name, **end = &recipient->names;
	enum names_error error = recipient_claim(agents, recipient, key, replaces, &name);
	if (error)
		return error;
	while (*end)
		end = &(*end)->sibling;
	*end = name;
	recipient->name_count++;
	return NAMES_OK;
}

bool recipient_unregister(struct agents *agents, struct recipient *recipient, struct names_key key)
{
	forget_lost(post_of(agents), recipient);
	struct name **link = find_own_name(recipient, key);
	if (!*link)
		return false;
	give_name_up(post_of(agents), recipient, link);
	return true;
}

/* Past the first so many. */
static void give_names_up(const struct post *post, struct recipient *recipient, unsigned kept)
{
	struct name **link = &recipient->names;
	for (; *link && kept; kept--)
		link = &(*link)->sibling;
	while (*link)
		give_name_up(post, recipient, link);
}

unsigned recipient_mark(const struct channel *channel)
{
	const struct recipient *recipient = recipient_of(agents_of_channel(channel), channel);
	return recipient ? recipient->name_count : 0;
}

void recipient_restore(struct channel *channel, unsigned names)
{
	const struct agents *agents = agents_of_channel(channel);
	give_names_up(post_of(agents), recipient_of(agents, channel), names);
}

/* ---- addresses ---- */

void recipient_write_address(char address[RECIPIENT_ADDRESS_BYTES], unsigned worker, uint64_t channel)
{
	snprintf(address, RECIPIENT_ADDRESS_BYTES, "@%u/%llu", worker, (unsigned long long)channel);
}

bool recipient_make_address(struct agents *agents, struct recipient *recipient)
{
	char address[RECIPIENT_ADDRESS_BYTES];
	recipient_write_address(address, post_of(agents)->worker, recipient->channel->id);
	struct names_key key = { address, strlen(address) };
	return recipient_claim(agents, recipient, key, false, &recipient->address) == NAMES_OK;
}

struct name *recipient_address(struct agents *agents, struct recipient *recipient)
{
	forget_lost(post_of(agents), recipient);
	struct name *name = recipient->names ? recipient->names : recipient->address;
	if (name)
		names_hold(name);
	return name;
}

/* ---- messages that wait ---- */

/* It is to be called, unless it is, or cannot be now. What comes for a lone one that ends is for the next. */
static void make_due(struct recipient *recipient)
{
	struct channel *channel = recipient->channel;
	bool ends = channel->lone && channel->ended;
	if (recipient->first && !channel->suspended && !ends && !wheel_armed(&recipient->node))
		wheel_list_append(&agents_of_channel(channel)->posted, &recipient->node);
}

void recipient_take(struct recipient *recipient, struct letter *letter)
{
	letter->mail.next = NULL;
	*(recipient->first ? &recipient->last->next : &recipient->first) = &letter->mail;
	recipient->last = &letter->mail;
	make_due(recipient);
}

static struct letter *recipient_shift(struct recipient *recipient)
{
	struct mail *mail = recipient->first;
	if (!mail)
		return NULL;
	recipient->first = mail->next;
	return letter_of(mail);
}

void recipient_catch_up(struct channel *channel)
{
	make_due(recipient_of(agents_of_channel(channel), channel));
}

static void drop_letters(struct post *post, struct recipient *recipient)
{
	struct letter *letter;
	while ((letter = recipient_shift(recipient)))
		post_drop(post, letter);
}

/* ---- from one generation to the next ---- */

static void log_mute(const struct agents *agents, const struct recipient *recipient)
{
	log_write(LOG_WARN, "a name is given up: the agent has no method message any more",
		  F_TEXT("name", recipient->names->key), F_INT("names", recipient->name_count),
		  F_INT("conn", recipient->channel->id), F_INT("worker", agents->instance.worker),
		  F_INT("generation", agents->instance.generation));
}

static void give_address_up(const struct post *post, struct recipient *recipient)
{
	if (recipient->address)
		names_release(post->names, recipient->address);
	names_leave(recipient->address);
	recipient->address = NULL;
}

void recipient_follow(struct channel *channel, struct agents *to)
{
	struct recipient *recipient = recipient_of(to, channel);
	wheel_disarm(&recipient->node);
	recipient->is_mute = !agent_has_method(to, channel, CALL_MESSAGE);
	if (recipient->is_mute) {
		if (recipient->names)
			log_mute(to, recipient);
		give_names_up(post_of(to), recipient, 0);
		give_address_up(post_of(to), recipient);
		drop_letters(post_of(to), recipient);
	}
	make_due(recipient);
}

/* ---- the end ---- */

static void forget_recipient(struct post *post, struct recipient *recipient)
{
	struct channel *channel = recipient->channel;
	wheel_disarm(&recipient->node);
	idmap_remove(&post->recipients, channel->id);
	free(recipient);
	channel->has_post = false;
}

/*
 * What waits for an agent without a socket is for the next of its name. Not if it has failed, or has closed in its
 * opened(): so would the next.
 */
static bool is_for_the_next(const struct channel *channel)
{
	if (!channel->lone)
		return false;
	const struct resident *resident = resident_of(channel);
	bool has_refused = resident->reason == REASON_AGENT && !resident->has_taken;
	return !has_refused && !reason_is_fault((enum close_reason)resident->reason);
}

void recipient_end(struct agents *agents, struct channel *channel)
{
	struct post *post = post_of(agents);
	struct recipient *recipient = recipient_of(agents, channel);
	wheel_disarm(&recipient->node);
	give_names_up(post, recipient, 0);
	give_address_up(post, recipient);
	if (!is_for_the_next(channel))
		drop_letters(post, recipient);
	if (recipient->taken)
		post_refuse(post, recipient->taken, LETTER_CANCELED);
	recipient->taken = NULL;
	if (!channel->lone)
		forget_recipient(post, recipient);
}

struct mail *recipient_leave(struct agents *agents, struct channel *channel)
{
	struct recipient *recipient = recipient_of(agents, channel);
	struct mail *letters = recipient ? recipient->first : NULL;
	if (recipient)
		forget_recipient(post_of(agents), recipient);
	return letters;
}

/* Nothing waits for an agent that has no name but its own: it is one of very many. */
static void let_go_of_spare(struct agents *agents, struct recipient *recipient)
{
	bool is_of_use = recipient->names || recipient->address || recipient->first || recipient->taken;
	if (recipient->channel->lone && !is_of_use && !recipient->channel->ended)
		forget_recipient(post_of(agents), recipient);
}

/* ---- calls ---- */

/* A string of the sender's, by which it is found, if it can be. */
static void push_from(lua_State *lua, const struct letter *letter)
{
	char address[RECIPIENT_ADDRESS_BYTES];
	if (letter->from) {
		lua_pushlstring(lua, letter->from->key, letter->from->len);
	} else if (letter->sender) {
		recipient_write_address(address, letter->worker, letter->sender);
		lua_pushstring(lua, address);
	} else {
		lua_pushnil(lua);
	}
}

enum { ARGUMENTS = 6 };

/* Pushes what runtime.receive() takes. False: there is no memory for it. */
static bool push_message(struct agents *agents, lua_State *co, const struct letter *letter)
{
	lua_pushlstring(co, letter->to->key, letter->to->len);
	if (!letter_push(&agents->vm, co, letter))
		return false;
	push_from(co, letter);
	lua_pushboolean(co, letter->kind == LETTER_PACKED);
	lua_pushboolean(co, letter->call != 0);
	return true;
}

static void call_message(struct agents *agents, struct recipient *recipient, struct letter *letter)
{
	struct run run;
	recipient->taken = letter;
	post_deliver(post_of(agents), letter);
	if (recipient->channel->lone)
		resident_take(resident_of(recipient->channel));
	run_begin(agents, &run, recipient->channel, CALL_MESSAGE);
	lua_rawgeti(run.co.lua, LUA_REGISTRYINDEX, agents->receive_ref);
	agent_push(agents, run.co.lua, recipient->channel);
	bool is_pushed = push_message(agents, run.co.lua, letter);
	enum outcome outcome = is_pushed ? run_enter(agents, &run, ARGUMENTS) : run_starve(agents, &run);
	if (outcome != RUN_SUSPENDED)
		recipient_finish(agents, &run, outcome);
}

/* Whoever has more to come goes to the back of the list. */
static void call_next(struct agents *agents, struct recipient *recipient)
{
	if (recipient->channel->suspended) /* recipient_catch_up() */
		return;
	if (!channel_is_open(recipient->channel)) {
		if (!recipient->channel->lone)
			drop_letters(post_of(agents), recipient);
		return;
	}
	if (recipient->channel->lone && !resident_of(recipient->channel)->begun) {
		resident_open(agents, resident_of(recipient->channel));
		make_due(recipient);
		return;
	}
	struct letter *letter = recipient_shift(recipient);
	make_due(recipient);
	call_message(agents, recipient, letter);
}

void recipients_turn(struct agents *agents)
{
	uint64_t taken = 0;
	struct wheel_node *node;
	while (taken <= host_stage_ticks(agents->host) && (node = wheel_pop(&agents->posted))) {
		struct recipient *recipient = (struct recipient *)(void *)node;
		const struct channel *channel = recipient->channel;
		taken -= channel->handler_ticks;
		call_next(agents, recipient);
		taken += channel->handler_ticks;
	}
}

/* ---- results ---- */

enum { AT_PACKED = 1, AT_REPLY }; /* of what runtime.receive() returns; then the action */

/* The reply lies on the coroutine until run_end(). */
static void send_reply(struct post *post, lua_State *co, struct letter *letter)
{
	struct letter_value value;
	bool is_packed = lua_toboolean(co, AT_PACKED);
	if (!letter->call) {
		letter_free(letter);
		return;
	}
	letter_read(co, AT_REPLY, &value);
	if (is_packed)
		value.kind = LETTER_PACKED;
	if (value.len > LETTER_BYTES_MAX || (is_packed && !value.data))
		post_refuse(post, letter, LETTER_OVERSIZE);
	else
		post_reply(post, letter, &value);
}

void recipient_finish(struct agents *agents, struct run *run, enum outcome outcome)
{
	struct post *post = post_of(agents);
	struct recipient *recipient = recipient_of(agents, run->channel);
	struct letter *letter = recipient->taken;
	recipient->taken = NULL;
	bool failed = outcome == RUN_FAILED || !reply_take_action(agents, run, AT_REPLY);
	if (failed) {
		post_refuse(post, letter, LETTER_CANCELED);
		fault_raise(agents, run);
	} else {
		send_reply(post, run->co.lua, letter);
	}
	run_end(agents, run, outcome == RUN_FAILED);
	let_go_of_spare(agents, recipient);
}
