/* perilune new: a folder with an app to begin with. */
#include "base/suggest.h"
#include "base/text.h"
#include "cli/cli.h"
#include "cli/options.h"
#include "cli/scaffold.h"
#include "restart/program.h"
#include "server/server.h"
#include "vm/vm.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>

static const char *const TEMPLATES[] = { "echo", "chat",  "rpc",         "binary",
					 "game", "proxy", "worker-pool", "http" };
enum { TEMPLATE_COUNT = sizeof TEMPLATES / sizeof *TEMPLATES, NAME_MAX_BYTES = 64 };

static int new_refuse(void)
{
	fprintf(stderr, "see 'perilune new --help'\n");
	return EXIT_USAGE;
}

/* 0, or an exit code after having said which there are. */
static int check_template(const char *name)
{
	for (size_t i = 0; i < TEMPLATE_COUNT; i++)
		if (!strcmp(TEMPLATES[i], name))
			return 0;
	const char *near = suggest_nearest(name, TEMPLATES, TEMPLATE_COUNT);
	text_printf(stderr, "perilune new: there is no template '%s'", name);
	if (near)
		text_printf(stderr, " (did you mean '%s'?)", near);
	fprintf(stderr, "; there are:");
	for (size_t i = 0; i < TEMPLATE_COUNT; i++)
		text_printf(stderr, " %s", TEMPLATES[i]);
	fputc('\n', stderr);
	return new_refuse();
}

/* The last part of the folder's path: the name of the app, its service and its image. */
static const char *new_name_of(const char *folder)
{
	const char *slash = strrchr(folder, '/');
	return slash ? slash + 1 : folder;
}

static bool is_letter_or_digit(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

static bool is_name(const char *name)
{
	size_t len = strlen(name);
	if (!is_letter_or_digit(name[0]) || len > NAME_MAX_BYTES)
		return false;
	for (size_t i = 0; i < len; i++)
		if (!is_letter_or_digit(name[i]) && !strchr("_.-", name[i]))
			return false;
	return true;
}

/* 0, or an exit code after having said what is wrong. */
static int check_folder(const char *folder)
{
	if (!folder) {
		fprintf(stderr,
			"perilune new: expects the name of the folder to be made, as in 'perilune new chat "
			"--template chat'\n");
		return new_refuse();
	}
	if (is_name(new_name_of(folder)))
		return 0;
	text_printf(
	    stderr,
	    "perilune new: '%s' is no name for an app: letters, digits, _ . and - only, beginning with a "
	    "letter or "
	    "a digit, at most %d\n",
	    new_name_of(folder), NAME_MAX_BYTES);
	return new_refuse();
}

/* Where Perilune's own Lua files lie: 0, or UV_ENAMETOOLONG. `below` is a path in there. */
static int find_own(const char *below, char *path, size_t size)
{
	const char *pattern = vm_lua_path(), *mark = strrchr(pattern, '?');
	char folder[PATH_MAX];
	int n = snprintf(path, size, "%.*sperilune/%s", mark ? (int)(mark - pattern) : 0, pattern, below);
	if (n < 0 || (size_t)n >= size)
		return UV_ENAMETOOLONG;
	/* What is written into files is not to lead through build/../lua; what is not there is complained of later. */
	if (realpath(path, folder) && strlen(folder) < size)
		memcpy(path, folder, strlen(folder) + 1);
	return 0;
}

/*
 * A path between quotes, as JSON and units have them. In a unit percent signs are specifiers, so they are doubled.
 * False: it is too long.
 */
static bool quote(const char *path, bool for_unit, char *quoted, size_t size)
{
	size_t n = 0;
	quoted[n++] = '"';
	for (; *path && n + 4 < size; path++) {
		if (*path == '"' || *path == '\\')
			quoted[n++] = '\\';
		else if (*path == '%' && for_unit)
			quoted[n++] = '%';
		quoted[n++] = *path;
	}
	quoted[n++] = '"';
	quoted[n] = '\0';
	return !*path;
}

static int copy_template(struct scaffold *scaffold, const char *name)
{
	char below[64], folder[PATH_MAX];
	snprintf(below, sizeof below, "templates/%s", name);
	int err = find_own(below, folder, sizeof folder);
	return err ? err : scaffold_copy(scaffold, folder);
}

static int new_complain(const struct scaffold *scaffold, const char *folder, int err)
{
	if (err == UV_EEXIST && !scaffold->made_count)
		text_printf(
		    stderr,
		    "perilune new: %s is there already, and nothing was changed: choose another name, or "
		    "remove "
		    "it\n",
		    folder);
	else
		text_printf(stderr, "perilune new: cannot make %s\n", scaffold->problem);
	return EXIT_FAILED;
}

static int new_by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Would a shell find it by its name? */
static bool is_on_path(const char *name)
{
	const char *path = getenv("PATH");
	for (const char *at = path; at; at = strchr(at, ':') ? strchr(at, ':') + 1 : NULL) {
		char file[PATH_MAX];
		int n = snprintf(file, sizeof file, "%.*s/%s", (int)strcspn(at, ":"), at, name);
		if (n > 0 && (size_t)n < sizeof file && !access(file, X_OK))
			return true;
	}
	return false;
}

/* A path as a shell takes it; one that is too long is cut. */
static const char *for_shell(const char *path, char *word, size_t size)
{
	static const char PLAIN[] =
	    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-+=:,./@%";
	size_t n = 0;
	if (!path[strspn(path, PLAIN)])
		return path;
	word[n++] = '\'';
	for (; *path && n + 6 < size; path++) {
		if (*path == '\'')
			n += (size_t)snprintf(word + n, size - n, "'\\''");
		else
			word[n++] = *path;
	}
	word[n++] = '\'';
	word[n] = '\0';
	return word;
}

static void congratulate(const struct scaffold *scaffold, const char *template, const char *binary)
{
	size_t prefix = strlen(scaffold->target) + 1;
	qsort(scaffold->made + 1, scaffold->made_count - 1, sizeof *scaffold->made, new_by_name);
	text_printf(stdout, "%s, from the template %s:\n", scaffold->target, template);
	for (size_t i = 1; i < scaffold->made_count; i++)
		printf("  %s\n", scaffold->made[i] + prefix);
	char target[2 * PATH_MAX], program[2 * PATH_MAX];
	const char *ours = for_shell(is_on_path("perilune") ? "perilune" : binary, program, sizeof program);
	text_printf(stdout, "\nNow: cd %s && %s test && %s run --watch\n",
		    for_shell(scaffold->target, target, sizeof target), ours, ours);
}

static int make(const char *folder, const char *template)
{
	char library[PATH_MAX], binary[PATH_MAX] = "perilune", types[2 * PATH_MAX], exec[2 * PATH_MAX];
	if (!program_real_path(binary))
		snprintf(binary, sizeof binary, "perilune");
	if (find_own("library", library, sizeof library) || !quote(library, false, types, sizeof types) ||
	    !quote(binary, true, exec, sizeof exec))
		return EXIT_FAILED;
	bool is_http = !strcmp(template, "http");
	const struct placeholder placeholders[] = { { "@NAME@", new_name_of(folder) },
						    { "@LIBRARY@", types },
						    { "@EXEC@", exec },
						    { "@SCHEME@", is_http ? "http" : "tcp" },
						    { "@PORT@", is_http ? "8080" : "9000" },
						    { NULL, NULL } };
	struct scaffold scaffold;
	int err = scaffold_open(&scaffold, folder, placeholders);
	if (!err)
		err = copy_template(&scaffold, "common");
	if (!err)
		err = copy_template(&scaffold, template);
	if (!err)
		congratulate(&scaffold, template, binary);
	int code = err ? new_complain(&scaffold, folder, err) : EXIT_OK;
	if (err)
		scaffold_undo(&scaffold);
	scaffold_close(&scaffold);
	return code;
}

static int new (const struct options *options)
{
	const char *template = options->template ? options->template : TEMPLATES[0];
	int code = check_folder(options->operand);
	if (!code)
		code = check_template(template);
	return code ? code : make(options->operand, template);
}

const struct command command_new = {
	.name = "new",
	.arguments = "NAME [options]",
	.summary = "make a folder with an app to begin with",
	.about = "Makes the folder NAME with an app, its specification, and what it needs to be checked, "
		 "packaged and\n"
		 "served. Nothing that is there is overwritten.",
	.notes = "Templates:\n"
		 "  echo         says every line back\n"
		 "  chat         names, rooms, and what is said to all others\n"
		 "  rpc          remote calls in JSON, behind a length of four bytes\n"
		 "  binary       fields of tag, length and value, read from views of the bytes\n"
		 "  game         a world of ten ticks a second, which a reload takes along\n"
		 "  proxy        passes clients on to backends, and leaves out those that are down\n"
		 "  worker-pool  work that takes long, in a pool of threads that says when it is busy\n"
		 "  http         an API: routes, checked JSON, a log line for each request\n"
		 "\n"
		 "Exit codes:\n"
		 "  0   made\n"
		 "  1   it is there already, or could not be written\n"
		 "  2   wrong usage\n"
		 "\n"
		 "Example:\n"
		 "  perilune new chat --template chat\n",
	.options = FOR_NEW,
	.run = new,
};
