#include "restart/upgrade.h"

#include "base/limits.h"
#include "base/log.h"
#include "restart/program.h"
#include "restart/variables.h"
#include "tls/tickets.h"

#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { WHY_BYTES = UPGRADE_REASON_BYTES + 80 };

static void hear_last_words(struct upgrade *upgrade);

/* ---- how it ends ---- */

static void upgrade_forget(struct upgrade *upgrade)
{
	uv_timer_stop(&upgrade->deadline);
	uv_signal_stop(&upgrade->ended);
	if (upgrade->errors >= 0)
		close(upgrade->errors);
	upgrade->errors = -1;
	upgrade->stage = UPGRADE_IDLE;
	upgrade->pid = 0;
}

static void upgrade_fail(struct upgrade *upgrade, const char *why, pid_t pid)
{
	log_write(LOG_ERROR, "upgrade failed: this process serves on", F_TEXT("error", why),
		  F_TEXT("program", program_path()), F_INT("pid", pid));
	upgrade->failed(upgrade->server, why);
}

static void upgrade_explain(const struct upgrade *upgrade, int status, char *why, size_t size)
{
	int err = 0;
	if (upgrade->timed_out)
		snprintf(why, size,
			 "the new process was not ready within %u ms (timeout.upgrade); it was ended",
			 upgrade->timeout_ms);
	else if (read(upgrade->errors, &err, sizeof err) == sizeof err)
		snprintf(why, size, "the program cannot be started: %s", strerror(err));
	else if (WIFSIGNALED(status))
		snprintf(why, size, "the new process was ended by signal %d (%s)", WTERMSIG(status),
			 strsignal(WTERMSIG(status)));
	else
		snprintf(why, size, "the new process ended with exit code %d%s%s", WEXITSTATUS(status),
			 *upgrade->said ? ": " : "", upgrade->said);
}

/* With 0 it was asked to stop, or another has taken over from it. */
static void end_successor(struct upgrade *upgrade, int status)
{
	char why[WHY_BYTES];
	upgrade_explain(upgrade, status, why, sizeof why);
	if (status)
		log_write(LOG_ERROR, "the process that took over has ended, and this one accepts no more",
			  F_TEXT("error", why), F_INT("pid", upgrade->pid));
	uv_signal_stop(&upgrade->ended);
}

/* Only this one is waited for: a script may have children of its own. */
static void on_ended(uv_signal_t *handle, int number)
{
	struct upgrade *upgrade = handle->data;
	char why[WHY_BYTES];
	int status;
	(void)number;
	if (waitpid(upgrade->pid, &status, WNOHANG) != upgrade->pid)
		return;
	if (upgrade->stage == UPGRADE_TAKEN_OVER) {
		end_successor(upgrade, status);
		return;
	}
	hear_last_words(upgrade);
	upgrade_explain(upgrade, status, why, sizeof why);
	pid_t pid = upgrade->pid;
	bool cancelled = upgrade->cancelled;
	upgrade_forget(upgrade);
	if (cancelled)
		upgrade->failed(upgrade->server, "the server stops");
	else
		upgrade_fail(upgrade, why, pid);
}

/*
 * It has nobody to serve yet and so nothing to finish, and TERM would be too friendly: it might have become ready
 * in this very moment, and would remove the files of Unix sockets, which are ours.
 */
static void on_deadline(uv_timer_t *timer)
{
	struct upgrade *upgrade = timer->data;
	upgrade->timed_out = true;
	kill(upgrade->pid, SIGKILL);
}

void upgrade_cancel(struct upgrade *upgrade)
{
	if (upgrade->stage != UPGRADE_STARTING)
		return;
	upgrade->cancelled = true;
	uv_timer_stop(&upgrade->deadline);
	kill(upgrade->pid, SIGKILL);
	log_write(LOG_WARN, "upgrade cancelled: the server stops", F_INT("pid", upgrade->pid));
}

/* ---- what it says ---- */

/* Whose datagram it is; anybody may write to an abstract socket. */
static pid_t sender_of(struct msghdr *message)
{
	for (struct cmsghdr *part = CMSG_FIRSTHDR(message); part; part = CMSG_NXTHDR(message, part)) {
		struct ucred who;
		if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_CREDENTIALS)
			continue;
		memcpy(&who, CMSG_DATA(part), sizeof who);
		return who.pid;
	}
	return 0;
}

/* The next word of the new process's; false: there is none. */
static bool upgrade_receive(const struct upgrade *upgrade, char *text, size_t size)
{
	union {
		char bytes[CMSG_SPACE(sizeof(struct ucred))];
		struct cmsghdr header;
	} control;
	for (;;) {
		struct iovec part = { text, size - 1 };
		struct msghdr message = { .msg_iov = &part,
					  .msg_iovlen = 1,
					  .msg_control = &control,
					  .msg_controllen = sizeof control };
		ssize_t n = recvmsg(upgrade->socket, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return false;
		text[n] = '\0';
		if (sender_of(&message) == upgrade->pid)
			return true;
	}
}

static bool says_ready(const char *text)
{
	return !strncmp(text, "READY=1", 7) || strstr(text, "\nREADY=1");
}

/* Why it will end, should it end. */
static void note_status(struct upgrade *upgrade, const char *text)
{
	static const char NAME[] = "STATUS=";
	if (strncmp(text, NAME, sizeof NAME - 1) != 0)
		return;
	text += sizeof NAME - 1;
	snprintf(upgrade->said, sizeof upgrade->said, "%.*s", (int)strcspn(text, "\n"), text);
}

/* They come with its end. That it was ready does not count any more. */
static void hear_last_words(struct upgrade *upgrade)
{
	char text[UPGRADE_REASON_BYTES];
	while (upgrade_receive(upgrade, text, sizeof text))
		note_status(upgrade, text);
}

static void on_words(struct watched *watched, unsigned events)
{
	struct upgrade *upgrade = watched->data;
	char text[UPGRADE_REASON_BYTES];
	(void)events;
	while (upgrade_receive(upgrade, text, sizeof text)) {
		if (upgrade->stage != UPGRADE_STARTING || upgrade->timed_out || upgrade->cancelled)
			continue;
		note_status(upgrade, text);
		if (!says_ready(text))
			continue;
		upgrade->stage = UPGRADE_TAKEN_OVER;
		uv_timer_stop(&upgrade->deadline);
		notify_hand_over(upgrade->notify, upgrade->pid);
		upgrade->taken_over(upgrade->server, upgrade->pid);
	}
}

/* The kernel gives it a name that nobody has: there is no file to leave behind. */
static int bind_socket(struct upgrade *upgrade)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	socklen_t size = sizeof address.sun_family;
	int one = 1;
	if (bind(upgrade->socket, (struct sockaddr *)&address, size))
		return -errno;
	size = sizeof address;
	if (getsockname(upgrade->socket, (struct sockaddr *)&address, &size) ||
	    setsockopt(upgrade->socket, SOL_SOCKET, SO_PASSCRED, &one, sizeof one))
		return -errno;
	int length = (int)(size - offsetof(struct sockaddr_un, sun_path)) - 1;
	snprintf(upgrade->address, sizeof upgrade->address, "@%.*s", length, address.sun_path + 1);
	return 0;
}

/* Once, at the first upgrade. */
static int open_socket(struct upgrade *upgrade)
{
	if (upgrade->socket >= 0)
		return 0;
	upgrade->socket = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (upgrade->socket < 0)
		return -errno;
	int err = bind_socket(upgrade);
	if (!err)
		err = reactor_add(upgrade->reactor, &upgrade->words, upgrade->socket, EPOLLIN);
	if (err) {
		close(upgrade->socket);
		upgrade->socket = -1;
	}
	return err;
}

/* ---- starting it ---- */

/* What the new process is told of the sockets. All of it is to be freed, and NULL where there was no memory. */
struct testament {
	int *fds;
	char *names, *files;
};

static char *join_names(const struct bequest *sockets, unsigned count)
{
	size_t size = sizeof "LISTEN_FDNAMES=", at = 0;
	for (unsigned i = 0; i < count; i++)
		size += strlen(sockets[i].name) + 1;
	char *text = malloc(size);
	for (unsigned i = 0; text && i < count; i++)
		at += (size_t)snprintf(text + at, size - at, "%s%s",
				       i ? ":" : "LISTEN_FDNAMES=", sockets[i].name);
	return text;
}

static char *join_files(const struct bequest *sockets, unsigned count)
{
	static const char NAME[] = LISTEN_FILES_VARIABLE "=";
	enum { FILE_BYTES = sizeof ":18446744073709551615.18446744073709551615" };
	size_t size = sizeof NAME + (size_t)count * FILE_BYTES, at = 0;
	char *text = malloc(size);
	for (unsigned i = 0; text && i < count; i++)
		at += (size_t)snprintf(text + at, size - at, "%s%llu.%llu", i ? ":" : NAME,
				       (unsigned long long)sockets[i].file.device,
				       (unsigned long long)sockets[i].file.inode);
	return text;
}

static bool testament_open(struct testament *testament, const struct bequest *sockets, unsigned count)
{
	*testament = (struct testament){ .fds = calloc(count + 1, sizeof *testament->fds),
					 .names = join_names(sockets, count),
					 .files = join_files(sockets, count) };
	for (unsigned i = 0; testament->fds && i < count; i++)
		testament->fds[i] = sockets[i].fd;
	return testament->fds && testament->names && testament->files;
}

static void testament_close(struct testament *testament)
{
	free(testament->fds);
	free(testament->names);
	free(testament->files);
}

static pid_t start_with(struct upgrade *upgrade, const struct testament *testament, unsigned count)
{
	char socket[160], manager[160], listen_fds[32], watchdog[48];
	snprintf(socket, sizeof socket, "NOTIFY_SOCKET=%s", upgrade->address);
	snprintf(manager, sizeof manager, NOTIFY_MANAGER_VARIABLE "=%s",
		 notify_wanted(upgrade->notify) ? upgrade->notify->manager : "-");
	snprintf(listen_fds, sizeof listen_fds, "LISTEN_FDS=%u", count);
	snprintf(watchdog, sizeof watchdog, "WATCHDOG_USEC=%llu",
		 (unsigned long long)upgrade->notify->watchdog_us);
	char tickets[sizeof TICKETS_VARIABLE + TICKETS_TEXT_BYTES] = TICKETS_VARIABLE "=";
	const char *variables[8] = { socket, manager, listen_fds, testament->names, testament->files };
	unsigned n = 5;
	if (upgrade->notify->watchdog_us)
		variables[n++] = watchdog;
	if (tickets_save(tickets + sizeof TICKETS_VARIABLE))
		variables[n++] = tickets;
	struct program_gifts gifts = { testament->fds, count, variables };
	pid_t pid = program_start(&gifts, &upgrade->errors);
	explicit_bzero(tickets, sizeof tickets);
	return pid;
}

static pid_t upgrade_start(struct upgrade *upgrade, const struct bequest *sockets, unsigned count)
{
	struct testament testament;
	pid_t pid = UV_ENOMEM;
	if (testament_open(&testament, sockets, count))
		pid = start_with(upgrade, &testament, count);
	testament_close(&testament);
	return pid;
}

void upgrade_begin(struct upgrade *upgrade, const struct bequest *sockets, unsigned count,
		   uint32_t timeout_ms)
{
	int err = open_socket(upgrade);
	/* Beforehand, so that no end goes unnoticed. */
	if (!err)
		err = uv_signal_start(&upgrade->ended, on_ended, SIGCHLD);
	if (!err && (upgrade->pid = upgrade_start(upgrade, sockets, count)) < 0)
		err = upgrade->pid;
	if (err) {
		upgrade->errors = -1;
		upgrade_forget(upgrade);
		char why[LIMITS_TEXT_BYTES];
		upgrade_fail(upgrade, limits_explain(err, why, sizeof why), 0);
		return;
	}
	upgrade->stage = UPGRADE_STARTING;
	upgrade->timed_out = upgrade->cancelled = false;
	upgrade->timeout_ms = timeout_ms;
	*upgrade->said = '\0';
	if (timeout_ms)
		uv_timer_start(&upgrade->deadline, on_deadline, timeout_ms, 0);
	log_write(LOG_INFO, "upgrading", F_TEXT("program", program_path()), F_INT("pid", upgrade->pid),
		  F_INT("timeout_ms", timeout_ms));
}

/* ---- life ---- */

void upgrade_open(struct upgrade *upgrade, struct reactor *reactor, struct notify *notify, void *server,
		  void (*taken_over)(void *server, pid_t pid), void (*failed)(void *server, const char *why))
{
	*upgrade = (struct upgrade){ .reactor = reactor,
				     .words = { .fd = -1, .ready = on_words, .data = upgrade },
				     .notify = notify,
				     .server = server,
				     .taken_over = taken_over,
				     .failed = failed,
				     .socket = -1,
				     .errors = -1 };
	uv_timer_init(reactor->loop, &upgrade->deadline);
	uv_signal_init(reactor->loop, &upgrade->ended);
	upgrade->deadline.data = upgrade->ended.data = upgrade;
}

void upgrade_close(struct upgrade *upgrade)
{
	uv_close((uv_handle_t *)&upgrade->deadline, NULL);
	uv_close((uv_handle_t *)&upgrade->ended, NULL);
	if (upgrade->socket >= 0) {
		reactor_remove(upgrade->reactor, &upgrade->words);
		close(upgrade->socket);
	}
	if (upgrade->errors >= 0)
		close(upgrade->errors);
	upgrade->socket = upgrade->errors = -1;
}
