/*
 * The list of framings, and what they have in common.
 *
 * A new framing is a kind in codec.h, an entry of the list here, a name in lua/perilune/config/frame.lua and in
 * bind/codec.c, a type in lua/perilune/library/, and a row of spec/support/framings.lua.
 */
#include "frame/internal.h"

#include "base/err.h"
#include "net/datagram.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* Declared here only: everybody else asks codec_ops_of(). */
extern const struct protocol_ops codec_length_ops, codec_delimiter_ops, codec_line_ops, codec_fixed_ops,
    codec_netstring_ops, codec_raw_ops, codec_datagram_ops;

static const struct protocol_ops *const registry[CODEC_KINDS] = {
	[CODEC_LENGTH] = &codec_length_ops,       [CODEC_DELIMITER] = &codec_delimiter_ops,
	[CODEC_LINE] = &codec_line_ops,           [CODEC_FIXED] = &codec_fixed_ops,
	[CODEC_NETSTRING] = &codec_netstring_ops, [CODEC_RAW] = &codec_raw_ops,
	[CODEC_DATAGRAM] = &codec_datagram_ops,
};

struct short_name {
	const char *name;
	enum codec_kind kind;
	enum codec_empty empty;
	uint8_t length_bytes;
	bool little_endian;
};

static const struct short_name short_names[] = {
	{ .name = "u8", .kind = CODEC_LENGTH, .length_bytes = 1 },
	{ .name = "u16be", .kind = CODEC_LENGTH, .length_bytes = 2 },
	{ .name = "u16le", .kind = CODEC_LENGTH, .length_bytes = 2, .little_endian = true },
	{ .name = "u24be", .kind = CODEC_LENGTH, .length_bytes = 3 },
	{ .name = "u32be", .kind = CODEC_LENGTH, .length_bytes = 4 },
	{ .name = "u32le", .kind = CODEC_LENGTH, .length_bytes = 4, .little_endian = true },
	{ .name = "u64be", .kind = CODEC_LENGTH, .length_bytes = 8 },
	{ .name = "varint", .kind = CODEC_LENGTH },
	{ .name = "line", .kind = CODEC_LINE, .empty = CODEC_EMPTY_DELIVER },
	{ .name = "netstring", .kind = CODEC_NETSTRING, .empty = CODEC_EMPTY_DELIVER },
	{ .name = "raw", .kind = CODEC_RAW },
	{ .name = "datagram", .kind = CODEC_DATAGRAM, .empty = CODEC_EMPTY_DELIVER },
};

const struct protocol_ops *codec_ops_of(enum codec_kind kind)
{
	return (unsigned)kind < CODEC_KINDS ? registry[kind] : NULL;
}

const char *codec_init(struct codec *codec)
{
	if ((unsigned)codec->kind >= CODEC_KINDS)
		return "unknown framing";
	if (codec->kind != CODEC_LUA)
		codec->protocol.ops = codec_ops_of(codec->kind);
	if (!codec->protocol.ops)
		return "framing in Lua needs its functions";
	if (codec->protocol.max_bytes == 0)
		return "the frame limit must be at least 1 byte";
	if (codec->protocol.max_bytes > CODEC_FRAME_LIMIT)
		return "the frame limit must be at most 1 GiB";
	if ((unsigned)codec->empty > CODEC_EMPTY_IGNORE)
		return "empty must be error, deliver or ignore";
	/* codec_flatten() relies on it. */
	if (codec->offset && codec->kind != CODEC_LENGTH)
		return "offset is for length framing only";
	return codec->protocol.ops->check ? codec->protocol.ops->check(&codec->protocol) : NULL;
}

int codec_init_named(struct codec *codec, const char *name, uint32_t max_bytes)
{
	for (size_t i = 0; i < sizeof short_names / sizeof *short_names; i++) {
		const struct short_name *found = &short_names[i];
		if (strcmp(found->name, name) != 0)
			continue;
		*codec = (struct codec){
			.kind = found->kind,
			.empty = found->empty,
			.length_bytes = found->length_bytes,
			.little_endian = found->little_endian,
			.protocol.max_bytes = max_bytes,
		};
		return codec_init(codec) ? -EINVAL : 0;
	}
	return -EINVAL;
}

const char *codec_error_text(const struct codec *codec, const struct batch *batch, char *text, size_t size)
{
	switch (batch->error) {
	case 0:
		snprintf(text, size, "no error");
		break;
	case ERR_FRAME_EMPTY:
		snprintf(text, size, "empty frame");
		break;
	case ERR_FRAME_TOO_LARGE:
		snprintf(text, size, "frame too large: %" PRIu64 " > %" PRIu32, batch->announced,
			 codec->protocol.max_bytes);
		break;
	case ERR_FRAME_MALFORMED:
		if (codec->kind != CODEC_LENGTH)
			snprintf(text, size, "malformed %s", codec->protocol.ops->name);
		else if (codec->length_bytes == 0)
			snprintf(text, size, "malformed varint");
		else
			snprintf(text, size, "malformed length: %" PRIu64, batch->announced);
		break;
	default:
		snprintf(text, size, "frame error %d", batch->error);
	}
	return text;
}

size_t codec_varint_bytes(uint64_t value)
{
	size_t bytes = 1;
	while (value >>= 7)
		bytes++;
	return bytes;
}

/* How long the length field of a frame was: overlong varints are refused, so that their value tells. */
static size_t field_bytes(const struct codec *codec, const struct frame *frame)
{
	return codec->length_bytes ? codec->length_bytes
				   : codec_varint_bytes((uint64_t)((int64_t)frame->len - codec->adjust));
}

size_t codec_flatten(const struct codec *codec, const struct frame *frame, uint8_t *to)
{
	if (codec->offset) {
		memcpy(to, frame->data - field_bytes(codec, frame) - codec->offset, codec->offset);
		to += codec->offset;
	}
	if (frame->len)
		memcpy(to, frame->data, frame->len);
	return codec->offset + frame->len;
}

int codec_encode(const struct codec *codec, const uint8_t *data, size_t len, struct buf_pool *pool,
		 struct buf **out)
{
	struct reply reply = { data, len };
	int error;
	codec->protocol.ops->encode(&codec->protocol, NULL, &reply, 1, pool, out, &error);
	return error;
}

unsigned codec_encode_each(const struct codec *codec, codec_encode_one *encode, const struct reply *replies,
			   unsigned n, struct buf_pool *pool, struct buf **out, int *error)
{
	*error = 0;
	for (unsigned i = 0; i < n; i++) {
		*error = encode(codec, replies[i].data, replies[i].len, pool, out);
		if (*error)
			return i;
	}
	return n;
}

bool codec_is_verbatim(const struct codec *codec, const struct frame *frames, unsigned first, unsigned last,
		       const uint8_t **raw, size_t *bytes)
{
	bool has_field = codec->kind == CODEC_LENGTH && codec->length_bytes && !codec->offset;
	if (!has_field && codec->kind != CODEC_DATAGRAM)
		return false;
	size_t head_bytes = has_field ? codec->length_bytes : DATAGRAM_HEAD_BYTES;
	const uint8_t *from = frames[first].data - head_bytes;
	const uint8_t *to = frames[last - 1].data + frames[last - 1].len;
	/* Only frames that were ignored leave gaps. */
	for (unsigned i = first + 1; codec->empty == CODEC_EMPTY_IGNORE && i < last; i++)
		if (frames[i].data != frames[i - 1].data + frames[i - 1].len + head_bytes)
			return false;
	*raw = from;
	*bytes = (size_t)(to - from);
	return true;
}

const char *codec_name(const struct codec *codec)
{
	for (size_t i = 0; i < sizeof short_names / sizeof *short_names; i++) {
		const struct short_name *known = &short_names[i];
		bool same_length = known->length_bytes == codec->length_bytes &&
				   known->little_endian == codec->little_endian && !codec->offset &&
				   !codec->adjust;
		if (known->kind == codec->kind && (codec->kind != CODEC_LENGTH || same_length))
			return known->name;
	}
	return codec->protocol.ops->name;
}

const char *codec_label(const struct protocol *protocol)
{
	return codec_name(codec_of(protocol));
}

void codec_explain(const struct protocol *protocol, const struct batch *batch, char *text, size_t size)
{
	codec_error_text(codec_of(protocol), batch, text, size);
}

static bool is_same_length(const struct codec *a, const struct codec *b)
{
	return a->length_bytes == b->length_bytes && a->little_endian == b->little_endian &&
	       a->offset == b->offset && a->adjust == b->adjust && a->fixed_bytes == b->fixed_bytes;
}

bool codec_is_same(const struct codec *a, const struct codec *b)
{
	const struct protocol *of_a = &a->protocol, *of_b = &b->protocol;
	return a->kind == b->kind && of_a->ops == of_b->ops && of_a->messages == of_b->messages &&
	       of_a->max_bytes == of_b->max_bytes && a->empty == b->empty && is_same_length(a, b) &&
	       a->delimiter_bytes == b->delimiter_bytes &&
	       !memcmp(a->delimiter, b->delimiter, b->delimiter_bytes) && a->lua_owner == b->lua_owner &&
	       a->lua_encode_ref == b->lua_encode_ref;
}

bool codec_is_one_frame(const struct codec *codec, const void *data, size_t len)
{
	if (codec->kind == CODEC_LINE)
		return !memchr(data, '\n', len);
	return codec->kind != CODEC_DELIMITER || !memmem(data, len, codec->delimiter, codec->delimiter_bytes);
}
