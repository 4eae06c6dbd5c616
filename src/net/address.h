/*
 * Addresses as people write them, and which of them are the same.
 *
 * Leaf; any thread.
 */
#pragma once

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/un.h>

enum {
	ADDRESS_TEXT_BYTES = 80,
	ADDRESS_PATH_BYTES = sizeof(struct sockaddr_un),
	ADDRESSES_MAX = 64 /* of a name: nobody tries more */
};

/* IPv4 or IPv6, in a fifth of what struct sockaddr_storage takes. */
union address {
	struct sockaddr any;
	struct sockaddr_in in;
	struct sockaddr_in6 in6;
};

/* What a name stands for. None is in it twice. */
struct addresses {
	unsigned count;
	union address list[ADDRESSES_MAX];
};

/*
 * "127.0.0.1:5060", "[2001:db8::1]:5060", "[fe80::1%eth0]:5060" (an address of one link says nothing without that),
 * "unix". Always terminated; returns text.
 */
const char *address_text(const struct sockaddr *address, char *text, size_t size);

/* The path of a Unix socket, "@name" of an abstract one, "" of one without. What the kernel told not must be zero. */
const char *address_path(const struct sockaddr_storage *address, char path[ADDRESS_PATH_BYTES]);

/* An IPv4 address as it is bound: one that is written as IPv6 (::ffff:10.0.0.7) is none. Returns the bytes of `to`. */
socklen_t address_plain(const struct sockaddr *from, struct sockaddr_storage *to);

/* IPv4 within IPv6 (RFC 4291, section 2.5.5.2): as connections keep their peers. */
void address_map_ipv4(const struct in_addr *from, struct in6_addr *to);

/* The same of a peer; what is neither IPv4 nor IPv6 becomes AF_UNIX, with neither address nor port. */
void address_map(const struct sockaddr_storage *from, struct sockaddr_in6 *to);

/* Is it the same host, on the same link? Not for what is neither IPv4 nor IPv6. */
bool address_same_host(const struct sockaddr_storage *a, const struct sockaddr_storage *b);

/*
 * "127.0.0.1", "::1", "fe80::1%eth0"; ::ffff:127.0.0.1 is IPv4. Its port is 0. False: it is none, or of a link that is
 * not there.
 */
bool address_read(const char *text, union address *address);

/* As address_read() reads it. */
const char *address_host(const union address *address, char *text, size_t size);

/* As connect() and bind() take it. */
socklen_t address_bytes(const union address *address);

void address_set_port(union address *address, uint16_t port);

bool address_is_same(const union address *a, const union address *b);

/* Past ADDRESSES_MAX it is dropped. */
void addresses_add(struct addresses *addresses, const union address *address);
