#include "server/pulse.h"

#include "base/log.h"
#include "restart/notify.h"
#include "worker/worker.h"

enum { BEAT_MIN_MS = 5 };

static unsigned count_mute(struct pulse *pulse)
{
	unsigned n = 0;
	for (unsigned i = 0; i < pulse->worker_count; i++)
		n += !worker_poke(&pulse->workers[i]);
	return n;
}

static void on_beat(uv_timer_t *timer)
{
	struct pulse *pulse = timer->data;
	unsigned mute = count_mute(pulse);
	if (mute && !pulse->silent)
		log_write(LOG_WARN,
			  "a worker does not answer: the service manager's watchdog is not told that we live",
			  F_INT("workers", mute));
	pulse->silent = mute;
	if (!mute)
		notify_alive(pulse->notify);
}

void pulse_open(struct pulse *pulse, uv_loop_t *loop)
{
	uv_timer_init(loop, &pulse->timer);
	pulse->timer.data = pulse;
}

void pulse_close(struct pulse *pulse)
{
	uv_close((uv_handle_t *)&pulse->timer, NULL);
}

/* Twice as often as is asked for, as sd_watchdog_enabled(3) advises; but not so often that it is all we do. */
void pulse_start(struct pulse *pulse, struct notify *notify, struct worker *workers, unsigned worker_count)
{
	uint64_t every_ms = notify->watchdog_us / 2000;
	pulse->notify = notify;
	pulse->workers = workers;
	pulse->worker_count = worker_count;
	if (notify_wanted(notify) && notify->watchdog_us)
		uv_timer_start(&pulse->timer, on_beat, 0, every_ms > BEAT_MIN_MS ? every_ms : BEAT_MIN_MS);
}

void pulse_ask_nobody(struct pulse *pulse)
{
	pulse->worker_count = 0;
}
