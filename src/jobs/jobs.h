/*
 * Jobs: calls that run in threads of their own, since they compute for long or block in the system.
 *
 * All workers of a process have one pool of threads, which take jobs out of lanes: a thread that is free takes the
 * first job of the first lane that has one, and now and then the one that has waited longest, whatever its lane. Each
 * generation of the script has a *crew*: a VM in each thread that has run a job of it. What becomes of a job goes back
 * through the *port* of the worker that has given it. A thread is started when there is a job that no other one is free
 * for; without jobs there is none. An app in memory has no threads: it runs jobs one by one when it likes.
 *
 * What a VM is, and what it does with a job, is for who makes the pool to say (struct job_ops).
 *
 * Threads: any, but where said otherwise. The lock is held for a few steps, and no Lua runs meanwhile.
 */
#pragma once

#include "base/mailbox.h"
#include "base/wheel.h"
#include "config/config.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct job;
struct job_crew;
struct job_vm;
struct jobs;

enum job_end {
	JOB_DONE,      /* the result is what its function has returned: vm/values.h */
	JOB_FAILED,    /* it is JOB_FAULT_TEXTS texts, each with its zero */
	JOB_REFUSED,   /* it is a text: there is no such function, and the caller is to blame */
	JOB_TOO_LARGE, /* what it has returned is more than jobs.message */
	JOB_NO_MEMORY, /* for the result */
	JOB_CALLED_OFF /* nobody wants it any more */
};

/* Of one that has failed: the message, the report for people, the traceback, the place, what the log folds it by. */
enum { JOB_FAULT_TEXTS = 5 };

enum job_stage { JOB_WAITS, JOB_RUNS, JOB_IS_OVER };

/* What a worker has: its own memory, which outlives all threads of the pool. */
struct job_port {
	struct jobs *jobs;    /* NULL: it has none */
	pthread_mutex_t lock; /* against job_port_close() */
	bool is_open;
	struct mailbox over;                 /* jobs, once they are over */
	void (*wake)(struct job_port *port); /* the first of them has come; from any thread */
};

/* One block of malloc(), whose owner is who has given it, until it abandons it. */
struct job {
	struct mail mail;       /* first: in the port, once it is over */
	struct wheel_node node; /* in a lane, while it waits */
	struct job_crew *crew;
	struct job_port *port;
	const char *module, *function; /* these three lie in the same block */
	const uint8_t *arguments;
	size_t argument_bytes;
	uint64_t conn; /* on whose behalf; 0: the app's */
	unsigned worker;
	uint64_t given_ns; /* when, by uv_hrtime() */
	uint64_t number;   /* in the order in which they were given */
	uint8_t lane;
	uint8_t stage;     /* enum job_stage; under the lock */
	bool is_abandoned; /* the same, while it runs; then its owner's */
	unsigned thread;   /* which runs it, from 0 */
	uint8_t end;       /* enum job_end; when it is over */
	const char *code;  /* of JOB_FAILED: what its caller is told */
	uint8_t *result;   /* malloc()'s, or NULL */
	size_t result_bytes;
};

struct job_counts {
	uint64_t submitted; /* = done + failed + shed + cancelled + waiting + running */
	uint64_t done, failed;
	uint64_t shed;      /* there was no room in the lane */
	uint64_t cancelled; /* nobody wanted them any more, or their time was over: before they were over */
	uint64_t dropped;   /* of those that are done or have failed: nobody has been told */
	unsigned waiting, running;
	uint64_t waited_ns; /* all together, before they began */
	unsigned threads;
};

struct job_lane_counts {
	unsigned waiting, running;
};

/* Where a VM for jobs is made, and what for. */
struct job_place {
	struct config *config; /* held as long as it is there */
	uint32_t generation;
	unsigned thread;
	void *owner; /* what jobs_new() was given */
};

struct job_ops {
	/* In the thread that will use it. NULL: why not, in `why`. */
	struct job_vm *(*open)(const struct job_place *place, char *why, size_t size);
	/* Sets the job's end and its result. False: the VM is not fit for another one. */
	bool (*run)(struct job_vm *vm, struct job *job);
	void (*close)(struct job_vm *vm);
};

/* NULL: no memory. */
struct jobs *jobs_new(const struct job_ops *ops, void *owner, bool has_threads);

/* Once all have left their crews; where there are threads, after ended() of jobs_stop() was called. NULL: nothing. */
void jobs_free(struct jobs *jobs);

/* ---- generations ---- */

/*
 * The crew of the generation with this configuration, which all workers share; each says so once, and leaves it when
 * its generation is closed and has no jobs any more. The lanes are those of the latest. NULL: no memory.
 */
struct job_crew *jobs_join(struct jobs *jobs, struct config *config, uint32_t generation);
void jobs_leave(struct jobs *jobs, struct job_crew *crew);

/* ---- a worker ---- */

/* 0 or an error. `jobs` NULL: it has none, and there is nothing to close. */
int job_port_open(struct job_port *port, struct jobs *jobs, void (*wake)(struct job_port *port));

/* All of its jobs are abandoned. From now on no thread touches it. */
void job_port_close(struct job_port *port);

/* The jobs that are over, oldest first, linked by mail.next: the caller's, to be freed. Its thread. */
struct mail *job_port_take(struct job_port *port);

enum job_given { JOB_GIVEN, JOB_IS_SHED, JOB_NO_THREAD };

/*
 * Gives a job whose crew, port, lane, names and arguments are set. If it is not taken, it is the caller's still, and
 * *err says why for JOB_NO_THREAD.
 */
enum job_given jobs_give(struct jobs *jobs, struct job *job, int *err);

/* Nobody wants it any more: it never comes back. If it runs, its call is ended. The owner's thread. */
void jobs_abandon(struct job *job);

void job_free(struct job *job);

/* ---- in memory ---- */

/* Runs the job that is next in this thread. False: there is none. */
bool jobs_run_one(struct jobs *jobs);

/* ---- from outside ---- */

void jobs_count(struct jobs *jobs, struct job_counts *counts);
void jobs_count_lane(struct jobs *jobs, unsigned lane, struct job_lane_counts *counts);

/*
 * All workers have stopped: what runs is called off, and each thread ends once its VMs are closed, since their
 * generations are. ended(owner) is called by the last one of them; at once, where there is none.
 */
void jobs_stop(struct jobs *jobs, void (*ended)(void *owner), void *owner);

/* Does any thread run a job? */
bool jobs_are_busy(struct jobs *jobs);

/* The i-th thread's name for the system, if it runs a job; else 0. */
pid_t jobs_busy_thread(struct jobs *jobs, unsigned i);

/* Of that many at most. */
enum { JOB_THREADS_MAX = 256 };
