/*
 * Opens what is meant to be a file, and nothing else. A FIFO would be waited for until somebody opens its other end, a
 * device may do anything when it is opened, and what looks like a file in /proc may be our own memory.
 *
 * Leaf; any thread.
 */
#pragma once

#include <stdbool.h>
#include <sys/stat.h>

/*
 * As open(2), with O_CLOEXEC, O_NOCTTY and O_NONBLOCK, which changes nothing of a regular file. A descriptor, or a
 * negative error; then *instead is what stands there in place of a file ("a FIFO"), or NULL where that is not what is
 * wrong. O_TRUNC is done last: nothing else loses its contents.
 */
int regular_open(const char *path, int flags, mode_t mode, const char **instead);

/*
 * The same, and besides regular files those devices of the memory that never wait: null, zero, full, random, urandom.
 */
int harmless_open(const char *path, int flags, mode_t mode, const char **instead);

/* "a FIFO", "a folder" …: what is not a regular file; NULL: it is one, or there is nothing. */
const char *irregular_kind(const char *path);
