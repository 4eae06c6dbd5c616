#include "conn/memory.h"

#include "conn/transport.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

static struct memory_conn *self(struct conn *conn)
{
	return (struct memory_conn *)(void *)conn;
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

static ssize_t memory_read(struct conn *conn, void *to, size_t n)
{
	struct memory_conn *m = self(conn);
	/* What came before a reset can still be read, as from a socket. */
	if (!m->inward_bytes)
		return m->broken ? UV_ECONNRESET : m->peer_shut ? 0 : UV_EAGAIN;
	if (m->read_max && n > m->read_max)
		n = m->read_max;
	return (ssize_t)queue_take(m->inward, &m->inward_bytes, to, n);
}

static ssize_t memory_write(struct conn *conn, const void *from, size_t n)
{
	struct memory_conn *m = self(conn);
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

static int memory_watch(struct conn *conn, unsigned events)
{
	self(conn)->watched = events;
	return 0;
}

static size_t memory_unsent(struct conn *conn)
{
	return self(conn)->outward_bytes;
}

static int memory_shutdown(struct conn *conn)
{
	self(conn)->our_shut = true;
	return 0;
}

static size_t memory_unread(struct conn *conn)
{
	return self(conn)->inward_bytes;
}

static void memory_close(struct conn *conn, bool reset)
{
	struct memory_conn *m = self(conn);
	m->was_reset = reset || m->inward_bytes > 0;
	m->closing = true;
}

static int memory_local_address(struct conn *conn, struct sockaddr_storage *address)
{
	(void)conn;
	(void)address;
	return UV_ENOTSUP;
}

static const struct transport_ops MEMORY_OPS = {
	.read = memory_read,
	.write = memory_write,
	.watch = memory_watch,
	.unsent = memory_unsent,
	.shutdown = memory_shutdown,
	.unread = memory_unread,
	.close = memory_close,
	.local_address = memory_local_address,
};

void memory_conn_init(struct memory_conn *memory)
{
	*memory = (struct memory_conn){ .window_bytes = SIZE_MAX };
	memory->conn.transport = &MEMORY_OPS;
	memory->conn.peer.sin6_family = AF_UNIX;
}

void memory_conn_deinit(struct memory_conn *memory)
{
	free(memory->inward);
	free(memory->outward);
	memory->inward = memory->outward = NULL;
}

void memory_conn_put(struct memory_conn *m, const void *bytes, size_t n)
{
	if (!m->closing)
		m->put_bytes += n;
	queue_put(&m->inward, &m->inward_bytes, &m->inward_room, bytes, n);
}

size_t memory_conn_take(struct memory_conn *m, void *to, size_t n)
{
	return queue_take(m->outward, &m->outward_bytes, to, n);
}

void memory_conn_half_close(struct memory_conn *m)
{
	m->peer_shut = true;
}

void memory_conn_reset(struct memory_conn *m)
{
	m->broken = true;
}

bool memory_conn_report(struct memory_conn *m)
{
	struct conn *conn = &m->conn;
	if (m->closed)
		return false;
	if (m->closing) {
		m->closed = true;
		conn_on_closed(conn);
		return false; /* its memory may be gone */
	}
	if (m->broken && !m->broken_told) {
		m->broken_told = true;
		conn_on_broken(conn);
		return true;
	}
	if ((m->watched & WATCH_WRITE) && m->outward_bytes < m->window_bytes) {
		conn_on_writable(conn);
		return true;
	}
	if ((m->watched & WATCH_READ) && (m->inward_bytes || m->peer_shut)) {
		conn_on_readable(conn);
		return true;
	}
	return false;
}

void memory_conn_run(struct memory_conn *m)
{
	struct conn_host *host = m->conn.host;
	while (memory_conn_report(m))
		conn_host_settle(host);
}
