#include "worker/generations.h"

#include "conn/outgoing.h"
#include "worker/generation.h"
#include "worker/succession.h"
#include "worker/worker.h"

#include <assert.h>

/* The newest becomes the successor of all older ones, and its policies hold for them. Not for the candidate. */
static void follow_newest(struct worker *worker)
{
	struct agents *newest = &worker->generation->agents;
	for (struct generation *each = worker->generation->older; each; each = each->older)
		if (each != worker->candidate)
			agents_succeed(&each->agents, newest, newest);
	succession_begin(worker);
}

static void make_newest(struct worker *worker, struct generation *generation)
{
	succession_end(worker);
	generation->older = worker->generation;
	worker->generation = generation;
	worker->post.newest = &generation->agents;
	worker->config = generation->config;
	worker->host.opening_max = worker->config->handshakes;
	worker->host.outgoing->max = worker->config->outgoing;
	for (struct generation *each = generation->older; each; each = each->older)
		agents_ask_anew(&each->agents);
	follow_newest(worker);
}

/* It has its turns with the others, but no connections except those that are given to it. */
static void add_candidate(struct worker *worker, struct generation *generation)
{
	generation->older = worker->generation->older;
	worker->generation->older = generation;
	worker->candidate = generation;
}

static void report_adopted(struct worker *worker, struct generation *generation)
{
	worker_report(worker, &generation->adopted, worker->links.receivers->adopted);
}

void generations_adopt(struct worker *worker, struct generation *generation)
{
	generation_join(generation);
	atomic_fetch_add_explicit(&worker->generations, 1, memory_order_relaxed);
	if (generation->is_candidate)
		add_candidate(worker, generation);
	else
		make_newest(worker, generation);
	report_adopted(worker, generation);
}

void generations_promote(struct worker *worker, struct generation *candidate)
{
	/* Nothing has come between it and what serves: there is one candidate at a time. */
	assert(worker->candidate == candidate && worker->generation->older == candidate);
	worker->generation->older = candidate->older;
	worker->candidate = NULL;
	make_newest(worker, candidate);
	report_adopted(worker, candidate);
}

void generations_withdraw(struct worker *worker, struct generation *candidate)
{
	worker->candidate = NULL;
	agents_succeed(&candidate->agents, &worker->generation->agents, &candidate->agents);
	succession_begin(worker);
}

void generations_set_policy(struct worker *worker, enum reload_policy policy)
{
	struct generation *whose = worker->candidate ? worker->candidate : worker->generation;
	if (!worker->candidate)
		succession_end(worker);
	agents_set_policy(&whose->agents, policy);
	if (!worker->candidate)
		follow_newest(worker);
}

void generations_retire(struct worker *worker)
{
	assert(worker->generation);
	struct generation **link = &worker->generation->older;
	while (*link) {
		struct generation *generation = *link;
		if (generation == worker->candidate || !agents_have_ended(&generation->agents)) {
			link = &generation->older;
			continue;
		}
		*link = generation->older;
		generation_leave(generation);
		atomic_fetch_sub_explicit(&worker->generations, 1, memory_order_relaxed);
		worker_report(worker, &generation->retired, worker->links.receivers->retired);
	}
}
