/*
 * The hot path: frames in, proceed() for each, replies out.
 *
 * C pushes the frames of a batch as arguments of the listener's loop and resumes it once; the
 * replies come back as its results. That is four calls of Lua's API a frame less than a table
 * would take. A batch of one has a call of its own: the loop would learn the wrong thing from it.
 */
#include "agent/forward.h"
#include "agent/record.h"
#include "agent/run.h"

#include <string.h>

/* ---- the control table ---- */

void batch_new_control(lua_State *lua)
{
	lua_createtable(lua, CONTROL_REPLIES, 0);
	lua_createtable(lua, 0, 0);
	lua_rawseti(lua, -2, CONTROL_REPLIES);
}

static void push_control(struct agents *agents, const struct run *run)
{
	if (run->control_ref == LUA_NOREF)
		lua_pushvalue(agents->vm.lua, AT_CONTROL);
	else
		lua_rawgeti(agents->vm.lua, LUA_REGISTRYINDEX, run->control_ref);
}

unsigned batch_index(struct agents *agents, const struct run *run)
{
	lua_State *lua = agents->vm.lua;
	int top = lua_gettop(lua);
	if (run->control_ref != LUA_NOREF)
		push_control(agents, run);
	lua_rawgeti(lua, run->control_ref == LUA_NOREF ? AT_CONTROL : -1, CONTROL_INDEX);
	unsigned index = (unsigned)lua_tointeger(lua, -1);
	lua_settop(lua, top);
	return index;
}

void batch_cut(struct agents *agents, struct run *run)
{
	lua_State *lua = agents->vm.lua;
	if (!run->batched)
		return;
	push_control(agents, run);
	lua_rawgeti(lua, -1, CONTROL_INDEX);
	lua_rawseti(lua, -2, CONTROL_COUNT);
	lua_pop(lua, 1);
}

void batch_cut_current(void *data)
{
	struct agents *agents = data;
	if (agents->current)
		batch_cut(agents, agents->current);
}

/* ---- replies ---- */

/* Replies on their way into one call of the connection. */
struct portion {
	struct reply replies[64];
	unsigned n;
	size_t bytes;
};

enum { PORTION_REPLIES = 64, PORTION_BYTES = 65536 };

/* False with an error message pushed on the VM's stack. */
static bool send_portion(struct agents *agents, struct channel *channel, struct portion *portion)
{
	unsigned sent = 0, n = portion->n;
	portion->n = 0;
	portion->bytes = 0;
	int err = n ? channel_send_batch(channel, portion->replies, n, &sent) : 0;
	for (unsigned i = 0; __builtin_expect(channel->recorded, 0) && i < sent && i < n; i++)
		record_out(channel, portion->replies[i].data, portion->replies[i].len);
	return !err || sent >= n || reply_explain(channel, agents->vm.lua, portion->replies[sent].len, err);
}

static bool send_values(struct agents *agents, struct channel *channel, lua_State *lua, int first, int last);

/* The coroutine's stack may have no room for anything more, so these go to the VM's. */
static bool send_moved(struct agents *agents, struct channel *channel, lua_State *co, int n)
{
	enum { SPARE_SLOTS = 20 };
	lua_State *lua = agents->vm.lua;
	if (!vm_make_stack(&agents->vm, lua, n + SPARE_SLOTS)) {
		lua_pushliteral(lua, "not enough memory for the replies");
		return false;
	}
	lua_xmove(co, lua, n);
	int last = lua_gettop(lua);
	return send_values(agents, channel, lua, last - n + 1, last);
}

/*
 * Sends the values first .. last of lua's stack, the topmost. They stay there or on the VM's own, and so alive. False
 * with an error message on the VM's.
 */
static bool send_values(struct agents *agents, struct channel *channel, lua_State *lua, int first, int last)
{
	struct portion portion;
	bool plain = !messages_of(channel)->send, below;
	portion.n = 0;
	portion.bytes = 0;
	for (int i = first; i <= last; i++) {
		size_t len;
		const char *data = plain ? lua_tolstring(lua, i, &len) : NULL;
		if (data) {
			portion.replies[portion.n++] = (struct reply){ (const uint8_t *)data, len };
			portion.bytes += len;
			if (portion.n < PORTION_REPLIES && portion.bytes < PORTION_BYTES)
				continue;
		}
		if (!send_portion(agents, channel, &portion))
			return false;
		if (!data && lua != agents->vm.lua)
			return send_moved(agents, channel, lua, last - i + 1);
		if (!data && !reply_send(agents, channel, lua, i, &below))
			return false;
	}
	return send_portion(agents, channel, &portion);
}

/* How many frames from `first` on came back as they were. */
static unsigned echoed_from(const struct agents *agents, unsigned first, unsigned last)
{
	const uint8_t *from = agents->echoed + first, *other = memchr(from, 0, last - first);
	return other ? (unsigned)(other - from) : last - first;
}

/* Views that came back go out as one stretch of the input where the framing allows it. */
static bool send_echoed(const struct run *run, lua_State *lua, unsigned first, unsigned n)
{
	struct channel *channel = run->channel;
	const struct frame *frames = channel->conn->host->batch.frames;
	const uint8_t *raw;
	size_t bytes;
	if (conn_speaks(channel->conn) == run->by &&
	    codec_is_verbatim(codec_of(run->by), frames, first, first + n, &raw, &bytes)) {
		bool sent = !channel_send_raw(channel, raw, bytes, n);
		for (unsigned i = first; channel->recorded && sent && i < first + n; i++)
			record_out(channel, frames[i].data, frames[i].len);
		return true;
	}
	for (unsigned i = first; i < first + n; i++) {
		bool below;
		int err = channel_send(channel, frames[i].data, frames[i].len, &below);
		if (channel->recorded && !err)
			record_out(channel, frames[i].data, frames[i].len);
		if (err && !reply_explain(channel, lua, frames[i].len, err))
			return false;
	}
	return true;
}

/*
 * Sends replies sent + 1 .. last from where the loop leaves them; see send_values() for the rest. in_turns: only as
 * many as fit the connection's turn.
 */
static bool send_left(struct agents *agents, struct run *run, lua_State *lua, unsigned last, bool in_turns)
{
	struct channel *channel = run->channel;
	uint64_t began = channel->handler_ticks;
	bool views = run->views && !run->resumed, below, ok = true;
	push_control(agents, run);
	lua_rawgeti(agents->vm.lua, -1, CONTROL_REPLIES);
	lua_remove(agents->vm.lua, -2);
	if (lua != agents->vm.lua)
		lua_xmove(agents->vm.lua, lua, 1);
	int replies = lua_gettop(lua);
	while (ok && run->sent < last) {
		unsigned n = views ? echoed_from(agents, run->sent, last) : 0;
		if (run->resumed && run->views && agents->echoed[run->sent]) {
			lua_pushstring(lua, REPLY_DEAD_VIEW);
			ok = false;
		} else if (n) {
			ok = send_echoed(run, lua, run->sent, n);
		} else {
			n = 1;
			lua_rawgeti(lua, replies, (int)run->sent + 1);
			if (__builtin_expect(run->forwards && forward_is_token(lua, -1), 0))
				break; /* it has not come: those behind it wait */
			ok = reply_send(agents, channel, lua, lua_gettop(lua), &below);
		}
		if (!ok)
			break;
		run->sent += n;
		lua_settop(lua, replies);
		if (in_turns && channel_turn_is_over(channel, began))
			break;
	}
	if (ok)
		lua_settop(lua, replies - 1);
	return ok;
}

bool batch_take_replies(struct agents *agents, struct run *run, lua_State *lua)
{
	if (!run->batched)
		return true;
	unsigned index = batch_index(agents, run);
	if (index <= run->sent + 1)
		return true;
	bool ok = send_left(agents, run, lua, index - 1, false);
	if (!channel_is_open(run->channel))
		batch_cut(agents, run); /* sending may have ended it: nothing more is for this agent */
	return ok;
}

/* When the call has failed or waits, what cannot be sent is its fault later, or no matter any more. */
static void take_replies_quietly(struct agents *agents, struct run *run)
{
	lua_State *lua = agents->vm.lua;
	int top = lua_gettop(lua);
	batch_take_replies(agents, run, lua);
	reply_forget(agents);
	lua_settop(lua, top);
}

/* ---- frames ---- */

/* Frames in two pieces (codec->offset) are put together here; larger ones in a buffer of Lua's. */
static void push_flattened(lua_State *lua, const struct codec *codec, const struct frame *frame)
{
	size_t size = (size_t)frame->len + codec->offset;
	uint8_t small[1024], *to = size <= sizeof small ? small : lua_newuserdata(lua, size);
	lua_pushlstring(lua, (char *)to, codec_flatten(codec, frame, to));
	if (to != small)
		lua_remove(lua, -2);
}

static void push_parts(struct agents *agents, lua_State *lua, const struct batch *batch, unsigned count)
{
	(void)agents;
	for (unsigned i = 0; i < count; i++)
		push_flattened(lua, codec_of(batch->by), &batch->frames[i]);
}

static void push_values(struct agents *agents, lua_State *lua, const struct batch *batch, unsigned count)
{
	(void)batch;
	for (unsigned i = 0; i < count; i++) {
		lua_pushvalue(agents->vm.lua, AT_VALUES);
		lua_rawgeti(agents->vm.lua, -1, (int)i + 1);
		if (lua != agents->vm.lua)
			lua_xmove(agents->vm.lua, lua, 1);
		else
			lua_remove(lua, -2);
		if (lua != agents->vm.lua)
			lua_pop(agents->vm.lua, 1);
	}
}

/*
 * Where the table of strings is large, LuaJIT would wait for its memory with each frame. Here the places of all of them
 * are fetched at once, and what lies there.
 */
static __attribute__((noinline)) void expect_strings(const struct vm *vm, const struct batch *batch)
{
	const struct layout_strings *strings = vm->layout.strings;
	const struct layout_string *first[BATCH_MAX];
	uint32_t slots[BATCH_MAX];
	for (unsigned i = 0; i < batch->count; i++) {
		const struct frame *frame = &batch->frames[i];
		slots[i] = frame->len ? layout_slot(strings, frame->data, frame->len) : 0;
		__builtin_prefetch(&strings->slots[slots[i]], 1);
	}
	for (unsigned i = 0; i < batch->count; i++)
		first[i] = layout_first(strings, slots[i]);
	layout_fetch(first, batch->count);
}

static void push_strings(struct agents *agents, lua_State *lua, const struct batch *batch, unsigned count)
{
	if (count > 1 && __builtin_expect(vm_expects_misses(&agents->vm), 0))
		expect_strings(&agents->vm, batch);
	for (unsigned i = 0; i < count; i++)
		lua_pushlstring(lua, (const char *)batch->frames[i].data, batch->frames[i].len);
}

/* Frames that the spare might not suffice for. */
struct large {
	struct agents *agents;
	const struct batch *batch;
	int count;
};

static int l_push_large(lua_State *lua)
{
	enum { SPARE_SLOTS = 8 };
	const struct large *large = lua_touserdata(lua, 1);
	luaL_checkstack(lua, large->count + SPARE_SLOTS, "not enough memory");
	large->batch->by->messages->push(large->agents, lua, large->batch, (unsigned)large->count);
	return large->count + large->batch->by->messages->more;
}

/* Values of a codec in Lua are there already. */
static bool may_push(const struct agents *agents, const struct batch *batch)
{
	return vm_may_push(&agents->vm, batch->consumed) || batch->by->messages->are_values;
}

static bool push_large(struct agents *agents, lua_State *to, const struct batch *batch, int count)
{
	return vm_push(&agents->vm, to, l_push_large, &(struct large){ agents, batch, count });
}

static inline __attribute__((always_inline)) bool push_first(struct agents *agents, lua_State *lua,
							     const struct batch *batch)
{
	if (!may_push(agents, batch))
		return push_large(agents, lua, batch, 1);
	if (batch->by->messages == &MESSAGE_STRINGS) /* of nearly all, without a call by way of a pointer */
		lua_pushlstring(lua, (const char *)batch->frames[0].data, batch->frames[0].len);
	else
		batch->by->messages->push(agents, lua, batch, 1);
	return true;
}

bool batch_push_first(struct agents *agents, lua_State *lua, const struct batch *batch)
{
	return push_first(agents, lua, batch);
}

/* A batch of its own, but for the frames that are not looked at. */
struct one_frame {
	const struct batch *batch;
	unsigned i;
};

static void push_frame(lua_State *lua, const struct batch *batch, unsigned i)
{
	const struct frame *frame = &batch->frames[i];
	if (batch->by->messages == &MESSAGE_PARTS)
		push_flattened(lua, codec_of(batch->by), frame);
	else
		lua_pushlstring(lua, (const char *)frame->data, frame->len);
}

static int l_push_frame(lua_State *lua)
{
	const struct one_frame *one = lua_touserdata(lua, 1);
	push_frame(lua, one->batch, one->i);
	return 1;
}

bool batch_push_nth(struct agents *agents, lua_State *lua, const struct batch *batch, unsigned i)
{
	if (!may_push(agents, batch))
		return vm_push(&agents->vm, lua, l_push_frame, &(struct one_frame){ batch, i });
	push_frame(lua, batch, i);
	return true;
}

/* -1: there is no memory for it. */
static int push_one(struct agents *agents, struct run *run, const struct batch *batch)
{
	struct channel *channel = run->channel;
	lua_State *co = run->co.lua;
	lua_rawgeti(co, LUA_REGISTRYINDEX, agent_endpoint_of(channel)->single_ref);
	agent_push_anchored(agents, co, channel);
	if (!push_first(agents, co, batch))
		return -1;
	if (!batch->by->messages->are_values)
		return 3 + batch->by->messages->more;
	lua_rawgeti(agents->vm.lua, AT_METAS, 1);
	lua_xmove(agents->vm.lua, co, 1);
	return 4;
}

/* -1: there is no memory for them. */
static int push_many(struct agents *agents, struct run *run, const struct batch *batch)
{
	enum { STACK_FRAMES = 24 }; /* for which every stack has room */
	struct channel *channel = run->channel;
	const struct message_kind *messages = batch->by->messages;
	lua_State *lua = agents->vm.lua, *co = run->co.lua;
	int count = messages->are_views ? 0 : (int)batch->count;
	run->batched = true;
	lua_pushinteger(lua, 0); /* a loop that fails before its first frame has none */
	lua_rawseti(lua, AT_CONTROL, CONTROL_INDEX);
	if (count > STACK_FRAMES && !vm_make_stack(&agents->vm, co, count + 8))
		return -1;
	lua_rawgeti(co, LUA_REGISTRYINDEX, messages->loop(agent_endpoint_of(channel)));
	agent_push(agents, co, channel);
	lua_pushvalue(lua, AT_CONTROL);
	lua_xmove(lua, co, 1);
	lua_pushinteger(co, (lua_Integer)batch->count);
	if (count && !may_push(agents, batch))
		return push_large(agents, co, batch, count) ? 3 + count : -1;
	if (count)
		messages->push(agents, co, batch, (unsigned)count);
	return 3 + count;
}

/* ---- the end of a call ---- */

/* How many frames the loop has used, once it has returned: it gives a reply, if nil, for each; with
 * views it says so. */
static unsigned frames_used(const struct run *run)
{
	lua_State *co = run->co.lua;
	return run->views ? (unsigned)lua_tointeger(co, 2) : (unsigned)lua_gettop(co) - 1;
}

/* How many of these are answered: a reply with an action that there is not belongs to the fault. */
static unsigned frames_answered(const struct run *run)
{
	unsigned used = frames_used(run);
	return used && !reply_is_action(run->co.lua, 1) ? used - 1 : used;
}

unsigned batch_returned(const struct run *run)
{
	return frames_answered(run);
}

/* Each is encoded by a call of its own. */
static bool is_encoded_in_turns(const struct run *run)
{
	return messages_of(run->channel)->send && !run->resumed;
}

/* The coroutine holds the action, then the replies, which are in the control table as well (views: only there). */
static bool send_results(struct agents *agents, struct run *run)
{
	lua_State *co = run->co.lua;
	bool in_turns = is_encoded_in_turns(run);
	unsigned last = frames_answered(run);
	if (run->views || in_turns)
		return send_left(agents, run, agents->vm.lua, last, in_turns);
	lua_settop(co, 1 + (int)last);
	return send_values(agents, run->channel, co, 2 + (int)run->sent, lua_gettop(co));
}

/* The action is all that is left on the coroutine. */
static bool take_action(struct agents *agents, struct run *run)
{
	lua_State *lua = agents->vm.lua, *co = run->co.lua;
	lua_settop(co, 1);
	lua_xmove(co, lua, 1);
	return reply_action(run->channel, lua, lua_gettop(lua));
}

/* What it has returned is sent, and done. False: it is not over, and waits for its connection's next turn. */
static bool finish_results(struct agents *agents, struct run *run)
{
	lua_State *lua = agents->vm.lua;
	int top = lua_gettop(lua);
	bool acts = !lua_isnil(run->co.lua, 1), ok;
	while ((ok = send_results(agents, run)) && is_encoded_in_turns(run) &&
	       run->sent < frames_answered(run))
		if (channel_is_open(run->channel) && run_park(agents, run))
			return false;
	ok = ok && (!acts || take_action(agents, run));
	if (!ok)
		lua_replace(lua, AT_ERROR);
	lua_settop(lua, top);
	if (!ok)
		fault_raise(agents, run);
	return true;
}

/* The same, where replies may have to come from others first. */
static bool finish_many(struct agents *agents, struct run *run)
{
	if (__builtin_expect(!run->forwards, 1))
		return finish_results(agents, run);
	lua_State *lua = agents->vm.lua;
	int top = lua_gettop(lua);
	enum forward_hold held = forward_hold(agents, run);
	if (held == FORWARD_FAILED)
		lua_replace(lua, AT_ERROR);
	lua_settop(lua, top);
	if (held == FORWARD_FAILED)
		fault_raise(agents, run);
	return held == FORWARD_FAILED || (held == FORWARD_NONE && finish_results(agents, run));
}

void batch_go_on(struct agents *agents, struct run *run)
{
	struct channel *channel = run->channel;
	if (!finish_many(agents, run))
		return;
	channel->suspended = NULL;
	channel_set_busy(channel, false);
	run_end(agents, run, false);
	run_leave(agents, run);
}

/* The same of a string where each message is answered. */
static bool answer_plainly(struct agents *agents, struct run *run)
{
	const struct message_kind *messages = messages_of(run->channel);
	bool below;
	if (messages->answer && messages->send(agents, run->channel, run->co.lua, 1, &below))
		return true;
	lua_settop(run->co.lua, 1); /* it is said again, where the fault is raised */
	return false;
}

/* A string and nothing else, in a framing of ours: what nearly every call returns. */
static bool finish_plainly(struct agents *agents, struct run *run)
{
	lua_State *co = run->co.lua;
	size_t len;
	bool below;
	if (lua_gettop(co) != 1 || lua_type(co, 1) != LUA_TSTRING)
		return false;
	if (__builtin_expect(messages_of(run->channel)->send != NULL, 0))
		return answer_plainly(agents, run);
	const char *data = lua_tolstring(co, 1, &len);
	if (channel_send(run->channel, data, len, &below))
		return false;
	if (__builtin_expect(run->channel->recorded, 0))
		record_out(run->channel, data, len);
	return true;
}

/* It has forwarded its frame, and returned something else: a fault. */
static __attribute__((noinline)) bool is_not_returned(struct agents *agents, struct run *run)
{
	if (!run->forwards->first)
		return false;
	lua_pushliteral(agents->vm.lua, FORWARD_NOT_RETURNED);
	lua_replace(agents->vm.lua, AT_ERROR);
	fault_raise(agents, run);
	return true;
}

static void finish_one(struct agents *agents, struct run *run)
{
	if (__builtin_expect(run->forwards != NULL, 0) && is_not_returned(agents, run))
		return;
	if (!finish_plainly(agents, run) && !reply_take(agents, run, 1, NULL))
		fault_raise(agents, run);
}

bool batch_send_until(struct agents *agents, struct run *run, unsigned last)
{
	lua_State *lua = agents->vm.lua, *co = run->co.lua;
	bool below;
	for (; run->sent < last; run->sent++) {
		lua_pushvalue(co, 2 + (int)run->sent);
		lua_xmove(co, lua, 1);
		if (!reply_send(agents, run->channel, lua, lua_gettop(lua), &below))
			return false;
		lua_pop(lua, 1);
	}
	return true;
}

void batch_fail(struct agents *agents, struct run *run)
{
	struct channel *channel = run->channel;
	channel->suspended = NULL;
	channel_set_busy(channel, false);
	run->resumed = true; /* the frames are gone */
	fault_raise(agents, run);
	run_end(agents, run, false);
	run_leave(agents, run);
}

/* One frame whose reply is to come is a batch from here on: the action is first, then the reply. */
static bool becomes_batch(struct run *run)
{
	lua_State *co = run->co.lua;
	if (__builtin_expect(!run->forwards, 1) || !forward_is_token(co, 1) || !reply_is_action(co, 2) ||
	    !lua_isnoneornil(co, 3))
		return false;
	lua_settop(co, 2);
	lua_insert(co, 1);
	run->batched = true;
	return true;
}

void batch_finish(struct agents *agents, struct run *run, enum outcome outcome)
{
	if (outcome == RUN_FAILED) {
		take_replies_quietly(agents, run);
		fault_raise(agents, run);
	} else if (run->batched || becomes_batch(run)) {
		if (!finish_many(agents, run))
			return;
	} else {
		finish_one(agents, run);
	}
	run_end(agents, run, outcome == RUN_FAILED);
}

unsigned batch_run(struct agents *agents, struct channel *channel, struct batch *batch)
{
	struct run run;
	run_begin(agents, &run, channel, CALL_PROCEED);
	run.by = batch->by;
	run.views = batch->by->messages->are_views;
	bool one = batch->count == 1 && !run.views;
	int nargs = one ? push_one(agents, &run, batch) : push_many(agents, &run, batch);
	enum outcome outcome = nargs < 0 ? run_starve(agents, &run) : run_enter(agents, &run, nargs);
	if (outcome == RUN_SUSPENDED) {
		struct run *suspended = channel->suspended;
		if (one)
			return 1;
		take_replies_quietly(agents, suspended);
		batch_cut(agents, suspended);
		return batch_index(agents, suspended);
	}
	unsigned used = one ? 1 : outcome == RUN_DONE ? frames_used(&run) : batch_index(agents, &run);
	batch_finish(agents, &run, outcome);
	return used;
}

/* ---- the kinds of messages ---- */

static int strings_loop(const struct agent_endpoint *endpoint)
{
	return endpoint->loop_ref;
}

static int views_loop(const struct agent_endpoint *endpoint)
{
	return endpoint->view_loop_ref;
}

static int values_loop(const struct agent_endpoint *endpoint)
{
	return endpoint->meta_loop_ref;
}

const struct message_kind MESSAGE_STRINGS = { .push = push_strings, .loop = strings_loop };
const struct message_kind MESSAGE_PARTS = { .push = push_parts, .loop = strings_loop };
const struct message_kind MESSAGE_VIEWS = { .push = push_strings, .loop = views_loop, .are_views = true };
const struct message_kind MESSAGE_VALUES = { .push = push_values, .loop = values_loop, .are_values = true };
const struct message_kind MESSAGE_VALUES_ENCODED = {
	.push = push_values,
	.loop = values_loop,
	.send = reply_send_encoded,
	.are_values = true,
};
