#include "base/beneath.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdbool.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { STEP_FLAGS = O_CLOEXEC | O_NOCTTY | O_NONBLOCK, NAME_BYTES = 256, TRIES = 8 };

/* Opens what is at `path` beneath `at`, one way or the other. */
typedef int opener(int at, const char *path, int flags);

static int open_resolved(int at, const char *path, int flags)
{
	struct open_how how = { .flags = (unsigned)(flags | STEP_FLAGS),
				.resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS };
	if (flags & O_PATH)
		how.flags = (unsigned)(flags | O_CLOEXEC);
	for (int i = 0; i < TRIES; i++) { /* EAGAIN: something was renamed meanwhile */
		long fd = syscall(SYS_openat2, at, path, &how, sizeof how);
		if (fd >= 0)
			return (int)fd;
		if (errno != EAGAIN)
			break;
	}
	return -errno;
}

static bool is_way(const char *name)
{
	return !*name || !strcmp(name, ".") || !strcmp(name, "..");
}

/* The last name of the path is opened with the flags, those before it as folders. */
static int open_by_steps(int at, const char *path, int flags)
{
	int folder = at, fd;
	for (;;) {
		char name[NAME_BYTES];
		size_t n = strcspn(path, "/");
		bool is_last = !path[n];
		if (n >= sizeof name)
			fd = -ENAMETOOLONG;
		else {
			memcpy(name, path, n);
			name[n] = '\0';
			int how = is_last ? flags : O_PATH | O_DIRECTORY;
			fd = is_way(name) ? -EACCES : openat(folder, name, how | O_NOFOLLOW | STEP_FLAGS);
			if (fd == -1)
				fd = -errno;
		}
		if (folder != at)
			close(folder);
		if (fd < 0 || is_last)
			return fd;
		folder = fd;
		path += n + 1;
	}
}

/* The kind is looked at before it is opened for reading, and again then: something else may have taken its place. */
static int open_regular(int at, const char *path, opener *open_at, bool is_known, struct stat *st)
{
	static const int HOW[] = { O_PATH, O_RDONLY };
	int fd = -1;
	for (int i = is_known ? 1 : 0; i < 2; i++) {
		if (fd >= 0)
			close(fd);
		fd = open_at(at, path, HOW[i]);
		if (fd < 0)
			return fd;
		int err = fstat(fd, st)          ? -errno
			  : S_ISREG(st->st_mode) ? 0
			  : S_ISDIR(st->st_mode) ? -EISDIR
						 : -EACCES;
		if (err) {
			close(fd);
			return err;
		}
	}
	return fd;
}

static int open_beneath(const char *folder, const char *path, opener *open_at, bool is_known, struct stat *st)
{
	int at = open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (at < 0)
		return -errno;
	int fd = *path ? open_regular(at, path, open_at, is_known, st) : -EISDIR;
	close(at);
	return fd == -EXDEV || fd == -ELOOP ? -EACCES : fd;
}

int beneath_open_by_steps(const char *folder, const char *path, bool is_known, struct stat *st)
{
	return open_beneath(folder, path, open_by_steps, is_known, st);
}

int beneath_open(const char *folder, const char *path, bool is_known, struct stat *st)
{
	int fd = open_beneath(folder, path, open_resolved, is_known, st);
	/* The kernel is older, or whoever sandboxes us does not know the call. */
	return fd == -ENOSYS || fd == -EPERM ? beneath_open_by_steps(folder, path, is_known, st) : fd;
}
