/*
 * A restart that nobody notices: the new process is started with our listening sockets, and once it says that it
 * serves, it is the one to accept. Until then nothing has changed here; when it does not come so far, nothing will.
 *
 *     IDLE ──upgrade_begin()──> STARTING ──READY=1──> TAKEN_OVER   (callback; we are to leave)
 *       ^                          │
 *       └── it ended, or was ended at the time-out: a line in the log
 *
 * Threads: the main thread. Nothing here waits but for exec itself.
 */
#pragma once

#include "loop/reactor.h"
#include "restart/inherit.h"
#include "restart/notify.h"

#include <stdbool.h>
#include <sys/types.h>
#include <uv.h>

enum { UPGRADE_REASON_BYTES = 1024 };

enum upgrade_stage { UPGRADE_IDLE, UPGRADE_STARTING, UPGRADE_TAKEN_OVER };

struct upgrade {
	enum upgrade_stage stage;
	struct notify *notify; /* where we say how we are */
	void *server;
	void (*taken_over)(void *server, pid_t pid);
	void (*failed)(void *server, const char *why);
	uv_timer_t deadline;
	uv_signal_t ended; /* SIGCHLD */
	struct reactor *reactor;
	struct watched words; /* what the new process says */
	int socket;           /* where it says it; -1: not open yet */
	char address[128];    /* the same as $NOTIFY_SOCKET has it */
	int errors;           /* see program_start() */
	pid_t pid;
	uint32_t timeout_ms;
	bool timed_out, cancelled;
	char
	    said[UPGRADE_REASON_BYTES]; /* by the new process, as the reason why it does not come up; or "" */
};

/* An upgrade that was begun ends in one of the two calls, and in a line in the log. */
void upgrade_open(struct upgrade *upgrade, struct reactor *reactor, struct notify *notify, void *server,
		  void (*taken_over)(void *server, pid_t pid), void (*failed)(void *server, const char *why));

/* Closes its handles; the loop has to turn once more. */
void upgrade_close(struct upgrade *upgrade);

/*
 * Starts the new process with these sockets, in this order. timeout_ms: how long it may take; 0: as long as it takes.
 * Not while another is under way.
 */
void upgrade_begin(struct upgrade *upgrade, const struct bequest *sockets, unsigned count,
		   uint32_t timeout_ms);

/* The server stops: a process that is still starting is ended. */
void upgrade_cancel(struct upgrade *upgrade);
