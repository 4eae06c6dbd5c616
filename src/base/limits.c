#include "base/limits.h"

#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <uv.h>

/* False: there is none. */
static bool limit_of(int resource, unsigned long long *value)
{
	struct rlimit limit;
	if (getrlimit((__rlimit_resource_t)resource, &limit) || limit.rlim_cur == RLIM_INFINITY)
		return false;
	*value = limit.rlim_cur;
	return true;
}

/* The path of our control group (version 2) below /sys/fs/cgroup; "" where that cannot be told. */
static void find_group(char *path, size_t size)
{
	char line[PATH_MAX];
	*path = '\0';
	FILE *file = fopen("/proc/self/cgroup", "re");
	while (file && fgets(line, sizeof line, file)) {
		line[strcspn(line, "\n")] = '\0';
		if (!strncmp(line, "0::", 3) && strcmp(line + 3, "/") != 0)
			snprintf(path, size, "%s", line + 3);
	}
	if (file)
		fclose(file);
}

/* False: there is none, or it cannot be told. */
static bool group_limit(unsigned long long *value)
{
	char group[PATH_MAX], path[PATH_MAX + 40];
	find_group(group, sizeof group);
	snprintf(path, sizeof path, "/sys/fs/cgroup%s/pids.max", group);
	FILE *file = fopen(path, "re");
	bool found = file && fscanf(file, "%llu", value) == 1; /* "max": it is not limited */
	if (file)
		fclose(file);
	return found;
}

static void explain_threads(const char *error, char *text, size_t size)
{
	unsigned long long of_user = 0, of_group = 0;
	bool has_user = limit_of(RLIMIT_NPROC, &of_user), has_group = group_limit(&of_group);
	if (has_user && has_group)
		snprintf(text, size,
			 "%s (the user's processes and threads are limited to %llu: ulimit -u; the control "
			 "group's to %llu: pids.max)",
			 error, of_user, of_group);
	else if (has_user)
		snprintf(text, size, "%s (the user's processes and threads are limited to %llu: ulimit -u)",
			 error, of_user);
	else if (has_group)
		snprintf(text, size,
			 "%s (the control group's processes and threads are limited to %llu: pids.max)",
			 error, of_group);
	else
		snprintf(
		    text, size,
		    "%s (no more processes and threads: kernel.threads-max, or pids.max of a control group)",
		    error);
}

static void explain_memory(const char *error, char *text, size_t size)
{
	unsigned long long bytes = 0;
	if (limit_of(RLIMIT_AS, &bytes))
		snprintf(text, size, "%s (the address space is limited to %llu MiB: ulimit -v)", error,
			 bytes >> 20);
	else if (limit_of(RLIMIT_DATA, &bytes))
		snprintf(text, size, "%s (data is limited to %llu MiB: ulimit -d)", error, bytes >> 20);
	else
		snprintf(text, size, "%s", error);
}

const char *limits_explain(int err, char *text, size_t size)
{
	const char *error = uv_strerror(err);
	if (err == UV_EAGAIN)
		explain_threads(error, text, size);
	else if (err == UV_ENOMEM)
		explain_memory(error, text, size);
	else
		snprintf(text, size, "%s", error);
	return text;
}
