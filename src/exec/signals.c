#include "exec/signals.h"

#include "base/thread.h"

#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <time.h>

static const int CAUGHT[] = { SIGINT, SIGTERM };
enum { CAUGHT_COUNT = sizeof CAUGHT / sizeof *CAUGHT, RESEND_MS = 5 };

/* Of the process, as its signals are. */
static sem_t told;
static atomic_int caught;
static atomic_bool is_over; /* what could be interrupted */

static void signals_on_signal(int number)
{
	atomic_store(&caught, number);
	sem_post(&told);
}

int signals_caught(void)
{
	return atomic_load(&caught);
}

/* The calling thread, and what it starts, is left alone by signals. */
static void block_signals(sigset_t *before)
{
	sigset_t all;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, before);
}

static void pause_ms(long ms)
{
	struct timespec time = { .tv_nsec = ms * 1000000 };
	nanosleep(&time, NULL);
}

/* Again and again: a signal that comes between two modes of the VM is lost. */
static void interrupt(struct guard *guard)
{
	for (;;) {
		/* In this order: a call that begins after signals_calm() is not met. */
		uint64_t dispatch = atomic_load(&guard->dispatch);
		if (is_over)
			return;
		if (dispatch & GUARD_UNBOUNDED_MS)
			guard_kill(guard, dispatch);
		pause_ms(RESEND_MS);
	}
}

static void signals_help(void *data)
{
	struct signals *signals = data;
	while (sem_wait(&told))
		;
	if (is_over)
		return;
	uv_async_send(&signals->wake);
	interrupt(signals->guard);
}

static void signals_on_wake(uv_async_t *wake)
{
	uv_stop(wake->loop);
}

int signals_open(struct signals *signals, uv_loop_t *loop, struct guard *guard)
{
	signals->guard = guard;
	int err = sem_init(&told, 0, 0) ? UV_EAGAIN : uv_async_init(loop, &signals->wake, signals_on_wake);
	if (err)
		return err;
	uv_unref((uv_handle_t *)&signals->wake);
	sigset_t before;
	block_signals(&before);
	err = thread_start(&signals->helper, THREAD_BYTES, signals_help, signals);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (err) {
		uv_close((uv_handle_t *)&signals->wake, NULL);
		return err;
	}
	/* Without SA_RESTART: a read from a terminal that nobody types at ends as well. */
	struct sigaction action = { .sa_handler = signals_on_signal, .sa_flags = (int)SA_RESETHAND };
	for (size_t i = 0; i < CAUGHT_COUNT; i++)
		sigaction(CAUGHT[i], &action, NULL);
	return 0;
}

void signals_calm(void)
{
	is_over = true;
}

void signals_close(struct signals *signals)
{
	signals_calm();
	for (size_t i = 0; i < CAUGHT_COUNT; i++)
		signal(CAUGHT[i], SIG_DFL);
	sem_post(&told);
	uv_thread_join(&signals->helper);
	sem_destroy(&told);
	uv_close((uv_handle_t *)&signals->wake, NULL);
}
