#include "stream/memory.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

static struct memory_stream *self(struct stream *stream)
{
	return (struct memory_stream *)(void *)stream;
}

static void queue_put(uint8_t **queue, size_t *bytes, size_t *room, const void *from, size_t n)
{
	if (*bytes + n > *room) {
		*room = (*bytes + n) * 2;
		*queue = realloc(*queue, *room);
		assert(*queue);
	}
	if (n)
		memcpy(*queue + *bytes, from, n);
	*bytes += n;
}

static size_t queue_take(uint8_t *queue, size_t *bytes, void *to, size_t n)
{
	if (n > *bytes)
		n = *bytes;
	if (n) {
		memcpy(to, queue, n);
		memmove(queue, queue + n, *bytes - n);
	}
	*bytes -= n;
	return n;
}

static ssize_t memory_read(struct stream *stream, void *to, size_t n)
{
	struct memory_stream *m = self(stream);
	/* What came before a reset can still be read, as from a socket. */
	if (!m->inward_bytes)
		return m->broken ? UV_ECONNRESET : m->peer_shut ? 0 : UV_EAGAIN;
	if (m->read_max && n > m->read_max)
		n = m->read_max;
	return (ssize_t)queue_take(m->inward, &m->inward_bytes, to, n);
}

static ssize_t memory_write(struct stream *stream, const void *from, size_t n)
{
	struct memory_stream *m = self(stream);
	m->writes++;
	if (m->broken || m->our_shut)
		return m->broken ? UV_ECONNRESET : UV_EPIPE;
	size_t room = m->window_bytes > m->outward_bytes ? m->window_bytes - m->outward_bytes : 0;
	if (!room)
		return UV_EAGAIN;
	if (n > room)
		n = room;
	if (m->write_max && n > m->write_max)
		n = m->write_max;
	queue_put(&m->outward, &m->outward_bytes, &m->outward_room, from, n);
	return (ssize_t)n;
}

static int memory_watch(struct stream *stream, unsigned events)
{
	self(stream)->watched = events;
	return 0;
}

static void memory_again(struct stream *stream)
{
	self(stream)->asked_again = true;
}

static size_t memory_unsent(struct stream *stream)
{
	return self(stream)->outward_bytes;
}

static int memory_shutdown(struct stream *stream)
{
	self(stream)->our_shut = true;
	return 0;
}

static size_t memory_unread(struct stream *stream)
{
	return self(stream)->inward_bytes;
}

static void memory_close(struct stream *stream, bool reset)
{
	struct memory_stream *m = self(stream);
	m->was_reset = reset || m->inward_bytes > 0;
	m->closing = true;
}

static int memory_local_address(struct stream *stream, struct sockaddr_storage *address)
{
	const struct memory_stream *m = self(stream);
	if (!m->local.sin_family)
		return UV_ENOTSUP;
	memcpy(address, &m->local, sizeof m->local);
	return 0;
}

static const struct stream_ops MEMORY_STREAM = {
	.name = "memory",
	.read = memory_read,
	.write = memory_write,
	.unsent = memory_unsent,
	.unread = memory_unread,
	.shutdown = memory_shutdown,
	.close = memory_close,
	.local_address = memory_local_address,
	.watch = memory_watch,
	.again = memory_again,
};

void memory_stream_init(struct memory_stream *memory, struct stream_user *user)
{
	*memory = (struct memory_stream){ .stream = { &MEMORY_STREAM, user }, .window_bytes = SIZE_MAX };
	user->stream = &memory->stream;
}

void memory_stream_deinit(struct memory_stream *memory)
{
	free(memory->inward);
	free(memory->outward);
	memory->inward = memory->outward = NULL;
}

void memory_stream_put(struct memory_stream *m, const void *bytes, size_t n)
{
	if (!m->closing)
		m->put_bytes += n;
	queue_put(&m->inward, &m->inward_bytes, &m->inward_room, bytes, n);
}

size_t memory_stream_take(struct memory_stream *m, void *to, size_t n)
{
	return queue_take(m->outward, &m->outward_bytes, to, n);
}

void memory_stream_half_close(struct memory_stream *m)
{
	m->peer_shut = true;
}

void memory_stream_reset(struct memory_stream *m)
{
	m->broken = true;
}

static unsigned stream_memory_events_of(const struct memory_stream *m)
{
	if (m->broken && !m->broken_told)
		return STREAM_BROKEN;
	unsigned write = m->outward_bytes < m->window_bytes ? STREAM_WRITE : 0u;
	unsigned read = m->inward_bytes || m->peer_shut || m->asked_again ? STREAM_READ : 0u;
	return m->watched & (write | read);
}

bool memory_stream_has_event(const struct memory_stream *m)
{
	return !m->closed && (m->closing || stream_memory_events_of(m));
}

bool memory_stream_report(struct memory_stream *m)
{
	struct stream_user *user = m->stream.user;
	if (m->closed)
		return false;
	if (m->closing) {
		m->closed = true;
		user->events->closed(user);
		return false; /* its memory may be gone */
	}
	unsigned events = stream_memory_events_of(m);
	if (!events)
		return false;
	m->broken_told = m->broken_told || events == STREAM_BROKEN;
	if (events & STREAM_WRITE)
		events = STREAM_WRITE; /* one at a time */
	else
		m->asked_again = false;
	user->events->ready(user, events);
	return true;
}
