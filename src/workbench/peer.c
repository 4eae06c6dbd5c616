#include "workbench/peer.h"

#include "tls/client.h"
#include "workbench/world.h"

#include <stdlib.h>
#include <string.h>

struct peer *peer_new(struct world *world, unsigned listener, bool is_bare)
{
	const struct layer *layers = is_bare ? NULL : world->agents.endpoints[listener].endpoint.layers;
	struct peer *peer = calloc(1, sizeof *peer + layers_bytes(layers));
	if (!peer)
		return NULL;
	memory_stream_init(&peer->memory, &peer->conn.io);
	layers_init(layers, peer + 1, &peer->conn.io);
	peer->conn.peer.sin6_family = AF_UNIX;
	peer->world = world;
	peer->listener = (uint16_t)listener;
	peer->may_read = SIZE_MAX;
	peer->codec = *agents_codec(&world->agents, listener);
	peer->codec.view = false;
	if (peer->codec.kind != CODEC_RAW)
		peer->codec.protocol.max_bytes = CODEC_FRAME_LIMIT;
	return peer;
}

void peer_free(struct peer *peer)
{
	tls_client_free(peer->tls);
	memory_stream_deinit(&peer->memory);
	free(peer->received);
	free(peer->marks);
	free(peer);
}

/* Room for one more of `bytes` each; false: no memory. */
static bool workbench_peer_grow(void **block, size_t *room, size_t wanted, size_t bytes)
{
	if (wanted <= *room)
		return true;
	size_t more = wanted < 8 ? 16 : wanted * 2;
	void *grown = realloc(*block, more * bytes);
	if (!grown)
		return false;
	*block = grown;
	*room = more;
	return true;
}

static bool mark_time(struct peer *peer)
{
	uint64_t now_ms = peer->world->host.now_ms;
	if (peer->mark_count && peer->marks[peer->mark_count - 1].at_ms == now_ms)
		return true;
	if (!workbench_peer_grow((void **)&peer->marks, &peer->mark_room, peer->mark_count + 1,
				 sizeof *peer->marks))
		return false;
	peer->marks[peer->mark_count++] = (struct peer_mark){ peer->received_bytes, now_ms };
	return true;
}

/* Where n more bytes go that come now; NULL: no memory. */
static uint8_t *place_for(struct peer *peer, size_t n)
{
	if (!mark_time(peer) ||
	    !workbench_peer_grow((void **)&peer->received, &peer->received_room, peer->received_bytes + n, 1))
		return NULL;
	return peer->received + peer->received_bytes;
}

bool peer_receive(struct peer *peer, const void *bytes, size_t n)
{
	uint8_t *place = place_for(peer, n);
	if (!place)
		return false;
	memcpy(place, bytes, n);
	peer->received_bytes += n;
	return true;
}

/* ---- on the wire ---- */

enum { RECORDS_BYTES = 16384 };

/* What TLS makes of what it was given. */
static void flush_tls(struct peer *peer)
{
	char records[RECORDS_BYTES];
	size_t n;
	while ((n = tls_client_take(peer->tls, records, sizeof records)) > 0)
		memory_stream_put(&peer->memory, records, n);
}

void peer_begin_tls(struct peer *peer, struct tls_client *tls)
{
	peer->tls = tls;
	flush_tls(peer);
}

bool peer_send(struct peer *peer, const void *bytes, size_t n)
{
	if (!peer->tls) {
		memory_stream_put(&peer->memory, bytes, n);
		return true;
	}
	bool sent = tls_client_send(peer->tls, bytes, n);
	flush_tls(peer);
	return sent;
}

void peer_half_close(struct peer *peer)
{
	if (peer->tls) {
		tls_client_end(peer->tls);
		flush_tls(peer);
	}
	memory_stream_half_close(&peer->memory);
}

/* What has come by the wire, as the server has said it. */
static void take_records(struct peer *peer, size_t n)
{
	char records[RECORDS_BYTES], said[RECORDS_BYTES];
	while (n) {
		size_t part =
		    memory_stream_take(&peer->memory, records, n < sizeof records ? n : sizeof records);
		n = part ? n - part : 0;
		tls_client_put(peer->tls, records, part);
		while ((part = tls_client_read(peer->tls, said, sizeof said)) > 0)
			peer_receive(peer, said, part);
	}
	flush_tls(peer);
}

/* Whoever has hung up gets nothing any more; whoever sends to it learns that by a reset. */
static bool refuse_output(struct peer *peer)
{
	struct memory_stream *memory = &peer->memory;
	if (!memory->outward_bytes || memory->broken)
		return false;
	memory->outward_bytes = 0;
	if (!memory->closing)
		memory_stream_reset(memory);
	return true;
}

static bool take_output(struct peer *peer)
{
	struct memory_stream *memory = &peer->memory;
	if (peer->left)
		return refuse_output(peer);
	size_t n = memory->outward_bytes < peer->may_read ? memory->outward_bytes : peer->may_read;
	/* Without memory for it, it stays: as if it were not read. */
	uint8_t *place = n ? place_for(peer, n) : NULL;
	if (!place)
		return false;
	if (peer->tls)
		take_records(peer, n);
	else
		peer->received_bytes += memory_stream_take(memory, place, n);
	if (peer->may_read != SIZE_MAX)
		peer_stall(peer, peer->may_read - n);
	return true;
}

static void workbench_peer_note_end(struct peer *peer)
{
	const struct conn *conn = &peer->conn;
	uint64_t now_ms = peer->world->host.now_ms;
	if (!peer->ended && !conn->first.opened) {
		peer->ended = true;
		peer->ended_ms = now_ms;
	}
	if (!peer->end_seen && (peer->memory.our_shut || peer->memory.closing)) {
		peer->end_seen = true;
		peer->end_seen_ms = now_ms;
	}
}

bool peer_look(struct peer *peer)
{
	struct memory_stream *memory = &peer->memory;
	bool any = take_output(peer);
	workbench_peer_note_end(peer);
	/* A server that waits for the client to close after its last words does not wait long. */
	if (peer->conn.state == CONN_LINGER && memory->our_shut && !memory->peer_shut) {
		memory_stream_half_close(memory);
		any = true;
	}
	return any;
}

void peer_stall(struct peer *peer, size_t bytes)
{
	peer->may_read = peer->memory.window_bytes = bytes;
}

void peer_hang_up(struct peer *peer)
{
	peer->left = true;
	peer_stall(peer, SIZE_MAX);
	peer_half_close(peer);
}

enum close_reason peer_reason(const struct peer *peer)
{
	if (peer->refused)
		return REASON_LIMIT;
	return peer->ended ? (enum close_reason)peer->conn.reason : REASON_NONE;
}

int peer_next_frame(struct peer *peer, struct batch *batch)
{
	struct agents *agents = &peer->world->agents;
	struct conn_host *host = &peer->world->host;
	size_t n = peer->received_bytes - peer->taken_bytes;
	*batch = (struct batch){ 0 };
	if (!n)
		return 0;
	/* A codec in Lua runs for the specification, not on behalf of the connection. */
	struct channel *accounted = agents->accounted;
	struct conn *decoding = host->decoding;
	agents->accounted = &peer->conn.first;
	host->decoding = NULL;
	codec_decode(&peer->codec, peer->received + peer->taken_bytes, n, 1, &peer->session, batch);
	batch->by = &peer->codec.protocol;
	agents->accounted = accounted;
	host->decoding = decoding;
	/* What is to be skipped comes alone, or before the frame. */
	peer->taken_bytes += batch->consumed;
	return batch->count ? 1 : batch->error;
}

uint64_t peer_time_of(const struct peer *peer, size_t offset)
{
	uint64_t at_ms = 0;
	for (size_t i = 0; i < peer->mark_count && peer->marks[i].offset <= offset; i++)
		at_ms = peer->marks[i].at_ms;
	return at_ms;
}
