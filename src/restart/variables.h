/*
 * The variables with which whoever started us speaks to us: sockets that it hands over, and where it wants to be told
 * how we are. They are taken out of the environment, as no child of ours is meant by them; and all that they say is
 * checked, as anybody may have set them.
 *
 * Threads: the main thread.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* Where the service manager listens, in what an upgrade passes on. Not PERILUNE_…: those are settings. */
#define NOTIFY_MANAGER_VARIABLE "NOTIFY_SOCKET_MANAGER"

/* The files of the Unix sockets that are passed on, as LISTEN_FDNAMES has the names. */
#define LISTEN_FILES_VARIABLE "LISTEN_FDFILES"

/* The keys of TLS tickets, so that sessions outlive an upgrade (tls/tickets.h). */
#define TICKETS_VARIABLE "TLS_TICKET_KEYS"

enum { VARIABLES_FIRST_FD = 3, VARIABLES_FDS_MAX = 4096 };

struct variables {
	unsigned fd_count;                   /* of descriptors from 3 on that we are said to have */
	bool is_open[VARIABLES_FDS_MAX];     /* those that we really had */
	const char *fd_names;                /* "a:b:c"; or NULL */
	const char *fd_files;                /* "1.2:3.4", device and inode; or NULL */
	const char *notify, *notify_manager; /* as $NOTIFY_SOCKET has it; or "" */
	uint64_t watchdog_us;                /* 0: nobody waits for a pulse */
};

/*
 * Reads them, once, before anything is opened: a descriptor that is open now was handed over, one that is opened later
 * is ours. Those become close-on-exec.
 */
void variables_take(void);

/* What was taken; all of it is 0 or "" before. */
const struct variables *variables_taken(void);

/* Warns of those that make no sense, which were ignored. */
void variables_complain(void);
