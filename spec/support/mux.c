#include "support/mux.h"

#include "base/buf.h"
#include "base/err.h"

#include <stdlib.h>
#include <string.h>
#include <uv.h>

unsigned mux_sessions;
bool mux_fails;

struct unit {
	uint8_t channel, kind, len;
	uint8_t bytes[MUX_MESSAGE_MAX];
};

struct mux {
	bool is_held[MUX_CHANNELS];
	unsigned count;
	struct unit kept[MUX_KEPT_MAX];
	struct unit given; /* the one that was decoded last, where it was kept before */
};

static struct mux *mux_of(const struct session *session)
{
	return session->own;
}

static int mux_begin(const struct protocol *protocol, struct session *session)
{
	(void)protocol;
	session->own = mux_fails ? NULL : calloc(1, sizeof(struct mux));
	mux_fails = false;
	mux_sessions += session->own != NULL;
	return session->own ? 0 : UV_ENOMEM;
}

static void mux_end(const struct protocol *protocol, struct session *session)
{
	(void)protocol;
	mux_sessions -= session->own != NULL;
	free(session->own);
}

/* ---- decoding ---- */

static bool has_kept_of(const struct mux *mux, unsigned channel)
{
	for (unsigned i = 0; i < mux->count; i++)
		if (mux->kept[i].channel == channel)
			return true;
	return false;
}

/* The first that may be given; count: there is none. */
static unsigned givable(const struct mux *mux)
{
	unsigned i = 0;
	while (i < mux->count && mux->is_held[mux->kept[i].channel])
		i++;
	return i;
}

static void give(struct batch *out, unsigned channel, unsigned kind, const uint8_t *bytes, unsigned n)
{
	out->channel = channel;
	if (kind == 'e') {
		out->ends = true;
		return;
	}
	out->frames[0] = (struct frame){ .data = bytes, .len = n, .end = (uint32_t)out->consumed };
	out->count = 1;
}

static void give_kept(struct mux *mux, unsigned i, struct batch *out)
{
	mux->given = mux->kept[i];
	memmove(mux->kept + i, mux->kept + i + 1, (--mux->count - i) * sizeof *mux->kept);
	give(out, mux->given.channel, mux->given.kind, mux->given.bytes, mux->given.len);
}

static void keep(struct mux *mux, const uint8_t *in, struct batch *out)
{
	if (mux->count == MUX_KEPT_MAX) {
		out->error = ERR_FRAME_TOO_LARGE;
		return;
	}
	struct unit *unit = &mux->kept[mux->count++];
	*unit = (struct unit){ .channel = in[0], .kind = in[1], .len = in[2] };
	memcpy(unit->bytes, in + MUX_HEAD_BYTES, in[2]);
}

static void answer(const uint8_t *in, size_t n, struct batch *out)
{
	uint8_t unit[MUX_HEAD_BYTES + MUX_MESSAGE_MAX];
	mux_unit(unit, in[0], '!', in + MUX_HEAD_BYTES, in[2]);
	if (buf_append(out->pool, out->answers, unit, n)) {
		out->error = ERR_BUFFER_LIMIT;
		out->consumed = 0;
	}
}

static void take_unit(struct mux *mux, const uint8_t *in, size_t n, struct batch *out)
{
	out->consumed = n;
	if (in[1] == '?')
		answer(in, n, out);
	else if (in[1] != 'm' && in[1] != 'e')
		out->error = ERR_FRAME_MALFORMED;
	else if (mux->is_held[in[0]] || has_kept_of(mux, in[0]))
		keep(mux, in, out);
	else
		give(out, in[0], in[1], in + MUX_HEAD_BYTES, in[2]);
}

static void mux_decode(const struct protocol *protocol, const uint8_t *in, size_t n, unsigned limit,
		       struct session *session, struct batch *out)
{
	struct mux *mux = mux_of(session);
	(void)protocol;
	(void)limit;
	out->count = 0;
	out->consumed = out->need = 0;
	out->error = 0;
	out->announced = 0;
	unsigned i = givable(mux);
	if (i < mux->count) {
		give_kept(mux, i, out);
		return;
	}
	if (n < MUX_HEAD_BYTES)
		return;
	size_t whole = MUX_HEAD_BYTES + (size_t)in[2];
	if (n < whole)
		out->need = whole;
	else
		take_unit(mux, in, whole, out);
}

static void mux_hold(const struct protocol *protocol, struct session *session, uint32_t channel, bool is_held)
{
	(void)protocol;
	mux_of(session)->is_held[channel] = is_held;
}

static bool mux_has_kept(const struct protocol *protocol, const struct session *session)
{
	(void)protocol;
	const struct mux *mux = mux_of(session);
	return givable(mux) < mux->count;
}

/* ---- encoding ---- */

size_t mux_unit(void *to, unsigned channel, char kind, const void *bytes, size_t n)
{
	uint8_t *at = to;
	at[0] = (uint8_t)channel;
	at[1] = (uint8_t)kind;
	at[2] = (uint8_t)n;
	memcpy(at + MUX_HEAD_BYTES, bytes, n);
	return MUX_HEAD_BYTES + n;
}

static unsigned mux_encode_in(const struct protocol *protocol, struct session *session, uint32_t channel,
			      const struct reply *replies, unsigned n, struct buf_pool *pool,
			      struct buf **out, int *error)
{
	uint8_t unit[MUX_HEAD_BYTES + MUX_MESSAGE_MAX];
	(void)session;
	*error = 0;
	for (unsigned i = 0; i < n; i++) {
		if (!protocol_carries(protocol, replies[i].len))
			*error = ERR_FRAME_REPLY;
		else
			*error = buf_append(pool, out, unit,
					    mux_unit(unit, channel, 'm', replies[i].data, replies[i].len));
		if (*error)
			return i;
	}
	return n;
}

static unsigned mux_encode(const struct protocol *protocol, struct session *session,
			   const struct reply *replies, unsigned n, struct buf_pool *pool, struct buf **out,
			   int *error)
{
	return mux_encode_in(protocol, session, 0, replies, n, pool, out, error);
}

/* It says why. */
static int mux_finish(const struct protocol *protocol, struct session *session, uint32_t channel,
		      enum close_reason reason, struct buf_pool *pool, struct buf **out)
{
	uint8_t unit[MUX_HEAD_BYTES + MUX_MESSAGE_MAX];
	const char *why = reason == REASON_NONE ? "" : reason_name(reason);
	(void)protocol;
	(void)session;
	return buf_append(pool, out, unit, mux_unit(unit, channel, 'e', why, strlen(why)));
}

static bool mux_carries(const struct protocol *protocol, size_t len)
{
	(void)protocol;
	return len <= MUX_MESSAGE_MAX;
}

static const struct protocol_ops MUX_OPS = {
	.name = "mux",
	.begin = mux_begin,
	.end = mux_end,
	.decode = mux_decode,
	.encode = mux_encode,
	.encode_in = mux_encode_in,
	.hold = mux_hold,
	.has_kept = mux_has_kept,
	.finish = mux_finish,
	.carries = mux_carries,
};

const struct protocol MUX = { .ops = &MUX_OPS, .max_bytes = MUX_MESSAGE_MAX };
