/*
 * Fan-out: one connection publishes, all others are members, and the next burst leaves when each member has all of the
 * last one. What is counted are deliveries: messages times members.
 *
 * Every member gets the same bytes, so one image of a burst is what is compared with, byte by byte and in order.
 */
#define _GNU_SOURCE
#include "client.h"
#include "clock.h"
#include "dial.h"
#include "frame.h"
#include "loop.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
	EVENTS = 512,
	READ_BYTES = 64 << 10,
	TICK_MS = 100,
	HEAD_MAX = 64, /* bytes before and behind a message, and of a reply to who joins */
	DIGITS = 16,
};

/* What a server is told, and what it says. A message is `size` bytes: the word, a number in digits, filler. */
struct dialect {
	const char *join, *joined; /* what a member says, and all that it is answered */
	const char *before;        /* a message, of who publishes */
	const char *tells;         /* ... and of who gets it */
	const char *behind;        /* both */
	const char *word;          /* that a message begins with */
};

/* The lengths of frames are four bytes, and have no place in texts: fan_run() puts them in front. */
static const struct dialect FRAMES = { "join", "here", "", "", "", "send" };
static const struct dialect REDIS = {
	"SUBSCRIBE t\r\n",
	"*3\r\n$9\r\nsubscribe\r\n$1\r\nt\r\n:1\r\n",
	"PUBLISH t ",
	"*3\r\n$7\r\nmessage\r\n$1\r\nt\r\n",
	"\r\n",
	"",
};

struct member {
	int fd;
	size_t have; /* bytes of the burst */
};

struct fan {
	struct loop loop;
	const struct options *o;
	const struct dialect *dialect;
	int epoll_fd, publisher;
	struct member *members; /* the last one is who publishes: what it is told is not looked at */
	uint8_t *asked, *told;  /* a burst, as it is published, and as members get it */
	size_t asked_bytes, told_bytes, asked_at, told_at; /* of one message, and where its number is */
	uint64_t serial, began_ns;
	int waiting; /* members that do not have all of the burst */
};

static size_t put(uint8_t *to, const char *text)
{
	size_t n = strlen(text);

	memcpy(to, text, n);
	return n;
}

/* One message with what is around it, all but its number; *number: where that is. Returns how many bytes. */
static size_t write_one(const struct fan *f, uint8_t *to, const char *before, size_t *number)
{
	const bool is_frame = f->dialect == &FRAMES;
	const size_t size = f->o->size, word = strlen(f->dialect->word);
	size_t at;

	if (is_frame) {
		frame_put_header(to, size);
		at = FRAME_HEADER;
	} else {
		at = put(to, before);
		if (before == f->dialect->tells)
			at += (size_t)sprintf((char *)to + at, "$%zu\r\n", size);
	}
	at += put(to + at, f->dialect->word);
	*number = at;
	memset(to + at, '0', DIGITS);
	memset(to + at + DIGITS, 'x', size - word - DIGITS);
	at += size - word;
	return at + put(to + at, f->dialect->behind);
}

static void prepare_burst(struct fan *f)
{
	const size_t n = (size_t)f->o->pipeline;
	uint8_t *one = need_zeroed(1, f->o->size + 2 * HEAD_MAX);

	f->asked_bytes = write_one(f, one, f->dialect->before, &f->asked_at);
	f->asked = need_zeroed(n, f->asked_bytes);
	for (size_t i = 0; i < n; i++)
		memcpy(f->asked + i * f->asked_bytes, one, f->asked_bytes);
	f->told_bytes = write_one(f, one, f->dialect->tells, &f->told_at);
	f->told = need_zeroed(n, f->told_bytes);
	for (size_t i = 0; i < n; i++)
		memcpy(f->told + i * f->told_bytes, one, f->told_bytes);
	free(one);
}

static void watch_member(struct fan *f, struct member *member)
{
	struct epoll_event ev = { .events = EPOLLIN, .data.ptr = member };

	if (epoll_ctl(f->epoll_fd, EPOLL_CTL_ADD, member->fd, &ev) != 0)
		die("epoll_ctl");
}

static size_t with_header(const struct fan *f, uint8_t *to, const char *text)
{
	size_t n = strlen(text), head = f->dialect == &FRAMES ? FRAME_HEADER : 0;

	if (head)
		frame_put_header(to, n);
	memcpy(to + head, text, n);
	return head + n;
}

static void join(const struct fan *f, int fd)
{
	uint8_t said[HEAD_MAX], expected[HEAD_MAX], got[HEAD_MAX];
	size_t n = with_header(f, said, f->dialect->join), m = with_header(f, expected, f->dialect->joined);

	if (!dial_send(fd, NULL, said, n) || !dial_receive(fd, NULL, got, m) || memcmp(got, expected, m) != 0)
		die("a member cannot join");
}

static void connect_members(struct fan *f)
{
	const int n = f->o->connections;

	f->members = need_zeroed((size_t)n + 1, sizeof *f->members);
	for (int i = 0; i <= n; i++) {
		f->members[i].fd = dial(f->o, (uint64_t)i);
		if (i < n)
			join(f, f->members[i].fd);
		watch_member(f, &f->members[i]);
	}
	f->publisher = f->members[n].fd;
}

static void begin_burst(struct fan *f)
{
	const size_t n = (size_t)f->o->pipeline;
	char digits[DIGITS + 1];

	for (size_t i = 0; i < n; i++) {
		snprintf(digits, sizeof digits, "%016llx", (unsigned long long)f->serial++);
		memcpy(f->asked + i * f->asked_bytes + f->asked_at, digits, DIGITS);
		memcpy(f->told + i * f->told_bytes + f->told_at, digits, DIGITS);
	}
	for (int i = 0; i < f->o->connections; i++)
		f->members[i].have = 0;
	f->waiting = f->o->connections;
	f->began_ns = now_ns();
	if (!dial_send(f->publisher, NULL, f->asked, n * f->asked_bytes))
		die("cannot publish");
}

/* False: it is not what was published, or the end. */
static bool take(struct fan *f, struct member *member)
{
	static uint8_t in[READ_BYTES];
	const size_t all = (size_t)f->o->pipeline * f->told_bytes;
	ssize_t got = recv(member->fd, in, sizeof in, 0);

	if (got < 0)
		return errno == EAGAIN || errno == EINTR;
	if (!got || (member->fd != f->publisher && ((size_t)got > all - member->have ||
						    memcmp(in, f->told + member->have, (size_t)got) != 0)))
		return false;
	if (member->fd == f->publisher)
		return true;
	member->have += (size_t)got;
	if (member->have == all) {
		f->waiting--;
		f->loop.replies += (uint64_t)f->o->pipeline;
		hist_add(&f->loop.latency, now_ns() - f->began_ns, 1);
	}
	return true;
}

static void turn(void *self)
{
	struct fan *f = self;
	struct epoll_event events[EVENTS];

	if (!f->waiting)
		begin_burst(f);
	int n = epoll_wait(f->epoll_fd, events, EVENTS, TICK_MS);
	for (int i = 0; i < n; i++) {
		struct member *member = events[i].data.ptr;

		if (!take(f, member)) {
			f->loop.errors++;
			epoll_ctl(f->epoll_fd, EPOLL_CTL_DEL, member->fd, NULL);
		}
	}
}

int fan_run(const struct options *o)
{
	struct fan *f = need_zeroed(1, sizeof *f);

	f->o = f->loop.o = o;
	f->dialect = o->redis ? &REDIS : &FRAMES;
	f->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (f->epoll_fd < 0)
		die("epoll_create1");
	f->serial = frame_first_serial();
	prepare_burst(f);
	connect_members(f);
	loop_run(&f->loop, turn, f);
	return loop_report(&f->loop, "");
}
