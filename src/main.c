/*
 * Prepares the process (standard streams, signals, where the Lua modules are), and leaves the rest to the command line.
 * Only this file ends the process.
 */
#include "base/limits.h"
#include "base/thread.h"
#include "base/workdir.h"
#include "bind/bind.h"
#include "cli/cli.h"
#include "restart/program.h"
#include "server/server.h"
#include "vm/guard.h"
#include "vm/vm.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
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
static void main_reset_signals(void)
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
	const char *mark = strrchr(pattern, '?'); /* the folder may have more */
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
	bool is_pattern = strchr(path, '?') && access(path, F_OK);
	int n = snprintf(pattern, sizeof pattern, "%s%s", path, is_pattern ? "" : "/?.lua");
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

static const char NO_MODULES[] = "Perilune's Lua modules are not where the binary expects them (../lua or "
				 "../share/perilune/lua); say where"
				 " with PERILUNE_LUA_PATH";

static const char NO_PROC[] =
    "where this binary is cannot be told, as /proc is not mounted, and so not where Perilune's Lua modules "
    "are:"
    " mount it (mount -t proc proc /proc), start Perilune by its whole path, or say where they are with"
    " PERILUNE_LUA_PATH";

static const char *find_modules(void)
{
	const char *given = getenv("PERILUNE_LUA_PATH");
	char pattern[4096];
	if (given && *given)
		return use_given_path(given);
	char exe[PATH_MAX];
	bool is_known = program_real_path(exe);
	if (!is_known || vm_find_lua_path_from(exe, pattern, sizeof pattern))
		return access("/proc/self/exe", F_OK) ? NO_PROC : NO_MODULES;
	vm_set_lua_path(pattern);
	return NULL;
}

/* It has failed before, when nobody looked at errno. 0: nothing tells any more. */
static int why_output_failed(void)
{
	struct pollfd output = { .fd = STDOUT_FILENO, .events = POLLOUT };
	if (poll(&output, 1, 0) > 0 && (output.revents & POLLERR))
		return EPIPE;
	return write(STDOUT_FILENO, "", 0) < 0 ? errno : 0;
}

/* A full disk is a failure; a reader that has seen enough is not worth a word. */
static int end_output(int code)
{
	int err = fflush(stdout) ? errno : 0;
	if (!err && !ferror(stdout))
		return code;
	if (!err)
		err = why_output_failed();
	if (err != EPIPE)
		fprintf(stderr, "perilune: cannot write to standard output%s%s\n", err ? ": " : "",
			err ? strerror(err) : "");
	return code ? code : EXIT_FAILED;
}

/*
 * A thread that does not come back may be the one that writes there, with the stream's lock, and nobody may take what
 * is written: only what a pipe has room for at once (the buffer is no larger) is given.
 */
static void end_output_of_stuck(void)
{
	struct pollfd output = { .fd = STDOUT_FILENO, .events = POLLOUT };
	if (!ftrylockfile(stdout) && poll(&output, 1, 0) > 0)
		fflush_unlocked(stdout);
}

struct call {
	int argc;
	char **argv;
	int code;
};

static void main_run(void *data)
{
	struct call *call = data;
	workdir_remember();
	program_remember(call->argv);
	call->code = cli_main(call->argc, call->argv, find_modules());
}

/*
 * In this thread scripts are loaded first, and `exec` runs them in it. Where `ulimit -s` leaves it too little for that,
 * all is done in another one, which has what a worker has; signals are for that one.
 */
static void run_with_room(struct call *call)
{
	pthread_t thread;
	char why[LIMITS_TEXT_BYTES];
	sigset_t all;
	int err = thread_start(&thread, THREAD_LUA_BYTES, main_run, call);
	if (err) {
		fprintf(stderr,
			"perilune: ulimit -s leaves too little room for scripts, and no thread with more can"
			" be started: %s\n",
			limits_explain(err, why, sizeof why));
		return;
	}
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, NULL);
	pthread_join(thread, NULL);
}

int main(int argc, char **argv)
{
	struct call call = { argc, argv, EXIT_FAILED };
	open_standard_streams();
	main_reset_signals();
	vm_set_libraries(BIND_LIBRARIES);
	if (thread_is_narrow())
		run_with_room(&call);
	else
		main_run(&call);
	if (server_is_stuck()) {
		end_output_of_stuck();
		/* exit() would pull the ground from under its thread, and ThreadSanitizer's _exit() flushes, too. */
		syscall(SYS_exit_group, call.code);
	}
	call.code = end_output(call.code);
	guard_stop();
	return call.code;
}
