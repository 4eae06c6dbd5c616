#include "agent/request.h"

#include "agent/forward.h"
#include "agent/line.h"

#include <lauxlib.h>
#include <stddef.h>
#include <stdlib.h>
#include <uv.h>

/* ---- whose it is ---- */

/* A layer may have words of its own at hand, which are nothing to us. */
static bool is_quiet(const struct conn *conn)
{
	if (!conn_is_open(conn) || conn->eof || conn->lost || conn->more || conn->first.reading ||
	    conn_pending_bytes(conn) || conn_unused_bytes(conn, 0))
		return false;
	return conn->layered || !stream_unread((struct stream_user *)&conn->io);
}

/* As it was when it was made: whoever has it next knows of nothing else. */
static bool is_unchanged(const struct conn *conn)
{
	const struct channel *channel = &conn->first;
	return !conn->shut_asked && !conn->own_protocol && !conn->next_protocol && !channel->paused &&
	       !channel->has_links && !channel->has_defers && !channel->flushing;
}

bool client_release(struct agents *agents, struct client *client, uint64_t new_id)
{
	struct channel *app = agents->app_is_over ? NULL : work_app(agents),
		       *channel = &client->made->conn.first;
	struct idmap *ids = &channel->conn->host->ids;
	if (!app || !client->work || client->is_owing || !is_quiet(channel->conn) ||
	    !is_unchanged(channel->conn) || idmap_put(ids, new_id, channel))
		return false;
	conn_forget_timeouts(channel->conn);
	idmap_remove(ids, channel->id);
	channel->id = new_id;
	client_move(client, work_of(agents, app));
	client->is_idle = true;
	client->lessee = 0;
	return true;
}

bool client_acquire(struct client *client, struct work *work)
{
	if (!client->is_idle || client->is_shared || !is_quiet(&client->made->conn))
		return false;
	client_move(client, work);
	client->is_idle = false;
	return true;
}

void client_share(struct client *client)
{
	client->is_shared = true;
	client->made->conn.reads_on = true; /* else a backend that cannot send could not be sent anything */
	channel_set_busy(&client->made->conn.first, false);
}

/* ---- requests ---- */

/* It stays in its place: abandoned. */
static void stay(struct errand *errand)
{
	(void)errand;
}

static const struct errand_ops REQUEST_ERRAND = { .abandon = stay };

bool request_may_send(struct client *client)
{
	struct channel *channel = &client->made->conn.first;
	if (client->requests.count || !conn_unused_bytes(channel->conn, client->requests.at))
		return true;
	channel_close(channel, REASON_FRAME_ERROR, CLOSE_NOW);
	return false;
}

void request_append(struct client *client, struct request *request)
{
	struct requests *requests = &client->requests;
	request->sent_ms = client->made->conn.host->now_ms;
	*(requests->last ? &requests->last->next : &requests->first) = request;
	requests->last = request;
	requests->count++;
}

uint64_t request_silence_ms(const struct client *client)
{
	const struct request *first = client->requests.first;
	const struct conn *conn = &client->made->conn;
	if (!first || conn->host->now_ms < conn->host->grace_until_ms)
		return 0; /* the process stood still: what it has said may lie in its socket */
	return conn->host->now_ms -
	       (first->sent_ms > conn->idle_since_ms ? first->sent_ms : conn->idle_since_ms);
}

/* NULL: nobody has asked for anything. */
static struct request *take_first_request(struct requests *requests)
{
	struct request *request = requests->first;
	if (!request)
		return NULL;
	requests->first = request->next;
	if (!requests->first)
		requests->last = NULL;
	requests->count--;
	return request;
}

static bool request_is_one(const struct client *client, lua_State *lua, int idx)
{
	size_t len;
	const char *data = lua_type(lua, idx) == LUA_TSTRING ? lua_tolstring(lua, idx, &len) : NULL;
	return !data || codec_is_one_frame(codec_of(conn_speaks(&client->made->conn)), data, len);
}

/* MAY RAISE. Exactly one frame is sent for a request, or its reply would be another's. */
static bool send_request(lua_State *lua, struct client *client, int idx)
{
	struct channel *channel = &client->made->conn.first;
	const struct counters *counters = channel->conn->host->counters;
	uint64_t before = count_read(&counters->frames_out);
	bool below;
	if (!request_is_one(client, lua, idx)) {
		lua_pushliteral(lua, "the frame contains its delimiter: it would be two requests");
		return false;
	}
	if (!reply_send(client_agents(client), channel, lua, idx, &below)) {
		reply_forget(client_agents(client));
		return false;
	}
	if (count_read(&counters->frames_out) - before == 1)
		return true;
	channel_close(channel, REASON_AGENT, CLOSE_NOW);
	lua_pushliteral(lua, "pool:request: a request is one frame");
	return false;
}

/*
 * What is sent must be noted, or its reply would be another's. So there is memory for that before; if sending raises,
 * the next request has it.
 */
struct request *request_post(lua_State *lua, struct client *client, int idx, struct request **unborn)
{
	struct request *request = *unborn;
	if (!send_request(lua, client, idx))
		lua_error(lua);
	if (*unborn != request) {
		channel_close(&client->made->conn.first, REASON_AGENT, CLOSE_NOW);
		luaL_error(lua, "pool: what a codec encodes for one request cannot wait for another");
	}
	*unborn = NULL;
	request_append(client, request);
	return request;
}

int request_send(lua_State *lua, struct run *run, struct client *client, int idx, uint32_t ms)
{
	struct agents *agents = client_agents(client);
	if (!agents->unborn_request)
		agents->unborn_request = calloc(1, sizeof *agents->unborn_request);
	if (!agents->unborn_request)
		return client_push_error(lua, UV_ENOMEM, NULL);
	agents->unborn_request->errand.ops = &REQUEST_ERRAND;
	struct request *request = request_post(lua, client, idx, &agents->unborn_request);
	return errand_wait(lua, run, &request->errand, ms);
}

static bool push_reply(struct client *client, lua_State *lua, const struct batch *batch, unsigned i)
{
	if (i == 0)
		return batch_push_first(client_agents(client), lua, batch);
	return batch_push_nth(client_agents(client), lua, batch, i);
}

/* The reply goes to who has asked for it, and goes on at once. */
static void give_reply(struct client *client, struct request *request, const struct batch *batch, unsigned i)
{
	struct agents *agents = client_agents(client);
	if (request->is_forward) {
		forward_reply((struct forward *)(void *)request, batch, i);
		return;
	}
	struct channel *channel = &client->made->conn.first;
	struct run *run = request->errand.run ? errand_take(agents, &request->errand) : NULL;
	free(request);
	if (!run)
		return;
	const struct channel *owner = run->channel;
	uint64_t ticks = owner->handler_ticks;
	run_wake(agents, run, push_reply(client, run->co.lua, batch, i) ? 1 : -1);
	channel->handler_ticks += owner->handler_ticks - ticks;
}

/* Values of a codec in Lua lie where the next decode() puts its own: one at a time. */
unsigned request_frames(struct client *client, const struct batch *batch)
{
	struct channel *channel = &client->made->conn.first;
	unsigned most = batch->by->messages->are_values ? 1 : batch->count, used = 0;
	uint64_t began = channel->handler_ticks;
	while (used < most && channel_is_open(channel) && !channel_turn_is_over(channel, began)) {
		struct request *request = take_first_request(&client->requests);
		if (!request) {
			channel_close(channel, REASON_FRAME_ERROR, CLOSE_NOW);
			return batch->count;
		}
		client->requests.at = used;
		give_reply(client, request, batch, used++);
	}
	client->requests.at = 0;
	return used;
}

/* It waits for a reply that does not come. */
static void fail_request(struct client *client, struct request *request,
			 int (*push)(lua_State *lua, const struct conn *conn, enum close_reason reason),
			 enum close_reason reason)
{
	struct agents *agents = client_agents(client);
	if (request->is_forward) {
		forward_fail((struct forward *)(void *)request);
		return;
	}
	struct run *run = request->errand.run ? errand_take(agents, &request->errand) : NULL;
	free(request);
	if (run)
		line_ready(agents, run, push(run->co.lua, &client->made->conn, reason));
}

bool request_end_some(struct client *client,
		      int (*push)(lua_State *lua, const struct conn *conn, enum close_reason reason),
		      enum close_reason reason)
{
	enum { AT_ONCE = 512 };
	struct request *request;
	for (unsigned i = 0; i < AT_ONCE && (request = take_first_request(&client->requests)); i++)
		fail_request(client, request, push, reason);
	return !client->requests.first;
}
