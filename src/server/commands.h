/*
 * What can be asked of a running server over its control socket: see docs/control.md.
 *
 * Threads: the main thread.
 */
#pragma once

#include "config/config.h"
#include "control/control.h"
#include "restart/inherit.h"
#include "server/kicks.h"
#include "server/listener.h"
#include "server/recorder.h"
#include "server/status.h"

struct reload_outcome;
struct report;

enum wait_kind { WAIT_END, WAIT_RELOAD, WAIT_UPGRADE };

/* A client whose reply comes when what it waits for has happened. */
struct wait {
	uint64_t client; /* 0: nobody */
	enum wait_kind kind;
	uint64_t reload; /* WAIT_RELOAD: the number of it */
};

struct commands {
	struct control control;
	struct listener listener; /* the socket's file */
	struct listener_config listener_config;
	struct reactor *reactor; /* NULL: nothing was opened */
	char path[CONTROL_PATH_BYTES];
	bool is_default; /* the path: nobody has asked for it, and it has the id of this process in it */
	struct wait waits[CONTROL_CLIENTS_MAX + CONTROL_RESERVE];
	struct kicks kicks;
	/* Once it is closed: those who wait for the end, which is told when the log has its last entry. */
	int ends[CONTROL_CLIENTS_MAX + CONTROL_RESERVE];
	unsigned end_count;
	uint64_t cut; /* connections */

	void *server;
	struct server_view (*view)(void *server);
	void (*stop)(void *server, bool now); /* ignored where it changes nothing */
	/* The reload's number; 0: refused, and *why is set. */
	uint64_t (*reload)(void *server, enum reload_policy policy, const char **why);
	/* NULL, or why it is refused. An upgrade may have ended before this returns. */
	const char *(*upgrade)(void *server);
	/*
	 * Answers the client, who gets the recording from then on. Else why not, perhaps in `why`; it is to be
	 * answered.
	 */
	const char *(*record)(void *server, uint64_t client, const char *listener,
			      struct recorder_limits limits, char *why, size_t size);
	void (*stream)(void *server, uint64_t client, enum stream_event event);
};

/*
 * Opens the socket where the configuration wants it, or takes the inherited one; `server` and the functions are set,
 * the rest zeroed. False: it cannot be, though it was asked for, and the log and `why` say why not. That the default
 * one cannot be is a warning. `succeeds`: there is a predecessor, who answers until commands_begin().
 */
bool commands_open(struct commands *commands, struct reactor *reactor, const struct config *config,
		   struct inheritance *inheritance, bool succeeds, char *why, size_t size);

/* The server serves. */
void commands_begin(struct commands *commands);

/* Makes the socket anew where somebody has removed or replaced its file, and logs it. */
void commands_renew(struct commands *commands);

/*
 * The socket that a successor is to be given. Its descriptor is -1 where there is none, or one that is named after this
 * process.
 */
struct bequest commands_bequeath(const struct commands *commands);

/* A successor answers from now on. Who is connected already is served to the end. */
void commands_leave(struct commands *commands);

/* Who waits for the reload of one number waits for that of another. */
void commands_joined(struct commands *commands, uint64_t number, uint64_t other);

/* A reload has ended. */
void commands_reloaded(struct commands *commands, const struct reload_outcome *outcome);

/* An upgrade has ended: the process of that id has taken over, or `why` not. */
void commands_upgraded(struct commands *commands, int pid, const char *why);

/* An eviction is back. */
void commands_evicted(struct commands *commands, struct report *report);

/* The server ends: closes the socket, but for who waits for that. Idempotent. */
void commands_close(struct commands *commands, uint64_t cut);

/* It has, and has logged it: answers who waits for that. The loop may be no more. */
void commands_tell_end(struct commands *commands);

/* The workers have ended: frees what they still had. */
void commands_deinit(struct commands *commands);
