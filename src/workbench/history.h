/*
 * What has happened on a network of apps in memory: a line for each event, with its time, the latest so many.
 *
 * Threads: one owner.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	HISTORY_LINES = 5000, /* that are kept */
	HISTORY_SHOWN = 48,   /* bytes of what went along a connection that a line shows */
};

struct history {
	char **lines; /* a ring; NULL: there has been no event */
	size_t count; /* of all events; the line of event i is at i % HISTORY_LINES */
	size_t lost;  /* for want of memory */
};

void history_deinit(struct history *history);

/* One more event, so much after the beginning. */
void history_add(struct history *history, uint64_t at_ms, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Bytes as a line shows them: in quotes, escaped, the first of them and how many there are. */
struct history_bytes {
	char text[4 * HISTORY_SHOWN + 64];
};
const char *history_show(struct history_bytes *shown, const void *bytes, size_t n);

/*
 * The same of a connection's bytes, whose answers say whether it becomes a WebSocket (*is_websocket, false at first).
 * What its client sends is masked then: whole frames are shown as they are without the mask.
 */
const char *history_show_way(struct history_bytes *shown, bool *is_websocket, bool is_answer,
			     const void *bytes, size_t n);

/* How many lines are kept; the i-th of them, from 0 on, the oldest first. */
size_t history_kept(const struct history *history);
const char *history_line(const struct history *history, size_t i);
