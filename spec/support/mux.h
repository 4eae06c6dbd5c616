/*
 * A protocol of channels for tests: it has a session, answers of its own, a last word, and keeps what comes for
 * channels that take nothing.
 *
 * On the wire a unit is the number of a channel, a kind, a length, each a byte, and so many bytes:
 *   'm' a message · 'e' no more of it comes in this channel · '?' a question, which is answered by '!' and its bytes.
 */
#pragma once

#include "proto/protocol.h"

enum { MUX_CHANNELS = 256, MUX_KEPT_MAX = 64, MUX_HEAD_BYTES = 3, MUX_MESSAGE_MAX = 255 };

extern const struct protocol MUX;

/* How many sessions there are. */
extern unsigned mux_sessions;

/* The next session cannot begin, for want of memory. */
extern bool mux_fails;

/* Writes a unit to `to`; returns how many bytes it has. */
size_t mux_unit(void *to, unsigned channel, char kind, const void *bytes, size_t n);
