#include "agent/timer.h"

#include "agent/run.h"
#include "agent/task.h"
#include "base/log.h"

#include <stdlib.h>

enum {
	BLOCK_TIMERS = 64,
	PLACE_BITS = 22,
	BLOCKS_MAX = (1 << PLACE_BITS) / BLOCK_TIMERS,
	USES_MAX = 0x7fffffff, /* so a name is below 2^53 */
	AGAIN_MS = 1000        /* until a call of the app's is tried again that could not begin */
};

struct timers {
	struct wheel wheel;
	struct wheel_node due; /* what timer_turn() has yet to call; a list */
	struct timer **blocks;
	uint32_t block_count;
	struct timer *unused; /* a list by `next` */
};

_Static_assert(sizeof(struct timer) == 64, "what a timer takes is told to users");

/* ---- memory ---- */

static struct timers *timers_of(struct agents *agents)
{
	if (agents->timers)
		return agents->timers;
	struct timers *timers = calloc(1, sizeof *timers);
	if (!timers)
		return NULL;
	wheel_init(&timers->wheel, agents->attached ? agents->host->now_ms : 0);
	wheel_list_init(&timers->due);
	return agents->timers = timers;
}

static bool add_block(struct timers *timers)
{
	struct timer **blocks;
	if (timers->block_count == BLOCKS_MAX)
		return false;
	blocks = realloc(timers->blocks, (timers->block_count + 1) * sizeof *blocks);
	if (!blocks)
		return false;
	timers->blocks = blocks;
	struct timer *block = calloc(BLOCK_TIMERS, sizeof *block);
	if (!block)
		return false;
	for (uint32_t i = BLOCK_TIMERS; i--;) {
		block[i].place = timers->block_count * BLOCK_TIMERS + i;
		block[i].next = timers->unused;
		timers->unused = &block[i];
	}
	blocks[timers->block_count++] = block;
	return true;
}

static struct timer *take_timer(struct timers *timers)
{
	if (!timers || (!timers->unused && !add_block(timers)))
		return NULL;
	struct timer *timer = timers->unused;
	timers->unused = timer->next;
	timer->uses = timer->uses % USES_MAX + 1;
	return timer;
}

static uint64_t name_of(const struct timer *timer)
{
	return (uint64_t)timer->uses << PLACE_BITS | timer->place;
}

/* NULL: what had that name has ended. */
static struct timer *find_timer(const struct timers *timers, uint64_t name)
{
	uint32_t place = (uint32_t)(name & ((1U << PLACE_BITS) - 1));
	if (!timers || place / BLOCK_TIMERS >= timers->block_count)
		return NULL;
	struct timer *timer = &timers->blocks[place / BLOCK_TIMERS][place % BLOCK_TIMERS];
	return timer->channel && name_of(timer) == name ? timer : NULL;
}

static void link_timer(struct work *work, struct timer *timer)
{
	timer->prev = NULL;
	timer->next = work->timers;
	if (work->timers)
		work->timers->prev = timer;
	work->timers = timer;
	work->timer_count++;
}

static void end_timer(struct agents *agents, struct work *work, struct timer *timer)
{
	wheel_disarm(&timer->node);
	*(timer->prev ? &timer->prev->next : &work->timers) = timer->next;
	if (timer->next)
		timer->next->prev = timer->prev;
	work->timer_count--;
	luaL_unref(agents->vm.lua, LUA_REGISTRYINDEX, timer->call_ref);
	timer->channel = NULL;
	timer->next = agents->timers->unused;
	agents->timers->unused = timer;
}

/* ---- from the beginning to the end ---- */

uint64_t timer_begin(lua_State *lua, struct channel *channel, uint32_t delay_ms, uint32_t period_ms)
{
	struct agents *agents = agents_of(lua);
	struct work *work = work_begin(agents, channel);
	struct timers *timers = work ? timers_of(agents) : NULL;
	if (work && work->timer_count >= WORK_TIMERS_MAX)
		luaL_error(lua, "there are %d timers already, which is the most", WORK_TIMERS_MAX);
	int ref = luaL_ref(lua, LUA_REGISTRYINDEX);
	struct timer *timer = take_timer(timers);
	if (!timer) {
		luaL_unref(lua, LUA_REGISTRYINDEX, ref);
		luaL_error(lua, "not enough memory for another timer");
		abort();
	}
	timer->channel = channel;
	timer->call_ref = ref;
	timer->period_ms = period_ms;
	link_timer(work, timer);
	if (agents->attached)
		wheel_arm(&timers->wheel, &timer->node, conn_host_after(agents->host, delay_ms));
	else
		timer->node.expires_ms = delay_ms; /* until timer_start_all() */
	return name_of(timer);
}

bool timer_cancel(struct agents *agents, uint64_t name)
{
	struct timer *timer = find_timer(agents->timers, name);
	if (!timer)
		return false;
	end_timer(agents, work_of(agents, timer->channel), timer);
	return true;
}

void timer_give_up(struct agents *agents, uint64_t name)
{
	if (!timer_cancel(agents, name))
		return;
	log_write(LOG_ERROR, "a timer of the app is cancelled: its call took more than limits.proceed",
		  F_INT("worker", agents->instance.worker), F_INT("generation", agents->instance.generation));
}

void timer_cancel_all(struct agents *agents, struct work *work)
{
	while (work->timers)
		end_timer(agents, work, work->timers);
}

void timer_start_all(struct agents *agents, struct work *work)
{
	uint64_t now_ms = agents->host->now_ms;
	if (!agents->timers)
		return;
	wheel_init(&agents->timers->wheel, now_ms);
	struct timer *timer = work->timers;
	while (timer && timer->next)
		timer = timer->next;
	for (; timer; timer = timer->prev) /* the first that was begun is the last in the list */
		wheel_arm(&agents->timers->wheel, &timer->node, now_ms + timer->node.expires_ms);
}

void timer_free_all(struct agents *agents)
{
	struct timers *timers = agents->timers;
	if (!timers)
		return;
	for (uint32_t i = 0; i < timers->block_count; i++)
		free(timers->blocks[i]);
	free(timers->blocks);
	free(timers);
	agents->timers = NULL;
}

/* ---- calls ---- */

/* Pushes its function and arguments on `to`; returns how many arguments. */
static int push_call(const struct timer *timer, lua_State *to)
{
	lua_rawgeti(to, LUA_REGISTRYINDEX, timer->call_ref);
	if (!lua_istable(to, -1))
		return 0;
	int list = lua_gettop(to);
	lua_rawgeti(to, list, 2);
	int nargs = (int)lua_tointeger(to, -1);
	lua_pop(to, 1);
	lua_rawgeti(to, list, 1);
	for (int i = 0; i < nargs; i++)
		lua_rawgeti(to, list, 3 + i);
	lua_remove(to, list);
	return nargs;
}

/* When it is next due: in step with its beginning, and after now. */
static void rearm(struct agents *agents, struct timer *timer)
{
	uint64_t now_ms = agents->host->now_ms, due_ms = timer->node.expires_ms + timer->period_ms;
	if (due_ms <= now_ms)
		due_ms += ((now_ms - due_ms) / timer->period_ms + 1) * timer->period_ms;
	wheel_arm(&agents->timers->wheel, &timer->node, due_ms);
}

/* It is armed anew, or gone, before anything is called. */
static void timer_move_on(struct agents *agents, struct work *work, struct timer *timer)
{
	if (timer->period_ms)
		rearm(agents, timer);
	else
		end_timer(agents, work, timer);
}

static void call_agent(struct agents *agents, struct work *work, struct timer *timer)
{
	struct run run;
	run_begin(agents, &run, work->channel, CALL_TIMER);
	int nargs = push_call(timer, run.co.lua);
	timer_move_on(agents, work, timer);
	enum outcome outcome = run_enter(agents, &run, nargs);
	if (outcome != RUN_SUSPENDED)
		callback_finish(agents, &run, outcome);
}

/* ---- the app's ---- */

struct begin_call {
	struct work *work;
	struct timer *timer;
};

/* Runs protected. Begins the task of an app's timer. */
static int l_begin_call(lua_State *lua)
{
	const struct begin_call *call = lua_touserdata(lua, 1);
	lua_settop(lua, 0);
	lua_getfield(lua, LUA_REGISTRYINDEX, "perilune.task");
	int nargs = push_call(call->timer, lua);
	task_begin(lua, call->work->channel, nargs, 1, 0);
	return 0;
}

static const struct vm_budget BEGIN_BUDGET = { 0 };

static bool is_at_work(const struct work *work, const struct timer *timer)
{
	const struct task *task = work->first;
	while (task && task->timer != name_of(timer))
		task = task->next;
	return task;
}

/* It comes again by itself, or in a while. */
static void put_call_off(struct agents *agents, struct timer *timer)
{
	lua_State *lua = agents->vm.lua;
	log_write(LOG_WARN, "a timer of the app cannot call", F_TEXT("error", lua_tostring(lua, -1)),
		  F_INT("worker", agents->instance.worker), F_INT("generation", agents->instance.generation));
	lua_pop(lua, 1);
	if (timer->period_ms)
		rearm(agents, timer);
	else
		wheel_arm(&agents->timers->wheel, &timer->node, agents->host->now_ms + AGAIN_MS);
}

/* One that repeats does not begin another task while that of the last time is at work. */
static void call_app(struct agents *agents, struct work *work, struct timer *timer)
{
	struct begin_call call = { work, timer };
	lua_State *lua = agents->vm.lua;
	if (!timer->period_ms || !is_at_work(work, timer)) {
		lua_pushcfunction(lua, l_begin_call);
		lua_pushlightuserdata(lua, &call);
		if (vm_pcall(&agents->vm, lua, 1, 0, &BEGIN_BUDGET)) {
			put_call_off(agents, timer);
			return;
		}
		work->last->timer = timer->period_ms ? name_of(timer) : 0;
	}
	timer_move_on(agents, work, timer);
}

/* ---- turns ---- */

static void fire(struct agents *agents, struct timer *timer)
{
	struct channel *channel = timer->channel;
	struct work *work = work_of(agents, channel);
	if (work_is_apps(channel)) {
		call_app(agents, work, timer);
	} else if (!channel_is_open(channel)) {
		end_timer(agents, work, timer);
	} else if (channel->suspended) {
		wheel_list_append(&work->owed, &timer->node);
	} else {
		call_agent(agents, work, timer);
	}
}

/* They are called in timer_turn(), which knows how long that may take. */
void timer_pay(struct agents *agents, struct work *work)
{
	struct wheel_node *node;
	while ((node = wheel_pop(&work->owed)))
		wheel_list_append(&agents->timers->due, node);
}

void timer_turn(struct agents *agents, uint64_t now_ms)
{
	uint64_t taken = 0;
	struct timers *timers = agents->timers;
	struct wheel_node *node;
	if (wheel_is_empty(&timers->due))
		wheel_advance(&timers->wheel, now_ms, &timers->due);
	while (taken <= host_stage_ticks(agents->host) && (node = wheel_pop(&timers->due))) {
		struct timer *timer = (struct timer *)(void *)node;
		const struct channel *channel = timer->channel;
		taken -= channel->handler_ticks;
		fire(agents, timer);
		taken += channel->handler_ticks;
	}
}

uint64_t timer_next_ms(const struct agents *agents)
{
	if (!wheel_is_empty(&agents->timers->due))
		return agents->host->now_ms;
	return wheel_next_ms(&agents->timers->wheel);
}
