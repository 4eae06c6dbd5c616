#define _GNU_SOURCE
#include "proc.h"

#include "client.h"
#include "clock.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

/* The sum of the second number (run delay) of every thread's schedstat; zero where the kernel keeps none. */
static uint64_t wait_ns(pid_t pid)
{
	char path[300];
	uint64_t total = 0;
	struct dirent *entry;
	DIR *tasks;

	snprintf(path, sizeof path, "/proc/%d/task", (int)pid);
	tasks = opendir(path);
	if (!tasks)
		return 0;
	while ((entry = readdir(tasks))) {
		uint64_t waited = 0;
		FILE *f;

		snprintf(path, sizeof path, "/proc/%d/task/%.16s/schedstat", (int)pid, entry->d_name);
		f = fopen(path, "r");
		if (!f)
			continue;
		if (fscanf(f, "%*u %" SCNu64, &waited) == 1)
			total += waited;
		fclose(f);
	}
	closedir(tasks);
	return total;
}

struct proc_times proc_times(pid_t pid)
{
	clockid_t cpu;

	/* The process's CPU clock: nanoseconds, up to date, where /proc/PID/stat counts ticks of 10 ms. */
	errno = clock_getcpuclockid(pid, &cpu);
	if (errno)
		die("no such server process");
	return (struct proc_times){ .cpu_ns = clock_ns(cpu), .wait_ns = wait_ns(pid) };
}

static int64_t field_kib(pid_t pid, const char *file, const char *format)
{
	char path[64], line[256];
	int64_t kib = -1;
	FILE *f;

	snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, file);
	f = fopen(path, "r");
	if (!f)
		return -1;
	while (kib < 0 && fgets(line, sizeof line, f))
		if (sscanf(line, format, &kib) != 1)
			kib = -1;
	fclose(f);
	return kib;
}

int64_t proc_rss_bytes(pid_t pid)
{
	int64_t kib = field_kib(pid, "smaps_rollup", "Rss: %" SCNd64);

	if (kib < 0)
		kib = field_kib(pid, "status", "VmRSS: %" SCNd64);
	if (kib < 0)
		die("cannot read the memory of the server process");
	return kib * 1024;
}
