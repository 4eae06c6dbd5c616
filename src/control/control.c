#include "control/control.h"

#include "base/log.h"
#include "control/client.h"
#include "control/message.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { STARVED_MS = 1000, LOG_EVERY_MS = 1000 };

/* ---- who may come in ---- */

/* A line if it can be written at once, and the end: nobody waits for who is not let in. */
static void turn_away(int fd, const char *code, const char *why)
{
	json_t *reply = message_error(code, why);
	char *line = message_line(reply);
	json_decref(reply);
	if (line)
		send(fd, line, strlen(line), MSG_DONTWAIT | MSG_NOSIGNAL);
	free(line);
	close(fd);
}

/*
 * The socket's mode keeps others out already. This holds when somebody has changed that, and when a descriptor was
 * handed on.
 */
static bool is_trusted(struct control *control, int fd)
{
	struct ucred peer;
	socklen_t len = sizeof peer;
	uint64_t now_ms = uv_now(control->loop);
	bool known = !getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len);
	if (known && (peer.uid == 0 || peer.uid == geteuid()))
		return true;
	if (!control->complained_ms || now_ms - control->complained_ms >= LOG_EVERY_MS) {
		control->complained_ms = now_ms ? now_ms : 1;
		log_write(LOG_WARN, "control client refused: neither of this server's user nor root",
			  F_INT("uid", known ? (int64_t)peer.uid : -1), F_INT("pid", known ? peer.pid : -1));
	}
	return false;
}

static void take_in(struct control *control, int fd)
{
	if (!is_trusted(control, fd))
		turn_away(fd, "not_permitted", "only the server's own user and root may control it");
	else if (control->client_count >= CONTROL_CLIENTS_MAX)
		turn_away(fd, "busy", "too many control clients at once");
	else
		client_open(control, fd);
}

/* ---- accepting ---- */

static void on_readable(uv_poll_t *poll, int status, int events);

static void on_pause_over(uv_timer_t *timer)
{
	struct control *control = timer->data;
	uv_poll_start(&control->poll, UV_READABLE, on_readable);
}

static void on_readable(uv_poll_t *poll, int status, int events)
{
	struct control *control = poll->data;
	(void)status;
	(void)events;
	int fd = accept4(control->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	if (fd >= 0) {
		take_in(control, fd);
	} else if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
		/* It stays readable: without a pause this would spin. */
		uv_poll_stop(poll);
		uv_timer_start(&control->pause, on_pause_over, STARVED_MS, 0);
	}
}

/* ---- replies ---- */

/* Or NULL: it is no more. */
static struct control_client *find(const struct control *control, uint64_t id)
{
	struct control_client *client = control->clients;
	while (client && client->id != id)
		client = client->next;
	return client;
}

void control_reply(struct control *control, uint64_t id, json_t *reply)
{
	struct control_client *client = find(control, id);
	if (client)
		client_reply(client, reply);
	else
		json_decref(reply);
}

/* ---- streams ---- */

void control_stream(struct control *control, uint64_t id, json_t *reply)
{
	struct control_client *client = find(control, id);
	if (client)
		client_stream(client, reply);
	else
		json_decref(reply);
}

bool control_send(struct control *control, uint64_t id, char *bytes, size_t n)
{
	struct control_client *client = find(control, id);
	if (client)
		client_send(client, bytes, n);
	else
		free(bytes);
	return client;
}

void control_end(struct control *control, uint64_t id)
{
	struct control_client *client = find(control, id);
	if (!client)
		return;
	client->streams = false;
	client_close(client);
}

/* ---- life ---- */

int control_open(struct control *control, uv_loop_t *loop, int fd, void *owner,
		 void (*request)(void *owner, uint64_t client, const char *line, size_t len))
{
	*control = (struct control){ .loop = loop, .fd = fd, .owner = owner, .request = request };
	int err = uv_poll_init(loop, &control->poll, fd);
	if (err)
		return err;
	uv_timer_init(loop, &control->pause);
	control->poll.data = control->pause.data = control;
	control->is_open = true;
	err = uv_poll_start(&control->poll, UV_READABLE, on_readable);
	if (err)
		control_close(control);
	return err;
}

void control_leave(struct control *control)
{
	if (!control->is_open)
		return;
	uv_poll_stop(&control->poll);
	uv_timer_stop(&control->pause);
}

void control_close(struct control *control)
{
	if (!control->is_open)
		return;
	control->is_open = false;
	uv_close((uv_handle_t *)&control->poll, NULL);
	uv_close((uv_handle_t *)&control->pause, NULL);
	while (control->clients)
		client_close(control->clients);
}
