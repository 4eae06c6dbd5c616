/*
 * Turns bytes into frames, and replies into bytes.
 *
 * Never touches sockets or Lua. A frame points into the caller's input and
 * dies with it. A codec is an immutable description plus a small table of
 * functions; all kinds are registered in one list (codec.c).
 *
 * Threads: a codec is immutable after codec_init(), so any thread may use it;
 * the decode state belongs to the connection.
 */
#pragma once

#include "proto/protocol.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct buf;
struct buf_pool;

enum {
	CODEC_DELIMITER_MAX = 32,   /* bytes of a delimiter */
	CODEC_OFFSET_MAX = 64,      /* bytes allowed before a length field */
	CODEC_FRAME_LIMIT = 1 << 30 /* no frame may be larger, whatever is configured */
};

/* What to do with a frame of no bytes. */
enum codec_empty { CODEC_EMPTY_ERROR, CODEC_EMPTY_DELIVER, CODEC_EMPTY_IGNORE };

/* The kinds, as users name them in `frame = …`. */
enum codec_kind {
	CODEC_LENGTH, /* and its short names u8 … u64be, varint */
	CODEC_DELIMITER,
	CODEC_LINE,
	CODEC_FIXED,
	CODEC_NETSTRING,
	CODEC_RAW,
	CODEC_DATAGRAM, /* of udp:// alone */
	CODEC_LUA,      /* decode and encode in Lua; ops come from bind/ */
	CODEC_KINDS
};

struct codec {
	struct protocol protocol; /* first */
	enum codec_kind kind;
	enum codec_empty empty;
	bool view; /* handlers get a view of the bytes instead of a string */

	/* CODEC_LENGTH: `offset` bytes, then the field, then value + adjust bytes.
	 * The frame delivered is those first `offset` bytes and the payload, without
	 * the field; a reply has the same shape and the field is put in. */
	uint8_t length_bytes; /* 1, 2, 3, 4 or 8; 0: varint (base 128, Protocol Buffers) */
	bool little_endian;
	uint32_t offset;
	int64_t adjust;

	uint32_t fixed_bytes; /* CODEC_FIXED */

	uint8_t delimiter_bytes; /* CODEC_DELIMITER; CODEC_LINE is "\n", an "\r" before it is dropped */
	uint8_t delimiter[CODEC_DELIMITER_MAX];

	void *lua_owner; /* CODEC_LUA: these three belong to bind/codec.c */
	int lua_decode_ref, lua_encode_ref;
	unsigned lua_listener; /* whose budget its functions have */
};

/* Is the data one frame to who decodes it? It is not if a delimiter is in it. */
bool codec_is_one_frame(const struct codec *codec, const void *data, size_t len);

/* The ops of a kind, or NULL for CODEC_LUA (its owner sets them). */
const struct protocol_ops *codec_ops_of(enum codec_kind kind);

/*
 * Fills in a codec from a short name: "u8" "u16be" "u16le" "u24be" "u32be" "u32le"
 * "u64be" "varint" "line" "raw" "netstring" "datagram". max_bytes is the listener's frame limit.
 * 0, or UV_EINVAL when the name is unknown or max_bytes is 0 or over CODEC_FRAME_LIMIT.
 */
int codec_init_named(struct codec *codec, const char *name, uint32_t max_bytes);

/*
 * Checks a codec whose fields were set by hand and sets its ops (but those of CODEC_LUA,
 * which must be there). NULL, or what is wrong (static text).
 */
const char *codec_init(struct codec *codec);

/* Do they frame replies alike? */
bool codec_is_same(const struct codec *a, const struct codec *b);

/* What users call it: "u32be", "line", "length". Static text. */
const char *codec_name(const struct codec *codec);

/*
 * Says in words why decoding stopped: "empty frame", "frame too large: 1048577 > 1048576",
 * "malformed netstring". Returns text (in `text`, always terminated).
 */
const char *codec_error_text(const struct codec *codec, const struct batch *batch, char *text, size_t size);

/* The codec that begins with it: it is one. */
static inline const struct codec *codec_of(const struct protocol *protocol)
{
	return (const struct codec *)(const void *)protocol;
}

/* As protocol_ops.decode(). */
static inline void codec_decode(const struct codec *codec, const uint8_t *in, size_t n, unsigned limit,
				struct session *session, struct batch *out)
{
	codec->protocol.ops->decode(&codec->protocol, in, n, limit, session, out);
}

/* Appends one framed reply. 0, ERR_FRAME_REPLY or ERR_BUFFER_LIMIT. */
int codec_encode(const struct codec *codec, const uint8_t *data, size_t len, struct buf_pool *pool,
		 struct buf **out);

/*
 * Do frames first .. last - 1 of a batch (one at least, decoded with this codec) lie in the input just as they would be
 * encoded, one behind the other? Then *raw and *bytes are that stretch.
 */
bool codec_is_verbatim(const struct codec *codec, const struct frame *frames, unsigned first, unsigned last,
		       const uint8_t **raw, size_t *bytes);

/*
 * Copies a frame as delivered to `to` (which holds frame->len + codec->offset bytes) and
 * returns its length. Only needed where the frame is not in one piece: codec->offset > 0,
 * when `data`/`len` are the payload alone and the bytes before the field lie in front of it.
 */
size_t codec_flatten(const struct codec *codec, const struct frame *frame, uint8_t *to);

/* How many bytes a varint takes, written without need. */
size_t codec_varint_bytes(uint64_t value);
