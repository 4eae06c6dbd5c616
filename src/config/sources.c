#include "config/sources.h"

#include "base/regular.h"
#include "config/folder.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <uv.h>

enum {
	FILES_MAX = 2000,
	BYTES_MAX = 64 << 20,
};

/* ---- a file ---- */

/* 0 or an errno. A file may grow while it is read. */
static int sources_read_text(int fd, size_t expected, struct source *source)
{
	size_t room = expected + 1; /* one more: to see the end without growing */
	for (;;) {
		char *grown = realloc(source->text, room);
		if (!grown)
			return ENOMEM;
		source->text = grown;
		ssize_t n = read(fd, source->text + source->bytes, room - source->bytes);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno;
		if (!n)
			return 0;
		source->bytes += (size_t)n;
		if (source->bytes > SOURCE_MAX_BYTES)
			return EFBIG;
		if (source->bytes == room)
			room *= 2;
	}
}

/* 0 or an errno. */
static int read_file(const char *path, struct source *source)
{
	int fd = regular_open(path, O_RDONLY, 0, &source->instead);
	if (fd < 0)
		return -fd;
	struct stat info;
	int err = fstat(fd, &info) ? errno : 0;
	if (!err && info.st_size > SOURCE_MAX_BYTES)
		err = EFBIG;
	if (!err)
		err = sources_read_text(fd, (size_t)info.st_size, source);
	close(fd);
	return err;
}

static bool is_ours(int err)
{
	return err == EMFILE || err == ENFILE || err == ENOMEM;
}

/* 0 or an error. A file that cannot be read is in the set all the same: who requires it is told why. */
static int sources_add(struct sources *sources, const char *name, const char *path)
{
	if (sources->count == sources->capacity) {
		size_t capacity = sources->capacity ? 2 * sources->capacity : 16;
		struct source *grown = realloc(sources->files, capacity * sizeof *grown);
		if (!grown)
			return UV_ENOMEM;
		sources->files = grown;
		sources->capacity = capacity;
	}
	struct source *source = &sources->files[sources->count];
	*source = (struct source){ .name = strdup(name) };
	if (!source->name)
		return UV_ENOMEM;
	sources->count++;
	source->err = read_file(path, source);
	if (source->err) {
		free(source->text);
		source->text = NULL;
		source->bytes = 0;
	}
	sources->bytes += source->bytes;
	return is_ours(source->err) ? uv_translate_sys_error(source->err) : 0;
}

/* ---- the folder ---- */

static const char *sources_leaf_of(const char *path)
{
	const char *slash = strrchr(path, '/');
	return slash ? slash + 1 : path;
}

static int on_script(void *data, const char *name, const char *path)
{
	struct sources *sources = data;
	if (!strcmp(name, sources->files[0].name))
		return 0; /* the script itself */
	if (sources->count >= FILES_MAX || sources->bytes >= BYTES_MAX)
		return UV_E2BIG;
	return sources_add(sources, name, path);
}

static void sources_explain(struct sources *sources, const char *folder, int err)
{
	if (err == UV_E2BIG)
		snprintf(sources->cut, sizeof sources->cut,
			 "the app's folder holds too much (at most %d Lua files, %d MiB, 20000 entries, 16 "
			 "levels): "
			 "the script wants a folder of its own",
			 FILES_MAX, BYTES_MAX >> 20);
	else if (err == UV_EMFILE || err == UV_ENFILE || err == UV_ENOMEM)
		snprintf(sources->failed, sizeof sources->failed, "cannot read the app's files: %s",
			 uv_strerror(err));
	else if (err)
		snprintf(sources->cut, sizeof sources->cut, "the app's folder, %.150s, cannot be read: %s",
			 folder, uv_strerror(err));
}

static int sources_by_name(const void *a, const void *b)
{
	return strcmp(((const struct source *)a)->name, ((const struct source *)b)->name);
}

/* ---- the key: FNV-1a ---- */

static uint64_t mix(uint64_t key, const void *bytes, size_t n)
{
	const unsigned char *at = bytes;
	for (size_t i = 0; i < n; i++)
		key = (key ^ at[i]) * 0x100000001b3;
	return key;
}

static uint64_t mix_number(uint64_t key, uint64_t number)
{
	for (size_t i = 0; i < sizeof number; i++, number >>= 8)
		key = (key ^ (number & 0xff)) * 0x100000001b3;
	return key;
}

/* A name has its end, a text its length: no two sets look the same to it. */
static void make_key(struct sources *sources)
{
	uint64_t key = 0xcbf29ce484222325;
	for (size_t i = 0; i < sources->count; i++) {
		const struct source *source = &sources->files[i];
		key = mix(key, source->name, strlen(source->name) + 1);
		key = mix_number(key, (uint64_t)source->err);
		key = mix_number(key, source->bytes);
		if (source->text)
			key = mix(key, source->text, source->bytes);
	}
	sources->key = key;
	snprintf(sources->key_text, sizeof sources->key_text, "%016llx", (unsigned long long)key);
}

/* ---- life ---- */

struct sources *sources_read(const char *path)
{
	static const struct folder_visitor VISITOR = { .script = on_script };
	char folder[PATH_MAX];
	struct sources *sources = calloc(1, sizeof *sources);
	if (!sources)
		return NULL;
	int err = sources_add(sources, sources_leaf_of(path), path);
	bool can_walk = !err && !sources->files[0].err && folder_of_script(path, folder, sizeof folder);
	if (can_walk)
		err = folder_walk(folder, &VISITOR, sources);
	if (err == UV_ENOMEM) {
		sources_free(sources);
		return NULL;
	}
	sources_explain(sources, can_walk ? folder : path, err);
	qsort(sources->files, sources->count, sizeof *sources->files, sources_by_name);
	make_key(sources);
	return sources;
}

struct sources *sources_of_image(const char *name, const void *image, size_t bytes)
{
	struct sources *sources = calloc(1, sizeof *sources);
	struct source *source = sources ? calloc(1, sizeof *source) : NULL;
	if (!source) {
		free(sources);
		return NULL;
	}
	*source = (struct source){ .name = strdup(name), .text = malloc(bytes + 1), .bytes = bytes };
	*sources =
	    (struct sources){ .files = source, .count = 1, .capacity = 1, .bytes = bytes, .is_image = true };
	if (!source->name || !source->text) {
		sources_free(sources);
		return NULL;
	}
	memcpy(source->text, image, bytes);
	source->text[bytes] = '\0';
	make_key(sources);
	return sources;
}

void sources_free(struct sources *sources)
{
	if (!sources)
		return;
	for (size_t i = 0; i < sources->count; i++) {
		free(sources->files[i].name);
		free(sources->files[i].text);
	}
	free(sources->files);
	free(sources);
}

const struct source *sources_find(const struct sources *sources, const char *name)
{
	const struct source wanted = { .name = (char *)name };
	if (!sources->count)
		return NULL;
	return bsearch(&wanted, sources->files, sources->count, sizeof wanted, sources_by_name);
}
