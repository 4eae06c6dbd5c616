/*
 * Addresses as people write them, and which of them are the same.
 *
 * Leaf; any thread.
 */
#pragma once

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/un.h>

enum { ADDRESS_TEXT_BYTES = 80, ADDRESS_PATH_BYTES = sizeof(struct sockaddr_un) };

/*
 * "127.0.0.1:5060", "[2001:db8::1]:5060", "[fe80::1%eth0]:5060" (an address of one link says nothing without that),
 * "unix". Always terminated; returns text.
 */
const char *address_text(const struct sockaddr *address, char *text, size_t size);

/* The path of a Unix socket, "@name" of an abstract one, "" of one without. What the kernel told not must be zero. */
const char *address_path(const struct sockaddr_storage *address, char path[ADDRESS_PATH_BYTES]);

/* An IPv4 address as it is bound: one that is written as IPv6 (::ffff:10.0.0.7) is none. Returns the bytes of `to`. */
socklen_t address_plain(const struct sockaddr *from, struct sockaddr_storage *to);

/* Is it the same host, on the same link? Not for what is neither IPv4 nor IPv6. */
bool address_same_host(const struct sockaddr_storage *a, const struct sockaddr_storage *b);
