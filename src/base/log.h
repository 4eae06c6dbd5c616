/*
 * Log lines: an event, a message, fields. Text on a terminal, JSON elsewhere.
 *
 * A line is formatted on the stack and leaves whole, under a lock, so threads do
 * not mix. What does not fit is cut. Texts are escaped (base/text.h), a zero byte in
 * one like any other, so no control character reaches the output raw. Nobody waits for whoever reads the log: an entry
 * that does not go out at once is dropped and counted. A file is waited for, as disks are.
 *
 * Threads: log_open() and log_init() first, from one; then any.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum log_format { LOG_AUTO, LOG_TEXT, LOG_JSON };
enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR };

enum log_kind {
	LOG_IS_INTEGER, /* `number` */
	LOG_IS_TEXT,
	LOG_IS_REAL,
	LOG_IS_BOOLEAN, /* `number` is 0 or 1 */
};

struct log_field {
	const char *key;
	enum log_kind kind;
	uint32_t most; /* bytes of the text as it is shown; 0: as many as any text may have */
	const char *text;
	size_t len; /* of the text */
	union {
		int64_t number;
		double real;
	};
	bool shows_empty; /* a text without bytes is not left out */
};

static inline struct log_field log_text(const char *key, const char *text)
{
	return (struct log_field){
		.key = key, .kind = LOG_IS_TEXT, .text = text, .len = text ? strlen(text) : 0
	};
}

static inline bool log_leaves_out(const struct log_field *field)
{
	return field->kind == LOG_IS_TEXT && (!field->text || !field->len) && !field->shows_empty;
}

/* Fields that are NULL or "" are left out. */
#define F_TEXT(k, t) log_text((k), (t))
/* Any bytes, by their length. */
#define F_BYTES(k, t, n) ((struct log_field){ .key = (k), .kind = LOG_IS_TEXT, .text = (t), .len = (n) })
#define F_INT(k, n) ((struct log_field){ .key = (k), .number = (int64_t)(n) })

struct log_entry {
	enum log_level level;
	const char *message; /* terminated, and may have zero bytes before */
	size_t message_bytes;
	const struct log_field *fields;
	size_t count;
};

/*
 * log_write(level, "message", F_INT("conn", 42), …). A field named "excerpt" is
 * for people: it follows the line as it is in text, and is a plain field in JSON. What it says of "error", "place" and
 * "traceback" is left out of the line before it.
 */
#define log_write(level, message, ...)                                        \
	log_fields(level, message, (const struct log_field[]){ __VA_ARGS__ }, \
		   sizeof((const struct log_field[]){ __VA_ARGS__ }) / sizeof(struct log_field))

/* Takes over standard error, whatever it is. Until then entries are written to it as well, but a reader that
 * does not read a terminal may be waited for. Once. */
void log_open(void);

/*
 * Entries go to the end of this file from now on, which is made if it has to be (0640). 0 or a negative error, and then
 * nothing has changed. Once, before log_init().
 */
int log_open_file(const char *path);

/* What such an error means to people. */
const char *log_file_error(int err);

/*
 * Opens the file anew, as its name may stand for another one by now, and logs what comes of it. The files are exchanged
 * under the lock that entries are written under. 0, or a negative error:
 * the old one is kept, or there is none (UV_ENOTSUP).
 */
int log_reopen(void);

/* The log file, or NULL. */
const char *log_path(void);

/* Returns the format that it comes to: LOG_AUTO is text on a terminal, else JSON. */
enum log_format log_init(enum log_format format, enum log_level level);

/* Whoever takes entries in place of the log. What it is given lives as long as the call. */
struct log_sink {
	void (*take)(struct log_sink *sink, const struct log_entry *entry);
};

/* From now on this thread's entries go to the sink, whatever their level; NULL: to the log. Returns who had them. */
struct log_sink *log_divert(struct log_sink *sink);

bool log_enabled(enum log_level level);
void log_entry(const struct log_entry *entry);

/* The same of a message without zero bytes. */
void log_fields(enum log_level level, const char *message, const struct log_field *fields, size_t n);

/* Entries that were dropped so far, because the log's reader does not read or the disk is full. */
uint64_t log_dropped(void);
