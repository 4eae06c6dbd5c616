/*
 * The script set of a generation: the script and all that it could require, as they were at one moment. All VMs of
 * a generation compile from it, and never from the disk: so they have the same bytes, at the start and whenever a
 * handler requires something later.
 *
 * Threads: immutable once read.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct source {
	char *name; /* relative to the script's folder: "words/init.lua" */
	char *text; /* NULL: could not be read */
	size_t bytes;
	int err;             /* why not: an errno; EFBIG: larger than SOURCE_MAX_BYTES */
	const char *instead; /* what is there in place of a file ("a FIFO"); or NULL */
};

enum { SOURCE_MAX_BYTES = 16 << 20 };

struct sources {
	struct source *files; /* by name */
	size_t count, capacity;
	size_t bytes;  /* in all */
	bool is_image; /* the one file is none, but what lua/perilune/test/image.lua made of a table */
	uint64_t key;  /* of names and texts: what is the same has the same key */
	char key_text[17];
	char cut[256];    /* why there may be more than was read; else "" */
	char failed[128]; /* why it is of no use: there were no descriptors, for one; else "" */
};

/* Reads the script at `path` and what lies in its folder. NULL: no memory. */
struct sources *sources_read(const char *path);

/* A set of one that is in no file. Copies the bytes. NULL: no memory. */
struct sources *sources_of_image(const char *name, const void *image, size_t bytes);
void sources_free(struct sources *sources);

/* NULL: there is none. */
const struct source *sources_find(const struct sources *sources, const char *name);
