/*
 * Frames with a terminator behind them (delimiter, line), and netstrings.
 *
 * Bytes that were searched are not searched again when more arrive, and none
 * are searched beyond the frame limit: a peer that dribbles bytes, or never
 * ends its line, costs O(bytes) in total.
 */
#include "base/buf.h"
#include "base/err.h"
#include "frame/internal.h"

#include <assert.h>
#include <string.h>

enum { NETSTRING_DIGITS_MAX = 10 };

extern const struct protocol_ops codec_delimiter_ops, codec_line_ops, codec_netstring_ops;

struct terminator {
	const uint8_t *bytes;
	size_t len;
	bool drop_cr; /* one "\r" in front belongs to the terminator, not to the frame */
};

static void frame_text_reset(struct batch *out)
{
	out->count = 0;
	out->consumed = out->need = 0;
	out->error = 0;
	out->announced = 0;
}

static void frame_text_fail(struct batch *out, int error, uint64_t announced)
{
	out->error = error;
	out->announced = announced;
}

/*
 * Adds a whole frame and moves past it, as its length and the policy for empty
 * ones say. False when the frame is an error.
 */
static inline bool frame_text_add(const struct codec *codec, const uint8_t *data, size_t len, size_t end,
				  struct batch *out)
{
	if (len == 0 && codec->empty != CODEC_EMPTY_DELIVER) {
		if (codec->empty == CODEC_EMPTY_ERROR) {
			frame_text_fail(out, ERR_FRAME_EMPTY, 0);
			return false;
		}
	} else {
		out->frames[out->count++] = (struct frame){ data, (uint32_t)len, (uint32_t)end };
	}
	out->consumed = end;
	return true;
}

/* Offset of the terminator from p, or SIZE_MAX. */
static size_t frame_text_find(const uint8_t *p, size_t n, const struct terminator *end)
{
	const uint8_t *at = end->len == 1 ? memchr(p, end->bytes[0], n) : memmem(p, n, end->bytes, end->len);
	return at ? (size_t)(at - p) : SIZE_MAX;
}

/*
 * Whether more bytes can still make a frame within max of the n at hand, in which no
 * terminator starts before `searched`: it has to start at `max` or before (or behind an
 * "\r" there), so it is either not due yet or its first bytes are at the end.
 */
static bool can_end_in_time(const uint8_t *p, size_t n, size_t searched, size_t max,
			    const struct terminator *end)
{
	if (n <= max)
		return true;
	size_t latest = end->drop_cr && p[max] == '\r' ? max + 1 : max;
	if (n <= latest)
		return true;
	for (size_t i = searched; i <= latest; i++)
		if (memcmp(p + i, end->bytes, n - i) == 0)
			return true;
	return false;
}

/*
 * "Too large" announces max + 1 whatever the frame's true length, so that the
 * same stream gives the same error however it is split.
 */
static void decode_terminated(const struct codec *codec, const uint8_t *in, size_t n, unsigned limit,
			      uint32_t *scanned, struct batch *out, const struct terminator *end)
{
	const size_t max = codec->protocol.max_bytes, window_max = max + end->drop_cr + end->len;
	size_t searched = *scanned;

	assert(searched <= n);
	frame_text_reset(out);
	*scanned = 0;
	while (out->count < limit && out->consumed < n) {
		const uint8_t *p = in + out->consumed;
		size_t left = n - out->consumed, window = left < window_max ? left : window_max;
		size_t found =
		    searched < window ? frame_text_find(p + searched, window - searched, end) : SIZE_MAX;

		if (found == SIZE_MAX) {
			if (window >= end->len && window - end->len + 1 > searched)
				searched = window - end->len + 1;
			if (can_end_in_time(p, left, searched, max, end))
				*scanned = (uint32_t)searched;
			else
				frame_text_fail(out, ERR_FRAME_TOO_LARGE, (uint64_t)max + 1);
			return;
		}
		size_t len = searched + found, next = out->consumed + len + end->len;
		if (end->drop_cr && len > 0 && p[len - 1] == '\r')
			len--;
		if (len > max) {
			frame_text_fail(out, ERR_FRAME_TOO_LARGE, (uint64_t)max + 1);
			return;
		}
		if (!frame_text_add(codec, p, len, next, out))
			return;
		searched = 0;
	}
}

/*
 * A reply may hold terminators: to the peer it then is several frames, which is
 * how a line protocol answers in many lines (or ends them with "\r\n").
 */
static int encode_terminated(const uint8_t *data, size_t len, struct buf_pool *pool, struct buf **out,
			     const uint8_t *end, size_t end_len)
{
	uint8_t *to = buf_reserve(pool, out, len + end_len);
	if (!to)
		return ERR_BUFFER_LIMIT;
	memcpy(to, data, len);
	memcpy(to + len, end, end_len);
	buf_commit(*out, len + end_len);
	return 0;
}

static void delimiter_decode(const struct protocol *protocol, const uint8_t *in, size_t n, unsigned limit,
			     struct session *session, struct batch *out)
{
	const struct codec *codec = codec_of(protocol);
	const struct terminator end = { codec->delimiter, codec->delimiter_bytes, false };
	decode_terminated(codec, in, n, limit, &session->scanned, out, &end);
}

static int delimiter_encode_one(const struct codec *codec, const uint8_t *data, size_t len,
				struct buf_pool *pool, struct buf **out)
{
	return encode_terminated(data, len, pool, out, codec->delimiter, codec->delimiter_bytes);
}

static unsigned delimiter_encode(const struct protocol *protocol, struct session *session,
				 const struct reply *replies, unsigned n, struct buf_pool *pool,
				 struct buf **out, int *error)
{
	(void)session;
	return codec_encode_each(codec_of(protocol), delimiter_encode_one, replies, n, pool, out, error);
}

static const char *delimiter_check(const struct protocol *protocol)
{
	const struct codec *codec = codec_of(protocol);
	if (codec->delimiter_bytes == 0)
		return "the delimiter must not be empty";
	if (codec->delimiter_bytes > CODEC_DELIMITER_MAX)
		return "the delimiter must be at most 32 bytes";
	return NULL;
}

static const uint8_t newline[] = { '\n' };

static void line_decode(const struct protocol *protocol, const uint8_t *in, size_t n, unsigned limit,
			struct session *session, struct batch *out)
{
	const struct codec *codec = codec_of(protocol);
	const struct terminator end = { newline, sizeof newline, true };
	decode_terminated(codec, in, n, limit, &session->scanned, out, &end);
}

static int line_encode_one(const struct codec *codec, const uint8_t *data, size_t len, struct buf_pool *pool,
			   struct buf **out)
{
	(void)codec;
	return encode_terminated(data, len, pool, out, newline, sizeof newline);
}

static unsigned line_encode(const struct protocol *protocol, struct session *session,
			    const struct reply *replies, unsigned n, struct buf_pool *pool, struct buf **out,
			    int *error)
{
	(void)session;
	return codec_encode_each(codec_of(protocol), line_encode_one, replies, n, pool, out, error);
}

/*
 * Reads "digits:". Returns the bytes it takes, 0 when it is not complete yet, -1 when it
 * is no netstring. Lengths are judged at the colon, so that an error tells the whole one.
 */
static int read_digits(const uint8_t *p, size_t n, uint64_t *value)
{
	*value = 0;
	for (unsigned i = 0; i < n; i++) {
		if (p[i] == ':')
			return i > 0 ? (int)i + 1 : -1;
		if (p[i] < '0' || p[i] > '9' || i == NETSTRING_DIGITS_MAX || (i == 1 && p[0] == '0'))
			return -1;
		*value = *value * 10 + (p[i] - '0');
	}
	return 0;
}

static void netstring_decode(const struct protocol *protocol, const uint8_t *in, size_t n, unsigned limit,
			     struct session *session, struct batch *out)
{
	const struct codec *codec = codec_of(protocol);
	(void)session;
	frame_text_reset(out);
	while (out->count < limit && out->consumed < n) {
		const uint8_t *p = in + out->consumed;
		size_t left = n - out->consumed;
		uint64_t len;
		int header = read_digits(p, left, &len);

		if (header == 0)
			return;
		if (header < 0) {
			frame_text_fail(out, ERR_FRAME_MALFORMED, len);
			return;
		}
		if (len > codec->protocol.max_bytes) {
			frame_text_fail(out, ERR_FRAME_TOO_LARGE, len);
			return;
		}
		size_t total = (size_t)header + (size_t)len + 1;
		if (left < total) {
			out->need = total;
			return;
		}
		if (p[total - 1] != ',') {
			frame_text_fail(out, ERR_FRAME_MALFORMED, len);
			return;
		}
		if (!frame_text_add(codec, p + header, (size_t)len, out->consumed + total, out))
			return;
	}
}

static int netstring_encode_one(const struct codec *codec, const uint8_t *data, size_t len,
				struct buf_pool *pool, struct buf **out)
{
	uint8_t digits[24];
	size_t at = sizeof digits;
	size_t rest = len;

	(void)codec;
	if (len > UINT64_C(9999999999))
		return ERR_FRAME_REPLY;
	digits[--at] = ':';
	do
		digits[--at] = (uint8_t)('0' + rest % 10);
	while (rest /= 10);

	size_t header = sizeof digits - at;
	uint8_t *to = buf_reserve(pool, out, header + len + 1);
	if (!to)
		return ERR_BUFFER_LIMIT;
	memcpy(to, digits + at, header);
	memcpy(to + header, data, len);
	to[header + len] = ',';
	buf_commit(*out, header + len + 1);
	return 0;
}

static unsigned netstring_encode(const struct protocol *protocol, struct session *session,
				 const struct reply *replies, unsigned n, struct buf_pool *pool,
				 struct buf **out, int *error)
{
	(void)session;
	return codec_encode_each(codec_of(protocol), netstring_encode_one, replies, n, pool, out, error);
}

const struct protocol_ops codec_delimiter_ops = {
	.name = "delimiter",
	.rewinds = true,
	.counts = true,
	.label = codec_label,
	.explain = codec_explain,
	.decode = delimiter_decode,
	.encode = delimiter_encode,
	.check = delimiter_check,
};

const struct protocol_ops codec_line_ops = {
	.name = "line",
	.rewinds = true,
	.counts = true,
	.label = codec_label,
	.explain = codec_explain,
	.decode = line_decode,
	.encode = line_encode,
};

const struct protocol_ops codec_netstring_ops = {
	.name = "netstring",
	.rewinds = true,
	.counts = true,
	.label = codec_label,
	.explain = codec_explain,
	.decode = netstring_decode,
	.encode = netstring_encode,
};
