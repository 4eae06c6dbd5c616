#include "record/event.h"

#include "base/text.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static const char *const NAMES[TRACE_KINDS] = {
	[TRACE_OPEN] = "open",
	[TRACE_IN] = "in",
	[TRACE_OUT] = "out",
	[TRACE_EOF] = "eof",
	[TRACE_BAD_FRAME] = "bad_frame",
	[TRACE_DRAIN] = "drain",
	[TRACE_CLOSE] = "close",
	[TRACE_LOST] = "lost",
};

const char *trace_kind_name(enum trace_kind kind)
{
	return NAMES[kind];
}

/* ---- texts ---- */

static size_t quoted_bytes(const uint8_t *s, size_t n)
{
	size_t bytes = 2;
	char piece[TEXT_PIECE_BYTES];
	for (size_t i = 0, taken; i < n; i += taken) {
		taken = text_plain(TEXT_JSON, s + i, n - i);
		bytes += taken ? taken : text_piece(TEXT_JSON, s + i, n - i, piece, &taken);
	}
	return bytes;
}

static char *put_quoted(char *to, const void *text, size_t n)
{
	const uint8_t *s = text;
	char piece[TEXT_PIECE_BYTES];
	*to++ = '"';
	for (size_t i = 0, taken; i < n; i += taken) {
		const void *from = s + i;
		size_t len = taken = text_plain(TEXT_JSON, s + i, n - i);
		if (!taken) {
			len = text_piece(TEXT_JSON, s + i, n - i, piece, &taken);
			from = piece;
		}
		memcpy(to, from, len);
		to += len;
	}
	*to++ = '"';
	return to;
}

static char *put_base64(char *to, const uint8_t *s, size_t n)
{
	static const char DIGITS[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	*to++ = '"';
	for (size_t i = 0; i < n; i += 3) {
		size_t left = n - i;
		uint32_t three = (uint32_t)s[i] << 16 | (left > 1 ? (uint32_t)s[i + 1] << 8 : 0) |
				 (left > 2 ? s[i + 2] : 0);
		*to++ = DIGITS[three >> 18];
		*to++ = DIGITS[three >> 12 & 63];
		*to++ = left > 1 ? DIGITS[three >> 6 & 63] : '=';
		*to++ = left > 2 ? DIGITS[three & 63] : '=';
	}
	*to++ = '"';
	return to;
}

/* ---- events ---- */

enum {
	FIXED_MAX = 256,         /* of a line, but for texts */
	ESCAPES_MORE_BYTES = 256 /* that a frame as a text may have, beside twice its own */
};

/* `quoted` bytes as a text: control characters take six each, so a frame of many is written as other bytes are. */
static bool fits_text(size_t quoted, size_t n)
{
	return quoted <= 2 * n + ESCAPES_MORE_BYTES;
}

size_t trace_bytes(const struct trace_event *event)
{
	size_t bytes = FIXED_MAX;
	if (event->kind == TRACE_OPEN)
		bytes += 6 * strlen(event->listener);
	if (event->kind != TRACE_IN && event->kind != TRACE_OUT)
		return bytes + 6 * event->len;
	if (event->redacted)
		return bytes;
	size_t quoted = quoted_bytes(event->data, event->len), base64 = (event->len + 2) / 3 * 4 + 2;
	return bytes + (quoted > base64 && fits_text(quoted, event->len) ? quoted : base64);
}

static char *put_frame(char *to, const struct trace_event *event)
{
	if (event->wire)
		to += sprintf(to, ",\"wire\":true");
	if (event->redacted)
		return to + sprintf(to, ",\"redacted\":%zu", event->len);
	if (fits_text(quoted_bytes(event->data, event->len), event->len) &&
	    text_is_utf8(event->data, event->len)) {
		to += sprintf(to, ",\"frame\":");
		return put_quoted(to, event->data, event->len);
	}
	to += sprintf(to, ",\"base64\":");
	return put_base64(to, event->data, event->len);
}

static char *put_details(char *to, const struct trace_event *event)
{
	switch (event->kind) {
	case TRACE_OPEN:
		to += sprintf(to, ",\"worker\":%u,\"listener\":", event->worker);
		to = put_quoted(to, event->listener, strlen(event->listener));
		to += sprintf(to, ",\"peer\":");
		return put_quoted(to, event->data, event->len);
	case TRACE_IN:
	case TRACE_OUT:
		return put_frame(to, event);
	case TRACE_CLOSE:
		to += sprintf(to, ",\"reason\":");
		return put_quoted(to, event->data, event->len);
	default:
		return to;
	}
}

size_t trace_write(const struct trace_event *event, char *to)
{
	char *at = to;
	at += sprintf(at, "{\"t\":%" PRIu64 ".%06" PRIu64 ",\"conn\":%" PRIu64 ",\"event\":\"%s\"",
		      event->at_us / 1000000, event->at_us % 1000000, event->conn, NAMES[event->kind]);
	/* Most traces are of one generation, and most events are frames: only what is not the first one is told. */
	if (event->generation != 1)
		at += sprintf(at, ",\"generation\":%" PRIu32, event->generation);
	at = put_details(at, event);
	*at++ = '}';
	*at++ = '\n';
	assert((size_t)(at - to) <= trace_bytes(event));
	return (size_t)(at - to);
}
