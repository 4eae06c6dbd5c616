/*
 * A message to a topic, on its way: one allocation, which all workers that have members share. It is immutable.
 *
 * Threads: any. Whoever lets go last frees it.
 */
#pragma once

#include "base/mailbox.h"
#include "names/names.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { HUB_MESSAGE_BYTES_MAX = 1 << 20, HUB_KEY_BYTES_MAX = 255 };

enum hub_kind {
	HUB_TEXT,
	HUB_BINARY, /* a WebSocket gets a binary message */
	HUB_JSON,   /* the text of a table: an agent gets the table */
};

struct hub_message;

/* It lies in the box of one worker. */
struct hub_mail {
	struct mail mail; /* first */
	struct hub_message *message;
};

struct hub_message {
	atomic_uint refs;
	uint32_t len;         /* of the data */
	uint64_t sender;      /* the channel of who has published it; 0: nobody's */
	uint64_t key_hash;    /* of the key */
	atomic_size_t *alive; /* bytes of all messages that are held, this one's among them */
	struct name *from;    /* held: the sender's, or NULL */
	const char *topic;    /* as are the next two, in here; a 0 behind each */
	const char *key;      /* which messages replace each other where `latest` is wanted */
	const char *data;
	uint16_t worker; /* the sender's */
	uint8_t topic_len, key_len;
	uint8_t kind;        /* enum hub_kind */
	bool skips_sender;   /* it is for the others */
	uint16_t mail_count; /* used so far */
	struct hub_mail mails[];
};

/* What a message is made of. */
struct hub_draft {
	const char *topic, *key, *data;
	size_t topic_len, key_len, len;
	enum hub_kind kind;
	bool skips_sender;
	uint64_t sender;
	unsigned worker;
	struct name *from; /* held, and the message's from then on; or NULL */
};

/* For so many workers; held once, and counted in *alive as long as it is. NULL: there is no memory. */
struct hub_message *hub_message_new(const struct hub_draft *draft, unsigned workers, atomic_size_t *alive);

/* What it takes in memory. */
size_t hub_message_bytes(const struct hub_message *message);

static inline void hub_message_hold(struct hub_message *message)
{
	atomic_fetch_add_explicit(&message->refs, 1, memory_order_relaxed);
}

void hub_message_drop(struct hub_message *message);

/* Do they replace each other? */
bool hub_message_has_key_of(const struct hub_message *message, const struct hub_message *other);
