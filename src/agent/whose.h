/*
 * Whom a log entry is about: a client's connection, an agent without a socket, or nobody, where it is the app's.
 *
 * Threads: the one that has the channel.
 */
#pragma once

#include "agent/agent.h"
#include "base/log.h"
#include "conn/peer.h"

/* Fields that do not apply are left out of the log. They are as long there as the channel is. */
struct whose {
	struct log_field conn, peer, listener, agent;
	char peer_text[PEER_TEXT_BYTES];
};

void whose(const struct channel *channel, struct whose *whose);
