/*
 * Timers of agents and of the app: perilune.after(), perilune.every().
 *
 * Of an agent, a timer calls its function as a callback, and so never beside another callback of the same agent: one
 * that is due while the agent waits is called when it is free. Of the app, it begins a task, unless that of the time
 * before is still at work. One that repeats keeps its pace from the time at which it was begun; what it has missed is
 * left out.
 *
 * Timers lie in blocks and are named by their place and how often it was used, so that the 64 bytes are all they take.
 *
 * Threads: the one that has the agents.
 */
#pragma once

#include "agent/work.h"

struct timers;

struct timer {
	struct wheel_node node; /* first: in the wheel, or in work->owed */
	struct timer *next, *prev;
	struct channel *channel;
	int call_ref;         /* a function, or a list of it, how many arguments, and those */
	uint32_t period_ms;   /* 0: once */
	uint32_t place, uses; /* where it lies, and how often that place was used */
};

/*
 * Of the app's timers, begun in setup(): the delay is kept in node.expires_ms until timer_start_all(). What it calls is
 * on top of the stack, and is popped. MAY RAISE. Returns what names it: below 2^53, and not 0.
 */
uint64_t timer_begin(lua_State *lua, struct channel *channel, uint32_t delay_ms, uint32_t period_ms);

/* False: there is none of that name that is still to be called. */
bool timer_cancel(struct agents *agents, uint64_t name);

/* One of the app's, whose call took too long: it would do so again. The log says so. */
void timer_give_up(struct agents *agents, uint64_t name);

/* All of an agent's. */
void timer_cancel_all(struct agents *agents, struct work *work);

/* The app's begin to run. */
void timer_start_all(struct agents *agents, struct work *work);

/* Its agent is free again: what was due meanwhile is to be called. */
void timer_pay(struct agents *agents, struct work *work);

/* Calls what is due, for host_stage_ticks(). */
void timer_turn(struct agents *agents, uint64_t now_ms);

/* When it must next be called. */
uint64_t timer_next_ms(const struct agents *agents);

void timer_free_all(struct agents *agents);
