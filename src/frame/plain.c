/*
 * Frames without a header or terminator: all bytes at hand (raw), or always the
 * same number of them (fixed).
 */
#include "base/buf.h"
#include "base/err.h"
#include "frame/internal.h"

extern const struct protocol_ops codec_raw_ops, codec_fixed_ops;

/* Cuts in[0 .. n) into pieces of `size` bytes; a shorter rest is a frame only if `rest`. */
static void cut(const uint8_t *in, size_t n, unsigned limit, uint32_t size, bool rest, struct batch *out)
{
	unsigned count = 0;
	size_t at = 0;

	out->need = 0;
	out->error = 0;
	out->announced = 0;
	while (count < limit && at < n) {
		uint32_t len = size;
		if (n - at < size) {
			if (!rest) {
				out->need = size;
				break;
			}
			len = (uint32_t)(n - at);
		}
		out->frames[count++] = (struct frame){ in + at, len, (uint32_t)(at + len) };
		at += len;
	}
	out->count = count;
	out->consumed = at;
}

static void raw_decode(const struct protocol *protocol, const uint8_t *in, size_t n, unsigned limit,
		       struct session *session, struct batch *out)
{
	const struct codec *codec = codec_of(protocol);
	(void)session;
	cut(in, n, limit, codec->protocol.max_bytes, true, out);
}

static int raw_encode_one(const struct codec *codec, const uint8_t *data, size_t len, struct buf_pool *pool,
			  struct buf **out)
{
	(void)codec;
	/* Nothing to send must not leave an empty block lent out. */
	return len ? buf_append(pool, out, data, len) : 0;
}

static unsigned raw_encode(const struct protocol *protocol, struct session *session,
			   const struct reply *replies, unsigned n, struct buf_pool *pool, struct buf **out,
			   int *error)
{
	(void)session;
	return codec_encode_each(codec_of(protocol), raw_encode_one, replies, n, pool, out, error);
}

static void fixed_decode(const struct protocol *protocol, const uint8_t *in, size_t n, unsigned limit,
			 struct session *session, struct batch *out)
{
	const struct codec *codec = codec_of(protocol);
	(void)session;
	cut(in, n, limit, codec->fixed_bytes, false, out);
}

static bool fixed_carries(const struct protocol *protocol, size_t len)
{
	const struct codec *codec = codec_of(protocol);
	return len == codec->fixed_bytes;
}

static int fixed_encode_one(const struct codec *codec, const uint8_t *data, size_t len, struct buf_pool *pool,
			    struct buf **out)
{
	return fixed_carries(&codec->protocol, len) ? buf_append(pool, out, data, len) : ERR_FRAME_REPLY;
}

static unsigned fixed_encode(const struct protocol *protocol, struct session *session,
			     const struct reply *replies, unsigned n, struct buf_pool *pool, struct buf **out,
			     int *error)
{
	(void)session;
	return codec_encode_each(codec_of(protocol), fixed_encode_one, replies, n, pool, out, error);
}

static const char *fixed_check(const struct protocol *protocol)
{
	const struct codec *codec = codec_of(protocol);
	if (codec->fixed_bytes == 0)
		return "fixed frames need at least 1 byte";
	if (codec->fixed_bytes > codec->protocol.max_bytes)
		return "fixed frames are larger than the frame limit";
	return NULL;
}

const struct protocol_ops codec_raw_ops = {
	.name = "raw",
	.rewinds = true,
	.counts = true,
	.label = codec_label,
	.explain = codec_explain,
	.decode = raw_decode,
	.encode = raw_encode,
};

const struct protocol_ops codec_fixed_ops = {
	.name = "fixed",
	.rewinds = true,
	.counts = true,
	.label = codec_label,
	.explain = codec_explain,
	.decode = fixed_decode,
	.encode = fixed_encode,
	.carries = fixed_carries,
	.check = fixed_check,
};
