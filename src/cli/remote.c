#include "cli/remote.h"

#include "base/text.h"
#include "cli/options.h"
#include "control/message.h"
#include "control/path.h"
#include "server/server.h"

#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

enum { ANSWER_SECONDS = 15, SCRIPT_MS = 2000, ANSWER_MAX = 64 << 20, SHOWN_MAX = 16 };

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

/* ---- lines ---- */

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

/* Of the next recv(); 0: none. */
static void remote_set_patience(int fd, uint64_t ms)
{
	struct timeval limit = { .tv_sec = (time_t)(ms / 1000), .tv_usec = (suseconds_t)(ms % 1000 * 1000) };
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
}

/* ---- which server ---- */

/* Servers for a message. */
struct list {
	unsigned count;
	char text[SHOWN_MAX * 512]; /* a line for each, with its line feed before it */
};

/* Those that answer. */
struct search {
	const char *name;   /* of the one that is meant, or NULL */
	const char *script; /* that it is to run, whatever it is called; or NULL */
	struct stat file;   /* the script */
	int fd;             /* of the first that is; -1: none */
	struct list found, others;
	bool forbidden; /* there is one that is another user's */
};

static void remote_note(struct list *list, const char *path, const char *script)
{
	size_t at = strlen(list->text);
	if (list->count++ < SHOWN_MAX)
		snprintf(list->text + at, sizeof list->text - at, "\n  %s%s%.380s", path, script ? ": " : "",
			 script ? script : "");
}

/* The script that a server runs, by its whole path; to be freed. NULL: it does not say. */
static char *script_of(const char *socket)
{
	int err = 0, fd = control_path_connect(socket);
	if (fd < 0)
		return NULL;
	remote_set_patience(fd, SCRIPT_MS);
	char *line = remote_send(fd, "{\"command\":\"status\"}\n") ? NULL : receive_line(fd, &err);
	close(fd);
	json_t *reply = line ? json_loads(line, 0, NULL) : NULL;
	const char *path = json_string_value(json_object_get(reply, "script_path"));
	char *copy = path ? strdup(path) : NULL;
	json_decref(reply);
	free(line);
	return copy;
}

/*
 * Does the server run the script? What cannot be looked at may be: in another's folder, or in one whose name is no
 * UTF-8 and comes with escapes. What is not there is not.
 */
enum answer { NO, YES, UNKNOWN };

static enum answer runs_it(const struct search *search, const char *script)
{
	struct stat theirs;
	if (!stat(script, &theirs))
		return theirs.st_ino == search->file.st_ino && theirs.st_dev == search->file.st_dev ? YES
												    : NO;
	return (errno == ENOENT || errno == ENOTDIR) && !strchr(script, '\\') ? NO : UNKNOWN;
}

/* One that does not say what it runs goes by its name. */
static bool remote_is_meant(const struct search *search, const char *path, const char *script)
{
	enum answer answer = search->script && script ? runs_it(search, script) : UNKNOWN;
	if (answer != UNKNOWN)
		return answer == YES;
	return !search->name || control_path_is_called(path, search->name);
}

static void remote_try_path(void *data, const char *path)
{
	struct search *search = data;
	int fd = control_path_connect(path);
	search->forbidden = search->forbidden || fd == -EACCES;
	if (fd < 0)
		return;
	char *script = search->script ? script_of(path) : NULL;
	bool meant = remote_is_meant(search, path, script);
	if (meant && !search->found.count)
		search->fd = fd;
	else
		close(fd);
	remote_note(meant ? &search->found : &search->others, path, script);
	free(script);
}

static void refuse_several(const struct options *options, const struct search *search)
{
	const char *what = search->script ? "run" : search->name ? "are called" : "are running";
	const char *which = search->script ? search->script : search->name;
	refuse(options, "several_servers",
	       "%u servers %s%s%s%s; name the one that is meant with --control NAME, NAME-PID or PATH:%s",
	       search->found.count, what, which ? " '" : "", which ? which : "", which ? "'" : "",
	       search->found.text);
}

/* `given`: what was named, where that is not the name. */
static void refuse_others(const struct options *options, const struct search *search, const char *given)
{
	char is_none[256] = "";
	if (given != search->name)
		snprintf(is_none, sizeof is_none, "%.200s is no file here, and ", given);
	refuse(options, "no_server", "%sno running server %s '%s'; there %s:%s", is_none,
	       search->script ? "runs" : "is called", search->script ? search->script : search->name,
	       search->others.count == 1 ? "is" : "are", search->others.text);
}

/* The only one that is meant in the first folder that has any. A descriptor, or -1: explained. */
static int find_server(const struct options *options, struct search *search, const char *given)
{
	search->fd = -1;
	for (unsigned i = 0; !search->found.count && control_path_each(i, remote_try_path, search) >= 0; i++)
		;
	if (search->found.count == 1)
		return search->fd;
	if (search->found.count)
		close(search->fd);
	if (search->found.count)
		refuse_several(options, search);
	else if (search->others.count)
		refuse_others(options, search, given);
	else
		refuse(options, "no_server",
		       "found no running server%s in $XDG_RUNTIME_DIR/perilune or /run/perilune;\n"
		       "if one runs, name its control socket with --control PATH",
		       search->forbidden ? " of this user" : "");
	return -1;
}

/* The only one there is (`name` is NULL), or of that name. */
static int find_named(const struct options *options, const char *name)
{
	struct search search = { .name = name };
	return find_server(options, &search, name);
}

/* The one that runs this file; where there is no such file, the one that is called as its server would be. */
static int find_script(const struct options *options, const char *script)
{
	char name[CONTROL_PATH_BYTES], path[PATH_MAX];
	struct search search = { .name = name };
	control_path_name(script, 0, name, sizeof name);
	*strrchr(name, '-') = '\0';
	if (!stat(script, &search.file))
		search.script = realpath(script, path) ? path : script;
	return find_server(options, &search, search.script ? name : script);
}

static int connect_to(const struct options *options, const char *path)
{
	int fd = control_path_connect(path);
	if (fd < 0)
		refuse(options, "no_server", "no server answers at %s: %s", path, strerror(-fd));
	return fd;
}

static bool remote_is_script(const char *given)
{
	size_t len = strlen(given);
	return len > 4 && !strcmp(given + len - 4, ".lua");
}

static bool is_socket(const char *given)
{
	struct stat what;
	return !stat(given, &what) && S_ISSOCK(what.st_mode);
}

/* What is neither a path nor a script is a name, which a folder or a file that lies here may have as well. */
int remote_reach(const struct options *options)
{
	const char *given = options->control ? options->control : getenv("PERILUNE_CONTROL");
	if (!given || !*given || !strcmp(given, "auto"))
		return find_named(options, NULL);
	if (remote_is_script(given) && !is_socket(given))
		return find_script(options, given);
	if (strchr(given, '/') || is_socket(given))
		return connect_to(options, given);
	if (strcmp(given, "off") != 0)
		return find_named(options, given);
	remote_refuse(options, "no_server", "the control socket is off; name one with --control PATH");
	return -1;
}

/* ---- asking ---- */

static int remote_complain(const struct options *options, int err)
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
		return remote_complain(options, err);
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
		remote_set_patience(fd, patient ? options->timeout_ms : UINT64_C(1000) * ANSWER_SECONDS);
		code = exchange(options, fd, line, reply);
		close(fd);
	}
	free(line);
	return code;
}
