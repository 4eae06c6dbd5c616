/*
 * TLS as a layer, over a stream in memory. The input says what happens: bytes that nobody has made come from the peer,
 * a client that knows TLS speaks and hears, the stream hands out and takes as little as it likes, time passes, the
 * peer ends or resets. It aborts where a connection is not told of its end exactly once, or something is held at the
 * end.
 *
 * Input: a byte a choice, and behind those that say so a byte for a number, or that many bytes.
 */
#include "support/conn_world.h"
#include "support/pem.h"
#include "tls/client.h"
#include "tls/context.h"
#include "tls/stream.h"

#include <stdlib.h>

enum { WIRE_BYTES = 65536, OPENING_MS = 1000 };

static const uint8_t *at, *end;
static struct tls_client *knows; /* how to speak TLS */

static uint32_t next_byte(void)
{
	return at < end ? *at++ : 0;
}

/* Once for all inputs. */
static struct tls_context *context_of_all(void)
{
	static struct tls_context *context;
	static struct tls_settings *settings;
	char why[256];
	if (context)
		return context;
	settings = pem_settings();
	context = tls_context_new(settings, why, sizeof why);
	if (!context)
		abort();
	return context;
}

static void put_raw(struct client *c)
{
	size_t n = next_byte();
	if (n > (size_t)(end - at))
		n = (size_t)(end - at);
	world_put(c, at, n);
	at += n;
}

static void speak(struct client *c)
{
	static char wire[WIRE_BYTES];
	size_t n = tls_client_take(knows, wire, sizeof wire);
	world_put(c, wire, n);
}

static void hear(struct client *c)
{
	static char wire[WIRE_BYTES];
	size_t n = memory_stream_take(&c->memory, wire, sizeof wire);
	if (!tls_client_put(knows, wire, n))
		abort();
	while (tls_client_read(knows, wire, sizeof wire))
		;
}

static void change_moods(struct client *c)
{
	c->memory.read_max = next_byte();
	c->memory.write_max = next_byte();
	uint32_t window = next_byte();
	c->memory.window_bytes = window == 255 ? SIZE_MAX : c->memory.outward.bytes + window;
}

static void happen(struct client *c)
{
	uint32_t what = next_byte() % 9;
	bool speaks = !c->memory.peer_shut && !c->memory.broken;
	if (what == 0 && speaks)
		put_raw(c);
	else if (what <= 2 && speaks)
		speak(c);
	else if (what <= 4)
		hear(c);
	else if (what == 5)
		tls_client_send(knows, "a line\n", 7);
	else if (what == 6)
		change_moods(c);
	else if (what == 7)
		conn_host_turn(&host, now_ms += next_byte() * 10);
	else if (next_byte() % 2)
		memory_stream_half_close(&c->memory);
	else
		tls_client_end(knows);
	world_run();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char why[256];
	at = data;
	end = data + size;
	if (world_start(0))
		abort();
	world_top = (struct layer){ &TLS_STREAM, context_of_all() };
	rules.timeouts.opening = OPENING_MS;
	line.empty = CODEC_EMPTY_IGNORE;
	knows = tls_client_new(&(struct tls_client_settings){ 0 }, why, sizeof why);
	if (!knows)
		abort();
	struct client *c = world_join(0);
	c->echo = true;
	while (at < end && !c->closed)
		happen(c);
	tls_client_free(knows);
	world_end();
	return 0;
}
