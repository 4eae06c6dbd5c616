#include "net/dial.h"

#include "base/text.h"
#include "net/lookup.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
	WHY_BYTES = 640, /* the target, and some attempts at it */
	TARGET_BYTES = 300,
	REASON_BYTES = 128,
	BACKLOG_RETRY_MS = 20 /* nothing tells when a Unix socket's backlog has room again */
};

/* A socket that is connecting. It outlives its dial until poller_forget(). */
struct attempt {
	struct polled polled; /* first: it leads back here */
	struct dial *dial;
	struct attempt *next;
	union address to;
};

struct dial {
	uv_timer_t timer;
	struct dialer *dialer;
	struct lookup lookup;
	struct attempt *attempts; /* under way */
	dial_done done;
	void *data;
	uint64_t next_ms; /* when the next attempt may begin, though others are under way */
	uint64_t ipv6_ms; /* IPv6 comes first if its addresses are there by then */
	bool has_begun;   /* there was an attempt */
	bool is_datagram;
	socklen_t from_bytes; /* 0: any local address */
	union {
		struct sockaddr_un path;      /* of a Unix socket */
		struct sockaddr_storage from; /* else */
	};
	socklen_t path_bytes;
	int err; /* of the attempt that tells most so far */
	size_t target_bytes, why_bytes;
	char why[WHY_BYTES]; /* the target, ": ", and what its attempts have come to */
};

static void dial_go_on(struct dial *dial);

/* ---- its end ---- */

static void on_dial_closed(uv_handle_t *timer)
{
	free(timer->data);
}

static void close_attempt(struct attempt *attempt)
{
	struct attempt **at = &attempt->dial->attempts;
	while (*at != attempt)
		at = &(*at)->next;
	*at = attempt->next;
	poller_close(&attempt->polled);
}

void dial_cancel(struct dial *dial)
{
	dial->dialer->count--;
	while (dial->attempts)
		close_attempt(dial->attempts);
	lookup_end(&dial->lookup);
	uv_close((uv_handle_t *)&dial->timer, on_dial_closed);
}

static void dial_win(struct dial *dial, int fd)
{
	dial_done done = dial->done;
	void *data = dial->data;
	dial_cancel(dial);
	done(data, fd, 0, NULL);
}

static void dial_lose(struct dial *dial, int err)
{
	char why[WHY_BYTES];
	dial_done done = dial->done;
	void *data = dial->data;
	memcpy(why, dial->why, sizeof why);
	dial_cancel(dial);
	done(data, -1, err, why);
}

/* ---- what is said of it ---- */

static const char *lookup_reason(int err, char *text, size_t size)
{
	switch (err) {
	case UV_EAI_NONAME:
		return "no such name";
	case UV_EAI_AGAIN:
		return "no name server has an answer";
	case UV_ETIMEDOUT:
		return "no name server has answered in time";
	case UV_EINVAL:
		return "not a valid name or address";
	default:
		return uv_strerror_r(err, text, size);
	}
}

static void add_why(struct dial *dial, const char *text)
{
	size_t room = sizeof dial->why - dial->why_bytes;
	int n = snprintf(dial->why + dial->why_bytes, room, "%s", text);
	dial->why_bytes += (size_t)n < room ? (size_t)n : room - 1;
}

static void add_reason(struct dial *dial, const char *reason)
{
	add_why(dial, dial->why_bytes > dial->target_bytes ? ", " : ": ");
	add_why(dial, reason);
}

/* Where it was, unless that is what the target says. */
static void add_where(struct dial *dial, const union address *to)
{
	char text[ADDRESS_TEXT_BYTES];
	address_text(&to->any, text, sizeof text);
	if (strlen(text) == dial->target_bytes && !memcmp(text, dial->why, dial->target_bytes))
		return;
	add_why(dial, " (");
	add_why(dial, text);
	add_why(dial, ")");
}

/* What is wrong here tells more than what a peer says, and that more than a way that this machine does not have. */
static int rank_of_error(int err)
{
	switch (err) {
	case UV_EMFILE:
	case UV_ENFILE:
	case UV_ENOMEM:
	case UV_ENOBUFS:
		return 2;
	case UV_ENETUNREACH:
	case UV_EHOSTUNREACH:
	case UV_EADDRNOTAVAIL:
	case UV_EAFNOSUPPORT:
		return 0;
	default:
		return 1;
	}
}

static void attempt_failed(struct dial *dial, int err, const union address *to)
{
	char text[REASON_BYTES];
	add_reason(dial, uv_strerror_r(err, text, sizeof text));
	add_where(dial, to);
	if (!dial->err || rank_of_error(err) >= rank_of_error(dial->err))
		dial->err = err;
	dial->next_ms = 0;
}

static void write_target(struct dial *dial, const struct dial_target *target)
{
	const char *name = target->is_local ? target->path : target->host;
	bool is_ipv6 = !target->is_local && strchr(name, ':');
	char text[TARGET_BYTES], port[sizeof ":65535"];
	text_escape(TEXT_LINE, text, sizeof text, name, strlen(name));
	snprintf(port, sizeof port, ":%u", target->port);
	add_why(dial, is_ipv6 ? "[" : "");
	add_why(dial, text);
	add_why(dial, is_ipv6 ? "]" : "");
	add_why(dial, target->is_local ? "" : port);
	dial->target_bytes = dial->why_bytes;
}

/* ---- attempts ---- */

/*
 * A port of this machine that nobody listens on may be the one that the kernel has chosen for this socket: then it is
 * connected to itself (RFC 9293, section 3.5, simultaneous open).
 */
static bool is_own_peer(int fd)
{
	union address ours = { 0 }, theirs = { 0 };
	socklen_t our_bytes = sizeof ours, their_bytes = sizeof theirs;
	return !getsockname(fd, &ours.any, &our_bytes) && !getpeername(fd, &theirs.any, &their_bytes) &&
	       address_is_same(&ours, &theirs);
}

/* 0: connected; UV_EAGAIN: not yet. */
static int connected(int fd)
{
	int err = 0;
	socklen_t bytes = sizeof err;
	union address peer;
	socklen_t peer_bytes = sizeof peer;
	if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &bytes))
		return -errno;
	if (err)
		return -err;
	if (getpeername(fd, &peer.any, &peer_bytes))
		return errno == ENOTCONN ? UV_EAGAIN : -errno;
	return is_own_peer(fd) ? UV_ECONNREFUSED : 0;
}

static void on_attempt_ready(struct polled *polled, uint32_t events)
{
	struct attempt *attempt = (struct attempt *)(void *)polled;
	struct dial *dial = attempt->dial;
	int err = connected(polled->fd);
	(void)events;
	if (err == UV_EAGAIN)
		return;
	if (err) {
		attempt_failed(dial, err, &attempt->to);
		close_attempt(attempt);
		dial_go_on(dial);
		return;
	}
	struct attempt **at = &dial->attempts;
	while (*at != attempt)
		at = &(*at)->next;
	*at = attempt->next;
	dial_win(dial, poller_release(polled));
}

static void on_attempt_closed(struct polled *polled)
{
	free(polled);
}

static const struct polled_ops ATTEMPT = { .ready = on_attempt_ready, .closed = on_attempt_closed };

/*
 * Two attempts from one port need SO_REUSEADDR. A port of the kernel's choice is chosen later, for one peer only. UDP
 * sockets would share a port then, and one get what is for another.
 */
static int bind_from(int fd, const struct dial *dial)
{
	int one = 1;
	if (!dial->is_datagram) {
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
		setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
	}
	return bind(fd, (const struct sockaddr *)&dial->from, dial->from_bytes) ? -errno : 0;
}

/* Connecting, or an error. */
static int open_attempt(const struct dial *dial, const union address *to)
{
	int one = 1, err = 0, type = dial->is_datagram ? SOCK_DGRAM : SOCK_STREAM;
	int fd = socket(to->any.sa_family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	if (!dial->is_datagram)
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	if (dial->from_bytes)
		err = bind_from(fd, dial);
	if (!err && connect(fd, &to->any, address_bytes(to)) && errno != EINPROGRESS)
		err = -errno;
	if (!err)
		return fd;
	close(fd);
	return err;
}

/* One that is connected already is reported like the others. */
static int begin_attempt(struct dial *dial, const union address *to)
{
	struct attempt *attempt = calloc(1, sizeof *attempt);
	if (!attempt)
		return UV_ENOMEM;
	int fd = open_attempt(dial, to);
	if (fd < 0) {
		free(attempt);
		return fd;
	}
	attempt->dial = dial;
	attempt->to = *to;
	attempt->next = dial->attempts;
	dial->attempts = attempt;
	polled_init(&attempt->polled, dial->dialer->poller, fd, &ATTEMPT);
	int err = poller_watch(&attempt->polled, EPOLLOUT);
	if (err)
		close_attempt(attempt);
	return err;
}

/* ---- the race ---- */

/* IPv4 has answered first: IPv6 is given a moment, for it would be preferred (RFC 8305, section 3). */
static bool waits_for_ipv6(const struct dial *dial, uint64_t now_ms)
{
	return !dial->has_begun && dial->lookup.asks[LOOKUP_IPV6] && now_ms < dial->ipv6_ms;
}

static bool may_begin(const struct dial *dial, uint64_t now_ms)
{
	return (!dial->attempts || now_ms >= dial->next_ms) && !waits_for_ipv6(dial, now_ms);
}

static void begin_attempts(struct dial *dial, uint64_t now_ms)
{
	union address to;
	while (may_begin(dial, now_ms) && lookup_take(&dial->lookup, &to)) {
		dial->has_begun = true;
		int err = begin_attempt(dial, &to);
		if (err)
			attempt_failed(dial, err, &to);
		else
			dial->next_ms = now_ms + dial->dialer->attempt_ms;
	}
}

static void on_dial_timer(uv_timer_t *timer)
{
	dial_go_on(timer->data);
}

/* That a family has no address is no news where the other has some. */
static void give_up(struct dial *dial)
{
	char text[REASON_BYTES];
	int err = lookup_err(&dial->lookup);
	if (err && err != UV_EAI_NODATA)
		add_reason(dial, lookup_reason(err, text, sizeof text));
	else if (!dial->err)
		add_reason(dial, dial->from_bytes ? "no address of the local address's family"
						  : "the name has no address");
	dial_lose(dial, dial->err ? dial->err : err);
}

/* The dial may be gone then. */
static void dial_go_on(struct dial *dial)
{
	uint64_t now_ms = uv_now(dial->dialer->poller->loop);
	begin_attempts(dial, now_ms);
	if (lookup_has_more(&dial->lookup)) {
		uint64_t at_ms = waits_for_ipv6(dial, now_ms) ? dial->ipv6_ms : dial->next_ms;
		uv_timer_start(&dial->timer, on_dial_timer, at_ms - now_ms, 0);
	} else if (dial->attempts || lookup_is_pending(&dial->lookup)) {
		uv_timer_stop(&dial->timer);
	} else {
		give_up(dial);
	}
}

static void on_dial_answered(struct lookup *lookup, enum lookup_family family)
{
	struct dial *dial = (struct dial *)(void *)((char *)lookup - offsetof(struct dial, lookup));
	if (family == LOOKUP_IPV4)
		dial->ipv6_ms = uv_now(dial->dialer->poller->loop) + dial->dialer->resolution_ms;
	dial_go_on(dial);
}

/* ---- Unix sockets ---- */

/* 0 bytes: the path is too long. */
static socklen_t read_path(const char *path, struct sockaddr_un *address)
{
	size_t n = strlen(path);
	*address = (struct sockaddr_un){ .sun_family = AF_UNIX };
	if (n >= sizeof address->sun_path)
		return 0;
	memcpy(address->sun_path, path, n);
	if (*path == '@')
		*address->sun_path = '\0';
	else if (n)
		n++; /* its terminator */
	return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n);
}

/* Connected, or an error. It never connects later. */
static int open_local(const struct dial *dial)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	if (!connect(fd, (const struct sockaddr *)&dial->path, dial->path_bytes))
		return fd;
	int err = -errno;
	close(fd);
	return err;
}

static void on_local_timer(uv_timer_t *timer)
{
	struct dial *dial = timer->data;
	char text[REASON_BYTES];
	int fd = dial->path_bytes ? open_local(dial) : UV_ENAMETOOLONG;
	if (fd == UV_EAGAIN) {
		uv_timer_start(&dial->timer, on_local_timer, BACKLOG_RETRY_MS, 0);
	} else if (fd >= 0) {
		dial_win(dial, fd);
	} else {
		add_reason(dial, uv_strerror_r(fd, text, sizeof text));
		dial_lose(dial, fd);
	}
}

/* ---- its beginning ---- */

/* The local address decides the family: one of the other cannot be connected from it. */
static int begin_lookup(struct dial *dial, const struct dial_target *target)
{
	struct resolver *resolver = dialer_resolver(dial->dialer);
	int family = AF_UNSPEC;
	if (!resolver)
		return UV_ENOMEM;
	if (target->from) {
		dial->from_bytes = address_plain((const struct sockaddr *)target->from, &dial->from);
		family = dial->from.ss_family;
	}
	return lookup_begin(&dial->lookup, resolver, target->host, family, target->port, on_dial_answered);
}

struct dial *dial_begin(struct dialer *dialer, const struct dial_target *target, dial_done done, void *data)
{
	struct dial *dial = calloc(1, sizeof *dial);
	if (!dial)
		return NULL;
	dial->dialer = dialer;
	dial->done = done;
	dial->data = data;
	dial->is_datagram = target->is_datagram;
	write_target(dial, target);
	if (!target->is_local && begin_lookup(dial, target)) {
		free(dial);
		return NULL;
	}
	uv_timer_init(dialer->poller->loop, &dial->timer);
	dial->timer.data = dial;
	dialer->count++;
	if (target->is_local) {
		dial->path_bytes = read_path(target->path, &dial->path);
		uv_timer_start(&dial->timer, on_local_timer, 0, 0);
	}
	return dial;
}
