/*
 * The file that a Unix socket is found by. It is known by its inode, as anybody may put something else at its path; no
 * other file has that inode while the socket is open.
 *
 * Leaf; any thread.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* All zeros: none. */
struct socket_file {
	uint64_t device, inode;
};

/* The socket's file that the path leads to. */
struct socket_file socket_file_at(const char *path);

/* Does the path lead to it? By a link as well: clients follow that. */
bool socket_file_is_at(const struct socket_file *file, const char *path);

/* Removes it. What else is there by now stays, such as a link to it. */
void socket_file_remove(const struct socket_file *file, const char *path);
