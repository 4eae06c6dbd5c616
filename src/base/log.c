#include "base/log.h"

#include "base/text.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <math.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <uv.h>

enum {
	LINE_MAX_BYTES = 16384,
	TAIL_BYTES = 8,
	TEXT_MAX_BYTES = 4096, /* of a message, or of a field: so that no text crowds the others out */
};

static enum log_format format = LOG_TEXT;
static enum log_level threshold = LOG_INFO;

/*
 * Where lines go. Everything here but `dropped` is guarded by the lock, which is never held across a call
 * that waits.
 */
static struct {
	pthread_mutex_t lock;
	int fd;
	bool is_socket, is_file;
	char path[PATH_MAX];       /* of the log file; or "" */
	char rest[LINE_MAX_BYTES]; /* of a line whose beginning is out: nothing else may come between */
	size_t rest_at, rest_len;
	uint64_t untold; /* entries dropped since the log last said so */
	_Atomic uint64_t dropped;
} out = { .lock = PTHREAD_MUTEX_INITIALIZER, .fd = STDERR_FILENO };

static const char *const LEVELS[] = { "debug", "info", "warn", "error" };

struct line {
	char text[LINE_MAX_BYTES];
	size_t len;
	bool full;
};

/*
 * A pipe or a terminal is opened once more, so as not to wait for its reader: O_NONBLOCK on descriptor 2 itself
 * would change it for every process that shares it. Where that cannot be had, poll(2) has to do. A file keeps
 * its descriptor, for its position's sake, and because nobody has to read it.
 */
void log_open(void)
{
	struct stat st;
	if (out.fd != STDERR_FILENO || fstat(STDERR_FILENO, &st))
		return;
	out.is_socket = S_ISSOCK(st.st_mode);
	if (!S_ISFIFO(st.st_mode) && !isatty(STDERR_FILENO))
		return;
	int fd = open("/proc/self/fd/2", O_WRONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
	if (fd >= 0)
		out.fd = fd;
}

/*
 * O_APPEND, as our predecessor or successor may write to it as well. O_NONBLOCK is for a FIFO of that name, so that
 * nobody waits for its reader; where there is none, that is an error.
 */
static int open_file(const char *path)
{
	int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_NONBLOCK | O_CLOEXEC | O_NOCTTY, 0640);
	return fd < 0 ? -errno : fd;
}

/* With the lock held, or before there are threads. */
static void use_file(int fd)
{
	struct stat st;
	if (out.fd != STDERR_FILENO)
		close(out.fd);
	out.fd = fd;
	out.is_socket = false;
	out.is_file = !fstat(fd, &st) && S_ISREG(st.st_mode);
}

const char *log_file_error(int err)
{
	return err == -ENXIO ? "nobody reads this FIFO, or it is a socket" : strerror(-err);
}

int log_open_file(const char *path)
{
	if (strlen(path) >= sizeof out.path)
		return -ENAMETOOLONG;
	int fd = open_file(path);
	if (fd < 0)
		return fd;
	use_file(fd);
	memcpy(out.path, path, strlen(path) + 1);
	return 0;
}

const char *log_path(void)
{
	return *out.path ? out.path : NULL;
}

enum log_format log_init(enum log_format wanted, enum log_level level)
{
	if (wanted == LOG_AUTO)
		wanted = isatty(out.fd) ? LOG_TEXT : LOG_JSON;
	format = wanted;
	threshold = level;
	return wanted;
}

static _Thread_local struct log_sink *diverted;

struct log_sink *log_divert(struct log_sink *sink)
{
	struct log_sink *before = diverted;
	diverted = sink;
	return before;
}

bool log_enabled(enum log_level level)
{
	return diverted || level >= threshold;
}

static void log_put(struct line *line, const char *bytes, size_t n)
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
	log_put(line, text, strlen(text));
}

/* As few digits as are read back to the same number. */
static void put_real(struct line *line, double real)
{
	char digits[32];
	snprintf(digits, sizeof digits, "%.14g", real);
	if (strtod(digits, NULL) != real)
		snprintf(digits, sizeof digits, "%.17g", real);
	put_text(line, digits);
}

/* Of what is no text. */
static void put_value(struct line *line, const struct log_field *field)
{
	char digits[24];
	if (field->kind == LOG_IS_BOOLEAN) {
		put_text(line, field->number ? "true" : "false");
	} else if (field->kind == LOG_IS_REAL) {
		put_real(line, field->real);
	} else {
		snprintf(digits, sizeof digits, "%lld", (long long)field->number);
		put_text(line, digits);
	}
}

/* Whole characters: one that has no room makes the line full. */
static void put_piece(struct line *line, const char *piece, size_t n)
{
	if (n > sizeof line->text - TAIL_BYTES - line->len)
		line->full = true;
	else
		log_put(line, piece, n);
}

/* At most `most` bytes, and then an ellipsis. */
static void put_escaped(struct line *line, enum text_form form, const char *text, size_t n, size_t most)
{
	char piece[TEXT_PIECE_BYTES];
	size_t limit = line->len + most;
	for (size_t i = 0, taken; i < n && !line->full; i += taken) {
		if (line->len >= limit) {
			put_piece(line, "\xe2\x80\xa6", 3);
			return;
		}
		size_t left = n - i, room = limit - line->len;
		taken = text_plain(form, text + i, left < room ? left : room);
		if (taken)
			log_put(line, text + i, taken);
		else
			put_piece(line, piece, text_piece(form, text + i, left, piece, &taken));
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

/* Fields that an excerpt shows as well. */
static const char *const SHOWN[] = { "error", "place", "traceback" };

static const struct log_field *excerpt_of(const struct log_entry *entry)
{
	for (size_t i = 0; i < entry->count; i++)
		if (is_excerpt(&entry->fields[i]) && !log_leaves_out(&entry->fields[i]))
			return &entry->fields[i];
	return NULL;
}

/* People are not told the same twice. A traceback is there in another form. */
static bool is_told_by(const struct log_field *excerpt, const struct log_field *field)
{
	for (size_t i = 0; i < sizeof SHOWN / sizeof *SHOWN; i++)
		if (excerpt && field->kind == LOG_IS_TEXT && !strcmp(field->key, SHOWN[i]))
			return !strcmp(field->key, "traceback") ||
			       memmem(excerpt->text, excerpt->len, field->text, field->len);
	return false;
}

static size_t most_of(const struct log_field *field)
{
	return field->most ? field->most : TEXT_MAX_BYTES;
}

static void log_put_json(struct line *line, const char *text, size_t n, size_t most)
{
	put_text(line, "\"");
	put_escaped(line, TEXT_JSON, text, n, most);
	put_text(line, "\"");
}

/* JSON has no word for what is no number, or without end: then it is a text. */
static void put_json_value(struct line *line, const struct log_field *field)
{
	bool is_quoted = field->kind == LOG_IS_REAL && !isfinite(field->real);
	if (is_quoted)
		put_text(line, "\"");
	put_value(line, field);
	if (is_quoted)
		put_text(line, "\"");
}

static void put_json_field(struct line *line, const struct log_field *field)
{
	size_t before = line->len;
	put_text(line, ",");
	log_put_json(line, field->key, strlen(field->key), TEXT_MAX_BYTES);
	put_text(line, ":");
	if (field->kind == LOG_IS_TEXT)
		log_put_json(line, field->text, field->len, most_of(field));
	else
		put_json_value(line, field);
	if (line->full) /* half a field is no JSON */
		line->len = before;
}

static void compose_json(struct line *line, const struct log_entry *entry)
{
	put_text(line, "{\"time\":\"");
	put_time(line, "%Y-%m-%dT%H:%M:%S");
	put_text(line, "Z\",\"level\":\"");
	put_text(line, LEVELS[entry->level]);
	put_text(line, "\",\"message\":");
	log_put_json(line, entry->message, entry->message_bytes, TEXT_MAX_BYTES);
	for (size_t i = 0; i < entry->count && !line->full; i++)
		if (!log_leaves_out(&entry->fields[i]))
			put_json_field(line, &entry->fields[i]);
	line->full = false;
	memcpy(line->text + line->len, "}\n", 2);
	line->len += 2;
}

static void put_text_field(struct line *line, const struct log_field *field)
{
	put_text(line, "  ");
	put_escaped(line, TEXT_LINE, field->key, strlen(field->key), TEXT_MAX_BYTES);
	put_text(line, "=");
	if (field->kind == LOG_IS_TEXT)
		put_escaped(line, TEXT_LINE, field->text, field->len, most_of(field));
	else
		put_value(line, field);
}

static void compose_text(struct line *line, const struct log_entry *entry)
{
	const struct log_field *excerpt = excerpt_of(entry);
	put_time(line, "%H:%M:%S");
	put_text(line, " ");
	put_text(line, LEVELS[entry->level]);
	log_put(line, "  ", strlen(LEVELS[entry->level]) < 5 ? 2 : 1);
	put_escaped(line, TEXT_LINE, entry->message, entry->message_bytes, TEXT_MAX_BYTES);
	for (size_t i = 0; i < entry->count; i++) {
		const struct log_field *field = &entry->fields[i];
		if (!log_leaves_out(field) && !is_excerpt(field) && !is_told_by(excerpt, field))
			put_text_field(line, field);
	}
	if (excerpt) {
		put_text(line, "\n");
		put_escaped(line, TEXT_LINES, excerpt->text, excerpt->len, sizeof line->text);
	}
	line->text[line->len++] = '\n';
}

/* ---- writing ---- */

/* How much of a piece is taken now, without waiting; negative: nothing, and errno says why. */
static ssize_t put_out(const char *bytes, size_t n)
{
	if (out.is_socket)
		return send(out.fd, bytes, n, MSG_DONTWAIT | MSG_NOSIGNAL);
	struct pollfd wait = { .fd = out.fd, .events = POLLOUT };
	int ready = poll(&wait, 1, 0);
	if (ready > 0)
		return write(out.fd, bytes, n);
	if (!ready)
		errno = EAGAIN;
	return -1;
}

/*
 * The same for any length: a pipe that is writable takes PIPE_BUF bytes whole, be it blocking or not. A file takes all
 * at once, so that no other process's entry comes between.
 */
static size_t put_out_all(const char *bytes, size_t n)
{
	size_t done = 0, most = out.is_file ? n : PIPE_BUF;
	while (done < n) {
		size_t piece = n - done < most ? n - done : most;
		ssize_t taken = put_out(bytes + done, piece);
		if (taken < 0 && errno == EINTR)
			continue;
		if (taken <= 0)
			break;
		done += (size_t)taken;
	}
	return done;
}

/* A line whose beginning is out counts as written: its rest goes first at the next occasion. */
static bool emit(const char *bytes, size_t n)
{
	out.rest_at += put_out_all(out.rest + out.rest_at, out.rest_len - out.rest_at);
	if (out.rest_at < out.rest_len)
		return false;
	size_t done = put_out_all(bytes, n);
	if (!done)
		return false;
	out.rest_at = 0;
	out.rest_len = n - done;
	memcpy(out.rest, bytes + done, n - done);
	return true;
}

static void compose(struct line *line, const struct log_entry *entry)
{
	line->len = 0;
	line->full = false;
	if (format == LOG_JSON)
		compose_json(line, entry);
	else
		compose_text(line, entry);
}

/* Once entries go out again, the log says what it lacks. */
static bool tell_dropped(void)
{
	static const char MESSAGE[] = "log entries were dropped";
	const struct log_entry entry = { LOG_WARN, MESSAGE, sizeof MESSAGE - 1, &F_INT("dropped", out.untold),
					 1 };
	struct line line;
	if (!out.untold)
		return true;
	compose(&line, &entry);
	if (!emit(line.text, line.len))
		return false;
	out.untold = 0;
	return true;
}

uint64_t log_dropped(void)
{
	return atomic_load_explicit(&out.dropped, memory_order_relaxed);
}

static void count_dropped(void)
{
	out.untold++;
	atomic_fetch_add_explicit(&out.dropped, 1, memory_order_relaxed);
}

void log_entry(const struct log_entry *entry)
{
	if (!log_enabled(entry->level))
		return;
	if (diverted) {
		diverted->take(diverted, entry);
		return;
	}
	struct line line;
	compose(&line, entry);
	pthread_mutex_lock(&out.lock);
	if (!tell_dropped() || !emit(line.text, line.len))
		count_dropped();
	pthread_mutex_unlock(&out.lock);
}

void log_fields(enum log_level level, const char *message, const struct log_field *fields, size_t n)
{
	log_entry(&(struct log_entry){ level, message, strlen(message), fields, n });
}

/* ---- another file of the same name ---- */

/* A line whose rest the old file does not take now, for want of room on its disk, is in neither. */
static void turn_to(int fd)
{
	pthread_mutex_lock(&out.lock);
	out.rest_at += put_out_all(out.rest + out.rest_at, out.rest_len - out.rest_at);
	if (out.rest_at < out.rest_len)
		count_dropped();
	out.rest_at = out.rest_len = 0;
	use_file(fd);
	pthread_mutex_unlock(&out.lock);
}

int log_reopen(void)
{
	if (!*out.path) {
		log_write(LOG_WARN, "there is no log file to reopen: log.file is not set");
		return UV_ENOTSUP;
	}
	int fd = open_file(out.path);
	if (fd < 0) {
		log_write(LOG_ERROR, "cannot reopen the log file: the old one is kept",
			  F_TEXT("path", out.path), F_TEXT("error", log_file_error(fd)));
		return fd;
	}
	turn_to(fd);
	log_write(LOG_INFO, "log reopened", F_TEXT("path", out.path), F_INT("pid", getpid()));
	return 0;
}
