/*
 * How Lua sees the messages of a protocol, and what it may reply with: struct protocol's `messages`.
 *
 * Threads: immutable.
 */
#pragma once

#include "agent/agent.h"

struct message_kind {
	/*
	 * Pushes messages 0 .. count - 1 of a batch on lua, one value each. MAY RAISE where vm_may_push() forbids it, but
	 * for values.
	 */
	void (*push)(struct agents *agents, lua_State *lua, const struct batch *batch, unsigned count);

	/* The compiled loop that hands several of them to the handler: a reference. */
	int (*loop)(const struct agent_endpoint *endpoint);

	/* As reply_send(), of any value. NULL: replies are strings, numbers, views, lists of them. */
	bool (*send)(struct agents *agents, struct channel *channel, lua_State *lua, int idx, bool *below);

	bool are_views; /* handlers get views: nothing is pushed, the loop has the batch */
	/* A codec in Lua has made them, each with a second value. They are in the VM already: AT_VALUES, AT_METAS. */
	bool are_values;
};

extern const struct message_kind MESSAGE_STRINGS, /* in one piece each */
    MESSAGE_PARTS,                 /* bytes before a length field, and behind it: struct codec's `offset` */
    MESSAGE_VIEWS, MESSAGE_VALUES, /* of a codec in Lua */
    MESSAGE_VALUES_ENCODED;        /* of one that encodes, too */

static inline const struct message_kind *messages_of(const struct channel *channel)
{
	return conn_speaks(channel->conn)->messages;
}
