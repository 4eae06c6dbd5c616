/* What the kernel knows about a process: the server under load, or this one. */
#pragma once

#include <stdint.h>
#include <sys/types.h>

struct proc_times {
	uint64_t cpu_ns;  /* all threads, user and system */
	uint64_t wait_ns; /* ready to run, while something else had the core */
};

/* Dies when there is no such process. */
struct proc_times proc_times(pid_t pid);

/* Resident bytes, exact: the kernel's quick counters may be off by 64 pages for each core. */
int64_t proc_rss_bytes(pid_t pid);
