#include "jobs/jobs.h"

#include "base/thread.h"
#include "base/thread_state.h"
#include "jobs/lanes.h"
#include "vm/guard.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

struct job_thread {
	struct jobs *jobs;
	pthread_t thread;
	unsigned index;
	atomic_int off; /* not 0: what it runs is called off */
	_Atomic pid_t tid;
	struct job *job; /* that it runs, or NULL */
	bool has_ended;
};

struct job_crew {
	struct job_crew *next;
	struct config *config;
	uint32_t generation;
	unsigned users;   /* generations, of which each worker has one; 0: it is to be closed */
	unsigned running; /* jobs, which may be about to make a VM */
	unsigned vm_count;
	struct job_vm *vms[JOB_THREADS_MAX]; /* each is its thread's */
};

struct jobs {
	pthread_mutex_t lock;
	pthread_cond_t work; /* for threads that are idle */
	const struct job_ops *ops;
	void *owner;
	bool has_threads, stops;
	struct lanes lanes;
	struct job_thread *threads[JOB_THREADS_MAX];
	unsigned started, idle;
	unsigned wanted;  /* as many as the latest configuration says; those behind it take nothing */
	unsigned closing; /* crews that are to be closed */
	struct job_crew *crews;
	uint64_t last_number;
	size_t waiting_bytes; /* of the arguments of jobs that wait */
	struct job_counts counts;
	unsigned next_thread; /* in memory */
	void (*ended)(void *owner);
	void *ended_owner;
};

struct jobs *jobs_new(const struct job_ops *ops, void *owner, bool has_threads)
{
	struct jobs *jobs = calloc(1, sizeof *jobs);
	if (!jobs)
		return NULL;
	pthread_mutex_init(&jobs->lock, NULL);
	pthread_cond_init(&jobs->work, NULL);
	jobs->ops = ops;
	jobs->owner = owner;
	jobs->has_threads = has_threads;
	lanes_init(&jobs->lanes);
	return jobs;
}

void job_free(struct job *job)
{
	free(job->result);
	free(job);
}

/* ---- crews ---- */

static struct job_crew *find_crew(const struct jobs *jobs, const struct config *config, uint32_t generation)
{
	struct job_crew *crew = jobs->crews;
	while (crew && (crew->config != config || crew->generation != generation || !crew->users))
		crew = crew->next;
	return crew;
}

static int start_thread(struct jobs *jobs);

/* Under the lock: what waits may find threads that took nothing before, or that there were not. */
static void use_threads(struct jobs *jobs)
{
	bool may_start = jobs->has_threads && !jobs->stops;
	for (unsigned idle = jobs->idle;
	     may_start && jobs->counts.waiting > idle && jobs->started < jobs->wanted; idle++)
		may_start = !start_thread(jobs);
	pthread_cond_broadcast(&jobs->work);
}

/* Under the lock. */
static void follow_latest(struct jobs *jobs)
{
	const struct job_config *config = &jobs->crews->config->jobs;
	jobs->wanted = config->workers < JOB_THREADS_MAX ? config->workers : JOB_THREADS_MAX;
	lanes_set(&jobs->lanes, config);
	use_threads(jobs);
}

static struct job_crew *new_crew(struct jobs *jobs, struct config *config, uint32_t generation)
{
	struct job_crew *crew = calloc(1, sizeof *crew);
	if (!crew)
		return NULL;
	config_hold(config);
	crew->config = config;
	crew->generation = generation;
	crew->next = jobs->crews;
	jobs->crews = crew;
	follow_latest(jobs);
	return crew;
}

struct job_crew *jobs_join(struct jobs *jobs, struct config *config, uint32_t generation)
{
	pthread_mutex_lock(&jobs->lock);
	struct job_crew *crew = find_crew(jobs, config, generation);
	if (!crew)
		crew = new_crew(jobs, config, generation);
	if (crew)
		crew->users++;
	pthread_mutex_unlock(&jobs->lock);
	return crew;
}

/* Under the lock: it goes, if it is to be closed and nothing of it is left. */
static void remove_crew(struct jobs *jobs, struct job_crew *crew)
{
	if (crew->users || crew->running || crew->vm_count)
		return;
	struct job_crew **link = &jobs->crews;
	while (*link != crew)
		link = &(*link)->next;
	*link = crew->next;
	jobs->closing--;
	if (jobs->crews)
		follow_latest(jobs);
	config_drop(crew->config);
	free(crew);
}

/* Under the lock, which it gives up meanwhile: one VM of a crew whose generation has gone. False: there is none. */
static bool close_one(struct jobs *jobs, unsigned thread)
{
	struct job_crew *crew = jobs->closing ? jobs->crews : NULL;
	while (crew && (crew->users || !crew->vms[thread]))
		crew = crew->next;
	if (!crew)
		return false;
	struct job_vm *vm = crew->vms[thread];
	crew->vms[thread] = NULL;
	pthread_mutex_unlock(&jobs->lock);
	jobs->ops->close(vm);
	pthread_mutex_lock(&jobs->lock);
	crew->vm_count--;
	remove_crew(jobs, crew);
	return true;
}

static void close_all(struct jobs *jobs)
{
	for (unsigned i = 0; i < JOB_THREADS_MAX; i++)
		while (close_one(jobs, i))
			;
}

void jobs_leave(struct jobs *jobs, struct job_crew *crew)
{
	pthread_mutex_lock(&jobs->lock);
	if (!--crew->users) {
		jobs->closing++;
		if (jobs->has_threads && crew->vm_count)
			pthread_cond_broadcast(&jobs->work);
		else if (crew->vm_count)
			close_all(jobs);
		else
			remove_crew(jobs, crew);
	}
	pthread_mutex_unlock(&jobs->lock);
}

/* ---- a job ---- */

static void set_text(struct job *job, enum job_end end, const char *text)
{
	size_t n = strlen(text) + 1;
	job->result = calloc(1, n + JOB_FAULT_TEXTS - 1); /* the other texts are empty */
	job->result_bytes = n;
	job->end = (uint8_t)(job->result ? end : JOB_NO_MEMORY);
	job->code = "EFAULT";
	if (job->result)
		memcpy(job->result, text, n);
}

/* The crew's VM in this thread, made if it is not there. NULL: the job has failed. */
static struct job_vm *vm_for(struct jobs *jobs, struct job *job)
{
	struct job_crew *crew = job->crew;
	unsigned thread = job->thread;
	char why[4096] = "";
	if (crew->vms[thread])
		return crew->vms[thread];
	struct job_place place = { crew->config, crew->generation, thread, jobs->owner };
	struct job_vm *vm = jobs->ops->open(&place, why, sizeof why);
	if (!vm) {
		set_text(job, JOB_FAILED, why);
		return NULL;
	}
	pthread_mutex_lock(&jobs->lock);
	crew->vms[thread] = vm;
	crew->vm_count++;
	pthread_mutex_unlock(&jobs->lock);
	return vm;
}

/* Its memory may be full, or what it keeps half changed. The crew stays for as long as the job does. */
static void discard_vm(struct jobs *jobs, const struct job *job)
{
	struct job_crew *crew = job->crew;
	struct job_vm *vm = crew->vms[job->thread];
	jobs->ops->close(vm);
	pthread_mutex_lock(&jobs->lock);
	crew->vms[job->thread] = NULL;
	crew->vm_count--;
	pthread_mutex_unlock(&jobs->lock);
}

static void run_job(struct jobs *jobs, struct job *job)
{
	struct job_vm *vm = vm_for(jobs, job);
	if (vm && !jobs->ops->run(vm, job))
		discard_vm(jobs, job);
}

/* ---- the queue; under the lock ---- */

static struct job *begin_next(struct jobs *jobs, unsigned thread)
{
	struct job *job = lanes_take(&jobs->lanes);
	if (!job)
		return NULL;
	job->stage = JOB_RUNS;
	job->thread = thread;
	jobs->waiting_bytes -= job->argument_bytes;
	job->crew->running++;
	jobs->counts.waiting--;
	jobs->counts.running++;
	jobs->counts.waited_ns += uv_hrtime() - job->given_ns;
	return job;
}

/* True: it is to be delivered; false: it is to be freed. */
static bool finish_job(struct jobs *jobs, struct job *job)
{
	lanes_over(&jobs->lanes, job);
	jobs->counts.running--;
	if (job->is_abandoned)
		jobs->counts.cancelled++;
	else if (job->end == JOB_DONE)
		jobs->counts.done++;
	else
		jobs->counts.failed++;
	job->stage = JOB_IS_OVER;
	job->crew->running--;
	remove_crew(jobs, job->crew);
	return !job->is_abandoned;
}

static void jobs_deliver(struct job *job)
{
	struct job_port *port = job->port;
	pthread_mutex_lock(&port->lock);
	bool is_open = port->is_open;
	if (is_open && mailbox_push(&port->over, &job->mail))
		port->wake(port);
	pthread_mutex_unlock(&port->lock);
	if (!is_open)
		job_free(job);
}

bool jobs_run_one(struct jobs *jobs)
{
	pthread_mutex_lock(&jobs->lock);
	struct job *job = jobs->wanted ? begin_next(jobs, jobs->next_thread % jobs->wanted) : NULL;
	jobs->next_thread += job != NULL;
	pthread_mutex_unlock(&jobs->lock);
	if (!job)
		return false;
	run_job(jobs, job);
	pthread_mutex_lock(&jobs->lock);
	bool is_wanted = finish_job(jobs, job);
	pthread_mutex_unlock(&jobs->lock);
	if (is_wanted)
		jobs_deliver(job);
	else
		job_free(job);
	return true;
}

/* ---- threads ---- */

/* Under the lock. NULL: it waits for work. */
static struct job *next_job(struct jobs *jobs, struct job_thread *thread)
{
	bool may_run = thread->index < jobs->wanted && !jobs->stops;
	thread->job = may_run ? begin_next(jobs, thread->index) : NULL;
	return thread->job;
}

/* Under the lock, which it gives up meanwhile. */
static void work_on(struct jobs *jobs, struct job_thread *thread, struct job *job)
{
	pthread_mutex_unlock(&jobs->lock);
	guard_call_off_by(&thread->off); /* each time: a VM that could not be loaded has forgotten it */
	run_job(jobs, job);
	pthread_mutex_lock(&jobs->lock);
	thread->job = NULL;
	atomic_store(&thread->off, 0);
	bool is_wanted = finish_job(jobs, job);
	pthread_mutex_unlock(&jobs->lock);
	if (is_wanted)
		jobs_deliver(job);
	else
		job_free(job);
	pthread_mutex_lock(&jobs->lock);
}

static void wait_for_work(struct jobs *jobs)
{
	jobs->idle++;
	pthread_cond_wait(&jobs->work, &jobs->lock);
	jobs->idle--;
}

/* Under the lock. */
static bool has_vms(const struct jobs *jobs, unsigned thread)
{
	const struct job_crew *crew = jobs->crews;
	while (crew && !crew->vms[thread])
		crew = crew->next;
	return crew;
}

/* Under the lock. True: it was the last one. */
static bool leave(struct jobs *jobs, struct job_thread *thread)
{
	thread->has_ended = true;
	atomic_store_explicit(&thread->tid, 0, memory_order_relaxed);
	return !--jobs->counts.threads;
}

static void job_thread_run(void *data)
{
	struct job_thread *thread = data;
	struct jobs *jobs = thread->jobs;
	atomic_store_explicit(&thread->tid, thread_self(), memory_order_relaxed);
	pthread_mutex_lock(&jobs->lock);
	for (;;) {
		struct job *job;
		if (close_one(jobs, thread->index))
			continue;
		if ((job = next_job(jobs, thread)))
			work_on(jobs, thread, job);
		else if (jobs->stops && !has_vms(jobs, thread->index))
			break;
		else
			wait_for_work(jobs);
	}
	bool is_last = leave(jobs, thread);
	void (*ended)(void *) = jobs->ended;
	void *owner = jobs->ended_owner;
	pthread_mutex_unlock(&jobs->lock);
	if (is_last)
		ended(owner);
}

/* Under the lock. 0 or an error. */
static int start_thread(struct jobs *jobs)
{
	struct job_thread *thread = calloc(1, sizeof *thread);
	if (!thread)
		return UV_ENOMEM;
	thread->jobs = jobs;
	thread->index = jobs->started;
	int err = thread_start(&thread->thread, THREAD_LUA_BYTES, job_thread_run, thread);
	if (err) {
		free(thread);
		return err;
	}
	jobs->threads[jobs->started++] = thread;
	jobs->counts.threads++;
	return 0;
}

/* Under the lock: there is a job more. 0, or why there is no thread at all. */
static int find_thread(struct jobs *jobs)
{
	bool is_short = jobs->counts.waiting > jobs->idle && jobs->started < jobs->wanted;
	int err = is_short ? start_thread(jobs) : 0;
	return jobs->started ? 0 : err;
}

/* ---- from workers ---- */

int job_port_open(struct job_port *port, struct jobs *jobs, void (*wake)(struct job_port *port))
{
	*port = (struct job_port){ .jobs = jobs, .wake = wake, .is_open = true };
	mailbox_init(&port->over);
	return jobs ? -pthread_mutex_init(&port->lock, NULL) : 0;
}

void job_port_close(struct job_port *port)
{
	struct mail *next, *mail;
	if (!port->jobs)
		return;
	pthread_mutex_lock(&port->lock);
	port->is_open = false;
	pthread_mutex_unlock(&port->lock);
	for (mail = job_port_take(port); mail; mail = next) {
		next = mail->next;
		job_free((struct job *)(void *)mail);
	}
}

struct mail *job_port_take(struct job_port *port)
{
	return atomic_load_explicit(&port->over.head, memory_order_relaxed) ? mailbox_take(&port->over)
									    : NULL;
}

/*
 * Those that a thread is free for are no queue, whether it has taken them by now or not. Where callers are to wait for
 * room they do so as those whose job is in the queue; but what they have copied has a bound all the same.
 */
static bool has_room(const struct jobs *jobs, const struct job *job)
{
	const struct job_config *config = &job->crew->config->jobs;
	if (jobs->waiting_bytes && jobs->waiting_bytes + job->argument_bytes > config->buffer_bytes)
		return false;
	unsigned running = jobs->counts.running;
	unsigned free_threads = jobs->wanted > running ? jobs->wanted - running : 0;
	return config->when_full == JOBS_BLOCK ||
	       jobs->lanes.lane[job->lane].waiting < config->queue + free_threads;
}

/* Under the lock, as the next. */
static void put_in_lane(struct jobs *jobs, struct job *job)
{
	lanes_put(&jobs->lanes, job);
	jobs->counts.waiting++;
	jobs->waiting_bytes += job->argument_bytes;
}

/* It never runs. */
static void take_from_lane(struct jobs *jobs, struct job *job)
{
	lanes_remove(&jobs->lanes, job);
	jobs->counts.waiting--;
	jobs->waiting_bytes -= job->argument_bytes;
}

/* Under the lock. */
static enum job_given put_job(struct jobs *jobs, struct job *job, int *err)
{
	jobs->counts.submitted++;
	if (!has_room(jobs, job)) {
		jobs->counts.shed++;
		return JOB_IS_SHED;
	}
	job->number = ++jobs->last_number;
	job->stage = JOB_WAITS;
	put_in_lane(jobs, job);
	*err = jobs->has_threads ? find_thread(jobs) : 0;
	if (!*err)
		return JOB_GIVEN;
	take_from_lane(jobs, job);
	jobs->counts.submitted--;
	return JOB_NO_THREAD;
}

enum job_given jobs_give(struct jobs *jobs, struct job *job, int *err)
{
	job->given_ns = uv_hrtime();
	pthread_mutex_lock(&jobs->lock);
	enum job_given given = put_job(jobs, job, err);
	bool has_idle = jobs->idle, has_surplus = jobs->started > jobs->wanted;
	pthread_mutex_unlock(&jobs->lock);
	if (given == JOB_GIVEN && has_surplus)
		pthread_cond_broadcast(
		    &jobs->work); /* the one that were woken might be one that takes nothing */
	else if (given == JOB_GIVEN && has_idle)
		pthread_cond_signal(&jobs->work);
	return given;
}

void jobs_abandon(struct job *job)
{
	struct jobs *jobs = job->port->jobs;
	bool waited = false, looks = false;
	pthread_mutex_lock(&jobs->lock);
	job->is_abandoned = true;
	if (job->stage == JOB_WAITS) {
		take_from_lane(jobs, job);
		jobs->counts.cancelled++;
		waited = true;
	} else if (job->stage == JOB_IS_OVER) {
		jobs->counts.dropped++;
	} else if (jobs->has_threads) {
		atomic_store(&jobs->threads[job->thread]->off, 1);
		looks = true;
	}
	pthread_mutex_unlock(&jobs->lock);
	if (waited)
		job_free(job);
	if (looks)
		guard_look();
}

/* ---- from outside ---- */

void jobs_count(struct jobs *jobs, struct job_counts *counts)
{
	pthread_mutex_lock(&jobs->lock);
	*counts = jobs->counts;
	pthread_mutex_unlock(&jobs->lock);
}

void jobs_count_lane(struct jobs *jobs, unsigned lane, struct job_lane_counts *counts)
{
	pthread_mutex_lock(&jobs->lock);
	counts->waiting = jobs->lanes.lane[lane].waiting;
	counts->running = jobs->lanes.lane[lane].running;
	pthread_mutex_unlock(&jobs->lock);
}

void jobs_stop(struct jobs *jobs, void (*ended)(void *owner), void *owner)
{
	pthread_mutex_lock(&jobs->lock);
	jobs->ended = ended;
	jobs->ended_owner = owner;
	jobs->stops = true;
	for (unsigned i = 0; i < jobs->started; i++)
		if (jobs->threads[i]->job)
			atomic_store(&jobs->threads[i]->off, 1);
	bool has_any = jobs->counts.threads;
	pthread_cond_broadcast(&jobs->work);
	pthread_mutex_unlock(&jobs->lock);
	guard_look();
	if (!has_any)
		ended(owner);
}

bool jobs_are_busy(struct jobs *jobs)
{
	struct job_counts counts;
	jobs_count(jobs, &counts);
	return counts.running;
}

pid_t jobs_busy_thread(struct jobs *jobs, unsigned i)
{
	pthread_mutex_lock(&jobs->lock);
	const struct job_thread *thread = i < jobs->started ? jobs->threads[i] : NULL;
	bool is_busy = thread && thread->job;
	pid_t tid = is_busy ? atomic_load_explicit(&thread->tid, memory_order_relaxed) : 0;
	pthread_mutex_unlock(&jobs->lock);
	return tid;
}

void jobs_free(struct jobs *jobs)
{
	if (!jobs)
		return;
	for (unsigned i = 0; i < jobs->started; i++) {
		pthread_join(jobs->threads[i]->thread, NULL);
		free(jobs->threads[i]);
	}
	assert(!jobs->crews);
	pthread_cond_destroy(&jobs->work);
	pthread_mutex_destroy(&jobs->lock);
	free(jobs);
}
