#include "agent/work.h"

#include "agent/client.h"
#include "agent/forward.h"
#include "agent/line.h"
#include "agent/link.h"
#include "agent/task.h"
#include "agent/timer.h"

#include <stdlib.h>

/* What the app's calls run on behalf of: no client, no agent. */
struct app_work {
	struct conn conn;
	struct agent_endpoint endpoint;
	struct work work;
};

struct work *work_of(const struct agents *agents, const struct channel *channel)
{
	if (work_is_apps(channel))
		return &agents->app->work;
	return channel->has_work ? idmap_get(&agents->works, channel->id) : NULL;
}

static void work_init(struct work *work, struct channel *channel)
{
	*work = (struct work){ .channel = channel };
	wheel_list_init(&work->owed);
}

struct work *work_begin(struct agents *agents, struct channel *channel)
{
	struct work *work = work_of(agents, channel);
	if (work)
		return work;
	work = malloc(sizeof *work);
	if (!work || idmap_put(&agents->works, channel->id, work)) {
		free(work);
		return NULL;
	}
	work_init(work, channel);
	channel->has_work = true;
	return work;
}

bool work_is_busy(const struct agents *agents, const struct channel *channel)
{
	const struct work *work = channel->has_work ? work_of(agents, channel) : NULL;
	return work && (work->first || work->clients);
}

struct run *work_reader(const struct agents *agents, const struct channel *channel)
{
	struct run *run = channel->suspended;
	if (run && run->wait == WAIT_READ && run->at == channel)
		return run;
	const struct work *work = channel->has_work ? work_of(agents, channel) : NULL;
	return work ? work->reader : NULL;
}

bool work_is_flushing(const struct agents *agents, const struct channel *channel)
{
	const struct run *run = channel->suspended;
	const struct work *work = channel->has_work ? work_of(agents, channel) : NULL;
	return (run && run->wait == WAIT_FLUSH && run->at == channel) || (work && work->flushing);
}

void work_flushed(struct agents *agents, struct channel *channel)
{
	struct work *work = channel->has_work ? work_of(agents, channel) : NULL;
	for (struct task *task = work && work->flushing ? work->first : NULL; task; task = task->next) {
		if (task->run.wait != WAIT_FLUSH || task->run.at != channel)
			continue;
		run_forget_wait(agents, &task->run);
		lua_pushboolean(task->run.co.lua, 1);
		line_ready(agents, &task->run, 1);
	}
}

void work_catch_up(struct agents *agents, struct channel *channel)
{
	struct work *work = channel->has_work ? work_of(agents, channel) : NULL;
	if (work)
		timer_pay(agents, work);
}

/* ---- the end ---- */

static bool end_tasks(struct agents *agents, struct work *work, bool is_urgent)
{
	uint64_t began_ticks = work->channel->handler_ticks;
	for (struct task *each = work->first; each; each = each->next)
		task_stop(agents, each);
	while (work->first)
		if (!task_end_with_agent(agents, work->first, began_ticks, is_urgent))
			return false;
	return true;
}

static void forget_work(struct agents *agents, struct channel *channel, struct work *work)
{
	idmap_remove(&agents->works, channel->id);
	free(work);
	channel->has_work = false;
}

static bool work_end_some(struct agents *agents, struct channel *channel, bool is_urgent)
{
	struct work *work = channel->has_work ? work_of(agents, channel) : NULL;
	if (!work)
		return true;
	timer_cancel_all(agents, work);
	if (!end_tasks(agents, work, is_urgent))
		return false;
	client_end_all(work);
	forget_work(agents, channel, work);
	return true;
}

bool work_end(struct agents *agents, struct channel *channel)
{
	return work_end_some(agents, channel, false);
}

void work_end_now(struct agents *agents, struct channel *channel)
{
	work_end_some(agents, channel, true);
}

/* ---- the app's ---- */

static void open_app_channel(struct agents *agents, struct app_work *app)
{
	struct channel *channel = &app->conn.first;
	app->endpoint.endpoint.name = ""; /* the log leaves it out */
	app->endpoint.endpoint.index = (uint16_t)agents->endpoint_count;
	app->endpoint.endpoint.protocol = agents->endpoints[0].endpoint.protocol;
	app->endpoint.budget = agents->endpoints[0].budget;
	app->endpoint.opener_ref = LUA_REFNIL;
	app->conn.endpoint = &app->endpoint.endpoint;
	app->conn.protocol = app->endpoint.endpoint.protocol;
	app->conn.host = agents->host;
	channel->conn = &app->conn;
	channel->agents = agents;
	work_init(&app->work, channel);
}

struct channel *work_app(struct agents *agents)
{
	if (!agents->app) {
		agents->app = calloc(1, sizeof *agents->app);
		if (!agents->app)
			return NULL;
		open_app_channel(agents, agents->app);
	}
	return &agents->app->conn.first;
}

void work_start_app(struct agents *agents)
{
	if (agents->app)
		timer_start_all(agents, &agents->app->work);
}

void work_supersede_app(struct agents *agents)
{
	agents->app_is_superseded = true;
	if (agents->app)
		timer_cancel_all(agents, &agents->app->work);
}

void work_end_app(struct agents *agents)
{
	agents->app_is_over = agents->app_is_superseded = true;
	if (!agents->app)
		return;
	timer_cancel_all(agents, &agents->app->work);
	end_tasks(agents, &agents->app->work, true);
	client_end_all(&agents->app->work);
}

/* The VM is gone: nothing in there has to be given back. */
static void free_app(struct app_work *app)
{
	for (struct task *next, *task = app ? app->work.first : NULL; task; task = next) {
		next = task->next;
		free(task);
	}
	free(app);
}

void work_free(struct agents *agents)
{
	timer_free_all(agents);
	idmap_deinit(&agents->works);
	idmap_deinit(&agents->tasks);
	link_free(agents);
	client_free_endpoints(agents);
	forward_free_kept(agents);
	free(agents->unborn);
	free(agents->unborn_request);
	free_app(agents->app);
	agents->unborn = NULL;
	agents->unborn_request = NULL;
	agents->app = NULL;
}
