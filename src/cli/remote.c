#include "cli/remote.h"

#include "base/text.h"
#include "cli/options.h"
#include "control/message.h"
#include "control/path.h"
#include "server/server.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

enum { ANSWER_SECONDS = 15, ANSWER_MAX = 64 << 20, SHOWN_MAX = 16 };

/* ---- which server ---- */

/* Those that answer. */
struct search {
	const char *name; /* of the one that is meant, or NULL */
	int fd;           /* of the first that is; -1: none */
	unsigned count;
	char paths[SHOWN_MAX][CONTROL_PATH_BYTES];
	unsigned others; /* that have another name */
	char other_paths[SHOWN_MAX][CONTROL_PATH_BYTES];
	bool forbidden; /* there is one that is another user's */
};

static void keep(char paths[SHOWN_MAX][CONTROL_PATH_BYTES], unsigned *count, const char *path)
{
	if (*count < SHOWN_MAX)
		snprintf(paths[*count], CONTROL_PATH_BYTES, "%s", path);
	++*count;
}

static void try_path(void *data, const char *path)
{
	struct search *search = data;
	int fd = control_path_connect(path);
	search->forbidden = search->forbidden || fd == -EACCES;
	if (fd < 0)
		return;
	if (search->name && !control_path_is_called(path, search->name)) {
		keep(search->other_paths, &search->others, path);
		close(fd);
		return;
	}
	if (search->count)
		close(fd);
	else
		search->fd = fd;
	keep(search->paths, &search->count, path);
}

static void list(char paths[SHOWN_MAX][CONTROL_PATH_BYTES], unsigned count)
{
	for (unsigned i = 0; i < count && i < SHOWN_MAX; i++)
		text_printf(stderr, "  %s\n", paths[i]);
}

static int refuse_search(const char *command, struct search *search)
{
	if (search->count) {
		text_printf(stderr,
			    "perilune %s: %u servers are %s%s%s; name the one that is meant with --control "
			    "NAME, NAME-PID or PATH:\n",
			    command, search->count, search->name ? "called '" : "running",
			    search->name ? search->name : "", search->name ? "'" : "");
		list(search->paths, search->count);
	} else if (search->others) {
		text_printf(stderr, "perilune %s: no running server is called '%s'; there %s:\n", command,
			    search->name, search->others == 1 ? "is" : "are");
		list(search->other_paths, search->others);
	} else {
		text_printf(
		    stderr,
		    "perilune %s: found no running server%s in $XDG_RUNTIME_DIR/perilune or /run/perilune;\n"
		    "if one runs, name its control socket with --control PATH\n",
		    command, search->forbidden ? " of this user" : "");
	}
	return -1;
}

/* The only one (of that name) in the first folder that has any. A descriptor, or -1: explained. */
static int find_server(const char *command, const char *name)
{
	struct search search = { .name = name, .fd = -1 };
	for (unsigned i = 0; !search.count && control_path_each(i, try_path, &search) >= 0; i++)
		;
	if (search.count == 1)
		return search.fd;
	if (search.count)
		close(search.fd);
	return refuse_search(command, &search);
}

static int connect_to(const char *command, const char *path)
{
	int fd = control_path_connect(path);
	if (fd < 0)
		text_printf(stderr, "perilune %s: no server answers at %s: %s\n", command, path,
			    strerror(-fd));
	return fd;
}

/* The name of the server of a script, "chat" for chat.lua; else the name itself. */
static const char *name_of_server(const char *given, char name[CONTROL_PATH_BYTES])
{
	size_t len = strlen(given);
	if (len <= 4 || strcmp(given + len - 4, ".lua") != 0)
		return given;
	control_path_name(given, 0, name, CONTROL_PATH_BYTES);
	*strrchr(name, '-') = '\0';
	return name;
}

/* One that is no path is a name, which a folder or a file that lies here may have as well. */
static bool is_path(const char *given)
{
	struct stat what;
	return strchr(given, '/') || (!stat(given, &what) && S_ISSOCK(what.st_mode));
}

int remote_reach(const struct options *options)
{
	char called[CONTROL_PATH_BYTES];
	const char *path = options->control ? options->control : getenv("PERILUNE_CONTROL");
	if (!path || !*path || !strcmp(path, "auto"))
		return find_server(options->command, NULL);
	const char *name = name_of_server(path, called);
	if (name == called || (strcmp(path, "off") != 0 && !is_path(path)))
		return find_server(options->command, name);
	if (strcmp(path, "off") != 0)
		return connect_to(options->command, path);
	text_printf(stderr, "perilune %s: the control socket is off; name one with --control PATH\n",
		    options->command);
	return -1;
}

/* ---- asking ---- */

int remote_send(int fd, const char *line)
{
	for (size_t at = 0, len = strlen(line); at < len;) {
		ssize_t n = send(fd, line + at, len - at, MSG_NOSIGNAL);
		if (n < 0 && errno != EINTR)
			return -errno;
		at += n > 0 ? (size_t)n : 0;
	}
	return 0;
}

/* The answer without its line feed, to be freed; NULL: *err says why, 0 that there was none. */
static char *receive_line(int fd, int *err)
{
	size_t used = 0, room = 0;
	char *line = NULL;
	*err = -ENOMEM;
	for (;;) {
		if (room - used < 2) {
			char *grown = room < ANSWER_MAX ? realloc(line, room = room * 2 + 65536) : NULL;
			if (!grown)
				break;
			line = grown;
		}
		ssize_t n = recv(fd, line + used, room - used - 1, 0);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			*err = n ? -errno : 0;
			break;
		}
		used += (size_t)n;
		line[used] = '\0';
		if (line[used - 1] != '\n')
			continue;
		line[used - 1] = '\0';
		return line;
	}
	free(line);
	return NULL;
}

static int complain(const struct options *options, int err)
{
	const char *why = err == -EAGAIN
			      ? options->timeout_ms
				    ? "not done within --timeout; it goes on, and the server's log "
				      "tells of the end"
				    : "the server does not answer"
			  : err ? strerror(-err)
				: "the server ended without an answer";
	text_printf(stderr, "perilune %s: %s\n", options->command, why);
	return EXIT_FAILED;
}

static int exchange(const struct options *options, int fd, const char *request, json_t **reply)
{
	int err = remote_send(fd, request);
	/* Who is turned away finds the answer before the question is read. */
	char *line = !err || err == -EPIPE ? receive_line(fd, &err) : NULL;
	if (!line)
		return complain(options, err);
	*reply = json_loads(line, 0, NULL);
	free(line);
	if (json_is_object(*reply))
		return 0;
	json_decref(*reply);
	text_printf(stderr, "perilune %s: the answer is not what a server of this version gives\n",
		    options->command);
	return EXIT_FAILED;
}

int remote_ask(const struct options *options, json_t *request, bool patient, json_t **reply)
{
	char *line = message_line(request);
	json_decref(request);
	if (!line) {
		fprintf(stderr, "perilune: not enough memory\n");
		return EXIT_FAILED;
	}
	int fd = remote_reach(options), code = EXIT_FAILED;
	if (fd >= 0) {
		uint64_t ms = patient ? options->timeout_ms : UINT64_C(1000) * ANSWER_SECONDS;
		struct timeval limit = { .tv_sec = (time_t)(ms / 1000),
					 .tv_usec = (suseconds_t)(ms % 1000 * 1000) };
		setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
		code = exchange(options, fd, line, reply);
		close(fd);
	}
	free(line);
	return code;
}
