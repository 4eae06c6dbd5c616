/*
 * What a script keeps over a reload or an upgrade: the plain data that its snapshot(app) returns, packed as bytes
 * (lua/perilune/kept.lua). The next generation's setup(app, data) is given it.
 *
 * Threads: none here has a state of its own; a snapshot belongs to who has it.
 */
#pragma once

#include <stddef.h>

struct instance;

/* All zero: there is nothing. */
struct snapshot {
	char *bytes; /* NULL: nothing is kept */
	size_t len;
};

/* Where the data for a setup() comes from. */
struct snapshot_source {
	/*
	 * Waits for it, in the thread that loads the script. Fills in an empty snapshot, which is the caller's then.
	 * 0; or a negative code, and nothing is filled in but an explanation of up to size - 1 bytes in `why`.
	 */
	int (*take)(struct snapshot_source *source, struct snapshot *snapshot, char *why, size_t size);
};

/*
 * Runs snapshot(app), if the script has one, in the thread that has the instance, while nothing of it runs. Fills in
 * an empty snapshot. Else UV_EINVAL: it has failed, or its data is not plain, or has more than `most` bytes, packed
 * (limits.snapshot of who takes it); or UV_ENOMEM; with an explanation in `why`.
 */
int snapshot_take(struct instance *instance, size_t most, struct snapshot *snapshot, char *why, size_t size);

/* It is empty then. */
void snapshot_free(struct snapshot *snapshot);
