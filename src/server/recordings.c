/* Who asks for a recording, and keeps it: a client of the control socket, or --record and a file. */

#include "server/internal.h"

#include "base/log.h"
#include "control/message.h"
#include "server/server.h"

#include <stdio.h>
#include <stdlib.h>

/* ---- clients ---- */

static bool keep_at_client(void *data, char *bytes, size_t n)
{
	struct server *server = data;
	return control_send(&server->commands.control, server->recording_client, bytes, n);
}

static void end_at_client(void *data)
{
	struct server *server = data;
	uint64_t client = server->recording_client;
	server->recording_client = 0;
	control_end(&server->commands.control, client);
}

void recordings_on_stream(void *data, uint64_t client, enum stream_event event)
{
	struct server *server = data;
	if (client != server->recording_client)
		return;
	switch (event) {
	case STREAM_SENT:
		if (server->recorder.is_ready)
			recorder_kept(&server->recorder);
		else
			recorder_ready(&server->recorder); /* that was the reply */
		break;
	case STREAM_ENDED:
		recorder_stop(&server->recorder, "client");
		break;
	case STREAM_GONE:
		server->recording_client = 0;
		recorder_drop_stream(&server->recorder, "the client has gone");
		break;
	}
}

static json_t *reply_to(void)
{
	json_t *reply = message_ok();
	json_object_set_new(reply, "format", json_integer(TRACE_FORMAT));
	return reply;
}

const char *recordings_begin(void *data, uint64_t client, const char *listener, struct recorder_limits limits,
			     char *why, size_t size)
{
	struct server *server = data;
	const char *objection = NULL;
	bool *wanted = NULL;
	if (server->stage != SERVING && server->stage != LEAVING)
		return "the server is not serving";
	if (listener && !(wanted = recorder_find(server->config, &server->listeners, listener, why, size)))
		return why;
	struct recorder_sink sink = { server, keep_at_client, end_at_client };
	if (!recorder_begin(&server->recorder, server->config, server->reloads.newest, wanted, limits, sink,
			    &objection))
		return objection;
	server->recording_client = client;
	control_stream(&server->commands.control, client, reply_to());
	return NULL;
}

/* ---- a file ---- */

/* Whoever started the server with --record counts on it, and sees the exit code. */
static void log_incomplete(const struct server *server, const char *why)
{
	log_write(LOG_ERROR, "the recording is not whole", F_TEXT("path", server->options.record.file),
		  F_TEXT("error", why));
}

static void recordings_on_written(void *data, int err)
{
	struct server *server = data;
	char why[RECORDER_REASON_MAX];
	/* After the last line an error can only be one of closing the file. */
	if (!err) {
		recorder_kept(&server->recorder);
		return;
	}
	snprintf(why, sizeof why, "cannot write to the file: %s", uv_strerror(err));
	log_incomplete(server, uv_strerror(err));
	recorder_drop_stream(&server->recorder, why);
}

void recordings_close(struct server *server)
{
	if (server->trace_file.stage != TRACE_FILE_OPEN)
		return;
	log_incomplete(server, "the disk has not taken it in time");
	trace_file_abandon(&server->trace_file);
}

/* 0, or an error that is in `why`. */
static int record_to_file(struct server *server, char *why, size_t size)
{
	const struct server_record *record = &server->options.record;
	struct recorder_sink sink = { &server->trace_file, trace_file_keep, trace_file_end };
	struct recorder_limits limits = { .bytes = record->max_bytes, .ms = record->ms };
	const char *objection;
	server->trace_file.owner = server;
	server->trace_file.written = recordings_on_written;
	int err = trace_file_open(&server->trace_file, &server->loop, record->file, record->force, why, size);
	if (err)
		return err;
	if (recorder_begin(&server->recorder, server->config, 1, NULL, limits, sink, &objection)) {
		recorder_ready(&server->recorder);
		return 0;
	}
	snprintf(why, size, "cannot record: %s", objection);
	trace_file_end(&server->trace_file);
	return UV_ENOMEM;
}

int recordings_start(struct server *server)
{
	char why[512];
	if (!server->options.record.file)
		return 0;
	/* The command line is that of the predecessor, whose trace the file is. */
	if (notify_succeeds(&server->notify)) {
		log_write(LOG_WARN, "not recording: the process that this one replaces has done so",
			  F_TEXT("path", server->options.record.file));
		return 0;
	}
	if (!record_to_file(server, why, sizeof why))
		return 0;
	server_cannot(server, "cannot record", why);
	return UV_EINVAL;
}
