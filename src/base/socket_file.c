#include "base/socket_file.h"

#include <sys/stat.h>
#include <unistd.h>

static bool socket_file_is_same(const struct socket_file *file, const struct stat *st)
{
	return S_ISSOCK(st->st_mode) && st->st_ino == file->inode && st->st_dev == file->device;
}

struct socket_file socket_file_at(const char *path)
{
	struct stat st;
	if (stat(path, &st) || !S_ISSOCK(st.st_mode))
		return (struct socket_file){ 0 };
	return (struct socket_file){ .device = st.st_dev, .inode = st.st_ino };
}

bool socket_file_is_at(const struct socket_file *file, const char *path)
{
	struct stat st;
	return !stat(path, &st) && socket_file_is_same(file, &st);
}

void socket_file_remove(const struct socket_file *file, const char *path)
{
	struct stat st;
	if (!lstat(path, &st) && socket_file_is_same(file, &st))
		unlink(path);
}
