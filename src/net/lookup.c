#include "net/lookup.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { DISCARD_PORT = 9 }; /* any will do: connecting a UDP socket sends nothing */

struct candidate {
	union address address;
	bool is_taken;
	bool is_routed; /* known: whether it has a route */
	bool has_route;
};

/* ---- what is known ---- */

static bool is_known(const struct lookup *lookup, const union address *address)
{
	for (unsigned i = 0; i < lookup->count; i++)
		if (address_is_same(&lookup->candidates[i].address, address))
			return true;
	return false;
}

/* False: no memory. */
static bool add_candidates(struct lookup *lookup, const union address *list, unsigned count)
{
	struct candidate *grown =
	    realloc(lookup->candidates, (lookup->count + count) * sizeof *lookup->candidates);
	if (!grown)
		return false;
	lookup->candidates = grown;
	for (unsigned i = 0; i < count; i++) {
		struct candidate candidate = { .address = list[i] };
		address_set_port(&candidate.address, lookup->port);
		if (!is_known(lookup, &candidate.address))
			lookup->candidates[lookup->count++] = candidate;
	}
	return true;
}

/* Where a socket cannot be had, connecting is to tell. */
static bool find_route(const union address *to)
{
	union address probe = *to;
	int fd = socket(to->any.sa_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return errno != EAFNOSUPPORT;
	address_set_port(&probe, DISCARD_PORT);
	bool has_route = !connect(fd, &probe.any, address_bytes(&probe));
	close(fd);
	return has_route;
}

/* A smaller one is tried earlier. */
static unsigned rank_of(const struct lookup *lookup, const struct candidate *candidate)
{
	bool is_same_family = candidate->address.any.sa_family == lookup->last_family;
	return (candidate->has_route ? 0u : 2u) + (is_same_family ? 1u : 0u);
}

/* One that is alone needs no rank, and so no look at routes. */
static void rank_candidates(struct lookup *lookup)
{
	if (lookup->count - lookup->taken < 2)
		return;
	for (unsigned i = 0; i < lookup->count; i++) {
		struct candidate *candidate = &lookup->candidates[i];
		if (candidate->is_routed || candidate->is_taken)
			continue;
		candidate->is_routed = true;
		candidate->has_route = find_route(&candidate->address);
	}
}

bool lookup_take(struct lookup *lookup, union address *address)
{
	struct candidate *best = NULL;
	rank_candidates(lookup);
	for (unsigned i = 0; i < lookup->count; i++) {
		struct candidate *candidate = &lookup->candidates[i];
		if (!candidate->is_taken && (!best || rank_of(lookup, candidate) < rank_of(lookup, best)))
			best = candidate;
	}
	if (!best)
		return false;
	best->is_taken = true;
	lookup->taken++;
	lookup->last_family = best->address.any.sa_family;
	*address = best->address;
	return true;
}

/* ---- asking ---- */

/* That one family has no address says less than anything else. */
static void note_err(struct lookup *lookup, int err)
{
	if (!lookup->err || (err && lookup->err == UV_EAI_NODATA))
		lookup->err = err;
}

static void on_family(struct lookup *lookup, enum lookup_family family, int err, const union address *list,
		      unsigned count)
{
	lookup->asks[family] = NULL;
	if (!err && !add_candidates(lookup, list, count))
		err = UV_ENOMEM;
	note_err(lookup, err);
	lookup->answered(lookup, family);
}

static void on_ipv6(void *data, int err, const union address *list, unsigned count)
{
	on_family(data, LOOKUP_IPV6, err, list, count);
}

static void on_ipv4(void *data, int err, const union address *list, unsigned count)
{
	on_family(data, LOOKUP_IPV4, err, list, count);
}

int lookup_begin(struct lookup *lookup, struct resolver *resolver, const char *host, int family,
		 uint16_t port, void (*answered)(struct lookup *lookup, enum lookup_family family))
{
	*lookup = (struct lookup){ .answered = answered, .last_family = AF_INET, .port = port };
	if (family != AF_INET)
		lookup->asks[LOOKUP_IPV6] = resolver_ask(resolver, host, AF_INET6, on_ipv6, lookup);
	if (family != AF_INET6)
		lookup->asks[LOOKUP_IPV4] = resolver_ask(resolver, host, AF_INET, on_ipv4, lookup);
	if ((family == AF_INET || lookup->asks[LOOKUP_IPV6]) &&
	    (family == AF_INET6 || lookup->asks[LOOKUP_IPV4]))
		return 0;
	lookup_end(lookup);
	return UV_ENOMEM;
}

void lookup_end(struct lookup *lookup)
{
	for (int i = 0; i < LOOKUP_FAMILIES; i++) {
		if (lookup->asks[i])
			resolver_cancel(lookup->asks[i]);
		lookup->asks[i] = NULL;
	}
	free(lookup->candidates);
	lookup->candidates = NULL;
	lookup->count = lookup->taken = 0;
}
