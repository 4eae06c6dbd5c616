/*
 * Prepares the process, and leaves the rest to the command line. Only this file ends the process.
 */
#include "base/workdir.h"
#include "bind/bind.h"
#include "cli/cli.h"
#include "restart/program.h"
#include "server/server.h"
#include "vm/guard.h"
#include "vm/vm.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/*
 * With descriptor 2 closed, the first socket would get the log lines. Where there is no /dev/null, a descriptor that
 * can be neither read nor written keeps the place.
 */
static void open_standard_streams(void)
{
	for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
		if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDWR) < 0)
			(void)open("/", O_PATH);
}

/*
 * A parent that waits for signals with sigwait(3), or that is not told of its children's ends, leaves us its mask and
 * what it ignores: a server that hears no TERM, and never of the end of a process that it has started. Before there are
 * threads, which inherit the mask in turn.
 */
static void reset_signals(void)
{
	sigset_t none;
	sigemptyset(&none);
	signal(SIGCHLD, SIG_DFL);
	signal(SIGPIPE, SIG_IGN);
	signal(SIGXFSZ, SIG_IGN); /* a file at the limit of its size is an error of a write, not the end */
	sigprocmask(SIG_SETMASK, &none, NULL);
}

/* Does the pattern lead to our modules? */
static bool leads_to_modules(const char *pattern)
{
	const char *mark = strchr(pattern, '?');
	char probe[4200];
	snprintf(probe, sizeof probe, "%.*sperilune/runtime%s", (int)(mark - pattern), pattern, mark + 1);
	return !access(probe, R_OK);
}

/* The working directory may be another one when the next VM is opened. */
static void set_absolute(const char *pattern)
{
	char absolute[4096];
	int n = snprintf(absolute, sizeof absolute, "%s/%s", workdir_name(), pattern);
	bool fits = n > 0 && (size_t)n < sizeof absolute;
	vm_set_lua_path(*pattern != '/' && *workdir_name() && fits ? absolute : pattern);
}

/* NULL, or why our Lua modules cannot be found. `path` is what PERILUNE_LUA_PATH says. */
static const char *use_given_path(const char *path)
{
	static char problem[4400];
	char pattern[4096];
	int n = snprintf(pattern, sizeof pattern, "%s%s", path, strchr(path, '?') ? "" : "/?.lua");
	if (n < 0 || (size_t)n >= sizeof pattern)
		return "PERILUNE_LUA_PATH is too long";
	if (!leads_to_modules(pattern)) {
		snprintf(problem, sizeof problem,
			 "PERILUNE_LUA_PATH does not lead to Perilune's Lua modules: %s", pattern);
		return problem;
	}
	set_absolute(pattern);
	return NULL;
}

static const char *find_modules(void)
{
	const char *given = getenv("PERILUNE_LUA_PATH");
	char pattern[4096];
	if (given && *given)
		return use_given_path(given);
	if (vm_find_lua_path(pattern, sizeof pattern))
		return "Perilune's Lua modules are not where the binary expects them (../lua or"
		       " ../share/perilune/lua); say where with PERILUNE_LUA_PATH";
	vm_set_lua_path(pattern);
	return NULL;
}

/* A full disk is a failure; a reader that has seen enough is not worth a word. */
static int end_output(int code)
{
	if (!fflush(stdout) && !ferror(stdout))
		return code;
	if (errno != EPIPE)
		fprintf(stderr, "perilune: cannot write to standard output: %s\n", strerror(errno));
	return code ? code : EXIT_FAILED;
}

/*
 * A thread that does not come back may be the one that writes there, with the stream's lock, and nobody may take what is
 * written: only what a pipe has room for at once (the buffer is no larger) is given.
 */
static void end_output_of_stuck(void)
{
	struct pollfd output = { .fd = STDOUT_FILENO, .events = POLLOUT };
	if (!ftrylockfile(stdout) && poll(&output, 1, 0) > 0)
		fflush_unlocked(stdout);
}

int main(int argc, char **argv)
{
	open_standard_streams();
	reset_signals();
	workdir_remember();
	program_remember(argv);
	vm_set_libraries(BIND_LIBRARIES);
	int code = cli_main(argc, argv, find_modules());
	if (server_is_stuck()) {
		end_output_of_stuck();
		_exit(code); /* exit() would pull the ground from under its thread */
	}
	code = end_output(code);
	guard_stop();
	return code;
}
