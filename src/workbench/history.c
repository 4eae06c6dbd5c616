#include "workbench/history.h"

#include "base/text.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void history_deinit(struct history *history)
{
	for (size_t i = 0; history->lines && i < HISTORY_LINES; i++)
		free(history->lines[i]);
	free(history->lines);
	*history = (struct history){ 0 };
}

static char *format_line(uint64_t at_ms, const char *what)
{
	char *line = NULL;
	return asprintf(&line, "%8llums  %s", (unsigned long long)at_ms, what) < 0 ? NULL : line;
}

void history_add(struct history *history, uint64_t at_ms, const char *format, ...)
{
	va_list arguments;
	char what[512];
	if (!history->lines)
		history->lines = calloc(HISTORY_LINES, sizeof *history->lines);
	va_start(arguments, format);
	/* The analyser does not see va_start() where it has seen another file before this one. */
	vsnprintf(what, sizeof what, format, arguments); /* NOLINT(clang-analyzer-valist.Uninitialized) */
	va_end(arguments);
	char *line = history->lines ? format_line(at_ms, what) : NULL;
	if (!line) {
		history->lost++;
		return;
	}
	char **place = &history->lines[history->count++ % HISTORY_LINES];
	free(*place);
	*place = line;
}

const char *history_show(struct history_bytes *shown, const void *bytes, size_t n)
{
	char escaped[4 * HISTORY_SHOWN + 1];
	text_escape(TEXT_LINE, escaped, sizeof escaped, bytes, n < HISTORY_SHOWN ? n : HISTORY_SHOWN);
	if (n > HISTORY_SHOWN)
		snprintf(shown->text, sizeof shown->text, "\"%s…\" (%zu bytes)", escaped, n);
	else
		snprintf(shown->text, sizeof shown->text, "\"%s\"", escaped);
	return shown->text;
}

/* The bytes of a frame's head up to the mask, and *len of its payload. 0: it is not there, or not masked. */
static size_t masked_head(const uint8_t *bytes, size_t n, uint64_t *len)
{
	enum { MASKED = 0x80, LENGTH = 0x7f };
	if (n < 2 || !(bytes[1] & MASKED))
		return 0;
	unsigned more = (bytes[1] & LENGTH) == 126 ? 2 : (bytes[1] & LENGTH) == 127 ? 8 : 0;
	if (n < 2 + more)
		return 0;
	*len = more ? 0 : bytes[1] & LENGTH;
	for (unsigned i = 0; i < more; i++)
		*len = *len << 8 | bytes[2 + i];
	return 2 + more;
}

/* The first of the bytes of whole masked frames without their masks, and how many there are. 0: they are none. */
static size_t unmask(uint8_t to[HISTORY_SHOWN], const uint8_t *bytes, size_t n)
{
	enum { MASK = 4 };
	size_t count = 0;
	while (n) {
		uint64_t len = 0;
		size_t head = masked_head(bytes, n, &len);
		if (!head || n - head < MASK || n - head - MASK < len)
			return 0;
		for (size_t i = 0; i < head; i++, count++)
			if (count < HISTORY_SHOWN)
				to[count] = i == 1 ? bytes[1] & 0x7f : bytes[i];
		const uint8_t *mask = bytes + head, *payload = mask + MASK;
		for (size_t i = 0; i < len && count + i < HISTORY_SHOWN; i++)
			to[count + i] = payload[i] ^ mask[i % MASK];
		count += (size_t)len;
		bytes = payload + len;
		n -= head + MASK + (size_t)len;
	}
	return count;
}

const char *history_show_way(struct history_bytes *shown, bool *is_websocket, bool is_answer,
			     const void *bytes, size_t n)
{
	static const char SWITCHING[] = "HTTP/1.1 101 ";
	uint8_t plain[HISTORY_SHOWN];
	if (is_answer && n >= sizeof SWITCHING - 1 && !memcmp(bytes, SWITCHING, sizeof SWITCHING - 1))
		*is_websocket = true;
	size_t count = *is_websocket && !is_answer ? unmask(plain, bytes, n) : 0;
	return count ? history_show(shown, plain, count) : history_show(shown, bytes, n);
}

size_t history_kept(const struct history *history)
{
	return history->count < HISTORY_LINES ? history->count : HISTORY_LINES;
}

const char *history_line(const struct history *history, size_t i)
{
	size_t first = history->count - history_kept(history);
	return history->lines[(first + i) % HISTORY_LINES];
}
