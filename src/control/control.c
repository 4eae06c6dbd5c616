#include "control/control.h"

#include "base/descriptors.h"
#include "base/log.h"
#include "control/client.h"
#include "control/message.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { STARVED_MS = 1000, LOG_EVERY_MS = 1000, ACCEPTS_PER_EVENT = 32 };

/* ---- descriptors that are kept back ---- */

static void control_on_pause_over(uv_timer_t *timer)
{
	struct control *control = timer->data;
	reactor_want(control->reactor, &control->watched, EPOLLIN);
}

/* Copies of what we have anyway: they keep places, and nothing else. As many as there are now. */
static void keep_spares(struct control *control)
{
	int fd;
	while (control->keeps && control->spare_count < CONTROL_RESERVE &&
	       (fd = fcntl(control->reactor->epoll_fd, F_DUPFD_CLOEXEC, 0)) >= 0)
		control->spares[control->spare_count++] = fd;
}

static void drop_spares(struct control *control)
{
	control->keeps = false;
	while (control->spare_count)
		close(control->spares[--control->spare_count]);
}

void control_release(struct control *control, int fd)
{
	bool is_wanted = control->keeps && control->spare_count < CONTROL_RESERVE;
	/* In one step: between two, a handler that opens files would have it. */
	if (!is_wanted || dup3(control->reactor->epoll_fd, fd, O_CLOEXEC) < 0) {
		close(fd);
		return;
	}
	control->spares[control->spare_count++] = fd;
	if (uv_is_active((uv_handle_t *)&control->pause)) {
		uv_timer_stop(&control->pause);
		control_on_pause_over(&control->pause);
	}
}

/* ---- who may come in ---- */

/* A line if it can be written at once, and the end: nobody waits for who is not let in. */
static void turn_away(struct control *control, int fd, const char *code, const char *why)
{
	json_t *reply = message_error(code, why);
	char *line = message_line(reply);
	json_decref(reply);
	if (line)
		send(fd, line, strlen(line), MSG_DONTWAIT | MSG_NOSIGNAL);
	free(line);
	control_release(control, fd);
}

/*
 * The socket's mode keeps others out already. This holds when somebody has changed that, and when a descriptor was
 * handed on.
 */
static bool is_trusted(struct control *control, int fd)
{
	struct ucred peer;
	socklen_t len = sizeof peer;
	uint64_t now_ms = uv_now(control->reactor->loop);
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

static unsigned count_reserve(const struct control *control)
{
	unsigned n = 0;
	for (const struct control_client *each = control->clients; each; each = each->next)
		n += each->is_reserve;
	return n;
}

/* Younger ones come first, so it is the last one. */
static struct control_client *oldest_reserve(const struct control *control)
{
	struct control_client *found = NULL;
	for (struct control_client *each = control->clients; each; each = each->next)
		if (each->is_reserve)
			found = each;
	return found;
}

static void control_take_in(struct control *control, int fd, bool is_spare)
{
	if (!is_trusted(control, fd)) {
		turn_away(control, fd, "not_permitted", "only the server's own user and root may control it");
		return;
	}
	unsigned reserve = count_reserve(control);
	bool is_full = control->client_count - reserve >= CONTROL_CLIENTS_MAX;
	if (is_full && reserve >= CONTROL_RESERVE)
		client_close(oldest_reserve(control));
	struct control_client *client = client_open(control, fd);
	if (client)
		client->is_reserve = is_full || is_spare;
}

/* ---- accepting ---- */

/* Without a descriptor accept() says so whether or not somebody waits. */
static bool does_somebody_wait(const struct control *control)
{
	struct pollfd fd = { .fd = control->fd, .events = POLLIN };
	return poll(&fd, 1, 0) == 1;
}

static void tell_starved(struct control *control)
{
	char why[128];
	if (!control->is_starved)
		log_write(LOG_WARN,
			  "no descriptors are left: control clients get those that are kept for them",
			  F_TEXT("error", descriptors_explain(why, sizeof why)));
	control->is_starved = true;
}

/*
 * Others have used up the descriptors: takes one that is kept back, or the place of who has had such a one long enough
 * to be answered. A descriptor, or -1 and errno.
 */
static int accept_with_spare(struct control *control)
{
	if (!does_somebody_wait(control)) {
		errno = EAGAIN;
		return -1;
	}
	tell_starved(control);
	struct control_client *oldest = control->spare_count ? NULL : oldest_reserve(control);
	if (oldest && uv_now(control->reactor->loop) - oldest->since_ms >= STARVED_MS)
		client_close(oldest);
	if (!control->spare_count) {
		errno = EMFILE;
		return -1;
	}
	close(control->spares[--control->spare_count]);
	int fd = accept4(control->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC), err = errno;
	if (fd < 0)
		keep_spares(control);
	errno = err;
	return fd;
}

/* False: nobody more now. */
static bool control_accept_one(struct control *control)
{
	int fd = accept4(control->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	bool is_spare = fd < 0 && errno == EMFILE;
	if (is_spare)
		fd = accept_with_spare(control);
	else if (fd >= 0)
		control->is_starved = false;
	if (fd >= 0) {
		control_take_in(control, fd, is_spare);
		return true;
	}
	if (errno == EINTR || errno == ECONNABORTED)
		return true;
	if (errno == EAGAIN)
		return false;
	/* It stays readable: without a pause this would spin. */
	reactor_want(control->reactor, &control->watched, 0);
	uv_timer_start(&control->pause, control_on_pause_over, STARVED_MS, 0);
	return false;
}

static void control_on_readable(struct watched *watched, unsigned events)
{
	struct control *control = watched->data;
	(void)events;
	if (uv_is_active((uv_handle_t *)&control->pause))
		return; /* an error of the socket is told whatever we wait for */
	for (int i = 0; i < ACCEPTS_PER_EVENT && control_accept_one(control); i++)
		;
}

/* ---- replies ---- */

/* Or NULL: it is no more. */
static struct control_client *control_find(const struct control *control, uint64_t id)
{
	struct control_client *client = control->clients;
	while (client && client->id != id)
		client = client->next;
	return client;
}

bool control_is_reserve(const struct control *control, uint64_t id)
{
	const struct control_client *client = control_find(control, id);
	return client && client->is_reserve;
}

void control_reply(struct control *control, uint64_t id, json_t *reply)
{
	struct control_client *client = control_find(control, id);
	if (client)
		client_reply(client, reply);
	else
		json_decref(reply);
}

int control_take(struct control *control, uint64_t id)
{
	struct control_client *client = control_find(control, id);
	return client ? client_leave(client) : -1;
}

/* ---- streams ---- */

void control_stream(struct control *control, uint64_t id, json_t *reply)
{
	struct control_client *client = control_find(control, id);
	if (client)
		client_stream(client, reply);
	else
		json_decref(reply);
}

bool control_send(struct control *control, uint64_t id, char *bytes, size_t n)
{
	struct control_client *client = control_find(control, id);
	if (client)
		client_send(client, bytes, n);
	else
		free(bytes);
	return client;
}

void control_end(struct control *control, uint64_t id)
{
	struct control_client *client = control_find(control, id);
	if (!client)
		return;
	client->streams = false;
	client_close(client);
}

/* ---- life ---- */

int control_open(struct control *control, struct reactor *reactor, int fd, void *owner,
		 void (*request)(void *owner, uint64_t client, const char *line, size_t len),
		 void (*gone)(void *owner, uint64_t client))
{
	*control = (struct control){
		.reactor = reactor, .fd = fd, .owner = owner, .request = request, .gone = gone
	};
	control->watched.ready = control_on_readable;
	int err = reactor_add(reactor, &control->watched, fd, EPOLLIN);
	if (err)
		return err;
	uv_timer_init(reactor->loop, &control->pause);
	control->watched.data = control->pause.data = control;
	control->is_open = control->keeps = true;
	keep_spares(control);
	return 0;
}

int control_move(struct control *control, int fd)
{
	control_on_readable(&control->watched, EPOLLIN);
	bool is_paused = uv_is_active((uv_handle_t *)&control->pause);
	int err = reactor_replace(control->reactor, &control->watched, fd, is_paused ? 0 : EPOLLIN);
	if (!err)
		control->fd = fd;
	return err;
}

void control_leave(struct control *control)
{
	if (!control->is_open)
		return;
	reactor_remove(control->reactor, &control->watched);
	uv_timer_stop(&control->pause);
	drop_spares(control);
}

void control_close(struct control *control)
{
	if (!control->is_open)
		return;
	control->is_open = false;
	reactor_remove(control->reactor, &control->watched);
	uv_close((uv_handle_t *)&control->pause, NULL);
	drop_spares(control);
	while (control->clients)
		client_close(control->clients);
}
