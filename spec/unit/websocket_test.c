/* The WebSocket session: what comes of frames, however they are cut, and what is written. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/err.h"
#include "base/text.h"
#include "base/utf8.h"
#include "support/websocket_stream.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

enum { INPUT_MAX = 200000, TWO_CUTS_MAX = 150, MESSAGE_MAX = 65536 };

static uint8_t input[INPUT_MAX];
static size_t input_bytes;

/* ---- frames of the peer, which are those of a client, masked; or of a server ---- */

static bool is_client; /* this side is */

static int be_client(void **state)
{
	(void)state;
	is_client = true;
	return 0;
}

static int be_server(void **state)
{
	(void)state;
	is_client = false;
	return 0;
}

static void put(const void *bytes, size_t n)
{
	assert_true(input_bytes + n <= INPUT_MAX);
	memcpy(input + input_bytes, bytes, n);
	input_bytes += n;
}

static void put_head(uint8_t first, uint64_t length, unsigned more)
{
	static const uint8_t MASK[] = { 0x37, 0xfa, 0x21, 0x3d };
	uint8_t second = (uint8_t)((is_client ? 0 : 0x80) | (more == 2   ? 126
							     : more == 8 ? 127
									 : length)),
		byte;
	put(&first, 1);
	put(&second, 1);
	for (unsigned i = more; i--;) {
		byte = (uint8_t)(length >> 8 * i);
		put(&byte, 1);
	}
	if (!is_client)
		put(MASK, sizeof MASK);
}

static void put_frame(uint8_t first, const void *data, size_t n)
{
	put_head(first, n, n < 126 ? 0 : n < 65536 ? 2 : 8);
	size_t at = input_bytes;
	put(data, n);
	for (size_t i = 0; i < n && !is_client; i++)
		input[at + i] ^= input[at - 4 + i % 4];
}

/*
 * Frames as a text: "81 abc|89 x": the first byte in hexadecimal, then what it carries, where \xff and \0 are bytes.
 */
static void put_described(const char *text)
{
	input_bytes = 0;
	while (*text) {
		uint8_t data[512], first = (uint8_t)strtoul(text, (char **)&text, 16);
		size_t n = 0;
		for (text += *text == ' '; *text && *text != '|'; text++) {
			bool is_hex = text[0] == '\\' && text[1] == 'x';
			data[n++] = is_hex ? (uint8_t)strtoul((char[]){ text[2], text[3], 0 }, NULL, 16)
					   : (uint8_t)*text;
			text += is_hex ? 3 : 0;
		}
		put_frame(first, data, n);
		text += *text == '|';
	}
}

/* ---- what comes of them ---- */

static struct websocket_stream stream;
static uint8_t kept_in; /* of it */

static void begin_stream(uint32_t max, unsigned bits)
{
	websocket_stream_init_terms(&stream, max, (struct websocket_terms){ (uint8_t)bits, 0, kept_in });
	stream.websocket.is_client = is_client;
}

static void run_cut(uint32_t max, unsigned bits, size_t first, size_t second)
{
	begin_stream(max, bits);
	websocket_stream_put(&stream, input, first);
	websocket_stream_put(&stream, input + first, second - first);
	websocket_stream_put(&stream, input + second, input_bytes - second);
}

static void expect_cut(uint32_t max, unsigned bits, size_t first, size_t second, const char *wanted)
{
	run_cut(max, bits, first, second);
	if (strcmp(stream.text, wanted) != 0)
		fail_msg("cut at %zu and %zu: %s, not %s", first, second, stream.text, wanted);
	websocket_stream_deinit(&stream);
}

static void expect_by_bytes(uint32_t max, unsigned bits, const char *wanted)
{
	begin_stream(max, bits);
	for (size_t i = 0; i < input_bytes; i++)
		websocket_stream_put(&stream, input + i, 1);
	assert_string_equal(stream.text, wanted);
	websocket_stream_deinit(&stream);
}

/* Whole, byte by byte, cut in two places. */
static void expect_any_cut(uint32_t max, unsigned bits, const char *wanted)
{
	size_t n = input_bytes;
	expect_cut(max, bits, n, n, wanted);
	expect_by_bytes(max, bits, wanted);
	for (size_t i = 0; i <= n && n <= 2000; i++)
		expect_cut(max, bits, i, n, wanted);
	for (size_t i = 0; i <= n && n <= TWO_CUTS_MAX; i++)
		for (size_t k = i; k <= n; k++)
			expect_cut(max, bits, i, k, wanted);
}

static void expect(const char *frames, const char *wanted)
{
	put_described(frames);
	expect_any_cut(MESSAGE_MAX, 0, wanted);
}

#define REFUSED "refused, close "

static void takes_messages(void **state)
{
	(void)state;
	expect("81 Hello", "text Hello");
	expect("81", "text ");
	expect("82", "binary 0:");
	expect("82 \\x00\\xff\\x80", "binary 3:00ff80");
	expect("81 a|81 b|82 c", "text a, text b, binary 1:63");
	expect("01 Hel|80 lo", "text Hello");
	expect("01|00|80", "text ");
	expect("01 a|00 b|00|00 c|80 d", "text abcd");
	expect("02 \\xe2|80 \\x82", "binary 2:e282");
	expect("81 \\xce\\xba\\xe1\\xbd\\xb9\\xf0\\x9f\\x98\\x80",
	       "text \xce\xba\xe1\xbd\xb9\xf0\x9f\x98\x80");
	expect("01 \\xce|80 \\xba", "text κ");
	expect("01 \\xf0|00 \\x9f|00 \\x98|80 \\x80", "text 😀");
}

static void answers_control_frames(void **state)
{
	(void)state;
	expect("89", "pong ");
	expect("89 abc", "pong abc");
	expect("8a", "");
	expect("8a abc|81 x", "text x");
	expect("89 1|89 2|89 3", "pong 1, pong 2, pong 3");
	expect("01 a|89 p|80 b", "pong p, text ab");
	expect("01 \\xce|89 p|8a|80 \\xba", "pong p, text κ");
}

static void takes_close_frames(void **state)
{
	(void)state;
	expect("88", "closed 1005 , close");
	expect("88 \\x03\\xe8", "closed 1000 , close 1000");
	expect("88 \\x03\\xe9bye|81 never", "closed 1001 bye, close 1001");
	expect("88 \\x0b\\xb8κ", "closed 3000 κ, close 3000");
	expect("01 a|88 \\x03\\xe8", "closed 1000 , close 1000");
	expect("88 \\x03", REFUSED "1002");
	expect("88 \\x03\\xe8\\xff", REFUSED "1007");
	expect("88 \\x03\\xe8\\xce", REFUSED "1007");
}

static void judges_close_codes(void **state)
{
	static const struct {
		unsigned from, to;
		bool is_valid, is_scripts;
	} CODES[] = {
		{ 0, 999, false, false },     { 1000, 1000, true, true },    { 1001, 1003, true, false },
		{ 1004, 1006, false, false }, { 1007, 1014, true, false },   { 1015, 2999, false, false },
		{ 3000, 4999, true, true },   { 5000, 65535, false, false },
	};
	(void)state;
	for (size_t i = 0; i < sizeof CODES / sizeof *CODES; i++)
		for (unsigned code = CODES[i].from; code <= CODES[i].to; code++) {
			char wanted[64];
			uint8_t bytes[] = { (uint8_t)(code >> 8), (uint8_t)code };
			assert_int_equal(websocket_code_is_valid(code), CODES[i].is_valid);
			assert_int_equal(websocket_code_is_scripts(code), CODES[i].is_scripts);
			input_bytes = 0;
			put_frame(0x88, bytes, 2);
			snprintf(wanted, sizeof wanted,
				 CODES[i].is_valid ? "closed %u , close %u" : REFUSED "1002", code, code);
			expect_cut(MESSAGE_MAX, 0, input_bytes, input_bytes, wanted);
		}
}

static void refuses_what_breaks_the_rules(void **state)
{
	(void)state;
	for (unsigned first = 0; first < 256; first++) {
		unsigned opcode = first & 15;
		bool is_known = opcode <= 2 || (opcode >= 8 && opcode <= 10);
		bool is_right = !(first & 0x70) && is_known && (opcode < 8 || first & 0x80) && opcode;
		if (is_right)
			continue;
		input_bytes = 0;
		put_frame((uint8_t)first, "", 0);
		expect_any_cut(MESSAGE_MAX, 0, REFUSED "1002");
	}
	expect("01 a|81 b", REFUSED "1002");
	expect("01 a|02 b", REFUSED "1002");
	expect("80 a", REFUSED "1002");
	expect("81 a|80 b", "text a, " REFUSED "1002");
	expect("81 a|09 b", "text a, " REFUSED "1002");
	input_bytes = 0;
	put(is_client ? "\x81\x85\0\0\0\0Hello" : "\x81\x05Hello", is_client ? 11 : 7);
	expect_any_cut(MESSAGE_MAX, 0, REFUSED "1002"); /* masked, not masked */
	input_bytes = 0;
	put_head(0x89, 126, 2);
	expect_any_cut(MESSAGE_MAX, 0, REFUSED "1002");
	for (unsigned length = 0; length < 126; length += 25) {
		input_bytes = 0;
		put_head(0x81, length, 2);
		expect_any_cut(MESSAGE_MAX, 0, REFUSED "1002");
	}
	input_bytes = 0;
	put_head(0x82, 65535, 8);
	expect_any_cut(MESSAGE_MAX, 0, REFUSED "1002");
	input_bytes = 0;
	put_head(0x82, UINT64_C(1) << 63, 8);
	expect_any_cut(MESSAGE_MAX, 0, REFUSED "1002");
}

static void refuses_what_is_no_utf8(void **state)
{
	(void)state;
	expect("81 \\xff", REFUSED "1007");
	expect("81 a\\x80", REFUSED "1007");
	expect("81 \\xce", REFUSED "1007");
	expect("81 \\xc0\\xaf", REFUSED "1007");
	expect("81 \\xe0\\x80\\xaf", REFUSED "1007");
	expect("81 \\xed\\xa0\\x80", REFUSED "1007");
	expect("81 \\xf0\\x80\\x80\\xaf", REFUSED "1007");
	expect("81 \\xf4\\x90\\x80\\x80", REFUSED "1007");
	expect("81 \\xf5\\x80\\x80\\x80", REFUSED "1007");
	expect("01 \\xce|80", REFUSED "1007");
	expect("01 \\xce|80 a", REFUSED "1007");
	expect("01 ok|00 \\xff", REFUSED "1007"); /* at once, and not at the end of the message */
	expect("01 \\xf4|00 \\x90", REFUSED "1007");
	put_described("81 abc\\xff and much more");
	input_bytes = (is_client ? 2 : 6) + 4;
	expect_any_cut(MESSAGE_MAX, 0, REFUSED "1007"); /* in the middle of a frame */
}

static void has_lengths(void **state)
{
	static const size_t LENGTHS[] = { 0, 1, 124, 125, 126, 127, 128, 65534, 65535, 65536 };
	static uint8_t data[65536];
	(void)state;
	for (size_t i = 0; i < sizeof LENGTHS / sizeof *LENGTHS; i++) {
		char wanted[64];
		input_bytes = 0;
		put_frame(0x82, data, LENGTHS[i]);
		snprintf(wanted, sizeof wanted, "binary %zu:%.*s", LENGTHS[i],
			 (int)(2 * (LENGTHS[i] < 8 ? LENGTHS[i] : 8)), "0000000000000000");
		expect_cut(MESSAGE_MAX, 0, input_bytes, input_bytes, wanted);
		expect_cut(MESSAGE_MAX, 0, 1, input_bytes - 1, wanted);
		expect_by_bytes(MESSAGE_MAX, 0, wanted);
	}
}

static void bounds_messages(void **state)
{
	(void)state;
	put_described("81 12345678");
	expect_any_cut(8, 0, "text 12345678");
	expect_any_cut(7, 0, REFUSED "1009");
	input_bytes = is_client ? 2 : 6; /* its head alone says so */
	expect_any_cut(7, 0, REFUSED "1009");
	put_described("01 1234|00 5678|80");
	expect_any_cut(8, 0, "text 12345678");
	expect_any_cut(7, 0, "" REFUSED "1009");
	input_bytes = 0;
	put_head(0x82, INT64_MAX, 8);
	expect_any_cut(MESSAGE_MAX, 0, REFUSED "1009");
	input_bytes = 0;
	put_frame(0x02, "12345", 5);
	put_head(0x80, INT64_MAX, 8);
	expect_any_cut(MESSAGE_MAX, 0, REFUSED "1009");
}

/* Its memory is not kept from message to message, and grows by what has come. */
static void keeps_no_memory(void **state)
{
	(void)state;
	put_described("81 abc|89 x|82 def");
	begin_stream(MESSAGE_MAX, 0);
	websocket_stream_put(&stream, input, input_bytes);
	assert_int_equal(stream.pool.lent_bytes, 0);
	websocket_stream_deinit(&stream);
	input_bytes = 0;
	put_head(0x82, MESSAGE_MAX, 8);
	put("abc", 3);
	begin_stream(MESSAGE_MAX, 0);
	websocket_stream_put(&stream, input, input_bytes);
	assert_true(stream.pool.lent_bytes <= BUF_MIN_BYTES);
	websocket_stream_deinit(&stream);
}

/* ---- while messages are not taken ---- */

/* What comes behind `from` is held back; then it is taken. */
static void expect_held(size_t from, size_t cut, const char *wanted)
{
	begin_stream(MESSAGE_MAX, 0);
	websocket_stream_put(&stream, input, from);
	websocket_stream_hold(&stream, true);
	websocket_stream_put(&stream, input + from, cut - from);
	websocket_stream_put(&stream, input + cut, input_bytes - cut);
	websocket_stream_hold(&stream, false);
	if (strcmp(stream.text, wanted) != 0)
		fail_msg("held from %zu, cut at %zu: %s, not %s", from, cut, stream.text, wanted);
	websocket_stream_deinit(&stream);
}

static void answers_pings_of_who_waits(void **state)
{
	(void)state;
	put_described("81 a|89 1|81 b|89 2|8a|81 c|89 3|88");
	for (size_t cut = 0; cut <= input_bytes; cut++)
		expect_held(0, cut, "pong 1, pong 2, pong 3, text a, text b, text c, closed 1005 , close");
	put_described("81 a|89 1|82 bcd|89 2");
	for (size_t from = 7; from <= 7; from++)
		for (size_t cut = from; cut <= input_bytes; cut++)
			expect_held(from, cut, "text a, pong 1, pong 2, binary 3:626364");
	/* It has begun to take a message, and is in the middle of a frame. */
	for (size_t from = 14; from < 23; from++)
		for (size_t cut = from; cut <= input_bytes; cut++)
			expect_held(from, cut, "text a, pong 1, pong 2, binary 3:626364");
	put_described("89 1|8b|89 2");
	for (size_t cut = 0; cut <= input_bytes; cut++)
		expect_held(0, cut, "pong 1, " REFUSED "1002");
}

/* Held now and then: each ping is answered once. */
static void answers_each_ping_once(void **state)
{
	(void)state;
	put_described("89 1|81 a|89 2|89 3|01 b|89 4|80 c|89 5");
	for (size_t step = 1; step < 9; step++)
		for (size_t held = 1; held < 9; held++) {
			unsigned count = 0;
			begin_stream(MESSAGE_MAX, 0);
			for (size_t at = 0, i = 0; at < input_bytes; at += step, i++) {
				websocket_stream_hold(&stream, i / held % 2);
				size_t n = input_bytes - at < step ? input_bytes - at : step;
				websocket_stream_put(&stream, input + at, n);
			}
			websocket_stream_hold(&stream, false);
			for (const char *at = stream.text; (at = strstr(at, "pong")); at++)
				count++;
			assert_int_equal(count, 5);
			assert_non_null(strstr(stream.text, "text a"));
			assert_non_null(strstr(stream.text, "text bc"));
			websocket_stream_deinit(&stream);
		}
}

/* ---- what is sent ---- */

static void writes_frames(void **state)
{
	static const struct {
		size_t n;
		const char *head;
		size_t head_bytes;
	} ROWS[] = { { 0, "\x82\x00", 2 },
		     { 125, "\x82\x7d", 2 },
		     { 126, "\x82\x7e\x00\x7e", 4 },
		     { 65535, "\x82\x7e\xff\xff", 4 },
		     { 65536, "\x82\x7f\x00\x00\x00\x00\x00\x01\x00\x00", 10 } };
	static uint8_t data[65536];
	(void)state;
	websocket_stream_init(&stream, MESSAGE_MAX, 0);
	for (size_t i = 0; i < sizeof ROWS / sizeof *ROWS; i++) {
		struct reply reply = { data, ROWS[i].n };
		assert_int_equal(websocket_append(&stream.websocket, &stream.session, true, &reply,
						  &stream.pool, &stream.out),
				 0);
		assert_int_equal(buf_len(stream.out), ROWS[i].head_bytes + ROWS[i].n);
		assert_memory_equal(stream.out->data + stream.out->start, ROWS[i].head, ROWS[i].head_bytes);
		buf_release(&stream.pool, &stream.out);
	}
	struct reply bad = { (const uint8_t *)"a\xff", 2 };
	assert_int_equal(
	    websocket_append(&stream.websocket, &stream.session, false, &bad, &stream.pool, &stream.out),
	    ERR_FRAME_REPLY);
	assert_null(stream.out);
	websocket_stream_deinit(&stream);
}

static int put_piece(const char *text, bool is_last)
{
	struct reply piece = { (const uint8_t *)text, strlen(text) };
	return websocket_append_piece(&stream.websocket, &stream.session, is_last, &piece, &stream.pool,
				      &stream.out);
}

static void expect_out(const char *bytes, size_t n)
{
	assert_int_equal(buf_len(stream.out), n);
	if (n)
		assert_memory_equal(stream.out->data + stream.out->start, bytes, n);
	buf_release(&stream.pool, &stream.out);
}

static void writes_pieces(void **state)
{
	struct reply other = { (const uint8_t *)"x", 1 };
	(void)state;
	websocket_stream_init(&stream, MESSAGE_MAX, 15);
	assert_true(websocket_begin_message(&stream.session, false));
	assert_false(websocket_begin_message(&stream.session, true));
	assert_int_equal(put_piece("", false), 0);
	expect_out("", 0);
	assert_int_equal(put_piece("a\xce", false), 0); /* half a character */
	expect_out("\x01\x02"
		   "a\xce",
		   4);
	assert_int_equal(
	    websocket_append(&stream.websocket, &stream.session, true, &other, &stream.pool, &stream.out),
	    ERR_FRAME_BETWEEN);
	assert_int_equal(put_piece("\xff", false), ERR_FRAME_REPLY);
	assert_int_equal(put_piece("", true), ERR_FRAME_REPLY); /* it is not whole */
	assert_int_equal(put_piece("\xba", false), 0);
	expect_out("\x00\x01\xba", 3);
	assert_false(stream.websocket.protocol.ops->is_at_rest(&stream.websocket.protocol, &stream.session));
	assert_int_equal(put_piece("", true), 0);
	expect_out("\x80\x00", 2);
	assert_true(stream.websocket.protocol.ops->is_at_rest(&stream.websocket.protocol, &stream.session));
	assert_true(websocket_begin_message(&stream.session, true));
	assert_int_equal(put_piece("\xff", true), 0);
	expect_out("\x82\x01\xff", 3);
	websocket_stream_deinit(&stream);
}

/* A client's: what is under the mask is what was sent, and no mask is as one before. */
static void masks_frames(void **state)
{
	enum { FRAMES = 200, BYTES = 300 };
	static uint32_t masks[FRAMES];
	uint8_t data[BYTES];
	(void)state;
	for (size_t i = 0; i < sizeof data; i++)
		data[i] = (uint8_t)(i * 7);
	begin_stream(MESSAGE_MAX, 0);
	for (size_t i = 0; i < FRAMES; i++) {
		struct reply reply = { data, i };
		assert_int_equal(websocket_append(&stream.websocket, &stream.session, true, &reply,
						  &stream.pool, &stream.out),
				 0);
		const uint8_t *frame = stream.out->data + stream.out->start,
			      *mask = frame + (i < 126 ? 2 : 4);
		assert_int_equal(frame[0], 0x82);
		assert_int_equal(frame[1], 0x80 | (i < 126 ? i : 126));
		assert_int_equal(buf_len(stream.out), (i < 126 ? 6 : 8) + i);
		for (size_t k = 0; k < i; k++)
			assert_int_equal(mask[4 + k] ^ mask[k % 4], data[k]);
		memcpy(&masks[i], mask, 4);
		for (size_t k = 0; k < i; k++)
			assert_true(masks[i] != masks[k]);
		buf_release(&stream.pool, &stream.out);
	}
	websocket_stream_deinit(&stream);
}

static void finish_for(enum close_reason reason, const char *wanted)
{
	const struct protocol *protocol = &stream.websocket.protocol;
	size_t n = strlen(wanted) / 2;
	char text[512] = "";
	assert_int_equal(
	    protocol->ops->finish(protocol, &stream.session, 0, reason, &stream.pool, &stream.out), 0);
	for (size_t i = 0; i < buf_len(stream.out); i++)
		snprintf(text + 2 * i, 3, "%02x", stream.out->data[stream.out->start + i]);
	assert_string_equal(text, wanted);
	assert_int_equal(buf_len(stream.out), n);
	buf_release(&stream.pool, &stream.out);
}

static void says_why_it_ends(void **state)
{
	(void)state;
	websocket_stream_init(&stream, MESSAGE_MAX, 0);
	finish_for(REASON_AGENT, "880203e8");
	finish_for(REASON_DRAIN, "880203e9");
	finish_for(REASON_IDLE_TIMEOUT, "880203e9");
	finish_for(REASON_LINK, "880203e9");
	finish_for(REASON_KICK, "880203f0");
	finish_for(REASON_SLOW_CONSUMER, "880203f0");
	finish_for(REASON_READ_TIMEOUT, "880203f0");
	finish_for(REASON_ERROR, "880203f3");
	finish_for(REASON_PROCEED_TIMEOUT, "880203f3");
	finish_for(REASON_MEMORY, "880203f3");
	finish_for(REASON_LIMIT, "880203f5");
	finish_for(REASON_PEER, "");
	finish_for(REASON_RESET, "");
	assert_true(websocket_say_at_close(&stream.session, 4000, "so", 2));
	assert_true(websocket_say_at_close(&stream.session, 4001, "long", 4)); /* too late */
	finish_for(REASON_AGENT, "88040fa0736f");
	websocket_stream_deinit(&stream);
}

/* ---- permessage-deflate ---- */

/* RFC 7692, 7.2.3: examples of one and the same message. */
static void inflates_examples(void **state)
{
	(void)state;
	put_described("c1 \\xf2\\x48\\xcd\\xc9\\xc9\\x07\\x00");
	expect_any_cut(MESSAGE_MAX, 15, "text Hello");
	put_described("41 \\xf2\\x48\\xcd|80 \\xc9\\xc9\\x07\\x00");
	expect_any_cut(MESSAGE_MAX, 15, "text Hello");
	put_described("c1 \\x00\\x05\\x00\\xfa\\xffHello\\x00");
	expect_any_cut(MESSAGE_MAX, 15, "text Hello");
	put_described("c1 \\xf3\\x48\\xcd\\xc9\\xc9\\x07\\x00\\x00");
	expect_any_cut(MESSAGE_MAX, 15, "text Hello");
	put_described("c1 \\xf2\\x48\\x05\\x00\\x00\\x00\\xff\\xff\\xca\\xc9\\xc9\\x07\\x00");
	expect_any_cut(MESSAGE_MAX, 15, "text Hello");
	put_described("c1 \\x00"); /* nothing */
	expect_any_cut(MESSAGE_MAX, 15, "text ");
	put_described("c1 \\xf2\\x48\\xcd\\xc9\\xc9\\x07\\x00|81 plain|89 x");
	expect_any_cut(MESSAGE_MAX, 15, "text Hello, text plain, pong x");
	put_described("c2 \\xf2\\x48\\xcd\\xc9\\xc9\\x07\\x00");
	expect_any_cut(MESSAGE_MAX, 9, "binary 5:48656c6c6f");
}

static void refuses_what_cannot_be_inflated(void **state)
{
	(void)state;
	put_described("c1 \\xff\\xff\\xff");
	expect_any_cut(MESSAGE_MAX, 15, REFUSED "1007");
	put_described("c1 \\xf2\\x48"); /* cut short */
	expect_any_cut(MESSAGE_MAX, 15, REFUSED "1007");
	put_described("c1 \\xf2\\x48\\xcd\\xc9\\xc9\\x07\\x00");
	expect_any_cut(4, 15, REFUSED "1009");
	expect_any_cut(5, 15, "text Hello");
	expect_any_cut(MESSAGE_MAX, 0, REFUSED "1002"); /* nobody has agreed to it */
	put_described("01 a|c0 b");
	expect_any_cut(MESSAGE_MAX, 15, REFUSED "1002");
	put_described("c9 a");
	expect_any_cut(MESSAGE_MAX, 15, REFUSED "1002");
	put_described("a1 a");
	expect_any_cut(MESSAGE_MAX, 15, REFUSED "1002");
	put_described("c1 \\x4a\\x04\\x00"); /* "a" is not all there is in there */
	run_cut(MESSAGE_MAX, 15, input_bytes, input_bytes);
	websocket_stream_deinit(&stream);
}

/* What is written compressed is read as what it was; a bomb is not inflated. */
static void compresses(void **state)
{
	static uint8_t data[MESSAGE_MAX];
	(void)state;
	for (unsigned bits = 9; bits <= 15; bits++) {
		struct reply reply = { data, sizeof data };
		char wanted[64];
		websocket_stream_init(&stream, MESSAGE_MAX, bits);
		assert_int_equal(websocket_append(&stream.websocket, &stream.session, true, &reply,
						  &stream.pool, &stream.out),
				 0);
		size_t n = buf_len(stream.out);
		uint8_t frame[1024];
		assert_true(n < sizeof frame);
		memcpy(frame, stream.out->data + stream.out->start, n);
		buf_release(&stream.pool, &stream.out);
		assert_int_equal(frame[0], 0xc2);
		websocket_stream_deinit(&stream);
		size_t head = frame[1] == 126 ? 4 : 2;
		input_bytes = 0;
		put_frame(0xc2, frame + head, n - head);
		snprintf(wanted, sizeof wanted, "binary %zu:0000000000000000", sizeof data);
		expect_cut(MESSAGE_MAX, bits, input_bytes, input_bytes, wanted);
		expect_cut(MESSAGE_MAX - 1, bits, input_bytes, input_bytes, REFUSED "1009");
		expect_cut(100, bits, input_bytes, input_bytes, REFUSED "1009");
	}
}

/* What is sent refers to no byte that is out of the peer's window. */
static void keeps_within_windows(void **state)
{
	enum { MORE = 300 };
	static uint8_t data[MESSAGE_MAX];
	uint32_t random = 1;
	(void)state;
	for (unsigned bits = 8; bits <= 14; bits++) {
		size_t half = (size_t)(1 << bits) + MORE;
		for (size_t i = 0; i < half; i++)
			data[i] = data[half + i] = (uint8_t)((random = random * 1664525 + 1013904223) >> 24);
		for (unsigned more = 0; more < 2; more++) {
			struct reply reply = { data, 2 * half };
			websocket_stream_init(&stream, MESSAGE_MAX, bits + more);
			assert_int_equal(websocket_append(&stream.websocket, &stream.session, true, &reply,
							  &stream.pool, &stream.out),
					 0);
			/* The second half is found only where the window reaches back, zlib's margin aside. */
			bool is_found = more && bits >= 10;
			assert_int_equal(stream.out->data[stream.out->start], is_found ? 0xc2 : 0x82);
			buf_release(&stream.pool, &stream.out);
			websocket_stream_deinit(&stream);
		}
	}
}

/* Nothing is compressed with a window of 8 bits, which zlib does not have. */
static void inflates_where_it_cannot_compress(void **state)
{
	struct reply reply = {
		(const uint8_t *)"abcabcabcabcabcabcabcabcabcabcabcabcabcabcabcabcabcabcabcabcabcabcabc", 69
	};
	(void)state;
	websocket_stream_init(&stream, MESSAGE_MAX, 8);
	assert_int_equal(
	    websocket_append(&stream.websocket, &stream.session, true, &reply, &stream.pool, &stream.out), 0);
	assert_int_equal(stream.out->data[stream.out->start], 0x82);
	buf_release(&stream.pool, &stream.out);
	websocket_stream_deinit(&stream);
	put_described("c1 \\xf2\\x48\\xcd\\xc9\\xc9\\x07\\x00");
	expect_any_cut(MESSAGE_MAX, 8, "text Hello");
}

/* ---- windows ---- */

static void *count_allocation(void *bytes, unsigned items, unsigned size)
{
	*(size_t *)bytes += (size_t)items * size;
	return calloc(items, size);
}

static void free_counted(void *bytes, void *block)
{
	(void)bytes;
	free(block);
}

/* What a window is counted with is what zlib takes, and hardly more. */
static void counts_what_zlib_takes(void **state)
{
	enum { LEVEL = 4, MORE = 400 };
	(void)state;
	for (unsigned bits = 9; bits <= 15; bits++) {
		size_t out = sizeof(z_stream), in = sizeof(z_stream);
		z_stream stream_out = { .zalloc = count_allocation, .zfree = free_counted, .opaque = &out };
		z_stream stream_in = { .zalloc = count_allocation, .zfree = free_counted, .opaque = &in };
		uint8_t text[] = "aaaaaaaaaaaa", bytes[64], back[64];
		assert_int_equal(deflateInit2(&stream_out, LEVEL, Z_DEFLATED, -(int)bits, (int)bits - 8,
					      Z_DEFAULT_STRATEGY),
				 Z_OK);
		stream_out.next_in = text;
		stream_out.avail_in = sizeof text;
		stream_out.next_out = bytes;
		stream_out.avail_out = sizeof bytes;
		assert_int_equal(deflate(&stream_out, Z_SYNC_FLUSH), Z_OK);
		assert_int_equal(inflateInit2(&stream_in, -(int)bits), Z_OK);
		stream_in.next_in = bytes;
		stream_in.avail_in = sizeof bytes - stream_out.avail_out;
		stream_in.next_out = back;
		stream_in.avail_out = sizeof back;
		assert_int_equal(inflate(&stream_in, Z_SYNC_FLUSH), Z_OK);
		deflateEnd(&stream_out);
		inflateEnd(&stream_in);
		assert_in_range(websocket_window_out_bytes(bits), out, out + MORE);
		assert_in_range(websocket_window_in_bytes(bits), in, in + MORE);
	}
}

/* The largest that there is room for. */
static void chooses_windows(void **state)
{
	struct counters counters = { 0 };
	struct websocket_worker worker = { .counters = &counters };
	(void)state;
	assert_int_equal(websocket_window_out(&worker, 15), 0);
	for (unsigned bits = 9; bits <= 15; bits++) {
		unsigned most = bits < 12 ? bits : 12;
		worker.windows_max = websocket_window_out_bytes(most);
		assert_int_equal(websocket_window_out(&worker, bits), most);
		assert_int_equal(websocket_window_out(&worker, 15), most);
		worker.windows_max--;
		assert_int_equal(websocket_window_out(&worker, 15), most == 9 ? 0 : most - 1);
		worker.windows_max = websocket_window_in_bytes(bits) + 100;
		assert_int_equal(websocket_window_in(&worker, bits, 100), bits);
		assert_int_equal(websocket_window_in(&worker, bits, 101), bits == 9 ? 0 : bits - 1);
		assert_int_equal(websocket_window_in(&worker, 8, 0), 0);
	}
}

/* A message with something of those before it, which is within a window or is not. */
static size_t make_message(uint8_t *data, uint32_t *random)
{
	static uint8_t past[MESSAGE_MAX];
	*random = *random * 1664525 + 1013904223;
	size_t n = (*random >> 8) % ((*random >> 28) < 12 ? 300 : 9000), from = (*random >> 4) % 30000;
	for (size_t i = 0; i < n; i++) {
		*random = *random * 1664525 + 1013904223;
		data[i] = i % 64 ? past[from + i] : (uint8_t)(*random >> 24);
	}
	memmove(past, past + n, sizeof past - n);
	memcpy(past + sizeof past - n, data, n);
	return n;
}

/* What one side writes with a window the other reads with one, whatever is between; and with a larger one, too. */
static void talk(struct websocket_terms terms, bool may_fail)
{
	static struct websocket_stream sender;
	static uint8_t data[MESSAGE_MAX];
	uint32_t random = terms.kept_out * 16u + terms.kept_in + may_fail * 1000u;
	websocket_stream_init_terms(&sender, MESSAGE_MAX,
				    (struct websocket_terms){ terms.window_bits, terms.kept_out, 0 });
	sender.websocket.is_client = true;
	websocket_stream_init_terms(&stream, MESSAGE_MAX, (struct websocket_terms){ 15, 0, terms.kept_in });
	for (unsigned i = 0; i < 60; i++) {
		struct reply reply = { data, make_message(data, &random) };
		char wanted[64];
		sender.pool.limit_bytes = may_fail && random >> 31 ? 1 : 0;
		int err = websocket_append(&sender.websocket, &sender.session, true, &reply, &sender.pool,
					   &sender.out);
		assert_int_equal(err, sender.pool.limit_bytes ? ERR_BUFFER_LIMIT : 0);
		if (err)
			continue;
		stream.text_bytes = 0;
		websocket_stream_put(&stream, sender.out->data + sender.out->start, buf_len(sender.out));
		buf_release(&sender.pool, &sender.out);
		snprintf(wanted, sizeof wanted, "binary %zu:", reply.len);
		for (size_t k = 0; k < 8 && k < reply.len; k++)
			snprintf(wanted + strlen(wanted), 3, "%02x", data[k]);
		if (strcmp(stream.text, wanted) != 0)
			fail_msg("%u %u %u %d message %u: %s, not %s", terms.window_bits, terms.kept_out,
				 terms.kept_in, may_fail, i, stream.text, wanted);
	}
	sender.pool.limit_bytes = 0;
	websocket_stream_deinit(&sender);
	websocket_stream_deinit(&stream);
}

static void talks_with_windows(void **state)
{
	(void)state;
	for (uint8_t bits = 9; bits <= 15; bits++)
		for (uint8_t kept = 9; kept <= bits && kept <= 12; kept++)
			for (uint8_t in = bits; in <= 15; in++) {
				talk((struct websocket_terms){ bits, kept, in }, false);
				talk((struct websocket_terms){ bits, kept, in }, true);
			}
}

/* "Hello" twice, of which the second refers to the first; cut everywhere. */
static void inflates_what_refers_to_the_last(void **state)
{
	(void)state;
	put_described("c1 \\xf2\\x48\\xcd\\xc9\\xc9\\x07\\x00|c1 \\xf2\\x00\\x11\\x00\\x00");
	expect_cut(MESSAGE_MAX, 15, input_bytes, input_bytes, "text Hello, refused, close 1007");
	for (kept_in = 9; kept_in <= 15; kept_in += 3) {
		expect_any_cut(MESSAGE_MAX, 15, "text Hello, text Hello");
		expect_cut(4, 15, input_bytes, input_bytes, "refused, close 1009");
	}
	kept_in = 9;
	put_described("c1 \\xf2\\x48\\xcd\\xc9\\xc9\\x07\\x00|41 \\xf2\\x00|89 x|80 \\x11\\x00\\x00|81 plain|"
		      "c1 \\xf2\\x00\\x11\\x00\\x00");
	expect_any_cut(MESSAGE_MAX, 15, "text Hello, pong x, text Hello, text plain, text Hello");
	put_described(
	    "c1 \\xf3\\x48\\xcd\\xc9\\xc9\\x07\\x00\\x00|c1 \\xf2\\x00\\x11\\x00\\x00"); /* behind a last block */
	expect_any_cut(MESSAGE_MAX, 15, "text Hello, text Hello");
	put_described("c1 \\xf2\\x48\\xcd\\xc9\\xc9\\x07\\x00|c1 \\xff\\xff|c1 \\xf2\\x00\\x11\\x00\\x00");
	expect_any_cut(MESSAGE_MAX, 15, "text Hello, refused, close 1007");
	kept_in = 0;
}

/* Without room it waits where it is, and goes on when there is some. */
static void waits_for_room(void **state)
{
	static uint8_t data[MESSAGE_MAX];
	static struct batch batch;
	(void)state;
	for (unsigned keeps = 0; keeps < 2; keeps++) {
		unsigned waits = 0;
		struct reply reply = { data, sizeof data };
		struct buf *frame = NULL;
		websocket_stream_init_terms(&stream, MESSAGE_MAX,
					    (struct websocket_terms){ 15, 0, keeps ? 12 : 0 });
		stream.websocket.is_client = true; /* both ways, without looking at masks */
		for (size_t i = 0; i < sizeof data; i++)
			data[i] = (uint8_t)(i * i >> 9);
		assert_int_equal(
		    websocket_append(&stream.websocket, &stream.session, true, &reply, &stream.pool, &frame),
		    0);
		stream.websocket.is_client = false;
		const struct protocol *protocol = &stream.websocket.protocol;
		size_t at = 0;
		do {
			/* As much as there is, and then each time a little more. */
			stream.pool.limit_bytes = stream.pool.lent_bytes + 4096 * (1 + waits % 80);
			batch = (struct batch){ .pool = &stream.pool, .answers = &stream.out };
			protocol->ops->decode(protocol, frame->data + frame->start + at, buf_len(frame) - at,
					      1, &stream.session, &batch);
			at += batch.consumed;
			waits += batch.error == ERR_BUFFER_LIMIT;
		} while (!batch.count && waits < 1000);
		if (!batch.count || waits <= 2)
			fail_msg("keeps %u: %u messages after %u waits, error %d", keeps, batch.count, waits,
				 batch.error);
		assert_int_equal(batch.frames[0].len, sizeof data);
		assert_memory_equal(batch.frames[0].data, data, sizeof data);
		stream.pool.limit_bytes = 0;
		protocol->ops->taken(protocol, &stream.session);
		buf_release(&stream.pool, &frame);
		websocket_stream_deinit(&stream);
	}
}

/* Where nobody's end would make room for a message, nothing is waited for. */
static void gives_up_without_room(void **state)
{
	static uint8_t data[MESSAGE_MAX];
	static struct batch batch;
	(void)state;
	for (uint8_t in = 0; in <= 12; in += 12) {
		struct reply reply = { data, sizeof data };
		struct buf *frame = NULL;
		websocket_stream_init_terms(&stream, MESSAGE_MAX, (struct websocket_terms){ 15, 0, in });
		stream.websocket.is_client = true; /* for a mask */
		assert_int_equal(
		    websocket_append(&stream.websocket, &stream.session, true, &reply, &stream.pool, &frame),
		    0);
		stream.websocket.is_client = false;
		const struct protocol *protocol = &stream.websocket.protocol;
		stream.pool.limit_bytes = stream.pool.lent_bytes + 40000;
		batch = (struct batch){ .pool = &stream.pool, .answers = &stream.out };
		protocol->ops->decode(protocol, frame->data + frame->start, buf_len(frame), 1,
				      &stream.session, &batch);
		assert_int_equal(batch.error, ERR_BUFFER_LIMIT);
		assert_int_equal(batch.announced, 0);
		assert_int_equal(batch.count, 0);
		protocol->ops->shed(protocol, &stream.session);
		assert_int_equal(protocol->ops->held(&stream.session), 0);
		buf_release(&stream.pool, &frame);
		websocket_stream_deinit(&stream);
	}
}

/* ---- UTF-8 in pieces ---- */

/* Each text of up to three bytes out of those at which something changes: as text_is_utf8() has it. */
static void knows_utf8(void **state)
{
	static const uint8_t EDGES[] = { 0x00, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf,
					 0xc0, 0xc1, 0xc2, 0xdf, 0xe0, 0xe1, 0xec, 0xed,
					 0xee, 0xef, 0xf0, 0xf1, 0xf3, 0xf4, 0xf5, 0xff };
	enum { N = sizeof EDGES };
	(void)state;
	for (size_t i = 0; i < (size_t)N * N * N * N; i++) {
		uint8_t text[] = { EDGES[i % N], EDGES[i / N % N], EDGES[i / N / N % N],
				   EDGES[i / N / N / N] };
		struct utf8 utf8 = { 0 }, pieces = { 0 };
		bool is = utf8_take(&utf8, text, 4) && utf8_is_whole(&utf8), in_pieces = true;
		for (size_t k = 0; in_pieces && k < 4; k++)
			in_pieces = utf8_take(&pieces, text + k, 1);
		assert_int_equal(is, text_is_utf8(text, 4));
		assert_int_equal(is, in_pieces && utf8_is_whole(&pieces));
	}
}

#define AS_CLIENT(test) cmocka_unit_test_setup_teardown(test, be_client, be_server)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(takes_messages),
		cmocka_unit_test(answers_control_frames),
		cmocka_unit_test(takes_close_frames),
		cmocka_unit_test(judges_close_codes),
		cmocka_unit_test(refuses_what_breaks_the_rules),
		cmocka_unit_test(refuses_what_is_no_utf8),
		cmocka_unit_test(has_lengths),
		cmocka_unit_test(bounds_messages),
		cmocka_unit_test(keeps_no_memory),
		cmocka_unit_test(answers_pings_of_who_waits),
		cmocka_unit_test(answers_each_ping_once),
		cmocka_unit_test(writes_frames),
		cmocka_unit_test(writes_pieces),
		cmocka_unit_test(says_why_it_ends),
		cmocka_unit_test(inflates_examples),
		cmocka_unit_test(refuses_what_cannot_be_inflated),
		cmocka_unit_test(compresses),
		cmocka_unit_test(keeps_within_windows),
		cmocka_unit_test(inflates_where_it_cannot_compress),
		cmocka_unit_test(counts_what_zlib_takes),
		cmocka_unit_test(chooses_windows),
		cmocka_unit_test(talks_with_windows),
		cmocka_unit_test(inflates_what_refers_to_the_last),
		cmocka_unit_test(waits_for_room),
		cmocka_unit_test(gives_up_without_room),
		cmocka_unit_test(knows_utf8),
		AS_CLIENT(takes_messages),
		AS_CLIENT(answers_control_frames),
		AS_CLIENT(takes_close_frames),
		AS_CLIENT(judges_close_codes),
		AS_CLIENT(refuses_what_breaks_the_rules),
		AS_CLIENT(refuses_what_is_no_utf8),
		AS_CLIENT(has_lengths),
		AS_CLIENT(bounds_messages),
		AS_CLIENT(keeps_no_memory),
		AS_CLIENT(answers_each_ping_once),
		AS_CLIENT(masks_frames),
		AS_CLIENT(inflates_examples),
		AS_CLIENT(refuses_what_cannot_be_inflated),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
