/*
 * Tells whoever started us how we are: the protocol of sd_notify(3), by hand, as it is one datagram.
 *
 * That is a service manager such as systemd, or our predecessor in an upgrade. The predecessor waits for READY=1 and
 * no more; what comes later is for the service manager, whose address it passed on.
 *
 * Threads: the main thread. Where the other one's queue is full it waits for a second at most, but not for the pulse.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/un.h>

struct notify {
	int fd; /* -1: nobody wants to know */
	char starter[128],
	    manager[128];     /* as $NOTIFY_SOCKET has it: a path, or "@" and an abstract name; or "" */
	uint64_t watchdog_us; /* how often the manager wants to hear from us; 0: it does not */
	uint32_t wait_ms;     /* for room in the other one's queue */
	bool is_deaf;         /* one has waited in vain, and none has come to them since */
	bool is_missed;       /* that they cannot be reached has been logged */
};

/* By what variables_take() has found. */
void notify_open(struct notify *notify);
void notify_close(struct notify *notify);

/* We serve. From then on the starter hears nothing any more. */
void notify_ready(struct notify *notify);

/* We do not come up: in one line, for who started us. Only before notify_ready(). */
void notify_failed(struct notify *notify, const char *why);

/* Has a predecessor started us, to take its place? Known until notify_ready(). */
bool notify_succeeds(const struct notify *notify);

/* A reload begins. READY=1 has to follow, whatever comes of it. */
void notify_reloading(struct notify *notify);

/* To the service manager, if there is one: "STOPPING=1". What cannot be sent is logged. */
void notify_tell(struct notify *notify, const char *state);

/*
 * The manager's watchdog is told that we live: "WATCHDOG=1", if it has heard what it was told before, and has room for
 * more. Waits for nothing.
 */
void notify_alive(struct notify *notify);

/* Is there a manager that listens? */
bool notify_wanted(const struct notify *notify);

/* The process of that id has taken our place: the manager is told, and hears no more from us. */
void notify_hand_over(struct notify *notify, int pid);
