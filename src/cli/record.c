/* perilune record: asks a running server for what happens on its connections, and keeps it in a file. */
#include "base/text.h"
#include "cli/cli.h"
#include "cli/options.h"
#include "cli/remote.h"
#include "cli/show.h"
#include "control/message.h"
#include "record/create.h"
#include "server/server.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { TAIL_BYTES = 4096, READ_BYTES = 65536 };

struct recording {
	const struct options *options;
	const char *path;
	int server;            /* connected */
	int out;               /* -1: not yet open */
	off_t whole, written;  /* bytes of the file: up to the last whole line, and all */
	char tail[TAIL_BYTES]; /* the last of them: the last line is in it */
	size_t tail_bytes;
};

static int cli_record_complain(const struct recording *recording, const char *code, const char *what,
			       const char *why)
{
	char text[4096];
	snprintf(text, sizeof text, "%s%s%s", what, why ? ": " : "", why ? why : "");
	return remote_refuse(recording->options, code, text);
}

/* ---- signals ---- */

static int watched = -1;

/* We say that it is enough, and get the rest. A second signal ends us. */
static void cli_record_on_signal(int number)
{
	(void)number;
	shutdown(watched, SHUT_WR);
}

static void watch_signals(int server)
{
	struct sigaction action = { .sa_handler = cli_record_on_signal,
				    .sa_flags = (int)SA_RESETHAND | SA_RESTART };
	watched = server;
	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	signal(SIGPIPE, SIG_IGN);
}

/* ---- the file ---- */

static bool is_standard_output(const struct recording *recording)
{
	return !strcmp(recording->path, "-");
}

/* 0, or an exit code after having said what is wrong. */
static int cli_record_open_file(struct recording *recording)
{
	char what[512];
	recording->out = is_standard_output(recording)
			     ? STDOUT_FILENO
			     : trace_create(recording->path, recording->options->force);
	if (recording->out >= 0)
		return 0;
	snprintf(what, sizeof what, "cannot record to %s", recording->path);
	return cli_record_complain(recording, "bad_file", what, trace_create_error(recording->out));
}

static int cli_record_write_all(int fd, const char *bytes, size_t n)
{
	while (n) {
		ssize_t written = write(fd, bytes, n);
		if (written < 0 && errno != EINTR)
			return -errno;
		bytes += written > 0 ? written : 0;
		n -= written > 0 ? (size_t)written : 0;
	}
	return 0;
}

static void remember_tail(struct recording *recording, const char *bytes, size_t n)
{
	if (n > TAIL_BYTES) {
		bytes += n - TAIL_BYTES;
		n = TAIL_BYTES;
	}
	size_t kept = recording->tail_bytes + n > TAIL_BYTES ? TAIL_BYTES - n : recording->tail_bytes;
	memmove(recording->tail, recording->tail + recording->tail_bytes - kept, kept);
	memcpy(recording->tail + kept, bytes, n);
	recording->tail_bytes = kept + n;
}

static int cli_record_keep(struct recording *recording, const char *bytes, size_t n)
{
	int err = cli_record_write_all(recording->out, bytes, n);
	if (err) {
		char what[512];
		snprintf(what, sizeof what, "cannot write to %s", recording->path);
		return cli_record_complain(recording, "bad_file", what, strerror(-err));
	}
	const char *last = memrchr(bytes, '\n', n);
	if (last)
		recording->whole = recording->written + (last + 1 - bytes);
	recording->written += (off_t)n;
	remember_tail(recording, bytes, n);
	return 0;
}

/* A trace that is cut short has whole lines all the same. */
static void cut_to_whole_lines(struct recording *recording)
{
	if (!is_standard_output(recording)) {
		int ignored = ftruncate(recording->out, recording->whole);
		(void)ignored;
	}
}

/* ---- what the server says ---- */

/* 0 if it records; else an exit code. */
static int take_reply_line(struct recording *recording, const char *line)
{
	json_t *reply = json_loads(line, 0, NULL);
	const char *why = json_string_value(json_object_get(reply, "error"));
	bool ok = json_is_true(json_object_get(reply, "ok"));
	if (!ok && why && recording->options->json)
		remote_print_json(recording->options, reply);
	else if (!ok)
		cli_record_complain(recording, "bad_answer",
				    why ? why : "the answer is not what a server of this version gives",
				    NULL);
	json_decref(reply);
	if (!ok)
		return EXIT_FAILED;
	int code = cli_record_open_file(recording);
	if (!code && !is_standard_output(recording))
		text_printf(stderr, "recording to %s; Ctrl-C ends it\n", recording->path);
	return code;
}

/* Takes what has come: the reply, then lines of the trace. Returns 0 or an exit code. */
static int cli_record_take(struct recording *recording, char *bytes, size_t *used)
{
	if (recording->out < 0) {
		char *end = memchr(bytes, '\n', *used);
		if (!end)
			return *used == READ_BYTES ? cli_record_complain(recording, "bad_answer",
									 "the answer is too long", NULL)
						   : 0;
		*end = '\0';
		int code = take_reply_line(recording, bytes);
		if (code)
			return code;
		*used -= (size_t)(end + 1 - bytes);
		memmove(bytes, end + 1, *used);
	}
	int code = *used ? cli_record_keep(recording, bytes, *used) : 0;
	*used = 0;
	return code;
}

/*
 * recv() would wait as well, but with it what is built to find races lets a signal wait until something has come: that
 * we have had enough would go unheard.
 */
static ssize_t receive_some(int server, char *to, size_t n)
{
	struct pollfd watched_input = { .fd = server, .events = POLLIN };
	while (poll(&watched_input, 1, -1) < 0 && errno == EINTR)
		;
	return recv(server, to, n, 0);
}

static int cli_record_receive(struct recording *recording)
{
	static char bytes[READ_BYTES];
	size_t used = 0;
	for (;;) {
		ssize_t n = receive_some(recording->server, bytes + used, sizeof bytes - used);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && recording->out < 0)
			return cli_record_complain(recording, "no_answer", "the server does not answer",
						   strerror(errno));
		if (n <= 0)
			return 0;
		used += (size_t)n;
		int code = cli_record_take(recording, bytes, &used);
		if (code)
			return code;
	}
}

/* ---- the summary ---- */

static long long cli_record_number(const json_t *object, const char *name)
{
	return json_integer_value(json_object_get(object, name));
}

static void show_summary(const struct recording *recording, const json_t *last)
{
	const char *reason = json_string_value(json_object_get(last, "reason"));
	FILE *to = is_standard_output(recording) ? stderr : stdout;
	text_printf(to, "%lld connections, %lld frames, %lld bytes of frames, %lld lost; ended by: %s\n",
		    cli_record_number(last, "connections"), cli_record_number(last, "frames"),
		    cli_record_number(last, "bytes"), cli_record_number(last, "lost"), reason ? reason : "?");
	if (cli_record_number(last, "lost"))
		fprintf(
		    stderr,
		    "perilune record: %lld connections are not, or not wholly, in the trace: there was no "
		    "room for them\n",
		    cli_record_number(last, "lost"));
	if (cli_record_number(last, "redaction_failures"))
		fprintf(stderr, "perilune record: record.redact failed for %lld frames: they are left out\n",
			cli_record_number(last, "redaction_failures"));
}

/* The trace's last line tells how it came out. */
static int conclude(struct recording *recording)
{
	const char *tail = recording->tail, *end = memrchr(tail, '\n', recording->tail_bytes);
	const char *before = end ? memrchr(tail, '\n', (size_t)(end - tail)) : NULL;
	const char *start = before ? before + 1 : tail;
	json_t *last = end ? json_loadb(start, (size_t)(end - start), 0, NULL) : NULL;
	const char *event = json_string_value(json_object_get(last, "event"));
	bool is_end = event && !strcmp(event, "end");
	if (is_end && recording->options->json)
		remote_print_json(recording->options, last);
	else if (is_end)
		show_summary(recording, last);
	else
		cli_record_complain(recording, "no_answer",
				    "the server ended the recording in its midst: the trace is cut short",
				    NULL);
	json_decref(last);
	return is_end ? EXIT_OK : EXIT_FAILED;
}

/* ---- the command ---- */

static char *request_of(const struct options *options)
{
	json_t *request = json_pack("{s:s,s:I,s:I}", "command", "record", "max_bytes",
				    (json_int_t)options->max_bytes, "ms", (json_int_t)options->record_ms);
	if (options->listener)
		message_set_text(request, "listener", options->listener);
	char *line = message_line(request);
	json_decref(request);
	return line;
}

static int cli_record_run(const struct options *options)
{
	struct recording recording = { .options = options,
				       .path = options->out ? options->out : "trace.jsonl",
				       .out = -1,
				       .server = remote_reach(options) };
	char *request = request_of(options);
	int code = EXIT_FAILED;
	if (recording.server >= 0 && request) {
		watch_signals(recording.server);
		/* Who is turned away finds the answer before the question is read. */
		remote_send(recording.server, request);
		code = cli_record_receive(&recording);
	}
	free(request);
	if (recording.out >= 0) {
		cut_to_whole_lines(&recording);
		code = code ? code : conclude(&recording);
	} else if (!code) {
		code =
		    cli_record_complain(&recording, "no_answer", "the server ended without an answer", NULL);
	}
	return code;
}

const struct command command_record = {
	.name = "record",
	.arguments = "[options]",
	.summary = "record what happens on a server's connections",
	.about =
	    "Writes what a running server gets and sends, frame by frame and with the times, to a file that\n"
	    "'perilune replay' runs against another version of the script. Connections that begin while it\n"
	    "records are in it, from their beginning on. Ctrl-C ends it.",
	.notes = "Exit codes:\n"
		 "  0   recorded, until --seconds or --max-size, Ctrl-C or the end of the server\n"
		 "  1   it could not be done, or no server was found, or more than one\n"
		 "  2   wrong usage\n"
		 "\n"
		 "Example:\n"
		 "  perilune record --listener 9000 --out trace.jsonl --seconds 60\n",
	.options = FOR_RECORD,
	.run = cli_record_run,
};
