/*
 * Makes calls of the system fail on purpose. The linker leads the calls of our objects, and of a static libuv,
 * through here (cmake/faults.cmake); what is Lua's goes through lua_shim.c.
 *
 *   FAULT=accept4:3:EMFILE    the third one
 *   FAULT=memory:17+          that and all later ones
 *   FAULT=lua_memory:2/       every other one
 *   FAULT=recvfrom:3/7:EINTR  the third one of each seven
 *   FAULT=sendto:1+:short     a byte at a time; several faults are separated by commas
 *   FAULT_ARM=path            nothing counts before this file exists
 *   FAULT_REPORT=path         is told "fired KIND NUMBER" at once, and "calls KIND COUNT" at the end
 *
 * Threads: any; the k-th call is the k-th of all threads.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <uv.h>

#include "shim.h"

static struct point {
	const char *name;
	int error; /* unless the fault names one */
	unsigned from, each;
	bool on, onward, is_short;
	atomic_uint calls;
} points[KINDS] = {
	[MEMORY] = { .name = "memory", .error = ENOMEM },
	[UV_MEMORY] = { .name = "uv_memory", .error = ENOMEM },
	[LUA_MEMORY] = { .name = "lua_memory" },
	[LUA_LARGE] = { .name = "lua_large" },
	[LUA_STACK] = { .name = "lua_stack" },
	[FINALISER] = { .name = "finaliser" },
	[ACCEPT4] = { .name = "accept4", .error = EMFILE },
	[BIND] = { .name = "bind", .error = EADDRINUSE },
	[CONNECT] = { .name = "connect", .error = ECONNREFUSED },
	[EPOLL_CREATE1] = { .name = "epoll_create1", .error = EMFILE },
	[EPOLL_CTL] = { .name = "epoll_ctl", .error = ENOMEM },
	[EPOLL_WAIT] = { .name = "epoll_wait", .error = EINTR },
	[EVENTFD] = { .name = "eventfd", .error = EMFILE },
	[GETPEERNAME] = { .name = "getpeername", .error = ENOBUFS },
	[GETRLIMIT] = { .name = "getrlimit", .error = EPERM },
	[GETSOCKNAME] = { .name = "getsockname", .error = ENOBUFS },
	[IOCTL] = { .name = "ioctl", .error = EINVAL },
	[LISTEN] = { .name = "listen", .error = EADDRINUSE },
	[OPENDIR] = { .name = "opendir", .error = EMFILE },
	[PIPE2] = { .name = "pipe2", .error = EMFILE },
	[PTHREAD_CREATE] = { .name = "pthread_create", .error = EAGAIN },
	[RECVFROM] = { .name = "recvfrom", .error = ECONNRESET },
	[RECVMMSG] = { .name = "recvmmsg", .error = ECONNREFUSED },
	[SENDFILE] = { .name = "sendfile", .error = EPIPE },
	[SENDMMSG] = { .name = "sendmmsg", .error = EPERM },
	[SENDTO] = { .name = "sendto", .error = EPIPE },
	[SETSOCKOPT] = { .name = "setsockopt", .error = EINVAL },
	[SHUTDOWN] = { .name = "shutdown", .error = ENOTCONN },
	[SOCKET] = { .name = "socket", .error = EMFILE },
};

static const struct {
	const char *name;
	int number;
} ERRORS[] = {
	{ "EMFILE", EMFILE },
	{ "ENFILE", ENFILE },
	{ "ENOMEM", ENOMEM },
	{ "ENOBUFS", ENOBUFS },
	{ "ENOSPC", ENOSPC },
	{ "EPERM", EPERM },
	{ "EACCES", EACCES },
	{ "EINTR", EINTR },
	{ "EAGAIN", EAGAIN },
	{ "EPROTO", EPROTO },
	{ "EPIPE", EPIPE },
	{ "ECONNRESET", ECONNRESET },
	{ "ECONNABORTED", ECONNABORTED },
	{ "ECONNREFUSED", ECONNREFUSED },
	{ "EINVAL", EINVAL },
	{ "EIO", EIO },
	{ "EMSGSIZE", EMSGSIZE },
	{ "ENETUNREACH", ENETUNREACH },
};

static atomic_bool armed;

/* ---- what was asked for ---- */

static void give_up(const char *what)
{
	fprintf(stderr, "FAULT: %s\n", what);
	abort();
}

static void set_how(struct point *point, const char *how)
{
	if (!strcmp(how, "short")) {
		point->is_short = true;
		return;
	}
	for (size_t i = 0; i < sizeof ERRORS / sizeof *ERRORS; i++) {
		if (!strcmp(ERRORS[i].name, how)) {
			point->error = ERRORS[i].number;
			return;
		}
	}
	give_up(how);
}

/* One of "kind:number[+ | /[each]][:how]". */
static void set_fault(char *fault)
{
	char *number = strchr(fault, ':'), *rest;
	if (!number)
		give_up(fault);
	*number++ = '\0';
	struct point *point = points;
	while (point < points + KINDS && strcmp(point->name, fault) != 0)
		point++;
	if (point == points + KINDS)
		give_up(fault);
	point->on = true;
	point->from = (unsigned)strtoul(number, &rest, 10);
	point->onward = *rest == '+';
	rest += point->onward;
	if (*rest == '/') {
		point->each = (unsigned)strtoul(rest + 1, &rest, 10);
		point->each += point->each ? 0 : point->from;
	}
	if (*rest == ':')
		set_how(point, rest + 1);
}

static void *uv_own_malloc(size_t bytes);
static void *uv_own_calloc(size_t n, size_t bytes);
static void *uv_own_realloc(void *block, size_t bytes);

static __attribute__((constructor)) void begin(void)
{
	const char *faults = getenv("FAULT");
	static char copy[512];
	if (faults)
		snprintf(copy, sizeof copy, "%s", faults);
	char *save = NULL;
	for (char *fault = strtok_r(copy, ",", &save); fault; fault = strtok_r(NULL, ",", &save))
		set_fault(fault);
	uv_replace_allocator(uv_own_malloc, uv_own_realloc, uv_own_calloc, free);
	atomic_store(&armed, !getenv("FAULT_ARM"));
}

/* ---- what came of it ---- */

/* Opened for each line: the process is to have no descriptor that it has not opened itself. */
static void tell(const char *what, const char *name, unsigned number)
{
	const char *path = getenv("FAULT_REPORT");
	char text[80];
	int fd = path ? open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600) : -1;
	if (fd < 0)
		return;
	int n = snprintf(text, sizeof text, "%s %s %u\n", what, name, number);
	ssize_t ignored = write(fd, text, (size_t)n);
	(void)ignored;
	close(fd);
}

static __attribute__((destructor)) void end(void)
{
	for (int i = 0; i < KINDS; i++)
		tell("calls", points[i].name, atomic_load(&points[i].calls));
}

/* ---- the calls ---- */

static bool is_armed(void)
{
	if (atomic_load(&armed))
		return true;
	bool now = !access(getenv("FAULT_ARM"), F_OK);
	if (now)
		atomic_store(&armed, true);
	return now;
}

bool shim_is_due(enum kind kind)
{
	struct point *point = &points[kind];
	int kept = errno;
	if (!is_armed()) {
		errno = kept;
		return false;
	}
	unsigned number = atomic_fetch_add(&point->calls, 1) + 1;
	bool due = point->on && (number == point->from || (point->onward && number > point->from) ||
				 (point->each && number % point->each == point->from % point->each));
	if (due && number == point->from)
		tell("fired", point->name, number);
	errno = kept;
	return due;
}

static bool fails(enum kind kind)
{
	if (!shim_is_due(kind))
		return false;
	errno = points[kind].error;
	return true;
}

int __real_getsockname(int fd, struct sockaddr *address, socklen_t *len);

/* TCP never gives less than it has, and the poller builds on that. */
static bool may_fall_short(enum kind kind, int fd)
{
	struct sockaddr_storage address;
	socklen_t len = sizeof address;
	return kind != RECVFROM ||
	       (!__real_getsockname(fd, (struct sockaddr *)&address, &len) && address.ss_family == AF_UNIX);
}

/* For what reads or writes: *n is cut short, or the call fails. */
static bool fails_or_cuts(enum kind kind, int fd, size_t *n)
{
	if (!shim_is_due(kind))
		return false;
	if (points[kind].is_short) {
		if (may_fall_short(kind, fd))
			*n = *n > 1 ? 1 : *n;
		return false;
	}
	errno = points[kind].error;
	return true;
}

/* The linker makes __real_X the X that everybody else has. */
#define WRAP(type, name, failed, kind, parameters, arguments)            \
	type __real_##name parameters;                                   \
	type __wrap_##name parameters;                                   \
	type __wrap_##name parameters                                    \
	{                                                                \
		return fails(kind) ? (failed) : __real_##name arguments; \
	}

WRAP(void *, malloc, NULL, MEMORY, (size_t bytes), (bytes))
WRAP(void *, calloc, NULL, MEMORY, (size_t n, size_t bytes), (n, bytes))
WRAP(void *, realloc, NULL, MEMORY, (void *block, size_t bytes), (block, bytes))
WRAP(char *, strdup, NULL, MEMORY, (const char *text), (text))
WRAP(char *, strndup, NULL, MEMORY, (const char *text, size_t n), (text, n))
WRAP(int, accept4, -1, ACCEPT4, (int fd, struct sockaddr *to, socklen_t *len, int flags),
     (fd, to, len, flags))
WRAP(int, bind, -1, BIND, (int fd, const struct sockaddr *to, socklen_t len), (fd, to, len))
WRAP(int, connect, -1, CONNECT, (int fd, const struct sockaddr *to, socklen_t len), (fd, to, len))
WRAP(int, epoll_create1, -1, EPOLL_CREATE1, (int flags), (flags))
WRAP(int, epoll_wait, -1, EPOLL_WAIT, (int set, struct epoll_event *events, int max, int ms),
     (set, events, max, ms))
WRAP(int, epoll_pwait, -1, EPOLL_WAIT,
     (int set, struct epoll_event *events, int max, int ms, const sigset_t *mask),
     (set, events, max, ms, mask))
WRAP(int, eventfd, -1, EVENTFD, (unsigned count, int flags), (count, flags))
WRAP(int, getpeername, -1, GETPEERNAME, (int fd, struct sockaddr *to, socklen_t *len), (fd, to, len))
WRAP(int, getrlimit, -1, GETRLIMIT, (__rlimit_resource_t what, struct rlimit *limit), (what, limit))
WRAP(int, getsockname, -1, GETSOCKNAME, (int fd, struct sockaddr *to, socklen_t *len), (fd, to, len))
WRAP(int, listen, -1, LISTEN, (int fd, int backlog), (fd, backlog))
WRAP(DIR *, opendir, NULL, OPENDIR, (const char *path), (path))
WRAP(int, pipe2, -1, PIPE2, (int fds[2], int flags), (fds, flags))
WRAP(int, pthread_create, errno, PTHREAD_CREATE,
     (pthread_t * thread, const pthread_attr_t *attributes, void *(*run)(void *), void *data),
     (thread, attributes, run, data))
WRAP(int, recvmmsg, -1, RECVMMSG,
     (int fd, struct mmsghdr *messages, unsigned n, int flags, struct timespec *until),
     (fd, messages, n, flags, until))
WRAP(int, sendmmsg, -1, SENDMMSG, (int fd, struct mmsghdr *messages, unsigned n, int flags),
     (fd, messages, n, flags))
WRAP(int, setsockopt, -1, SETSOCKOPT, (int fd, int level, int option, const void *value, socklen_t len),
     (fd, level, option, value, len))
WRAP(int, shutdown, -1, SHUTDOWN, (int fd, int how), (fd, how))
WRAP(int, socket, -1, SOCKET, (int family, int type, int protocol), (family, type, protocol))

int __real_epoll_ctl(int set, int op, int fd, struct epoll_event *event);
int __wrap_epoll_ctl(int set, int op, int fd, struct epoll_event *event);
int __wrap_epoll_ctl(int set, int op, int fd, struct epoll_event *event)
{
	return op == EPOLL_CTL_ADD && fails(EPOLL_CTL) ? -1 : __real_epoll_ctl(set, op, fd, event);
}

static void *uv_own_malloc(size_t bytes)
{
	return fails(UV_MEMORY) ? NULL : __real_malloc(bytes);
}

static void *uv_own_calloc(size_t n, size_t bytes)
{
	return fails(UV_MEMORY) ? NULL : __real_calloc(n, bytes);
}

static void *uv_own_realloc(void *block, size_t bytes)
{
	return fails(UV_MEMORY) ? NULL : __real_realloc(block, bytes);
}

ssize_t __real_recv(int fd, void *to, size_t n, int flags);
ssize_t __wrap_recv(int fd, void *to, size_t n, int flags);
ssize_t __wrap_recv(int fd, void *to, size_t n, int flags)
{
	return fails_or_cuts(RECVFROM, fd, &n) ? -1 : __real_recv(fd, to, n, flags);
}

ssize_t __real_sendfile(int to, int from, off_t *at, size_t n);
ssize_t __wrap_sendfile(int to, int from, off_t *at, size_t n);
ssize_t __wrap_sendfile(int to, int from, off_t *at, size_t n)
{
	return fails_or_cuts(SENDFILE, to, &n) ? -1 : __real_sendfile(to, from, at, n);
}

ssize_t __real_send(int fd, const void *from, size_t n, int flags);
ssize_t __wrap_send(int fd, const void *from, size_t n, int flags);
ssize_t __wrap_send(int fd, const void *from, size_t n, int flags)
{
	return fails_or_cuts(SENDTO, fd, &n) ? -1 : __real_send(fd, from, n, flags);
}

int __real_ioctl(int fd, unsigned long request, ...);
int __wrap_ioctl(int fd, unsigned long request, ...);
int __wrap_ioctl(int fd, unsigned long request, ...)
{
	va_list more;
	va_start(more, request);
	void *to = va_arg(more, void *);
	va_end(more);
	return fails(IOCTL) ? -1 : __real_ioctl(fd, request, to);
}

long __real_syscall(long number, ...);
long __wrap_syscall(long number, ...);
long __wrap_syscall(long number, ...)
{
	long a[6];
	va_list more;
	va_start(more, number);
	for (int i = 0; i < 6; i++)
		a[i] = va_arg(more, long);
	va_end(more);
	size_t n = (size_t)a[2];
	if ((number == SYS_recvfrom && fails_or_cuts(RECVFROM, (int)a[0], &n)) ||
	    (number == SYS_sendto && fails_or_cuts(SENDTO, (int)a[0], &n)))
		return -1;
	return __real_syscall(number, a[0], a[1], (long)n, a[3], a[4], a[5]);
}
