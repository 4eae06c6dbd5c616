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
#include <uv.h>

enum { WAIT_MS = 1000, US_PER_S = 1000 * 1000 };

/* ---- sending ---- */

/* 0 for what is no address of a socket. */
static socklen_t notify_parse(const char *text, struct sockaddr_un *address)
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
 * by the pulse in no time where the manager is held up, and then what matters would be lost. This knows our own
 * datagrams only; others may fill the queue as well.
 */
static bool is_unread(const struct notify *notify)
{
	int bytes = 0;
	return !ioctl(notify->fd, SIOCOUTQ, &bytes) && bytes > 0;
}

/* False: it may wait for ever. Not 0, which means that, too. */
static bool notify_set_patience(int fd, uint64_t us)
{
	struct timeval limit = { .tv_sec = (time_t)(us / US_PER_S), .tv_usec = (suseconds_t)(us % US_PER_S) };
	return !setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
}

static uint64_t now_us(void)
{
	return uv_hrtime() / 1000;
}

/*
 * Where the queue is full, waits so long for room. With a time-out, a signal ends the call in spite of SA_RESTART, and
 * what is left of the time is for another one. 0 or a negative error.
 */
static int send_within(int fd, uint32_t ms, const char *to, const char *state)
{
	struct sockaddr_un address;
	socklen_t length = notify_parse(to, &address);
	if (!length)
		return UV_EINVAL;
	for (uint64_t now = now_us(), until = now + ms * UINT64_C(1000);; now = now_us()) {
		int flags =
		    MSG_NOSIGNAL | (now < until && notify_set_patience(fd, until - now) ? 0 : MSG_DONTWAIT);
		if (sendto(fd, state, strlen(state), flags, (const struct sockaddr *)&address, length) >= 0)
			return 0;
		if (errno != EINTR)
			return -errno;
	}
}

/* Who cannot be reached is complained of once, and again after it could be: the pulse comes many times a second. */
static void notify_complain(struct notify *notify, const char *to, const char *state, int err)
{
	struct sockaddr_un address;
	if (!notify->is_missed)
		log_write(LOG_WARN, "cannot notify who started this process",
			  F_TEXT("error", notify_parse(to, &address) ? strerror(-err)
								     : "this is no address of a Unix socket"),
			  F_TEXT("socket", to), F_TEXT("state", state));
	notify->is_missed = true;
}

static void note_heard(struct notify *notify)
{
	notify->is_deaf = notify->is_missed = false;
}

/* What matters waits where the queue is full, but not again and again. */
static void send_to(struct notify *notify, const char *to, const char *state)
{
	if (notify->fd < 0 || !*to)
		return;
	int err = send_within(notify->fd, notify->is_deaf ? 0 : notify->wait_ms, to, state);
	if (err) {
		notify_complain(notify, to, state, err);
		notify->is_deaf = true;
	} else {
		note_heard(notify);
	}
}

/* The next one says the same: that there is no room now is no failure, and leaves the wait to what matters. */
static void send_pulse(struct notify *notify)
{
	static const char STATE[] = "WATCHDOG=1";
	int err = send_within(notify->fd, 0, notify->manager, STATE);
	if (!err)
		note_heard(notify);
	else if (err != UV_EAGAIN)
		notify_complain(notify, notify->manager, STATE, err);
}

/* ---- what is said ---- */

void notify_open(struct notify *notify)
{
	const struct variables *given = variables_taken();
	*notify = (struct notify){ .watchdog_us = given->watchdog_us, .wait_ms = WAIT_MS };
	/* One that is cut is no address, and that is told when it is used. */
	snprintf(notify->starter, sizeof notify->starter, "%s", given->notify);
	snprintf(notify->manager, sizeof notify->manager, "%s", given->notify_manager);
	notify->fd = *notify->starter ? socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0) : -1;
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
		send_pulse(notify);
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
