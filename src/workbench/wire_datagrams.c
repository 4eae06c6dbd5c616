#include "workbench/wire_datagrams.h"

#include "net/datagram.h"
#include "workbench/peer.h"
#include "workbench/world.h"

#include <stdio.h>
#include <stdlib.h>

enum {
	QUEUE_BYTES = 65536,   /* that wait for a slow link; what comes then is lost */
	SOCKET_BYTES = 212992, /* that a system keeps for a process that does not read: Linux's default */
	US_PER_MS = 1000,
	US_PER_S = 1000 * 1000,
};

/* ---- the history ---- */

/* `fate`: what becomes of it, if it does not arrive; or "". */
static void note_datagram(const struct wire *wire, enum way way, const struct segment *segment,
			  const char *fate)
{
	struct history_bytes shown;
	char line[sizeof shown.text + 64];
	if (!lan_notes(wire->lan))
		return;
	if (segment->kind == SEGMENT_REFUSE) {
		wire_note_refusal(wire, fate);
		return;
	}
	snprintf(
	    line, sizeof line, "%s%s",
	    history_show(&shown, segment->bytes + DATAGRAM_HEAD_BYTES, segment->count - DATAGRAM_HEAD_BYTES),
	    fate);
	wire_note(wire, way, line);
}

/* ---- what is sent ---- */

static bool is_queue_full(const struct wire *wire, enum way way, size_t n)
{
	uint64_t now_us = wire->lan->now_ms * US_PER_MS, free_us = wire->lanes[way].free_us;
	uint64_t rate =
	    links_find(wire->lan, wire_node_at(wire, way), wire_node_at(wire, way_back(way)))->rate;
	double queued = free_us > now_us ? (double)(free_us - now_us) * (double)rate / US_PER_S : 0;
	return queued + (double)n > QUEUE_BYTES;
}

/* NULL: it is not. */
static const char *why_lost(const struct wire *wire, enum way way, size_t n)
{
	struct lan *lan = wire->lan;
	const struct lan_node *from = wire_node_at(wire, way), *to = wire_node_at(wire, way_back(way));
	if (links_are_parted(lan, from, to))
		return "  lost: parted";
	if (links_is_drawn(&lan->drawn, links_find(lan, from, to)->loss))
		return "  lost";
	return is_queue_full(wire, way, n) ? "  lost: the link is full" : NULL;
}

/* By when they arrive; of those that do at the same time, the one that was sent first is the first. */
static void send_off(struct wire *wire, enum way way, enum segment_kind kind, const uint8_t *record, size_t n)
{
	struct segment **link = &wire->lanes[way].first, *segment = wire_new_segment(kind, 0, record, n);
	const char *fate = why_lost(wire, way, n);
	if (fate) {
		note_datagram(wire, way, segment, fate);
		free(segment);
		return;
	}
	segment->due_ms = wire_due_ms(wire, way, n);
	while (*link && (*link)->due_ms <= segment->due_ms)
		link = &(*link)->next;
	segment->next = *link;
	*link = segment;
}

void wire_datagrams_post(struct wire *wire, enum way way)
{
	struct memory_stream *from = wire_speaker(wire, way);
	size_t n, at = 0;
	for (; !wire->lanes[way].is_cut && at < from->outward.bytes; at += n) {
		n = datagram_record_bytes(from->outward.first + at);
		send_off(wire, way, SEGMENT_BYTES, from->outward.first + at, n);
	}
	from->outward.bytes = 0;
}

/* ---- what arrives ---- */

static void arrive_at_listener(struct wire *wire, const struct segment *segment)
{
	if (lan_find_flow(wire)) {
		note_datagram(wire, WAY_THERE, segment, "");
		peer_send(wire->far, segment->bytes, segment->count);
	} else if (wire->far_node && wire->far_node->is_silent) {
		note_datagram(wire, WAY_THERE, segment, "  lost: nobody is there");
	} else {
		note_datagram(wire, WAY_THERE, segment, "");
		send_off(wire, WAY_BACK, SEGMENT_REFUSE, NULL, 0);
	}
}

/* Whose socket is closed already answers, too; but who serves many is not told of one. */
static void arrive_at_client(struct wire *wire, const struct segment *segment)
{
	struct near_end *near = wire->near;
	bool is_there = near && !near->memory.closing;
	if (segment->kind == SEGMENT_REFUSE) {
		note_datagram(wire, WAY_BACK, segment, is_there ? "" : "  lost: nobody is there");
		if (is_there)
			lan_refuse_datagram(wire);
		return;
	}
	note_datagram(wire, WAY_BACK, segment, is_there ? "" : "  lost: nobody is there");
	if (is_there)
		peer_put_datagram(&near->memory, near->made.conn.endpoint, &wire->worker->counters,
				  segment->bytes, segment->count);
}

/*
 * One at a time, so that a connection that reads has done so before the next one comes: what may wait is for those that
 * do not.
 */
static bool hand_over_next(struct wire *wire, enum way way)
{
	struct lane *lane = &wire->lanes[way];
	struct segment *segment = lane->first;
	bool ends = way == WAY_THERE && wire->far && !wire->far->gone && wire->far->memory.closing;
	if (!segment || segment->due_ms > wire->lan->now_ms || ends) /* else it is the next flow's */
		return false;
	lane->first = segment->next;
	if (way == WAY_THERE)
		arrive_at_listener(wire, segment);
	else
		arrive_at_client(wire, segment);
	free(segment);
	return true;
}

/* Who reads what comes that way; NULL: nobody does, or nobody has yet. */
static struct world_worker *receiver(const struct wire *wire, enum way way)
{
	if (way == WAY_BACK)
		return wire->worker;
	return wire->far ? wire->far->worker : NULL;
}

static struct counters *receivers_counters(const struct wire *wire, enum way way)
{
	struct world_worker *worker = receiver(wire, way);
	struct world *world = way == WAY_THERE ? wire->far_node->world : NULL;
	if (worker)
		return &worker->counters;
	return world ? &world->counters : NULL;
}

/* It is stalled, and its system keeps what comes, until there is no more room. */
static void keep_waiting(struct wire *wire, enum way way)
{
	struct segment *segment, **link = &wire->lanes[way].first;
	struct counters *to = receivers_counters(wire, way);
	size_t kept = 0;
	while ((segment = *link) && segment->due_ms <= wire->lan->now_ms) {
		if (segment->is_kept || kept + segment->count <= SOCKET_BYTES) {
			segment->is_kept = true;
			kept += segment->count;
			link = &segment->next;
			continue;
		}
		if (to)
			count(&to->lost_datagrams);
		note_datagram(wire, way, segment, "  lost: the socket is full");
		*link = segment->next;
		free(segment);
	}
}

static bool is_stalled(const struct wire *wire, enum way way)
{
	const struct lan_node *to = wire_node_at(wire, way_back(way));
	const struct world_worker *worker = receiver(wire, way);
	return (to && to->is_stalled) || (worker && worker->is_stalled);
}

bool wire_datagrams_carry(struct wire *wire)
{
	bool any = false;
	for (enum way way = WAY_THERE; way <= WAY_BACK; way++) {
		const struct memory_stream *from = wire_speaker(wire, way);
		if (!from || !from->outward.bytes)
			continue;
		wire_datagrams_post(wire, way);
		any = true;
	}
	for (enum way way = WAY_THERE; way <= WAY_BACK; way++) {
		if (is_stalled(wire, way))
			keep_waiting(wire, way);
		else
			any = hand_over_next(wire, way) || any;
	}
	return any;
}

uint64_t wire_datagrams_next_ms(const struct wire *wire)
{
	uint64_t next_ms = WHEEL_NEVER;
	for (enum way way = WAY_THERE; way <= WAY_BACK; way++) {
		const struct segment *first = wire->lanes[way].first;
		while (first && first->is_kept && is_stalled(wire, way))
			first = first->next;
		if (first && first->due_ms < next_ms)
			next_ms = first->due_ms;
	}
	return next_ms;
}
