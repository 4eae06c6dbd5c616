#include "base/descriptors.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>

enum { UNKNOWN_LIMIT = 1024 };

unsigned descriptors_raise_limit(void)
{
	struct rlimit limit;
	if (getrlimit(RLIMIT_NOFILE, &limit))
		return UNKNOWN_LIMIT;
	struct rlimit raised = { .rlim_cur = limit.rlim_max, .rlim_max = limit.rlim_max };
	if (limit.rlim_cur < limit.rlim_max && !setrlimit(RLIMIT_NOFILE, &raised))
		limit = raised;
	return limit.rlim_cur > 1u << 30 ? 1u << 30 : (unsigned)limit.rlim_cur;
}

/* Holds one more while it looks for the rest: so they are free at the same time. */
bool descriptors_left(unsigned n)
{
	if (!n)
		return true;
	int fd = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 0);
	if (fd < 0)
		return false;
	bool left = descriptors_left(n - 1);
	close(fd);
	return left;
}

const char *descriptors_explain(char *text, size_t size)
{
	struct rlimit limit;
	if (getrlimit(RLIMIT_NOFILE, &limit))
		limit.rlim_cur = UNKNOWN_LIMIT;
	snprintf(text, size, "the limit of open files is too low: %llu (ulimit -n)",
		 (unsigned long long)limit.rlim_cur);
	return text;
}
