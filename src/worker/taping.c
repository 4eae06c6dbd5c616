#include "worker/taping.h"

#include "agent/record.h"
#include "worker/worker.h"

#include <stdlib.h>

enum {
	CHUNK_BYTES = 8192, /* or a line: what a recording ends with is whole chunks */
	TAPE_BYTES = 65536, /* the tape is taken off when so much is on it, */
	TAPE_MS = 20,       /* ... or has been for so long */
};

/* The chunk that is being filled. */
struct filling {
	struct taping *taping;
	struct chunk *chunk;
};

static void taping_give(struct filling *filling)
{
	struct taping *taping = filling->taping;
	struct chunk *chunk = filling->chunk;
	filling->chunk = NULL;
	if (!chunk)
		return;
	atomic_fetch_add_explicit(taping->tape.held_bytes, chunk->used, memory_order_relaxed);
	taping->give(taping->owner, chunk);
}

/* A chunk that has room for a line, or NULL. */
static struct chunk *chunk_for(struct filling *filling, size_t line_bytes)
{
	struct chunk *chunk = filling->chunk;
	if (chunk && chunk->used + line_bytes <= chunk->room)
		return chunk;
	taping_give(filling);
	size_t room = line_bytes > CHUNK_BYTES ? line_bytes : CHUNK_BYTES;
	chunk = malloc(sizeof *chunk + room);
	if (chunk)
		*chunk = (struct chunk){ .room = room };
	return filling->chunk = chunk;
}

/* What follows an event that there is no memory for would be half a truth. */
static void add_line(void *data, const struct trace_event *event)
{
	struct filling *filling = data;
	struct tape *tape = &filling->taping->tape;
	struct chunk *chunk = tape->is_broken ? NULL : chunk_for(filling, trace_bytes(event));
	if (!chunk) {
		tape->is_broken = true;
		return;
	}
	chunk->used += trace_write(event, chunk->lines + chunk->used);
	chunk->conns += event->kind == TRACE_OPEN;
	if (event->kind == TRACE_IN || event->kind == TRACE_OUT) {
		chunk->frames++;
		chunk->frame_bytes += event->len;
	}
}

static void give_all(struct taping *taping)
{
	struct filling filling = { taping, NULL };
	record_take(&taping->tape, add_line, &filling);
	taping_give(&filling);
}

void taping_begin(struct worker *worker, struct order *order)
{
	worker->taping = (struct taping *)(void *)order;
	worker->host.tape = &worker->taping->tape;
}

static void forget_conn(struct conn *conn)
{
	conn->first.recorded = false;
}

void taping_end(struct worker *worker)
{
	struct taping *taping = worker->taping;
	if (!taping)
		return;
	/* What redactions do to connections is not recorded any more. */
	conn_host_each(&worker->host, forget_conn);
	worker->host.tape = NULL;
	give_all(taping);
	worker->taping = NULL;
	tape_deinit(&taping->tape);
	worker_report(worker, &taping->report, worker->links.receivers->taped);
}

/* How much longer it may stay on the tape; 0: no longer. There is something on it. */
static uint64_t rest_ms(const struct worker *worker)
{
	const struct tape *tape = &worker->taping->tape;
	uint64_t age_us = tape_clock_us() - tape_oldest_us(tape);
	if (tape->used >= TAPE_BYTES || age_us >= TAPE_MS * 1000)
		return 0;
	return TAPE_MS - age_us / 1000;
}

void taping_turn(struct worker *worker)
{
	struct taping *taping = worker->taping;
	if (!taping || !taping->tape.used)
		return;
	/* An older generation may retire any time, and with it the agents that entries are of. */
	if (worker->generation->older || !rest_ms(worker))
		give_all(taping);
}

bool taping_needs_agents(const struct worker *worker)
{
	return worker->taping && worker->taping->tape.used;
}

uint64_t taping_next_ms(const struct worker *worker)
{
	if (!worker->taping || !worker->taping->tape.used)
		return WHEEL_NEVER;
	return worker->host.now_ms + rest_ms(worker);
}
