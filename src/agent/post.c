#include "agent/post.h"

#include "agent/call.h"
#include "agent/recipient.h"
#include "agent/resident.h"
#include "base/ticks.h"

#include <stdlib.h>

/* ---- the beginning and the end ---- */

void post_open(struct post *post, struct names *names, struct conn_host *host, unsigned worker)
{
	*post = (struct post){ .names = names, .counters = host->counters, .worker = worker };
	post->come_end = &post->come;
	idmap_init(&post->recipients);
	idmap_init(&post->calls);
	host->post = post;
}

/* ---- room ---- */

/* Its bytes count for the worker that it is on its way to. False: that has too many. */
static bool post_reserve(struct post *post, struct letter *letter, unsigned worker)
{
	size_t bytes = letter_bytes(letter->room);
	if (!names_reserve(post->names, worker, bytes))
		return false;
	letter->reserved = bytes;
	return true;
}

static void post_refund(struct post *post, struct letter *letter, unsigned worker)
{
	if (letter->reserved)
		names_return(post->names, worker, letter->reserved);
	letter->reserved = 0;
}

/* ---- on the way ---- */

static void add_mail(struct post *post, struct mail *mail)
{
	mail->next = NULL;
	*post->come_end = mail;
	post->come_end = &mail->next;
}

/* One of the worker's own that is no message: whom it is for may be running. */
static void post_give(struct post *post, struct letter *letter, unsigned worker)
{
	if (worker == post->worker)
		add_mail(post, &letter->mail);
	else
		names_post(post->names, worker, &letter->mail);
}

/* ---- replies ---- */

/* Back to whom the message was from. */
static void send_back(struct post *post, struct letter *letter, enum letter_about about)
{
	letter_leave_names(letter);
	letter->about = (uint8_t)about;
	post_give(post, letter, letter->worker);
}

void post_refuse(struct post *post, struct letter *letter, enum letter_about why)
{
	if (!letter->call) {
		letter_free(letter);
		return;
	}
	const struct letter_value nothing = { .kind = LETTER_NIL };
	letter_say(letter, &nothing); /* it has room for that */
	send_back(post, letter, why);
}

void post_reply(struct post *post, struct letter *letter, const struct letter_value *value)
{
	if (!letter->call) {
		letter_free(letter);
		return;
	}
	struct letter *reply = letter_say(letter, value); /* the letter is gone then, or it is this one */
	if (!reply)
		post_refuse(post, letter, LETTER_NO_MEMORY);
	else if (!post_reserve(post, reply, reply->worker))
		post_refuse(post, reply, LETTER_NO_ROOM);
	else
		send_back(post, reply, LETTER_REPLY);
}

/* ---- messages ---- */

/* Its agent will not get it from the post again. */
static void leave_line(struct post *post, struct letter *letter)
{
	post_refund(post, letter, letter->to->worker);
	names_taken(letter->to);
}

void post_deliver(struct post *post, struct letter *letter)
{
	leave_line(post, letter);
	count(&post->counters->messages_delivered);
}

void post_drop(struct post *post, struct letter *letter)
{
	leave_line(post, letter);
	if (letter->to->kind)
		names_release_unused(post->names, letter->to);
	count(&post->counters->messages_dropped);
	post_refuse(post, letter, LETTER_CANCELED);
}

void post_take(struct post *post, struct letter *letter)
{
	struct name *to = letter->to;
	struct recipient *recipient =
	    to->kind ? resident_recipient(post, letter) : idmap_get(&post->recipients, to->channel);
	if (recipient && (to->kind || channel_is_open(recipient->channel)))
		recipient_take(recipient, letter);
	else
		post_drop(post, letter);
}

/* ---- sending ---- */

/* A call of an agent's that its own message() would have to answer, while it waits. */
static bool waits_for_itself(const struct post *post, const struct agents *agents, const struct channel *by,
			     const struct name *to)
{
	return to->worker == post->worker && to->channel && to->channel == by->id && agents->current &&
	       !agents->current->is_task;
}

/* What names_find() has counted. */
static enum post_error unsend(const struct post *post, struct name *to, enum post_error error)
{
	names_taken(to);
	if (to->kind)
		names_release_unused(post->names, to);
	names_leave(to);
	return error;
}

static enum post_error post_error_of(enum names_error error)
{
	switch (error) {
	case NAMES_ABSENT:
		return POST_ABSENT;
	case NAMES_BUSY:
		return POST_BUSY;
	case NAMES_CROWDED:
		return POST_CROWDED;
	default:
		return POST_NO_MEMORY;
	}
}

static void sign_letter(struct post *post, struct letter *letter, struct agents *agents,
			const struct channel *by)
{
	struct recipient *recipient = by->lone ? NULL : recipient_of(agents, by);
	letter->worker = (uint16_t)post->worker;
	letter->sender = by->id;
	letter->is_last_word = by->lone && by->ended;
	letter->from = by->lone    ? resident_address(by)
		       : recipient ? recipient_address(agents, recipient)
				   : NULL;
}

/* Of a kind of agents without a socket there is each one, as soon as somebody sends to it. */
static enum names_error find_or_make(struct post *post, const struct agents *agents, struct names_key key,
				     struct name **to)
{
	struct names_birth birth;
	enum names_error error = names_find(post->names, key, NULL, to);
	if (error == NAMES_ABSENT && residents_birth(agents, key, &birth))
		error = names_find(post->names, key, &birth, to);
	return error;
}

enum post_error post_send(struct agents *agents, const struct channel *by, struct names_key key,
			  const struct letter_value *value, struct call *call)
{
	struct post *post = post_of(agents);
	struct name *to;
	enum names_error error = find_or_make(post, agents, key, &to);
	if (error)
		return post_error_of(error);
	if (call && waits_for_itself(post, agents, by, to))
		return unsend(post, to, POST_DEADLOCK);
	struct letter *letter = letter_new(to, value);
	if (!letter)
		return unsend(post, to, POST_NO_MEMORY);
	if (!post_reserve(post, letter, to->worker)) {
		free(letter);
		return unsend(post, to, POST_FULL);
	}
	sign_letter(post, letter, agents, by);
	if (call)
		call_sign(call, letter);
	count(&post->counters->messages_sent);
	if (to->worker == post->worker)
		post_take(post, letter);
	else
		names_post(post->names, to->worker, &letter->mail);
	return POST_OK;
}

/* ---- what comes ---- */

static void look_at(struct post *post, struct letter *letter)
{
	if (letter->about == LETTER_MESSAGE) {
		post_take(post, letter);
		return;
	}
	post_refund(post, letter, post->worker);
	call_answer(post, letter);
	letter_free(letter);
}

static struct mail *shift(struct post *post)
{
	struct mail *mail = post->come;
	if (!mail)
		return NULL;
	post->come = mail->next;
	if (!post->come)
		post->come_end = &post->come;
	return mail;
}

static void empty_box(struct post *post)
{
	for (struct mail *next, *mail = names_collect(post->names, post->worker); mail; mail = next) {
		next = mail->next;
		add_mail(post, mail);
	}
}

bool post_has_mail(const struct post *post)
{
	return post->come || names_has_mail(post->names, post->worker);
}

bool post_collect(struct post *post)
{
	enum { AT_ONCE = 64 }; /* before the clock is looked at */
	struct mail *mail = NULL;
	if (!post_has_mail(post))
		return false;
	uint64_t began = ticks_now();
	empty_box(post);
	do {
		for (int i = 0; i < AT_ONCE && (mail = shift(post)); i++)
			look_at(post, letter_of(mail));
	} while (mail && ticks_now() - began <= CONN_TICKS_PER_STAGE);
	return post->come;
}

/* ---- the end ---- */

/* `answers`: agents of other workers may still wait for replies. */
static void drop_all(struct post *post, bool answers)
{
	struct mail *mail;
	empty_box(post);
	while ((mail = shift(post))) {
		struct letter *letter = letter_of(mail);
		if (letter->about != LETTER_MESSAGE) {
			post_refund(post, letter, post->worker);
			letter_free(letter);
			continue;
		}
		if (!answers || letter->worker == post->worker)
			letter->call = 0;
		post_drop(post, letter);
	}
}

void post_close(struct post *post)
{
	names_close_box(post->names, post->worker);
	drop_all(post, true);
	idmap_deinit(&post->recipients);
	idmap_deinit(&post->calls);
}

void post_drop_rest(struct post *post)
{
	if (post->names) /* else it was never opened */
		drop_all(post, false);
}
