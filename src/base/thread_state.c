#include "base/thread_state.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

pid_t thread_self(void)
{
	return (pid_t)syscall(SYS_gettid);
}

/* "17 (a name) S 1 …": the name may have anything in it, and has an end. */
static bool thread_state_parse(const char *text, struct thread_state *state)
{
	const char *name_end = strrchr(text, ')');
	char letter;
	unsigned long user, system;
	if (!name_end || sscanf(name_end + 1, " %c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &letter,
				&user, &system) != 3)
		return false;
	long per_second = sysconf(_SC_CLK_TCK);
	state->is_asleep = letter == 'S' || letter == 'D';
	state->cpu_ms = (user + system) * 1000 / (unsigned long)(per_second > 0 ? per_second : 100);
	return true;
}

bool thread_read(pid_t thread, struct thread_state *state)
{
	char path[48], text[512];
	snprintf(path, sizeof path, "/proc/self/task/%d/stat", (int)thread);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	ssize_t n = read(fd, text, sizeof text - 1);
	close(fd);
	if (n <= 0)
		return false;
	text[n] = '\0';
	return thread_state_parse(text, state);
}
