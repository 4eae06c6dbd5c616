/*
 * The frame codecs: what each accepts and refuses, and that no way of cutting
 * a stream into reads changes what comes out of it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/err.h"
#include "frame/codec.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX = 9, LOG_BYTES = 4096, SAMPLES_MAX = 64 };

/* ---- a stream of reads into one codec, as a connection would feed it ---- */

struct stream {
	const struct codec *codec;
	unsigned limit;
	uint8_t *left; /* bytes not consumed yet */
	size_t left_bytes;
	struct session session;
	size_t consumed, need;
	int error;
	uint64_t announced;
	unsigned count;
	uint8_t *log; /* each frame: its length as u32, its bytes; raw: the bytes alone */
	size_t log_bytes;
};

static void stream_init(struct stream *s, const struct codec *codec, unsigned limit)
{
	*s = (struct stream){ .codec = codec, .limit = limit };
	s->log = malloc(LOG_BYTES);
	assert_non_null(s->log);
}

static void stream_deinit(struct stream *s)
{
	free(s->left);
	free(s->log);
}

static void log_frame(struct stream *s, const struct frame *frame)
{
	uint32_t len = frame->len + s->codec->offset;

	assert_true(s->log_bytes + 4 + len <= LOG_BYTES);
	if (s->codec->kind != CODEC_RAW) {
		memcpy(s->log + s->log_bytes, &len, 4);
		s->log_bytes += 4;
	}
	assert_true(codec_flatten(s->codec, frame, s->log + s->log_bytes) == len);
	s->log_bytes += len;
	s->count++;
}

/* Takes the batch, after checking what holds for every batch. */
static void take(struct stream *s, const struct batch *batch)
{
	size_t end = 0;

	assert_true(batch->count <= s->limit);
	assert_true(batch->consumed <= s->left_bytes);
	assert_true(batch->need == 0 || batch->need > s->left_bytes - batch->consumed);
	assert_true(batch->error == 0 || batch->need == 0);
	for (unsigned i = 0; i < batch->count; i++) {
		const struct frame *frame = &batch->frames[i];
		assert_true(frame->data >= s->left && frame->data + frame->len <= s->left + frame->end);
		assert_true(frame->end > end &&
			    frame->len + s->codec->offset <= s->codec->protocol.max_bytes);
		end = frame->end;
		log_frame(s, frame);
	}
	assert_true(batch->consumed >= end);
	s->consumed += batch->consumed;
	s->need = batch->need;
	s->error = batch->error;
	s->announced = batch->announced;
	s->left_bytes -= batch->consumed;
	memmove(s->left, s->left + batch->consumed, s->left_bytes);
}

static void feed(struct stream *s, const void *bytes, size_t n)
{
	struct batch batch;

	if (s->error)
		return;
	s->left = realloc(s->left, s->left_bytes + n + 1);
	memcpy(s->left + s->left_bytes, bytes, n);
	s->left_bytes += n;
	do {
		/* Exactly as long as the input, so that the sanitizer sees a byte read too many. */
		s->left = realloc(s->left, s->left_bytes ? s->left_bytes : 1);
		memset(&batch, 0xa5, sizeof batch);
		codec_decode(s->codec, s->left, s->left_bytes, s->limit, &s->session, &batch);
		take(s, &batch);
	} while (!batch.error && batch.count == s->limit);
}

static void assert_same(const struct stream *got, const struct stream *want)
{
	assert_int_equal(got->error, want->error);
	assert_true(got->announced == want->announced);
	assert_int_equal(got->log_bytes, want->log_bytes);
	assert_memory_equal(got->log, want->log, want->log_bytes);
	assert_int_equal(got->consumed, want->consumed);
	assert_int_equal(got->need, want->need);
}

/* ---- codecs and the streams that all of them are tried with ---- */

static struct codec named(const char *name, uint32_t max)
{
	struct codec codec;
	assert_int_equal(codec_init_named(&codec, name, max), 0);
	return codec;
}

static struct codec custom(struct codec codec)
{
	assert_null(codec_init(&codec));
	return codec;
}

static struct codec delimited(const char *bytes, size_t n, uint32_t max)
{
	struct codec codec = { .kind = CODEC_DELIMITER,
			       .protocol.max_bytes = max,
			       .empty = CODEC_EMPTY_DELIVER,
			       .delimiter_bytes = (uint8_t)n };
	memcpy(codec.delimiter, bytes, n);
	return custom(codec);
}

static struct codec length(unsigned bytes, bool little, uint32_t offset, int64_t adjust, uint32_t max,
			   enum codec_empty empty)
{
	return custom((struct codec){ .kind = CODEC_LENGTH,
				      .protocol.max_bytes = max,
				      .empty = empty,
				      .length_bytes = (uint8_t)bytes,
				      .little_endian = little,
				      .offset = offset,
				      .adjust = adjust });
}

/* Every codec and option, with limits small enough to try all splits. */
static unsigned all_codecs(struct codec *list, uint32_t max)
{
	static const char *const names[] = { "u8",    "u16be",  "u16le", "u24be", "u32be",     "u32le",
					     "u64be", "varint", "line",  "raw",   "netstring", "datagram" };
	static const unsigned widths[] = { 0, 1, 2, 3, 4, 8 };
	unsigned n = 0;

	for (size_t i = 0; i < sizeof names / sizeof *names; i++)
		list[n++] = named(names[i], max);
	for (size_t i = 0; i < sizeof widths / sizeof *widths; i++)
		for (unsigned little = 0; little < 2; little++) {
			list[n++] = length(widths[i], little, 0, 0, max, CODEC_EMPTY_DELIVER);
			/* The field counts the whole message. */
			list[n++] =
			    length(widths[i], little, 2, -(int64_t)(2 + widths[i]), max, CODEC_EMPTY_ERROR);
		}
	list[n++] = length(4, false, 0, -4, max, CODEC_EMPTY_DELIVER);
	list[n++] = length(0, false, 0, -1, max, CODEC_EMPTY_DELIVER);
	list[n++] = length(0, false, 1, 0, max, CODEC_EMPTY_ERROR); /* MQTT's */
	list[n++] = length(0, false, 3, -2, max, CODEC_EMPTY_IGNORE);
	list[n++] = length(2, false, 0, 0, max, CODEC_EMPTY_IGNORE);
	list[n++] = length(3, true, 3, -3, max, CODEC_EMPTY_IGNORE);
	list[n++] = delimited("\0", 1, max);
	list[n++] = delimited("\r\n", 2, max);
	list[n++] = delimited("aab", 3, max);
	list[n] = named("line", max);
	list[n++].empty = CODEC_EMPTY_IGNORE;
	list[n] = named("netstring", max);
	list[n++].empty = CODEC_EMPTY_IGNORE;
	list[n] = named("datagram", max);
	list[n++].empty = CODEC_EMPTY_IGNORE;
	list[n] = named("datagram", max);
	list[n++].empty = CODEC_EMPTY_ERROR;
	list[n++] =
	    custom((struct codec){ .kind = CODEC_FIXED, .protocol.max_bytes = max, .fixed_bytes = 5 });
	assert_true(n <= SAMPLES_MAX);
	return n;
}

/* A payload that the codec can carry, as hard on it as can be. */
static void fill(const struct codec *codec, uint8_t *to, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (codec->kind == CODEC_DELIMITER)
			to[i] = codec->delimiter_bytes == 1 ? 'x' : codec->delimiter[0];
		else if (codec->kind == CODEC_LINE)
			to[i] = i + 1 < n ? '\r' : 'x';
		else
			to[i] = (uint8_t)(n * 31 + i * 37);
}

/* Frames of many sizes in a row; the decoded ones are logged in `want`. Returns the stream's bytes in *out. */
static void sample(const struct codec *codec, struct buf_pool *pool, struct buf **out, struct stream *want)
{
	const uint32_t max = codec->protocol.max_bytes;
	const uint32_t sizes[] = { 1, 0, max - 1, 0, max, 2, 0 };
	uint8_t data[512];

	for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
		uint32_t n = codec->kind == CODEC_FIXED ? codec->fixed_bytes : sizes[i];
		n = n < codec->offset ? codec->offset : n;
		if (n == 0 && codec->empty == CODEC_EMPTY_ERROR)
			continue;
		fill(codec, data, n);
		assert_int_equal(codec_encode(codec, data, n, pool, out), 0);
		if (n == 0 && codec->empty == CODEC_EMPTY_IGNORE)
			continue;
		struct frame frame = { data, n, 0 };
		struct codec whole = *codec;
		whole.offset = 0;
		want->codec = &whole;
		log_frame(want, &frame);
		want->codec = codec;
	}
}

/* Tries every way of cutting the n bytes that is worth it, against no cut at all. */
static void check_splits(const struct codec *codec, const uint8_t *bytes, size_t n)
{
	struct stream whole, cut;

	stream_init(&whole, codec, BATCH_MAX);
	feed(&whole, bytes, n);
	for (size_t a = 0; a <= n; a++)
		for (size_t b = n <= 64 ? a : n; b <= n; b++) {
			stream_init(&cut, codec, 1 + (unsigned)(a % 3));
			feed(&cut, bytes, a);
			feed(&cut, bytes + a, b - a);
			feed(&cut, bytes + b, n - b);
			assert_same(&cut, &whole);
			stream_deinit(&cut);
		}
	stream_init(&cut, codec, BATCH_MAX);
	for (size_t i = 0; i < n; i++)
		feed(&cut, bytes + i, 1);
	assert_same(&cut, &whole);
	stream_deinit(&cut);
	stream_deinit(&whole);
}

static struct buf_pool pool;

static int setup(void **state)
{
	(void)state;
	buf_pool_init(&pool, 0, 2);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	assert_int_equal(pool.lent_bytes, 0);
	buf_pool_deinit(&pool);
	return 0;
}

static void gives_back_what_was_encoded(void **state)
{
	static const uint32_t maxima[] = { MAX, 300 };
	struct codec list[SAMPLES_MAX];

	(void)state;
	for (size_t m = 0; m < 2; m++)
		for (unsigned i = 0, n = all_codecs(list, maxima[m]); i < n; i++) {
			struct stream want, got;
			struct buf *b = NULL;

			if (list[i].length_bytes == 1 && m == 1)
				continue;
			stream_init(&want, &list[i], BATCH_MAX);
			stream_init(&got, &list[i], BATCH_MAX);
			sample(&list[i], &pool, &b, &want);
			feed(&got, b->data + b->start, buf_len(b));
			assert_int_equal(got.error, 0);
			assert_int_equal(got.left_bytes, 0);
			assert_int_equal(got.log_bytes, want.log_bytes);
			assert_memory_equal(got.log, want.log, want.log_bytes);
			stream_deinit(&want);
			stream_deinit(&got);
			buf_release(&pool, &b);
		}
}

static void parses_any_split_the_same(void **state)
{
	static const uint8_t junk[12] = { 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255 };
	struct codec list[SAMPLES_MAX];

	(void)state;
	for (unsigned i = 0, n = all_codecs(list, MAX); i < n; i++) {
		struct stream want;
		struct buf *b = NULL;

		stream_init(&want, &list[i], BATCH_MAX);
		sample(&list[i], &pool, &b, &want);
		check_splits(&list[i], b->data, buf_len(b));
		assert_int_equal(buf_append(&pool, &b, junk, sizeof junk), 0);
		check_splits(&list[i], b->data, buf_len(b));
		stream_deinit(&want);
		buf_release(&pool, &b);
	}
}

static void parses_any_split_of_text_the_same(void **state)
{
	static const char *const texts[] = { "",
					     "\n",
					     "\r\n",
					     "\r\r\n\n\r",
					     "123456789\r\n123456789\n12345678\r\n",
					     "1234567890\n",
					     "123456789\rx\n",
					     "123456789\r\r\n",
					     "123456789\r",
					     "12345678\r\r\n",
					     "aaab",
					     "aaaaabaabaaab",
					     "aabaab",
					     "aaaaaaaaaaaab",
					     "aaaaaaaaaaab",
					     "xxxxxxxxxaab",
					     "xxxxxxxxxxaab",
					     "xxxxxxxxxaaab",
					     "xxxxxxxxxaa",
					     "xxxxxxxxxaaa",
					     "0:,3:abc,9:123456789,1:x,",
					     "3:abc;",
					     "03:abc,",
					     "00:,",
					     ":,",
					     "10:1234567890,",
					     "99999999999:",
					     "1x:" };
	struct codec list[] = { named("line", MAX),     delimited("aab", 3, MAX), delimited("\r\n", 2, MAX),
				delimited("a", 1, MAX), delimited("aaaaa", 5, 2), named("netstring", MAX),
				named("line", 1) };

	(void)state;
	for (size_t c = 0; c < sizeof list / sizeof *list; c++)
		for (int empty = CODEC_EMPTY_ERROR; empty <= CODEC_EMPTY_IGNORE; empty++)
			for (size_t t = 0; t < sizeof texts / sizeof *texts; t++) {
				list[c].empty = (enum codec_empty)empty;
				check_splits(&list[c], (const uint8_t *)texts[t], strlen(texts[t]));
			}
}

static void waits_for_the_whole_frame(void **state)
{
	struct codec list[SAMPLES_MAX];

	(void)state;
	for (unsigned i = 0, n = all_codecs(list, MAX); i < n; i++) {
		const struct codec *codec = &list[i];
		struct buf *b = NULL;
		uint8_t data[MAX];
		size_t len = codec->kind == CODEC_FIXED ? codec->fixed_bytes : MAX;

		if (codec->kind == CODEC_RAW)
			continue;
		fill(codec, data, len);
		assert_int_equal(codec_encode(codec, data, len, &pool, &b), 0);
		for (size_t cut = 0; cut <= buf_len(b); cut++) {
			struct stream s;
			stream_init(&s, codec, BATCH_MAX);
			feed(&s, b->data, cut);
			assert_int_equal(s.error, 0);
			assert_int_equal(s.count, cut == buf_len(b));
			assert_int_equal(s.consumed, s.count ? cut : 0);
			assert_true(s.need == 0 || s.need == buf_len(b));
			stream_deinit(&s);
		}
		buf_release(&pool, &b);
	}
}

/* ---- one decode, for the tables below ---- */

static struct batch batch;

static int decode(const struct codec *codec, const void *bytes, size_t n)
{
	struct session session = { 0 };
	uint8_t *exact = malloc(n ? n : 1);

	memcpy(exact, bytes, n);
	codec_decode(codec, exact, n, BATCH_MAX, &session, &batch);
	for (unsigned i = 0; i < batch.count; i++)
		batch.frames[i].data = (const uint8_t *)bytes + (batch.frames[i].data - exact);
	free(exact);
	return batch.error;
}

static int decode_text(const struct codec *codec, const char *text)
{
	return decode(codec, text, strlen(text));
}

static void assert_frame(unsigned i, const char *text)
{
	assert_true(i < batch.count);
	assert_int_equal(batch.frames[i].len, strlen(text));
	assert_memory_equal(batch.frames[i].data, text, strlen(text));
}

static void put(uint8_t *p, uint64_t value, unsigned width, bool little)
{
	for (unsigned i = 0; i < width; i++)
		p[little ? i : width - 1 - i] = (uint8_t)(value >> 8 * i);
}

static size_t put_varint(uint8_t *p, uint64_t value)
{
	size_t n = 0;
	for (; value >= 0x80; value >>= 7)
		p[n++] = (uint8_t)(value | 0x80);
	p[n++] = (uint8_t)value;
	return n;
}

static void judges_every_length(void **state)
{
	static const struct {
		uint64_t value;
		int64_t adjust;
		int error;
		uint64_t announced; /* without an error: what is needed after the field */
	} table[] = {
		{ 0, 0, ERR_FRAME_EMPTY, 0 },
		{ 99, 0, 0, 99 },
		{ 100, 0, 0, 100 },
		{ 101, 0, ERR_FRAME_TOO_LARGE, 101 },
		{ 3, -4, ERR_FRAME_MALFORMED, 3 },
		{ 0, -4, ERR_FRAME_MALFORMED, 0 },
		{ 4, -4, ERR_FRAME_EMPTY, 0 },
		{ 5, -4, 0, 1 },
		{ 104, -4, 0, 100 },
		{ 105, -4, ERR_FRAME_TOO_LARGE, 101 },
		{ 0, 4, 0, 4 },
		{ 96, 4, 0, 100 },
		{ 97, 4, ERR_FRAME_TOO_LARGE, 101 },
		{ 255, 0, ERR_FRAME_TOO_LARGE, 255 },
		{ 65535, 0, ERR_FRAME_TOO_LARGE, 65535 },
		{ 0xffffff, 0, ERR_FRAME_TOO_LARGE, 0xffffff },
		{ UINT64_C(1) << 31, 0, ERR_FRAME_TOO_LARGE, UINT64_C(1) << 31 },
		{ (UINT64_C(1) << 31) - 1, 0, ERR_FRAME_TOO_LARGE, (UINT64_C(1) << 31) - 1 },
		{ UINT32_MAX, 0, ERR_FRAME_TOO_LARGE, UINT32_MAX },
		{ UINT32_MAX, 4, ERR_FRAME_TOO_LARGE, UINT64_C(0x100000003) },
		{ UINT32_MAX, -4, ERR_FRAME_TOO_LARGE, UINT32_MAX - 4 },
		{ UINT64_C(1) << 32, 0, ERR_FRAME_TOO_LARGE, UINT64_C(1) << 32 },
		{ UINT64_C(0x100000001), 0, ERR_FRAME_TOO_LARGE, UINT64_C(0x100000001) },
		{ UINT64_C(1) << 63, 0, ERR_FRAME_TOO_LARGE, UINT64_C(1) << 63 },
		{ UINT64_MAX, 0, ERR_FRAME_TOO_LARGE, UINT64_MAX },
		{ UINT64_MAX, 4, ERR_FRAME_TOO_LARGE, UINT64_MAX },
		{ UINT64_MAX - 2, 4, ERR_FRAME_TOO_LARGE, UINT64_MAX },
		{ UINT64_MAX, -4, ERR_FRAME_TOO_LARGE, UINT64_MAX - 4 },
	};
	static const unsigned widths[] = { 0, 1, 2, 3, 4, 8 };

	(void)state;
	for (size_t w = 0; w < sizeof widths / sizeof *widths; w++)
		for (unsigned little = 0; little < 2; little++)
			for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
				struct codec codec =
				    length(widths[w], little, 0, table[i].adjust, 100, CODEC_EMPTY_ERROR);
				uint8_t bytes[16] = { 0 };
				size_t n = widths[w];

				if (n == 0)
					n = put_varint(bytes, table[i].value);
				else if (n < 8 && table[i].value >> 8 * n)
					continue;
				else
					put(bytes, table[i].value, (unsigned)n, little);
				assert_int_equal(decode(&codec, bytes, n), table[i].error);
				assert_int_equal(batch.count, 0);
				assert_int_equal(batch.consumed, 0);
				assert_true(batch.announced == (table[i].error ? table[i].announced : 0));
				assert_int_equal(batch.need, table[i].error ? 0 : n + table[i].announced);
			}
}

static void counts_the_offset_into_the_limit(void **state)
{
	struct codec codec = length(2, false, 3, 0, 10, CODEC_EMPTY_ERROR);
	uint8_t flat[10];

	(void)state;
	assert_int_equal(decode(&codec, "abc\0\7", 5), 0);
	assert_int_equal(batch.need, 12);
	assert_int_equal(decode(&codec, "abc\0\10", 5), ERR_FRAME_TOO_LARGE);
	assert_int_equal(batch.announced, 11);
	assert_int_equal(decode(&codec, "abc\0\2de!", 8), 0);
	assert_frame(0, "de");
	assert_int_equal(codec_flatten(&codec, &batch.frames[0], flat), 5);
	assert_memory_equal(flat, "abcde", 5);
	/* A frame of its first bytes alone is not empty. */
	assert_int_equal(decode(&codec, "abc\0\0", 5), 0);
	assert_int_equal(batch.count, 1);
	assert_int_equal(codec_flatten(&codec, &batch.frames[0], flat), 3);
}

/* The bytes before the field may look as its own do: where it begins is not for them to say. */
static void finds_the_bytes_before_a_varint(void **state)
{
	static const uint32_t lengths[] = { 0, 1, 127, 128, 16383, 16384, 2097151, 2097152 };
	enum { LARGEST = 2097152 };
	static uint8_t data[LARGEST + 2], flat[LARGEST + 2];
	struct codec codec = length(0, false, 2, 0, CODEC_FRAME_LIMIT, CODEC_EMPTY_ERROR);
	struct buf *b = NULL;

	(void)state;
	for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
		size_t n = lengths[i] + 2;
		memset(data, 0xff, n);
		assert_int_equal(codec_encode(&codec, data, n, &pool, &b), 0);
		assert_memory_equal(b->data, "\377\377", 2);
		uint8_t field[10];
		size_t width = put_varint(field, lengths[i]);
		assert_memory_equal(b->data + 2, field, width);
		assert_int_equal(buf_len(b), n + width);
		assert_int_equal(decode(&codec, b->data, buf_len(b)), 0);
		assert_int_equal(batch.count, 1);
		assert_int_equal(codec_flatten(&codec, &batch.frames[0], flat), n);
		assert_memory_equal(flat, data, n);
		buf_release(&pool, &b);
	}
}

static void reads_a_varint_behind_other_bytes(void **state)
{
	struct codec codec = length(0, false, 1, 0, 200, CODEC_EMPTY_ERROR);

	(void)state;
	assert_int_equal(decode(&codec, "\300\0\300\2ab", 6), 0);
	assert_int_equal(batch.count, 2);
	assert_frame(0, "");
	assert_frame(1, "ab");
	assert_int_equal(decode(&codec, "\60\200", 2), 0);
	assert_int_equal(batch.need, 0);
	assert_int_equal(decode(&codec, "\60\307\1", 3), 0);
	assert_int_equal(batch.need, 3 + 199);
	assert_int_equal(decode(&codec, "\60\310\1", 3), ERR_FRAME_TOO_LARGE);
	assert_int_equal(batch.announced, 201);
	assert_int_equal(decode(&codec, "\60\200\0", 3), ERR_FRAME_MALFORMED);
	codec.adjust = -3;
	assert_int_equal(decode(&codec, "\60\5ab", 4), 0);
	assert_frame(0, "ab");
	assert_int_equal(decode(&codec, "\60\2ab", 4), ERR_FRAME_MALFORMED);
}

static void handles_a_length_of_the_whole_message(void **state)
{
	struct codec codec = length(4, false, 0, -4, 100, CODEC_EMPTY_ERROR);
	struct buf *b = NULL;

	(void)state;
	assert_int_equal(decode(&codec, "\0\0\0\6hi\0\0\0\5!", 11), 0);
	assert_int_equal(batch.count, 2);
	assert_frame(0, "hi");
	assert_frame(1, "!");
	assert_int_equal(codec_encode(&codec, (const uint8_t *)"hi", 2, &pool, &b), 0);
	assert_int_equal(buf_len(b), 6);
	assert_memory_equal(b->data, "\0\0\0\6hi", 6);
	buf_release(&pool, &b);
}

static void treats_empty_frames_as_told(void **state)
{
	struct codec codec = named("u16be", 100);

	(void)state;
	assert_int_equal(decode(&codec, "\0\1x\0\0\0\1y", 8), ERR_FRAME_EMPTY);
	assert_int_equal(batch.count, 1);
	assert_frame(0, "x");
	assert_int_equal(batch.consumed, 3);

	codec.empty = CODEC_EMPTY_DELIVER;
	assert_int_equal(decode(&codec, "\0\1x\0\0\0\1y", 8), 0);
	assert_int_equal(batch.count, 3);
	assert_frame(1, "");
	assert_int_equal(batch.frames[1].end, 5);

	codec.empty = CODEC_EMPTY_IGNORE;
	assert_int_equal(decode(&codec, "\0\1x\0\0\0\1y\0\0\0\0", 12), 0);
	assert_int_equal(batch.count, 2);
	assert_frame(1, "y");
	assert_int_equal(batch.frames[1].end, 8);
	assert_int_equal(batch.consumed, 12);
	assert_int_equal(batch.announced, 0);

	codec = named("line", 100);
	codec.empty = CODEC_EMPTY_ERROR;
	assert_int_equal(decode_text(&codec, "a\n\r\nb\n"), ERR_FRAME_EMPTY);
	assert_int_equal(batch.count, 1);
	assert_int_equal(batch.consumed, 2);
	codec.empty = CODEC_EMPTY_IGNORE;
	assert_int_equal(decode_text(&codec, "a\n\r\nb\n\n"), 0);
	assert_int_equal(batch.count, 2);
	assert_int_equal(batch.consumed, 7);
}

static void says_what_was_wrong(void **state)
{
	struct codec codec = named("u32be", 1048576);
	char text[64];

	(void)state;
	decode(&codec, "\0\0\0\0", 4);
	assert_string_equal(codec_error_text(&codec, &batch, text, sizeof text), "empty frame");
	decode(&codec, "\0\20\0\1", 4);
	assert_string_equal(codec_error_text(&codec, &batch, text, sizeof text),
			    "frame too large: 1048577 > 1048576");
	assert_string_equal(codec_error_text(&codec, &batch, text, 8), "frame t");
	decode(&codec, "\0\20\0\0", 4);
	assert_int_equal(batch.error, 0);
	assert_int_equal(batch.need, 1048580);

	codec = named("netstring", 1048576);
	decode_text(&codec, "1048577:");
	assert_string_equal(codec_error_text(&codec, &batch, text, sizeof text),
			    "frame too large: 1048577 > 1048576");
	decode_text(&codec, "GET / HTTP/1.1\r\n");
	assert_string_equal(codec_error_text(&codec, &batch, text, sizeof text), "malformed netstring");

	codec = length(4, false, 0, -4, 100, CODEC_EMPTY_ERROR);
	decode(&codec, "\0\0\0\3", 4);
	assert_string_equal(codec_error_text(&codec, &batch, text, sizeof text), "malformed length: 3");

	codec = named("varint", 100);
	decode(&codec, "\200\0", 2);
	assert_string_equal(codec_error_text(&codec, &batch, text, sizeof text), "malformed varint");

	codec = named("line", 4);
	decode_text(&codec, "123456789\n");
	assert_string_equal(codec_error_text(&codec, &batch, text, sizeof text), "frame too large: 5 > 4");
}

static void refuses_overlong_varints(void **state)
{
	static const struct {
		const char *bytes;
		size_t n;
		int error;
	} table[] = {
		{ "\200", 1, 0 },
		{ "\200\0", 2, ERR_FRAME_MALFORMED },
		{ "\201\200\0", 3, ERR_FRAME_MALFORMED },
		{ "\377\377\377\377\377\377\377\377\377", 9, 0 },
		{ "\377\377\377\377\377\377\377\377\377\1", 10, ERR_FRAME_TOO_LARGE },
		{ "\377\377\377\377\377\377\377\377\377\2", 10, ERR_FRAME_MALFORMED },
		{ "\377\377\377\377\377\377\377\377\377\377", 10, ERR_FRAME_MALFORMED },
		{ "\200\200\200\200\200\200\200\200\200\0", 10, ERR_FRAME_MALFORMED },
	};
	struct codec codec = named("varint", 1000);

	(void)state;
	for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
		assert_int_equal(decode(&codec, table[i].bytes, table[i].n), table[i].error);
		assert_int_equal(batch.count, 0);
	}
	assert_int_equal(decode(&codec, "\254\2", 2), 0);
	assert_int_equal(batch.need, 302);
}

static void stops_at_the_batch_limit(void **state)
{
	struct codec list[SAMPLES_MAX];
	uint8_t data[MAX];

	(void)state;
	for (unsigned i = 0, n = all_codecs(list, MAX); i < n; i++) {
		const struct codec *codec = &list[i];
		size_t len = codec->kind == CODEC_FIXED ? codec->fixed_bytes : MAX, one = 0;
		struct buf *b = NULL;
		struct session session = { 0 };

		fill(codec, data, len);
		for (unsigned k = 0; k < BATCH_MAX + 1; k++) {
			assert_int_equal(codec_encode(codec, data, len, &pool, &b), 0);
			if (k == 0)
				one = buf_len(b);
		}
		codec_decode(codec, b->data + b->start, buf_len(b), 3, &session, &batch);
		assert_int_equal(batch.count, 3);
		assert_int_equal(batch.consumed, 3 * one);
		assert_int_equal(batch.frames[2].end, 3 * one);
		codec_decode(codec, b->data + b->start, buf_len(b), BATCH_MAX, &session, &batch);
		assert_int_equal(batch.count, BATCH_MAX);
		assert_int_equal(batch.consumed, BATCH_MAX * one);
		assert_int_equal(batch.error, 0);
		buf_release(&pool, &b);
	}
}

static void delivers_frames_before_an_error(void **state)
{
	struct codec codec = named("u32be", 100);

	(void)state;
	assert_int_equal(decode(&codec, "\0\0\0\1a\0\0\0\1b\0\0\0\145", 14), ERR_FRAME_TOO_LARGE);
	assert_int_equal(batch.count, 2);
	assert_frame(1, "b");
	assert_int_equal(batch.consumed, 10);
	codec = named("netstring", 100);
	assert_int_equal(decode_text(&codec, "1:a,2:bc;"), ERR_FRAME_MALFORMED);
	assert_int_equal(batch.count, 1);
	assert_int_equal(batch.consumed, 4);
}

static void knows_what_it_needs(void **state)
{
	struct codec codec = named("u32be", 1000);

	(void)state;
	decode(&codec, "\0\0\0\1a\0\0\0", 8);
	assert_int_equal(batch.need, 0);
	decode(&codec, "\0\0\0\1a\0\0\2\1xyz", 12);
	assert_int_equal(batch.consumed, 5);
	assert_int_equal(batch.need, 4 + 513);
	codec = custom((struct codec){ .kind = CODEC_FIXED, .protocol.max_bytes = 1000, .fixed_bytes = 32 });
	decode_text(&codec, "x");
	assert_int_equal(batch.need, 32);
	decode_text(&codec, "");
	assert_int_equal(batch.need, 0);
	codec = named("netstring", 1000);
	decode_text(&codec, "12");
	assert_int_equal(batch.need, 0);
	decode_text(&codec, "12:x");
	assert_int_equal(batch.need, 16);
}

static void ends_lines_at_newlines(void **state)
{
	struct codec codec = named("line", 5);

	(void)state;
	assert_int_equal(decode_text(&codec, "a\nb\r\n\n\r\nc\r\r\n\rd\nrest"), 0);
	assert_int_equal(batch.count, 6);
	assert_frame(0, "a");
	assert_frame(1, "b");
	assert_frame(2, "");
	assert_frame(3, "");
	assert_frame(4, "c\r");
	assert_frame(5, "\rd");
	assert_int_equal(batch.consumed, 15);

	/* Exactly max passes, with and without "\r"; more fails as soon as it is certain. */
	assert_int_equal(decode_text(&codec, "12345\n12345\r\n"), 0);
	assert_int_equal(batch.count, 2);
	assert_int_equal(decode_text(&codec, "12345"), 0);
	assert_int_equal(decode_text(&codec, "12345\r"), 0);
	assert_int_equal(decode_text(&codec, "123456"), ERR_FRAME_TOO_LARGE);
	assert_int_equal(batch.announced, 6);
	assert_int_equal(decode_text(&codec, "12345\r6"), ERR_FRAME_TOO_LARGE);
	assert_int_equal(decode_text(&codec, "12345\r\r\n"), ERR_FRAME_TOO_LARGE);
	assert_int_equal(decode_text(&codec, "123456\n"), ERR_FRAME_TOO_LARGE);
	assert_int_equal(decode_text(&codec, "a\n1234567890"), ERR_FRAME_TOO_LARGE);
	assert_int_equal(batch.count, 1);
}

static void finds_overlapping_delimiters(void **state)
{
	struct codec codec = delimited("aab", 3, 5);

	(void)state;
	assert_int_equal(decode_text(&codec, "aaabaabaaaabaa"), 0);
	assert_int_equal(batch.count, 3);
	assert_frame(0, "a");
	assert_frame(1, "");
	assert_frame(2, "aa");
	assert_int_equal(batch.consumed, 12);

	assert_int_equal(decode_text(&codec, "12345aab"), 0);
	assert_int_equal(batch.count, 1);
	assert_int_equal(decode_text(&codec, "12345aa"), 0);
	assert_int_equal(decode_text(&codec, "12345aaa"), ERR_FRAME_TOO_LARGE);
	assert_int_equal(decode_text(&codec, "12345x"), ERR_FRAME_TOO_LARGE);
	assert_int_equal(decode_text(&codec, "123456aab"), ERR_FRAME_TOO_LARGE);
	assert_int_equal(batch.announced, 6);

	codec = delimited("\0", 1, 5);
	assert_int_equal(decode(&codec, "a\0\0bc\0d", 7), 0);
	assert_int_equal(batch.count, 3);
	assert_frame(2, "bc");
	codec = delimited("\r\n", 2, 5);
	assert_int_equal(decode_text(&codec, "a\r\r\nb\nc\r\n"), 0);
	assert_int_equal(batch.count, 2);
	assert_frame(0, "a\r");
	assert_frame(1, "b\nc");
}

static void remembers_what_it_searched(void **state)
{
	struct codec codec = delimited("aab", 3, 1000);
	struct session session = { 0 };

	(void)state;
	codec_decode(&codec, (const uint8_t *)"xxxxaa", 6, BATCH_MAX, &session, &batch);
	assert_int_equal(session.scanned, 4);
	codec_decode(&codec, (const uint8_t *)"xxxxaab1234", 11, BATCH_MAX, &session, &batch);
	assert_int_equal(batch.count, 1);
	assert_int_equal(batch.consumed, 7);
	assert_int_equal(session.scanned, 2);
}

static void reads_netstrings(void **state)
{
	static const struct {
		const char *text;
		int error;
	} table[] = {
		{ "3:abc,", 0 },
		{ "0:,", 0 },
		{ "10", 0 },
		{ "0", 0 },
		{ "00:,", ERR_FRAME_MALFORMED },
		{ "03:abc,", ERR_FRAME_MALFORMED },
		{ ":,", ERR_FRAME_MALFORMED },
		{ "-1:", ERR_FRAME_MALFORMED },
		{ " 1:a,", ERR_FRAME_MALFORMED },
		{ "3:abcd", ERR_FRAME_MALFORMED },
		{ "0:x", ERR_FRAME_MALFORMED },
		{ "100:", 0 },
		{ "101:", ERR_FRAME_TOO_LARGE },
		{ "9999999999:", ERR_FRAME_TOO_LARGE },
		{ "9999999999", 0 },
		{ "99999999999", ERR_FRAME_MALFORMED },
		{ "4294967297:a,", ERR_FRAME_TOO_LARGE },
	};
	struct codec codec = named("netstring", 100);

	(void)state;
	for (size_t i = 0; i < sizeof table / sizeof *table; i++)
		assert_int_equal(decode_text(&codec, table[i].text), table[i].error);
}

static void reads_datagrams_behind_the_header_of_udp(void **state)
{
	static const uint8_t TWO[] = "\0\0\0\0\0\012\0\0ab\0\0\0\0\0\010\0\0";
	struct codec codec = named("datagram", MAX);

	(void)state;
	assert_int_equal(decode(&codec, TWO, 18), 0);
	assert_int_equal(batch.count, 2);
	assert_frame(0, "ab");
	assert_frame(1, "");
	assert_int_equal(decode(&codec, "\0\0\0\0\0\022\0\0", 8), ERR_FRAME_TOO_LARGE);
	assert_int_equal(batch.announced, MAX + 1);
	assert_int_equal(decode(&codec, "\0\0\0\0\0\007\0\0", 8), ERR_FRAME_MALFORMED);
	/* Ports and checksum are nobody's. */
	assert_int_equal(decode(&codec, "\0\1\0\0\0\010\0\0", 8), ERR_FRAME_MALFORMED);
	assert_int_equal(decode(&codec, "\0\0\0\0\0\010\0\1", 8), ERR_FRAME_MALFORMED);
	codec = (struct codec){ .kind = CODEC_DATAGRAM, .protocol.max_bytes = 65508 };
	assert_string_equal(codec_init(&codec), "a datagram has at most 65507 bytes");
}

static void cuts_raw_and_fixed_frames(void **state)
{
	struct codec codec = named("raw", 4);

	(void)state;
	assert_int_equal(decode_text(&codec, ""), 0);
	assert_int_equal(batch.count, 0);
	assert_int_equal(decode_text(&codec, "123456789"), 0);
	assert_int_equal(batch.count, 3);
	assert_frame(0, "1234");
	assert_frame(2, "9");
	assert_int_equal(batch.consumed, 9);

	codec = custom((struct codec){ .kind = CODEC_FIXED, .protocol.max_bytes = 4, .fixed_bytes = 4 });
	assert_int_equal(decode_text(&codec, "123456789"), 0);
	assert_int_equal(batch.count, 2);
	assert_frame(1, "5678");
	assert_int_equal(batch.need, 4);
}

static int encode(const struct codec *codec, size_t len)
{
	uint8_t *data = calloc(1, len + 1);
	struct buf *b = NULL;
	int error = codec_encode(codec, data, len, &pool, &b);

	if (error)
		assert_null(b);
	buf_release(&pool, &b);
	free(data);
	return error;
}

static void refuses_replies_it_cannot_carry(void **state)
{
	struct codec u8 = named("u8", 10), u16 = named("u16le", 10), u24 = named("u24be", 10);
	struct codec fixed =
	    custom((struct codec){ .kind = CODEC_FIXED, .protocol.max_bytes = 4, .fixed_bytes = 4 });
	struct codec whole = length(1, false, 0, -1, 100, CODEC_EMPTY_ERROR);
	struct codec more = length(1, false, 0, 4, 100, CODEC_EMPTY_ERROR);
	struct codec varint = length(0, false, 0, 4, 100, CODEC_EMPTY_ERROR);
	struct codec offset = length(1, false, 3, 0, 100, CODEC_EMPTY_ERROR);
	struct codec behind = length(0, false, 3, 4, 100, CODEC_EMPTY_ERROR);

	(void)state;
	assert_int_equal(encode(&u8, 255), 0);
	assert_int_equal(encode(&u8, 256), ERR_FRAME_REPLY);
	assert_int_equal(encode(&u16, 65535), 0);
	assert_int_equal(encode(&u16, 65536), ERR_FRAME_REPLY);
	assert_int_equal(encode(&u24, 0xffffff), 0);
	assert_int_equal(encode(&u24, 0x1000000), ERR_FRAME_REPLY);
	assert_int_equal(encode(&fixed, 4), 0);
	assert_int_equal(encode(&fixed, 3), ERR_FRAME_REPLY);
	assert_int_equal(encode(&fixed, 5), ERR_FRAME_REPLY);
	assert_int_equal(encode(&whole, 254), 0);
	assert_int_equal(encode(&whole, 255), ERR_FRAME_REPLY);
	assert_int_equal(encode(&more, 4), 0);
	assert_int_equal(encode(&more, 3), ERR_FRAME_REPLY);
	assert_int_equal(encode(&varint, 4), 0);
	assert_int_equal(encode(&varint, 3), ERR_FRAME_REPLY);
	assert_int_equal(encode(&offset, 3), 0);
	assert_int_equal(encode(&offset, 258), 0);
	assert_int_equal(encode(&offset, 2), ERR_FRAME_REPLY);
	assert_int_equal(encode(&offset, 259), ERR_FRAME_REPLY);
	assert_int_equal(encode(&behind, 7), 0);
	assert_int_equal(encode(&behind, 6), ERR_FRAME_REPLY);
	assert_int_equal(encode(&behind, 2), ERR_FRAME_REPLY);
}

static void appends_nothing_past_the_pool_limit(void **state)
{
	struct codec list[SAMPLES_MAX];

	(void)state;
	for (unsigned i = 0, n = all_codecs(list, 8192); i < n; i++) {
		size_t len = list[i].kind == CODEC_FIXED ? list[i].fixed_bytes : 8192;

		if (list[i].length_bytes == 1)
			continue;
		pool.limit_bytes = 1;
		assert_int_equal(encode(&list[i], len), ERR_BUFFER_LIMIT);
		pool.limit_bytes = 0;
	}
}

static void copies_replies_of_every_size(void **state)
{
	struct codec list[] = { named("u32be", 300), named("varint", 300) };
	uint8_t data[200];

	(void)state;
	for (size_t i = 0; i < sizeof data; i++)
		data[i] = (uint8_t)(i * 7 + 1);
	for (size_t c = 0; c < 2; c++)
		for (size_t len = 1; len <= sizeof data; len++) {
			struct buf *b = NULL;
			uint8_t *exact = malloc(len);

			memcpy(exact, data, len);
			assert_int_equal(codec_encode(&list[c], exact, len, &pool, &b), 0);
			assert_int_equal(decode(&list[c], b->data, buf_len(b)), 0);
			assert_int_equal(batch.count, 1);
			assert_int_equal(batch.frames[0].len, len);
			assert_memory_equal(batch.frames[0].data, data, len);
			free(exact);
			buf_release(&pool, &b);
		}
}

static void checks_options(void **state)
{
	static const struct codec bad[] = {
		{ .kind = CODEC_KINDS, .protocol.max_bytes = 10 },
		{ .kind = CODEC_LUA, .protocol.max_bytes = 10 },
		{ .kind = CODEC_RAW, .protocol.max_bytes = 0 },
		{ .kind = CODEC_RAW, .protocol.max_bytes = CODEC_FRAME_LIMIT + 1u },
		{ .kind = CODEC_RAW, .protocol.max_bytes = 10, .empty = (enum codec_empty)3 },
		{ .kind = CODEC_LINE, .protocol.max_bytes = 10, .offset = 1 },
		{ .kind = CODEC_LENGTH, .protocol.max_bytes = 10, .length_bytes = 5 },
		{ .kind = CODEC_LENGTH, .protocol.max_bytes = 10, .length_bytes = 6 },
		{ .kind = CODEC_LENGTH, .protocol.max_bytes = 10, .length_bytes = 7 },
		{ .kind = CODEC_LENGTH, .protocol.max_bytes = 10, .length_bytes = 9 },
		{ .kind = CODEC_LENGTH,
		  .protocol.max_bytes = 100,
		  .length_bytes = 4,
		  .offset = CODEC_OFFSET_MAX + 1 },
		{ .kind = CODEC_LENGTH, .protocol.max_bytes = 10, .length_bytes = 4, .offset = 11 },
		{ .kind = CODEC_LENGTH,
		  .protocol.max_bytes = 10,
		  .length_bytes = 4,
		  .offset = 1,
		  .view = true },
		{ .kind = CODEC_LENGTH, .protocol.max_bytes = 10, .length_bytes = 0, .offset = 11 },
		{ .kind = CODEC_LENGTH,
		  .protocol.max_bytes = 10,
		  .length_bytes = 0,
		  .offset = 1,
		  .view = true },
		{ .kind = CODEC_LENGTH, .protocol.max_bytes = 10, .length_bytes = 8, .adjust = INT64_MIN },
		{ .kind = CODEC_LENGTH, .protocol.max_bytes = 10, .length_bytes = 8, .adjust = INT64_MAX },
		{ .kind = CODEC_LENGTH, .protocol.max_bytes = 10, .length_bytes = 1, .adjust = -256 },
		{ .kind = CODEC_LENGTH, .protocol.max_bytes = 10, .length_bytes = 1, .adjust = 11 },
		{ .kind = CODEC_DELIMITER, .protocol.max_bytes = 10 },
		{ .kind = CODEC_DELIMITER,
		  .protocol.max_bytes = 10,
		  .delimiter_bytes = CODEC_DELIMITER_MAX + 1 },
		{ .kind = CODEC_FIXED, .protocol.max_bytes = 10 },
		{ .kind = CODEC_FIXED, .protocol.max_bytes = 10, .fixed_bytes = 11 },
	};
	struct codec codec;

	(void)state;
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		codec = bad[i];
		assert_non_null(codec_init(&codec));
	}
	assert_int_equal(codec_init_named(&codec, "u32", 10), -EINVAL);
	assert_int_equal(codec_init_named(&codec, "delimiter", 10), -EINVAL);
	assert_int_equal(codec_init_named(&codec, "u32be", 0), -EINVAL);
	assert_null(codec_ops_of(CODEC_LUA));
	assert_string_equal(codec_ops_of(CODEC_NETSTRING)->name, "netstring");
	assert_int_equal(named("u32be", 10).empty, CODEC_EMPTY_ERROR);
	assert_int_equal(named("line", 10).empty, CODEC_EMPTY_DELIVER);
	assert_int_equal(named("netstring", 10).empty, CODEC_EMPTY_DELIVER);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(gives_back_what_was_encoded),
		cmocka_unit_test(parses_any_split_the_same),
		cmocka_unit_test(parses_any_split_of_text_the_same),
		cmocka_unit_test(waits_for_the_whole_frame),
		cmocka_unit_test(judges_every_length),
		cmocka_unit_test(counts_the_offset_into_the_limit),
		cmocka_unit_test(finds_the_bytes_before_a_varint),
		cmocka_unit_test(reads_a_varint_behind_other_bytes),
		cmocka_unit_test(handles_a_length_of_the_whole_message),
		cmocka_unit_test(treats_empty_frames_as_told),
		cmocka_unit_test(says_what_was_wrong),
		cmocka_unit_test(refuses_overlong_varints),
		cmocka_unit_test(stops_at_the_batch_limit),
		cmocka_unit_test(delivers_frames_before_an_error),
		cmocka_unit_test(knows_what_it_needs),
		cmocka_unit_test(ends_lines_at_newlines),
		cmocka_unit_test(finds_overlapping_delimiters),
		cmocka_unit_test(remembers_what_it_searched),
		cmocka_unit_test(reads_netstrings),
		cmocka_unit_test(reads_datagrams_behind_the_header_of_udp),
		cmocka_unit_test(cuts_raw_and_fixed_frames),
		cmocka_unit_test(refuses_replies_it_cannot_carry),
		cmocka_unit_test(appends_nothing_past_the_pool_limit),
		cmocka_unit_test(copies_replies_of_every_size),
		cmocka_unit_test(checks_options),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
