/* Datagrams, each of them a frame: the framing of udp:// (net/datagram.h). */
#include "net/datagram.h"
#include "base/buf.h"
#include "base/err.h"
#include "frame/internal.h"

extern const struct protocol_ops codec_datagram_ops;

static void datagram_fail(struct batch *out, int error, uint64_t announced)
{
	out->error = error;
	out->announced = announced;
}

/* The next record is whole. False: it is an error. */
static bool take_record(const struct codec *codec, const uint8_t *record, size_t total, struct batch *out)
{
	size_t len = total - DATAGRAM_HEAD_BYTES;
	if (!len && codec->empty == CODEC_EMPTY_ERROR) {
		datagram_fail(out, ERR_FRAME_EMPTY, 0);
		return false;
	}
	out->consumed += total;
	if (len || codec->empty == CODEC_EMPTY_DELIVER)
		out->frames[out->count++] =
		    (struct frame){ record + DATAGRAM_HEAD_BYTES, (uint32_t)len, (uint32_t)out->consumed };
	return true;
}

static void datagram_decode(const struct protocol *protocol, const uint8_t *in, size_t n, unsigned limit,
			    struct session *session, struct batch *out)
{
	(void)session;
	out->count = 0;
	out->consumed = out->need = 0;
	datagram_fail(out, 0, 0);
	while (out->count < limit && n - out->consumed >= DATAGRAM_HEAD_BYTES) {
		const uint8_t *record = in + out->consumed;
		size_t total = datagram_record_bytes(record);
		if (total < DATAGRAM_HEAD_BYTES)
			datagram_fail(out, ERR_FRAME_MALFORMED, total);
		else if (total - DATAGRAM_HEAD_BYTES > protocol->max_bytes)
			datagram_fail(out, ERR_FRAME_TOO_LARGE, total - DATAGRAM_HEAD_BYTES);
		else if (n - out->consumed < total)
			out->need = total;
		else if (take_record(codec_of(protocol), record, total, out))
			continue;
		return;
	}
}

static bool datagram_carries(const struct protocol *protocol, size_t len)
{
	(void)protocol;
	return len <= DATAGRAM_BYTES_MAX;
}

static int datagram_encode_one(const struct codec *codec, const uint8_t *data, size_t len,
			       struct buf_pool *pool, struct buf **out)
{
	if (!datagram_carries(&codec->protocol, len))
		return ERR_FRAME_REPLY;
	uint8_t *to = buf_reserve(pool, out, DATAGRAM_HEAD_BYTES + len);
	if (!to)
		return ERR_BUFFER_LIMIT;
	datagram_put_head(to, len);
	memcpy(to + DATAGRAM_HEAD_BYTES, data, len);
	buf_commit(*out, DATAGRAM_HEAD_BYTES + len);
	return 0;
}

static unsigned datagram_encode(const struct protocol *protocol, struct session *session,
				const struct reply *replies, unsigned n, struct buf_pool *pool,
				struct buf **out, int *error)
{
	(void)session;
	return codec_encode_each(codec_of(protocol), datagram_encode_one, replies, n, pool, out, error);
}

static const char *datagram_check(const struct protocol *protocol)
{
	return protocol->max_bytes > DATAGRAM_BYTES_MAX ? "a datagram has at most 65507 bytes" : NULL;
}

const struct protocol_ops codec_datagram_ops = {
	.name = "datagram",
	.rewinds = true,
	.counts = true,
	.label = codec_label,
	.explain = codec_explain,
	.decode = datagram_decode,
	.encode = datagram_encode,
	.carries = datagram_carries,
	.check = datagram_check,
};
