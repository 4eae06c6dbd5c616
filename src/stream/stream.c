#include "stream/stream.h"

#include <assert.h>
#include <uv.h>

size_t layers_bytes(stream_layers layers)
{
	size_t bytes = 0;
	for (int i = 0; layers && layers[i].ops; i++)
		bytes += layers[i].ops->bytes;
	return bytes;
}

void layers_init(stream_layers layers, void *memory, struct stream_user *user)
{
	char *place = memory;
	for (int i = 0; layers && layers[i].ops; i++) {
		stack_push((struct stream_layer *)(void *)place, &layers[i], user);
		place += layers[i].ops->bytes;
	}
}

void stack_push(struct stream_layer *state, const struct layer *layer, struct stream_user *user)
{
	assert(layer->ops->is_layer);
	state->stream = (struct stream){ layer->ops, user };
	state->below = user->stream;
	state->settings = layer->settings;
	user->stream = &state->stream;
}

static const void *settings_of(stream_layers layers, const struct stream_ops *ops)
{
	for (int i = 0; layers && layers[i].ops; i++)
		if (layers[i].ops == ops)
			return layers[i].settings;
	return NULL;
}

void layers_follow(stream_layers layers, struct stream_user *user)
{
	for (struct stream *stream = user->stream; stream->ops->is_layer; stream = stream_below(stream))
		if (stream->ops->keeps_settings)
			((struct stream_layer *)(void *)stream)->settings = settings_of(layers, stream->ops);
}

struct stream *stream_below(const struct stream *stream)
{
	return stream->ops->is_layer ? ((const struct stream_layer *)(const void *)stream)->below : NULL;
}

struct stream *stream_find(const struct stream_user *user, const struct stream_ops *ops)
{
	struct stream *stream = user->stream;
	while (stream && stream->ops != ops)
		stream = stream_below(stream);
	return stream;
}

static struct stream *lowest_of(const struct stream_user *user)
{
	struct stream *stream = user->stream, *below;
	while ((below = stream_below(stream)))
		stream = below;
	return stream;
}

ssize_t stream_write_more(struct stream *stream, const void *from, size_t n)
{
	return stream->ops->write_more ? stream->ops->write_more(stream, from, n)
				       : stream->ops->write(stream, from, n);
}

/* Up to the first that does not fit. An error behind what was written comes again with the next write. */
static ssize_t write_each(struct stream *stream, const struct iovec *parts, int n)
{
	ssize_t all = 0;
	for (int i = 0; i < n; i++) {
		ssize_t put = i < n - 1 ? stream_write_more(stream, parts[i].iov_base, parts[i].iov_len)
					: stream->ops->write(stream, parts[i].iov_base, parts[i].iov_len);
		if (put < 0)
			return all ? all : put;
		all += put;
		if ((size_t)put < parts[i].iov_len)
			break;
	}
	return all;
}

ssize_t stream_writev(struct stream_user *user, const struct iovec *parts, int n)
{
	return stream_write_parts(user->stream, parts, n);
}

ssize_t stream_write_parts(struct stream *stream, const struct iovec *parts, int n)
{
	return stream->ops->writev ? stream->ops->writev(stream, parts, n) : write_each(stream, parts, n);
}

ssize_t stream_send_file(struct stream_user *user, int file, uint64_t at, size_t n)
{
	struct stream *stream = user->stream;
	return stream->ops->send_file ? stream->ops->send_file(stream, file, at, n) : UV_ENOTSUP;
}

static int open_from(struct stream *stream)
{
	struct stream *below = stream_below(stream);
	int err = below ? open_from(below) : 0;
	return err || !stream->ops->open ? err : stream->ops->open(stream);
}

bool stream_begins(const struct stream_user *user)
{
	const struct stream *stream = user->stream;
	while (stream && !stream->ops->open)
		stream = stream_below(stream);
	return stream;
}

int stream_open(struct stream_user *user)
{
	return open_from(user->stream);
}

unsigned stream_layers_need(const struct stream_user *user, unsigned wanted)
{
	for (const struct stream *stream = user->stream; stream; stream = stream_below(stream))
		if (stream->ops->needs)
			wanted = stream->ops->needs(stream, wanted);
	return wanted;
}

int stream_watch(struct stream_user *user, unsigned events)
{
	struct stream *lowest = lowest_of(user);
	return lowest->ops->watch(lowest, events);
}

bool stream_holds_input(const struct stream *stream)
{
	while (stream && !stream->ops->has_input)
		stream = stream_below(stream);
	return stream && stream->ops->has_input(stream);
}

void stream_again(struct stream_user *user)
{
	struct stream *lowest = lowest_of(user);
	lowest->ops->again(lowest);
}

size_t stream_unsent(struct stream_user *user)
{
	struct stream *stream = user->stream;
	while (!stream->ops->unsent)
		stream = stream_below(stream);
	return stream->ops->unsent(stream);
}

size_t stream_unread(struct stream_user *user)
{
	return stream_unread_of(user->stream);
}

size_t stream_unread_of(struct stream *stream)
{
	while (!stream->ops->unread)
		stream = stream_below(stream);
	return stream->ops->unread(stream);
}

void stream_bound(struct stream_user *user, uint32_t max_bytes, uint32_t waiting_max)
{
	struct stream *lowest = lowest_of(user);
	if (lowest->ops->bound)
		lowest->ops->bound(lowest, max_bytes, waiting_max);
}

int stream_local_address(struct stream_user *user, struct sockaddr_storage *address)
{
	struct stream *stream = user->stream;
	while (!stream->ops->local_address)
		stream = stream_below(stream);
	return stream->ops->local_address(stream, address);
}

int stream_peer_address(struct stream_user *user, struct sockaddr_in6 *address)
{
	struct stream *stream = user->stream;
	while (stream && !stream->ops->peer_address)
		stream = stream_below(stream);
	return stream ? stream->ops->peer_address(stream, address) : UV_ENOENT;
}

const char *stream_failure(const struct stream_user *user)
{
	const char *text = NULL;
	for (const struct stream *stream = user->stream; stream && !text; stream = stream_below(stream))
		text = stream->ops->failure ? stream->ops->failure(stream) : NULL;
	return text;
}

enum close_reason stream_reason_of(const struct stream_user *user, int err)
{
	for (const struct stream *stream = user->stream; stream; stream = stream_below(stream)) {
		enum close_reason reason = stream->ops->reason_of ? stream->ops->reason_of(err) : REASON_NONE;
		if (reason != REASON_NONE)
			return reason;
	}
	return REASON_NONE;
}
