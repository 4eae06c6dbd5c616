/*
 * A call into Lua: the coroutine it runs in, what it waits for.
 *
 * A run starts on the C stack; only one that suspends moves to the heap, where
 * channel->suspended leads to it. run_enter() is the one function that resumes
 * Lua coroutines.
 */
#pragma once

#include "agent/message.h"

enum callback {
	CALL_OPENED,
	CALL_PROCEED,
	CALL_EOF,
	CALL_TIMEOUT,
	CALL_FAILED,
	CALL_OVERSIZE,
	CALL_MALFORMED,
	CALL_WRITABLE,
	CALL_DRAIN,
	CALL_CLOSED,
	CALL_DEFER,
	CALL_SNAPSHOT,
	CALL_UPGRADE,
	CALL_DECODE, /* of a codec in Lua: only to be blamed */
	CALL_ENCODE,
};

enum wait {
	WAIT_NONE,
	WAIT_SLEEP,
	WAIT_READ,
	WAIT_FLUSH,
	WAIT_TURN, /* it has returned: its replies are still to be encoded, in the connection's next turns */
	WAIT_ENDED,
};

struct run {
	struct coroutine co;
	struct channel *channel;
	enum callback callback;
	enum wait wait;
	bool batched;              /* a batch loop runs, and the control table tells how far it is */
	bool views;                /* the handler got views */
	const struct protocol *by; /* what made the frames; only to compare: it may be gone */
	bool resumed;              /* it has been suspended: the frames it came with are gone */
	int control_ref;           /* its control table, once suspended; LUA_NOREF: the worker's own */
	unsigned sent;             /* replies of the batch already taken */
	uint8_t verdict;           /* enum guard_verdict: what ended it from outside */
	uint64_t until_ms;         /* WAIT_SLEEP, WAIT_READ: when; WHEEL_NEVER: no time-out */
	struct wheel_node timer;
	struct codec read_codec; /* WAIT_READ */
};

/* What stays on the VM's own stack, where it is cheapest to reach. */
enum {
	AT_CONTROL = 1, /* the batch loops' control table */
	AT_VALUES,      /* what a codec in Lua made of the frames */
	AT_METAS,       /* ... and its second values */
	AT_INVOKE,      /* runtime.invoke … */
	AT_HAS,
	AT_TAKE_DEFER,
	AT_ERROR, /* of the last run or decode() that failed: a run's own stack may be full to the last slot */
	AT_CONN,  /* the metatable of conn objects */
	AT_TOP = AT_CONN
};

/* Layout of the control table; shared with the loops in lua/perilune/runtime.lua. */
enum { CONTROL_INDEX = 1, CONTROL_COUNT = 2, CONTROL_REPLIES = 3 };

enum outcome { RUN_DONE, RUN_SUSPENDED, RUN_FAILED };

static inline struct agents *agents_of(lua_State *lua)
{
	return (struct agents *)(void *)vm_of(lua);
}

static inline struct agents *agents_of_channel(const struct channel *channel)
{
	return (struct agents *)channel->agents;
}

const char *callback_name(enum callback callback);

/* May the call wait? Those that end something, or must answer at once, may not. */
bool callback_may_wait(enum callback callback);

/* Of each VM, while its script is loaded: lets Lua know of coroutines that have ended. MAY RAISE. */
void run_keep_ended(lua_State *lua);

/* Takes a coroutine from the pool (or makes one) for a call on conn's behalf. */
void run_begin(struct agents *agents, struct run *run, struct channel *channel, enum callback callback);

/*
 * Resumes with nargs values on the coroutine's stack. Suspended: *run is moved; use channel->suspended. Failed: the
 * error is at AT_ERROR, and nothing may be pushed on the coroutine's stack any more.
 */
enum outcome run_enter(struct agents *agents, struct run *run, int nargs);

/* In place of run_enter(), where there is no memory for the call's arguments: the call has failed. */
enum outcome run_starve(struct agents *agents, struct run *run);

/* For the guard: which frame of its batch the running call is at; it only ever changes to another. */
uint64_t run_progress(void *agents);

/* For the guard: may the running call be ended by a yield? */
bool run_abandon(void *agents, lua_State *lua);

/* Gives the coroutine back. It must be done or failed; `failed` ones are dropped. */
void run_end(struct agents *agents, struct run *run, bool failed);

/* Abandons a suspended call: nothing of it ever runs again. */
void run_cancel(struct agents *agents, struct channel *channel);

/* One that has returned goes on in its connection's next turn: batch_go_on(). Moved as if it were suspended. False:
 * there is no memory for that. */
bool run_park(struct agents *agents, struct run *run);

/*
 * Resumes a suspended call and handles how that ends. nargs values are on its coroutine's stack; -1: there was no
 * memory for them, and the call fails.
 */
void run_wake(struct agents *agents, struct run *run, int nargs);

/* A suspended call is over, and `run` is freed: its connection goes on. */
void run_leave(struct agents *agents, struct run *run);

/* ---- agent.c ---- */

/* Readies agent:name() on a coroutine of its own; push its arguments, then run_enter() with 3 more.
 * What it leaves there: was there such a method, then its results. */
void callback_prepare(struct agents *agents, struct run *run, struct channel *channel,
		      enum callback callback);

/* Handles the end of any callback but proceed: its replies, its action, or its fault. True: its
 * first result was `true`. Ends the run. */
bool callback_finish(struct agents *agents, struct run *run, enum outcome outcome);

/* Pushes the connection's agent on `lua`. It must have one. */
void agent_push(struct agents *agents, lua_State *lua, const struct channel *channel);

/* Pushes the table that anchors the agent, then the agent: two values, which spares the hot path a call. */
void agent_push_anchored(struct agents *agents, lua_State *lua, const struct channel *channel);

/* Keeps the value on top of lua's stack (popped) as conn's agent. */
void agent_anchor(struct agents *agents, lua_State *lua, struct channel *channel);

/* Gives up the connection's agent in these agents. */
void agent_release(struct agents *agents, struct channel *channel);

/* Its deferred functions are not run. */
void agent_drop_defers(struct agents *agents, const struct channel *channel);

/* Pushes a conn object. */
void agent_push_conn(struct agents *agents, lua_State *lua, const struct channel *channel);

/* ---- batch.c ---- */

/* Sends what the batch's loop has replied so far and not yet sent. Before anything that must keep
 * its order with them. */
bool batch_take_replies(struct agents *agents, struct run *run, lua_State *lua);

/* Makes the running batch end after the frame at hand. */
void batch_cut(struct agents *agents, struct run *run);

/* The same for the call that is running, if it is one of a batch. For the guard. */
void batch_cut_current(void *agents);

/* Pushes a fresh control table. */
void batch_new_control(lua_State *lua);

/* Which frame of its batch the run is at, from 1. */
unsigned batch_index(struct agents *agents, const struct run *run);

/* Hands a batch to conn's agent; returns how many frames were used. */
unsigned batch_run(struct agents *agents, struct channel *channel, struct batch *batch);

/* Handles the end of a CALL_PROCEED, whose coroutine holds results. Ends the run. */
void batch_finish(struct agents *agents, struct run *run, enum outcome outcome);

/* WAIT_TURN: its next turn has come. */
void batch_go_on(struct agents *agents, struct run *run);

/* Pushes the first frame as the batch's codec delivers it: one value. False: there is no memory for it. */
bool batch_push_first(struct agents *agents, lua_State *lua, const struct batch *batch);

/* ---- reply.c ---- */

#define REPLY_DEAD_VIEW \
	"this view is dead: it lives until proceed returns or waits (view:string() can be kept)"

/* What channel_send() said of a reply. True: nobody to blame; false with an error message pushed. */
bool reply_explain(struct channel *channel, lua_State *lua, size_t len, int err);

/*
 * Sends the value at idx of lua's stack: nil, a string (or a number, as its text), a view, a list of strings; or, with
 * a codec in Lua, whatever its encode() takes. True, or false with an error message pushed.
 */
bool reply_send(struct agents *agents, struct channel *channel, lua_State *lua, int idx, bool *below);

/* reply_send() where a codec in Lua encodes: it takes any value and makes a string of it. */
bool reply_send_encoded(struct agents *agents, struct channel *channel, lua_State *lua, int idx, bool *below);

/* What made reply_send() fail is somebody else's error now, or nobody's. */
static inline void reply_forget(struct agents *agents)
{
	agents->encode_failed = false;
	agents->reply_verdict = GUARD_FINE;
}

/* The action of a callback that returns more than a reply and an action. */
void reply_push_surplus(lua_State *lua);

/* Interprets what a callback returned from stack index `first` on: reply, action. *keep: the first is `true`; NULL: it
 * must not be. They are taken from the coroutine's stack. False with the error at AT_ERROR. */
bool reply_take(struct agents *agents, struct run *run, int first, bool *keep);

/* Is the second result of a callback, at idx, one that reply_action() takes? */
bool reply_is_action(lua_State *lua, int idx);

/* Does what the second result of a callback, at idx, asks for. False with an error message pushed. */
bool reply_action(struct channel *channel, lua_State *lua, int idx);

/* ---- fault.c ---- */

enum close_reason reason_of_verdict(enum guard_verdict verdict);

/* Logs the error at AT_ERROR, asks failed(), ends the connection. The caller still ends the run. */
void fault_raise(struct agents *agents, struct run *run);

/* The same for what a codec's decode() has raised for conn, outside of any call. */
void fault_decode(struct agents *agents, struct channel *channel);

/* Counts and logs it, and no more. */
void fault_note(struct agents *agents, struct run *run);
