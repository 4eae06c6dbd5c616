/* Jobs whose VMs are of this test's own: order, lanes, bounds, counts, threads. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/err.h"
#include "jobs/jobs.h"
#include "jobs/lanes.h"

#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- VMs that note what they run ---- */

struct job_vm {
	unsigned thread;
};

static char ran[512]; /* the modules of the jobs, in the order in which they ran */
static unsigned opened, closed;
static bool fails_to_open;

static struct job_vm *open_vm(const struct job_place *place, char *why, size_t size)
{
	if (fails_to_open) {
		snprintf(why, size, "cannot");
		return NULL;
	}
	struct job_vm *vm = calloc(1, sizeof *vm);
	vm->thread = place->thread;
	opened++;
	return vm;
}

/* The function of a job says what becomes of it: "", "fails", "spoils" its VM. */
static bool run_job(struct job_vm *vm, struct job *job)
{
	(void)vm;
	strncat(ran, job->module, sizeof ran - strlen(ran) - 1);
	job->end = *job->function ? JOB_FAILED : JOB_DONE;
	return strcmp(job->function, "spoils") != 0;
}

static void close_vm(struct job_vm *vm)
{
	closed++;
	free(vm);
}

static const struct job_ops OPS = { open_vm, run_job, close_vm };

/* ---- a pool in memory ---- */

static struct jobs *jobs;
static struct job_port port;
static struct job_crew *crew;
static struct config *config;
static struct job_lane_config lanes[JOB_LANES_MAX];

static void wake_nobody(struct job_port *its)
{
	(void)its;
}

enum { BUFFER_BYTES = 1000 };

static struct config *new_config(unsigned workers, unsigned queue, enum jobs_full when_full)
{
	struct config *made = calloc(1, sizeof *made);
	atomic_init(&made->refs, 1);
	made->jobs = (struct job_config){ .workers = workers, .queue = queue, .when_full = when_full };
	made->jobs.lanes = calloc(3, sizeof *made->jobs.lanes);
	memcpy(made->jobs.lanes, lanes, 3 * sizeof *lanes);
	made->jobs.lane_count = 3;
	made->jobs.buffer_bytes = BUFFER_BYTES;
	return made;
}

static void open_pool(unsigned workers, unsigned queue, enum jobs_full when_full)
{
	*ran = '\0';
	opened = closed = 0;
	fails_to_open = false;
	config = new_config(workers, queue, when_full);
	jobs = jobs_new(&OPS, NULL, false);
	assert_non_null(jobs);
	assert_int_equal(job_port_open(&port, jobs, wake_nobody), 0);
	crew = jobs_join(jobs, config, 1);
	assert_non_null(crew);
}

static void assert_counts_add_up(void)
{
	struct job_counts c;
	jobs_count(jobs, &c);
	assert_int_equal(c.submitted, c.done + c.failed + c.shed + c.cancelled + c.waiting + c.running);
}

static void close_pool(void)
{
	assert_counts_add_up();
	job_port_close(&port);
	jobs_leave(jobs, crew);
	config_drop(config);
	jobs_free(jobs);
	assert_int_equal(opened, closed);
	memset(lanes, 0, sizeof lanes);
}

static struct job *new_job(const char *module, const char *function, unsigned lane)
{
	struct job *job = calloc(1, sizeof *job);
	job->crew = crew;
	job->port = &port;
	job->module = module;
	job->function = function;
	job->lane = (uint8_t)lane;
	return job;
}

static struct job *give(const char *module, unsigned lane)
{
	int err;
	struct job *job = new_job(module, "", lane);
	assert_int_equal(jobs_give(jobs, job, &err), JOB_GIVEN);
	return job;
}

static void run_all(void)
{
	while (jobs_run_one(jobs))
		assert_counts_add_up();
}

/* How many have come back; they are freed. */
static unsigned take_all(void)
{
	unsigned count = 0;
	struct mail *next, *mail = job_port_take(&port);
	for (; mail; mail = next, count++) {
		next = mail->next;
		job_free((struct job *)(void *)mail);
	}
	return count;
}

/* ---- order ---- */

static void runs_jobs_in_their_order(void **state)
{
	(void)state;
	open_pool(1, 10, JOBS_BLOCK);
	give("a", 0), give("b", 0), give("c", 0);
	run_all();
	assert_string_equal(ran, "abc");
	assert_int_equal(take_all(), 3);
	close_pool();
}

static void runs_the_first_lane_first(void **state)
{
	(void)state;
	open_pool(1, 10, JOBS_BLOCK);
	give("c", 2), give("b", 1), give("C", 2), give("a", 0), give("B", 1);
	run_all();
	assert_string_equal(ran, "abBcC");
	take_all();
	close_pool();
}

static void leaves_no_lane_for_ever(void **state)
{
	(void)state;
	open_pool(1, 100, JOBS_BLOCK);
	give("z", 2);
	for (int i = 0; i < 2 * LANES_FAIR_EVERY; i++)
		give("a", 0);
	run_all();
	assert_int_equal(strchr(ran, 'z') - ran, LANES_FAIR_EVERY - 1);
	take_all();
	close_pool();
}

/* A lane may have so many of its jobs run at once; those behind them wait, and others go on. */
static void bounds_the_jobs_of_a_lane_that_run(void **state)
{
	(void)state;
	struct lanes some;
	struct job_config bounds = { .lanes = lanes, .lane_count = 2 };
	struct job a = { .lane = 1, .number = 1 }, b = { .lane = 1, .number = 2 },
		   c = { .lane = 0, .number = 3 };
	lanes[1].workers = 1;
	lanes_init(&some);
	lanes_set(&some, &bounds);
	lanes_put(&some, &a), lanes_put(&some, &b);
	assert_ptr_equal(lanes_take(&some), &a);
	assert_null(lanes_take(&some));
	lanes_put(&some, &c);
	assert_ptr_equal(lanes_take(&some), &c);
	assert_null(lanes_take(&some));
	lanes_over(&some, &a);
	assert_ptr_equal(lanes_take(&some), &b);
	memset(lanes, 0, sizeof lanes);
}

/* ---- bounds ---- */

static void sheds_what_there_is_no_room_for(void **state)
{
	int err;
	struct job_counts c;
	(void)state;
	open_pool(1, 2, JOBS_SHED);
	give("a", 0), give("b", 0), give("c", 0); /* one for the thread, which is free, and two that wait */
	struct job *job = new_job("d", "", 0);
	assert_int_equal(jobs_give(jobs, job, &err), JOB_IS_SHED);
	job_free(job);
	give("e", 1); /* a lane has its own room */
	jobs_count(jobs, &c);
	assert_int_equal(c.shed, 1);
	assert_int_equal(c.waiting, 4);
	assert_counts_add_up();
	run_all();
	take_all();
	close_pool();
}

static void waits_for_room_where_it_is_told_to(void **state)
{
	(void)state;
	open_pool(1, 2, JOBS_BLOCK);
	for (int i = 0; i < 10; i++)
		give("a", 0);
	run_all();
	assert_int_equal(take_all(), 10);
	close_pool();
}

/* Whoever waits has copied its arguments. */
static void bounds_what_waits(void **state)
{
	int err;
	(void)state;
	open_pool(1, 10, JOBS_BLOCK);
	struct job *large = new_job("a", "", 0), *more = new_job("b", "", 0), *last = new_job("c", "", 0);
	large->argument_bytes = 2 * BUFFER_BYTES; /* one has room, whatever it is */
	more->argument_bytes = last->argument_bytes = BUFFER_BYTES;
	assert_int_equal(jobs_give(jobs, large, &err), JOB_GIVEN);
	assert_int_equal(jobs_give(jobs, more, &err), JOB_IS_SHED);
	jobs_abandon(large);
	assert_int_equal(jobs_give(jobs, more, &err), JOB_GIVEN);
	assert_int_equal(jobs_give(jobs, last, &err), JOB_IS_SHED);
	run_all();
	assert_int_equal(jobs_give(jobs, last, &err), JOB_GIVEN);
	run_all();
	assert_int_equal(take_all(), 2);
	close_pool();
}

/* ---- the end of who waits ---- */

static void takes_out_what_nobody_wants(void **state)
{
	struct job_counts c;
	(void)state;
	open_pool(1, 10, JOBS_BLOCK);
	give("a", 0);
	jobs_abandon(give("b", 0));
	give("c", 0);
	run_all();
	assert_string_equal(ran, "ac");
	jobs_count(jobs, &c);
	assert_int_equal(c.cancelled, 1);
	take_all();
	close_pool();
}

static void counts_results_that_nobody_was_told(void **state)
{
	struct job_counts c;
	(void)state;
	open_pool(1, 10, JOBS_BLOCK);
	struct job *job = give("a", 0);
	run_all();
	jobs_abandon(job);
	jobs_count(jobs, &c);
	assert_int_equal(c.done, 1);
	assert_int_equal(c.dropped, 1);
	assert_int_equal(take_all(), 1);
	close_pool();
}

static void frees_what_has_come_back_to_a_port_that_closes(void **state)
{
	(void)state;
	open_pool(1, 10, JOBS_BLOCK);
	struct job *job = give("a", 0);
	run_all();
	jobs_abandon(job);
	close_pool();
}

/* ---- VMs ---- */

static void makes_a_vm_anew_that_was_spoilt(void **state)
{
	int err;
	(void)state;
	open_pool(1, 10, JOBS_BLOCK);
	give("a", 0);
	assert_int_equal(jobs_give(jobs, new_job("b", "spoils", 0), &err), JOB_GIVEN);
	give("c", 0);
	run_all();
	assert_int_equal(opened, 2);
	assert_int_equal(closed, 1);
	assert_int_equal(take_all(), 3);
	close_pool();
}

static void has_a_vm_for_each_thread(void **state)
{
	(void)state;
	open_pool(3, 10, JOBS_BLOCK);
	for (int i = 0; i < 7; i++)
		give("a", 0);
	run_all();
	assert_int_equal(opened, 3);
	take_all();
	close_pool();
}

static void fails_a_job_that_has_no_vm(void **state)
{
	struct job_counts c;
	(void)state;
	open_pool(1, 10, JOBS_BLOCK);
	fails_to_open = true;
	struct job *job = give("a", 0);
	run_all();
	assert_int_equal(job->end, JOB_FAILED);
	assert_string_equal((char *)job->result, "cannot");
	jobs_count(jobs, &c);
	assert_int_equal(c.failed, 1);
	take_all();
	close_pool();
}

static void closes_the_vms_of_a_generation_that_goes(void **state)
{
	(void)state;
	open_pool(2, 10, JOBS_BLOCK);
	struct config *next = new_config(1, 10, JOBS_BLOCK);
	give("a", 0), give("b", 0);
	run_all();
	struct job_crew *old = crew;
	crew = jobs_join(jobs, next, 2);
	assert_ptr_equal(jobs_join(jobs, next, 2), crew); /* of another worker */
	assert_ptr_not_equal(crew, old);
	jobs_leave(jobs, old);
	assert_int_equal(closed, 2);
	give("c", 0), give("d", 0);
	run_all();
	assert_int_equal(opened, 3); /* one thread now */
	jobs_leave(jobs, crew);
	assert_int_equal(closed, 2);
	take_all();
	config_drop(next);
	close_pool();
}

/* ---- threads ---- */

enum { MANY = 2000 };

static sem_t come_back, over;

static void wake_taker(struct job_port *its)
{
	(void)its;
	sem_post(&come_back);
}

static void on_ended(void *data)
{
	assert_ptr_equal(data, &over);
	sem_post(&over);
}

static bool run_plainly(struct job_vm *vm, struct job *job)
{
	(void)vm;
	job->end = JOB_DONE;
	return true;
}

static _Atomic unsigned vms;

static struct job_vm *open_counted(const struct job_place *place, char *why, size_t size)
{
	(void)why;
	(void)size;
	struct job_vm *vm = calloc(1, sizeof *vm);
	vm->thread = place->thread;
	vms++;
	return vm;
}

static void close_counted(struct job_vm *vm)
{
	vms--;
	free(vm);
}

static const struct job_ops PLAIN = { open_counted, run_plainly, close_counted };

static void open_threads(unsigned workers)
{
	sem_init(&come_back, 0, 0);
	sem_init(&over, 0, 0);
	config = new_config(workers, MANY, JOBS_BLOCK);
	jobs = jobs_new(&PLAIN, NULL, true);
	assert_int_equal(job_port_open(&port, jobs, wake_taker), 0);
	crew = jobs_join(jobs, config, 1);
}

static void close_threads(void)
{
	assert_counts_add_up();
	job_port_close(&port);
	jobs_stop(jobs, on_ended, &over);
	jobs_leave(jobs, crew);
	sem_wait(&over);
	config_drop(config);
	jobs_free(jobs);
	assert_int_equal(vms, 0);
}

static void threads_run_all_that_they_are_given(void **state)
{
	struct job_counts c;
	unsigned back = 0;
	(void)state;
	open_threads(3);
	for (unsigned i = 0; i < MANY; i++)
		give("a", i % 3);
	while (back < MANY) {
		sem_wait(&come_back);
		back += take_all();
	}
	jobs_count(jobs, &c);
	assert_int_equal(c.done, MANY);
	assert_in_range(c.threads, 1, 3);
	close_threads();
}

static void what_is_abandoned_never_comes_back(void **state)
{
	struct job_counts c;
	unsigned back = 0, kept = 0;
	(void)state;
	open_threads(2);
	for (unsigned i = 0; i < MANY; i++) {
		struct job *job = give("a", 0);
		if (i % 3)
			kept++;
		else
			jobs_abandon(job);
	}
	for (jobs_count(jobs, &c); c.waiting || c.running; jobs_count(jobs, &c))
		;
	assert_int_equal(c.submitted, MANY);
	assert_int_equal(c.done + c.cancelled, MANY);
	assert_int_equal(c.done - c.dropped, kept);
	back = take_all();
	while (back < c.done) { /* counted, and on its way */
		sem_wait(&come_back);
		back += take_all();
	}
	close_threads();
}

static void no_thread_is_there_before_a_job_is(void **state)
{
	struct job_counts c;
	(void)state;
	open_threads(2);
	jobs_count(jobs, &c);
	assert_int_equal(c.threads, 0);
	close_threads();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(runs_jobs_in_their_order),
		cmocka_unit_test(runs_the_first_lane_first),
		cmocka_unit_test(leaves_no_lane_for_ever),
		cmocka_unit_test(bounds_the_jobs_of_a_lane_that_run),
		cmocka_unit_test(sheds_what_there_is_no_room_for),
		cmocka_unit_test(waits_for_room_where_it_is_told_to),
		cmocka_unit_test(bounds_what_waits),
		cmocka_unit_test(takes_out_what_nobody_wants),
		cmocka_unit_test(counts_results_that_nobody_was_told),
		cmocka_unit_test(frees_what_has_come_back_to_a_port_that_closes),
		cmocka_unit_test(makes_a_vm_anew_that_was_spoilt),
		cmocka_unit_test(has_a_vm_for_each_thread),
		cmocka_unit_test(fails_a_job_that_has_no_vm),
		cmocka_unit_test(closes_the_vms_of_a_generation_that_goes),
		cmocka_unit_test(threads_run_all_that_they_are_given),
		cmocka_unit_test(what_is_abandoned_never_comes_back),
		cmocka_unit_test(no_thread_is_there_before_a_job_is),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
