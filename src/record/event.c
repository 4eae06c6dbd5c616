#include "record/event.h"

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

/* The bytes of the character at s, or 0: that is no UTF-8. As RFC 3629 has it: nothing overlong, no surrogates. */
static size_t character(const uint8_t *s, size_t n)
{
	uint8_t low = 0x80, high = 0xbf;
	size_t len = s[0] < 0x80   ? 1
		     : s[0] < 0xc2 ? 0
		     : s[0] < 0xe0 ? 2
		     : s[0] < 0xf0 ? 3
		     : s[0] < 0xf5 ? 4
				   : 0;
	if (len > n)
		return 0;
	if (s[0] == 0xe0)
		low = 0xa0;
	else if (s[0] == 0xed)
		high = 0x9f;
	else if (s[0] == 0xf0)
		low = 0x90;
	else if (s[0] == 0xf4)
		high = 0x8f;
	if (len > 1 && (s[1] < low || s[1] > high))
		return 0;
	for (size_t i = 2; i < len; i++)
		if (s[i] < 0x80 || s[i] > 0xbf)
			return 0;
	return len;
}

static bool is_utf8(const uint8_t *s, size_t n)
{
	for (size_t i = 0, len; i < n; i += len)
		if (!(len = character(s + i, n - i)))
			return false;
	return true;
}

static size_t escaped_bytes(uint8_t c)
{
	if (c == '"' || c == '\\' || c == '\n' || c == '\r' || c == '\t')
		return 2;
	return c < 0x20 || c == 0x7f ? 6 : 1;
}

static size_t quoted_bytes(const uint8_t *s, size_t n)
{
	size_t bytes = 2;
	for (size_t i = 0; i < n; i++)
		bytes += escaped_bytes(s[i]);
	return bytes;
}

static char *put_escaped(char *to, uint8_t c)
{
	static const char HEX[] = "0123456789abcdef";
	*to++ = '\\';
	if (c == '\n' || c == '\r' || c == '\t') {
		*to++ = c == '\n' ? 'n' : c == '\r' ? 'r' : 't';
	} else if (c == '"' || c == '\\') {
		*to++ = (char)c;
	} else {
		*to++ = 'u';
		*to++ = '0';
		*to++ = '0';
		*to++ = HEX[c >> 4];
		*to++ = HEX[c & 15];
	}
	return to;
}

static char *put_quoted(char *to, const uint8_t *s, size_t n)
{
	*to++ = '"';
	for (size_t i = 0; i < n; i++) {
		if (escaped_bytes(s[i]) == 1)
			*to++ = (char)s[i];
		else
			to = put_escaped(to, s[i]);
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

/* Names and addresses are texts; one that is none is shown byte by byte, as if it were Latin-1. */
static char *put_name(char *to, const char *name, size_t n)
{
	if (is_utf8((const uint8_t *)name, n))
		return put_quoted(to, (const uint8_t *)name, n);
	*to++ = '"';
	for (size_t i = 0; i < n; i++)
		to = put_escaped(to, (uint8_t)name[i]);
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
	    is_utf8(event->data, event->len)) {
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
		to = put_name(to, event->listener, strlen(event->listener));
		to += sprintf(to, ",\"peer\":");
		return put_name(to, (const char *)event->data, event->len);
	case TRACE_IN:
	case TRACE_OUT:
		return put_frame(to, event);
	case TRACE_CLOSE:
		to += sprintf(to, ",\"reason\":");
		return put_name(to, (const char *)event->data, event->len);
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
