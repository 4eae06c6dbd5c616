#include "agent/cast.h"

#include "agent/audience.h"
#include "agent/http.h"
#include "agent/ledger.h"
#include "agent/record.h"
#include "agent/run.h"
#include "agent/websocket.h"
#include "base/err.h"
#include "base/log.h"

#include <string.h>
#include <uv.h>

enum cast_kind { CAST_CODEC, CAST_WEBSOCKET, CAST_EVENT };

/* ---- room ---- */

/* Is a message or an event of its own on its way in pieces? Others follow when that is whole. */
static bool is_amid_of_its_own(const struct channel *channel)
{
	const struct session *session = &channel->conn->session;
	if (websocket_is_spoken(channel))
		return channel->conn->protocol == conn_speaks(channel->conn) && websocket_is_between(session);
	return http_is_spoken(channel) && http_is_amid(session);
}

bool cast_has_room(const struct channel *channel, size_t bytes)
{
	const struct conn *conn = channel->conn;
	size_t pending = conn_pending_bytes(conn), mark = conn->endpoint->rules.send_buffer_bytes;
	size_t most = mark / 2 < CAST_PENDING_BYTES ? mark / 2 : CAST_PENDING_BYTES;
	return !conn->choked && !conn->lost && (!pending || pending + bytes < most) &&
	       !is_amid_of_its_own(channel);
}

/* ---- framing ---- */

static int append_lines(const struct hub_message *message, struct buf_pool *pool, struct buf **out)
{
	const char *at = message->data, *end = at + message->len;
	int err = 0;
	do { /* lines end as any of the three ends of HTML's do */
		size_t n = 0;
		while (at + n < end && at[n] != '\n' && at[n] != '\r')
			n++;
		err = buf_append(pool, out, "data: ", 6);
		err = err ? err : buf_append(pool, out, at, n);
		err = err ? err : buf_append(pool, out, "\n", 1);
		at += n;
		if (at == end)
			break;
		at += at[0] == '\r' && at + 1 < end && at[1] == '\n' ? 2 : 1;
	} while (!err);
	return err ? err : buf_append(pool, out, "\n", 1);
}

static int frame_event(const struct channel *channel, const struct hub_message *message,
		       struct buf_pool *pool, struct buf **out)
{
	struct buf *event = NULL;
	int err = append_lines(message, pool, &event);
	if (!err)
		err = http_frame_piece(http_framing_of(&channel->conn->session), event->data + event->start,
				       buf_len(event), pool, out);
	buf_release(pool, &event);
	return err;
}

static void log_unencoded(struct agents *agents, const struct hub_message *message)
{
	lua_State *lua = agents->vm.lua;
	struct seldom *seldom = &audience_of(agents)->cast.unencoded;
	if (!seldom_is_due(seldom, agents->host->now_ms, HUB_LOG_EVERY_MS))
		return;
	const char *why = lua_tostring(lua, -1);
	log_write(LOG_WARN, "a message to a topic was not sent: the codec's encode failed",
		  F_TEXT("topic", message->topic), F_TEXT("error", why ? why : "an error that is no text"),
		  F_INT("more", seldom_take(seldom)), F_INT("worker", agents->instance.worker),
		  F_INT("generation", agents->instance.generation));
}

/* By encode() of a codec in Lua, which takes any value. */
static int frame_by_lua(struct channel *channel, const struct hub_message *message, struct buf_pool *pool,
			struct buf **out)
{
	struct agents *agents = agents_of_channel(channel);
	lua_State *lua = agents->vm.lua;
	int top = lua_gettop(lua), err = ERR_FRAME_REPLY;
	size_t n = 0;
	const char *data = NULL;
	if (vm_push_bytes(&agents->vm, lua, message->data, message->len)) {
		lua_rawgeti(lua, LUA_REGISTRYINDEX, agents->open_ref);
		lua_insert(lua, -2);
		lua_pushboolean(lua, message->kind == HUB_JSON);
		bool is_opened = !vm_pcall(&agents->vm, lua, 2, 1, &agent_endpoint_of(channel)->budget);
		if (is_opened && reply_encode(agents, channel, lua, lua_gettop(lua)))
			data = lua_tolstring(lua, -1, &n);
	} else {
		lua_pushliteral(lua, "not enough memory");
	}
	if (data)
		err = buf_append(pool, out, data, n);
	else
		log_unencoded(agents, message);
	reply_forget(agents);
	lua_settop(lua, top);
	return err;
}

static int frame_by_codec(struct channel *channel, const struct hub_message *message, struct buf_pool *pool,
			  struct buf **out)
{
	const struct protocol *speaks = conn_speaks(channel->conn);
	struct reply reply = { (const uint8_t *)message->data, message->len };
	int err = 0;
	if (speaks->messages == &MESSAGE_VALUES_ENCODED)
		return frame_by_lua(channel, message, pool, out);
	speaks->ops->encode(speaks, NULL, &reply, 1, pool, out, &err);
	return err;
}

static int frame_websocket(const struct channel *channel, const struct hub_message *message,
			   struct buf_pool *pool, struct buf **out)
{
	struct reply reply = { (const uint8_t *)message->data, message->len };
	const struct websocket *websocket = websocket_of(conn_speaks(channel->conn));
	return websocket_append(websocket, NULL, message->kind == HUB_BINARY, &reply, pool, out);
}

static int frame_one(enum cast_kind kind, struct channel *channel, const struct hub_message *message,
		     struct buf **out)
{
	struct buf_pool *pool = &channel->conn->host->pool;
	return kind == CAST_EVENT       ? frame_event(channel, message, pool, out)
	       : kind == CAST_WEBSOCKET ? frame_websocket(channel, message, pool, out)
					: frame_by_codec(channel, message, pool, out);
}

static void frame(struct cast_variant *variant, struct channel *channel, struct hub_message *const *messages)
{
	struct buf_pool *pool = &channel->conn->host->pool;
	struct buf *out = NULL;
	for (unsigned i = 0; i < variant->messages && !variant->err; i++)
		variant->err = frame_one((enum cast_kind)variant->kind, channel, messages[i], &out);
	if (!variant->err) {
		variant->bytes = shared_new(out ? out->data + out->start : NULL, (uint32_t)buf_len(out));
		variant->err = variant->bytes ? 0 : ERR_BUFFER_LIMIT;
	}
	buf_release(pool, &out);
}

/* ---- what was framed before ---- */

/* What kind of connection it is; the codec is left out. */
static struct cast_variant cast_kind_of(const struct channel *channel, struct hub_message *first,
					unsigned messages)
{
	const struct conn *conn = channel->conn;
	const struct protocol *speaks = conn_speaks(conn);
	struct cast_variant like;
	like.message = first;
	like.messages = messages;
	like.kind = CAST_CODEC;
	like.setting = 0;
	like.by = conn->own_protocol || conn->own_next ? NULL : speaks;
	if (http_is_spoken(channel)) {
		like.kind = CAST_EVENT;
		like.setting = (uint8_t)http_framing_of(&conn->session);
	} else if (websocket_is_spoken(channel)) {
		like.kind = CAST_WEBSOCKET;
		like.setting = websocket_of(speaks)->terms.window_bits;
	}
	return like;
}

static bool is_alike(const struct cast_variant *a, const struct cast_variant *like,
		     const struct channel *channel)
{
	if (a->message != like->message || a->messages != like->messages || a->kind != like->kind ||
	    a->setting != like->setting)
		return false;
	return a->kind != CAST_CODEC || (like->by && a->by == like->by) ||
	       codec_is_same(&a->codec, codec_of(conn_speaks(channel->conn)));
}

static void drop_variant(struct cast_variant *variant)
{
	shared_drop(variant->bytes);
	hub_message_drop(variant->message);
}

/* The latest first: most members speak as the one before. */
static struct cast_variant *find_variant(struct cast *cast, const struct cast_variant *like,
					 const struct channel *channel)
{
	for (unsigned i = cast->count; i--;)
		if (is_alike(&cast->variants[i], like, channel))
			return &cast->variants[i];
	return NULL;
}

static struct cast_variant *add_variant(struct cast *cast, const struct cast_variant *like,
					struct channel *channel, struct hub_message *const *messages)
{
	struct cast_variant *variant;
	if (cast->count < CAST_VARIANTS) {
		variant = &cast->variants[cast->count++];
	} else {
		variant = &cast->variants[cast->oldest++ % CAST_VARIANTS];
		drop_variant(variant);
	}
	*variant = (struct cast_variant){ .message = like->message,
					  .messages = like->messages,
					  .kind = like->kind,
					  .setting = like->setting,
					  .by = like->by };
	if (variant->kind == CAST_CODEC)
		variant->codec = *codec_of(conn_speaks(channel->conn));
	hub_message_hold(variant->message);
	frame(variant, channel, messages);
	return variant;
}

void cast_forget(struct cast *cast)
{
	while (cast->count)
		drop_variant(&cast->variants[--cast->count]);
}

/* ---- onto a connection ---- */

static void record_cast(struct channel *channel, const struct cast_variant *variant)
{
	const struct hub_message *message = variant->message;
	struct record_part all = { variant->bytes->bytes, variant->bytes->len };
	if (variant->kind == CAST_WEBSOCKET)
		websocket_record_out(channel, message->kind == HUB_BINARY, message->data, message->len);
	else if (variant->kind == CAST_EVENT)
		record_parts(channel, TRACE_OUT, &all, 1);
	else if (messages_of(channel)->are_values)
		record_out(channel, all.data, all.len);
	else
		record_out(channel, message->data, message->len);
}

static const struct cast_variant *variant_of(struct cast *cast, struct channel *channel,
					     struct hub_message *const *messages, unsigned n)
{
	const struct cast_variant like = cast_kind_of(channel, messages[0], n);
	const struct cast_variant *variant = find_variant(cast, &like, channel);
	return variant ? variant : add_variant(cast, &like, channel, messages);
}

/* A session that has yet to begin has compressed nothing. */
static void cast_note_sent(const struct channel *channel, const struct cast_variant *variant)
{
	struct conn *conn = channel->conn;
	if (variant->kind == CAST_WEBSOCKET && conn->protocol == conn_speaks(conn))
		websocket_sent_for_many(&conn->session);
}

/* An empty frame of `raw` is nothing. */
static int share_variant(const struct cast *cast, struct channel *channel, const struct cast_variant *variant)
{
	uint32_t len = variant->bytes->len;
	if (!len)
		return 0;
	int err = cast->is_at_once ? channel_share_now(channel, variant->bytes, variant->messages)
				   : channel_share(channel, variant->bytes, 0, len, variant->messages);
	if (!err)
		cast_note_sent(channel, variant);
	return err;
}

bool cast_give_all(struct cast *cast, struct channel *channel, struct hub_message *const *messages,
		   unsigned n, int *err)
{
	/* What is recorded is a message each, and what fails in Lua is told of each. */
	if (channel->recorded || conn_speaks(channel->conn)->messages == &MESSAGE_VALUES_ENCODED)
		return false;
	const struct cast_variant *variant = variant_of(cast, channel, messages, n);
	if (variant->err)
		return false;
	*err = share_variant(cast, channel, variant);
	return true;
}

int cast_give(struct cast *cast, struct channel *channel, struct hub_message *message)
{
	const struct cast_variant *variant = variant_of(cast, channel, &message, 1);
	if (variant->err)
		return variant->err;
	int err = share_variant(cast, channel, variant);
	if (__builtin_expect(channel->recorded, 0) && !err)
		record_cast(channel, variant);
	return err;
}
