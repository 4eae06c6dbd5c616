#include "stream/memory.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

static struct memory_stream *self(struct stream *stream)
{
	return (struct memory_stream *)(void *)stream;
}

/* To where its memory begins. */
static void queue_rewind(struct memory_queue *queue)
{
	if (!queue->gone)
		return;
	uint8_t *begin = queue->first - queue->gone;
	memmove(begin, queue->first, queue->bytes);
	queue->room += queue->gone;
	queue->first = begin;
	queue->gone = 0;
}

static void queue_grow(struct memory_queue *queue, size_t n)
{
	queue->room = (queue->bytes + n) * 2;
	queue->first = realloc(queue->first, queue->room);
	assert(queue->first);
}

/* Each byte is moved a few times at most, however many are there and however few are taken at once. */
static void queue_put(struct memory_queue *queue, const void *from, size_t n)
{
	if (queue->bytes + n > queue->room) {
		bool is_mostly_gone = queue->gone >= queue->bytes;
		queue_rewind(queue);
		if (!is_mostly_gone || queue->bytes + n > queue->room)
			queue_grow(queue, n);
	}
	if (n)
		memcpy(queue->first + queue->bytes, from, n);
	queue->bytes += n;
}

static size_t queue_take(struct memory_queue *queue, void *to, size_t n)
{
	if (n > queue->bytes)
		n = queue->bytes;
	if (!n)
		return 0;
	memcpy(to, queue->first, n);
	queue->first += n;
	queue->gone += n;
	queue->room -= n;
	queue->bytes -= n;
	return n;
}

static void queue_free(struct memory_queue *queue)
{
	queue_rewind(queue);
	free(queue->first);
	*queue = (struct memory_queue){ 0 };
}

static ssize_t memory_read(struct stream *stream, void *to, size_t n)
{
	struct memory_stream *m = self(stream);
	/* What came before a reset can still be read, as from a socket. */
	if (!m->inward.bytes)
		return m->broken ? UV_ECONNRESET : m->peer_shut ? 0 : UV_EAGAIN;
	if (m->read_max && n > m->read_max)
		n = m->read_max;
	return (ssize_t)queue_take(&m->inward, to, n);
}

static ssize_t memory_write(struct stream *stream, const void *from, size_t n)
{
	struct memory_stream *m = self(stream);
	m->writes++;
	if (m->broken || m->our_shut)
		return m->broken ? UV_ECONNRESET : UV_EPIPE;
	size_t room = m->window_bytes > m->outward.bytes ? m->window_bytes - m->outward.bytes : 0;
	if (!room)
		return UV_EAGAIN;
	if (n > room)
		n = room;
	if (m->write_max && n > m->write_max)
		n = m->write_max;
	queue_put(&m->outward, from, n);
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
	return self(stream)->outward.bytes;
}

static int memory_shutdown(struct stream *stream)
{
	self(stream)->our_shut = true;
	return 0;
}

static size_t memory_unread(struct stream *stream)
{
	return self(stream)->inward.bytes;
}

static void memory_close(struct stream *stream, bool reset)
{
	struct memory_stream *m = self(stream);
	m->was_reset = reset || m->inward.bytes > 0;
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
	queue_free(&memory->inward);
	queue_free(&memory->outward);
}

void memory_stream_put(struct memory_stream *m, const void *bytes, size_t n)
{
	if (!m->closing)
		m->put_bytes += n;
	queue_put(&m->inward, bytes, n);
}

size_t memory_stream_take(struct memory_stream *m, void *to, size_t n)
{
	return queue_take(&m->outward, to, n);
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
	unsigned write = m->outward.bytes < m->window_bytes ? STREAM_WRITE : 0u;
	unsigned read = m->inward.bytes || m->peer_shut || m->asked_again ? STREAM_READ : 0u;
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
