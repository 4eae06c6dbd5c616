#include "support/tls_ends.h"

#include "tls/stream.h"

#include <assert.h>
#include <string.h>
#include <uv.h>

enum { ROUNDS_MAX = 100000, WIRE_BYTES = 65536 };

static void end_begin(struct end *end, const struct tls_context *context)
{
	stream_layers layers = { { &TLS_STREAM, context } };
	assert(layers_bytes(layers) <= sizeof end->state);
	memory_stream_init(&end->memory, &end->user);
	layers_init(layers, end->state, &end->user);
}

void ends_begin(struct ends *ends, const struct tls_context *client, const struct tls_context *server)
{
	memset(ends, 0, sizeof *ends);
	end_begin(&ends->client, client);
	end_begin(&ends->server, server);
}

void ends_free(struct ends *ends)
{
	stream_close(&ends->client.user, false);
	stream_close(&ends->server.user, false);
	memory_stream_deinit(&ends->client.memory);
	memory_stream_deinit(&ends->server.memory);
}

void ends_pass(struct end *from, struct end *to, size_t max)
{
	static char wire[WIRE_BYTES];
	size_t n = memory_stream_take(&from->memory, wire, max < sizeof wire ? max : sizeof wire);
	memory_stream_put(&to->memory, wire, n);
	if (from->memory.our_shut && !from->memory.outward.bytes)
		memory_stream_half_close(&to->memory);
}

/* What a socket would be ready for. */
static unsigned end_events(const struct end *end)
{
	const struct memory_stream *m = &end->memory;
	return (m->inward.bytes || m->peer_shut || m->broken ? STREAM_READ : 0u) |
	       (m->outward.bytes < m->window_bytes || m->broken ? STREAM_WRITE : 0u);
}

void end_step(struct end *end)
{
	if (end->has_opened || end->err)
		return;
	if (!(end_events(end) & stream_needs(&end->user, STREAM_READ | STREAM_WRITE)))
		return;
	int err = stream_open(&end->user);
	end->has_opened = !err;
	if (!err || err == UV_EAGAIN)
		return;
	end->err = err;
	end->memory.our_shut = true; /* as a connection that fails does */
}

void ends_meet(struct ends *ends)
{
	struct end *client = &ends->client, *server = &ends->server;
	for (int i = 0; i < ROUNDS_MAX; i++) {
		end_step(client);
		ends_pass(client, server, SIZE_MAX);
		end_step(server);
		ends_pass(server, client, SIZE_MAX);
		if ((client->has_opened || client->err) && (server->has_opened || server->err))
			return;
	}
}

ssize_t end_read(struct end *end, void *to, size_t n)
{
	size_t got = 0;
	ssize_t more = 0;
	while (got < n) {
		more = stream_read(&end->user, (char *)to + got, n - got);
		if (more > 0)
			got += (size_t)more;
		else if (more != UV_EAGAIN || !(end->memory.inward.bytes || stream_has_input(&end->user)))
			break;
	}
	return got ? (ssize_t)got : more;
}

bool ends_say(struct end *from, struct end *to, const char *text)
{
	char heard[256];
	size_t n = strlen(text), put = 0;
	assert(n <= sizeof heard);
	for (int i = 0; i < ROUNDS_MAX && put < n; i++) {
		ssize_t more = stream_write(&from->user, text + put, n - put);
		put += more > 0 ? (size_t)more : 0;
	}
	ends_pass(from, to, SIZE_MAX);
	return end_read(to, heard, sizeof heard) == (ssize_t)n && !memcmp(heard, text, n);
}
