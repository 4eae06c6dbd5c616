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

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct buf;
struct buf_pool;

enum {
	FRAME_BATCH_MAX = 256,      /* frames decoded in one go */
	CODEC_DELIMITER_MAX = 32,   /* bytes of a delimiter */
	CODEC_OVERHEAD_MAX = 64,    /* bytes that a framing adds to a reply */
	CODEC_OFFSET_MAX = 64,      /* bytes allowed before a length field */
	CODEC_FRAME_LIMIT = 1 << 30 /* no frame may be larger, whatever is configured */
};

/* What to do with a frame of no bytes. */
enum codec_empty { CODEC_EMPTY_ERROR, CODEC_EMPTY_DELIVER, CODEC_EMPTY_IGNORE };

/*
 * A decoded frame. `end` is the offset just past all of its bytes (header,
 * payload, terminator) from the start of the input, so that a batch can be cut
 * after any frame and the rest decoded again, perhaps by another codec.
 */
struct frame {
	const uint8_t *data;
	uint32_t len;
	uint32_t end;
};

struct codec;

/* What decode() found. Frames are in stream order. */
struct frame_batch {
	struct frame frames[FRAME_BATCH_MAX];
	unsigned count;
	size_t consumed;    /* input bytes that are done with: the frames' and ignored ones */
	size_t need;        /* total bytes from `consumed` that a begun frame takes, if known; else 0 */
	int error;          /* 0 or ERR_FRAME_*, met after the frames in this batch */
	uint64_t announced; /* with an error: the length announced (malformed: the field's value, as far
			     * as it could be read), or max_bytes + 1 where a terminator did not come */
	/* By which codec it was decoded: the connection may have another one by now. The caller of decode() sets it. */
	const struct codec *codec;
};

/* Bytes of a reply, not yet framed; somebody else keeps them alive. */
struct reply {
	const uint8_t *data;
	size_t len;
};

struct codec_ops {
	const char *name;

	/*
	 * Decodes up to `limit` frames (1 .. FRAME_BATCH_MAX) of in[0 .. n), n below 4 GiB.
	 * Sets every field of *out but `codec` and the unused frames. *scanned belongs to the stream:
	 * at how many places from `consumed` on no terminator begins. It is zero at the
	 * start, kept up by decode(), and to be zeroed by the caller who consumes less than
	 * `consumed` (a batch cut short) or goes on with another codec. Never allocates.
	 * The same stream gives the same frames and error however it is split.
	 */
	void (*decode)(const struct codec *codec, const uint8_t *in, size_t n, unsigned limit,
		       uint32_t *scanned, struct frame_batch *out);

	/*
	 * Appends one framed reply to *out. `data` is never NULL. max_bytes does not apply.
	 * 0, ERR_FRAME_REPLY (this framing cannot carry it) or ERR_BUFFER_LIMIT. A reply
	 * that holds the delimiter is let through: the peer sees several frames.
	 */
	int (*encode)(const struct codec *codec, const uint8_t *data, size_t len, struct buf_pool *pool,
		      struct buf **out);

	/*
	 * The same for several replies at once; may be NULL. Returns how many were appended; when
	 * fewer than n, *error says why the next one was not.
	 */
	unsigned (*encode_batch)(const struct codec *codec, const struct reply *replies, unsigned n,
				 struct buf_pool *pool, struct buf **out, int *error);

	/* Has a reply of so many bytes a place in it? Else encode() says ERR_FRAME_REPLY. NULL: any has. */
	bool (*carries)(const struct codec *codec, size_t len);

	/* Checks a filled-in codec. NULL, or what is wrong with it (static text). May be NULL. */
	const char *(*check)(const struct codec *codec);
};

/* The kinds, as users name them in `frame = …`. */
enum codec_kind {
	CODEC_LENGTH, /* and its short names u8 … u64be, varint */
	CODEC_DELIMITER,
	CODEC_LINE,
	CODEC_FIXED,
	CODEC_NETSTRING,
	CODEC_RAW,
	CODEC_LUA, /* decode and encode in Lua; ops come from bind/ */
	CODEC_KINDS
};

struct codec {
	const struct codec_ops *ops;
	enum codec_kind kind;
	uint32_t max_bytes; /* of one frame as delivered; a larger one is refused */
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

/* The ops of a kind, or NULL for CODEC_LUA (its owner sets them). */
const struct codec_ops *codec_ops_of(enum codec_kind kind);

/*
 * Fills in a codec from a short name: "u8" "u16be" "u16le" "u24be" "u32be" "u32le"
 * "u64be" "varint" "line" "raw" "netstring". max_bytes is the listener's frame limit.
 * 0, or UV_EINVAL when the name is unknown or max_bytes is 0 or over CODEC_FRAME_LIMIT.
 */
int codec_init_named(struct codec *codec, const char *name, uint32_t max_bytes);

/*
 * Checks a codec whose fields were set by hand and sets its ops (but those of CODEC_LUA,
 * which must be there). NULL, or what is wrong (static text).
 */
const char *codec_init(struct codec *codec);

/* What users call it: "u32be", "line", "length". Static text. */
const char *codec_name(const struct codec *codec);

/*
 * Says in words why decoding stopped: "empty frame", "frame too large: 1048577 > 1048576",
 * "malformed netstring". Returns text (in `text`, always terminated).
 */
const char *codec_error_text(const struct codec *codec, const struct frame_batch *batch, char *text,
			     size_t size);

/* Has a reply of so many bytes a place in this framing, as codec_ops.carries has it? True for CODEC_LUA. */
bool codec_carries(const struct codec *codec, size_t len);

/* Appends framed replies; as codec_ops.encode_batch, for every codec. */
unsigned codec_encode_batch(const struct codec *codec, const struct reply *replies, unsigned n,
			    struct buf_pool *pool, struct buf **out, int *error);

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
