/*
 * Gives bytes to the reader of responses in one piece, byte by byte, and cut somewhere, and aborts when that makes a
 * difference. And to who reads the answer to a WebSocket's handshake.
 *
 * Input: limits, and what was asked (1 byte), cuts (1 byte), then the stream.
 */
#include "base/counters.h"
#include "http/handshake.h"
#include "support/http_answers.h"
#include "support/must.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { INPUT_HEAD_BYTES = 2 };

static const struct {
	struct http_reader_limits limits;
	uint64_t body_max;
} SETTINGS[] = {
	{ { .headers = 1024, .fields = 10 }, 64 },
	{ { .headers = 64, .fields = 2 }, 0 },
	{ { .headers = 65536, .fields = 256 }, UINT64_MAX },
	{ { .headers = 128, .fields = 4 }, 8 },
};

static struct http_answers whole, cut;

/* So many bytes at a time. */
static void run(struct http_answers *answers, uint8_t choice, const uint8_t *data, size_t n, size_t step)
{
	size_t which = choice % (sizeof SETTINGS / sizeof *SETTINGS);
	http_answers_init(answers, &SETTINGS[which].limits, choice & 0x80, SETTINGS[which].body_max);
	for (size_t at = 0; at < n; at += step)
		http_answers_put(answers, data + at, n - at < step ? n - at : step);
	http_answers_end(answers);
}

static void shake(const uint8_t *data, size_t n)
{
	static const struct handshake ASKED = {
		.request = "", .subprotocols = "chat,superchat", .compresses = true, .keeps = true
	};
	static const uint8_t NONCE[HANDSHAKE_NONCE_BYTES];
	static struct counters counters;
	const struct websocket_worker worker = { .counters = &counters,
						 .windows_max = n % 2 ? 30000 : 1 << 20 };
	struct handshake_answer answer;
	struct websocket_terms terms;
	char field[HANDSHAKE_DEFLATE_BYTES];
	uint8_t *copy = malloc(n); /* so that a sanitizer sees where it ends */
	memcpy(copy, data, n);
	enum handshake_outcome outcome = handshake_read(&ASKED, &worker, 12, NONCE, copy, n, &answer);
	MUST(strlen(answer.why) < sizeof answer.why);
	if (outcome == HANDSHAKE_ACCEPTED) {
		MUST(answer.status == 101 && answer.terms.window_bits <= 15 && answer.terms.kept_in <= 12);
		MUST(!answer.subprotocol || answer.subprotocol_bytes == 4 || answer.subprotocol_bytes == 9);
	}
	bool can = handshake_agree((const char *)copy, n, &worker, true, &terms, field);
	MUST(can == (*field != '\0') && can == (terms.window_bits >= 8) && strlen(field) < sizeof field - 1);
	MUST(terms.kept_out <= terms.window_bits && terms.kept_in <= 15);
	free(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size <= INPUT_HEAD_BYTES)
		return 0;
	size_t n = size - INPUT_HEAD_BYTES, steps[] = { 1, data[1] % 16 + 2u, data[1] + 17u };
	run(&whole, data[0], data + INPUT_HEAD_BYTES, n, n);
	for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
		run(&cut, data[0], data + INPUT_HEAD_BYTES, n, steps[i]);
		MUST(cut.text_bytes == whole.text_bytes && !memcmp(cut.text, whole.text, whole.text_bytes));
		MUST(cut.is_refused == whole.is_refused);
		http_answers_deinit(&cut);
	}
	http_answers_deinit(&whole);
	shake(data + INPUT_HEAD_BYTES, n);
	return 0;
}
