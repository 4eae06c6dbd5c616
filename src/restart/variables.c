#include "restart/variables.h"

#include "base/decimal.h"
#include "base/log.h"
#include "tls/tickets.h"

#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { COMPLAINTS_MAX = 4 };

static struct variables taken = { .notify = "", .notify_manager = "" };

static struct {
	const char *message, *name, *value;
} complaints[COMPLAINTS_MAX];

static unsigned complaint_count;

static void complain(const char *message, const char *name, const char *value)
{
	complaints[complaint_count].message = message;
	complaints[complaint_count].name = name;
	complaints[complaint_count++].value = value;
}

/* The text stays where it was when the process began; what goes is the entry that leads there. Or NULL. */
static const char *take(const char *name)
{
	const char *value = getenv(name);
	unsetenv(name);
	return value;
}

/* Is it this process that is meant? *pid may be anything, and then the answer is no. */
static bool is_own_id(const char *text, bool *is_id)
{
	uint64_t id;
	*is_id = decimal_read(text, INT_MAX, &id);
	return *is_id && id == (uint64_t)getpid();
}

/* ---- sockets ---- */

/* How many there are for us: variables outlive the process that they were meant for. */
static unsigned read_count(const char *pid, const char *count)
{
	uint64_t n;
	bool is_id;
	if (!pid || !count)
		return 0;
	if (!is_own_id(pid, &is_id)) {
		if (!is_id)
			complain("inherited sockets are ignored: LISTEN_PID is no process id", "LISTEN_PID",
				 pid);
		return 0;
	}
	if (decimal_read(count, VARIABLES_FDS_MAX, &n))
		return (unsigned)n;
	complain("inherited sockets are ignored: LISTEN_FDS is no number of descriptors", "LISTEN_FDS",
		 count);
	return 0;
}

static void look_at_descriptors(void)
{
	for (unsigned i = 0; i < taken.fd_count; i++)
		taken.is_open[i] = !fcntl(VARIABLES_FIRST_FD + (int)i, F_SETFD, FD_CLOEXEC);
}

/* ---- the service manager ---- */

/* WATCHDOG_PID says whom it is meant for; without it, for everyone. */
static uint64_t read_watchdog(const char *interval, const char *pid)
{
	static const char MESSAGE[] = "the service manager gets no pulse: a variable is no number";
	uint64_t us;
	bool is_id = true;
	if (!interval)
		return 0;
	if (pid && !is_own_id(pid, &is_id)) {
		if (!is_id)
			complain(MESSAGE, "WATCHDOG_PID", pid);
		return 0;
	}
	if (decimal_read(interval, INT64_MAX, &us))
		return us;
	complain(MESSAGE, "WATCHDOG_USEC", interval);
	return 0;
}

/* ---- secrets ---- */

/* They are wiped where they stood: /proc has the environment that a process began with. */
static void take_tickets(void)
{
	char *text = getenv(TICKETS_VARIABLE);
	unsetenv(TICKETS_VARIABLE);
	if (!text)
		return;
	tickets_load(text);
	explicit_bzero(text, strlen(text));
}

/* ---- all ---- */

void variables_take(void)
{
	const char *notify = take("NOTIFY_SOCKET"), *manager = take(NOTIFY_MANAGER_VARIABLE);
	const char *interval = take("WATCHDOG_USEC"), *watchdog_pid = take("WATCHDOG_PID");
	const char *pid = take("LISTEN_PID"), *count = take("LISTEN_FDS");
	taken.fd_names = take("LISTEN_FDNAMES");
	taken.fd_files = take(LISTEN_FILES_VARIABLE);
	(void)take("LISTEN_PIDFDID"); /* systemd 258: the same as LISTEN_PID, in another number */
	taken.notify = notify ? notify : "";
	taken.notify_manager = manager ? manager : "";
	taken.watchdog_us = read_watchdog(interval, watchdog_pid);
	taken.fd_count = read_count(pid, count);
	look_at_descriptors();
	take_tickets();
}

const struct variables *variables_taken(void)
{
	return &taken;
}

void variables_complain(void)
{
	for (unsigned i = 0; i < complaint_count; i++)
		log_write(LOG_WARN, complaints[i].message, F_TEXT("name", complaints[i].name),
			  F_TEXT("value", complaints[i].value));
	complaint_count = 0;
}
