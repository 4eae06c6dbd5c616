#include "control/client.h"

#include "control/message.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void on_handle_closed(uv_handle_t *handle)
{
	struct control_client *client = handle->data;
	if (--client->handles)
		return;
	free(client->reply);
	free(client);
}

void client_close(struct control_client *client)
{
	struct control *control = client->control;
	struct control_client **link = &control->clients;
	while (*link && *link != client)
		link = &(*link)->next;
	if (!*link)
		return;
	*link = client->next;
	control->client_count--;
	if (client->streams)
		control->stream(control->owner, client->id, STREAM_GONE);
	uv_close((uv_handle_t *)&client->pipe, on_handle_closed);
	uv_close((uv_handle_t *)&client->timer, on_handle_closed);
}

static void on_timeout(uv_timer_t *timer)
{
	client_close(timer->data);
}

/* ---- reading ---- */

_Static_assert(CONTROL_LINE_MAX == 4096, "the message below says so");

static void refuse_length(struct control_client *client)
{
	client->busy = client->last = true;
	client_reply(client, message_error("too_long", "a request is at most 4096 bytes long"));
}

/* Hands up a whole line, if there is one, and reads on if not. */
static void advance(struct control_client *client)
{
	char line[CONTROL_LINE_MAX + 1];
	char *end = memchr(client->line, '\n', client->used);
	if (!end && client->used < sizeof client->line)
		return;
	uv_read_stop((uv_stream_t *)&client->pipe);
	uv_timer_stop(&client->timer);
	if (!end) {
		refuse_length(client);
		return;
	}
	size_t len = (size_t)(end - client->line);
	memcpy(line, client->line, len);
	client->used -= len + 1;
	memmove(client->line, end + 1, client->used);
	client->busy = true;
	client->control->request(client->control->owner, client->id, line, len);
}

static void give_room(uv_handle_t *handle, size_t suggested, uv_buf_t *room)
{
	struct control_client *client = handle->data;
	(void)suggested;
	*room = uv_buf_init(client->line + client->used, (unsigned)(sizeof client->line - client->used));
}

/* It wants no more. Whatever else it says is not looked at. */
static void end_stream(struct control_client *client)
{
	uv_read_stop((uv_stream_t *)&client->pipe);
	client->control->stream(client->control->owner, client->id, STREAM_ENDED);
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *room)
{
	struct control_client *client = stream->data;
	(void)room;
	if (client->streams) {
		if (n != UV_EOF && n < 0)
			client_close(client);
		else if (n == UV_EOF)
			end_stream(client);
	} else if (n < 0) {
		client_close(client);
	} else if (n > 0) {
		client->used += (size_t)n;
		advance(client);
	}
}

/* The whole of the next request has to come in time: who sends a byte now and then is no better than a silent one. */
static void await_request(struct control_client *client)
{
	client->busy = false;
	uv_timer_start(&client->timer, on_timeout, CONTROL_WAIT_MS, 0);
	if (uv_read_start((uv_stream_t *)&client->pipe, give_room, on_read))
		client_close(client);
	else
		advance(client);
}

/* ---- writing ---- */

static void on_written(uv_write_t *write, int status)
{
	struct control_client *client = write->data;
	free(client->reply);
	client->reply = NULL;
	if (status == UV_ECANCELED)
		return; /* it is being closed */
	if (status || client->last) {
		client_close(client);
	} else if (client->streams) {
		uv_timer_stop(&client->timer);
		client->control->stream(client->control->owner, client->id, STREAM_SENT);
	} else {
		await_request(client);
	}
}

void client_send(struct control_client *client, char *bytes, size_t n)
{
	uv_buf_t piece = uv_buf_init(bytes, (unsigned)n);
	client->reply = bytes;
	uv_timer_start(&client->timer, on_timeout, CONTROL_WAIT_MS, 0);
	client->write.data = client;
	if (uv_write(&client->write, (uv_stream_t *)&client->pipe, &piece, 1, on_written))
		client_close(client);
}

void client_reply(struct control_client *client, json_t *reply)
{
	char *line = message_line(reply);
	json_decref(reply);
	if (line)
		client_send(client, line, strlen(line));
	else
		client_close(client);
}

/* It is read on, to see it end. */
void client_stream(struct control_client *client, json_t *reply)
{
	client->streams = true;
	client->used = 0;
	client_reply(client, reply);
	if (!uv_is_closing((uv_handle_t *)&client->pipe) &&
	    uv_read_start((uv_stream_t *)&client->pipe, give_room, on_read))
		client_close(client);
}

/* ---- life ---- */

struct control_client *client_open(struct control *control, int fd)
{
	struct control_client *client = calloc(1, sizeof *client);
	if (!client) {
		close(fd);
		return NULL;
	}
	client->control = control;
	client->id = ++control->newest_id;
	client->handles = 2;
	uv_pipe_init(control->loop, &client->pipe, 0);
	uv_timer_init(control->loop, &client->timer);
	client->pipe.data = client->timer.data = client;
	client->next = control->clients;
	control->clients = client;
	control->client_count++;
	if (uv_pipe_open(&client->pipe, fd)) {
		close(fd);
		client_close(client);
		return NULL;
	}
	await_request(client);
	return client;
}
