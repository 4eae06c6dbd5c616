#include "loop/loop.h"

#include <setjmp.h>
#include <signal.h>
#include <stddef.h>

static _Thread_local sigjmp_buf *way_out;

/* What libuv has of a loop that it was half-way in. Nobody can close it; the process is about to end. */
static uv_loop_t wreck;

/* Another thread's abort, such as a failed assertion's, goes on: the handler returns. */
static void on_abort(int number)
{
	(void)number;
	if (way_out)
		siglongjmp(*way_out, 1);
}

static void on_never(uv_timer_t *timer)
{
	(void)timer;
}

/* libuv asks the kernel when it turns, and turns only while there is something to wait for. */
static int open_and_turn(uv_loop_t *loop)
{
	uv_timer_t timer;
	int err = uv_loop_init(loop);
	if (err)
		return err;
	uv_timer_init(loop, &timer);
	uv_timer_start(&timer, on_never, UINT32_MAX, 0);
	uv_run(loop, UV_RUN_NOWAIT);
	uv_close((uv_handle_t *)&timer, NULL);
	uv_run(loop, UV_RUN_NOWAIT);
	return 0;
}

/* abort() may be left by a jump from a handler, which POSIX says and the C library provides for. */
int loop_open(uv_loop_t *loop)
{
	sigjmp_buf here;
	struct sigaction before, ours = { .sa_handler = on_abort };
	int err = UV_ENOMEM;
	sigaction(SIGABRT, &ours, &before);
	if (!sigsetjmp(here, 1)) {
		way_out = &here;
		err = open_and_turn(loop);
	} else {
		wreck = *loop;
	}
	way_out = NULL;
	sigaction(SIGABRT, &before, NULL);
	return err;
}
