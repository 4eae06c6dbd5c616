/*
 * Decides whether a new connection may come in: the total limit, the limit per
 * address, and the rate of accepts.
 *
 * Leaf: knows neither sockets nor Lua; time is an argument.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct sockaddr;

/* ---- who is who ---- */

/* What "one client" means: an IPv4 address (IPv4-mapped IPv6 too), an IPv6 /64, or everyone on a
 * Unix socket (which per-address limits do not touch: `counted` is false). */
struct peer_key {
	uint64_t bits;
	uint8_t family; /* 4, 6, 7 (of one link) or 0 */
	bool counted;
};

/* NULL and any other family are taken for a Unix socket. */
struct peer_key peer_key_of(const struct sockaddr *addr);

/* ---- connections per peer ---- */

/*
 * Connections per peer key: open addressing, grows and shrinks with the peers present, bytes
 * bounded by the connections open. Any thread: one short lock, taken on accept and close, and
 * only when a limit per address is configured; an exact limit is worth more than a lock-free
 * approximation. A key that is not `counted` always enters and leaves no trace.
 */
struct peer_table;

struct peer_table *peer_table_new(void);        /* NULL: no memory */
void peer_table_free(struct peer_table *table); /* NULL is fine */

/* Counts one more connection of key unless that would pass `limit` (then false, nothing counted).
 * No memory counts as refused. */
bool peer_table_enter(struct peer_table *table, struct peer_key key, uint32_t limit);

/* Takes back what peer_table_enter() counted; a leave without its enter is a bug, and asserted. */
void peer_table_leave(struct peer_table *table, struct peer_key key);

/* How many connections key has now. */
uint32_t peer_table_count(struct peer_table *table, struct peer_key key);

/* How many different keys are present. */
size_t peer_table_size(struct peer_table *table);

/*
 * The limit that keeps a client out ("connections", "per_ip"), or NULL: it has entered `peers`. There `per_ip` 0 is no
 * limit: they are counted all the same, since those who enter leave. NULL: nobody counts.
 */
const char *admission_limit(uint32_t open, uint32_t connections, struct peer_table *peers,
			    struct peer_key key, uint32_t per_ip);

/* ---- accepts a second ---- */

/* A token bucket: per_second tokens a second, bursts of as many (one at least, so that 0.5 a second
 * can be). Starts full. One thread. */
struct rate {
	double per_second; /* 0: no limit */
	double tokens;
	uint64_t filled_ms;
};

void rate_init(struct rate *rate, double per_second, uint64_t now_ms);

/* Takes a token if there is one. */
bool rate_take(struct rate *rate, uint64_t now_ms);

/* Milliseconds until rate_take() can succeed, exactly; 0: now. */
uint64_t rate_wait_ms(const struct rate *rate, uint64_t now_ms);
