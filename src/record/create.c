#include "record/create.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int trace_create(const char *path, bool overwrite)
{
	struct stat is;
	int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | (overwrite ? 0 : O_EXCL), 0600);
	if (fd < 0)
		return -errno;
	/* One that was there may be anybody's to read; a device or a pipe is not ours to change. */
	if (!fstat(fd, &is) && S_ISREG(is.st_mode) && (fchmod(fd, 0600) || ftruncate(fd, 0))) {
		int err = -errno;
		close(fd);
		return err;
	}
	return fd;
}

const char *trace_create_error(int err)
{
	return err == -EEXIST ? "it is there already (--force overwrites it)" : strerror(-err);
}
