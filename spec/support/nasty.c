#include "support/nasty.h"

#include "conn/conn.h"

#include <assert.h>
#include <string.h>
#include <uv.h>

enum { ENDS_BY = UV_EPROTO };

static struct nasty_stream *self(const struct stream *stream)
{
	return (struct nasty_stream *)(void *)stream;
}

static uint32_t choose(struct nasty_stream *nasty, uint32_t bound)
{
	return nasty->choose ? nasty->choose(bound) : bound - 1;
}

/* Then what it was to write is forgotten. */
static bool is_lost(const struct nasty_stream *nasty)
{
	const char *io = (const char *)nasty->layer.stream.user;
	return ((const struct conn *)(const void *)(io - offsetof(struct conn, io)))->lost;
}

static bool fails(struct nasty_stream *nasty)
{
	return nasty->fails_in && !--nasty->fails_in;
}

void nasty_translate(void *bytes, size_t n, uint8_t key)
{
	for (size_t i = 0; i < n; i++)
		((uint8_t *)bytes)[i] ^= key;
}

static ssize_t read_below(struct nasty_stream *nasty, void *to, size_t n)
{
	struct stream *below = nasty->layer.below;
	return below->ops->read(below, to, n);
}

/* How many of them are written, or an error. */
static ssize_t write_below(struct nasty_stream *nasty, const void *from, size_t n)
{
	struct stream *below = nasty->layer.below;
	return below->ops->write(below, from, n);
}

static int write_byte(struct nasty_stream *nasty, uint8_t byte)
{
	ssize_t n = write_below(nasty, &byte, 1);
	return n == 1 ? 0 : n ? (int)n : UV_EAGAIN;
}

/* ---- the beginning ---- */

static int nasty_open(struct stream *stream)
{
	struct nasty_stream *nasty = self(stream);
	uint8_t byte;
	if (nasty->opened)
		return 0;
	if (fails(nasty))
		return ENDS_BY;
	/* In turns: the peer's byte, and ours. */
	while (nasty->hello_written < NASTY_HELLO_BYTES) {
		if (nasty->hello_read == nasty->hello_written) {
			ssize_t n = read_below(nasty, &byte, 1);
			if (n <= 0)
				return n ? (int)n : ENDS_BY;
			if (byte != NASTY_FILLER)
				return ENDS_BY;
			nasty->hello_read++;
		}
		int err = write_byte(nasty, NASTY_FILLER);
		if (err)
			return err;
		nasty->hello_written++;
	}
	nasty->opened = true;
	return 0;
}

static unsigned nasty_needs(const struct stream *stream, unsigned wanted)
{
	struct nasty_stream *nasty = self(stream);
	if (!nasty->opened)
		return nasty->hello_read == nasty->hello_written ? STREAM_READ : STREAM_WRITE;
	/* A filler that is owed goes first, but not before a piece that was begun. */
	bool owes = nasty->read_needs && !nasty->piece_bytes;
	unsigned to_write = nasty->write_needs && !owes ? nasty->write_needs : STREAM_WRITE;
	unsigned needs = wanted & STREAM_WRITE ? to_write : 0;
	if (wanted & STREAM_READ)
		needs |= nasty->read_needs ? to_write : STREAM_READ;
	return needs;
}

/* ---- reading ---- */

static bool nasty_has_input(const struct stream *stream)
{
	struct nasty_stream *nasty = self(stream);
	if (!nasty->opened || nasty->read_needs)
		return false;
	return nasty->held_bytes || nasty->below_ended || stream_holds_input(nasty->layer.below);
}

/* > 0: something was read, or is held, be it only fillers; 0: the end; or an error. */
static ssize_t hold(struct nasty_stream *nasty)
{
	if (nasty->held_bytes)
		return 1;
	if (nasty->below_ended)
		return 0;
	ssize_t n = read_below(nasty, nasty->held, 1 + choose(nasty, NASTY_PIECE_BYTES));
	nasty->held_at = 0;
	nasty->below_ended = !n;
	for (ssize_t i = 0; i < n; i++)
		if (nasty->held[i] != NASTY_FILLER)
			nasty->held[nasty->held_bytes++] = nasty->held[i];
	nasty_translate(nasty->held, nasty->held_bytes, nasty->key);
	return n;
}

/* What it owes before it goes on reading; whoever else writes lets it go first. */
static int write_filler(struct nasty_stream *nasty)
{
	int err = nasty->read_needs ? write_byte(nasty, NASTY_FILLER) : 0;
	if (!err)
		nasty->read_needs = 0;
	return err;
}

static ssize_t nasty_read(struct stream *stream, void *to, size_t n)
{
	struct nasty_stream *nasty = self(stream);
	assert(nasty->opened && n);
	if (fails(nasty))
		return ENDS_BY;
	/* Nothing may come between a piece that was begun and its end. */
	bool may_write = !nasty->piece_bytes && !nasty->ends;
	if (may_write && nasty->choose && !nasty->held_bytes && !choose(nasty, 8))
		nasty->read_needs = STREAM_WRITE;
	int err = may_write ? write_filler(nasty) : nasty->read_needs ? UV_EAGAIN : 0;
	if (err)
		return err;
	ssize_t got;
	do
		got = hold(nasty);
	while (got > 0 && !nasty->held_bytes);
	if (got <= 0)
		return got;
	size_t most = nasty->choose && choose(nasty, 2) ? 1 : nasty->held_bytes;
	n = n < most ? n : most;
	memcpy(to, nasty->held + nasty->held_at, n);
	nasty->held_at += (unsigned)n;
	nasty->held_bytes -= (unsigned)n;
	return (ssize_t)n;
}

/* Of the fillers that the peer begins with nobody is told. */
static size_t nasty_unread(struct stream *stream)
{
	struct nasty_stream *nasty = self(stream);
	struct stream *below = nasty->layer.below;
	size_t hello = NASTY_HELLO_BYTES - nasty->hello_read, unread = below->ops->unread(below);
	return nasty->held_bytes + (unread > hello ? unread - hello : 0);
}

/* ---- writing ---- */

/* The beginning of what is to be written becomes a piece, or is the one that was begun. */
static void take_piece(struct nasty_stream *nasty, const void *from, size_t n)
{
	if (nasty->piece_bytes) {
		bool come_again = n >= nasty->piece_bytes && !memcmp(from, nasty->piece, nasty->piece_bytes);
		assert(come_again || is_lost(nasty));
		return;
	}
	size_t most = 1 + choose(nasty, NASTY_PIECE_BYTES);
	nasty->piece_bytes = (unsigned)(n < most ? n : most);
	memcpy(nasty->piece, from, nasty->piece_bytes);
	nasty->piece_written = 0;
}

/* Before it writes it wants to read: something, or the end. */
static int read_first(struct nasty_stream *nasty)
{
	if (!nasty->write_needs && nasty->choose && !nasty->held_bytes && !nasty->below_ended &&
	    !choose(nasty, 16))
		nasty->write_needs = STREAM_READ;
	if (!nasty->write_needs)
		return 0;
	ssize_t n = hold(nasty);
	if (n < 0)
		return (int)n;
	nasty->write_needs = 0;
	return 0;
}

static ssize_t nasty_write(struct stream *stream, const void *from, size_t n)
{
	struct nasty_stream *nasty = self(stream);
	uint8_t piece[NASTY_PIECE_BYTES];
	assert(nasty->opened && !nasty->end_written);
	if (fails(nasty))
		return ENDS_BY;
	int err = nasty->piece_bytes ? 0 : write_filler(nasty);
	err = err ? err : read_first(nasty);
	if (err)
		return err;
	take_piece(nasty, from, n);
	size_t left = nasty->piece_bytes - nasty->piece_written;
	memcpy(piece, nasty->piece + nasty->piece_written, left);
	nasty_translate(piece, left, nasty->key);
	ssize_t put = write_below(nasty, piece, left);
	if (put < 0)
		return put;
	nasty->piece_written += (unsigned)put;
	if (nasty->piece_written < nasty->piece_bytes)
		return UV_EAGAIN;
	put = nasty->piece_bytes;
	nasty->piece_bytes = 0;
	return put;
}

/* ---- the end ---- */

static int nasty_shutdown(struct stream *stream)
{
	struct nasty_stream *nasty = self(stream);
	struct stream *below = nasty->layer.below;
	assert(nasty->opened && !nasty->piece_bytes);
	if (fails(nasty))
		return ENDS_BY;
	int err = nasty->ends ? 0 : write_filler(nasty);
	if (err)
		return err;
	nasty->ends = true;
	err = nasty->end_written ? 0 : write_byte(nasty, NASTY_END);
	if (err)
		return err;
	nasty->end_written = true;
	return below->ops->shutdown(below);
}

static void nasty_close(struct stream *stream, bool reset)
{
	struct stream *below = self(stream)->layer.below;
	below->ops->close(below, reset);
}

static enum close_reason nasty_reason_of(int err)
{
	return err == ENDS_BY || err == UV_ETIMEDOUT ? REASON_TLS : REASON_NONE;
}

const struct stream_ops NASTY_STREAM = {
	.name = "nasty",
	.bytes = sizeof(struct nasty_stream),
	.is_layer = true,
	.open = nasty_open,
	.needs = nasty_needs,
	.has_input = nasty_has_input,
	.read = nasty_read,
	.write = nasty_write,
	.unread = nasty_unread,
	.shutdown = nasty_shutdown,
	.close = nasty_close,
	.reason_of = nasty_reason_of,
};

bool nasty_is_stuck(const struct nasty_stream *nasty)
{
	return nasty->read_needs || nasty->write_needs;
}
