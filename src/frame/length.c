/*
 * Frames behind a length field: 1, 2, 3, 4 or 8 bytes of either endianness, or
 * a varint (base 128, Protocol Buffers).
 *
 * u32be is the default framing and this its hot path, so each width has a loop
 * of its own: decode_field() and encode_field() are inlined with constant
 * arguments and cost per frame what a loop written out by hand does.
 */
#include "base/buf.h"
#include "base/err.h"
#include "frame/internal.h"

#include <string.h>

#define ALWAYS_INLINE static inline __attribute__((always_inline))
#define COLD __attribute__((cold, noinline))

enum { VARINT_BYTES_MAX = 10 };

/* No adjust (at most 1 << 30 either way) makes a frame within limits of a larger value. */
static const uint64_t VALUE_MAX = UINT64_C(1) << 32;

extern const struct protocol_ops codec_length_ops;

ALWAYS_INLINE uint64_t load(const uint8_t *p, unsigned width, bool little)
{
	uint16_t v16;
	uint32_t v32;
	uint64_t v64;
	const bool swap = little != (__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__);

	switch (width) {
	case 1:
		return p[0];
	case 2:
		memcpy(&v16, p, 2);
		return swap ? __builtin_bswap16(v16) : v16;
	case 3:
		return little ? p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16
			      : p[2] | (uint32_t)p[1] << 8 | (uint32_t)p[0] << 16;
	case 4:
		memcpy(&v32, p, 4);
		return swap ? __builtin_bswap32(v32) : v32;
	default:
		memcpy(&v64, p, 8);
		return swap ? __builtin_bswap64(v64) : v64;
	}
}

ALWAYS_INLINE void store(uint8_t *p, uint64_t value, unsigned width, bool little)
{
	const bool swap = little != (__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__);
	uint16_t v16 = swap ? __builtin_bswap16((uint16_t)value) : (uint16_t)value;
	uint32_t v32 = swap ? __builtin_bswap32((uint32_t)value) : (uint32_t)value;
	uint64_t v64 = swap ? __builtin_bswap64(value) : value;

	switch (width) {
	case 1:
		p[0] = (uint8_t)value;
		break;
	case 2:
		memcpy(p, &v16, 2);
		break;
	case 3:
		p[little ? 0 : 2] = (uint8_t)value;
		p[1] = (uint8_t)(value >> 8);
		p[little ? 2 : 0] = (uint8_t)(value >> 16);
		break;
	case 4:
		memcpy(p, &v32, 4);
		break;
	default:
		memcpy(p, &v64, 8);
	}
}

/* A field that announces no ordinary frame: true when it is to be skipped, else *out says what is wrong. */
COLD static bool skip_or_fail(const struct codec *codec, uint64_t value, struct batch *out)
{
	uint64_t total;

	out->announced = value;
	if (codec->adjust < 0 && value < (uint64_t)-codec->adjust) {
		out->error = ERR_FRAME_MALFORMED;
		return false;
	}
	if (codec->adjust < 0)
		total = value - (uint64_t)-codec->adjust;
	else if (__builtin_add_overflow(value, (uint64_t)codec->adjust, &total))
		total = UINT64_MAX;
	if (__builtin_add_overflow(total, codec->offset, &total))
		total = UINT64_MAX;
	out->announced = total;
	if (total > codec->protocol.max_bytes) {
		out->error = ERR_FRAME_TOO_LARGE;
		return false;
	}
	if (codec->empty == CODEC_EMPTY_IGNORE)
		return true;
	out->error = ERR_FRAME_EMPTY;
	return false;
}

static void length_finish(struct batch *out, unsigned count, size_t consumed, size_t need)
{
	out->count = count;
	out->consumed = consumed;
	out->need = need;
}

/* What payload lengths need no second look: least .. least + span. */
ALWAYS_INLINE uint64_t least_payload(const struct codec *codec)
{
	return codec->offset || codec->empty == CODEC_EMPTY_DELIVER ? 0 : 1;
}

/* `plain`: neither offset nor adjust. */
ALWAYS_INLINE void decode_field(const struct codec *codec, const uint8_t *in, size_t n, unsigned limit,
				struct batch *out, unsigned width, bool little, bool plain)
{
	const size_t before = plain ? 0 : codec->offset, header = before + width;
	const uint64_t adjust = plain ? 0 : (uint64_t)codec->adjust;
	const uint64_t least = least_payload(codec), span = codec->protocol.max_bytes - before - least;
	unsigned count = 0;
	size_t at = 0, need = 0;

	while (count < limit && n - at >= header) {
		uint64_t value = load(in + at + before, width, little), payload = value + adjust;

		/* One comparison for too short and too long: it wraps. */
		if (__builtin_expect(payload - least > span || (!plain && value > VALUE_MAX), 0)) {
			if (!skip_or_fail(codec, value, out))
				break;
			at += header;
			continue;
		}
		if (payload > n - at - header) {
			need = header + (size_t)payload;
			break;
		}
		struct frame *frame = &out->frames[count++];
		frame->data = in + at + header;
		frame->len = (uint32_t)payload;
		at += header + (size_t)payload;
		frame->end = (uint32_t)at;
	}
	length_finish(out, count, at, need);
}

/*
 * Returns the bytes that the varint takes, 0 when it is not complete yet, -1 when
 * it is overlong or more than 64 bits (*value is then only good for a message).
 */
static int read_varint(const uint8_t *p, size_t n, uint64_t *value)
{
	*value = 0;
	for (unsigned i = 0; i < VARINT_BYTES_MAX && i < n; i++) {
		if (i == VARINT_BYTES_MAX - 1 && p[i] > 1) {
			*value = UINT64_MAX;
			return -1;
		}
		*value |= (uint64_t)(p[i] & 0x7f) << 7 * i;
		if (p[i] < 0x80)
			return i > 0 && p[i] == 0 ? -1 : (int)i + 1;
	}
	return 0;
}

/* `before`: codec->offset; 0 is a constant where it is inlined. */
ALWAYS_INLINE void decode_varint(const struct codec *codec, const uint8_t *in, size_t n, unsigned limit,
				 struct batch *out, size_t before)
{
	const uint64_t least = least_payload(codec), span = codec->protocol.max_bytes - before - least;
	unsigned count = 0;
	size_t at = 0, need = 0;

	while (count < limit && n - at > before) {
		const uint8_t *field = in + at + before;
		uint64_t value = *field;
		int width = value < 0x80 ? 1 : read_varint(field, n - at - before, &value);

		if (width <= 0) {
			if (width < 0) {
				out->error = ERR_FRAME_MALFORMED;
				out->announced = value;
			}
			break;
		}
		size_t header = before + (size_t)width;
		uint64_t payload = value + (uint64_t)codec->adjust;
		if (payload - least > span || value > VALUE_MAX) {
			if (!skip_or_fail(codec, value, out))
				break;
			at += header;
			continue;
		}
		if (payload > n - at - header) {
			need = header + (size_t)payload;
			break;
		}
		at += header;
		out->frames[count].data = in + at;
		out->frames[count].len = (uint32_t)payload;
		at += (size_t)payload;
		out->frames[count++].end = (uint32_t)at;
	}
	length_finish(out, count, at, need);
}

ALWAYS_INLINE void decode_width(const struct codec *codec, const uint8_t *in, size_t n, unsigned limit,
				struct batch *out, bool little, bool plain)
{
	switch (codec->length_bytes) {
	case 1:
		decode_field(codec, in, n, limit, out, 1, little, plain);
		break;
	case 2:
		decode_field(codec, in, n, limit, out, 2, little, plain);
		break;
	case 3:
		decode_field(codec, in, n, limit, out, 3, little, plain);
		break;
	case 4:
		decode_field(codec, in, n, limit, out, 4, little, plain);
		break;
	default:
		decode_field(codec, in, n, limit, out, 8, little, plain);
	}
}

static void length_decode(const struct protocol *protocol, const uint8_t *in, size_t n, unsigned limit,
			  struct session *session, struct batch *out)
{
	const struct codec *codec = codec_of(protocol);
	const bool plain = !codec->offset && !codec->adjust;

	(void)session;
	out->error = 0;
	out->announced = 0;
	if (codec->length_bytes == 0)
		codec->offset ? decode_varint(codec, in, n, limit, out, codec->offset)
			      : decode_varint(codec, in, n, limit, out, 0);
	else if (codec->little_endian)
		plain ? decode_width(codec, in, n, limit, out, true, true)
		      : decode_width(codec, in, n, limit, out, true, false);
	else
		plain ? decode_width(codec, in, n, limit, out, false, true)
		      : decode_width(codec, in, n, limit, out, false, false);
	/* skip_or_fail() also notes what it skips. */
	if (!out->error)
		out->announced = 0;
}

/*
 * memcpy() for replies, most of which are short: two or four overlapping moves
 * instead of a call through the linkage table, which costs more than they do.
 */
ALWAYS_INLINE void copy(uint8_t *to, const uint8_t *from, size_t n)
{
	if (n < 16 || n > 64) {
		memcpy(to, from, n);
		return;
	}
	if (n > 32) {
		memcpy(to + 16, from + 16, 16);
		memcpy(to + n - 32, from + n - 32, 16);
	}
	memcpy(to, from, 16);
	memcpy(to + n - 16, from + n - 16, 16);
}

/* buf_reserve(), without the call while there is room. */
ALWAYS_INLINE uint8_t *reserve(struct buf_pool *pool, struct buf **out, size_t n)
{
	return *out && buf_room(*out) >= n ? (*out)->data + (*out)->end : buf_reserve(pool, out, n);
}

/* What the field says for a reply of `len` bytes. False when no field can. */
ALWAYS_INLINE bool field_value(const struct codec *codec, size_t len, uint64_t *value)
{
	if (len < codec->offset)
		return false;
	*value = (uint64_t)(len - codec->offset) - (uint64_t)codec->adjust;
	return codec->adjust <= 0 || len - codec->offset >= (uint64_t)codec->adjust;
}

ALWAYS_INLINE int encode_field(const struct codec *codec, const uint8_t *data, size_t len,
			       struct buf_pool *pool, struct buf **out, unsigned width, bool little)
{
	const size_t before = codec->offset;
	uint64_t value;

	if (!field_value(codec, len, &value) || (width < 8 && value >> 8 * (width & 7)))
		return ERR_FRAME_REPLY;
	uint8_t *to = reserve(pool, out, width + len);
	if (!to)
		return ERR_BUFFER_LIMIT;
	if (__builtin_expect(before > 0, 0))
		memcpy(to, data, before);
	store(to + before, value, width, little);
	copy(to + before + width, data + before, len - before);
	buf_commit(*out, width + len);
	return 0;
}

static int encode_varint(const struct codec *codec, const uint8_t *data, size_t len, struct buf_pool *pool,
			 struct buf **out)
{
	const size_t before = codec->offset;
	uint64_t value;

	if (!field_value(codec, len, &value))
		return ERR_FRAME_REPLY;
	const size_t width = codec_varint_bytes(value);
	uint8_t *to = reserve(pool, out, width + len);
	if (!to)
		return ERR_BUFFER_LIMIT;
	if (__builtin_expect(before > 0, 0))
		memcpy(to, data, before);
	to += before;
	for (; value >= 0x80; value >>= 7)
		*to++ = (uint8_t)(value | 0x80);
	*to++ = (uint8_t)value;
	copy(to, data + before, len - before);
	buf_commit(*out, width + len);
	return 0;
}

ALWAYS_INLINE int encode_width(const struct codec *codec, const uint8_t *data, size_t len,
			       struct buf_pool *pool, struct buf **out, bool little)
{
	switch (codec->length_bytes) {
	case 1:
		return encode_field(codec, data, len, pool, out, 1, little);
	case 2:
		return encode_field(codec, data, len, pool, out, 2, little);
	case 3:
		return encode_field(codec, data, len, pool, out, 3, little);
	case 4:
		return encode_field(codec, data, len, pool, out, 4, little);
	default:
		return encode_field(codec, data, len, pool, out, 8, little);
	}
}

static int encode_one(const struct codec *codec, const uint8_t *data, size_t len, struct buf_pool *pool,
		      struct buf **out)
{
	if (codec->length_bytes == 0)
		return encode_varint(codec, data, len, pool, out);
	return codec->little_endian ? encode_width(codec, data, len, pool, out, true)
				    : encode_width(codec, data, len, pool, out, false);
}

static bool carries(const struct protocol *protocol, size_t len)
{
	const struct codec *codec = codec_of(protocol);
	const unsigned width = codec->length_bytes;
	uint64_t value;
	return field_value(codec, len, &value) && (width == 0 || width >= 8 || !(value >> 8 * width));
}

static unsigned encode_each(const struct codec *codec, const struct reply *replies, unsigned n,
			    struct buf_pool *pool, struct buf **out, int *error)
{
	for (unsigned i = 0; i < n; i++) {
		*error = encode_one(codec, replies[i].data, replies[i].len, pool, out);
		if (*error)
			return i;
	}
	return n;
}

/* The framing that most servers speak, without a doubt to check: room for all is made at once. */
static unsigned encode_u32be(const struct codec *codec, const struct reply *replies, unsigned n,
			     struct buf_pool *pool, struct buf **out, int *error)
{
	size_t bytes = 0;
	bool fits = true;
	for (unsigned i = 0; i < n; i++) {
		bytes += 4 + replies[i].len;
		fits = fits && replies[i].len <= UINT32_MAX;
	}
	uint8_t *to = fits ? reserve(pool, out, bytes) : NULL;
	if (!to)
		return encode_each(codec, replies, n, pool, out, error); /* as far as it goes */
	for (unsigned i = 0; i < n; i++) {
		size_t len = replies[i].len;
		store(to, len, 4, false);
		copy(to + 4, replies[i].data, len);
		to += 4 + len;
	}
	buf_commit(*out, bytes);
	return n;
}

static unsigned length_encode(const struct protocol *protocol, struct session *session,
			      const struct reply *replies, unsigned n, struct buf_pool *pool,
			      struct buf **out, int *error)
{
	const struct codec *codec = codec_of(protocol);
	(void)session;
	*error = 0;
	if (codec->length_bytes == 4 && !codec->little_endian && !codec->offset && !codec->adjust)
		return encode_u32be(codec, replies, n, pool, out, error);
	return encode_each(codec, replies, n, pool, out, error);
}

/* Whether some value of the field announces a frame that is neither negative nor too large. */
static bool adjust_is_possible(const struct codec *codec)
{
	int64_t most = codec->length_bytes >= 1 && codec->length_bytes <= 3
			   ? (INT64_C(1) << 8 * codec->length_bytes) - 1
			   : (int64_t)UINT32_MAX;

	return most + codec->adjust >= 0 &&
	       codec->adjust <= (int64_t)codec->protocol.max_bytes - codec->offset;
}

static const char *length_check(const struct protocol *protocol)
{
	const struct codec *codec = codec_of(protocol);
	if (codec->length_bytes > 4 && codec->length_bytes != 8)
		return "a length field has 1, 2, 3, 4 or 8 bytes";
	if (codec->offset > CODEC_OFFSET_MAX)
		return "offset must be at most 64 bytes";
	if (codec->view && codec->offset)
		return "view needs an offset of 0";
	if (codec->offset > codec->protocol.max_bytes)
		return "offset is larger than the frame limit";
	if (codec->adjust > CODEC_FRAME_LIMIT || codec->adjust < -CODEC_FRAME_LIMIT)
		return "adjust must be at most 1 GiB either way";
	if (!adjust_is_possible(codec))
		return "adjust leaves no possible length";
	return NULL;
}

const struct protocol_ops codec_length_ops = {
	.name = "length",
	.rewinds = true,
	.counts = true,
	.label = codec_label,
	.explain = codec_explain,
	.decode = length_decode,
	.encode = length_encode,
	.carries = carries,
	.check = length_check,
};
