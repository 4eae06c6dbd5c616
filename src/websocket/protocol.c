/* The session: the message that is being put together, and what is said without the layer above. */
#include "base/err.h"
#include "websocket/internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <uv.h>

static int websocket_begin(const struct protocol *protocol, struct session *session)
{
	const struct websocket *websocket = websocket_of(protocol);
	bool keeps = websocket->terms.kept_out || websocket->terms.kept_in;
	size_t bytes = keeps ? sizeof(struct websocket_windows) : sizeof(struct websocket_session);
	struct websocket_session *s = calloc(1, bytes);
	session->own = s;
	if (!s)
		return UV_ENOMEM;
	s->has_windows = keeps;
	websocket_reserve(websocket->worker, &websocket->terms);
	return 0;
}

static void release_message(struct buf_pool *pool, struct websocket_session *s)
{
	struct websocket_windows *windows = websocket_windows_of(s);
	buf_release(pool, &s->message);
	if (windows)
		buf_release(pool, &windows->whole);
}

static void websocket_end(const struct protocol *protocol, struct session *session)
{
	struct websocket_session *s = websocket_session_of(session);
	if (!s)
		return;
	const struct websocket *websocket = websocket_of(protocol);
	websocket_unreserve(websocket->worker, &websocket->terms);
	if (!websocket->is_client)
		websocket_count_end(s, websocket->worker->counters);
	websocket_drop_windows(s);
	release_message(websocket->worker->pool, s);
	free(s->peers);
	free(s->own);
	free(s);
	session->own = NULL;
}

static size_t websocket_held(const struct session *session)
{
	struct websocket_session *s = websocket_session_of(session);
	const struct websocket_windows *windows = websocket_windows_of(s);
	size_t whole = windows && windows->whole ? windows->whole->cap : 0;
	return whole + (s && s->message ? s->message->cap : 0);
}

static void websocket_shed(const struct protocol *protocol, struct session *session)
{
	struct websocket_session *s = websocket_session_of(session);
	if (s)
		release_message(websocket_of(protocol)->worker->pool, s);
}

/* ---- decoding ---- */

struct decoding {
	const struct websocket *websocket;
	struct websocket_session *s;
	const uint8_t *in;
	size_t n;
	struct batch *out;
};

static void websocket_refuse(struct decoding *d, enum breach breach, uint64_t announced)
{
	d->s->breach = (uint8_t)breach;
	d->out->error = breach == BREACH_SIZE ? ERR_FRAME_TOO_LARGE : ERR_FRAME_MALFORMED;
	d->out->announced = breach == BREACH_SIZE ? announced : breach;
}

/* What may come of a message that is compressed: no compressor makes more of one that is within the limit. */
static uint64_t most_payload(const struct decoding *d)
{
	uint64_t most = d->websocket->protocol.max_bytes;
	return d->s->is_compressed ? most + most / 1024 + 64 : most;
}

/* The bytes that are done with. What look_ahead() has seen moves along. */
static void consume(struct decoding *d, size_t n)
{
	struct websocket_session *s = d->s;
	d->out->consumed += n;
	if (!s->has_looked)
		return;
	s->has_looked = s->looked > n;
	s->looked = s->has_looked ? s->looked - (uint32_t)n : 0;
}

static void begin_message(struct websocket_session *s, const struct frame_head *head)
{
	s->begun = true;
	s->is_text = head->opcode == OPCODE_TEXT;
	s->is_compressed = head->is_compressed;
	s->utf8 = (struct utf8){ 0 };
}

/* False: it is refused. */
static bool begin_data_frame(struct decoding *d, const struct frame_head *head)
{
	struct websocket_session *s = d->s;
	bool continues = head->opcode == OPCODE_MORE;
	if (continues != s->begun) {
		websocket_refuse(d, continues ? BREACH_NOTHING_TO_GO_ON : BREACH_NOT_CONTINUED, 0);
		return false;
	}
	if (!continues)
		begin_message(s, head);
	if (head->len > most_payload(d) - buf_len(s->message)) {
		websocket_refuse(d, BREACH_SIZE, buf_len(s->message) + head->len);
		return false;
	}
	s->left = (uint32_t)head->len; /* no limit is over 1 GiB */
	s->is_last = head->is_last;
	s->in_frame = true;
	s->masked = 0;
	memcpy(s->mask, head->mask, sizeof s->mask);
	consume(d, head->bytes);
	return true;
}

/* So much more of it finds no room beside the message. */
static void want_room(struct decoding *d, size_t n)
{
	d->out->error = ERR_BUFFER_LIMIT;
	d->out->announced = buf_could_hold(d->websocket->worker->pool, d->s->message, n) ? n : 0;
}

/* Takes what has come of the frame at hand. False: it is refused, or there is no memory. */
static bool take_payload(struct decoding *d)
{
	struct websocket_session *s = d->s;
	size_t has = d->n - d->out->consumed, take = has < s->left ? has : s->left;
	if (!take)
		return true;
	uint8_t *to = buf_reserve(d->websocket->worker->pool, &s->message, take);
	if (!to) {
		want_room(d, take);
		return false;
	}
	s->masked = websocket_unmask(to, d->in + d->out->consumed, take, s->mask, s->masked);
	buf_commit(s->message, take);
	s->left -= (uint32_t)take;
	consume(d, take);
	if (!s->is_text || s->is_compressed || utf8_take(&s->utf8, to, take))
		return true;
	websocket_refuse(d, BREACH_UTF8, 0);
	return false;
}

/* In place of the message as it came. False: it is refused, or there is no memory: its end is at hand again. */
static bool inflate_message(struct decoding *d)
{
	struct websocket_session *s = d->s;
	size_t wanted;
	enum breach breach = websocket_inflate(d->websocket, s, &d->out->error, &wanted);
	if (d->out->error) {
		d->out->announced = wanted;
		s->in_frame = true;
		return false;
	}
	if (!breach && s->is_text && s->message &&
	    !utf8_take(&s->utf8, s->message->data + s->message->start, buf_len(s->message)))
		breach = BREACH_UTF8;
	if (breach)
		websocket_refuse(d, breach, (uint64_t)d->websocket->protocol.max_bytes + 1);
	return !d->out->error;
}

/* The last frame of the message is whole. */
static void give_message(struct decoding *d)
{
	struct websocket_session *s = d->s;
	if (s->is_compressed && !inflate_message(d))
		return;
	if (s->is_text && !utf8_is_whole(&s->utf8)) {
		websocket_refuse(d, BREACH_UTF8, 0);
		return;
	}
	const uint8_t *data = s->message ? s->message->data + s->message->start : (const uint8_t *)"";
	d->out->frames[0] = (struct frame){ data, (uint32_t)buf_len(s->message), (uint32_t)d->out->consumed };
	d->out->count = 1;
	s->begun = false;
	s->given = true;
}

/* Its message is not needed any more. */
static void websocket_taken(const struct protocol *protocol, struct session *session)
{
	struct websocket_session *s = websocket_session_of(session);
	s->given = false;
	buf_release(websocket_of(protocol)->worker->pool, &s->message);
}

/* A ping or a pong. One that cannot be masked is left out. */
static int put_control(const struct websocket *websocket, uint8_t opcode, const uint8_t *payload, size_t n,
		       struct buf_pool *pool, struct buf **out)
{
	int err = websocket_put_frame(websocket, BIT_FIN | opcode, payload, n, pool, out);
	return err == ERR_FRAME_REPLY ? 0 : err;
}

static int answer_ping(const struct websocket *websocket, struct buf_pool *pool, struct buf **out,
		       const uint8_t *payload, size_t n)
{
	return put_control(websocket, OPCODE_PONG, payload, n, pool, out);
}

/* What finds no room may find it once others have made some. */
static void answer_in_batch(const struct websocket *websocket, struct batch *out, const uint8_t *payload,
			    size_t n)
{
	size_t room = WEBSOCKET_HEAD_MAX + n;
	out->error = answer_ping(websocket, out->pool, out->answers, payload, n);
	if (out->error && buf_could_hold(out->pool, *out->answers, room))
		out->announced = room;
}

/* A control frame that is whole. */
static void take_control(struct decoding *d, const struct frame_head *head)
{
	struct websocket_session *s = d->s;
	struct batch *out = d->out;
	uint8_t payload[CONTROL_MAX];
	size_t n = (size_t)head->len;
	enum breach breach = BREACH_NONE;
	websocket_unmask(payload, d->in + out->consumed + head->bytes, n, head->mask, 0);
	if (head->opcode == OPCODE_PING && s->answered)
		s->answered--;
	else if (head->opcode == OPCODE_PING)
		answer_in_batch(d->websocket, out, payload, n);
	else if (head->opcode == OPCODE_CLOSE)
		breach = websocket_take_close(s, payload, n, &out->error);
	if (breach)
		websocket_refuse(d, breach, 0);
	if (out->error)
		return;
	out->ends = head->opcode == OPCODE_CLOSE;
	out->has_come_on = true;
	out->begins_anew = !s->begun;
	consume(d, head->bytes + n);
}

/* The next frame. True: there may be another one behind it. */
static bool websocket_take_frame(struct decoding *d)
{
	struct frame_head head;
	size_t at = d->out->consumed;
	enum breach breach = websocket_read_head(d->websocket, d->in + at, d->n - at, &head);
	if (breach)
		websocket_refuse(d, breach, 0);
	if (breach || !head.bytes)
		return false;
	if (head.opcode < OPCODE_CLOSE)
		return begin_data_frame(d, &head);
	if (d->n - at >= head.bytes + head.len)
		take_control(d, &head);
	else
		d->out->need = head.bytes + (size_t)head.len;
	return false; /* each takes a turn of its own: there may be very many */
}

/* What has come of the frame at hand, or of the next. True: there may be more. */
static bool take_more(struct decoding *d)
{
	struct websocket_session *s = d->s;
	if (!s->in_frame)
		return d->out->consumed < d->n && websocket_take_frame(d);
	if (!take_payload(d) || s->left)
		return false;
	s->in_frame = false;
	if (!s->is_last)
		return true;
	give_message(d);
	return false;
}

static void websocket_decode(const struct protocol *protocol, const uint8_t *in, size_t n, unsigned limit,
			     struct session *session, struct batch *out)
{
	struct decoding d = { websocket_of(protocol), websocket_session_of(session), in, n, out };
	(void)limit;
	out->count = 0;
	out->consumed = out->need = 0;
	out->error = 0;
	out->announced = 0;
	if (d.s->breach)
		return;
	if (d.s->peers) { /* nothing follows a close frame */
		out->consumed = n;
		return;
	}
	while (take_more(&d))
		;
	bool is_begun = d.s->begun || out->consumed < n;
	out->begun = is_begun && !out->error && !out->count && !out->ends ? BATCH_BEGUN : BATCH_NOTHING_BEGUN;
}

/*
 * The layer above takes no messages for now, and in[0 .. n) waits. Its pings are answered all the same; decode()
 * will come to them, and not do so again.
 */
static int websocket_look_ahead(const struct protocol *protocol, struct session *session, const uint8_t *in,
				size_t n, struct buf_pool *pool, struct buf **out)
{
	const struct websocket *websocket = websocket_of(protocol);
	struct websocket_session *s = websocket_session_of(session);
	struct frame_head head;
	int err = 0;
	uint64_t at = s->has_looked ? s->looked : s->left;
	while (!err && at < n && !s->breach && !s->peers) {
		if (websocket_read_head(websocket, in + at, n - at, &head) || !head.bytes)
			break;
		bool is_whole = n - at >= head.bytes + head.len;
		if (head.opcode == OPCODE_CLOSE || head.len > UINT32_MAX / 2 ||
		    (head.opcode == OPCODE_PING && !is_whole))
			break;
		if (head.opcode == OPCODE_PING) {
			uint8_t payload[CONTROL_MAX];
			websocket_unmask(payload, in + at + head.bytes, (size_t)head.len, head.mask, 0);
			err = answer_ping(websocket, pool, out, payload, (size_t)head.len);
			s->answered += !err;
		}
		at += err ? 0 : head.bytes + head.len;
	}
	s->has_looked = at && at <= UINT32_MAX;
	s->looked = s->has_looked ? (uint32_t)at : 0;
	return err;
}

bool websocket_is_binary(const struct session *session)
{
	const struct websocket_session *s = websocket_session_of(session);
	return s && !s->is_text;
}

static bool websocket_is_at_rest(const struct protocol *protocol, const struct session *session)
{
	const struct websocket_session *s = websocket_session_of(session);
	(void)protocol;
	return s && !s->begun && !s->given && !s->breach && !s->peers && !s->own && !s->has_looked &&
	       !s->out_begun;
}

/* ---- encoding ---- */

static bool is_utf8(const struct reply *reply)
{
	struct utf8 utf8 = { 0 };
	return utf8_take(&utf8, reply->data, reply->len) && utf8_is_whole(&utf8);
}

int websocket_append(const struct websocket *websocket, const struct session *session, bool is_binary,
		     const struct reply *reply, struct buf_pool *pool, struct buf **out)
{
	struct websocket_session *s = session ? websocket_session_of(session) : NULL;
	const uint8_t *payload = reply->data;
	size_t n = reply->len, compressed = 0;
	uint8_t opcode = is_binary ? OPCODE_BINARY : OPCODE_TEXT;
	if (s && s->out_begun)
		return ERR_FRAME_BETWEEN;
	if (!is_binary && !is_utf8(reply))
		return ERR_FRAME_REPLY;
	if (websocket->terms.window_bits >= WEBSOCKET_BITS_MIN)
		compressed = websocket_compress(websocket, s, reply, &payload);
	n = compressed ? compressed : n;
	uint8_t first = (uint8_t)(BIT_FIN | (compressed ? BIT_COMPRESSED : 0) | opcode);
	int err = websocket_put_frame(websocket, first, payload, n, pool, out);
	if (err && compressed)
		websocket_forget_sent(s);
	return err;
}

void websocket_sent_for_many(struct session *session)
{
	websocket_forget_sent(websocket_session_of(session));
}

bool websocket_begin_message(struct session *session, bool is_binary)
{
	struct websocket_session *s = websocket_session_of(session);
	if (s->out_begun)
		return false;
	s->out_begun = true;
	s->out_goes_on = false;
	s->out_is_text = !is_binary;
	s->out_utf8 = (struct utf8){ 0 };
	return true;
}

bool websocket_is_between(const struct session *session)
{
	const struct websocket_session *s = websocket_session_of(session);
	return s && s->out_begun;
}

int websocket_append_piece(const struct websocket *websocket, struct session *session, bool is_last,
			   const struct reply *piece, struct buf_pool *pool, struct buf **out)
{
	struct websocket_session *s = websocket_session_of(session);
	struct utf8 utf8 = s->out_utf8;
	bool is_right = !s->out_is_text || utf8_take(&utf8, piece->data, piece->len);
	if (!is_right || (s->out_is_text && is_last && !utf8_is_whole(&utf8)))
		return ERR_FRAME_REPLY;
	if (!piece->len && !is_last)
		return 0;
	uint8_t opcode = s->out_goes_on ? OPCODE_MORE : s->out_is_text ? OPCODE_TEXT : OPCODE_BINARY;
	uint8_t first = (uint8_t)(opcode | (is_last ? BIT_FIN : 0));
	int err = websocket_put_frame(websocket, first, piece->data, piece->len, pool, out);
	if (err)
		return err;
	s->out_utf8 = utf8;
	s->out_goes_on = true;
	s->out_begun = !is_last;
	return 0;
}

/* A string is a text. */
static unsigned websocket_encode(const struct protocol *protocol, struct session *session,
				 const struct reply *replies, unsigned n, struct buf_pool *pool,
				 struct buf **out, int *error)
{
	*error = 0;
	for (unsigned i = 0; i < n; i++) {
		*error = websocket_append(websocket_of(protocol), session, false, &replies[i], pool, out);
		if (*error)
			return i;
	}
	return n;
}

static int websocket_ping(const struct protocol *protocol, struct session *session, struct buf_pool *pool,
			  struct buf **out)
{
	(void)session;
	return put_control(websocket_of(protocol), OPCODE_PING, (const uint8_t *)"", 0, pool, out);
}

static int websocket_finish(const struct protocol *protocol, struct session *session, uint32_t channel,
			    enum close_reason reason, struct buf_pool *pool, struct buf **out)
{
	struct websocket_session *s = websocket_session_of(session);
	(void)channel;
	return s ? websocket_close(websocket_of(protocol), s, reason, pool, out) : 0;
}

static void websocket_explain(const struct protocol *protocol, const struct batch *batch, char *text,
			      size_t size)
{
	if (batch->error == ERR_FRAME_TOO_LARGE)
		snprintf(text, size, "WebSocket 1009: a message of %llu bytes; limits.message is %u",
			 (unsigned long long)batch->announced, protocol->max_bytes);
	else
		snprintf(text, size, "WebSocket %u: %s",
			 websocket_breach_code((enum breach)(batch->announced % BREACH_COUNT)),
			 websocket_breach_text((enum breach)(batch->announced % BREACH_COUNT)));
}

static const struct protocol_ops WEBSOCKET_OPS = {
	.name = "websocket",
	.unfit = "a text is no UTF-8; bytes are sent by conn:send(data, \"binary\")",
	.answers_finish = true,
	.begin = websocket_begin,
	.end = websocket_end,
	.held = websocket_held,
	.shed = websocket_shed,
	.decode = websocket_decode,
	.taken = websocket_taken,
	.look_ahead = websocket_look_ahead,
	.encode = websocket_encode,
	.ping = websocket_ping,
	.finish = websocket_finish,
	.is_at_rest = websocket_is_at_rest,
	.keeps_session = true,
	.explain = websocket_explain,
};

void websocket_init(struct websocket *websocket)
{
	websocket->protocol.ops = &WEBSOCKET_OPS;
}
