#include "hub/message.h"

#include <stdlib.h>
#include <string.h>

static char *put_part(char *to, const char *bytes, size_t len, const char **place)
{
	*place = to;
	if (len)
		memcpy(to, bytes, len);
	to[len] = '\0';
	return to + len + 1;
}

/* FNV-1a: it only spares a comparison. */
static uint64_t hash_key(const char *key, size_t len)
{
	uint64_t hash = UINT64_C(0xcbf29ce484222325);
	for (size_t i = 0; i < len; i++)
		hash = (hash ^ (unsigned char)key[i]) * UINT64_C(0x100000001b3);
	return hash;
}

static size_t message_bytes_for(size_t topic_len, size_t key_len, size_t len, unsigned workers)
{
	return sizeof(struct hub_message) + workers * sizeof(struct hub_mail) + topic_len + key_len + len + 3;
}

struct hub_message *hub_message_new(const struct hub_draft *draft, unsigned workers, atomic_size_t *alive)
{
	struct hub_message *message =
	    malloc(message_bytes_for(draft->topic_len, draft->key_len, draft->len, workers));
	if (!message)
		return NULL;
	*message = (struct hub_message){ .len = (uint32_t)draft->len,
					 .sender = draft->sender,
					 .key_hash = hash_key(draft->key, draft->key_len),
					 .from = draft->from,
					 .worker = (uint16_t)draft->worker,
					 .topic_len = (uint8_t)draft->topic_len,
					 .key_len = (uint8_t)draft->key_len,
					 .kind = (uint8_t)draft->kind,
					 .skips_sender = draft->skips_sender };
	atomic_init(&message->refs, 1);
	message->alive = alive;
	char *at = (char *)&message->mails[workers];
	at = put_part(at, draft->topic, draft->topic_len, &message->topic);
	at = put_part(at, draft->key, draft->key_len, &message->key);
	put_part(at, draft->data, draft->len, &message->data);
	atomic_fetch_add_explicit(alive, hub_message_bytes(message), memory_order_relaxed);
	return message;
}

size_t hub_message_bytes(const struct hub_message *message)
{
	return message_bytes_for(message->topic_len, message->key_len, message->len, 1);
}

/* What others have read of it happens before it is freed. */
void hub_message_drop(struct hub_message *message)
{
	if (atomic_fetch_sub_explicit(&message->refs, 1, memory_order_acq_rel) != 1)
		return;
	atomic_fetch_sub_explicit(message->alive, hub_message_bytes(message), memory_order_relaxed);
	names_leave(message->from);
	free(message);
}

bool hub_message_has_key_of(const struct hub_message *message, const struct hub_message *other)
{
	return message->key_hash == other->key_hash && message->key_len == other->key_len &&
	       message->topic_len == other->topic_len && !memcmp(message->key, other->key, other->key_len) &&
	       !memcmp(message->topic, other->topic, other->topic_len);
}
