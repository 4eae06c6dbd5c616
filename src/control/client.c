#include "control/client.h"

#include "control/message.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void client_on_timer_closed(uv_handle_t *handle)
{
	struct control_client *client = handle->data;
	free(client->reply);
	free(client);
}

static bool is_closed(const struct control_client *client)
{
	return client->watched.fd < 0;
}

int client_leave(struct control_client *client)
{
	struct control *control = client->control;
	struct control_client **link = &control->clients;
	while (*link && *link != client)
		link = &(*link)->next;
	if (!*link)
		return -1;
	*link = client->next;
	control->client_count--;
	int fd = client->watched.fd;
	reactor_remove(control->reactor, &client->watched);
	uv_close((uv_handle_t *)&client->timer, client_on_timer_closed);
	control->gone(control->owner, client->id);
	if (client->streams)
		control->stream(control->owner, client->id, STREAM_GONE);
	return fd;
}

void client_close(struct control_client *client)
{
	struct control *control = client->control;
	int fd = client_leave(client);
	if (fd >= 0)
		control_release(control, fd);
}

static void client_on_timeout(uv_timer_t *timer)
{
	client_close(timer->data);
}

/* Reads for as long as there is room: of a client that streams, what it says is thrown away. */
static void client_watch(struct control_client *client)
{
	bool has_room = client->used < sizeof client->line;
	unsigned events = (client->eof || !has_room ? 0 : EPOLLIN) | (client->reply ? EPOLLOUT : 0);
	reactor_want(client->control->reactor, &client->watched, events);
}

/* ---- reading ---- */

_Static_assert(CONTROL_LINE_MAX == 4096, "the message below says so");

static void refuse_length(struct control_client *client)
{
	client->busy = client->last = true;
	client_reply(client, message_error("too_long", "a request is at most 4096 bytes long"));
}

/* Hands up a whole line, if there is one. The last one is ended by the end of the stream as well. */
static void client_advance(struct control_client *client)
{
	char line[CONTROL_LINE_MAX + 1];
	const char *end = memchr(client->line, '\n', client->used);
	bool is_too_long = !end && client->used == sizeof client->line;
	if (!end && !is_too_long && !(client->eof && client->used)) {
		if (client->eof)
			client_close(client);
		return;
	}
	uv_timer_stop(&client->timer);
	if (is_too_long) {
		refuse_length(client);
		return;
	}
	size_t len = end ? (size_t)(end - client->line) : client->used;
	size_t taken = end ? len + 1 : len;
	memcpy(line, client->line, len);
	client->used -= taken;
	memmove(client->line, client->line + taken, client->used);
	client->busy = true;
	client->control->request(client->control->owner, client->id, line, len);
}

/* It wants no more. Whatever else it says is not looked at. */
static void client_note_end(struct control_client *client)
{
	client->eof = true;
	if (client->streams)
		client->control->stream(client->control->owner, client->id, STREAM_ENDED);
}

static void read_more(struct control_client *client)
{
	ssize_t n = recv(client->watched.fd, client->line + client->used, sizeof client->line - client->used,
			 MSG_DONTWAIT);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n < 0)
		client_close(client);
	else if (n == 0)
		client_note_end(client);
	else if (!client->streams)
		client->used += (size_t)n;
}

/* The whole of the next request has to come in time: who sends a byte now and then is no better than a silent one. */
static void await_request(struct control_client *client)
{
	client->busy = false;
	uv_timer_start(&client->timer, client_on_timeout, CONTROL_WAIT_MS, 0);
	client_advance(client);
}

/* ---- writing ---- */

static void note_sent(struct control_client *client)
{
	free(client->reply);
	client->reply = NULL;
	if (client->last) {
		client_close(client);
	} else if (client->streams) {
		uv_timer_stop(&client->timer);
		client->control->stream(client->control->owner, client->id, STREAM_SENT);
	} else {
		await_request(client);
	}
}

static void write_more(struct control_client *client)
{
	while (client->reply_at < client->reply_size) {
		ssize_t n = send(client->watched.fd, client->reply + client->reply_at,
				 client->reply_size - client->reply_at, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			if (errno != EAGAIN)
				client_close(client);
			return;
		}
		client->reply_at += (size_t)n;
		if (client->streams) /* a piece is large, and may be taken slowly */
			uv_timer_start(&client->timer, client_on_timeout, CONTROL_WAIT_MS, 0);
	}
}

/* What is sent at once is told at the next turn: whoever sends in answer to that does not go round in here. */
void client_send(struct control_client *client, char *bytes, size_t n)
{
	client->reply = bytes;
	client->reply_size = n;
	client->reply_at = 0;
	uv_timer_start(&client->timer, client_on_timeout, CONTROL_WAIT_MS, 0);
	write_more(client);
	if (!is_closed(client))
		client_watch(client);
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
}

/* ---- events ---- */

static void client_on_writable(struct control_client *client)
{
	write_more(client);
	if (!is_closed(client) && client->reply_at == client->reply_size)
		note_sent(client);
}

/* What it has said before it left is heard: a request may be all that it wanted to say. */
static void client_on_ready(struct watched *watched, unsigned events)
{
	struct control_client *client = watched->data;
	if (events & EPOLLIN && client->used < sizeof client->line && !client->eof)
		read_more(client);
	if (!is_closed(client) && !client->busy && !client->streams)
		client_advance(client);
	if (!is_closed(client) && events & (EPOLLHUP | EPOLLERR))
		client_close(client);
	if (!is_closed(client) && events & EPOLLOUT && client->reply)
		client_on_writable(client);
	if (!is_closed(client))
		client_watch(client);
}

/* ---- life ---- */

struct control_client *client_open(struct control *control, int fd)
{
	struct control_client *client = calloc(1, sizeof *client);
	if (!client || reactor_add(control->reactor, &client->watched, fd, EPOLLIN)) {
		free(client);
		control_release(control, fd);
		return NULL;
	}
	client->control = control;
	client->id = ++control->newest_id;
	client->since_ms = uv_now(control->reactor->loop);
	uv_timer_init(control->reactor->loop, &client->timer);
	client->watched.ready = client_on_ready;
	client->watched.data = client->timer.data = client;
	client->next = control->clients;
	control->clients = client;
	control->client_count++;
	uv_timer_start(&client->timer, client_on_timeout, CONTROL_WAIT_MS, 0);
	return client;
}
