#include "cli/scaffold.h"

#include <dirent.h>
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

enum { TEXT_MAX = 1 << 20, DEPTH_MAX = 8 };

static int scaffold_fail(struct scaffold *scaffold, int err, const char *path)
{
	snprintf(scaffold->problem, sizeof scaffold->problem, "%s: %s", path, uv_strerror(err));
	return err;
}

/* 0 or UV_ENAMETOOLONG. */
static int scaffold_join(char *path, size_t size, const char *folder, const char *name)
{
	int n = snprintf(path, size, "%s/%s", folder, name);
	return n < 0 || (size_t)n >= size ? UV_ENAMETOOLONG : 0;
}

static int note_made(struct scaffold *scaffold, const char *path)
{
	char **grown = realloc(scaffold->made, (scaffold->made_count + 1) * sizeof *grown);
	char *copy = grown ? strdup(path) : NULL;
	if (grown)
		scaffold->made = grown;
	if (!copy)
		return UV_ENOMEM;
	scaffold->made[scaffold->made_count++] = copy;
	return 0;
}

/* ---- placeholders ---- */

static const struct placeholder *placeholder_at(const struct scaffold *scaffold, const char *text)
{
	for (const struct placeholder *one = scaffold->placeholders; one->mark; one++)
		if (!strncmp(text, one->mark, strlen(one->mark)))
			return one;
	return NULL;
}

/* Writes the text with its placeholders replaced. */
static void fill_in(const struct scaffold *scaffold, FILE *to, const char *text)
{
	while (*text) {
		const struct placeholder *one = *text == '@' ? placeholder_at(scaffold, text) : NULL;
		if (!one) {
			fputc(*text++, to);
			continue;
		}
		fputs(one->value, to);
		text += strlen(one->mark);
	}
}

static char *filled_in(const struct scaffold *scaffold, const char *text)
{
	char *out = NULL;
	size_t size = 0;
	FILE *to = open_memstream(&out, &size);
	if (!to)
		return NULL;
	fill_in(scaffold, to, text);
	return fclose(to) ? NULL : out;
}

/* ---- a file ---- */

/* A template is text. NULL: it cannot be read, and errno says why. */
static char *scaffold_read_text(const char *path)
{
	FILE *from = fopen(path, "rbe");
	char *text = from ? malloc(TEXT_MAX + 1) : NULL;
	size_t n = text ? fread(text, 1, TEXT_MAX, from) : 0;
	bool failed = from && ferror(from);
	if (from)
		fclose(from);
	if (text)
		text[n] = '\0';
	if (!failed)
		return text;
	free(text);
	errno = EIO;
	return NULL;
}

/* 0 or a negative UV_E*. Nothing is overwritten. */
static int write_text(const struct scaffold *scaffold, const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
	FILE *to = fd >= 0 ? fdopen(fd, "wb") : NULL;
	if (!to)
		return uv_translate_sys_error(errno);
	fill_in(scaffold, to, text);
	bool failed = ferror(to);
	if (fclose(to) || failed)
		return uv_translate_sys_error(errno ? errno : EIO);
	return 0;
}

static int copy_file(struct scaffold *scaffold, const char *from, const char *to)
{
	char *text = scaffold_read_text(from);
	if (!text)
		return scaffold_fail(scaffold, uv_translate_sys_error(errno), from);
	int err = write_text(scaffold, to, text);
	free(text);
	if (err != UV_EEXIST && !access(to, F_OK) && note_made(scaffold, to))
		err = UV_ENOMEM;
	return err ? scaffold_fail(scaffold, err, to) : 0;
}

/* ---- a folder ---- */

static int make_folder(struct scaffold *scaffold, const char *path)
{
	if (mkdir(path, 0777))
		return errno == EEXIST ? 0 : scaffold_fail(scaffold, uv_translate_sys_error(errno), path);
	return note_made(scaffold, path) ? scaffold_fail(scaffold, UV_ENOMEM, path) : 0;
}

static int copy_folder(struct scaffold *scaffold, const char *from, const char *to, int depth);

static int copy_entry(struct scaffold *scaffold, const char *from, const char *to, const char *name,
		      int depth)
{
	char source[PATH_MAX], target[PATH_MAX];
	struct stat info;
	char *own_name = filled_in(scaffold, name);
	int err = own_name ? scaffold_join(source, sizeof source, from, name) : UV_ENOMEM;
	if (!err)
		err = scaffold_join(target, sizeof target, to, own_name);
	free(own_name);
	if (err)
		return scaffold_fail(scaffold, err, name);
	if (stat(source, &info))
		return scaffold_fail(scaffold, uv_translate_sys_error(errno), source);
	if (!S_ISDIR(info.st_mode))
		return copy_file(scaffold, source, target);
	err = depth > DEPTH_MAX ? scaffold_fail(scaffold, UV_ELOOP, source) : make_folder(scaffold, target);
	return err ? err : copy_folder(scaffold, source, target, depth + 1);
}

static int copy_folder(struct scaffold *scaffold, const char *from, const char *to, int depth)
{
	DIR *folder = opendir(from);
	if (!folder)
		return scaffold_fail(scaffold, uv_translate_sys_error(errno), from);
	int err = 0;
	for (struct dirent *entry; !err && (entry = readdir(folder));)
		if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
			err = copy_entry(scaffold, from, to, entry->d_name, depth);
	closedir(folder);
	return err;
}

/* ---- the whole ---- */

int scaffold_open(struct scaffold *scaffold, const char *target, const struct placeholder *placeholders)
{
	*scaffold = (struct scaffold){ .target = target, .placeholders = placeholders };
	if (mkdir(target, 0777))
		return scaffold_fail(scaffold, uv_translate_sys_error(errno), target);
	return note_made(scaffold, target) ? scaffold_fail(scaffold, UV_ENOMEM, target) : 0;
}

int scaffold_copy(struct scaffold *scaffold, const char *folder)
{
	return copy_folder(scaffold, folder, scaffold->target, 0);
}

void scaffold_undo(struct scaffold *scaffold)
{
	for (size_t i = scaffold->made_count; i > 0; i--)
		remove(scaffold->made[i - 1]);
}

void scaffold_close(struct scaffold *scaffold)
{
	for (size_t i = 0; i < scaffold->made_count; i++)
		free(scaffold->made[i]);
	free(scaffold->made);
	scaffold->made = NULL;
	scaffold->made_count = 0;
}
