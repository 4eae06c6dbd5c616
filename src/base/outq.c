#include "base/outq.h"

#include "base/err.h"

#include <stdlib.h>
#include <string.h>

enum { FIRST_ROOM = 4 };

/* Room for one more piece; NULL: not enough memory, and nothing has changed. */
static struct pieces *outq_make_room(struct pieces *pieces)
{
	if (pieces && pieces->end < pieces->room)
		return pieces;
	unsigned count = pieces ? pieces->end - pieces->first : 0;
	if (pieces && pieces->first >= pieces->room / 2) { /* half of them are sent */
		memmove(pieces->list, pieces->list + pieces->first, count * sizeof *pieces->list);
		pieces->first = 0;
		pieces->end = count;
		return pieces;
	}
	unsigned room = pieces ? 2 * pieces->room : FIRST_ROOM;
	struct pieces *grown = realloc(pieces, sizeof *grown + room * sizeof *grown->list);
	if (!grown)
		return NULL;
	if (!pieces)
		*grown = (struct pieces){ 0 };
	grown->room = room;
	return grown;
}

int outq_share(struct outq *out, struct buf_pool *pool, struct shared *shared, uint32_t at, uint32_t len)
{
	if (len < OUTQ_SHARE_BYTES)
		return buf_append(pool, &out->bytes, shared->bytes + at, len);
	bool was_empty = !out->bytes;
	if (!buf_reserve(pool, &out->bytes, 0))
		return ERR_BUFFER_LIMIT;
	struct pieces *pieces = outq_make_room(out->bytes->pieces);
	if (!pieces) {
		if (was_empty)
			buf_release(pool, &out->bytes);
		return ERR_BUFFER_LIMIT;
	}
	out->bytes->pieces = pieces;
	uint32_t before = (uint32_t)(buf_len(out->bytes) - pieces->before);
	pieces->list[pieces->end++] = (struct piece){ shared_hold(shared), at, len, before };
	pieces->before += before;
	pieces->len += len;
	return 0;
}

int outq_parts(const struct outq *out, struct iovec *parts)
{
	const struct buf *b = out->bytes;
	const struct pieces *pieces = b->pieces;
	uint8_t *own = (uint8_t *)b->data + b->start, *own_end = (uint8_t *)b->data + b->end;
	int n = 0;
	for (unsigned i = pieces ? pieces->first : 0; pieces && i < pieces->end; i++) {
		const struct piece *piece = &pieces->list[i];
		if (n + 2 > OUTQ_IOV_MAX)
			return n;
		if (piece->before)
			parts[n++] = (struct iovec){ own, piece->before };
		own += piece->before;
		parts[n++] = (struct iovec){ piece->shared->bytes + piece->at, piece->len };
	}
	if (own < own_end && n < OUTQ_IOV_MAX)
		parts[n++] = (struct iovec){ own, (size_t)(own_end - own) };
	return n;
}

/* Of what comes up to the end of the last piece. Returns how many bytes are left to be dropped of those behind it. */
static size_t consume_pieces(struct buf *b, size_t n)
{
	struct pieces *pieces = b->pieces;
	while (pieces->first < pieces->end) {
		struct piece *piece = &pieces->list[pieces->first];
		uint32_t own = n < piece->before ? (uint32_t)n : piece->before;
		n -= own;
		uint32_t part = n < piece->len ? (uint32_t)n : piece->len;
		n -= part;
		b->start += own;
		piece->before -= own;
		pieces->before -= own;
		piece->at += part;
		piece->len -= part;
		pieces->len -= part;
		if (piece->before || piece->len)
			return n;
		shared_drop(piece->shared);
		pieces->first++;
	}
	free(pieces);
	b->pieces = NULL;
	return n;
}

void outq_consume_parts(struct outq *out, struct buf_pool *pool, size_t n)
{
	n = consume_pieces(out->bytes, n);
	if (!out->bytes->pieces)
		buf_consume(pool, &out->bytes, n);
}

void outq_release(struct outq *out, struct buf_pool *pool)
{
	struct pieces *pieces = out->bytes ? out->bytes->pieces : NULL;
	for (unsigned i = pieces ? pieces->first : 0; pieces && i < pieces->end; i++)
		shared_drop(pieces->list[i].shared);
	free(pieces);
	buf_release(pool, &out->bytes);
}
