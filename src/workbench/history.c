#include "workbench/history.h"

#include "base/text.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

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

size_t history_kept(const struct history *history)
{
	return history->count < HISTORY_LINES ? history->count : HISTORY_LINES;
}

const char *history_line(const struct history *history, size_t i)
{
	size_t first = history->count - history_kept(history);
	return history->lines[(first + i) % HISTORY_LINES];
}
