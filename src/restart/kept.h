/*
 * What the scripts of all workers keep (script/snapshot.h), on its way to another process: in memory that has a
 * descriptor, and whose contents cannot change any more, or in a file without a name where the system has no such
 * memory. First a header: eight letters, the version of the form, how many there are; then the length of each; then
 * their bytes.
 *
 * Threads: any; but one at a time has a struct kept.
 */
#pragma once

#include "script/snapshot.h"

#include <stdbool.h>
#include <stddef.h>

struct kept {
	struct snapshot *snapshots; /* by worker; NULL: there are none */
	unsigned count;
};

/* Where one goes from: a worker's setup() takes it. */
struct kept_source {
	struct snapshot_source source; /* first */
	struct snapshot *snapshot;
};

/* A descriptor, which is the caller's; or a negative error. */
int kept_write(const struct kept *kept);

/*
 * What lies behind that descriptor, which stays open. Nothing is believed that does not fit its size. False: why not,
 * in `why`, and there is nothing to be freed.
 */
bool kept_read(int fd, struct kept *kept, char *why, size_t size);

/* Of the worker's place there. One that is not there is empty. */
struct kept_source kept_source(struct kept *kept, unsigned worker);

/* There is nothing in it then. */
void kept_free(struct kept *kept);
