/*
 * An app's folder: which of its files a script could require, and in which folders they lie.
 *
 * Threads: any.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

/*
 * Either may be NULL. What is not 0 ends the walk. `name` is relative to the folder walked and lives as long as the
 * call.
 */
struct folder_visitor {
	int (*folder)(void *data, const char *name); /* "" is the folder itself */
	int (*script)(void *data, const char *name, const char *path);
};

/*
 * Visits the folders and the *.lua files below `path`, the nearest first; names that no require() can have, hidden
 * ones among them, are left out, as are links that lead out of the folder and links to a folder that they lie in.
 * 0; what a visitor returned; UV_E2BIG: there is more than anybody should walk through, and the nearest were visited;
 * or why the folder itself cannot be read.
 */
int folder_walk(const char *path, const struct folder_visitor *visitor, void *data);

/* "a/b/app.lua" lies in "a/b", "app.lua" in ".", "/app.lua" in "/". False: the name is too long. */
bool folder_of_script(const char *script, char *folder, size_t size);

/* May a script require a file or a folder of this name? A file's is without its ".lua". */
bool folder_can_require(const char *name, size_t length);
