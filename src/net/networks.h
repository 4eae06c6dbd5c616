/*
 * Lists of hosts and networks: "10.0.0.0/8", "2001:db8::1", "unix".
 *
 * Leaf; a list may be read by any thread.
 */
#pragma once

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>

struct network {
	struct in6_addr address; /* IPv4 is mapped */
	uint8_t prefix_bits;     /* of these 128 */
	bool is_ipv4;
};

struct networks {
	struct network *list;
	unsigned count;
	bool has_unix; /* Unix sockets */
};

/* "10.0.0.7", "10.0.0.0/8", "2001:db8::/32"; what is behind the prefix does not matter. False: it is none. */
bool network_read(const char *text, struct network *network);

/* As connections keep their peers: IPv4 is mapped, and AF_UNIX has no address. No network of IPv6 has IPv4 in it. */
bool networks_have(const struct networks *networks, const struct sockaddr_in6 *peer);
