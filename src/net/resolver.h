/*
 * Names to addresses, without blocking: the hosts file, DNS servers, and a cache of what they have said.
 *
 * An answer is kept as long as its TTL says, but 1 s at least and 5 min at most; a failure 1 s. Who asks for what is
 * being asked already joins in. The question goes on when nobody waits for it any more: the cache has its answer.
 * IPv4 and IPv6 are two questions, so that who has one answer need not wait for the other (RFC 8305, section 3).
 * resolv.conf(5) and hosts(5) are looked at once a second, when somebody asks: if one has changed, the cache is empty.
 *
 * Until the first name it has neither sockets nor c-ares. Threads: the poller's.
 */
#pragma once

#include "net/address.h"
#include "net/dns.h"
#include "net/poller.h"

enum {
	RESOLVER_NAME_MAX = 253,     /* bytes of a name, without the dot at its end */
	RESOLVER_CACHED_MAX = 1024,  /* answers; the least recently used are dropped */
	RESOLVER_PENDING_MAX = 4096, /* questions under way: c-ares has 16 bits to tell them apart */
};

struct resolver;
struct resolver_ask;

/* Copied. All zero is what a server wants; the rest is for tests. */
struct resolver_settings {
	struct dns_settings dns;
	const char *hosts_path; /* NULL: /etc/hosts */
};

/*
 * `list`, of at least one unless there is an error, is there until it returns; ports are 0. It may do anything with the
 * resolver, and even free it. Errors: UV_EAI_NONAME (there is no such name), UV_EAI_NODATA (it has no address of that
 * family), UV_EAI_AGAIN (no server has an answer, or too much is being asked), UV_ETIMEDOUT, UV_EINVAL (that is no
 * name), UV_ENOMEM, or what the system says.
 */
typedef void (*resolver_done)(void *data, int err, const union address *list, unsigned count);

/* NULL: no memory. `settings`: NULL for none. */
struct resolver *resolver_new(struct poller *poller, const struct resolver_settings *settings);

/* Calls nobody back. The memory is freed by poller_forget() and the loop's next turn. NULL is fine. */
void resolver_free(struct resolver *resolver);

/*
 * `family`: AF_INET or AF_INET6. An address instead of a name is its own answer. `done` is called once, by the poller's
 * loop, never from within here. NULL: no memory.
 */
struct resolver_ask *resolver_ask(struct resolver *resolver, const char *name, int family, resolver_done done,
				  void *data);

/* Before `done` is called. It will not be. */
void resolver_cancel(struct resolver_ask *ask);

/* For tests: the cache is so much older. */
void resolver_skip(struct resolver *resolver, uint64_t ms);
