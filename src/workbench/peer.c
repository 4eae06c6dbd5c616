#include "workbench/peer.h"

#include "net/datagram.h"
#include "stream/flow.h"
#include "tls/client.h"
#include "workbench/entropy.h"
#include "workbench/world.h"

#include <stdlib.h>
#include <string.h>

/* Of its connection's stream, a connection that is yet to come. */
static void lay_stream(struct peer *peer, stream_layers layers)
{
	memory_stream_init(&peer->memory, &peer->conn.io);
	memset(peer + 1, 0, layers_bytes(layers));
	layers_init(layers, peer + 1, &peer->conn.io);
}

/* Its flow has ended or was refused, and another one begins. */
static void peer_begin_anew(struct peer *peer)
{
	struct sockaddr_in6 address = peer->conn.peer;
	memory_stream_deinit(&peer->memory);
	peer->conn = (struct conn){ .peer = address };
	lay_stream(peer, peer->worker->agents->endpoints[peer->listener].endpoint.layers);
	peer->refused = peer->gone = peer->ended = peer->end_seen = false;
}

void peer_speak(struct peer *peer, struct agents *agents)
{
	peer->agents = agents;
	peer->session = (struct session){ 0 };
	peer->codec = *agents_codec(agents, peer->listener);
	peer->codec.view = false;
	if (peer->codec.kind != CODEC_RAW)
		peer->codec.protocol.max_bytes = CODEC_FRAME_LIMIT;
}

struct peer *peer_new(struct world *world, unsigned listener, bool is_bare)
{
	const struct layer *layers =
	    is_bare ? NULL : world->workers[0].agents->endpoints[listener].endpoint.layers;
	struct peer *peer = calloc(1, sizeof *peer + layers_bytes(layers));
	if (!peer)
		return NULL;
	lay_stream(peer, layers);
	peer->is_flow = world->config->listeners[listener].kind == LISTENER_UDP && !is_bare;
	peer->conn.peer.sin6_family = AF_UNIX;
	peer->world = world;
	peer->worker = &world->workers[0];
	peer->listener = (uint16_t)listener;
	peer->may_read = SIZE_MAX;
	peer_speak(peer, peer->worker->agents);
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
	uint64_t now_ms = peer->worker->host.now_ms;
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
	lan_note_client_bytes(peer, false, bytes, n);
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
	uint64_t *before = lan_draw_secrets(peer->world->lan);
	peer->tls = tls;
	flush_tls(peer);
	entropy_draw_from(before);
}

static size_t count_records(const uint8_t *bytes, size_t n)
{
	size_t count = 0;
	for (size_t at = 0; at < n; count++)
		at += datagram_record_bytes(bytes + at);
	return count;
}

void peer_put_datagram(struct memory_stream *to, const struct endpoint *endpoint, struct counters *counters,
		       const uint8_t *record, size_t n)
{
	size_t waiting = count_records(to->inward.first, to->inward.bytes);
	if (n > DATAGRAM_HEAD_BYTES + (size_t)endpoint->protocol->max_bytes)
		count(&counters->truncated_datagrams);
	else if (to->inward.bytes + n > FLOW_WAITING_BYTES || waiting >= endpoint->rules.inbox_frames)
		count(&counters->dropped_datagrams);
	else
		memory_stream_put(to, record, n);
}

/* Whole datagrams, each of which may begin a connection. */
static bool send_datagrams(struct peer *peer, const uint8_t *bytes, size_t n)
{
	size_t total;
	for (size_t at = 0; n - at >= DATAGRAM_HEAD_BYTES; at += total) {
		total = datagram_record_bytes(bytes + at);
		if (total < DATAGRAM_HEAD_BYTES || total > n - at)
			return true;
		bool begins = peer->gone;
		if (begins)
			peer_begin_anew(peer);
		peer_put_datagram(&peer->memory, &peer->worker->agents->endpoints[peer->listener].endpoint,
				  &peer->worker->counters, bytes + at, total);
		if (begins && !world_receive(peer->world, peer))
			count(&peer->worker->counters.dropped_datagrams);
	}
	return true;
}

bool peer_send(struct peer *peer, const void *bytes, size_t n)
{
	lan_note_client_bytes(peer, true, bytes, n);
	if (peer->is_flow)
		return send_datagrams(peer, bytes, n);
	if (!peer->tls) {
		memory_stream_put(&peer->memory, bytes, n);
		return true;
	}
	uint64_t *before = lan_draw_secrets(peer->world->lan);
	bool sent = tls_client_send(peer->tls, bytes, n);
	flush_tls(peer);
	entropy_draw_from(before);
	return sent;
}

void peer_half_close(struct peer *peer)
{
	lan_note_client(peer, true, "end");
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
	if (!memory->outward.bytes || memory->broken)
		return false;
	memory->outward.bytes = 0;
	if (peer->is_flow)
		return true;
	if (!memory->closing)
		memory_stream_reset(memory);
	return true;
}

static void take_bytes(struct peer *peer, uint8_t *place, size_t n)
{
	n = memory_stream_take(&peer->memory, place, n);
	lan_note_client_bytes(peer, false, place, n);
	peer->received_bytes += n;
}

static bool take_output(struct peer *peer)
{
	struct memory_stream *memory = &peer->memory;
	if (peer->left)
		return refuse_output(peer);
	size_t n = memory->outward.bytes < peer->may_read ? memory->outward.bytes : peer->may_read;
	/* Without memory for it, it stays: as if it were not read. */
	uint8_t *place = n ? place_for(peer, n) : NULL;
	if (!place)
		return false;
	if (peer->tls)
		take_records(peer, n);
	else
		take_bytes(peer, place, n);
	if (peer->may_read != SIZE_MAX)
		peer_stall(peer, peer->may_read - n);
	return true;
}

static void workbench_peer_note_end(struct peer *peer)
{
	const struct conn *conn = &peer->conn;
	uint64_t now_ms = peer->worker->host.now_ms;
	if (!peer->ended && !conn->first.opened) {
		peer->ended = true;
		peer->ended_ms = now_ms;
	}
	if (!peer->end_seen && (peer->memory.our_shut || peer->memory.closing)) {
		peer->end_seen = true;
		peer->end_seen_ms = now_ms;
		lan_note_client(peer, false, peer->memory.was_reset ? "reset" : "end");
	}
}

bool peer_look(struct peer *peer)
{
	struct memory_stream *memory = &peer->memory;
	bool any = !peer->wire && take_output(peer);
	workbench_peer_note_end(peer);
	if (peer->wire)
		return any;
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
	if (!peer->is_flow)
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
	struct agents *agents = peer->agents;
	struct conn_host *host = &peer->worker->host;
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
