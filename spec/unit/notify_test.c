/* What a service manager hears whose queue is full: others send to it as well. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/thread_state.h"
#include "restart/notify.h"
#include "restart/variables.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
	OTHERS_MAX = 32,
	LONG_MS = 60 * 1000, /* nobody waits so long unless the test fails */
};

static struct notify notify;
static int manager;            /* its socket */
static int others[OTHERS_MAX]; /* who sends to it as well */
static unsigned other_count;
static char heard[4096];    /* what came of `notify`, a line for each */
static atomic_uint signals; /* that a handler was called for */

/* ---- the manager, and those who fill its queue ---- */

static struct sockaddr_un address_of_manager(socklen_t *length)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int n = snprintf(address.sun_path + 1, sizeof address.sun_path - 1, "perilune-notify-test-%d",
			 (int)getpid());
	*length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n);
	return address;
}

/* How many words of one more sender's had room. */
static unsigned fill_by_one(void)
{
	socklen_t length;
	unsigned n = 0;
	struct sockaddr_un address = address_of_manager(&length);
	assert_true(other_count < OTHERS_MAX);
	int fd = others[other_count++] = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	while (sendto(fd, "OTHER=1", 7, MSG_DONTWAIT, (const struct sockaddr *)&address, length) == 7)
		n++;
	return n;
}

/* A sender may have no more room of its own before the queue is full. */
static void fill(void)
{
	while (fill_by_one())
		;
}

/* Reads all that is there. */
static void hear(void)
{
	char word[256];
	ssize_t n;
	while ((n = recv(manager, word, sizeof word, MSG_DONTWAIT)) >= 0) {
		size_t at = strlen(heard);
		if (n != 7 || memcmp(word, "OTHER=1", 7) != 0)
			snprintf(heard + at, sizeof heard - at, "%.*s\n", (int)n, word);
	}
}

static int begin_test(void **state)
{
	(void)state;
	socklen_t length;
	struct sockaddr_un address = address_of_manager(&length);
	manager = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	char name[sizeof address.sun_path + 1];
	snprintf(name, sizeof name, "@%s", address.sun_path + 1);
	setenv("NOTIFY_SOCKET", name, 1);
	variables_take();
	notify_open(&notify);
	notify.wait_ms = LONG_MS;
	heard[0] = '\0';
	atomic_store(&signals, 0);
	if (bind(manager, (const struct sockaddr *)&address, length))
		return -1;
	notify_ready(&notify);
	hear();
	return strcmp(heard, "READY=1\n");
}

static int end_test(void **state)
{
	(void)state;
	notify_close(&notify);
	while (other_count)
		close(others[--other_count]);
	return close(manager);
}

#define WITH_MANAGER(TEST) cmocka_unit_test_setup_teardown(TEST, begin_test, end_test)

/* ---- the main thread, which tells something ---- */

static struct {
	pthread_t thread;
	_Atomic pid_t id;
	atomic_bool is_done;
} teller;

static void *tell(void *word)
{
	atomic_store(&teller.id, thread_self());
	notify_tell(&notify, word);
	atomic_store(&teller.is_done, true);
	return NULL;
}

static void begin_to_tell(char *word)
{
	atomic_store(&teller.id, 0);
	atomic_store(&teller.is_done, false);
	assert_int_equal(pthread_create(&teller.thread, NULL, tell, word), 0);
}

/* Until it waits for the manager; or has not, and then there is nothing to wait for. */
static void await_waiting(void)
{
	struct thread_state state = { 0 };
	while (!atomic_load(&teller.is_done) && !(state.is_asleep && atomic_load(&teller.id))) {
		sched_yield();
		if (!thread_read(atomic_load(&teller.id), &state))
			state.is_asleep = false;
	}
}

static void on_signal(int number)
{
	(void)number;
	atomic_fetch_add(&signals, 1);
}

/* As libuv has its handlers: calls go on where the system lets them. */
static void interrupt_teller(void)
{
	unsigned before = atomic_load(&signals);
	struct sigaction action = { .sa_handler = on_signal, .sa_flags = SA_RESTART };
	sigaction(SIGUSR1, &action, NULL);
	pthread_kill(teller.thread, SIGUSR1);
	while (atomic_load(&signals) == before && !atomic_load(&teller.is_done))
		sched_yield();
}

/* ---- the tests ---- */

static void a_word_waits_for_room(void **state)
{
	(void)state;
	fill();
	begin_to_tell("STOPPING=1");
	await_waiting();
	hear();
	pthread_join(teller.thread, NULL);
	hear();
	assert_string_equal(heard, "READY=1\nSTOPPING=1\n");
}

static void the_pulse_does_not_and_leaves_the_wait_to_what_matters(void **state)
{
	(void)state;
	fill();
	notify_alive(&notify);
	begin_to_tell("STOPPING=1");
	await_waiting();
	hear();
	pthread_join(teller.thread, NULL);
	hear();
	assert_string_equal(heard, "READY=1\nSTOPPING=1\n");
}

static void the_pulse_comes_where_there_is_room(void **state)
{
	(void)state;
	fill();
	notify_alive(&notify);
	hear();
	notify_alive(&notify);
	notify_alive(&notify); /* the one before has not been read */
	hear();
	assert_string_equal(heard, "READY=1\nWATCHDOG=1\n");
}

static void a_signal_costs_no_word(void **state)
{
	(void)state;
	fill();
	begin_to_tell("RELOADING=1");
	for (int i = 0; i < 3; i++) {
		await_waiting();
		interrupt_teller();
	}
	await_waiting();
	hear();
	pthread_join(teller.thread, NULL);
	hear();
	assert_string_equal(heard, "READY=1\nRELOADING=1\n");
}

static void signals_do_not_prolong_the_wait(void **state)
{
	(void)state;
	fill();
	notify.wait_ms = 50;
	begin_to_tell("RELOADING=1");
	while (!atomic_load(&teller.is_done)) {
		pthread_kill(teller.thread, SIGUSR1);
		sched_yield();
	}
	pthread_join(teller.thread, NULL);
	hear();
	assert_string_equal(heard, "READY=1\n");
}

static void after_one_in_vain_words_do_not_wait_until_one_has_come(void **state)
{
	(void)state;
	fill();
	notify.wait_ms = 1;
	notify_tell(&notify, "RELOADING=1");
	notify.wait_ms = LONG_MS;
	notify_tell(&notify, "READY=1");
	notify_alive(&notify);
	hear();
	notify_tell(&notify, "RELOADING=2");
	hear();
	fill();
	begin_to_tell("READY=2");
	await_waiting();
	hear();
	pthread_join(teller.thread, NULL);
	hear();
	assert_string_equal(heard, "READY=1\nRELOADING=2\nREADY=2\n");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_MANAGER(a_word_waits_for_room),
		WITH_MANAGER(the_pulse_does_not_and_leaves_the_wait_to_what_matters),
		WITH_MANAGER(the_pulse_comes_where_there_is_room),
		WITH_MANAGER(a_signal_costs_no_word),
		WITH_MANAGER(signals_do_not_prolong_the_wait),
		WITH_MANAGER(after_one_in_vain_words_do_not_wait_until_one_has_come),
	};
	return cmocka_run_group_tests_name("notify", tests, NULL, NULL);
}
