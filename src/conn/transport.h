/*
 * What a connection needs of the thing that carries its bytes.
 *
 * A transport is a table of functions over a struct conn embedded in the
 * carrier's own struct. There is one for sockets (socket.c) and one in
 * memory (memory.c); the connection state machine cannot tell them apart.
 *
 * Threads: everything runs on the thread that owns the connection.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct conn;
struct sockaddr_storage;

/* What the connection wants to hear about. With neither, a reset is still reported. */
enum { WATCH_NONE = 0, WATCH_READ = 1, WATCH_WRITE = 2 };

struct transport_ops {
	/* Reads up to n bytes. > 0: how many; 0: the peer has shut its side; UV_EAGAIN; or an error. */
	ssize_t (*read)(struct conn *conn, void *to, size_t n);

	/* Writes what fits of n bytes. >= 0: how many; UV_EAGAIN; or an error. */
	ssize_t (*write)(struct conn *conn, const void *from, size_t n);

	/* Sets what is reported (conn_on_readable, conn_on_writable, conn_on_broken). 0 or an error. */
	int (*watch)(struct conn *conn, unsigned events);

	/* Bytes that were written and that the peer has not yet taken. */
	size_t (*unsent)(struct conn *conn);

	/* Sends our end-of-stream; reading goes on. */
	int (*shutdown)(struct conn *conn);

	/* Bytes from the peer that have arrived and that nobody has read. Closing would then reset. */
	size_t (*unread)(struct conn *conn);

	/*
	 * Ends it, with a reset if asked for. Asynchronous: the carrier calls conn_on_closed()
	 * later, from the loop, and the memory is the carrier's again only then.
	 */
	void (*close)(struct conn *conn, bool reset);

	/* Our side's address. 0 or an error. */
	int (*local_address)(struct conn *conn, struct sockaddr_storage *address);
};
