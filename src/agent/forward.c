#include "agent/forward.h"

#include "agent/record.h"

#include <lauxlib.h>
#include <stdlib.h>
#include <string.h>

/* ---- requests ---- */

/* A view lives no longer than the call, and what a codec in Lua is to encode is more than bytes. */
bool forward_is_possible(struct client *client, uint32_t depth)
{
	const struct run *run = client_agents(client)->current;
	return run && run->callback == CALL_PROCEED && !run->views && !messages_of(run->channel)->send &&
	       client->is_shared && client->requests.count < depth && request_may_send(client);
}

/* Of the running call, made with its first; NULL: there is no memory. */
static struct forwards *forwards_of(struct run *run)
{
	if (run->forwards)
		return run->forwards;
	struct forwards *forwards = calloc(1, sizeof *forwards);
	if (!forwards)
		return NULL;
	forwards->run = run->channel->suspended == run ? run : NULL;
	return run->forwards = forwards;
}

static void unrefer(lua_State *lua, struct forward *forward)
{
	if (forward->value_ref != LUA_NOREF)
		luaL_unref(lua, LUA_REGISTRYINDEX, forward->value_ref);
	forward->value_ref = LUA_NOREF;
}

static struct forward *new_forward(struct agents *agents)
{
	struct forward *forward = agents->kept_forwards;
	if (!forward)
		return malloc(sizeof *forward);
	agents->kept_forwards = forward->next;
	agents->kept_forward_count--;
	return forward;
}

static void free_forward(struct agents *agents, struct forward *forward)
{
	if (agents->kept_forward_count == FORWARDS_KEPT) {
		free(forward);
		return;
	}
	forward->next = agents->kept_forwards;
	agents->kept_forwards = forward;
	agents->kept_forward_count++;
}

void forward_free_kept(struct agents *agents)
{
	struct forward *next;
	for (struct forward *each = agents->kept_forwards; each; each = next) {
		next = each->next;
		free(each);
	}
	agents->kept_forwards = NULL;
}

/* The next to be sent, one that could not be, or a new one; NULL: there is no memory. */
static struct forward *begin_forward(struct agents *agents, struct forwards *forwards)
{
	struct forward *forward = (struct forward *)(void *)forwards->unsent;
	if (forward)
		unrefer(agents->vm.lua, forward);
	else
		forward = new_forward(agents);
	if (forward)
		*forward = (struct forward){ .request.is_forward = true, .value_ref = LUA_NOREF };
	forwards->unsent = forward ? &forward->request : NULL;
	return forward;
}

static unsigned current_index(struct agents *agents)
{
	return agents->current->batched ? batch_index(agents, agents->current) : 1;
}

static void link_last(struct forwards *forwards, struct forward *forward)
{
	forward->next = NULL;
	*(forwards->last ? &forwards->last->next : &forwards->first) = forward;
	forwards->last = forward;
}

/* It was sent. 0 ms: its reply may come at any time. */
static void append(struct agents *agents, struct client *client, struct forward *forward, unsigned index,
		   uint32_t ms)
{
	struct forwards *forwards = agents->current->forwards;
	link_last(forwards, forward);
	forwards->unsent = NULL;
	forwards->newest = index;
	forward->request.forwards = forwards;
	forward->client = client;
	forward->index = index;
	forward->until_ms = ms ? conn_host_after(agents->host, ms) : WHEEL_NEVER;
}

/* NULL: it has ended. */
static struct client *client_by_id(struct agents *agents, double id)
{
	const struct conn_host *host = agents->host->outgoing->host;
	struct channel *channel = idmap_get(&host->ids, (uint64_t)id);
	struct client *client = channel && channel->agents == agents ? client_of(channel) : NULL;
	return client && client->stage == CLIENT_OPEN && channel_is_open(channel) ? client : NULL;
}

/* Of those that the running call waits for, the connection to the same endpoint that it has asked last; or NULL. */
static struct client *asked_before(const struct agents *agents, const struct client_endpoint *endpoint)
{
	const struct forwards *forwards = agents->current ? agents->current->forwards : NULL;
	if (!forwards || !forwards->last)
		return NULL;
	if (forwards->last->state == FORWARD_OWED && client_endpoint(forwards->last->client) == endpoint)
		return forwards->last->client;
	struct client *found = NULL;
	for (const struct forward *each = forwards->first; each; each = each->next)
		if (each->state == FORWARD_OWED && client_endpoint(each->client) == endpoint)
			found = each->client;
	return found;
}

struct client *forward_choose(const struct agents *agents, struct client *client)
{
	struct client *asked = asked_before(agents, client_endpoint(client));
	return asked ? asked : client;
}

bool forward_bytes(struct agents *agents, double id, uint32_t first_depth, uint32_t depth, const char *data,
		   size_t len)
{
	struct client *chosen = client_by_id(agents, id);
	if (!chosen)
		return false;
	struct client *client = forward_choose(agents, chosen);
	bool below;
	if (!forward_is_possible(client, client == chosen ? first_depth : depth) ||
	    messages_of(&client->made->conn.first)->send ||
	    !codec_is_one_frame(codec_of(conn_speaks(&client->made->conn)), data, len))
		return false;
	struct forwards *forwards = forwards_of(agents->current);
	unsigned index = current_index(agents);
	struct forward *forward =
	    forwards && forwards->newest != index ? begin_forward(agents, forwards) : NULL;
	if (!forward || channel_send(&client->made->conn.first, data, len, &below))
		return false;
	request_append(client, &forward->request);
	append(agents, client, forward, index, client_endpoint(client)->read_ms);
	return true;
}

void forward_send(lua_State *lua, struct client *client, int idx, uint32_t ms, int otherwise)
{
	struct agents *agents = client_agents(client);
	struct forwards *forwards = forwards_of(agents->current);
	unsigned index = current_index(agents);
	if (forwards && forwards->newest == index)
		luaL_error(lua, "pool:forward: a frame has one reply, and this one was forwarded before");
	struct forward *forward = forwards ? begin_forward(agents, forwards) : NULL;
	if (!forwards || !forward) {
		luaL_error(lua, "pool:forward: not enough memory");
		abort();
	}
	if (!lua_isnoneornil(lua, otherwise)) {
		lua_pushvalue(lua, otherwise);
		forward->value_ref = luaL_ref(lua, LUA_REGISTRYINDEX);
	}
	request_post(lua, client, idx, &forwards->unsent);
	append(agents, client, forward, index, ms);
	lua_pushboolean(lua, 1);
}

/* The call has no use for them any more, which are in no list. What is a request still stays in its place. */
static void drop_forwards(struct agents *agents, struct forward *first)
{
	for (struct forward *next, *each = first; each; each = next) {
		next = each->next;
		each->request.forwards = NULL;
		unrefer(agents->vm.lua, each);
		if (each->state != FORWARD_OWED)
			free_forward(agents, each);
	}
}

/* The same of one, which is in the list; a request still, or the caller's to free. */
static void detach(struct agents *agents, struct forward *forward)
{
	struct forwards *forwards = forward->request.forwards;
	struct forward **link = &forwards->first, *before = NULL;
	for (; *link && *link != forward; link = &before->next)
		before = *link;
	if (!*link)
		return;
	*link = forward->next;
	if (forwards->last == forward)
		forwards->last = before;
	forward->request.forwards = NULL;
	unrefer(agents->vm.lua, forward);
}

void forward_end(struct agents *agents, struct run *run)
{
	struct forwards *forwards = run->forwards;
	drop_forwards(agents, forwards->first);
	if (forwards->unsent)
		unrefer(agents->vm.lua, (struct forward *)(void *)forwards->unsent);
	free(forwards->unsent);
	free(forwards);
	run->forwards = NULL;
	run->channel->owed = false;
}

/* ---- what the call has returned: on its coroutine the action, and then the replies ---- */

static int slot_of(unsigned index)
{
	return 1 + (int)index;
}

/* Nothing follows the reply that does not come, and that is the end. */
static void end_after(const struct run *run, unsigned index)
{
	lua_State *co = run->co.lua;
	lua_pushliteral(co, "close");
	lua_replace(co, 1);
	lua_pushnil(co);
	lua_replace(co, slot_of(index));
	lua_settop(co, slot_of(index));
}

/* The same of what the list has from there on. */
static void cut_replies(struct agents *agents, struct run *run, unsigned index)
{
	struct forwards *forwards = run->forwards;
	struct forward **link = &forwards->first;
	for (forwards->last = NULL; *link && (*link)->index < index; link = &(*link)->next)
		forwards->last = *link;
	struct forward *rest = *link;
	*link = NULL;
	drop_forwards(agents, rest);
	end_after(run, index);
}

/* The value on top of the VM's stack is the reply to frame `index`. */
static void place(struct agents *agents, struct run *run, unsigned index)
{
	lua_xmove(agents->vm.lua, run->co.lua, 1);
	lua_replace(run->co.lua, slot_of(index));
}

static void use(struct agents *agents, struct run *run, const struct forward *forward)
{
	lua_rawgeti(agents->vm.lua, LUA_REGISTRYINDEX, forward->value_ref);
	place(agents, run, forward->index);
}

/* False: the call has returned something else in the place of one. */
static bool are_returned(const struct run *run)
{
	unsigned returned = batch_returned(run);
	for (const struct forward *each = run->forwards->first; each && each->index <= returned;
	     each = each->next)
		if (!forward_is_token(run->co.lua, slot_of(each->index)))
			return false;
	return true;
}

/* What has come already is used; those that an action has cut off are not wanted. */
static void sort_out(struct agents *agents, struct run *run)
{
	struct forwards *forwards = run->forwards;
	unsigned returned = batch_returned(run);
	struct forward *next, *each = forwards->first;
	for (forwards->first = forwards->last = NULL; each; each = next) {
		next = each->next;
		bool is_wanted = each->index <= returned;
		if (is_wanted && each->state == FORWARD_OWED) {
			link_last(forwards, each);
			continue;
		}
		if (is_wanted && each->state == FORWARD_LOST) {
			end_after(run, each->index);
			drop_forwards(agents, each);
			return;
		}
		if (is_wanted)
			use(agents, run, each);
		each->next = NULL;
		drop_forwards(agents, each);
	}
}

/* What stands before the first that has not come goes out. False with an error message on the VM's stack. */
static bool send_ready(struct agents *agents, struct run *run)
{
	const struct forward *first = run->forwards->first;
	return !first || batch_send_until(agents, run, first->index - 1);
}

static uint64_t first_due(const struct forwards *forwards)
{
	uint64_t first_ms = WHEEL_NEVER;
	for (const struct forward *each = forwards->first; each; each = each->next)
		if (each->until_ms < first_ms)
			first_ms = each->until_ms;
	return first_ms;
}

enum forward_hold forward_hold(struct agents *agents, struct run *run)
{
	enum { SPARE_SLOTS = 4 };
	if (!vm_make_stack(&agents->vm, run->co.lua, SPARE_SLOTS)) {
		lua_pushliteral(agents->vm.lua, "not enough memory for the replies");
		return FORWARD_FAILED;
	}
	if (!are_returned(run)) {
		lua_pushliteral(agents->vm.lua, FORWARD_NOT_RETURNED);
		return FORWARD_FAILED;
	}
	sort_out(agents, run);
	if (!run->forwards->first)
		return FORWARD_NONE;
	if (!send_ready(agents, run))
		return FORWARD_FAILED;
	if (run_hold(agents, run, first_due(run->forwards)))
		return FORWARD_HELD;
	lua_pushliteral(agents->vm.lua, "not enough memory to wait for replies");
	return FORWARD_FAILED;
}

/* ---- replies ---- */

/* The replies that there are go out; when none is missing any more, the call is over. */
static void go_on_owed(struct agents *agents, struct run *run)
{
	bool ok = send_ready(agents, run);
	if (ok && run->forwards->first)
		return;
	if (!ok)
		lua_replace(agents->vm.lua, AT_ERROR);
	run_forget_wait(agents, run);
	forward_end(agents, run);
	run->resumed = true; /* the frames are gone, and replies are where it has left them */
	if (ok)
		batch_go_on(agents, run);
	else
		batch_fail(agents, run);
}

/* The usual case: the next one that is to be sent, as bytes. False: it is not, or cannot be sent. */
static bool pass_on(struct run *run, unsigned index, const struct batch *batch, unsigned i)
{
	const struct frame *frame = &batch->frames[i];
	bool below;
	if (run->wait != WAIT_OWED || run->sent + 1 != index || batch->by->messages != &MESSAGE_STRINGS ||
	    messages_of(run->channel)->send || channel_send(run->channel, frame->data, frame->len, &below))
		return false;
	if (__builtin_expect(run->channel->recorded, 0))
		record_out(run->channel, frame->data, frame->len);
	run->sent = index;
	return true;
}

/* The call has not returned: the value on top of the VM's stack is kept until then. */
static void keep_reply(struct agents *agents, struct forward *forward)
{
	unrefer(agents->vm.lua, forward);
	forward->value_ref = luaL_ref(agents->vm.lua, LUA_REGISTRYINDEX);
	forward->state = FORWARD_GIVEN;
}

/* There is none: the call goes on without it. Does not look whether that was the last one. */
static void go_without(struct agents *agents, struct run *run, struct forward *forward)
{
	unsigned index = forward->index;
	bool has_other = forward->value_ref != LUA_NOREF;
	if (run->wait != WAIT_OWED) {
		forward->state = has_other ? FORWARD_GIVEN : FORWARD_LOST;
	} else if (has_other) {
		lua_rawgeti(agents->vm.lua, LUA_REGISTRYINDEX, forward->value_ref);
		place(agents, run, index);
		detach(agents, forward);
	} else {
		cut_replies(agents, run, index);
	}
}

static bool push_to_keep(struct agents *agents, const struct batch *batch, unsigned i)
{
	return i ? batch_push_nth(agents, agents->vm.lua, batch, i)
		 : batch_push_first(agents, agents->vm.lua, batch);
}

/* Its call wants it. True: it is not needed any more. */
static bool give(struct agents *agents, struct forward *forward, const struct batch *batch, unsigned i)
{
	struct run *run = forward->request.forwards->run;
	bool has_returned = run->wait == WAIT_OWED;
	if (pass_on(run, forward->index, batch, i)) {
		detach(agents, forward);
	} else if (!push_to_keep(agents, batch, i)) {
		go_without(agents, run, forward);
	} else if (has_returned) {
		place(agents, run, forward->index);
		detach(agents, forward);
	} else {
		keep_reply(agents, forward);
	}
	if (has_returned)
		go_on_owed(agents, run);
	return has_returned;
}

void forward_reply(struct forward *forward, const struct batch *batch, unsigned i)
{
	struct agents *agents = client_agents(forward->client);
	if (!forward->request.forwards || give(agents, forward, batch, i))
		free_forward(agents, forward);
}

void forward_fail(struct forward *forward)
{
	struct agents *agents = client_agents(forward->client);
	struct run *run = forward->request.forwards ? forward->request.forwards->run : NULL;
	bool is_kept = run && run->wait != WAIT_OWED;
	if (run)
		go_without(agents, run, forward);
	if (run && !is_kept)
		go_on_owed(agents, run);
	if (!is_kept)
		free_forward(agents, forward);
}

/* A connection that has said nothing for as long as a reply may take does not answer. */
static void end_if_silent(const struct forward *forward)
{
	uint32_t patience_ms = client_endpoint(forward->client)->read_ms;
	if (patience_ms && request_silence_ms(forward->client) >= patience_ms)
		conn_close(&forward->client->made->conn, REASON_READ_TIMEOUT, CLOSE_NOW);
}

void forward_time_out(struct agents *agents, struct run *run, uint64_t now_ms)
{
	struct forward *next;
	for (struct forward *each = run->forwards->first; each; each = next) {
		next = each->next;
		if (each->until_ms > now_ms)
			continue;
		if (each->value_ref == LUA_NOREF)
			next = NULL; /* there is nothing behind it any more */
		end_if_silent(each);
		go_without(agents, run, each);
	}
	if (run->forwards->first)
		run_hold_until(agents, run, first_due(run->forwards));
	go_on_owed(agents, run);
}
