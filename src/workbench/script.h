/*
 * The scripts of apps in memory: loaded once for as long as neither they nor their settings change.
 *
 * An app has a VM of its own, even one that is a table in the specification (lua/perilune/test/image.lua copies it). In
 * the specification's VM it would have neither sandbox nor guard nor allocator, and a handler that runs during a call
 * of the specification would be a call from Lua into Lua through C. The price: a specification cannot look into an app,
 * it sees frames and the log.
 *
 * Threads: one.
 */
#pragma once

#include <stddef.h>

struct config;
struct override;

/* What is to be loaded: a file, or the image of a table (lua/perilune/test/image.lua) that `path` only names. */
struct script {
	const char *path;
	const void *image; /* NULL: the file at `path` */
	size_t image_bytes;
	const struct override *overrides; /* weakest first */
	size_t override_count;
};

/* The configuration, held for the caller. NULL, and what is wrong in *text, which is to be freed (NULL: no memory). */
struct config *script_load(const struct script *script, char **text);

/* Lets go of those that were kept. */
void script_forget(void);
