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
	CALL_TIMER,
	CALL_MESSAGE,
	CALL_HEARD, /* message() as well, with what was published to a topic */
	CALL_TASK,
	CALL_DECODE, /* of a codec in Lua: only to be blamed */
	CALL_ENCODE,
};

enum wait {
	WAIT_NONE,
	WAIT_SLEEP,
	WAIT_READ,
	WAIT_FLUSH,
	WAIT_ERRAND, /* for what is done for it meanwhile: a connection out, an address */
	WAIT_LINE,   /* for what other calls give: agent/line.h */
	WAIT_READY,  /* it has that, and goes on in agents_turn() */
	WAIT_TURN, /* it has returned: its replies are still to be encoded, in the connection's next turns */
	WAIT_OWED, /* it has returned: some of its replies are to come from others: agent/forward.h */
	WAIT_ENDED,
};

/* Where a call waits for others, or for its turn. */
struct line_place {
	struct wheel_node node; /* in a line, or in agents->ready */
	struct line *line;      /* that it stands in, or was called out of; NULL: none */
	int64_t key;            /* GIFT_VALUE: the value's in its channel; GIFT_CONN: its id */
	int nargs;              /* WAIT_READY: values on its coroutine's stack */
	uint8_t gift;           /* enum line_gift: what it was called out with */
	bool gives;             /* it has a value for a channel, on top of its coroutine's stack */
	bool holds;             /* it wants a permit that goes back when the call is over: sync.h */
};

/*
 * What is done for a call that waits, by others and from the loop. Whoever does it tells the call, if there still is
 * one: errand_take(), then what it is to be given, then line_ready().
 */
enum { ERRAND_TEXT_BYTES = 400 };

struct errand;

struct errand_ops {
	const char *what;                       /* the call that waits: "perilune.job" */
	void (*abandon)(struct errand *errand); /* nobody wants it any more */
	/* What has not come in time, in words; NULL: "timeout" says it. */
	void (*explain)(const struct errand *errand, char *text, size_t size);
	void (*is_late)(struct errand *errand); /* it is about to be abandoned for that; or NULL */
};

struct errand {
	struct run *run; /* NULL: nobody waits for it */
	const struct errand_ops *ops;
};

struct run {
	struct coroutine co;
	struct channel *channel;
	struct forwards *forwards;    /* requests whose replies are its own, or NULL */
	const struct protocol *by;    /* what made the frames; only to compare: it may be gone */
	uint8_t callback;             /* enum callback */
	uint8_t wait;                 /* enum wait */
	uint8_t verdict;              /* enum guard_verdict: what ended it from outside */
	unsigned char batched : 1;    /* a batch loop runs, and the control table tells how far it is */
	unsigned char views : 1;      /* the handler got views */
	unsigned char is_overdue : 1; /* it has waited for longer than timeout.proceed lets it */
	unsigned char has_leases : 1; /* connections of a pool end with it */
	unsigned char is_task : 1;    /* struct task begins with it, and its channel does not wait for it */
	unsigned char resumed : 1;    /* it has been suspended: the frames it came with are gone */
	unsigned char reads_messages : 1; /* WAIT_READ: as its connection has them */
	unsigned char is_amid : 1;        /* it has flushed to write on an event, and is still to do so, */
	unsigned char has_torn : 1;       /* ... of which a part is gone */
	int control_ref;                  /* its control table, once suspended; LUA_NOREF: the worker's own */
	unsigned sent;                    /* replies of the batch already taken */
	uint64_t until_ms;    /* WAIT_SLEEP, WAIT_READ, WAIT_LINE: when; WHEEL_NEVER: no time-out */
	uint64_t deadline_ms; /* once suspended: when it must be over; WHEEL_NEVER: any time */
	uint64_t since_ms;    /* ... and when its wait has begun */
	uint64_t serial;      /* of each task, and of one that holds permits or has taken a fault; else 0 */
	struct wheel_node timer;
	union {
		struct channel
		    *at; /* WAIT_READ, WAIT_FLUSH: its own, or of a connection out that is its agent's */
		struct errand *errand; /* WAIT_ERRAND */
	};
	struct line_place
	    place; /* WAIT_LINE, WAIT_READY; of a task it is in a list or zero, whatever it waits for */
	struct codec read_codec; /* WAIT_READ, unless it reads messages */
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

/* Nothing of it runs any more; what it has returned is still to be used. */
static inline bool run_has_returned(const struct run *run)
{
	return run->wait == WAIT_TURN || run->wait == WAIT_OWED;
}

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

/*
 * Of each VM, while its script is loaded: lets Lua know of coroutines that have ended, which are the keys of a table.
 * MAY RAISE.
 */
#define RUN_ENDED "perilune.ended" /* in the registry: lua/perilune/ended.lua */
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

/* What it waits for in conn:read, or in a line, does not come: nil, message, code. */
void run_fail_read(struct agents *agents, struct run *run, const char *message, const char *code);

/* The rest of run_end(), of which most calls have nothing. */
void run_end_slowly(struct agents *agents, struct run *run, bool failed);

/* Gives the coroutine back. It must be done or failed; `failed` ones are dropped. */
static inline void run_end(struct agents *agents, struct run *run, bool failed)
{
	bool has_more = failed || run->serial || run->forwards || run->control_ref != LUA_NOREF;
	if (__builtin_expect(has_more || agents->pooled == AGENT_COROUTINES_KEPT, 0)) {
		run_end_slowly(agents, run, failed);
		return;
	}
	lua_settop(run->co.lua, 0);
	agents->pool[agents->pooled++] = run->co;
}

/* Abandons a suspended call: nothing of it ever runs again. */
void run_cancel(struct agents *agents, struct channel *channel);

/* One that has returned goes on in its connection's next turn: batch_go_on(). Moved as if it were suspended. False:
 * there is no memory for that. */
bool run_park(struct agents *agents, struct run *run);

/* The same until its replies are there: WAIT_OWED. */
bool run_hold(struct agents *agents, struct run *run, uint64_t until_ms);

/* It waits on, as its time was that of some of them only. */
void run_hold_until(struct agents *agents, struct run *run, uint64_t until_ms);

/*
 * Resumes a suspended call and handles how that ends. nargs values are on its coroutine's stack; -1: there was no
 * memory for them, and the call fails.
 */
void run_wake(struct agents *agents, struct run *run, int nargs);

/* Its time is over, wherever it waits: it has failed. */
void run_expire(struct agents *agents, struct run *run);

/* It is to go on: it is in no list any more. */
void run_forget_wait(struct agents *agents, struct run *run);

/* It never goes on: the same, and what it was given is given back. Outside of calls. */
void run_forsake(struct agents *agents, struct run *run);

/* The call that waits for it waits no more: it is to be told. There is one. */
struct run *errand_take(struct agents *agents, struct errand *errand);

/* Lets the running call wait for it; return what it returns. MAY YIELD. 0 ms: any time. */
int errand_wait(lua_State *lua, struct run *run, struct errand *errand, uint32_t ms);

/* It has taken too long. */
void errand_time_out(struct agents *agents, struct run *run);

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

/* Outside of calls: has its agent that method? Looking it up may run an __index of the script, so it is protected. */
bool agent_has_method(struct agents *agents, const struct channel *channel, enum callback callback);

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

/* The same of whoever has them by that key: a channel by its id, a task by its negative serial. */
void agent_drop_defers_of(struct agents *agents, double key);

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

/*
 * Sends what one that has returned, a batch by now whatever it was, has for the frames up to `last` and has not sent.
 * The replies lie on its coroutine. False with an error message on the VM's stack.
 */
bool batch_send_until(struct agents *agents, struct run *run, unsigned last);

/* It has failed after it returned: the error is at AT_ERROR. WAIT_OWED. */
void batch_fail(struct agents *agents, struct run *run);

/* How many replies it has returned. */
unsigned batch_returned(const struct run *run);

/* Handles the end of a CALL_PROCEED, whose coroutine holds results. Ends the run. */
void batch_finish(struct agents *agents, struct run *run, enum outcome outcome);

/* WAIT_TURN: its next turn has come. WAIT_OWED: its replies are there. */
void batch_go_on(struct agents *agents, struct run *run);

/* Pushes the first frame as the batch's codec delivers it: one value. False: there is no memory for it. */
bool batch_push_first(struct agents *agents, lua_State *lua, const struct batch *batch);

/* The same of the frame at `i`, which is no value of a codec in Lua. */
bool batch_push_nth(struct agents *agents, lua_State *lua, const struct batch *batch, unsigned i);

/* ---- reply.c ---- */

#define REPLY_BETWEEN "a message is being sent in pieces (conn:begin): others may follow once it is finished"
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

/* Pushes what that makes of the value; or false, and pushes an error message. */
bool reply_encode(struct agents *agents, struct channel *channel, lua_State *lua, int idx);

/* What made reply_send() fail is somebody else's error now, or nobody's. */
static inline void reply_forget(struct agents *agents)
{
	agents->encode_failed = false;
	agents->reply_verdict = GUARD_FINE;
}

/* What marks the action of a callback that returns more than that and a reply: lua/perilune/runtime.lua. */
void reply_push_surplus(lua_State *lua);

/*
 * The same of one whose reply is somebody else's, and stays where it is, on the coroutine's stack: what is behind it is
 * its action.
 */
bool reply_take_action(struct agents *agents, struct run *run, int first);

/* Interprets what a callback returned from stack index `first` on: reply, action. *keep: the first is `true`; NULL: it
 * must not be. They are taken from the coroutine's stack. False with the error at AT_ERROR. */
bool reply_take(struct agents *agents, struct run *run, int first, bool *keep);

/* Is the second result of a callback, at idx, one that reply_action() takes? */
bool reply_is_action(lua_State *lua, int idx);

/* Does what the second result of a callback, at idx, asks for. False with an error message pushed. */
bool reply_action(struct channel *channel, lua_State *lua, int idx);

/* ---- fault.c ---- */

enum close_reason reason_of_verdict(enum guard_verdict verdict);

/* What a connection ends by whose call has failed. */
enum close_reason fault_reason(const struct run *run);

/* Logs the error at AT_ERROR, asks failed(), ends the connection. The caller still ends the run. */
void fault_raise(struct agents *agents, struct run *run);

/* The same for what a codec's decode() has raised for conn, outside of any call. */
void fault_decode(struct agents *agents, struct channel *channel);

/* Counts and logs it, and no more. */
void fault_note(struct agents *agents, struct run *run);
