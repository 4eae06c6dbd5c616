/*
 * Listening sockets, and UDP sockets, that we were started with: descriptors from 3 on, by the convention of
 * sd_listen_fds(3). A service manager hands them over (socket activation), or our predecessor does in an upgrade.
 *
 * Threads: the main thread.
 */
#pragma once

#include "base/socket_file.h"

#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>

struct listener_config;

enum { INHERITED_NAME_BYTES = 256 };

/*
 * The name of a socket that Perilune itself has bound: a Unix socket's file is its own to remove. Others keep the name
 * they came with through all upgrades.
 */
#define INHERITED_OWN "perilune-own"

/*
 * The name of a pipe's end, which is closed at the other end once our predecessor reads its UDP sockets no more: a
 * datagram has one reader.
 */
#define INHERITED_GATE "perilune-gate"

/* The name of what the scripts of our predecessor's workers keep (restart/kept.h): no socket. */
#define INHERITED_SNAPSHOTS "perilune-snapshots"

struct inherited {
	int fd; /* -1: taken, or there was none that listens */
	char name[INHERITED_NAME_BYTES];
	struct sockaddr_storage address;
	bool is_udp;
	/* Of a Unix socket: the one that a predecessor has told of, or what is at its path where nobody has. */
	struct socket_file file;
};

/* What a successor is given: a listening socket, its name, and the file that it was bound to. */
struct bequest {
	int fd;
	const char *name;
	struct socket_file file;
};

struct inheritance {
	struct inherited *sockets;
	unsigned count;
	int gate;      /* see INHERITED_GATE; -1: there is none, or it was taken */
	int snapshots; /* see INHERITED_SNAPSHOTS; -1: there are none */
};

/*
 * Looks at what variables_take() has found. What is neither a listening stream socket nor one of UDP is closed, what
 * was not open is left out, with a warning each. 0 or UV_ENOMEM.
 */
int inheritance_open(struct inheritance *inheritance);

/*
 * The listening socket of that address, or NULL; its descriptor is the caller's, who sets it to -1. Where the
 * configuration leaves the port to the system, any port will do: look for those with one first.
 */
struct inherited *inheritance_find(struct inheritance *inheritance, const struct listener_config *config);

/* One more UDP socket of the same address as one that was found; NULL: there is none. The same holds. */
struct inherited *inheritance_find_same(struct inheritance *inheritance, const struct inherited *first);

/*
 * Closes what nobody has taken, with a warning each. `for_good`: remove the files of Unix sockets that Perilune
 * itself made; only once nobody else serves on them.
 */
void inheritance_close(struct inheritance *inheritance, bool for_good);
