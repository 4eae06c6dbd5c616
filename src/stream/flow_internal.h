/* What flow.c, flow_host.c and flow_socket.c share. Nobody else includes it. */
#pragma once

#include "stream/flow.h"

/*
 * Its part of a batch becomes part of what waits, as far as there is room; the rest is dropped. reads_on: its user reads,
 * and has only had its turn.
 */
void flow_keep(struct flow *flow, bool reads_on);

/* Which of our addresses its peer asks. 0 or an error. */
int flow_local_address(const struct flow *flow, struct sockaddr_storage *address);

/* It has begun for the message of the batch that arrives. */
void flow_take_first(struct flow *flow);

/* It has datagrams that wait: ready() follows in the next poll. */
void flow_want_again(struct flow *flow);

/* A flow begins. Its peer has none. */
void flow_socket_add(struct flow_socket *socket, struct flow *flow);

/* Sends what waits, and sees to what cannot be sent now: UV_EAGAIN. */
int flow_host_send(struct flow_host *host);

/* Those whose datagrams have waited, and that want them. */
void flow_host_serve_again(struct flow_host *host);

/* Is it to be told when it can be written? */
void flow_socket_want_room(struct flow_socket *socket, bool wants);

/* Its user reads, as long as it takes some. Has it taken any? */
bool flow_serve(struct flow *flow);

/* It has had its turn: what is left waits. */
void flow_settle(struct flow *flow, bool has_read);

/* Of the host's datagrams that the system refused: they are counted. */
void flow_host_count_unsent(struct flow_host *host);

/* What its only flow has sent was refused. */
void flow_socket_refused(struct flow_socket *socket, int err);

/* A flow has been closed. */
void flow_socket_forget(struct flow *flow);
