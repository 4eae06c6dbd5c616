/*
 * The addresses of one host, in the order in which connections to it are tried (RFC 8305, section 4): IPv6 and IPv4 by
 * turns, IPv6 first, and last those to which this machine has no route (RFC 6724, rule 1 of section 6). The families
 * are asked for apart: what one has is there before the other answers.
 *
 * Threads: the resolver's.
 */
#pragma once

#include "net/address.h"
#include "net/resolver.h"

enum lookup_family { LOOKUP_IPV6, LOOKUP_IPV4, LOOKUP_FAMILIES };

struct candidate;

/* Embedded in whatever looks a host up. */
struct lookup {
	struct resolver_ask *asks[LOOKUP_FAMILIES]; /* NULL: not asked, or answered */

	/* Each family has an answer of its own. It may end the lookup. */
	void (*answered)(struct lookup *lookup, enum lookup_family family);

	struct candidate *candidates;
	unsigned count, taken;
	int last_family; /* of the candidate that was taken last */
	int err;
	uint16_t port;
};

/*
 * `family`: AF_INET, AF_INET6, or AF_UNSPEC for both. 0 or UV_ENOMEM; then nothing is to be ended. `host` is read
 * within the call only; nothing is answered before it returns.
 */
int lookup_begin(struct lookup *lookup, struct resolver *resolver, const char *host, int family,
		 uint16_t port, void (*answered)(struct lookup *lookup, enum lookup_family family));

/* Whatever it is waiting for. */
void lookup_end(struct lookup *lookup);

/* Takes the next of those that are known. False: all are taken. */
bool lookup_take(struct lookup *lookup, union address *address);

/* Are there any that are not taken? */
static inline bool lookup_has_more(const struct lookup *lookup)
{
	return lookup->taken < lookup->count;
}

static inline bool lookup_is_pending(const struct lookup *lookup)
{
	return lookup->asks[LOOKUP_IPV6] || lookup->asks[LOOKUP_IPV4];
}

/* Once it is not pending any more, and has found nothing: why. */
static inline int lookup_err(const struct lookup *lookup)
{
	return lookup->err;
}
