#include "base/workdir.h"

#include "base/log.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char name[PATH_MAX];
static struct stat folder; /* where we were started, or have followed the name to */

static bool is_at(const char *path, const struct stat *where)
{
	struct stat found;
	return !stat(path, &found) && found.st_ino == where->st_ino && found.st_dev == where->st_dev;
}

/* A shell's name for it, unless somebody went elsewhere since. */
static bool is_usable(const char *path)
{
	return path && *path == '/' && strlen(path) < sizeof name && !strstr(path, "/../") &&
	       is_at(path, &folder);
}

void workdir_remember(void)
{
	const char *shells = getenv("PWD");
	if (stat(".", &folder))
		return;
	if (is_usable(shells))
		snprintf(name, sizeof name, "%s", shells);
	else if (!getcwd(name, sizeof name) || *name != '/') /* "(unreachable)…": of another file system */
		*name = '\0';
}

const char *workdir_name(void)
{
	return name;
}

bool workdir_follow(void)
{
	if (!*name || is_at(name, &folder) || !is_at(".", &folder))
		return true;
	if (chdir(name)) {
		if (errno != ENOENT)
			log_write(LOG_WARN, "the working directory was replaced, and cannot be entered",
				  F_TEXT("folder", name), F_TEXT("error", strerror(errno)));
		return false;
	}
	(void)stat(".", &folder);
	log_write(LOG_INFO, "the working directory was replaced", F_TEXT("folder", name));
	return true;
}
