/*
 * A worker's UDP sockets, one for each udp:// listener, and the connections that their flows are.
 *
 * The listener owns what is passed between the threads, a struct worker_socket; until the worker has said
 * that it is closed (worker_links.socket_closed()) it is the worker's to use.
 *
 * Threads: the worker's, where nothing else is said.
 */
#pragma once

#include "stream/flow.h"
#include "worker/mail.h"

struct worker;

struct worker_socket {
	struct flow_socket flows; /* first */
	struct worker *worker;
	int fd; /* the worker's own, once it has it */
	uint16_t slot;
	bool has_successor; /* when it ends: another process is to read the same socket */
	bool is_parted;     /* the worker has made it, for one flow */
	struct order give, end;
	struct worker_socket *next;
};

/*
 * A worker begins to read a descriptor of its own, with flows for the listener of this slot. Cannot fail; where there
 * is no memory it closes it, and the log says so. The main thread.
 */
void worker_give_socket(struct worker *worker, struct worker_socket *socket, int fd, uint16_t slot);

/*
 * What has come by now begins flows, and nothing later does; the socket closes with its last flow. has_successor:
 * another process is to read it, so flows get sockets of their own; worker_links.handed_over() says that they have.
 * Once. The main thread.
 */
void worker_end_socket(struct worker_socket *socket, bool has_successor);

/* What all UDP sockets of the worker share, made if it is not there. NULL: no memory. */
struct flow_host *flows_host(struct worker *worker);

/* What has come by now is taken in: the worker drains. All sockets end. */
void flows_drain(struct worker *worker);

/* Nobody has connections any more: closes what is left. */
void flows_close(struct worker *worker);
