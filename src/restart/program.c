#include "restart/program.h"

#include "base/workdir.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FIRST_FD = 3, PID_DIGITS = 10 };

static struct {
	char path[PATH_MAX];
	char **argv;
} program;

/* ---- which file ---- */

/* Without /proc the name has to do: what was started by it is hardly another file by now. */
static bool is_running_one(const char *path)
{
	struct stat running, found;
	if (stat(path, &found))
		return false;
	if (stat("/proc/self/exe", &running))
		return S_ISREG(found.st_mode) && !access(path, X_OK);
	return running.st_ino == found.st_ino && running.st_dev == found.st_dev;
}

/* False: too long, or another file. */
static bool program_try_path(const char *folder, size_t length, const char *name)
{
	int n = snprintf(program.path, sizeof program.path, "%.*s/%s", (int)length, folder, name);
	return n > 0 && (size_t)n < sizeof program.path && is_running_one(program.path);
}

/* As the shell found it. */
static bool search(const char *name)
{
	const char *path = getenv("PATH");
	while (path && *path) {
		size_t length = strcspn(path, ":");
		if (*path == '/' && program_try_path(path, length, name))
			return true;
		path += length + (path[length] == ':');
	}
	return false;
}

static bool program_follow(const char *name)
{
	const char *folder = workdir_name();
	if (*name == '/')
		return program_try_path("", 0, name + 1);
	if (!strchr(name, '/'))
		return search(name);
	return *folder && program_try_path(folder, strlen(folder), name);
}

void program_remember(char **argv)
{
	program.argv = argv;
	if (argv[0] && program_follow(argv[0]))
		return;
	ssize_t n = readlink("/proc/self/exe", program.path, sizeof program.path - 1);
	program.path[n > 0 ? n : 0] = '\0';
}

const char *program_path(void)
{
	return program.path;
}

bool program_real_path(char path[PATH_MAX])
{
	ssize_t n = readlink("/proc/self/exe", path, PATH_MAX - 1);
	path[n > 0 ? n : 0] = '\0';
	return n > 0 || (*program.path && realpath(program.path, path));
}

bool program_ends_init(void)
{
	static const char *const INITS[] = { "tini", "docker-init", "dumb-init", "catatonit" };
	char name[32] = "";
	FILE *from = getppid() == 1 ? fopen("/proc/1/comm", "re") : NULL;
	if (!from)
		return false;
	if (!fgets(name, sizeof name, from))
		name[0] = '\0';
	fclose(from);
	name[strcspn(name, "\n")] = '\0';
	for (size_t i = 0; i < sizeof INITS / sizeof *INITS; i++)
		if (!strcmp(name, INITS[i]))
			return true;
	return false;
}

/* ---- in the new process ---- */

/* All that it needs, made beforehand: between vfork() and exec nothing may be allocated, and no lock be taken. */
struct start {
	const int *fds;
	int *copies; /* room for as many */
	unsigned count;
	char **variables;
	char *pid; /* digits to be filled in */
	int errors;
	sigset_t mask;
};

/* As exec makes of it: no spaces before the number, but nothing after it either. */
static void write_pid(char *digits)
{
	char text[PID_DIGITS];
	int n = 0;
	for (unsigned pid = (unsigned)getpid(); pid; pid /= 10)
		text[n++] = (char)('0' + pid % 10);
	while (n)
		*digits++ = text[--n];
	*digits = '\0';
}

/*
 * First out of the way: a target may be another's source. Then every other descriptor goes at once, whether or not
 * somebody has forgotten O_CLOEXEC, and the sooner a connection is ours alone again, the better.
 */
static bool arrange_descriptors(struct start *start)
{
	const int end = FIRST_FD + (int)start->count;
	int errors = fcntl(start->errors, F_DUPFD_CLOEXEC, end + 1);
	if (errors < 0)
		return false;
	start->errors = errors;
	for (unsigned i = 0; i < start->count; i++)
		if ((start->copies[i] = fcntl(start->fds[i], F_DUPFD_CLOEXEC, end + 1)) < 0)
			return false;
	for (unsigned i = 0; i < start->count; i++)
		if (dup2(start->copies[i], FIRST_FD + (int)i) < 0)
			return false;
	start->errors = dup3(errors, end, O_CLOEXEC);
	if (start->errors < 0)
		return false;
	close_range((unsigned)end + 1, UINT_MAX, 0);
	return true;
}

/* A handler must not run here: it would act on the memory of the process that we come from. */
static void program_reset_signals(const struct start *start)
{
	struct sigaction action, standard = { .sa_handler = SIG_DFL };
	for (int i = 1; i < NSIG; i++)
		if (!sigaction(i, NULL, &action) && (i == SIGPIPE || action.sa_handler != SIG_IGN))
			sigaction(i, &standard, NULL);
	sigprocmask(SIG_SETMASK, &start->mask, NULL);
}

/* In a frame of its own: what it writes there, the other process does not read after vfork(). */
static _Noreturn __attribute__((noinline)) void become(struct start *start)
{
	write_pid(start->pid);
	if (arrange_descriptors(start)) {
		program_reset_signals(start);
		execve(program.path, program.argv, start->variables);
	}
	int err = errno;
	ssize_t ignored = write(start->errors, &err, sizeof err);
	(void)ignored;
	_exit(127);
}

/* ---- in this one ---- */

/* Pointers to the gifts' variables, LISTEN_PID and our own; all but LISTEN_PID are lent. */
static int make_variables(struct start *start, const struct program_gifts *gifts)
{
	static const char NAME[] = "LISTEN_PID=";
	size_t given = 0, ours = 0;
	while (gifts->variables[given])
		given++;
	while (environ[ours])
		ours++;
	start->variables = malloc((given + ours + 2) * sizeof *start->variables);
	char *own = calloc(1, sizeof NAME + PID_DIGITS);
	if (!start->variables || !own) {
		free(start->variables);
		free(own);
		return -ENOMEM;
	}
	memcpy(own, NAME, sizeof NAME);
	start->pid = own + sizeof NAME - 1;
	start->variables[0] = own;
	memcpy(start->variables + 1, gifts->variables, given * sizeof *start->variables);
	memcpy(start->variables + 1 + given, environ, (ours + 1) * sizeof *start->variables);
	return 0;
}

/*
 * vfork() and not fork(): the new process borrows our memory until its exec, so that a large server need not copy its
 * page tables, and only this thread waits. It is not posix_spawn(), as LISTEN_PID has to name the new process. More
 * than exec is called in between, which POSIX leaves open and Linux allows, with no signal in the way: what
 * posix_spawn() does itself. Where vfork() is fork(), as in ThreadSanitizer's builds, nothing changes.
 */
static pid_t launch(struct start *start)
{
	sigset_t all;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &start->mask);
	pid_t pid = vfork(); /* NOLINT(clang-analyzer-security.insecureAPI.vfork) */
	if (!pid)
		become(start); /* NOLINT(clang-analyzer-unix.Vfork) */
	int err = errno;
	pthread_sigmask(SIG_SETMASK, &start->mask, NULL);
	return pid < 0 ? -err : pid;
}

pid_t program_start(const struct program_gifts *gifts, int *errors)
{
	int pipe_fds[2];
	struct start start = { .fds = gifts->fds, .count = gifts->count };
	if (pipe2(pipe_fds, O_CLOEXEC | O_NONBLOCK))
		return -errno;
	start.errors = pipe_fds[1];
	start.copies = calloc(gifts->count + 1, sizeof *start.copies);
	pid_t pid = start.copies ? make_variables(&start, gifts) : -ENOMEM;
	if (!pid) {
		pid = launch(&start);
		free(start.variables[0]);
		free(start.variables);
	}
	free(start.copies);
	close(pipe_fds[1]);
	*errors = pipe_fds[0];
	if (pid < 0)
		close(pipe_fds[0]);
	return pid;
}
