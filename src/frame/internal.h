/* What the files of this folder share. Nobody else includes it. */
#pragma once

#include "frame/codec.h"

/* protocol_ops.label() and explain() of framings. */
const char *codec_label(const struct protocol *protocol);
void codec_explain(const struct protocol *protocol, const struct batch *batch, char *text, size_t size);

/* Appends one framed reply: 0, ERR_FRAME_REPLY or ERR_BUFFER_LIMIT. */
typedef int codec_encode_one(const struct codec *codec, const uint8_t *data, size_t len,
			     struct buf_pool *pool, struct buf **out);

/* protocol_ops.encode() of a framing that has no quicker way for several than one after the other. */
unsigned codec_encode_each(const struct codec *codec, codec_encode_one *encode, const struct reply *replies,
			   unsigned n, struct buf_pool *pool, struct buf **out, int *error);
