#include "net/address.h"

#include <arpa/inet.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* "%eth0", or its number where it has no name; "" of an address that needs none. */
static const char *zone_text(uint32_t scope, char zone[IF_NAMESIZE + 1])
{
	*zone = '\0';
	if (!scope)
		return zone;
	*zone = '%';
	if (!if_indextoname(scope, zone + 1))
		snprintf(zone, IF_NAMESIZE + 1, "%%%u", scope);
	return zone;
}

static void ipv4_text(const void *address, in_port_t port, char *text, size_t size)
{
	char host[INET_ADDRSTRLEN];
	inet_ntop(AF_INET, address, host, sizeof host);
	snprintf(text, size, "%s:%u", host, ntohs(port));
}

static void ipv6_text(const struct sockaddr_in6 *in6, char *text, size_t size)
{
	char host[INET6_ADDRSTRLEN], zone[IF_NAMESIZE + 1];
	if (IN6_IS_ADDR_V4MAPPED(&in6->sin6_addr)) {
		ipv4_text(&in6->sin6_addr.s6_addr[12], in6->sin6_port, text, size);
		return;
	}
	inet_ntop(AF_INET6, &in6->sin6_addr, host, sizeof host);
	snprintf(text, size, "[%s%s]:%u", host, zone_text(in6->sin6_scope_id, zone), ntohs(in6->sin6_port));
}

const char *address_text(const struct sockaddr *address, char *text, size_t size)
{
	struct sockaddr_in in;
	struct sockaddr_in6 in6;
	switch (address->sa_family) {
	case AF_INET:
		memcpy(&in, address, sizeof in); /* struct sockaddr promises less alignment */
		ipv4_text(&in.sin_addr, in.sin_port, text, size);
		break;
	case AF_INET6:
		memcpy(&in6, address, sizeof in6);
		ipv6_text(&in6, text, size);
		break;
	default:
		snprintf(text, size, "unix");
		break;
	}
	return text;
}

const char *address_host(const union address *address, char *text, size_t size)
{
	char host[INET6_ADDRSTRLEN], zone[IF_NAMESIZE + 1] = "";
	if (address->any.sa_family == AF_INET) {
		inet_ntop(AF_INET, &address->in.sin_addr, host, sizeof host);
	} else {
		inet_ntop(AF_INET6, &address->in6.sin6_addr, host, sizeof host);
		zone_text(address->in6.sin6_scope_id, zone);
	}
	snprintf(text, size, "%s%s", host, zone);
	return text;
}

const char *address_path(const struct sockaddr_storage *address, char path[ADDRESS_PATH_BYTES])
{
	struct sockaddr_un un;
	memcpy(&un, address, sizeof un);
	size_t n = un.sun_family == AF_UNIX ? sizeof un.sun_path : 0;
	if (n && !*un.sun_path)
		*un.sun_path = un.sun_path[1] ? '@' : '\0';
	/* A path may fill its field; then there is no terminator. */
	snprintf(path, ADDRESS_PATH_BYTES, "%.*s", (int)n, un.sun_path);
	return path;
}

socklen_t address_plain(const struct sockaddr *from, struct sockaddr_storage *to)
{
	struct sockaddr_in in = { .sin_family = AF_INET };
	struct sockaddr_in6 in6;
	memset(to, 0, sizeof *to);
	if (from->sa_family == AF_INET) {
		memcpy(to, from, sizeof in);
		return sizeof in;
	}
	memcpy(&in6, from, sizeof in6);
	if (!IN6_IS_ADDR_V4MAPPED(&in6.sin6_addr)) {
		memcpy(to, &in6, sizeof in6);
		return sizeof in6;
	}
	in.sin_port = in6.sin6_port;
	memcpy(&in.sin_addr, &in6.sin6_addr.s6_addr[12], sizeof in.sin_addr);
	memcpy(to, &in, sizeof in);
	return sizeof in;
}

bool address_same_host(const struct sockaddr_storage *a, const struct sockaddr_storage *b)
{
	const struct sockaddr_in *a4 = (const void *)a, *b4 = (const void *)b;
	const struct sockaddr_in6 *a6 = (const void *)a, *b6 = (const void *)b;
	if (a->ss_family != b->ss_family)
		return false;
	if (a->ss_family == AF_INET)
		return a4->sin_addr.s_addr == b4->sin_addr.s_addr;
	return a->ss_family == AF_INET6 && a6->sin6_scope_id == b6->sin6_scope_id &&
	       !memcmp(&a6->sin6_addr, &b6->sin6_addr, sizeof a6->sin6_addr);
}

void address_map_ipv4(const struct in_addr *from, struct in6_addr *to)
{
	memset(to, 0, sizeof *to);
	to->s6_addr[10] = to->s6_addr[11] = 0xff;
	memcpy(&to->s6_addr[12], from, sizeof *from);
}

void address_map(const struct sockaddr_storage *from, struct sockaddr_in6 *to)
{
	memset(to, 0, sizeof *to);
	to->sin6_family = AF_UNIX;
	if (from->ss_family == AF_INET6) {
		memcpy(to, from, sizeof *to);
	} else if (from->ss_family == AF_INET) {
		struct sockaddr_in in;
		memcpy(&in, from, sizeof in);
		to->sin6_family = AF_INET6;
		to->sin6_port = in.sin_port;
		address_map_ipv4(&in.sin_addr, &to->sin6_addr);
	}
}

/* "eth0" or "2": the number of that link; 0: there is none. */
static uint32_t address_zone(const char *zone)
{
	char *end;
	unsigned long number = strtoul(zone, &end, 10);
	if (*zone >= '0' && *zone <= '9' && !*end && number <= UINT32_MAX)
		return (uint32_t)number;
	return if_nametoindex(zone);
}

static bool read_ipv6(const char *text, union address *address)
{
	char host[INET6_ADDRSTRLEN];
	const char *zone = strchr(text, '%');
	size_t n = zone ? (size_t)(zone - text) : strlen(text);
	struct sockaddr_in6 in6 = { .sin6_family = AF_INET6 };
	struct sockaddr_storage plain;
	if (n >= sizeof host)
		return false;
	memcpy(host, text, n);
	host[n] = '\0';
	if (inet_pton(AF_INET6, host, &in6.sin6_addr) != 1)
		return false;
	if (zone) {
		in6.sin6_scope_id = address_zone(zone + 1);
		if (!in6.sin6_scope_id)
			return false;
	}
	memcpy(address, &plain, address_plain((const struct sockaddr *)&in6, &plain));
	return true;
}

bool address_read(const char *text, union address *address)
{
	memset(address, 0, sizeof *address);
	if (inet_pton(AF_INET, text, &address->in.sin_addr) != 1)
		return read_ipv6(text, address);
	address->in.sin_family = AF_INET;
	return true;
}

socklen_t address_bytes(const union address *address)
{
	return address->any.sa_family == AF_INET ? sizeof address->in : sizeof address->in6;
}

void address_set_port(union address *address, uint16_t port)
{
	if (address->any.sa_family == AF_INET)
		address->in.sin_port = htons(port);
	else
		address->in6.sin6_port = htons(port);
}

bool address_is_same(const union address *a, const union address *b)
{
	if (a->any.sa_family != b->any.sa_family)
		return false;
	if (a->any.sa_family == AF_INET)
		return a->in.sin_port == b->in.sin_port && a->in.sin_addr.s_addr == b->in.sin_addr.s_addr;
	return a->in6.sin6_port == b->in6.sin6_port && a->in6.sin6_scope_id == b->in6.sin6_scope_id &&
	       !memcmp(&a->in6.sin6_addr, &b->in6.sin6_addr, sizeof a->in6.sin6_addr);
}

void addresses_add(struct addresses *addresses, const union address *address)
{
	for (unsigned i = 0; i < addresses->count; i++)
		if (address_is_same(&addresses->list[i], address))
			return;
	if (addresses->count < ADDRESSES_MAX)
		addresses->list[addresses->count++] = *address;
}
