#include "support/nasty.h"

#include "base/err.h"

#include "conn/conn.h"

#include <assert.h>
#include <string.h>
#include <uv.h>

enum { ENDS_BY = UV_EPROTO };

static struct nasty_stream *self(const struct stream *stream)
{
	return (struct nasty_stream *)(void *)stream;
}

static const struct conn *conn_of(const struct nasty_stream *nasty)
{
	const char *io = (const char *)nasty->layer.stream.user;
	return (const struct conn *)(const void *)(io - offsetof(struct conn, io));
}

static uint32_t random_below(uint64_t *seed, uint32_t bound)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 7;
	*seed ^= *seed << 17;
	return (uint32_t)(*seed >> 16) % bound;
}

static uint32_t choose(struct nasty_stream *nasty, uint32_t bound)
{
	if (nasty->choose)
		return nasty->choose(bound);
	return nasty->seed ? random_below(&nasty->seed, bound) : bound - 1;
}

/* Never, where it is the mildest of all. */
static bool chance(struct nasty_stream *nasty, uint32_t in)
{
	return (nasty->choose || nasty->seed) && !choose(nasty, in);
}

/* Then what it was to write is forgotten. */
static bool is_lost(const struct nasty_stream *nasty)
{
	return conn_of(nasty)->lost;
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

uint64_t nasty_seed;

/* By whom it serves, and where it stands: the upper one of two has another key. */
static void choose_by_itself(struct nasty_stream *nasty)
{
	static const uint64_t SPREAD = 0x9e3779b97f4a7c15;
	bool is_upper = stream_below(nasty->layer.below);
	nasty->key = is_upper ? NASTY_UPPER_KEY : NASTY_KEY;
	nasty->seed = (nasty_seed + 2 * conn_of(nasty)->first.id + is_upper) * SPREAD | 1;
}

static int nasty_open(struct stream *stream)
{
	struct nasty_stream *nasty = self(stream);
	uint8_t byte;
	if (nasty->opened)
		return 0;
	if (!nasty->key)
		choose_by_itself(nasty);
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
	if (n >= 0) {
		nasty->asked = false;
		nasty->write_needs = 0;
	}
	for (ssize_t i = 0; i < n; i++)
		if (nasty->held[i] != NASTY_FILLER)
			nasty->held[nasty->held_bytes++] = nasty->held[i];
	nasty_translate(nasty->held, nasty->held_bytes, nasty->key);
	return n;
}

/* What goes before whatever else is written: a filler, before it goes on reading, or what asks the peer for one. */
static int write_owed(struct nasty_stream *nasty)
{
	if (!nasty->read_needs && !nasty->asks)
		return 0;
	int err = write_byte(nasty, nasty->asks ? NASTY_ASK : NASTY_FILLER);
	if (err)
		return err;
	nasty->asked = nasty->asked || nasty->asks;
	nasty->asks = false;
	nasty->read_needs = 0;
	return 0;
}

static ssize_t nasty_read(struct stream *stream, void *to, size_t n)
{
	struct nasty_stream *nasty = self(stream);
	assert(nasty->opened && n);
	if (fails(nasty))
		return ENDS_BY;
	/* Nothing may come between a piece that was begun and its end. */
	bool may_write = !nasty->piece_bytes && !nasty->ends && !nasty->asks;
	if (may_write && !nasty->held_bytes && chance(nasty, 8))
		nasty->read_needs = STREAM_WRITE;
	int err = may_write ? write_owed(nasty) : nasty->read_needs ? UV_EAGAIN : 0;
	if (err)
		return err;
	ssize_t got;
	do
		got = hold(nasty);
	while (got > 0 && !nasty->held_bytes);
	if (got <= 0)
		return got;
	size_t most = chance(nasty, 2) ? 1 : nasty->held_bytes;
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

/* Now and then the peer is asked to send something, though not while a piece is under way. */
static int ask(struct nasty_stream *nasty)
{
	if (nasty->piece_bytes)
		return 0;
	if (!nasty->asked && !nasty->held_bytes && !nasty->below_ended && chance(nasty, 16))
		nasty->asks = true;
	return write_owed(nasty);
}

/* Reads what the peer was asked for: something, or the end. */
static int hear(struct nasty_stream *nasty)
{
	if (!nasty->asked)
		return 0;
	nasty->write_needs = STREAM_READ;
	ssize_t n = hold(nasty);
	if (n < 0)
		return (int)n;
	nasty->asked = false;
	nasty->write_needs = 0;
	return 0;
}

/* It may want to do that before it writes on, and does before its last word: who answers still finds it there. */
static int read_first(struct nasty_stream *nasty)
{
	int err = ask(nasty);
	if (!err && (nasty->write_needs || chance(nasty, 2)))
		err = hear(nasty);
	return err;
}

static ssize_t nasty_write(struct stream *stream, const void *from, size_t n)
{
	struct nasty_stream *nasty = self(stream);
	uint8_t piece[NASTY_PIECE_BYTES];
	assert(nasty->opened && !nasty->end_written);
	if (fails(nasty))
		return ENDS_BY;
	int err = nasty->piece_bytes ? 0 : write_owed(nasty);
	err = err ? err : read_first(nasty);
	if (err)
		return err;
	take_piece(nasty, from, n);
	memcpy(piece, nasty->piece, nasty->piece_bytes);
	nasty_translate(piece, nasty->piece_bytes, nasty->key);
	while (nasty->piece_written < nasty->piece_bytes) {
		unsigned at = nasty->piece_written;
		ssize_t put = write_below(nasty, piece + at, nasty->piece_bytes - at);
		if (put <= 0)
			return put ? put : UV_EAGAIN;
		nasty->piece_written += (unsigned)put;
	}
	ssize_t done = nasty->piece_bytes;
	nasty->piece_bytes = 0;
	return done;
}

/* ---- the end ---- */

static int nasty_shutdown(struct stream *stream)
{
	struct nasty_stream *nasty = self(stream);
	struct stream *below = nasty->layer.below;
	assert(nasty->opened && !nasty->piece_bytes);
	if (fails(nasty))
		return ENDS_BY;
	int err = nasty->ends ? 0 : write_owed(nasty);
	err = err ? err : hear(nasty);
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
	return err == ENDS_BY || err == ERR_OPENING_LATE ? REASON_TLS : REASON_NONE;
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
