#include "support/datagrams.h"

#include <assert.h>
#include <string.h>
#include <uv.h>

static struct datagram_stream *self(const struct stream *stream)
{
	return (struct datagram_stream *)(void *)stream;
}

static ssize_t datagram_read(struct stream *stream, void *to, size_t n)
{
	struct datagram_stream *datagrams = self(stream);
	struct stream *below = datagrams->layer.below;
	if (!datagrams->held_bytes) {
		uint8_t *held = datagrams->held;
		ssize_t got = below->ops->read(below, held + DATAGRAM_HEAD_BYTES, DATAGRAM_BYTES_MAX);
		if (got <= 0)
			return got;
		held[0] = (uint8_t)(got >> 8);
		held[1] = (uint8_t)got;
		datagrams->held_at = 0;
		datagrams->held_bytes = DATAGRAM_HEAD_BYTES + (size_t)got;
	}
	n = n < datagrams->held_bytes ? n : datagrams->held_bytes;
	memcpy(to, datagrams->held + datagrams->held_at, n);
	datagrams->held_at += n;
	datagrams->held_bytes -= n;
	return (ssize_t)n;
}

static bool datagram_has_input(const struct stream *stream)
{
	return self(stream)->held_bytes;
}

/* Record after record; what is left of the last one comes again, whole. */
static ssize_t datagram_write(struct stream *stream, const void *from, size_t n)
{
	struct stream *below = self(stream)->layer.below;
	const uint8_t *bytes = from;
	size_t at = 0;
	while (n - at >= DATAGRAM_HEAD_BYTES) {
		size_t len = (size_t)bytes[at] << 8 | bytes[at + 1];
		assert(n - at >= DATAGRAM_HEAD_BYTES + len); /* replies are appended whole */
		ssize_t put = below->ops->write(below, bytes + at + DATAGRAM_HEAD_BYTES, len);
		if (put < 0)
			return at ? (ssize_t)at : put;
		at += DATAGRAM_HEAD_BYTES + len;
	}
	return (ssize_t)at;
}

/* There is no end to send. */
static int datagram_shutdown(struct stream *stream)
{
	(void)stream;
	return 0;
}

static void datagram_close(struct stream *stream, bool reset)
{
	struct stream *below = self(stream)->layer.below;
	below->ops->close(below, reset);
}

const struct stream_ops DATAGRAM_STREAM = {
	.name = "datagrams",
	.is_layer = true,
	.bytes = sizeof(struct datagram_stream),
	.read = datagram_read,
	.has_input = datagram_has_input,
	.write = datagram_write,
	.shutdown = datagram_shutdown,
	.close = datagram_close,
};
