/*
 * Starts this program anew: the file that has its name now, with the same arguments and other descriptors.
 *
 * Threads: the main thread.
 */
#pragma once

#include <limits.h>
#include <stdbool.h>
#include <sys/types.h>

/*
 * Remembers what was started. Where the file is, is found out now: once a package has been upgraded, /proc/self/exe
 * says "(deleted)". A link, as $PATH or the command line has it, stays one: it may lead elsewhere next time. The
 * arguments have to stay. After workdir_remember().
 */
void program_remember(char **argv);

const char *program_path(void);

/* After program_remember(): the file that runs, without links. False: it cannot be told. */
bool program_real_path(char path[PATH_MAX]);

/*
 * Was it started by an init for containers, such as tini? These wait for the one process that they started, and with
 * them ends the container: another process that took over would be killed.
 */
bool program_ends_init(void);

/* What the new process gets: descriptors 3, 4, … and variables, before all that we have ourselves. */
struct program_gifts {
	const int *fds;
	unsigned count;
	const char *const *variables; /* "NAME=value", NULL at the end; LISTEN_PID is added */
};

/*
 * Starts it. Returns its id, or a negative error. When its exec fails the process ends, and *errors, a pipe's
 * non-blocking end that the caller closes, holds the errno as an int: read after the end, it blocks nobody.
 */
pid_t program_start(const struct program_gifts *gifts, int *errors);
