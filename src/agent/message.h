/*
 * How Lua sees the messages of a protocol, and what it may reply with: struct protocol's `messages`.
 *
 * Threads: immutable.
 */
#pragma once

#include "agent/agent.h"

struct run;

struct message_kind {
	/*
	 * Pushes messages 0 .. count - 1 of a batch on lua, one value each, or `more`. MAY RAISE where vm_may_push()
	 * forbids it, but for values.
	 */
	void (*push)(struct agents *agents, lua_State *lua, const struct batch *batch, unsigned count);

	/* The compiled loop that hands several of them to the handler: a reference. */
	int (*loop)(const struct agent_endpoint *endpoint);

	/* As reply_send(), of any value. NULL: replies are strings, numbers, views, lists of them. */
	bool (*send)(struct agents *agents, struct channel *channel, lua_State *lua, int idx, bool *below);

	/*
	 * What a callback of `run` has returned at idx, and its action behind it, where that is more than a reply: NULL.
	 * False with an error message pushed.
	 */
	bool (*answer)(struct agents *agents, struct run *run, lua_State *lua, int idx);

	/* Pushes what the peer has said of its end, for closed() behind the reason: how many values. NULL: none. */
	int (*push_end)(lua_State *lua, const struct channel *channel);

	uint8_t more; /* values that are pushed for a message beside its first; then it is handed up alone */
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
