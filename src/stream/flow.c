/* Flows as streams; the sockets that they come by are in flow_socket.c. */
#include "stream/flow.h"

#include "stream/flow_internal.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <uv.h>

static struct flow *flow_of(struct stream *stream)
{
	return (struct flow *)(void *)stream;
}

/* ---- reading ---- */

/* Records that waited: as many as fit. */
static size_t read_waiting(struct flow *flow, uint8_t *to, size_t room)
{
	const struct buf *waiting = flow->waiting;
	const uint8_t *from = waiting->data + waiting->start;
	size_t n = buf_len(waiting), at = 0;
	for (; at < n && at + datagram_record_bytes(from + at) <= room; flow->waiting_count--)
		at += datagram_record_bytes(from + at);
	memcpy(to, from, at);
	buf_consume(flow->socket->host->pool, &flow->waiting, at);
	return at;
}

/* The next datagram of the batch: its bytes, and how many; false: there is none. */
static bool flow_next_datagram(struct flow *flow, const uint8_t **bytes, size_t *len)
{
	const struct flow_host *host = flow->socket->host;
	if (flow->message < 0)
		return false;
	const struct datagrams_message *message = &host->in->messages[flow->message];
	size_t rest = message->len - flow->at;
	*bytes = message->bytes + flow->at;
	*len = rest < message->segment ? rest : message->segment;
	return true;
}

/* It is done with. */
static void flow_step(struct flow *flow, size_t len)
{
	const struct flow_host *host = flow->socket->host;
	flow->at += (uint32_t)len;
	if (flow->at < host->in->messages[flow->message].len)
		return;
	flow->message = host->next[flow->message];
	flow->at = 0;
}

/* The batch as records: as many as fit. */
static size_t read_batch(struct flow *flow, uint8_t *to, size_t room)
{
	const uint8_t *bytes;
	size_t len, at = 0;
	while (flow_next_datagram(flow, &bytes, &len) && at + DATAGRAM_HEAD_BYTES + len <= room) {
		datagram_put_head(to + at, len);
		memcpy(to + at + DATAGRAM_HEAD_BYTES, bytes, len);
		at += DATAGRAM_HEAD_BYTES + len;
		flow_step(flow, len);
	}
	return at;
}

static ssize_t flow_read(struct stream *stream, void *to, size_t n)
{
	struct flow *flow = flow_of(stream);
	size_t at = flow->waiting ? read_waiting(flow, to, n) : 0;
	if (!flow->waiting)
		at += read_batch(flow, (uint8_t *)to + at, n - at);
	return at ? (ssize_t)at : UV_EAGAIN;
}

/* More waits than may. */
static bool is_over(const struct flow *flow)
{
	return flow->waiting_count >= flow->waiting_max || buf_len(flow->waiting) >= FLOW_WAITING_BYTES;
}

/*
 * What is left of a batch waits, and what has no room any more is dropped. Who has read some of it has had its turn, and
 * will read on: all of the batch waits, if nothing did before.
 */
void flow_keep(struct flow *flow, bool reads_on)
{
	struct flow_host *host = flow->socket->host;
	const uint8_t *bytes;
	size_t len;
	reads_on = reads_on && !is_over(flow);
	while (flow_next_datagram(flow, &bytes, &len)) {
		size_t total = DATAGRAM_HEAD_BYTES + len;
		bool is_full = is_over(flow) || buf_len(flow->waiting) + total > FLOW_WAITING_BYTES;
		bool fits = !flow->is_closed && (reads_on || !is_full);
		uint8_t *place = fits ? buf_reserve(host->pool, &flow->waiting, total) : NULL;
		if (place) {
			datagram_put_head(place, len);
			memcpy(place + DATAGRAM_HEAD_BYTES, bytes, len);
			buf_commit(flow->waiting, total);
			flow->waiting_count++;
		} else {
			count(&host->counters->dropped_datagrams);
		}
		flow_step(flow, len);
	}
}

static size_t flow_unread(struct stream *stream)
{
	struct flow *flow = flow_of(stream);
	const struct flow_host *host = flow->socket->host;
	size_t n = buf_len(flow->waiting);
	for (int16_t i = flow->message; i >= 0; i = host->next[i]) {
		struct datagrams_message rest = host->in->messages[i];
		rest.len -= i == flow->message ? flow->at : 0;
		n += rest.len + datagrams_count(&rest) * (size_t)DATAGRAM_HEAD_BYTES;
	}
	return n;
}

/* ---- writing ---- */

static void flow_block(struct flow *flow)
{
	struct flow_host *host = flow->socket->host;
	if (flow->is_blocked)
		return;
	flow->is_blocked = true;
	flow->next_blocked = host->blocked;
	host->blocked = flow;
}

static bool flow_put(struct flow *flow, const uint8_t *bytes, size_t len)
{
	const struct flow_socket *socket = flow->socket;
	struct flow_host *host = socket->host;
	const struct datagrams_way way = { .fd = socket->polled.fd,
					   .is_ipv6 = socket->is_ipv6,
					   .whose = flow,
					   .peer = socket->only ? NULL : &flow->peer,
					   .local = &flow->local };
	bool put = datagrams_put(&host->out, &way, bytes, len);
	if (!put && !flow_host_send(host))
		put = datagrams_put(&host->out, &way, bytes, len);
	if (put)
		host->sending = flow->socket;
	return put;
}

static ssize_t flow_write(struct stream *stream, const void *from, size_t n)
{
	struct flow *flow = flow_of(stream);
	const uint8_t *bytes = from;
	size_t at = 0;
	while (at < n) {
		size_t total = datagram_record_bytes(bytes + at);
		assert(total >= DATAGRAM_HEAD_BYTES && total <= n - at); /* replies are appended whole */
		if (!flow_put(flow, bytes + at + DATAGRAM_HEAD_BYTES, total - DATAGRAM_HEAD_BYTES)) {
			flow_block(flow);
			break;
		}
		at += total;
	}
	return at ? (ssize_t)at : UV_EAGAIN;
}

/* What was written is on its way, or lost: there is nobody to ask. */
static size_t flow_unsent(struct stream *stream)
{
	(void)stream;
	return 0;
}

/* ---- the rest ---- */

void flow_want_again(struct flow *flow)
{
	struct flow_host *host = flow->socket->host;
	poller_again(&flow->socket->polled);
	if (flow->is_again)
		return;
	flow->is_again = true;
	flow->next_again = host->again;
	host->again = flow;
}

static int flow_watch(struct stream *stream, unsigned events)
{
	struct flow *flow = flow_of(stream);
	flow->watched = (uint8_t)events;
	if ((events & STREAM_READ) && flow->waiting)
		flow_want_again(flow);
	return 0;
}

static void flow_again(struct stream *stream)
{
	flow_want_again(flow_of(stream));
}

/* There is no end to send. */
static int flow_shutdown(struct stream *stream)
{
	(void)stream;
	return 0;
}

static void flow_close(struct stream *stream, bool reset)
{
	struct flow *flow = flow_of(stream);
	struct flow_host *host = flow->socket->host;
	(void)reset;
	buf_release(host->pool, &flow->waiting);
	datagrams_seal(&host->out); /* its memory may be another's when more is sent */
	flow->is_closed = true;
	flow->watched = 0;
	flow->next_closed = host->closed;
	host->closed = flow;
	flow_keep(flow, false);
	flow_socket_forget(flow);
}

int flow_local_address(const struct flow *flow, struct sockaddr_storage *address)
{
	socklen_t bytes = sizeof *address;
	if (getsockname(flow->socket->polled.fd, (struct sockaddr *)address, &bytes))
		return -errno;
	if (IN6_IS_ADDR_UNSPECIFIED(&flow->local))
		return 0;
	if (address->ss_family == AF_INET6) {
		struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)(void *)address;
		in6->sin6_addr = flow->local;
		if (IN6_IS_ADDR_LINKLOCAL(&flow->local)) /* of the link that the peer is on */
			in6->sin6_scope_id = flow->peer.sin6_scope_id;
	} else {
		struct sockaddr_in *in = (struct sockaddr_in *)(void *)address;
		memcpy(&in->sin_addr, &flow->local.s6_addr[12], sizeof in->sin_addr);
	}
	return 0;
}

static void flow_bound(struct stream *stream, uint32_t max_bytes, uint32_t waiting_max)
{
	struct flow *flow = flow_of(stream);
	flow->max_bytes = max_bytes;
	flow->waiting_max = waiting_max;
}

static int flow_tell_local(struct stream *stream, struct sockaddr_storage *address)
{
	return flow_local_address(flow_of(stream), address);
}

static const struct stream_ops FLOW_STREAM = {
	.name = "flow",
	.read = flow_read,
	.write = flow_write,
	.unsent = flow_unsent,
	.unread = flow_unread,
	.shutdown = flow_shutdown,
	.close = flow_close,
	.local_address = flow_tell_local,
	.bound = flow_bound,
	.watch = flow_watch,
	.again = flow_again,
};

void flow_begin(struct flow *flow, struct stream_user *user, struct flow_socket *socket,
		const struct sockaddr_in6 *peer, uint32_t max_bytes, uint32_t waiting_max)
{
	flow->stream = (struct stream){ &FLOW_STREAM, user };
	flow->socket = flow->home = socket;
	flow->peer = *peer;
	flow->max_bytes = max_bytes;
	flow->waiting_max = waiting_max;
	flow->message = flow->last = -1;
	user->stream = &flow->stream;
	if (socket->only)
		return;
	flow_socket_add(socket, flow);
	flow_take_first(flow);
}
