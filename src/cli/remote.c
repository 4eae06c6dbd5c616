#include "cli/remote.h"

#include "base/text.h"
#include "cli/options.h"
#include "control/message.h"
#include "control/path.h"
#include "server/server.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

enum { ANSWER_SECONDS = 15, ANSWER_MAX = 64 << 20, SHOWN_MAX = 16 };

/* ---- what it comes to ---- */

/* Standard output is the trace's where `record` writes that there. */
void remote_print_json(const struct options *options, const json_t *reply)
{
	char *line = message_line(reply);
	fputs(line ? line : "", options->out && !strcmp(options->out, "-") ? stderr : stdout);
	free(line);
}

int remote_refuse(const struct options *options, const char *code, const char *why)
{
	json_t *reply = options->json ? message_error(code, why) : NULL;
	if (reply)
		remote_print_json(options, reply);
	else
		text_printf(stderr, "perilune %s: %s\n", options->command, why);
	json_decref(reply);
	return EXIT_FAILED;
}

/* The same, as printf() has it. */
__attribute__((format(printf, 3, 4))) static int refuse(const struct options *options, const char *code,
							const char *format, ...)
{
	char *why = NULL;
	va_list args;
	va_start(args, format);
	if (vasprintf(&why, format, args) < 0)
		why = NULL;
	va_end(args);
	remote_refuse(options, why ? code : "no_memory", why ? why : "not enough memory");
	free(why);
	return EXIT_FAILED;
}

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

/* A line each, all but the last ended; cut where there are more than fit. */
static const char *list(char paths[SHOWN_MAX][CONTROL_PATH_BYTES], unsigned count)
{
	static char text[SHOWN_MAX * (CONTROL_PATH_BYTES + 3) + 1];
	size_t at = 0;
	for (unsigned i = 0; i < count && i < SHOWN_MAX; i++)
		at += (size_t)snprintf(text + at, sizeof text - at, "%s  %s", i ? "\n" : "", paths[i]);
	return text;
}

static int refuse_search(const struct options *options, struct search *search)
{
	if (search->count)
		refuse(options, "several_servers",
		       "%u servers are %s%s%s; name the one that is meant with --control NAME, NAME-PID or "
		       "PATH:\n%s",
		       search->count, search->name ? "called '" : "running", search->name ? search->name : "",
		       search->name ? "'" : "", list(search->paths, search->count));
	else if (search->others)
		refuse(options, "no_server", "no running server is called '%s'; there %s:\n%s", search->name,
		       search->others == 1 ? "is" : "are", list(search->other_paths, search->others));
	else
		refuse(options, "no_server",
		       "found no running server%s in $XDG_RUNTIME_DIR/perilune or /run/perilune;\n"
		       "if one runs, name its control socket with --control PATH",
		       search->forbidden ? " of this user" : "");
	return -1;
}

/* The only one (of that name) in the first folder that has any. A descriptor, or -1: explained. */
static int find_server(const struct options *options, const char *name)
{
	struct search search = { .name = name, .fd = -1 };
	for (unsigned i = 0; !search.count && control_path_each(i, try_path, &search) >= 0; i++)
		;
	if (search.count == 1)
		return search.fd;
	if (search.count)
		close(search.fd);
	return refuse_search(options, &search);
}

static int connect_to(const struct options *options, const char *path)
{
	int fd = control_path_connect(path);
	if (fd < 0)
		refuse(options, "no_server", "no server answers at %s: %s", path, strerror(-fd));
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
		return find_server(options, NULL);
	const char *name = name_of_server(path, called);
	if (name == called || (strcmp(path, "off") != 0 && !is_path(path)))
		return find_server(options, name);
	if (strcmp(path, "off") != 0)
		return connect_to(options, path);
	remote_refuse(options, "no_server", "the control socket is off; name one with --control PATH");
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
	if (err != -EAGAIN)
		return remote_refuse(options, "no_answer",
				     err ? strerror(-err) : "the server ended without an answer");
	if (!options->timeout_ms)
		return remote_refuse(options, "no_answer", "the server does not answer");
	return remote_refuse(options, "timeout",
			     "not done within --timeout; it goes on, and the server's log tells of the end");
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
	return remote_refuse(options, "bad_answer", "the answer is not what a server of this version gives");
}

int remote_ask(const struct options *options, json_t *request, bool patient, json_t **reply)
{
	char *line = message_line(request);
	json_decref(request);
	if (!line)
		return remote_refuse(options, "no_memory", "not enough memory");
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
