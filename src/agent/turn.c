/* What the agents of a VM do without being asked: calls whose wait is over, timers, and what is told of the VM. */
#include "agent/agent.h"

#include "agent/client.h"
#include "agent/forward.h"
#include "agent/line.h"
#include "agent/member.h"
#include "agent/recipient.h"
#include "agent/resident.h"
#include "agent/run.h"
#include "agent/task.h"
#include "agent/timer.h"
#include "base/log.h"

static struct run *run_of(struct wheel_node *timer)
{
	return (struct run *)(void *)((char *)timer - offsetof(struct run, timer));
}

/* No time-out fires for as long as the process stood still: what has come in time may lie in a socket. */
static bool is_put_off(struct agents *agents, struct run *run, uint64_t now_ms)
{
	if (now_ms >= agents->host->grace_until_ms)
		return false;
	wheel_arm(&agents->sleeps, &run->timer, agents->host->grace_until_ms);
	return true;
}

/* Who waits in conn:read there. */
static const struct run *reader_at(const struct agents *agents, const struct channel *channel)
{
	const struct client *client = client_of(channel);
	return client ? client->reader : work_reader(agents, channel);
}

/* What it waits for may have arrived in time, and not been looked at yet. */
static void time_out_read(struct agents *agents, struct run *run, uint64_t now_ms)
{
	struct channel *channel = run->at;
	conn_read_late(channel->conn);
	if (channel->reading && reader_at(agents, channel) == run && run->until_ms <= now_ms)
		run_fail_read(agents, run, "timeout", "ETIMEDOUT");
}

/* What it waits for in a line has not come in time. */
static void time_out_line(struct agents *agents, struct run *run)
{
	lua_settop(run->co.lua, 0); /* what it had to give */
	run_fail_read(agents, run, "timeout", "ETIMEDOUT");
}

static void time_out_wait(struct agents *agents, struct run *run, uint64_t now_ms)
{
	if (run->wait == WAIT_OWED)
		forward_time_out(agents, run, now_ms);
	else if (run->wait == WAIT_LINE)
		time_out_line(agents, run);
	else if (run->wait == WAIT_ERRAND)
		errand_time_out(agents, run);
	else
		time_out_read(agents, run, now_ms);
}

static void wake_due(struct agents *agents, struct run *run, uint64_t now_ms)
{
	bool is_overdue = run->deadline_ms <= now_ms && run->deadline_ms < run->until_ms;
	if (run->wait == WAIT_TURN)
		batch_go_on(agents, run);
	else if (run->wait == WAIT_SLEEP && !is_overdue)
		run_wake(agents, run, 0);
	else if (is_put_off(agents, run, now_ms))
		return;
	else if (is_overdue)
		run_expire(agents, run);
	else
		time_out_wait(agents, run, now_ms);
}

static void wake_ready(struct agents *agents, struct run *run)
{
	if (run->is_task && task_of(run)->stage != TASK_LIVE)
		task_go_on(agents, task_of(run));
	else
		run_wake(agents, run, run->place.nargs);
}

static struct run *run_of_place(struct wheel_node *node)
{
	return (struct run *)(void *)((char *)node - offsetof(struct run, place.node));
}

static __attribute__((noinline)) void wake_all_due(struct agents *agents, uint64_t now_ms)
{
	struct wheel_node *node;
	uint64_t taken = 0;
	while (taken <= host_stage_ticks(agents->host) && (node = wheel_pop(&agents->due))) {
		struct run *run = run_of(node);
		const struct channel *channel = run->channel;
		taken -= channel->handler_ticks;
		wake_due(agents, run, now_ms);
		taken += channel->handler_ticks;
	}
}

static __attribute__((noinline)) void wake_all_ready(struct agents *agents)
{
	struct wheel_node *node;
	uint64_t taken = 0;
	while (taken <= host_stage_ticks(agents->host) && (node = wheel_pop(&agents->ready))) {
		struct run *run = run_of_place(node);
		const struct channel *channel = run->channel;
		taken -= channel->handler_ticks;
		wake_ready(agents, run);
		taken += channel->handler_ticks;
	}
}

/* Each of them has time of its own: whoever fills one leaves the others theirs. */
void agents_turn(struct agents *agents, uint64_t now_ms)
{
	vm_relieve(&agents->vm, true);
	/*
	 * Whoever is left over from the last turn comes first: one that sleeps for no time would be before them each
	 * time.
	 */
	if (wheel_is_empty(&agents->due))
		wheel_advance(&agents->sleeps, now_ms, &agents->due);
	if (!wheel_is_empty(&agents->due))
		wake_all_due(agents, now_ms);
	if (agents->timers)
		timer_turn(agents, now_ms);
	if (!wheel_is_empty(&agents->ready))
		wake_all_ready(agents);
	if (!wheel_is_empty(&agents->posted))
		recipients_turn(agents);
	if (!wheel_is_empty(&agents->heard))
		members_turn(agents);
	if (agents->residents)
		residents_turn(agents, now_ms);
}

uint64_t agents_next_ms(const struct agents *agents)
{
	if (!wheel_is_empty(&agents->due) || !wheel_is_empty(&agents->ready) ||
	    !wheel_is_empty(&agents->posted) || !wheel_is_empty(&agents->heard))
		return agents->host->now_ms;
	uint64_t sleep_ms = wheel_next_ms(&agents->sleeps);
	if (agents->timers) {
		uint64_t timer_ms = timer_next_ms(agents);
		sleep_ms = timer_ms < sleep_ms ? timer_ms : sleep_ms;
	}
	if (agents->residents) {
		uint64_t resident_ms = residents_next_ms(agents);
		sleep_ms = resident_ms < sleep_ms ? resident_ms : sleep_ms;
	}
	return sleep_ms < agents->repeats.next_ms ? sleep_ms : agents->repeats.next_ms;
}

/*
 * Ending calls does not help against what is kept on purpose: then every growth ends a connection, and somebody has to
 * be told why. Not after the first relief: an agent that was ended lives on until its peer has taken the last output.
 */
static void warn_of_memory(struct agents *agents, uint64_t now_ms)
{
	enum { RELIEFS = 2, EVERY_MS = 60000 };
	struct vm *vm = &agents->vm;
	if (vm->stays_full < RELIEFS || now_ms < agents->memory_warning_ms)
		return;
	agents->memory_warning_ms = now_ms + EVERY_MS;
	vm->stays_full = 1; /* the next relief decides about the next line */
	log_write(LOG_WARN, "memory stays over the limit", F_INT("live_bytes", vm->live_bytes),
		  F_INT("limit_bytes", vm->memory_bytes), F_INT("worker", agents->instance.worker),
		  F_INT("generation", agents->instance.generation),
		  F_TEXT("hint",
			 "bound what the script keeps for all connections (a cache in a local of a file), or "
			 "raise limits.memory; until then calls that need more end with memory"));
}

/* It was called between calls, so there is no connection to blame. */
static void warn_of_finalisers(struct agents *agents, uint64_t now_ms)
{
	enum { EVERY_MS = 60000 };
	if (!agents->vm.finaliser_failures || now_ms < agents->finaliser_warning_ms)
		return;
	agents->finaliser_warning_ms = now_ms + EVERY_MS;
	instance_tell_of_finalisers(&agents->instance);
}

void agents_report(struct agents *agents)
{
	uint64_t now_ms = agents->host->now_ms;
	warn_of_memory(agents, now_ms);
	warn_of_finalisers(agents, now_ms);
	if (now_ms >= agents->repeats.next_ms)
		repeats_sweep(agents, now_ms);
}
