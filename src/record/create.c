#include "record/create.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int trace_create(const char *path, bool overwrite)
{
	struct stat is;
	/* O_NONBLOCK so as not to wait until somebody opens the other end of a FIFO; it is written to as a file is. */
	int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NONBLOCK | O_NOCTTY | (overwrite ? 0 : O_EXCL),
		      0600);
	if (fd < 0)
		return -errno;
	fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK);
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
	if (err == -ENXIO)
		return "nobody reads this FIFO, or it is a socket";
	return err == -EEXIST ? "it is there already (--force overwrites it)" : strerror(-err);
}
