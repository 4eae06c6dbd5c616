#include "base/log.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
	LINE_MAX_BYTES = 16384,
	TAIL_BYTES = 8,
	TEXT_MAX_BYTES = 4096, /* of a message, or of a field: so that no text crowds the others out */
};

static enum log_format format = LOG_TEXT;
static enum log_level threshold = LOG_INFO;

static const char *const LEVELS[] = { "debug", "info", "warn", "error" };

struct line {
	char text[LINE_MAX_BYTES];
	size_t len;
	bool full;
};

void log_init(enum log_format wanted, enum log_level level)
{
	if (wanted == LOG_AUTO)
		wanted = isatty(STDERR_FILENO) ? LOG_TEXT : LOG_JSON;
	format = wanted;
	threshold = level;
}

bool log_enabled(enum log_level level)
{
	return level >= threshold;
}

static void put(struct line *line, const char *bytes, size_t n)
{
	size_t room = sizeof line->text - TAIL_BYTES - line->len;
	if (n > room) {
		n = room;
		line->full = true;
	}
	memcpy(line->text + line->len, bytes, n);
	line->len += n;
}

static void put_text(struct line *line, const char *text)
{
	put(line, text, strlen(text));
}

static void put_number(struct line *line, int64_t number)
{
	char digits[24];
	snprintf(digits, sizeof digits, "%lld", (long long)number);
	put_text(line, digits);
}

/* Length of the UTF-8 sequence at s, or 0 when it is not one (RFC 3629). */
static size_t utf8_bytes(const unsigned char *s)
{
	size_t n = s[0] < 0x80                    ? 1
		   : s[0] >= 0xc2 && s[0] <= 0xdf ? 2
		   : (s[0] & 0xf0) == 0xe0        ? 3
		   : s[0] >= 0xf0 && s[0] <= 0xf4 ? 4
						  : 0;
	for (size_t i = 1; i < n; i++)
		if ((s[i] & 0xc0) != 0x80)
			return 0;
	if ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] > 0x9f) || (s[0] == 0xf0 && s[1] < 0x90) ||
	    (s[0] == 0xf4 && s[1] > 0x8f))
		return 0;
	return n;
}

/* JSON string contents (RFC 8259); in text mode the same escapes keep a line a line. */
static void put_escaped(struct line *line, const char *text, bool json)
{
	size_t limit = line->len + TEXT_MAX_BYTES;
	for (const unsigned char *s = (const unsigned char *)text; *s && !line->full;) {
		if (line->len >= limit) {
			put_text(line, "\xe2\x80\xa6"); /* an ellipsis */
			return;
		}
		size_t n = utf8_bytes(s);
		char escape[8];
		if (!n) {
			put_text(line, "\xef\xbf\xbd"); /* U+FFFD */
			s++;
			continue;
		}
		if (n > 1 || (*s >= 0x20 && *s != 0x7f && !(json && (*s == '"' || *s == '\\')))) {
			put(line, (const char *)s, n);
		} else if (*s == '"' || *s == '\\') {
			put(line, "\\", 1);
			put(line, (const char *)s, 1);
		} else if (*s == '\n') {
			put_text(line, "\\n");
		} else {
			snprintf(escape, sizeof escape, "\\u%04x", *s);
			put_text(line, escape);
		}
		s += n;
	}
}

static void put_time(struct line *line, const char *pattern)
{
	struct timespec now;
	struct tm parts;
	char text[40], millis[24];
	clock_gettime(CLOCK_REALTIME, &now);
	gmtime_r(&now.tv_sec, &parts);
	strftime(text, sizeof text, pattern, &parts);
	snprintf(millis, sizeof millis, ".%03ld", now.tv_nsec / 1000000);
	put_text(line, text);
	put_text(line, millis);
}

static bool is_excerpt(const struct log_field *field)
{
	return !strcmp(field->key, "excerpt");
}

static bool is_empty(const struct log_field *field)
{
	return field->is_text && (!field->text || !*field->text);
}

static void compose_json(struct line *line, enum log_level level, const char *message,
			 const struct log_field *fields, size_t n)
{
	put_text(line, "{\"time\":\"");
	put_time(line, "%Y-%m-%dT%H:%M:%S");
	put_text(line, "Z\",\"level\":\"");
	put_text(line, LEVELS[level]);
	put_text(line, "\",\"message\":\"");
	put_escaped(line, message, true);
	put_text(line, "\"");
	for (size_t i = 0; i < n; i++) {
		if (is_empty(&fields[i]))
			continue;
		size_t before = line->len;
		put_text(line, ",\"");
		put_text(line, fields[i].key);
		put_text(line, "\":");
		if (fields[i].is_text) {
			put_text(line, "\"");
			put_escaped(line, fields[i].text, true);
			put_text(line, "\"");
		} else {
			put_number(line, fields[i].number);
		}
		if (line->full) { /* half a field is no JSON */
			line->len = before;
			break;
		}
	}
	line->full = false;
	memcpy(line->text + line->len, "}\n", 2);
	line->len += 2;
}

static void compose_text(struct line *line, enum log_level level, const char *message,
			 const struct log_field *fields, size_t n)
{
	put_time(line, "%H:%M:%S");
	put_text(line, " ");
	put_text(line, LEVELS[level]);
	put(line, "  ", strlen(LEVELS[level]) < 5 ? 2 : 1);
	put_escaped(line, message, false);
	for (size_t i = 0; i < n; i++) {
		if (is_empty(&fields[i]) || is_excerpt(&fields[i]))
			continue;
		put_text(line, "  ");
		put_text(line, fields[i].key);
		put_text(line, "=");
		if (fields[i].is_text)
			put_escaped(line, fields[i].text, false);
		else
			put_number(line, fields[i].number);
	}
	for (size_t i = 0; i < n; i++) {
		if (is_excerpt(&fields[i]) && !is_empty(&fields[i])) {
			put_text(line, "\n");
			put_text(line, fields[i].text); /* escaped where it was made */
		}
	}
	line->text[line->len++] = '\n';
}

void log_fields(enum log_level level, const char *message, const struct log_field *fields, size_t n)
{
	if (!log_enabled(level))
		return;
	struct line line;
	line.len = 0;
	line.full = false;
	if (format == LOG_JSON)
		compose_json(&line, level, message, fields, n);
	else
		compose_text(&line, level, message, fields, n);
	/* A log that cannot be written must not stop the server; a short write is not worth a retry. */
	ssize_t ignored;
	do
		ignored = write(STDERR_FILENO, line.text, line.len);
	while (ignored < 0 && errno == EINTR);
}
