#include "agent/link.h"

#include "agent/client.h"
#include "agent/member.h"

#include <stdlib.h>
#include <uv.h>

/* What a channel has to do with another; each of two has one. */
struct bond {
	struct bond *next; /* of the same channel */
	uint64_t other;
	uint8_t how; /* enum close_how: how this one ends the other */
	bool is_pipe;
	bool has_ended; /* its peer's end of stream was passed on */
	bool is_held;   /* it is paused until the other has taken its output */
};

static struct channel *channel_by_id(const struct agents *agents, uint64_t id)
{
	const struct conn_host *host = host_of_id(agents->host, id);
	return host ? idmap_get(&host->ids, id) : NULL;
}

/* ---- bonds ---- */

static struct bond *bonds_of(const struct agents *agents, const struct channel *channel)
{
	return channel->has_links ? idmap_get(&agents->links, channel->id) : NULL;
}

/* The map leads to the first of them. */
static int add_bond(struct agents *agents, struct channel *channel, struct bond *bond)
{
	struct bond *first = bonds_of(agents, channel);
	if (!first) {
		channel->has_links = !idmap_put(&agents->links, channel->id, bond);
		return channel->has_links ? 0 : UV_ENOMEM;
	}
	bond->next = first->next;
	first->next = bond;
	return 0;
}

static struct bond *new_bond(const struct channel *other, enum close_how how, bool is_pipe)
{
	struct bond *bond = calloc(1, sizeof *bond);
	if (bond)
		*bond = (struct bond){ .other = other->id, .how = (uint8_t)how, .is_pipe = is_pipe };
	return bond;
}

/* The one that was added last. */
static void take_back_bond(struct agents *agents, struct channel *channel, struct bond *bond)
{
	struct bond *first = bonds_of(agents, channel);
	if (first == bond) {
		idmap_remove(&agents->links, channel->id);
		channel->has_links = false;
	} else {
		first->next = bond->next;
	}
	free(bond);
}

static int bind_both(struct agents *agents, struct channel *one, struct channel *other, enum close_how how,
		     bool is_pipe)
{
	struct bond *ones = new_bond(other, how, is_pipe), *others = new_bond(one, how, is_pipe);
	if (!ones || !others || add_bond(agents, one, ones)) {
		free(ones);
		free(others);
		return UV_ENOMEM;
	}
	if (!add_bond(agents, other, others))
		return 0;
	free(others);
	take_back_bond(agents, one, ones);
	return UV_ENOMEM;
}

/* Again: as it was said last. */
static bool is_linked(const struct agents *agents, const struct channel *one, const struct channel *other,
		      enum close_how how)
{
	struct bond *bond = bonds_of(agents, one);
	while (bond && (bond->is_pipe || bond->other != other->id))
		bond = bond->next;
	if (bond)
		bond->how = (uint8_t)how;
	return bond;
}

int link_join(struct agents *agents, struct channel *one, struct channel *other, enum close_how how)
{
	if (is_linked(agents, one, other, how) && is_linked(agents, other, one, how))
		return 0;
	return bind_both(agents, one, other, how, false);
}

static struct bond *pipe_of(const struct channel *channel)
{
	struct bond *bond = bonds_of(agents_of_channel(channel), channel);
	while (bond && !bond->is_pipe)
		bond = bond->next;
	return bond;
}

/* Whoever goes by a reset takes the other along so. */
static enum close_how end_of(const struct bond *bond, const struct conn *conn, enum close_reason reason)
{
	bool is_lost = conn->how == CLOSE_RESET || reason == REASON_RESET;
	return bond->is_pipe && is_lost ? CLOSE_RESET : (enum close_how)bond->how;
}

void link_end(struct agents *agents, struct channel *channel, enum close_reason reason)
{
	struct bond *next, *bond = bonds_of(agents, channel);
	idmap_remove(&agents->links, channel->id);
	channel->has_links = channel->is_piped = false;
	for (; bond; bond = next) {
		struct channel *other = channel_by_id(agents, bond->other);
		next = bond->next;
		if (other)
			channel_close(other, REASON_LINK, end_of(bond, channel->conn, reason));
		free(bond);
	}
}

static void free_bonds(struct bond *bond)
{
	for (struct bond *next; bond; bond = next) {
		next = bond->next;
		free(bond);
	}
}

void link_free(struct agents *agents)
{
	for (size_t i = 0; i < agents->links.capacity; i++)
		if (agents->links.slots[i].id)
			free_bonds(agents->links.slots[i].value);
	idmap_deinit(&agents->links);
}

/* ---- pipes ---- */

static int speak_raw(struct channel *channel)
{
	struct codec raw;
	codec_init_named(&raw, "raw", CONN_SCRATCH_BYTES);
	raw.protocol.messages = &MESSAGE_STRINGS;
	return conn_set_protocol(channel->conn, &raw.protocol, sizeof raw);
}

int link_pipe(struct agents *agents, struct channel *one, struct channel *other)
{
	if (one->is_piped || other->is_piped || other->conn->has_further)
		return UV_EBUSY;
	int err = speak_raw(one);
	if (err)
		return err;
	err = speak_raw(other);
	bool both_are_raw = !err;
	err = err ? err : bind_both(agents, one, other, CLOSE_FLUSH, true);
	if (err) { /* what they spoke before is not known any more */
		channel_close(one, REASON_LINK, CLOSE_NOW);
		if (both_are_raw)
			channel_close(other, REASON_LINK, CLOSE_NOW);
		return err;
	}
	one->is_piped = other->is_piped = true;
	/* One without an agent was read from in straight lines. */
	struct channel *const BOTH[] = { one, other };
	for (unsigned i = 0; i < 2; i++)
		if (client_of(BOTH[i]))
			channel_set_busy(BOTH[i], false);
	return 0;
}

static struct channel *piped_to(const struct channel *channel, struct bond **bond)
{
	*bond = pipe_of(channel);
	return *bond ? channel_by_id(agents_of_channel(channel), (*bond)->other) : NULL;
}

unsigned pipe_frames(struct channel *channel, const struct batch *batch)
{
	struct bond *bond;
	struct channel *other = piped_to(channel, &bond);
	for (unsigned i = 0; i < batch->count; i++) {
		if (!other || channel_pass(other, batch->frames[i].data, batch->frames[i].len)) {
			channel_close(channel, REASON_LINK, CLOSE_NOW);
			return batch->count;
		}
	}
	if (other && other->conn->choked && !channel->paused) {
		bond->is_held = true;
		channel_pause(channel);
	}
	return batch->count;
}

/* Our end of stream to the other is what the peer's was to us. */
enum eof_answer pipe_eof(struct channel *channel)
{
	struct bond *bond, *others;
	struct channel *other = piped_to(channel, &bond);
	if (!other)
		return EOF_CLOSE;
	bond->has_ended = true;
	piped_to(other, &others);
	if (others && others->has_ended) {
		channel_close(other, REASON_PEER, CLOSE_FLUSH);
		return EOF_CLOSE;
	}
	channel_shutdown(other);
	if (other->has_hub)
		member_end_sent(other);
	return EOF_KEEP;
}

void pipe_writable(struct channel *channel)
{
	struct bond *bond, *others;
	struct channel *other = piped_to(channel, &bond);
	if (!other)
		return;
	piped_to(other, &others);
	if (others && others->is_held)
		channel_resume(other);
	if (others)
		others->is_held = false;
}
