/*
 * What can be asked of a running server over its control socket: see docs/control.md.
 *
 * Threads: the main thread.
 */
#pragma once

#include "config/config.h"
#include "control/control.h"
#include "server/listener.h"
#include "server/status.h"

struct kick;
struct reload_outcome;
struct report;

/* A client whose reply comes when what it waits for has happened. */
struct wait {
	uint64_t client; /* 0: nobody */
	uint64_t reload; /* the number of that reload; 0: the end of the server */
};

struct commands {
	struct control control;
	struct listener listener; /* the socket's file */
	struct listener_config listener_config;
	char path[CONTROL_PATH_BYTES];
	struct wait waits[CONTROL_CLIENTS_MAX];
	struct kick *kicks; /* that not all workers have answered */

	void *server;
	struct server_view (*view)(void *server);
	void (*stop)(void *server, bool now); /* ignored where it changes nothing */
	/* The reload's number; 0: why not. */
	uint64_t (*reload)(void *server, enum reload_policy policy, const char **objection);
};

/*
 * Opens the socket where the configuration wants it; `server` and the functions are set, the rest zeroed. False: it
 * cannot be, though it was asked for, and the log says why. That the default one cannot be is a warning.
 */
bool commands_open(struct commands *commands, uv_loop_t *loop, const struct config *config);

/* A reload has ended. */
void commands_reloaded(struct commands *commands, const struct reload_outcome *outcome);

/* REPORT_EVICTED. */
void commands_evicted(struct commands *commands, struct report *report);

/* The server has ended: answers who waits for that, and closes the socket. Idempotent. */
void commands_close(struct commands *commands, uint64_t cut);

/* The workers have, too: frees what they still had. */
void commands_deinit(struct commands *commands);
