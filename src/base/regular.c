#include "base/regular.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

/* File systems whose files are the kernel's own affairs: linux/magic.h, those of it that are mounted for that. */
static const unsigned long KERNELS_OWN[] = {
	0x9fa0,     /* proc */
	0x62656572, /* sysfs */
	0x62656570, /* configfs */
	0x64626720, /* debugfs */
	0x74726163, /* tracefs */
	0x73636673, /* securityfs */
	0x0027e0eb, /* cgroup */
	0x63677270, /* cgroup2 */
	0xcafe4a11, /* bpf */
	0xde5e81e4, /* efivarfs */
	0x6165676c, /* pstore */
	0xf97cff8c, /* selinux */
	0x43415d53, /* smack */
	0x07655821, /* resctrl */
	0x42494e4d, /* binfmt_misc */
	0x65735543, /* fusectl */
	0x6e736673, /* namespaces */
};

static const char *kind_of_mode(mode_t mode)
{
	switch (mode & S_IFMT) {
	case S_IFREG:
		return NULL;
	case S_IFDIR:
		return "a folder";
	case S_IFIFO:
		return "a FIFO";
	case S_IFSOCK:
		return "a socket";
	case S_IFCHR:
	case S_IFBLK:
		return "a device";
	default:
		return "of another kind";
	}
}

static bool is_memory_device(const struct stat *st)
{
	enum { MEMORY_MAJOR = 1, NULL_MINOR = 3, ZERO = 5, FULL = 7, RANDOM = 8, URANDOM = 9 };
	unsigned number = minor(st->st_rdev);
	return S_ISCHR(st->st_mode) && major(st->st_rdev) == MEMORY_MAJOR &&
	       (number == NULL_MINOR || number == ZERO || number == FULL || number == RANDOM ||
		number == URANDOM);
}

static const char *regular_kind_of(const struct stat *st, bool takes_devices)
{
	return takes_devices && is_memory_device(st) ? NULL : kind_of_mode(st->st_mode);
}

static bool is_kernels_own(int fd)
{
	struct statfs fs;
	if (fstatfs(fd, &fs))
		return false;
	for (size_t i = 0; i < sizeof KERNELS_OWN / sizeof *KERNELS_OWN; i++)
		if ((unsigned long)fs.f_type == KERNELS_OWN[i])
			return true;
	return false;
}

/* What it is decides about the error: EISDIR for a folder, as open(2) has it for who writes. */
static int regular_refuse(int fd, const char *kind, bool is_folder, const char **instead)
{
	*instead = kind;
	if (fd >= 0)
		close(fd);
	return is_folder ? -EISDIR : -EACCES;
}

static int open_checked(const char *path, int flags, mode_t mode, bool takes_devices, const char **instead)
{
	struct stat st;
	*instead = NULL;
	/* Some devices do something when they are opened; whatever takes this one's place meanwhile is found below. */
	if (!stat(path, &st) && regular_kind_of(&st, takes_devices))
		return regular_refuse(-1, regular_kind_of(&st, takes_devices), S_ISDIR(st.st_mode), instead);
	int fd = open(path, (flags & ~O_TRUNC) | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, mode);
	if (fd < 0)
		return -errno;
	if (fstat(fd, &st)) {
		int err = -errno;
		close(fd);
		return err;
	}
	if (regular_kind_of(&st, takes_devices))
		return regular_refuse(fd, regular_kind_of(&st, takes_devices), S_ISDIR(st.st_mode), instead);
	if (S_ISREG(st.st_mode) && is_kernels_own(fd))
		return regular_refuse(fd, "a file of the kernel's", false, instead);
	if (flags & O_TRUNC && S_ISREG(st.st_mode) && st.st_size && ftruncate(fd, 0)) {
		int err = -errno;
		close(fd);
		return err;
	}
	return fd;
}

int regular_open(const char *path, int flags, mode_t mode, const char **instead)
{
	return open_checked(path, flags, mode, false, instead);
}

int harmless_open(const char *path, int flags, mode_t mode, const char **instead)
{
	return open_checked(path, flags, mode, true, instead);
}

const char *irregular_kind(const char *path)
{
	struct stat st;
	return stat(path, &st) ? NULL : kind_of_mode(st.st_mode);
}
