/* What the flows of a thread do together: writing, and reading what has waited. */
#include "stream/flow.h"

#include "stream/flow_internal.h"

#include <stdlib.h>

enum { ROUNDS_PER_FLUSH = 4 };

struct flow_host *flow_host_new(struct poller *poller, struct buf_pool *pool, struct counters *counters)
{
	struct flow_host *host = calloc(1, sizeof *host);
	if (!host)
		return NULL;
	host->poller = poller;
	host->pool = pool;
	host->counters = counters;
	host->arriving = -1;
	host->batch_max = DATAGRAMS_MAX;
	host->turn = 1;
	host->in = datagrams_in_new();
	datagrams_out_init(&host->out);
	if (host->in)
		return host;
	free(host);
	return NULL;
}

void flow_host_free(struct flow_host *host)
{
	if (!host)
		return;
	datagrams_in_free(host->in);
	free(host);
}

void flow_host_count_unsent(struct flow_host *host)
{
	if (!host->out.unsent)
		return;
	count_add(&host->counters->unsent_datagrams, host->out.unsent);
	host->out.unsent = 0;
}

int flow_host_send(struct flow_host *host)
{
	struct datagrams_out *out = &host->out;
	if (!datagrams_are_waiting(out))
		return 0;
	int err = datagrams_flush(out);
	flow_host_count_unsent(host);
	if (out->err)
		flow_socket_refused(host->sending, out->err);
	out->err = 0;
	if (err)
		flow_socket_want_room(host->sending, true);
	return err;
}

static void serve_blocked(struct flow_host *host)
{
	struct flow *next, *flow = host->blocked;
	host->blocked = NULL;
	for (; flow; flow = next) {
		next = flow->next_blocked;
		flow->is_blocked = false;
		struct stream_user *user = flow->stream.user;
		if (!flow->is_closed && (flow->watched & STREAM_WRITE))
			user->events->ready(user, STREAM_WRITE);
	}
}

/* By any socket that is open: the next turn looks at all of them. */
static void wake_for_blocked(struct flow_host *host)
{
	struct flow *flow = host->blocked;
	while (flow && flow->is_closed)
		flow = flow->next_blocked;
	if (flow)
		poller_again(&flow->socket->polled);
}

/* Those that waited for room may write more than there is again: the rest of them wait for the next turn. */
void flow_host_flush(struct flow_host *host)
{
	host->turn++;
	for (int round = 0; !flow_host_send(host) && host->blocked; round++) {
		if (round == ROUNDS_PER_FLUSH) {
			wake_for_blocked(host);
			return;
		}
		serve_blocked(host);
	}
}

void flow_host_serve_again(struct flow_host *host)
{
	struct flow *next, *flow = host->again;
	host->again = NULL;
	for (; flow; flow = next) {
		next = flow->next_again;
		flow->is_again = false;
		if (flow->is_closed)
			continue;
		flow_settle(flow, flow_serve(flow));
	}
}

/* Nothing leads to those that are closed any more. */
static void unlist_closed(struct flow_host *host)
{
	for (struct flow **link = &host->again; *link;)
		if ((*link)->is_closed)
			*link = (*link)->next_again;
		else
			link = &(*link)->next_again;
	for (struct flow **link = &host->blocked; *link;)
		if ((*link)->is_closed)
			*link = (*link)->next_blocked;
		else
			link = &(*link)->next_blocked;
}

void flow_host_forget(struct flow_host *host)
{
	struct flow *next, *flow = host->closed;
	if (!flow)
		return;
	unlist_closed(host);
	host->closed = NULL;
	for (; flow; flow = next) {
		next = flow->next_closed;
		struct stream_user *user = flow->stream.user;
		user->events->closed(user);
	}
}
