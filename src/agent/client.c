#include "agent/client.h"

#include "agent/line.h"
#include "agent/request.h"
#include "agent/task.h"
#include "base/err.h"

#include <lauxlib.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

/* ---- who is who ---- */

struct client *client_of(const struct channel *channel)
{
	if (!conn_is_outgoing(channel->conn))
		return NULL;
	struct client *client = client_behind(channel);
	return client_has_agent(client) ? NULL : client;
}

static bool has_agent(const struct channel *channel)
{
	return client_has_agent(client_behind(channel));
}

/* ---- the beginning ---- */

static void release_endpoint(struct agents *agents, struct client_endpoint *endpoint)
{
	endpoint->used = ++agents->endpoint_uses;
	endpoint->users--;
}

static void link_client(struct work *work, struct client *client)
{
	client->work = work;
	client->next = work->clients;
	if (client->next)
		client->next->prev = client;
	work->clients = client;
	work->client_count++;
}

/* It belongs to nobody from now on. */
static void unlink_client(struct client *client)
{
	struct work *work = client->work;
	if (!work)
		return;
	*(client->prev ? &client->prev->next : &work->clients) = client->next;
	if (client->next)
		client->next->prev = client->prev;
	client->work = NULL;
	client->next = client->prev = NULL;
	work->client_count--;
}

void client_move(struct client *client, struct work *work)
{
	unlink_client(client);
	link_client(work, client);
}

static void free_client(struct client *client)
{
	struct agents *agents = client_agents(client);
	agents->host->outgoing->count--;
	agents->clients--;
	release_endpoint(agents, client_endpoint(client));
	unlink_client(client);
	free(client);
}

static int begin_outgoing(struct outgoing *outgoing)
{
	if (!outgoing)
		return UV_ENOTSUP;
	if (outgoing->max && outgoing->count >= outgoing->max)
		return UV_EBUSY;
	return outgoing->host ? 0 : outgoing->ops->begin(outgoing);
}

/* Whoever waited for it has gone. */
static void client_abandon(struct errand *errand)
{
	struct client *client = (struct client *)(void *)((char *)errand - offsetof(struct client, errand));
	count(&client_agents(client)->counters->connect_failures);
	if (client->stage == CLIENT_DIALS) {
		client->attempt.outgoing->ops->cancel(&client->attempt);
		free_client(client);
	} else {
		conn_close(&client->made->conn, REASON_AGENT, CLOSE_NOW);
	}
}

static void client_explain(const struct errand *errand, char *text, size_t size)
{
	const struct client *client =
	    (const struct client *)(const void *)((const char *)errand - offsetof(struct client, errand));
	const char *name = client_endpoint(client)->name;
	if (client->stage == CLIENT_DIALS)
		snprintf(text, size, "timeout: nobody has answered at %s", name);
	else if (client->stage == CLIENT_SHAKES)
		snprintf(text, size, "timeout: connected to %s, but the handshake was not answered", name);
	else
		snprintf(text, size, "timeout: connected to %s, but TLS has not opened", name);
}

static const struct errand_ops CLIENT_ERRAND = { .what = "perilune.connect",
						 .abandon = client_abandon,
						 .explain = client_explain };

static void on_dialled(struct attempt *attempt, struct outgoing_conn *made, int err, const char *why);

struct client *client_dial(struct agents *agents, struct work *work, struct client_endpoint *endpoint,
			   const struct dial_target *target, int *err)
{
	struct outgoing *outgoing = agents->host->outgoing;
	*err = begin_outgoing(outgoing);
	if (*err)
		return NULL;
	struct client *client = calloc(1, sizeof *client);
	if (!client) {
		*err = UV_ENOMEM;
		return NULL;
	}
	client->attempt = (struct attempt){ outgoing, &endpoint->endpoint.endpoint, on_dialled, NULL };
	client->errand.ops = &CLIENT_ERRAND;
	endpoint->users++;
	outgoing->count++;
	agents->clients++;
	link_client(work, client);
	*err = outgoing->ops->dial(&client->attempt, target);
	if (!*err)
		return client;
	free_client(client);
	return NULL;
}

int client_push_error(lua_State *lua, int err, const char *why)
{
	lua_pushnil(lua);
	lua_pushstring(lua, why ? why : uv_strerror(err));
	lua_pushstring(lua, uv_err_name(err));
	return 3;
}

static void on_dialled(struct attempt *attempt, struct outgoing_conn *made, int err, const char *why)
{
	struct client *client = (struct client *)(void *)attempt;
	if (!made) {
		count(&client_agents(client)->counters->connect_failures);
		struct run *run = errand_take(client_agents(client), &client->errand);
		line_ready(client_agents(client), run, client_push_error(run->co.lua, err, why));
		free_client(client);
		return;
	}
	struct outgoing *outgoing = attempt->outgoing;
	const struct endpoint *endpoint = attempt->endpoint;
	made->client = client;
	made->conn.first.agents = client_agents(client);
	made->conn.endpoint = endpoint; /* from now on it leads there, and the attempt does no more */
	client->made = made;
	client->stage = CLIENT_OPENS;
	client->requests = (struct requests){ 0 };
	client->lessee = client->is_leased && client->errand.run ? client->errand.run->serial : 0;
	outgoing_open(outgoing, made, endpoint);
}

/* ---- struct conn_handler ---- */

void client_begin(struct client *client)
{
	struct channel *channel = &client->made->conn.first;
	if (client_endpoint(client)->has_agent)
		AGENT_HANDLER.opened(channel);
	else
		channel_set_busy(channel, true);
	if (!channel_is_open(channel))
		return; /* who waits is told of its end */
	client->stage = CLIENT_OPEN;
	if (!client->errand.run)
		return;
	struct run *run = errand_take(client_agents(client), &client->errand);
	agent_push_conn(client_agents(client), run->co.lua, channel);
	line_ready(client_agents(client), run, 1);
	run->place.gift = GIFT_CONN;
	run->place.key = (int64_t)channel->id;
}

static void client_on_opened(struct channel *channel)
{
	struct client *client = client_behind(channel);
	if (client_endpoint(client)->is_websocket)
		client_shake(client);
	else
		client_begin(client);
}

static void client_on_refused(struct channel *channel, enum close_reason reason, const char *why)
{
	(void)channel;
	(void)reason;
	(void)why;
}

static unsigned client_on_frames(struct channel *channel, struct batch *batch)
{
	if (has_agent(channel) || channel->is_piped)
		return AGENT_HANDLER.frames(channel, batch);
	struct client *client = client_behind(channel);
	if (client->stage == CLIENT_SHAKES) {
		client_shaken(client, batch);
		return 1;
	}
	struct run *run = client->reader;
	if (client->is_shared)
		return request_frames(client, batch);
	const struct channel *owner = run->channel;
	uint64_t ticks = owner->handler_ticks;
	client->is_owing = false;
	int values = 1 + batch->by->messages->more;
	run_wake(client_agents(client), run,
		 batch_push_first(client_agents(client), run->co.lua, batch) ? values : -1);
	channel->handler_ticks += owner->handler_ticks - ticks; /* its turn is used up by who reads */
	return 1;
}

static void fail_reader(struct client *client, const char *message, const char *code)
{
	struct run *run = client->reader;
	lua_pushnil(run->co.lua);
	lua_pushstring(run->co.lua, message);
	lua_pushstring(run->co.lua, code);
	run_wake(client_agents(client), run, 3);
}

/* Who reads on and on, and does not look, would do so for ever. */
static enum eof_answer client_on_eof(struct channel *channel)
{
	enum { EOF_READS_MAX = 100 };
	if (has_agent(channel) || channel->is_piped)
		return AGENT_HANDLER.eof(channel);
	struct client *client = client_behind(channel);
	if (client->stage == CLIENT_SHAKES)
		return messages_of(channel)->push_end ? EOF_LATER : EOF_CLOSE;
	if (client->is_idle)
		return EOF_CLOSE;
	if (!client->reader)
		return EOF_LATER;
	if (messages_of(channel)->push_end) /* the peer has said that it ends: nothing follows */
		return EOF_CLOSE;
	if (++channel->conn->eof_reads > EOF_READS_MAX)
		return EOF_CLOSE;
	fail_reader(client, "end of stream", "EOF");
	return EOF_LATER;
}

static bool on_client_timeout(struct channel *channel, enum timeout_kind kind)
{
	return has_agent(channel) && AGENT_HANDLER.timeout(channel, kind);
}

static void client_on_bad_frame(struct channel *channel, const struct batch *batch)
{
	struct client *client = client_behind(channel);
	char error[256];
	if (has_agent(channel)) {
		AGENT_HANDLER.bad_frame(channel, batch);
	} else if (client->stage == CLIENT_OPEN && client->reader) {
		batch->by->ops->explain(batch->by, batch, error, sizeof error);
		fail_reader(client, error, batch->error == ERR_FRAME_TOO_LARGE ? "EMSGSIZE" : "EPROTO");
	}
}

static void on_client_writable(struct channel *channel)
{
	if (has_agent(channel) || channel->is_piped)
		AGENT_HANDLER.writable(channel);
}

static bool is_flushing(const struct run *run, const struct channel *channel)
{
	return run->wait == WAIT_FLUSH && run->at == channel;
}

/* Its owner's calls that wait for the output to be gone go on. */
static void tell_flushers(struct client *client, bool is_gone)
{
	struct channel *channel = &client->made->conn.first;
	struct agents *agents = client_agents(client);
	channel->flushing = false; /* whoever waits anew says so */
	struct work *work = client->work;
	struct run *runs[2] = { work ? work->channel->suspended : NULL };
	for (struct task *task = work ? work->first : NULL; runs[0] || task;) {
		struct run *run = runs[0] ? runs[0] : &task->run;
		task = runs[0] ? task : task->next;
		runs[0] = NULL;
		if (!is_flushing(run, channel))
			continue;
		run_forget_wait(agents, run);
		run->place = (struct line_place){ 0 };
		if (is_gone) {
			lua_pushboolean(run->co.lua, 1);
			line_ready(agents, run, 1);
		} else {
			line_ready(agents, run, client_push_error(run->co.lua, UV_ECANCELED, "closed"));
		}
	}
}

static void client_on_flushed(struct channel *channel)
{
	struct client *client = client_behind(channel);
	if (client->stage == CLIENT_SHAKES)
		client_switched(client);
	else if (has_agent(channel))
		AGENT_HANDLER.flushed(channel);
	else
		tell_flushers(client, true);
}

static bool client_on_drain(struct channel *channel, uint64_t remaining_ms)
{
	return has_agent(channel) && AGENT_HANDLER.drain(channel, remaining_ms);
}

/* Whom it is about, and what might be done. */
static int push_tls_end(lua_State *lua, const struct conn *conn, const char *why)
{
	char text[ERRAND_TEXT_BYTES];
	const char *way = strstr(why, "not trusted")   ? " (tls.authority says whom to trust)"
			  : strstr(why, "is not for ") ? " (tls.server_name says whom it should be for)"
						       : "";
	snprintf(text, sizeof text, "%s: %s%s", conn->endpoint->name, why, way);
	return client_push_error(lua, UV_EPROTO, text);
}

/* With what it has said of it, where its protocol has words for that. */
static int push_end_by_peer(lua_State *lua, const struct channel *channel)
{
	const struct message_kind *messages = messages_of(channel);
	lua_pushnil(lua);
	lua_pushliteral(lua, "end of stream");
	lua_pushliteral(lua, "EOF");
	return 3 + (messages->push_end ? messages->push_end(lua, channel) : 0);
}

/* What the end is to a call that waits for something else. */
static int push_end(lua_State *lua, const struct conn *conn, enum close_reason reason)
{
	const char *why = stream_failure(&conn->io);
	switch (reason) {
	case REASON_PEER:
		return push_end_by_peer(lua, &conn->first);
	case REASON_RESET:
		return client_push_error(lua, UV_ECONNRESET, why ? why : "connection reset by peer");
	case REASON_READ_TIMEOUT:
	case REASON_WRITE_TIMEOUT:
	case REASON_IDLE_TIMEOUT:
		return client_push_error(lua, UV_ETIMEDOUT, reason_name(reason));
	case REASON_TLS:
		return push_tls_end(lua, conn, why ? why : "the TLS handshake took too long");
	case REASON_FRAME_ERROR:
		return client_push_error(lua, UV_EPROTO, "a broken frame, or one that nobody has asked for");
	case REASON_OVERSIZE:
		return client_push_error(lua, UV_EMSGSIZE, "frame too large");
	case REASON_MEMORY:
		return client_push_error(lua, UV_ENOMEM, "not enough memory");
	default:
		return client_push_error(lua, UV_ECANCELED, "closed");
	}
}

/* The same, of one whose handshake was not answered. */
static int push_unshaken(lua_State *lua, const struct client *client, enum close_reason reason)
{
	const char *name = client_endpoint(client)->name;
	char text[ERRAND_TEXT_BYTES];
	const char *what = "the connection has ended before the handshake was answered";
	int err = UV_EOF;
	if (reason == REASON_OVERSIZE) {
		what = "the answer to the handshake is too large";
		err = UV_EMSGSIZE;
	} else if (reason != REASON_PEER) {
		return push_end(lua, &client->made->conn, reason);
	}
	snprintf(text, sizeof text, "%s: %s", name, what);
	return client_push_error(lua, err, text);
}

static void tell_opener(struct client *client, enum close_reason reason, bool has_shaken)
{
	struct agents *agents = client->made->conn.first.agents;
	struct run *run = errand_take(agents, &client->errand);
	count(&agents->counters->connect_failures);
	line_ready(agents, run,
		   has_shaken ? push_unshaken(run->co.lua, client, reason)
			      : push_end(run->co.lua, &client->made->conn, reason));
}

/* It belongs to nobody from here on, and so whoever is told finds no trace of it. */
static void tell_end(struct client *client, enum close_reason reason)
{
	struct agents *agents = client->made->conn.first.agents;
	bool has_opened = client->stage == CLIENT_OPEN, shakes = client->stage == CLIENT_SHAKES;
	client->stage = CLIENT_ENDED;
	if (shakes)
		client_unshake(client);
	tell_flushers(client, false);
	unlink_client(client);
	if (!has_opened && client->errand.run)
		tell_opener(client, reason, shakes);
	else if (has_opened && client->reader)
		run_wake(agents, client->reader,
			 push_end(client->reader->co.lua, &client->made->conn, reason));
}

void client_fail(struct client *client, const char *message, int err, unsigned status)
{
	struct agents *agents = client_agents(client);
	client->stage = CLIENT_ENDED;
	client_unshake(client);
	unlink_client(client);
	count(&agents->counters->connect_failures);
	if (client->errand.run) {
		struct run *run = errand_take(agents, &client->errand);
		int values = client_push_error(run->co.lua, err, message);
		if (status)
			lua_pushinteger(run->co.lua, (lua_Integer)status);
		line_ready(agents, run, values + (status != 0));
	}
	channel_close(&client->made->conn.first, REASON_AGENT, CLOSE_NOW);
}

static bool client_on_closed(struct channel *channel, enum close_reason reason)
{
	struct client *client = client_behind(channel);
	if (client->stage != CLIENT_ENDED)
		tell_end(client, reason);
	if (!request_end_some(client, push_end, reason))
		return false;
	return AGENT_HANDLER.closed(channel, reason);
}

const struct conn_handler CLIENT_HANDLER = {
	.opened = client_on_opened,
	.refused = client_on_refused,
	.frames = client_on_frames,
	.eof = client_on_eof,
	.timeout = on_client_timeout,
	.bad_frame = client_on_bad_frame,
	.writable = on_client_writable,
	.flushed = client_on_flushed,
	.drain = client_on_drain,
	.closed = client_on_closed,
};

/* ---- datagrams ---- */

void client_refused(struct outgoing_conn *made, int err)
{
	struct client *client = made->client;
	if (client->stage != CLIENT_OPEN || client_endpoint(client)->has_agent)
		return;
	struct run *run = client->reader;
	if (!run) {
		client->refusal = (int16_t)err;
		return;
	}
	struct agents *agents = client_agents(client);
	run_forget_wait(agents, run);
	run->place = (struct line_place){ 0 };
	line_ready(agents, run, client_push_error(run->co.lua, err, NULL));
}

int client_push_refusal(lua_State *lua, struct client *client)
{
	int err = client->refusal;
	client->refusal = 0;
	return err ? client_push_error(lua, err, NULL) : 0;
}

/* ---- the end ---- */

void client_give_back(struct agents *agents, const struct run *run)
{
	const struct conn_host *host = agents->host->outgoing->host;
	struct channel *channel = idmap_get(&host->ids, (uint64_t)run->place.key);
	if (channel)
		channel_close(channel, REASON_AGENT, CLOSE_NOW);
}

void client_end_leases(struct agents *agents, const struct channel *channel, uint64_t serial)
{
	const struct work *work =
	    channel->has_work || work_is_apps(channel) ? work_of(agents, channel) : NULL;
	struct client *next;
	for (struct client *client = work ? work->clients : NULL; client; client = next) {
		next = client->next;
		if (client->lessee == serial && client->made)
			channel_close(&client->made->conn.first, REASON_AGENT, CLOSE_NOW);
	}
}

void client_end_all(struct work *work)
{
	struct client *next;
	for (struct client *client = work->clients; client; client = next) {
		next = client->next;
		if (client->stage == CLIENT_DIALS) {
			client_abandon(&client->errand);
			continue;
		}
		unlink_client(client);
		channel_close(&client->made->conn.first, REASON_LINK, CLOSE_FLUSH);
	}
}

void client_gone(struct outgoing_conn *made)
{
	free_client(made->client);
}
