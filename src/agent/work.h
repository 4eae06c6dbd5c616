/*
 * What an agent has begun beside its callbacks, and what ends with it: tasks (task.h) and timers (timer.h).
 *
 * It is found by the channel's id, so who begins nothing pays nothing: channel->has_work says that there is some. What
 * the script begins in setup(app) belongs to no connection. That is the app's: its channel is on a connection that is
 * never open (work_app()), and it ends with its generation.
 *
 * Threads: the one that has the agents; setup() may run in the loader's.
 */
#pragma once

#include "agent/run.h"

struct client;
struct task;
struct timer;

enum { WORK_TASKS_MAX = 10000, WORK_TIMERS_MAX = 10000 }; /* of one agent, or of the app */

struct work {
	struct channel *channel;
	struct task *first, *last; /* in the order in which they began */
	struct timer *timers;
	struct wheel_node owed; /* timers that were due while the agent was busy; a list of struct timer */
	struct run *reader;     /* the task that waits in conn:read, or NULL */
	struct client *clients; /* connections out, the latest first */
	unsigned task_count, timer_count, client_count;
	unsigned flushing; /* tasks that wait in conn:flush */
};

/* What a channel's agent has begun, or NULL. */
struct work *work_of(const struct agents *agents, const struct channel *channel);

/* The same, made if it is not there; NULL: there is no memory. */
struct work *work_begin(struct agents *agents, struct channel *channel);

/* Has it tasks that have not come to their end, or connections out? */
bool work_is_busy(const struct agents *agents, const struct channel *channel);

/* Who waits in conn:read: the callback that is suspended, or a task; NULL: nobody. */
struct run *work_reader(const struct agents *agents, const struct channel *channel);

/* Does anybody wait for the output to be gone? */
bool work_is_flushing(const struct agents *agents, const struct channel *channel);

/* It is gone: those tasks that wait for that go on in agents_turn(). */
void work_flushed(struct agents *agents, struct channel *channel);

/* A callback that was suspended has ended: what was due meanwhile is called. */
void work_catch_up(struct agents *agents, struct channel *channel);

/*
 * Ends all of it: timers, then tasks, whose deferred functions run. False: there are more of those, and its turn is
 * over; again later.
 */
bool work_end(struct agents *agents, struct channel *channel);

/* The same at once, however long it takes. */
void work_end_now(struct agents *agents, struct channel *channel);

/* ---- the app's ---- */

/* Its channel, made if it is not there; NULL: there is no memory. */
struct channel *work_app(struct agents *agents);

static inline bool work_is_apps(const struct channel *channel)
{
	return !channel->id;
}

/* The agents have come to their worker: what setup() has begun starts now. */
void work_start_app(struct agents *agents);

/* A newer generation serves, whose setup() has begun the same timers: the app has none any more. */
void work_supersede_app(struct agents *agents);

/* The agents leave their worker: the app's work ends, for good. */
void work_end_app(struct agents *agents);

/* With the agents, after their VM. */
void work_free(struct agents *agents);
