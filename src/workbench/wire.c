#include "workbench/wire.h"

#include "workbench/peer.h"
#include "workbench/wire_datagrams.h"
#include "workbench/world.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { US_PER_MS = 1000, US_PER_S = 1000 * 1000, SEGMENT_BYTES_MAX = 4096 };

/* ---- its life ---- */

struct wire *wire_new(struct lan *lan, struct world *from, const char *host)
{
	struct wire *wire = calloc(1, sizeof *wire);
	char *copy = strdup(host);
	if (!wire || !copy) {
		free(wire);
		free(copy);
		return NULL;
	}
	*wire = (struct wire){ .lan = lan, .from = from, .near_node = from->node };
	wire->place.host = copy;
	for (int way = 0; way < 2; way++)
		wire->lanes[way].end = &wire->lanes[way].first;
	*lan->end = wire;
	lan->end = &wire->next;
	return wire;
}

static void drop_segments(struct lane *lane)
{
	for (struct segment *segment; (segment = lane->first);) {
		lane->first = segment->next;
		free(segment);
	}
	lane->end = &lane->first;
	lane->bytes = 0;
}

void wire_free(struct wire *wire)
{
	struct lan *lan = wire->lan;
	struct wire **link = &lan->wires;
	while (*link != wire)
		link = &(*link)->next;
	*link = wire->next;
	if (!wire->next)
		lan->end = link;
	if (wire->far)
		wire->far->wire = NULL;
	for (int way = 0; way < 2; way++)
		drop_segments(&wire->lanes[way]);
	free(wire->place.host);
	free(wire);
}

/* It is yet to be accepted, by an app that is stalled: that is then, even if nobody is at the other end any more. */
static bool is_waiting(const struct wire *wire)
{
	const struct segment *first = wire->lanes[WAY_THERE].first;
	return wire->is_queued && first && first->kind == SEGMENT_CONNECT && wire->far_node->world;
}

bool wire_is_over(const struct wire *wire)
{
	bool is_heading = wire->place.is_datagram ? wire->lanes[WAY_THERE].first != NULL : is_waiting(wire);
	if (wire->attempt || wire->inquiry || wire->near || is_heading)
		return false;
	return !wire->far || wire->far->gone; /* its peer looks at it for as long as its world has it */
}

struct memory_stream *wire_speaker(const struct wire *wire, enum way way)
{
	if (way == WAY_THERE)
		return wire->near ? &wire->near->memory : NULL;
	return wire->far ? &wire->far->memory : NULL;
}

/* ---- the history ---- */

void wire_note(const struct wire *wire, enum way way, const char *what)
{
	static const char *const ARROWS[] = { [WAY_THERE] = "→", [WAY_BACK] = "←" };
	const struct peer *far = wire->far;
	const char *near_name = wire->near_node ? wire->near_node->name : "?";
	const char *far_name = wire->far_node ? wire->far_node->name : wire->place.host;
	struct lan_name names[2];
	if (lan_notes(wire->lan))
		history_add(&wire->lan->history, wire->lan->now_ms - WORLD_BEGIN_MS, "#%u  %s %s %s  %s",
			    wire->number, lan_name(&names[0], near_name, wire->worker), ARROWS[way],
			    lan_name(&names[1], far_name, far && far->is_placed ? far->worker : NULL), what);
}

void wire_note_refusal(const struct wire *wire, const char *fate)
{
	char what[256];
	const struct place *place = &wire->place;
	const char *why = wire->far_node ? "" : ": nobody in this test serves it";
	if (place->is_local)
		snprintf(what, sizeof what, "refuses %s%s%s", place->host, why, fate);
	else
		snprintf(what, sizeof what, "refuses %s:%u%s%s", place->host, place->port, why, fate);
	wire_note(wire, WAY_BACK, what);
}

static void note_bytes(struct wire *wire, enum way way, const struct segment *segment)
{
	struct history_bytes shown;
	if (lan_notes(wire->lan))
		wire_note(wire, way,
			  wire->is_opaque ? "TLS"
					  : history_show_way(&shown, &wire->is_websocket, way == WAY_BACK,
							     segment->bytes, segment->count));
}

/* ---- what is said ---- */

uint64_t wire_due_ms(struct wire *wire, enum way way, size_t n)
{
	struct lan *lan = wire->lan;
	struct lane *lane = &wire->lanes[way];
	const struct link_conditions *link =
	    links_find(lan, wire_node_at(wire, way), wire_node_at(wire, way_back(way)));
	uint64_t due = lan->now_ms;
	if (link->rate && n) {
		uint64_t from_us = lan->now_ms * US_PER_MS;
		from_us = lane->free_us > from_us ? lane->free_us : from_us;
		lane->free_us = from_us + (n * US_PER_S + link->rate - 1) / link->rate;
		due = (lane->free_us + US_PER_MS - 1) / US_PER_MS;
	}
	due += link->latency_min_ms;
	if (link->latency_max_ms > link->latency_min_ms)
		due += links_draw(&lan->drawn, (uint64_t)link->latency_max_ms - link->latency_min_ms + 1);
	return due;
}

struct segment *wire_new_segment(enum segment_kind kind, uint64_t due_ms, const void *bytes, size_t n)
{
	struct segment *segment = malloc(sizeof *segment + n);
	assert(segment);
	*segment = (struct segment){ .due_ms = due_ms, .kind = kind, .count = n };
	if (n)
		memcpy(segment->bytes, bytes, n);
	return segment;
}

void wire_say(struct wire *wire, enum way way, enum segment_kind kind, const void *bytes, size_t n)
{
	struct lane *lane = &wire->lanes[way];
	uint64_t due_ms = wire_due_ms(wire, way, n);
	due_ms = due_ms < lane->last_due_ms ? lane->last_due_ms : due_ms;
	struct segment *segment = wire_new_segment(kind, due_ms, bytes, n);
	lane->last_due_ms = due_ms;
	lane->bytes += n;
	*lane->end = segment;
	lane->end = &segment->next;
	lane->is_ended = lane->is_ended || kind == SEGMENT_END || kind == SEGMENT_RESET;
	lane->is_reset = lane->is_reset || kind == SEGMENT_RESET;
	lane->is_cut = lane->is_cut || lane->is_reset;
}

/* On a slow link, as much as passes in 10 ms. */
static size_t segment_bytes(const struct wire *wire, enum way way)
{
	enum { PER_SECOND = 100 };
	uint64_t rate =
	    links_find(wire->lan, wire_node_at(wire, way), wire_node_at(wire, way_back(way)))->rate;
	if (!rate || rate / PER_SECOND > SEGMENT_BYTES_MAX)
		return SEGMENT_BYTES_MAX;
	return rate < PER_SECOND ? 1 : (size_t)(rate / PER_SECOND);
}

static bool say_bytes(struct wire *wire, enum way way, size_t room)
{
	struct memory_stream *from = wire_speaker(wire, way);
	uint8_t bytes[SEGMENT_BYTES_MAX];
	size_t most = segment_bytes(wire, way);
	bool any = false;
	while (from->outward.bytes && room) {
		size_t n = memory_stream_take(from, bytes, most < room ? most : room);
		wire_say(wire, way, SEGMENT_BYTES, bytes, n);
		room -= n;
		any = true;
	}
	return any;
}

/* What its end has done is said once all before it has been. */
static bool say_end(struct wire *wire, enum way way)
{
	struct lane *lane = &wire->lanes[way];
	const struct memory_stream *from = wire_speaker(wire, way);
	bool leaves = from->closing || from->closed;
	if (from->outward.bytes || !(from->our_shut || leaves))
		return false;
	bool is_reset = leaves && from->was_reset;
	if (lane->is_ended && !is_reset)
		return false;
	wire_say(wire, way, is_reset ? SEGMENT_RESET : SEGMENT_END, NULL, 0);
	return true;
}

static bool listen_to(struct wire *wire, enum way way)
{
	struct lane *lane = &wire->lanes[way];
	struct memory_stream *from = wire_speaker(wire, way);
	const struct memory_stream *to = wire_speaker(wire, way_back(way));
	if (!from)
		return false;
	if (lane->is_cut) {
		bool says = from->outward.bytes;
		from->outward.bytes = 0;
		return says;
	}
	size_t under_way = lane->bytes + (to ? to->inward.bytes : 0);
	size_t room = under_way < WIRE_WINDOW_BYTES ? WIRE_WINDOW_BYTES - under_way : 0;
	bool any = say_bytes(wire, way, room);
	return say_end(wire, way) || any;
}

void wire_flush(struct wire *wire, enum way way)
{
	if (!wire_speaker(wire, way) || wire->lanes[way].is_cut)
		return;
	if (wire->place.is_datagram) {
		wire_datagrams_post(wire, way);
		return;
	}
	say_bytes(wire, way, SIZE_MAX);
	if (!say_end(wire, way) && !wire->lanes[way].is_ended)
		wire_say(wire, way, SEGMENT_RESET, NULL, 0);
}

void wire_cut(struct wire *wire, enum way way)
{
	wire->lanes[way].is_ended = wire->lanes[way].is_cut = true;
}

void wire_break(struct wire *wire)
{
	for (enum way way = WAY_THERE; way <= WAY_BACK; way++) {
		struct memory_stream *end = wire_speaker(wire, way);
		drop_segments(&wire->lanes[way]);
		wire_cut(wire, way);
		wire->lanes[way].is_reset = true;
		if (!end)
			continue;
		end->outward.bytes = 0;
		if (!end->closing)
			memory_stream_reset(end);
	}
	wire_note(wire, WAY_THERE, "reset in between");
}

/* ---- what arrives ---- */

void wire_reject(struct wire *wire, enum way way)
{
	const struct lan_node *node = wire_node_at(wire, way_back(way));
	if (!wire->lanes[way_back(way)].is_reset && !(node && node->is_silent))
		wire_say(wire, way_back(way), SEGMENT_RESET, NULL, 0);
}

static void arrive_bytes(struct wire *wire, enum way way, const struct segment *segment)
{
	struct memory_stream *to = wire_speaker(wire, way_back(way));
	if (to && !to->closing && !to->closed) {
		note_bytes(wire, way, segment);
		if (!to->broken)
			memory_stream_put(to, segment->bytes, segment->count);
		return;
	}
	wire_note(wire, way, "lost: nobody is there");
	wire_reject(wire, way);
}

static void arrive_end(struct wire *wire, enum way way, bool is_reset)
{
	struct memory_stream *to = wire_speaker(wire, way_back(way));
	wire_note(wire, way, is_reset ? "reset" : "end");
	if (!to || to->closing || to->closed || to->broken)
		return;
	if (is_reset)
		memory_stream_reset(to);
	else
		memory_stream_half_close(to);
}

static void arrive(struct wire *wire, enum way way, const struct segment *segment)
{
	switch (segment->kind) {
	case SEGMENT_CONNECT:
		lan_accept(wire);
		break;
	case SEGMENT_ACCEPT:
		lan_connected(wire);
		break;
	case SEGMENT_REFUSE:
		lan_refused(wire);
		break;
	case SEGMENT_BYTES:
		arrive_bytes(wire, way, segment);
		break;
	default:
		arrive_end(wire, way, segment->kind == SEGMENT_RESET);
	}
}

/* Nothing passes, or who is to do something about it does nothing. */
static bool wire_is_held(const struct wire *wire, enum way way)
{
	const struct segment *first = wire->lanes[way].first;
	const struct lan_node *to = wire_node_at(wire, way_back(way));
	bool is_asleep = way == WAY_BACK && wire->worker && wire->worker->is_stalled;
	return links_are_parted(wire->lan, wire_node_at(wire, way), to) ||
	       ((is_asleep || (to && to->is_stalled)) && first->kind < SEGMENT_BYTES);
}

static bool wire_deliver(struct wire *wire, enum way way)
{
	struct lane *lane = &wire->lanes[way];
	struct segment *segment;
	bool any = false;
	while ((segment = lane->first) && segment->due_ms <= wire->lan->now_ms && !wire_is_held(wire, way)) {
		lane->first = segment->next;
		if (!lane->first)
			lane->end = &lane->first;
		lane->bytes -= segment->count;
		arrive(wire, way, segment);
		free(segment);
		any = true;
	}
	return any;
}

/* A system connects for a process that is stalled, which accepts when it goes on. */
static bool queue_up(struct wire *wire)
{
	const struct segment *first = wire->lanes[WAY_THERE].first;
	if (wire->is_queued || !wire->attempt || !first || first->kind != SEGMENT_CONNECT ||
	    first->due_ms > wire->lan->now_ms || !wire->far_node || !wire->far_node->is_stalled ||
	    links_are_parted(wire->lan, wire->near_node, wire->far_node))
		return false;
	wire->is_queued = true;
	wire_say(wire, WAY_BACK, SEGMENT_ACCEPT, NULL, 0);
	return true;
}

bool wire_carry(struct wire *wire)
{
	if (wire->place.is_datagram)
		return wire_datagrams_carry(wire);
	bool any = queue_up(wire);
	for (enum way way = WAY_THERE; way <= WAY_BACK; way++) {
		any = listen_to(wire, way) || any;
		any = wire_deliver(wire, way) || any;
	}
	return any;
}

uint64_t wire_next_ms(const struct wire *wire)
{
	if (wire->place.is_datagram)
		return wire_datagrams_next_ms(wire);
	uint64_t next_ms = WHEEL_NEVER;
	for (enum way way = WAY_THERE; way <= WAY_BACK; way++) {
		const struct segment *first = wire->lanes[way].first;
		if (first && first->due_ms < next_ms && !wire_is_held(wire, way))
			next_ms = first->due_ms;
	}
	return next_ms;
}
