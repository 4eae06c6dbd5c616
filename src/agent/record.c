#include "agent/record.h"

#include "agent/agent.h"
#include "agent/http.h"
#include "agent/run.h"
#include "agent/websocket.h"
#include "base/log.h"
#include "conn/peer.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

/* ---- onto the tape ---- */

static struct tape_entry entry_of(const struct channel *channel, enum trace_kind kind, size_t len)
{
	const struct agents *agents = agents_of_channel(channel);
	return (struct tape_entry){ .conn = channel->id,
				    .agents = channel->agents,
				    .generation = agents->instance.generation,
				    .len = (uint32_t)len,
				    .listener = channel->conn->endpoint->index,
				    .kind = (uint8_t)kind };
}

/* Half a conversation is of no use: from here on there is nothing of it, and whoever reads the trace leaves it out. */
static void agent_record_give_up(struct channel *channel)
{
	struct tape *tape = channel->conn->host->tape;
	struct tape_entry entry = entry_of(channel, TRACE_LOST, 0);
	tape_put(tape, &entry);
	tape->lost++;
	channel->recorded = false;
}

static void agent_record_put(struct channel *channel, const struct tape_entry *entry, const void *data)
{
	uint8_t *to = tape_put(channel->conn->host->tape, entry);
	if (!to)
		agent_record_give_up(channel);
	else if (data)
		memcpy(to, data, entry->len);
}

void record_open(struct channel *channel)
{
	struct tape *tape = channel->conn->host->tape;
	char peer[PEER_TEXT_BYTES];
	if (!tape || !tape_wants(tape, channel->conn->endpoint->slot))
		return;
	peer_text(channel->conn, peer, sizeof peer);
	struct tape_entry entry = entry_of(channel, TRACE_OPEN, strlen(peer));
	uint8_t *to = tape_put(tape, &entry);
	if (!to) {
		tape->lost++; /* nothing of it is there */
		return;
	}
	memcpy(to, peer, entry.len);
	tape->conns++;
	channel->recorded = true;
	channel->batch_limit = 1;
}

void record_parts(struct channel *channel, enum trace_kind kind, const struct record_part *parts, size_t n)
{
	size_t len = 0;
	for (size_t i = 0; i < n; i++)
		len += parts[i].len;
	struct tape_entry entry = entry_of(channel, kind, len);
	uint8_t *to = tape_put(channel->conn->host->tape, &entry);
	if (!to) {
		agent_record_give_up(channel);
		return;
	}
	for (size_t i = 0; i < n; i++) {
		memcpy(to, parts[i].data, parts[i].len);
		to += parts[i].len;
	}
}

void record_appended(struct channel *channel, const struct buf *out, size_t before)
{
	size_t n = buf_len(out) - before;
	if (__builtin_expect(channel->recorded, 0) && n)
		record_parts(channel, TRACE_OUT, &(struct record_part){ out->data + out->end - n, n }, 1);
}

void record_in(struct channel *channel, const struct batch *batch)
{
	if (batch->by->messages == &MESSAGE_REQUESTS) {
		http_record_in(channel, batch);
		return;
	}
	if (batch->by->messages == &MESSAGE_WEBSOCKET) {
		websocket_record_in(channel, batch);
		return;
	}
	const struct frame *frame = &batch->frames[0];
	bool wire = batch->by->messages->are_values, is_flat = batch->by->messages != &MESSAGE_PARTS;
	size_t before = is_flat ? 0 : codec_of(batch->by)->offset;
	size_t len = wire ? frame->end : frame->len + before;
	struct tape_entry entry = entry_of(channel, TRACE_IN, len);
	entry.wire = wire;
	uint8_t *to = tape_put(channel->conn->host->tape, &entry);
	if (!to)
		agent_record_give_up(channel);
	else if (wire)
		memcpy(to, channel->conn->host->input, len);
	else if (is_flat)
		memcpy(to, frame->data, len);
	else
		codec_flatten(codec_of(batch->by), frame, to);
}

void record_out(struct channel *channel, const void *data, size_t len)
{
	if (websocket_is_spoken(channel)) {
		websocket_record_out(channel, false, data, len);
		return;
	}
	struct tape_entry entry = entry_of(channel, TRACE_OUT, len);
	entry.wire = messages_of(channel)->are_values;
	agent_record_put(channel, &entry, data);
}

void record_note(struct channel *channel, enum trace_kind kind)
{
	struct tape_entry entry = entry_of(channel, kind, 0);
	agent_record_put(channel, &entry, NULL);
}

void record_eof(struct channel *channel)
{
	if (websocket_is_spoken(channel))
		websocket_record_end(channel);
	if (channel->recorded) /* it may have been given up */
		record_note(channel, TRACE_EOF);
}

void record_close(struct channel *channel, enum close_reason reason)
{
	const char *name = reason_name(reason);
	struct tape_entry entry = entry_of(channel, TRACE_CLOSE, strlen(name));
	agent_record_put(channel, &entry, name);
	channel->recorded = false;
}

/* ---- off the tape ---- */

struct taking {
	struct tape *tape;
	uint64_t redacting_us; /* so far */
	void (*take)(void *data, const struct trace_event *event);
	void *data;
};

static void complain_of(struct tape *tape, const struct agents *agents, const char *why, size_t n)
{
	tape->redaction_failures++;
	if (tape->complained)
		return;
	tape->complained = true;
	log_write(LOG_WARN, "record.redact failed: the frame is left out, as are all for which it fails",
		  F_BYTES("error", why, n), F_INT("worker", agents->instance.worker),
		  F_INT("generation", agents->instance.generation));
}

static void agent_record_complain(struct tape *tape, const struct agents *agents, const char *why)
{
	complain_of(tape, agents, why, strlen(why));
}

/*
 * Of this thread's own computing: a machine that is busy with other things, or was suspended, is not the redaction's
 * fault.
 */
static uint64_t computed_us(void)
{
	struct timespec spent;
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &spent);
	return (uint64_t)spent.tv_sec * 1000000 + (uint64_t)spent.tv_nsec / 1000;
}

/* What comes off a tape is bounded by what went on it, so a redaction makes little more of a frame than it was. */
enum { REDACTION_MORE_BYTES = 256 };

/*
 * Calls redact(frame, direction). What it returns is on the stack, and in the event. One that was ended by the guard
 * would hold up the worker with each frame again, so it is called no more.
 */
static void redact(struct taking *taking, const struct tape_entry *entry, struct trace_event *event)
{
	struct agents *agents = entry->agents;
	struct tape *tape = taking->tape;
	lua_State *lua = agents->vm.lua;
	event->redacted = true;
	if (tape->redact_overran)
		return;
	if (tape->redact_max_us && taking->redacting_us > tape->redact_max_us) {
		agent_record_complain(tape, agents, "it takes too long for as many frames as there are");
		return;
	}
	uint64_t began_us = computed_us();
	lua_rawgeti(lua, LUA_REGISTRYINDEX, agents->redact_ref);
	if (!vm_push_bytes(&agents->vm, lua, event->len ? (const char *)event->data : "", event->len)) {
		agent_record_complain(tape, agents, "not enough memory to call it");
		return;
	}
	lua_pushstring(lua, trace_kind_name(event->kind));
	guard_name(&agents->vm.guard, "record.redact", entry->conn);
	int failed = vm_pcall(&agents->vm, lua, 2, 1, &agents->endpoints[entry->listener].budget);
	taking->redacting_us += computed_us() - began_us;
	if (failed) {
		size_t n = lua_objlen(lua, -1);
		tape->redact_overran = agents->vm.verdict != GUARD_FINE;
		if (lua_type(lua, -1) == LUA_TSTRING)
			complain_of(tape, agents, lua_tostring(lua, -1), n);
		else
			agent_record_complain(tape, agents, "an error that is no text");
	} else if (lua_type(lua, -1) == LUA_TSTRING) {
		size_t len;
		const char *text = lua_tolstring(lua, -1, &len);
		if (len > event->len + REDACTION_MORE_BYTES) {
			agent_record_complain(tape, agents,
					      "what it returned is over 256 bytes longer than the frame");
			return;
		}
		event->redacted = false;
		event->data = (const uint8_t *)text;
		event->len = len;
	} else if (!lua_isnil(lua, -1)) {
		agent_record_complain(tape, agents, "it returned neither a string nor nil");
	}
}

static void take_entry(void *data, const struct tape_entry *entry, const uint8_t *bytes)
{
	struct taking *taking = data;
	struct agents *agents = entry->agents;
	struct trace_event event = { .kind = (enum trace_kind)entry->kind,
				     .wire = entry->wire,
				     .worker = taking->tape->worker,
				     .generation = entry->generation,
				     .at_us = entry->at_us,
				     .conn = entry->conn,
				     .data = bytes,
				     .len = entry->len };
	bool is_frame = event.kind == TRACE_IN || event.kind == TRACE_OUT;
	if (event.kind == TRACE_OPEN)
		event.listener = agents->endpoints[entry->listener].endpoint.name;
	if (is_frame && agents->redact_ref != LUA_NOREF)
		redact(taking, entry, &event);
	taking->take(taking->data, &event);
	lua_settop(agents->vm.lua, AT_TOP);
}

void record_take(struct tape *tape, void (*take)(void *data, const struct trace_event *event), void *data)
{
	struct taking taking = { .tape = tape, .take = take, .data = data };
	tape_take(tape, take_entry, &taking);
}
