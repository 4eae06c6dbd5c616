#include "net/networks.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAPPED_BITS = 96, ALL_BITS = 128 };

/* "" is all of them. */
static bool read_prefix(const char *text, unsigned most, uint8_t *bits)
{
	char *end;
	if (!*text) {
		*bits = (uint8_t)most;
		return true;
	}
	if (text[0] != '/' || text[1] < '0' || text[1] > '9')
		return false;
	unsigned long value = strtoul(text + 1, &end, 10);
	*bits = (uint8_t)value;
	return !*end && value <= most;
}

bool network_read(const char *text, struct network *network)
{
	char host[INET6_ADDRSTRLEN];
	size_t n = strcspn(text, "/");
	*network = (struct network){ 0 };
	if (n >= sizeof host)
		return false;
	memcpy(host, text, n);
	host[n] = '\0';
	if (inet_pton(AF_INET6, host, &network->address) == 1)
		return !IN6_IS_ADDR_V4MAPPED(&network->address) && /* peers of IPv4 are in networks of IPv4 */
		       read_prefix(text + n, ALL_BITS, &network->prefix_bits);
	network->is_ipv4 = true;
	network->address = (struct in6_addr){ 0 };
	network->address.s6_addr[10] = network->address.s6_addr[11] = 0xff;
	if (inet_pton(AF_INET, host, &network->address.s6_addr[12]) != 1 ||
	    !read_prefix(text + n, ALL_BITS - MAPPED_BITS, &network->prefix_bits))
		return false;
	network->prefix_bits = (uint8_t)(network->prefix_bits + MAPPED_BITS);
	return true;
}

static bool has(const struct network *network, const struct in6_addr *address)
{
	unsigned bytes = network->prefix_bits / 8, bits = network->prefix_bits % 8;
	const uint8_t *a = network->address.s6_addr, *b = address->s6_addr;
	return !memcmp(a, b, bytes) && (!bits || !((a[bytes] ^ b[bytes]) >> (8 - bits)));
}

bool networks_have(const struct networks *networks, const struct sockaddr_in6 *peer)
{
	if (peer->sin6_family != AF_INET6)
		return networks->has_unix;
	bool is_ipv4 = IN6_IS_ADDR_V4MAPPED(&peer->sin6_addr);
	for (unsigned i = 0; i < networks->count; i++)
		if (networks->list[i].is_ipv4 == is_ipv4 && has(&networks->list[i], &peer->sin6_addr))
			return true;
	return false;
}
