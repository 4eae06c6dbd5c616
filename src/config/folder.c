#include "config/folder.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <uv.h>

enum {
	ENTRIES_MAX = 20000, /* looked at: about 20 ms. A script may lie in somebody's home */
	DEPTH_MAX = 16,
};

struct walk {
	const char *root;
	char real[PATH_MAX]; /* the same without links */
	const struct folder_visitor *visitor;
	void *data;
	char **folders; /* found; those before `next` were walked */
	size_t count, capacity, next;
	unsigned entries;
};

static int folder_join(char *out, const char *folder, const char *name)
{
	const char *slash = *folder && *name ? "/" : "";
	int n = snprintf(out, PATH_MAX, "%s%s%s", folder, slash, name);
	return n >= 0 && n < PATH_MAX ? 0 : UV_ENAMETOOLONG;
}

static int add_folder(struct walk *walk, const char *name)
{
	if (walk->count == walk->capacity) {
		size_t capacity = walk->capacity ? 2 * walk->capacity : 16;
		char **grown = realloc(walk->folders, capacity * sizeof *grown);
		if (!grown)
			return UV_ENOMEM;
		walk->folders = grown;
		walk->capacity = capacity;
	}
	walk->folders[walk->count] = strdup(name);
	return walk->folders[walk->count++] ? 0 : UV_ENOMEM;
}

bool folder_can_require(const char *name, size_t length)
{
	for (size_t i = 0; i < length; i++) {
		char c = name[i];
		bool fits = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
			    c == '_' || c == '-';
		if (!fits)
			return false;
	}
	return length > 0;
}

bool folder_of_script(const char *script, char *folder, size_t size)
{
	const char *slash = strrchr(script, '/');
	int length = slash ? (int)(slash - script) : 0;
	int n = snprintf(folder, size, "%.*s", length ? length : 1, slash ? script : ".");
	return n >= 0 && (size_t)n < size;
}

/* ---- links ---- */

static bool is_inside(const struct walk *walk, const char *real)
{
	size_t n = strlen(walk->real);
	return !strcmp(walk->real, "/") || (!strncmp(real, walk->real, n) && (!real[n] || real[n] == '/'));
}

/* Is `target` one of the folders that `name` leads through? */
static bool is_above(const struct walk *walk, const char *name, const struct stat *target)
{
	char part[PATH_MAX], path[PATH_MAX];
	snprintf(part, sizeof part, "%s", name);
	for (;;) {
		char *slash = strrchr(part, '/');
		*(slash ? slash : part) = '\0';
		struct stat above;
		if (!folder_join(path, walk->root, part) && !stat(path, &above) &&
		    above.st_ino == target->st_ino && above.st_dev == target->st_dev)
			return true;
		if (!*part)
			return false;
	}
}

/* What a link leads to, as far as it is one to follow; else DT_UNKNOWN. */
static int folder_follow(const struct walk *walk, const char *name, const char *path)
{
	char real[PATH_MAX];
	struct stat info;
	if (!realpath(path, real) || !is_inside(walk, real) || stat(real, &info))
		return DT_UNKNOWN;
	if (S_ISREG(info.st_mode))
		return DT_REG;
	return S_ISDIR(info.st_mode) && !is_above(walk, name, &info) ? DT_DIR : DT_UNKNOWN;
}

/* ---- walking ---- */

static unsigned depth_of(const char *name)
{
	unsigned depth = 0;
	for (; *name; name++)
		depth += *name == '/';
	return depth;
}

static int visit(struct walk *walk, const char *folder, const struct dirent *entry)
{
	char name[PATH_MAX], path[PATH_MAX];
	const char *leaf = entry->d_name;
	size_t length = strlen(leaf);
	bool is_script = length > 4 && !strcmp(leaf + length - 4, ".lua");
	if (!folder_can_require(leaf, is_script ? length - 4 : length))
		return 0;
	if (folder_join(name, folder, leaf) || folder_join(path, walk->root, name))
		return 0;
	int type = entry->d_type;
	if (type == DT_LNK || type == DT_UNKNOWN)
		type = folder_follow(walk, name, path);
	if (is_script)
		return type == DT_REG && walk->visitor->script ? walk->visitor->script(walk->data, name, path)
							       : 0;
	if (type != DT_DIR)
		return 0;
	return depth_of(name) < DEPTH_MAX ? add_folder(walk, name) : UV_E2BIG;
}

/* A folder below the first that cannot be read, or is gone, has nothing to be required. */
static int walk_folder(struct walk *walk, const char *folder)
{
	char path[PATH_MAX];
	if (folder_join(path, walk->root, folder))
		return 0;
	DIR *dir = opendir(path);
	if (!dir) {
		bool is_ours = errno == EMFILE || errno == ENFILE || errno == ENOMEM;
		return !*folder || is_ours ? uv_translate_sys_error(errno) : 0;
	}
	int err = walk->visitor->folder ? walk->visitor->folder(walk->data, folder) : 0;
	const struct dirent *entry;
	while (!err && (entry = readdir(dir)))
		err = ++walk->entries > ENTRIES_MAX ? UV_E2BIG : visit(walk, folder, entry);
	closedir(dir);
	return err;
}

int folder_walk(const char *path, const struct folder_visitor *visitor, void *data)
{
	struct walk walk = { .root = path, .visitor = visitor, .data = data };
	if (!realpath(path, walk.real))
		return uv_translate_sys_error(errno);
	int err = add_folder(&walk, "");
	while (!err && walk.next < walk.count)
		err = walk_folder(&walk, walk.folders[walk.next++]);
	for (size_t i = 0; i < walk.count; i++)
		free(walk.folders[i]);
	free(walk.folders);
	return err;
}
