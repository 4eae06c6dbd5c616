#include "control/path.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define ENDING ".sock"

enum { NAME_MAX_BYTES = 32, FOLDERS = 2 };

/* The first is the user's own, the other one the machine's. NULL: there is none. */
static const char *folder_at(unsigned index, char *folder, size_t size)
{
	const char *own = getenv("XDG_RUNTIME_DIR");
	if (index)
		return "/run/perilune";
	if (!own || *own != '/')
		return NULL;
	int n = snprintf(folder, size, "%s/perilune", own);
	return n > 0 && (size_t)n < size ? folder : NULL;
}

/* What comes after the last slash. */
static const char *last_part(const char *path)
{
	const char *slash = strrchr(path, '/');
	return slash ? slash + 1 : path;
}

/* The name of the script's folder, as it is written; where that says nothing ("app.lua", "../app.lua"), as it is.
 * NULL: it has none. */
static const char *name_of_folder(const char *script, char path[PATH_MAX])
{
	char real[PATH_MAX];
	int n = (int)(last_part(script) - script); /* with the slash */
	snprintf(path, PATH_MAX, "%.*s", n ? n - 1 : 1, n ? script : ".");
	const char *name = last_part(path);
	if (strcmp(name, ".") != 0 && strcmp(name, "..") != 0)
		return *name ? name : NULL;
	if (!realpath(path, real))
		return NULL;
	memcpy(path, real, sizeof real);
	name = last_part(path);
	return *name ? name : NULL;
}

/* Every app may have its script in such a file. */
static bool is_called_as_all_are(const char *base)
{
	return !strcmp(base, "app.lua") || !strcmp(base, "init.lua");
}

void control_path_name(const char *script, pid_t pid, char *name, size_t size)
{
	char path[PATH_MAX];
	const char *base = last_part(script);
	const char *folder = is_called_as_all_are(base) ? name_of_folder(script, path) : NULL;
	size_t len = strlen(folder ? folder : base);
	char stem[NAME_MAX_BYTES + 1] = "";
	if (!folder && len > 4 && !strcmp(base + len - 4, ".lua"))
		len -= 4;
	if (folder)
		base = folder;
	for (size_t i = 0; i < len && i < NAME_MAX_BYTES; i++)
		stem[i] = isalnum((unsigned char)base[i]) || strchr("._-", base[i]) ? base[i] : '_';
	snprintf(name, size, "%s-%ld" ENDING, stem, (long)pid);
}

/* "chat" and "4711" of ".../chat-4711.sock": a name may have dashes of its own. */
bool control_path_is_called(const char *path, const char *name)
{
	const char *base = last_part(path);
	size_t len = strlen(base), ending = sizeof ENDING - 1, n = strlen(name);
	if (len < ending || strcmp(base + len - ending, ENDING) != 0)
		return false;
	if (!strcmp(base, name))
		return true;
	len -= ending;
	size_t stem = len;
	while (stem && isdigit((unsigned char)base[stem - 1]))
		stem--;
	bool has_pid = stem > 1 && stem < len && base[stem - 1] == '-';
	return (n == len && !strncmp(base, name, n)) ||
	       (has_pid && n == stem - 1 && !strncmp(base, name, n)) ||
	       (has_pid && n == len - stem && !strncmp(base + stem, name, n));
}

/* ---- sockets in a folder ---- */

static bool is_socket_name(const char *name)
{
	size_t len = strlen(name), ending = sizeof ENDING - 1;
	return len > ending && !strcmp(name + len - ending, ENDING);
}

/* How many there are; 0 where the folder cannot be read. */
static int each_in(const char *folder, void (*visit)(void *data, const char *path), void *data)
{
	char path[CONTROL_PATH_BYTES];
	DIR *dir = opendir(folder);
	if (!dir)
		return 0;
	int found = 0;
	for (const struct dirent *entry; (entry = readdir(dir));) {
		int n = snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
		if (!is_socket_name(entry->d_name) || n < 0 || (size_t)n >= sizeof path)
			continue;
		found++;
		visit(data, path);
	}
	closedir(dir);
	return found;
}

int control_path_each(unsigned index, void (*visit)(void *data, const char *path), void *data)
{
	char text[PATH_MAX];
	if (index >= FOLDERS)
		return -1;
	const char *folder = folder_at(index, text, sizeof text);
	return folder ? each_in(folder, visit, data) : 0;
}

int control_path_connect(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	if (strlen(path) >= sizeof address.sun_path)
		return -ENAMETOOLONG;
	memcpy(address.sun_path, path, strlen(path) + 1);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	if (!connect(fd, (const struct sockaddr *)&address, sizeof address) &&
	    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK) >= 0)
		return fd;
	int err = -errno;
	close(fd);
	return err;
}

/* ---- a server's own ---- */

/* Of a process that is no more. Nobody answering is not enough: a server that starts binds before it listens. */
static void remove_stale(void *data, const char *path)
{
	(void)data;
	const char *dash = strrchr(path, '-');
	long pid = dash ? strtol(dash + 1, NULL, 10) : 0;
	if (pid <= 0 || !kill((pid_t)pid, 0) || errno != ESRCH)
		return;
	int fd = control_path_connect(path);
	if (fd >= 0)
		close(fd);
	else if (fd == -ECONNREFUSED)
		unlink(path);
}

int control_path_default(const char *script, char path[CONTROL_PATH_BYTES], char *why, size_t size)
{
	char text[PATH_MAX], name[NAME_MAX_BYTES + 32];
	const char *own = folder_at(0, text, sizeof text), *folder = own ? own : folder_at(1, NULL, 0);
	/* Others may look into the machine's: the sockets in it have modes of their own. */
	if ((mkdir(folder, own ? 0700 : 0755) && errno != EEXIST) || access(folder, W_OK | X_OK)) {
		snprintf(why, size, "%s: %s", folder, strerror(errno));
		return -1;
	}
	control_path_name(script, getpid(), name, sizeof name);
	int n = snprintf(path, CONTROL_PATH_BYTES, "%s/%s", folder, name);
	if (n < 0 || n >= CONTROL_PATH_BYTES) {
		snprintf(why, size, "%s: the path is too long for a Unix socket", folder);
		return -1;
	}
	each_in(folder, remove_stale, NULL);
	return 0;
}
