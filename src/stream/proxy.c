#include "stream/proxy.h"

#include "base/err.h"
#include "stream/proxy_header.h"

#include <stdlib.h>
#include <string.h>
#include <uv.h>

const struct proxy_settings PROXY_REQUIRED = { false }, PROXY_OPTIONAL = { true };

enum { FIRST_READ_BYTES = 256 };

/* What has been read: the header, and later what came with it. */
struct held {
	size_t at, bytes, room;
	uint8_t data[];
};

struct proxy_stream {
	struct stream_layer layer; /* first */
	struct held *held; /* NULL: nothing; few connections have one for longer than their beginning */
	struct sockaddr_in6 client;
	const char *wrong;                          /* what it has failed for */
	bool opened, ended, has_header, has_client; /* ended: the peer's stream, read while it opened */
};

static struct proxy_stream *proxy_of(const struct stream *stream)
{
	return (struct proxy_stream *)(void *)stream;
}

static void let_go(struct proxy_stream *proxy)
{
	free(proxy->held);
	proxy->held = NULL;
}

static size_t held_bytes(const struct proxy_stream *proxy)
{
	return proxy->held ? proxy->held->bytes - proxy->held->at : 0;
}

/* Room for so many bytes in all. 0 or UV_ENOMEM. */
static int make_room(struct proxy_stream *proxy, size_t room)
{
	if (proxy->held && proxy->held->room >= room)
		return 0;
	struct held *held = realloc(proxy->held, sizeof *held + room);
	if (!held)
		return UV_ENOMEM;
	if (!proxy->held)
		held->at = held->bytes = 0;
	held->room = room;
	proxy->held = held;
	return 0;
}

/* Reads on, as far as there is room. > 0 or as a stream's read(). */
static ssize_t proxy_fill(struct proxy_stream *proxy)
{
	struct stream *below = proxy->layer.below;
	struct held *held = proxy->held;
	ssize_t n = below->ops->read(below, held->data + held->bytes, held->room - held->bytes);
	if (n > 0)
		held->bytes += (size_t)n;
	return n;
}

/* ---- the beginning ---- */

static int proxy_fail(struct proxy_stream *proxy, const char *wrong)
{
	proxy->wrong = wrong;
	return ERR_PROXY_HEADER;
}

/* The header is over after so many bytes. */
static int have_opened(struct proxy_stream *proxy, size_t bytes)
{
	proxy->opened = true;
	if (proxy->held)
		proxy->held->at += bytes;
	if (!held_bytes(proxy))
		let_go(proxy);
	return 0;
}

static bool is_optional(const struct proxy_stream *proxy)
{
	return ((const struct proxy_settings *)proxy->layer.settings)->is_optional;
}

/* The peer's stream has ended. Who has said nothing has done nothing wrong: proxies look so whether we are there. */
static int proxy_meet_end(struct proxy_stream *proxy)
{
	proxy->ended = true;
	if (is_optional(proxy) && proxy_header_begins(proxy->held->data, proxy->held->bytes))
		return have_opened(proxy, 0);
	return proxy->held->bytes ? proxy_fail(proxy, "PROXY header: the stream ends within it") : UV_EOF;
}

static int proxy_open(struct stream *stream)
{
	struct proxy_stream *proxy = proxy_of(stream);
	struct proxy_header header;
	size_t need = FIRST_READ_BYTES;
	if (proxy->opened)
		return 0;
	for (;;) {
		if (make_room(proxy, need))
			return UV_ENOMEM;
		ssize_t n = proxy_fill(proxy);
		if (n <= 0)
			return n ? (int)n : proxy_meet_end(proxy);
		const struct held *held = proxy->held;
		if (is_optional(proxy) && !proxy_header_begins(held->data, held->bytes))
			return have_opened(proxy, 0);
		int bytes = proxy_header_read(held->data, held->bytes, &header);
		if (bytes < 0)
			return proxy_fail(proxy, header.wrong);
		if (bytes > 0) {
			proxy->has_header = true;
			proxy->has_client = header.has_client;
			proxy->client = header.client;
			return have_opened(proxy, (size_t)bytes);
		}
		need = header.need;
	}
}

/* ---- the rest ---- */

static ssize_t proxy_read(struct stream *stream, void *to, size_t n)
{
	struct proxy_stream *proxy = proxy_of(stream);
	struct stream *below = proxy->layer.below;
	size_t left = held_bytes(proxy);
	if (!left)
		return proxy->ended ? 0 : below->ops->read(below, to, n);
	if (n > left)
		n = left;
	memcpy(to, proxy->held->data + proxy->held->at, n);
	proxy->held->at += n;
	if (n == left)
		let_go(proxy);
	return (ssize_t)n;
}

static ssize_t proxy_write(struct stream *stream, const void *from, size_t n)
{
	struct stream *below = proxy_of(stream)->layer.below;
	return below->ops->write(below, from, n);
}

static ssize_t proxy_write_more(struct stream *stream, const void *from, size_t n)
{
	return stream_write_more(proxy_of(stream)->layer.below, from, n);
}

static ssize_t proxy_writev(struct stream *stream, const struct iovec *parts, int n)
{
	return stream_write_parts(proxy_of(stream)->layer.below, parts, n);
}

/* While it opens it only reads. */
static unsigned proxy_needs(const struct stream *stream, unsigned wanted)
{
	return proxy_of(stream)->opened ? wanted : STREAM_READ;
}

/* An end that was read while it opened is told by no event any more. */
static bool proxy_has_input(const struct stream *stream)
{
	const struct proxy_stream *proxy = proxy_of(stream);
	return (proxy->opened && (held_bytes(proxy) || proxy->ended)) ||
	       stream_holds_input(proxy->layer.below);
}

static size_t proxy_unread(struct stream *stream)
{
	struct proxy_stream *proxy = proxy_of(stream);
	return held_bytes(proxy) + stream_unread_of(proxy->layer.below);
}

static int proxy_shutdown(struct stream *stream)
{
	struct stream *below = proxy_of(stream)->layer.below;
	return below->ops->shutdown(below);
}

static void proxy_close(struct stream *stream, bool reset)
{
	struct proxy_stream *proxy = proxy_of(stream);
	let_go(proxy);
	proxy->layer.below->ops->close(proxy->layer.below, reset);
}

static int proxy_peer_address(struct stream *stream, struct sockaddr_in6 *address)
{
	const struct proxy_stream *proxy = proxy_of(stream);
	if (!proxy->has_client)
		return proxy->has_header ? UV_EADDRNOTAVAIL : UV_ENOENT;
	*address = proxy->client;
	return 0;
}

static enum close_reason proxy_reason_of(int err)
{
	if (err == UV_EOF)
		return REASON_PEER;
	return err == ERR_PROXY_HEADER ? REASON_PROXY : REASON_NONE;
}

static const char *proxy_failure(const struct stream *stream)
{
	return proxy_of(stream)->wrong;
}

const struct stream_ops PROXY_STREAM = {
	.name = "proxy",
	.is_layer = true,
	.bytes = sizeof(struct proxy_stream),
	.open = proxy_open,
	.read = proxy_read,
	.write = proxy_write,
	.write_more = proxy_write_more,
	.writev = proxy_writev,
	.needs = proxy_needs,
	.has_input = proxy_has_input,
	.unread = proxy_unread,
	.shutdown = proxy_shutdown,
	.close = proxy_close,
	.peer_address = proxy_peer_address,
	.reason_of = proxy_reason_of,
	.failure = proxy_failure,
};
