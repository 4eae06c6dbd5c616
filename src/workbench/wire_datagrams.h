/*
 * A wire of datagrams: a connection out over UDP, and the flow that another app has of it. Each datagram goes its own
 * way. It arrives or is lost, later ones may overtake it, and nobody is told: nothing connects, ends or resets. Where
 * nobody listens a machine says so (ICMP), if it is there. The flow begins with the first datagram that comes to a
 * listener, ends when its app likes, and begins anew with the next one.
 *
 * Threads: one owner.
 */
#pragma once

#include "workbench/wire.h"

/* All that this end has written is on its way, or lost. */
void wire_datagrams_post(struct wire *wire, enum way way);

/* As wire_carry() and wire_next_ms(), which call these. */
bool wire_datagrams_carry(struct wire *wire);
uint64_t wire_datagrams_next_ms(const struct wire *wire);
