/* Calls that block in the system: which are told of, and where they were. */
#include "vm_calls.h"

#include "vm/stall.h"

#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static sem_t woken;
static int gate[2]; /* a pipe that wait_in_c() reads from */

static void wake(void *data)
{
	sem_post(data);
}

static int begin_test(void **state)
{
	sem_init(&woken, 0, 0);
	stall_listen(wake, &woken);
	return pipe(gate) || vm_begin(state);
}

static int end_test(void **state)
{
	struct stall_event event;
	stall_listen(NULL, NULL);
	while (stall_take(&event))
		;
	close(gate[0]);
	close(gate[1]);
	sem_destroy(&woken);
	return vm_end(state);
}

#define WITH_STALLS(TEST) cmocka_unit_test_setup_teardown(TEST, begin_test, end_test)

static int l_wait_in_c(lua_State *lua)
{
	char byte;
	lua_pushboolean(lua, read(gate[0], &byte, 1) == 1);
	guard_note_return(&vm.guard, lua);
	return 1;
}

/* Opens the gate as soon as somebody has been told. */
static void *open_gate(void *nothing)
{
	while (sem_wait(&woken))
		;
	assert_int_equal(write(gate[1], "x", 1), 1);
	return nothing;
}

static double seconds(clockid_t clock)
{
	struct timespec t;
	clock_gettime(clock, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* The next event; its waking up has been noticed already if it is not the end. */
static void expect(struct stall_event *event, bool is_over)
{
	while (is_over && sem_wait(&woken))
		;
	assert_true(stall_take(event));
	assert_int_equal(event->is_over, is_over);
	assert_int_equal(event->worker, 3);
	assert_int_equal(event->generation, 7);
	assert_string_equal(event->callback, "proceed");
	assert_int_equal(event->conn, 42);
	assert_true(event->ms >= STALL_MS);
}

static void a_call_that_blocks_is_told_of_and_where_it_was(void **state)
{
	(void)state;
	pthread_t opener;
	struct stall_event event;
	const struct vm_budget *const BUDGETS[] = { &SHORT, &NONE };
	set_function(&vm, "wait_in_c", l_wait_in_c);
	guard_set_worker(&vm.guard, 3, 7);
	for (int i = 0; i < 2; i++) {
		pthread_create(&opener, NULL, open_gate, NULL);
		guard_name(&vm.guard, "proceed", 42);
		assert_int_equal(call("local n = 1\nn = wait_in_c()\nn = 3\nreturn n", BUDGETS[i]).status, 0);
		pthread_join(opener, NULL);
		guard_name(&vm.guard, "another", 43);
		assert_works(&vm);
		expect(&event, false);
		assert_string_equal(event.place, "");
		expect(&event, true);
		assert_string_equal(event.place, "chat.lua:2");
		lua_settop(vm.lua, 0);
	}
	assert_false(stall_take(&event));
}

static int l_seconds(lua_State *lua)
{
	lua_pushnumber(lua, seconds(CLOCK_MONOTONIC));
	return 1;
}

/* Longer than a stall, by the clock. */
static const char COMPUTES[] = "local from = seconds() while seconds() - from < 1.5 do end";

static void one_that_computes_is_not(void **state)
{
	(void)state;
	struct stall_event event;
	set_function(&vm, "seconds", l_seconds);
	guard_set_worker(&vm.guard, 3, 7);
	assert_int_equal(call(COMPUTES, &NONE).status, 0);
	assert_false(stall_take(&event));
}

static atomic_bool done;

static void *spin(void *nothing)
{
	while (!atomic_load(&done))
		;
	return nothing;
}

static void *compute_when_idle(void *vm_there)
{
	const struct sched_param none = { 0 };
	struct vm *in = vm_there;
	guard_attach(&in->guard);
	sched_setscheduler(0, SCHED_IDLE, &none);
	call_in(in, COMPUTES, &NONE);
	guard_detach(&in->guard);
	return NULL;
}

/* Another has its processor, and it gets next to nothing of it. */
static void nor_is_one_that_the_machine_does_not_let_run(void **state)
{
	(void)state;
	pthread_t spinner, idler;
	cpu_set_t all, one;
	struct stall_event event;
	set_function(&vm, "seconds", l_seconds);
	guard_set_worker(&vm.guard, 3, 7);
	guard_detach(&vm.guard);
	atomic_store(&done, false);
	sched_getaffinity(0, sizeof all, &all);
	CPU_ZERO(&one);
	CPU_SET((unsigned)sched_getcpu(), &one);
	sched_setaffinity(0, sizeof one, &one); /* the threads inherit it */
	pthread_create(&spinner, NULL, spin, NULL);
	pthread_create(&idler, NULL, compute_when_idle, &vm);
	sched_setaffinity(0, sizeof all, &all);
	pthread_join(idler, NULL);
	atomic_store(&done, true);
	pthread_join(spinner, NULL);
	guard_attach(&vm.guard);
	assert_false(stall_take(&event));
}

static int l_doze(lua_State *lua)
{
	(void)lua;
	nanosleep(&(struct timespec){ .tv_nsec = 20000000 }, NULL);
	return 0;
}

static void waits_of_many_calls_do_not_add_up(void **state)
{
	(void)state;
	struct stall_event event;
	set_function(&vm, "doze", l_doze);
	guard_set_worker(&vm.guard, 3, 7);
	for (int i = 0; i < 60; i++)
		assert_int_equal(call("doze()", &NONE).status, 0);
	assert_false(stall_take(&event));
}

static void those_of_one_call_do(void **state)
{
	(void)state;
	struct stall_event event;
	set_function(&vm, "doze", l_doze);
	guard_set_worker(&vm.guard, 3, 7);
	guard_name(&vm.guard, "proceed", 42);
	do
		assert_int_equal(call("for i = 1, 100 do doze() end", &NONE).status, 0);
	while (sem_trywait(&woken));
	expect(&event, false);
	assert_works(&vm);
	expect(&event, true);
}

static void where_nobody_listens_nothing_is_kept(void **state)
{
	(void)state;
	struct stall_event event;
	set_function(&vm, "doze", l_doze);
	assert_int_equal(call("for i = 1, 70 do doze() end", &NONE).status, 0); /* it is no worker's */
	assert_works(&vm);
	guard_set_worker(&vm.guard, 3, 7);
	stall_listen(NULL, NULL);
	assert_int_equal(call("for i = 1, 70 do doze() end", &NONE).status, 0);
	assert_works(&vm);
	assert_false(stall_take(&event));
}

static int l_wait_unwatched(lua_State *lua)
{
	char byte;
	lua_pushboolean(lua, read(gate[0], &byte, 1) == 1);
	return 1;
}

/* As of functions of modules, which know nothing of it. */
static void functions_in_c_tell_where_they_were_called_if_watched(void **state)
{
	(void)state;
	pthread_t opener;
	struct stall_event event;
	set_function(&vm, "wait_in_c", l_wait_unwatched);
	set_function(&vm, "watch_calls", vm_l_watch_calls);
	set_function(&vm, "watched", vm_l_watched);
	guard_set_worker(&vm.guard, 3, 7);
	guard_name(&vm.guard, "proceed", 42);
	assert_int_equal(call("watch_calls() local lua = function() end assert(watched(lua) == lua)\n"
			      "local open, pcall, print = watched(io.open), watched(pcall), watched(print)\n"
			      "local file = assert(open('/dev/null')) assert(io.type(file) == 'file')\n"
			      "file:close() assert(not open('/none such'))\n"
			      "local ok, why = pcall(watched(os.execute), {})\n"
			      "assert(not ok and why:find 'bad argument #1')\n"
			      "assert(select(2, pcall(error, 'x', 0)) == 'x')\n"
			      "local co = coroutine.wrap(function() return coroutine.yield(1) end)\n"
			      "assert(co() == 1 and co(2) == 2)",
			      &NONE)
			     .status,
			 0);
	pthread_create(&opener, NULL, open_gate, NULL);
	call("local function f()\nlocal n = wait_in_c()\nreturn n\nend\nf()", &NONE);
	pthread_join(opener, NULL);
	assert_works(&vm);
	expect(&event, false);
	expect(&event, true);
	assert_string_equal(event.place, "chat.lua:2");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_STALLS(a_call_that_blocks_is_told_of_and_where_it_was),
		WITH_STALLS(one_that_computes_is_not),
		WITH_STALLS(nor_is_one_that_the_machine_does_not_let_run),
		WITH_STALLS(waits_of_many_calls_do_not_add_up),
		WITH_STALLS(those_of_one_call_do),
		WITH_STALLS(where_nobody_listens_nothing_is_kept),
		WITH_STALLS(functions_in_c_tell_where_they_were_called_if_watched),
	};
	if (!guard_start())
		return 1;
	int failures = cmocka_run_group_tests(tests, NULL, NULL);
	guard_stop();
	return failures;
}
