#include "restart/notify.h"

#include "base/log.h"
#include "restart/variables.h"

#include <errno.h>
#include <linux/sockios.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

enum { WAIT_S = 1 };

/* ---- sending ---- */

/* 0 for what is no address of a socket. */
static socklen_t parse(const char *text, struct sockaddr_un *address)
{
	size_t length = strlen(text);
	*address = (struct sockaddr_un){ .sun_family = AF_UNIX };
	if ((*text != '/' && *text != '@') || length >= sizeof address->sun_path)
		return 0;
	memcpy(address->sun_path, text, length);
	if (*text == '@')
		address->sun_path[0] = '\0';
	/* An abstract name has no terminator: what is counted is the name. */
	return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length + (*text == '/'));
}

/*
 * Has what was sent last not been read yet? A queue of few datagrams (net.unix.max_dgram_qlen, 10 as a rule) is filled
 * by the pulse in no time where the manager is held up, and then what matters would be lost.
 */
static bool is_unread(const struct notify *notify)
{
	int bytes = 0;
	return !ioctl(notify->fd, SIOCOUTQ, &bytes) && bytes > 0;
}

/*
 * Waits for WAIT_S where the queue is full, but not again and again. Who cannot be reached is complained of once, and
 * again after it could be: the pulse comes many times a second.
 */
static void send_to(struct notify *notify, const char *to, const char *state)
{
	struct sockaddr_un address;
	socklen_t length = parse(to, &address);
	if (notify->fd < 0 || !*to)
		return;
	bool sent = length && sendto(notify->fd, state, strlen(state),
				     MSG_NOSIGNAL | (notify->is_deaf ? MSG_DONTWAIT : 0),
				     (const struct sockaddr *)&address, length) >= 0;
	if (!sent && !notify->is_deaf)
		log_write(LOG_WARN, "cannot notify who started this process",
			  F_TEXT("error", length ? strerror(errno) : "this is no address of a Unix socket"),
			  F_TEXT("socket", to), F_TEXT("state", state));
	notify->is_deaf = !sent;
}

/* ---- what is said ---- */

void notify_open(struct notify *notify)
{
	const struct variables *given = variables_taken();
	*notify = (struct notify){ .watchdog_us = given->watchdog_us };
	/* One that is cut is no address, and that is told when it is used. */
	snprintf(notify->starter, sizeof notify->starter, "%s", given->notify);
	snprintf(notify->manager, sizeof notify->manager, "%s", given->notify_manager);
	notify->fd = *notify->starter ? socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0) : -1;
	if (notify->fd >= 0)
		setsockopt(notify->fd, SOL_SOCKET, SO_SNDTIMEO, &(struct timeval){ .tv_sec = WAIT_S },
			   sizeof(struct timeval));
}

void notify_close(struct notify *notify)
{
	if (notify->fd >= 0)
		close(notify->fd);
	notify->fd = -1;
}

/* A predecessor names the manager, or "-" where there is none: who names nobody is the manager itself. */
void notify_ready(struct notify *notify)
{
	send_to(notify, notify->starter, "READY=1");
	if (!*notify->manager)
		memcpy(notify->manager, notify->starter, sizeof notify->manager);
	else if (!strcmp(notify->manager, "-"))
		*notify->manager = '\0';
	*notify->starter = '\0';
	if (!*notify->manager)
		notify_close(notify);
}

/* A state is a line: of an excerpt, the message and the place are told. */
void notify_failed(struct notify *notify, const char *why)
{
	static const char ERROR[] = "error: ", PLACE[] = "\n  --> ";
	char state[800];
	if (!strncmp(why, ERROR, sizeof ERROR - 1))
		why += sizeof ERROR - 1;
	size_t length = strcspn(why, "\n");
	const char *place = why + length;
	place = strncmp(place, PLACE, sizeof PLACE - 1) != 0 ? "" : place + sizeof PLACE - 1;
	snprintf(state, sizeof state, "STATUS=%.*s%s%.*s", (int)length, why, *place ? " at " : "",
		 (int)strcspn(place, "\n"), place);
	send_to(notify, notify->starter, state);
}

bool notify_succeeds(const struct notify *notify)
{
	return *notify->starter && *notify->manager;
}

bool notify_wanted(const struct notify *notify)
{
	return notify->fd >= 0 && *notify->manager && !*notify->starter;
}

void notify_tell(struct notify *notify, const char *state)
{
	if (notify_wanted(notify))
		send_to(notify, notify->manager, state);
}

void notify_alive(struct notify *notify)
{
	if (notify_wanted(notify) && !is_unread(notify))
		send_to(notify, notify->manager, "WATCHDOG=1");
}

/* By the clock that `Type=notify-reload` compares with its own. */
void notify_reloading(struct notify *notify)
{
	char state[64];
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	snprintf(state, sizeof state, "RELOADING=1\nMONOTONIC_USEC=%llu",
		 (unsigned long long)now.tv_sec * 1000000 + (unsigned long long)now.tv_nsec / 1000);
	notify_tell(notify, state);
}

void notify_hand_over(struct notify *notify, int pid)
{
	char state[64];
	snprintf(state, sizeof state, "MAINPID=%d\nREADY=1", pid);
	notify_tell(notify, state);
	*notify->manager = '\0';
}
