#include "stream/amplify.h"

#include "base/log.h"
#include "net/datagram.h"

#include <assert.h>

static struct amplify_stream *amplify_of(struct stream *stream)
{
	return (struct amplify_stream *)(void *)stream;
}

static ssize_t amplify_read(struct stream *stream, void *to, size_t n)
{
	struct amplify_stream *self = amplify_of(stream);
	struct stream *below = self->layer.below;
	ssize_t got = below->ops->read(below, to, n);
	if (got <= 0)
		return got;
	self->has_answered = self->has_answered || self->sent;
	self->received += (uint64_t)got;
	return got;
}

/* How many of these bytes are whole datagrams that may be sent. The first that came may be yet to be read. */
static size_t allowed_bytes(const struct amplify_stream *self, const uint8_t *from, size_t n)
{
	const struct amplify_settings *settings = self->layer.settings;
	uint64_t came = self->received + stream_unread_of(self->layer.below);
	uint64_t most = settings->factor * came, room = most > self->sent ? most - self->sent : 0;
	size_t at = 0;
	while (at < n && at + datagram_record_bytes(from + at) <= room)
		at += datagram_record_bytes(from + at);
	return at;
}

static void refuse_reply(const struct amplify_stream *self, size_t bytes)
{
	struct amplify_settings *settings = (struct amplify_settings *)self->layer.settings;
	count(settings->refused);
	if (settings->has_told)
		return;
	settings->has_told = true;
	log_write(LOG_WARN, "a datagram was not sent: it would amplify", F_TEXT("listener", settings->name),
		  F_INT("amplification", settings->factor), F_INT("bytes", bytes),
		  F_INT("received", self->received + stream_unread_of(self->layer.below)),
		  F_INT("sent", self->sent),
		  F_TEXT("hint",
			 "answer the first datagram with a short one, let clients fill theirs up, or raise "
			 "`amplification`; the next ones are counted only (unsent_datagrams)"));
}

/* What may be sent goes down as a whole; of what may not, one datagram is done with for each call. */
static ssize_t amplify_write(struct stream *stream, const void *from, size_t n)
{
	struct amplify_stream *self = amplify_of(stream);
	struct stream *below = self->layer.below;
	bool is_free = self->has_answered || !self->layer.settings;
	size_t allowed = is_free ? n : allowed_bytes(self, from, n);
	if (!allowed) {
		size_t refused = datagram_record_bytes(from);
		assert(refused >= DATAGRAM_HEAD_BYTES && refused <= n);
		refuse_reply(self, refused);
		return (ssize_t)refused;
	}
	ssize_t put = below->ops->write(below, from, allowed);
	if (put > 0)
		self->sent += (uint64_t)put;
	return put;
}

static int amplify_shutdown(struct stream *stream)
{
	struct stream *below = amplify_of(stream)->layer.below;
	return below->ops->shutdown(below);
}

static void amplify_close(struct stream *stream, bool reset)
{
	struct stream *below = amplify_of(stream)->layer.below;
	below->ops->close(below, reset);
}

const struct stream_ops AMPLIFY_STREAM = {
	.name = "amplification",
	.is_layer = true,
	.keeps_settings = true,
	.bytes = sizeof(struct amplify_stream),
	.read = amplify_read,
	.write = amplify_write,
	.shutdown = amplify_shutdown,
	.close = amplify_close,
};
